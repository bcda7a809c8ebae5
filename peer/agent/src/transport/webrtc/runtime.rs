//! The runtime that the `webrtc` crate runs on: tokio, with larger socket buffers and counted tasks.
//!
//! SCTP here is not paced, so it sends in bursts; with the system's default of about 208 KiB a
//! receiving socket overflows, and each loss costs a retransmission timeout of a second.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ::webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime,
    TokioRuntime, UdpSockRef, UdpSocketState,
};
use tokio_util::task::TaskTracker;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Delegates to [`TokioRuntime`]; see the module.
#[derive(Debug)]
pub(super) struct LinkRuntime {
    socket_buffer: usize,
    tasks: TaskTracker,
}

impl LinkRuntime {
    pub(super) fn new(socket_buffer: usize, tasks: TaskTracker) -> Self {
        Self { socket_buffer, tasks }
    }
}

impl Runtime for LinkRuntime {
    fn spawn(&self, future: BoxFuture<'static, ()>) -> Box<dyn JoinHandle> {
        TokioRuntime.spawn(Box::pin(self.tasks.track_future(future)))
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // The kernel grants what its limits allow (net.core.rmem_max); less is not an error.
        state.set_recv_buffer_size(UdpSockRef::from(&socket), self.socket_buffer)?;
        state.set_send_buffer_size(UdpSockRef::from(&socket), self.socket_buffer)?;
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn wrap_tcp_listener(
        &self,
        listener: std::net::TcpListener,
    ) -> io::Result<Arc<dyn AsyncTcpListener>> {
        TokioRuntime.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(
        &'a self,
        remote_addr: SocketAddr,
    ) -> BoxFuture<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        TokioRuntime.connect_tcp(remote_addr)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        TokioRuntime.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        TokioRuntime.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }

    fn yield_now(&self) -> BoxFuture<'static, ()> {
        TokioRuntime.yield_now()
    }

    fn name(&self) -> &'static str {
        "espalier"
    }
}
