//! The demo's origin and CDN: an HTTP server that counts who takes how much.
//!
//! It serves what ffmpeg writes into a directory, or the sample media in this repository looped as a
//! live stream. It is no stub: what it says about ranges, types and windows is what a CDN says.

mod byte_range;
mod content;
mod sample;
mod server;
mod traffic;

pub(crate) use content::Content;
pub(crate) use sample::LoopedSample;
pub(crate) use server::OriginServer;
pub(crate) use traffic::{Traffic, TrafficTotals};
