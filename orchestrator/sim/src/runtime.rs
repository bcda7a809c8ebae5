//! openraft's simulated runtime with nodes that can be killed.
//!
//! A task belongs to the life of a node if the task that spawned it does. When that life ends, none of its
//! tasks is ever polled again: they stop where they are, as a killed process does, and run no clean-up.
//! What belongs to no life (packets on their way, the world itself) goes on.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use espalier_shards::NodeId;
use futures::future::BoxFuture;
use openraft::{AsyncRuntime, Instant as _, OptionalSend};
use openraft_rt_sim::{SimInstant, SimRuntime};

thread_local! {
    static CURRENT: RefCell<Option<Arc<Life>>> = const { RefCell::new(None) };
}

/// One process of a node, from its start to its death.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) node: NodeId,
    /// Counts the node's processes.
    pub(crate) boot: u64,
    dead: AtomicBool,
}

impl Life {
    pub(crate) fn new(node: NodeId, boot: u64) -> Arc<Self> {
        Arc::new(Self {
            node,
            boot,
            dead: AtomicBool::new(false),
        })
    }

    pub(crate) fn end(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }
}

/// The runtime that the simulated groups run on.
#[derive(Debug)]
pub struct NodeRuntime(SimRuntime);

/// The virtual time since the start.
pub(crate) fn now() -> Duration {
    SimInstant::now().elapsed_since_start()
}

/// Spawns a task of this life, or of nobody's.
pub(crate) fn spawn_in<F>(life: Option<Arc<Life>>, future: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let future = Box::pin(future);
    drop(SimRuntime::spawn(Tagged { life, future }));
}

struct Tagged<T> {
    life: Option<Arc<Life>>,
    future: BoxFuture<'static, T>,
}

impl<T> Future for Tagged<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        if self.life.as_ref().is_some_and(|life| life.is_over()) {
            return Poll::Pending;
        }
        let _entered = Entered(CURRENT.replace(self.life.clone()));
        self.future.as_mut().poll(context)
    }
}

/// Gives the thread back to the life that it was in before.
struct Entered(Option<Arc<Life>>);

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

impl AsyncRuntime for NodeRuntime {
    type JoinError = <SimRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <SimRuntime as AsyncRuntime>::Sleep;
    type Instant = SimInstant;
    type TimeoutError = <SimRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <SimRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <SimRuntime as AsyncRuntime>::Mpsc;
    type Watch = <SimRuntime as AsyncRuntime>::Watch;
    type Oneshot = <SimRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let life = CURRENT.with_borrow(Clone::clone);
        let future = Box::pin(future);
        SimRuntime::spawn(Tagged { life, future })
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        SimRuntime::sleep(duration)
    }

    fn sleep_until(deadline: SimInstant) -> Self::Sleep {
        SimRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        SimRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: SimInstant,
        future: F,
    ) -> Self::Timeout<R, F> {
        SimRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        SimRuntime::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Self(SimRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, std::io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        SimRuntime::spawn_blocking(work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn what_a_dead_node_spawned_is_never_polled_again() {
        let mut runtime = SimRuntime::with_seed(1);
        runtime.block_on(async {
            let (life, other) = (Life::new(1, 1), Life::new(2, 1));
            let count = Arc::new(AtomicU32::new(0));
            for life in [&life, &other] {
                let count = Arc::clone(&count);
                spawn_in(Some(Arc::clone(life)), async move {
                    // The child belongs to the same life.
                    drop(NodeRuntime::spawn(async move {
                        loop {
                            NodeRuntime::sleep(Duration::from_millis(10)).await;
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }));
                });
            }
            SimRuntime::sleep(Duration::from_millis(55)).await;
            assert_eq!(count.load(Ordering::Relaxed), 10);
            life.end();
            SimRuntime::sleep(Duration::from_millis(100)).await;
            assert_eq!(count.load(Ordering::Relaxed), 20);
        });
    }
}
