//! The engine of programs: sled in a directory of its own, and the mark of what was acknowledged.

pub(crate) mod engine;
pub(crate) mod mark;
pub(crate) mod open;
