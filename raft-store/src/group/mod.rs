//! One group: openraft's view of the store.

mod codec;
mod memory;
mod reader;
mod store;

pub use reader::GroupReader;
pub use store::GroupStore;
