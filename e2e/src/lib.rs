//! The proof with real processes: what the end-to-end scenarios are built from.
//!
//! A [`Scene`] owns everything that a scenario starts: an [`Origin`] (ffmpeg and the directory that it
//! publishes into), nginx as the CDN whose access log is the count of CDN bytes, an orchestrator, a
//! signer, peers, and [`Viewer`]s that read the peers as any HLS player would and compare every byte.
//! Nothing here knows how Espalier works inside: it is driven by its command line, its `/stats` and
//! its HLS, as scripts and players drive it.
//!
//! Invariants: every process dies with its scene, also on panic and when the test itself is killed;
//! nothing waits for a time, everything for a condition with a deadline; measured times are reported
//! ([`Figures`]) and asserted only where a bound is promised.
//!
//! What this crate does not do: start browsers, drive clusters, or measure the data path's CPU.

pub mod binaries;
pub mod cdn;
pub mod cli;
pub mod cluster;
pub mod figures;
pub mod ground;
pub mod http;
pub mod joiner;
mod logs;
pub mod namespaces;
pub mod orchestrator;
pub mod origin;
pub mod peer;
pub mod playlist;
pub mod process;
pub mod publisher;
pub mod rhythm;
pub mod scene;
pub mod statistics;
pub mod stats;
pub mod topology;
pub mod viewer;
pub mod wait;

pub use cdn::Cdn;
pub use cli::Cli;
pub use figures::Figures;
pub use ground::Ground;
pub use http::Http;
pub use orchestrator::Orchestrator;
pub use origin::{Form, Origin};
pub use peer::Peer;
pub use process::Process;
pub use scene::Scene;
pub use stats::Stats;
pub use topology::Tree;
pub use viewer::Viewer;
