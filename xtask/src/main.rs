//! The project's two commands: demo and test.
fn main() {}
