//! A cluster of three real nodes, and what may happen to them while a dozen viewers watch.
//!
//! Every scene has the same stage: the stream, twelve peers over all gateways in one tree, a player at each that
//! compares every byte, and channels with nobody real in them, one in each Raft group, in which sessions come and go: so
//! every group has something to lose. What is measured goes into figures; what must hold is asserted.

mod calm;
mod disks;
mod kills;
mod partition;
mod restarts;
mod stage;
mod stopped;
