//! Several nodes in one process, over real connections, with a cluster that does what a test says.

mod cluster;
mod links;

#[path = "../../tests/node/support.rs"]
#[expect(dead_code, reason = "the tests from outside use the rest")]
mod support;
