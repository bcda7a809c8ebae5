//! The terminal while a live view owns it.
//!
//! Invariant: however the view ends, by a key, a signal, a failure or a panic, the terminal is given back
//! as it was. What is drawn is decided by pure functions from a picture; nothing here knows channels.

pub(crate) mod channel_view;
mod keys;
mod screen;
pub(crate) mod tree_table;

pub(crate) use keys::{Key, Keys};
pub(crate) use screen::Screen;
