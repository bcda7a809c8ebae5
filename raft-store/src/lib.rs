//! openraft's log, vote, committed index and snapshot files of many groups, in one sled database.
//!
//! ```text
//!  GroupStore ─┐  enter            take            commit
//!  GroupStore ─┼────────► queue ────────► writer ─────────► engine: sled, or a simulated disk
//!  GroupStore ─┘           ▲               │ ledger (pure): operations → batch
//!      ▲                   └── done ◄──────┘
//!      └──────── recent entries from memory, older ones from the engine
//! ```
//!
//! Invariants: nothing is acknowledged before its bytes are on the disk; one sync serves all groups that
//! wait; a store from which anything acknowledged is missing is not opened.
//!
//! It knows nothing of channels, of the network, or of what entries mean.

pub mod batch;
pub mod engine;
mod error;
mod group;
mod health;
mod key;
pub mod ledger;
mod load;
pub mod memory;
mod queue;
pub mod record;
mod sled;
pub mod snapshot;
mod store;
pub mod sync;
mod writer;

pub use error::{Damage, OpenError, StoreError};
pub use group::{GroupReader, GroupStore};
pub use health::Health;
pub use key::{GroupId, KEY_BYTES, Key, Kind};
pub use queue::QueueLimits;
pub use store::{Figures, Store, StoreOptions};
