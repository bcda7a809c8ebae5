//! Addresses for nodes that are told each other's before they listen.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// An address that nobody uses nor will: the host is this process's own part of 127.0.0.0/8, so that tests beside
/// it cannot choose the same, and the port is one that the system gives to no outgoing connection, so that a node
/// that starts again finds its own free.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT_PORT: AtomicU16 = AtomicU16::new(10_000);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    // Linux counts processes with 22 bits, which leaves 127.0.0.0 to 127.63.255.255 to everybody else.
    let host = Ipv4Addr::new(127, 64 | high, middle, low);
    loop {
        let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from((host, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
