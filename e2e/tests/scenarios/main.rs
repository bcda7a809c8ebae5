//! The scenarios, in one program so that it is linked once. Run them one at a time:
//! `cargo nextest run --release -p espalier-e2e -j1`.

mod chain;
mod cluster;
mod commands;
mod corruption;
mod frozen;
mod harness;
mod ipv6;
mod joins;
mod latency;
mod origin_faults;
mod outage;
mod player;
mod relay;
mod steady;
mod stripes;
mod tree;
