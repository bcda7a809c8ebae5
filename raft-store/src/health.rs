//! How the store is, for whoever wants to know or to wait for a change.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// How the store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It acknowledges.
    Well,
    /// The disk is full: nothing is acknowledged, nothing acknowledged is lost, and it goes on by itself
    /// when there is room. The words say what is missing.
    Full(Arc<str>),
    /// It acknowledges nothing any more; only opening it anew, in a new process, can tell what stands.
    Failed(Arc<str>),
    /// It was closed.
    Closed,
}

/// The current health, and who waits for another.
#[derive(Debug)]
pub(crate) struct HealthBoard {
    inner: Mutex<(Health, Vec<Waker>)>,
}

impl HealthBoard {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::new((Health::Well, Vec::new())),
        }
    }

    pub(crate) fn get(&self) -> Health {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .clone()
    }

    /// Sets it; a store that failed or was closed stays so.
    pub(crate) fn set(&self, health: Health) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = matches!(inner.0, Health::Failed(_) | Health::Closed);
        if ended || inner.0 == health {
            return;
        }
        inner.0 = health;
        let wakers = std::mem::take(&mut inner.1);
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until it is something else than `known`; returns what it is then.
    pub(crate) async fn changed(&self, known: &Health) -> Health {
        poll_fn(|context| {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            if inner.0 != *known {
                return Poll::Ready(inner.0.clone());
            }
            if !inner.1.iter().any(|waker| waker.will_wake(context.waker())) {
                inner.1.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}
