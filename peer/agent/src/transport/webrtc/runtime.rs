//! The runtime that the `webrtc` crate runs on: tokio, with larger socket buffers, counted tasks, and
//! a way to wake the crate's driver.
//!
//! Larger buffers: SCTP here is not paced, so it sends in bursts; with the system's default of about
//! 208 KiB a receiving socket overflows, and each loss costs a retransmission timeout of a second.
//!
//! The nudge: in each round the driver sends what is ready, *then* handles events, then sleeps until
//! a packet or a timer wakes it. What handling an event made ready waits for that: the first DTLS
//! flight, made when ICE has selected a pair, for the next connectivity check, and SCTP's INIT, made
//! when DTLS is done, for the next of ICE's 200 ms ticks. Adding a remote candidate wakes it no more.
//! That is why a link took 0.4 to 1.6 s to open. [`LinkRuntime::nudge`] ends the driver's present or
//! next sleep; the driver then takes it that a timer is due, finds none, and begins a new round.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime,
    TokioRuntime, UdpSockRef, UdpSocketState,
};
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Returns the receive buffer that the kernel grants a socket that asks for `wanted` bytes.
pub(super) fn granted_receive_buffer(wanted: usize) -> io::Result<usize> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
    state.set_recv_buffer_size(UdpSockRef::from(&socket), wanted)?;
    state.recv_buffer_size(UdpSockRef::from(&socket))
}

/// One link's runtime. Delegates to [`TokioRuntime`]; see the module.
#[derive(Debug)]
pub(super) struct LinkRuntime {
    socket_buffer: usize,
    tasks: TaskTracker,
    nudged: Arc<Notify>,
    /// No nudge will come any more, so sleeps need not listen for one.
    settled: AtomicBool,
}

impl LinkRuntime {
    pub(super) fn new(socket_buffer: usize, tasks: TaskTracker) -> Self {
        Self {
            socket_buffer,
            tasks,
            nudged: Arc::new(Notify::new()),
            settled: AtomicBool::new(false),
        }
    }

    /// Makes the driver begin a new round now, or as soon as it has ended the present one.
    pub(super) fn nudge(&self) {
        self.nudged.notify_one();
    }

    /// Says that the link is open: from now on the driver's own timers and packets suffice.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::Release);
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
        if self.settled.load(Ordering::Acquire) {
            return TokioRuntime.sleep(duration);
        }
        let nudged = Arc::clone(&self.nudged);
        Box::pin(async move {
            tokio::select! {
                () = tokio::time::sleep(duration) => {}
                () = nudged.notified() => {}
            }
        })
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
