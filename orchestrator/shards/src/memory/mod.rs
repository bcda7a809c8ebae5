//! A network and snapshots in memory, on any runtime: for tests and for the simulator.

mod network;
mod snapshots;

pub use network::{Fabric, MemoryNetwork};
pub use snapshots::{MemorySnapshot, MemorySnapshots};
