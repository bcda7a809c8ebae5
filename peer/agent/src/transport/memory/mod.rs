//! The in-memory twin of the WebRTC transport, for tests: the same contract, no sockets.
//!
//! A [`MemoryNetwork`] knows endpoints by name and carries their links, with the latency and the rate
//! that it is told for each pair. An endpoint can be frozen, as a stopped process is (nothing leaves
//! it, nothing is taken by it, nobody is told), and killed, as a process is: its links end without a
//! word, and the other sides hear of it only when the crate's ICE would have given up.
//!
//! Time is tokio's. Bytes count as acknowledged when the other side's caller
//! has taken them; the way back of an acknowledgement takes no time.

mod end;
mod link;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::end::{End, Start};
use super::{EventSender, Link, LinkError, LinkId, MAX_SDP_BYTES, Transport};

/// How long the WebRTC transport waits for an answer, and for a peer that is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a path between two endpoints does to messages, each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathConditions {
    /// How long a message takes once it has left.
    pub latency: Duration,
    /// Bytes that can leave a second, for each link and direction; absent: no limit.
    pub bytes_per_second: Option<u64>,
}

/// A network in memory. Clones are the same network.
#[derive(Debug, Clone, Default)]
pub struct MemoryNetwork {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    endpoints: HashMap<String, Endpoint>,
    paths: HashMap<(String, String), PathConditions>,
    default_path: PathConditions,
    patience: Option<Duration>,
    /// Offers that nobody has accepted yet.
    offers: HashMap<String, Arc<End>>,
}

/// One transport's place in the network.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    name: String,
    killed: CancellationToken,
    frozen: watch::Sender<bool>,
}

impl Endpoint {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            killed: CancellationToken::new(),
            frozen: watch::Sender::new(false),
        }
    }

    /// Waits until the endpoint is not frozen.
    async fn thawed(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        drop(self.frozen.subscribe().wait_for(|frozen| !frozen).await);
    }
}

impl MemoryNetwork {
    /// Makes a network of perfect paths.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a transport for the endpoint of that name; one that was killed comes back anew.
    #[must_use]
    pub fn transport(&self, name: &str) -> MemoryTransport {
        let endpoint = Endpoint::new(name);
        self.with(|state| state.endpoints.insert(name.to_owned(), endpoint.clone()));
        MemoryTransport {
            network: self.clone(),
            endpoint,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Sets what every path does that is not set by itself.
    pub fn set_default_path(&self, conditions: PathConditions) {
        self.with(|state| state.default_path = conditions);
    }

    /// Sets what the path between two endpoints does, both ways, from the next message on.
    pub fn set_path(&self, one: &str, other: &str, conditions: PathConditions) {
        self.with(|state| {
            state
                .paths
                .insert((one.to_owned(), other.to_owned()), conditions);
            state
                .paths
                .insert((other.to_owned(), one.to_owned()), conditions);
        });
    }

    /// Sets how long links made from now on wait for an answer, and for a peer that is dead, before they
    /// fail; 10 s if never set, as over WebRTC.
    pub fn set_patience(&self, patience: Duration) {
        self.with(|state| state.patience = Some(patience));
    }

    /// Freezes or thaws an endpoint; an unknown one stays unknown.
    pub fn freeze(&self, name: &str, frozen: bool) {
        if let Some(endpoint) = self.with(|state| state.endpoints.get(name).cloned()) {
            endpoint.frozen.send_replace(frozen);
        }
    }

    /// Kills an endpoint: its links end without a word, and it makes no new ones.
    pub fn kill(&self, name: &str) {
        if let Some(endpoint) = self.with(|state| state.endpoints.remove(name)) {
            endpoint.killed.cancel();
        }
    }

    fn patience(&self) -> Duration {
        self.with(|state| state.patience.unwrap_or(PATIENCE))
    }

    fn path(&self, from: &Endpoint, to: &Endpoint) -> PathConditions {
        self.with(|state| {
            let key = (from.name.clone(), to.name.clone());
            state.paths.get(&key).copied().unwrap_or(state.default_path)
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(
            &mut self
                .shared
                .state
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

/// Makes links within a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    endpoint: Endpoint,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl MemoryTransport {
    fn start(
        &self,
        id: LinkId,
        start: Start,
        events: EventSender,
    ) -> Result<Arc<dyn Link>, LinkError> {
        if self.closing.is_cancelled() || self.endpoint.killed.is_cancelled() {
            return Err(LinkError::ShutDown);
        }
        let (end, link, queues) = End::new(
            self.network.clone(),
            self.endpoint.clone(),
            id,
            events,
            self.closing.child_token(),
            matches!(start, Start::Offer),
        );
        self.tasks.spawn(end.run(start, queues));
        Ok(Arc::new(link))
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    fn offer(&self, link: LinkId, events: EventSender) -> Result<Arc<dyn Link>, LinkError> {
        self.start(link, Start::Offer, events)
    }

    fn accept(
        &self,
        link: LinkId,
        offer_sdp: String,
        events: EventSender,
    ) -> Result<Arc<dyn Link>, LinkError> {
        if offer_sdp.len() > MAX_SDP_BYTES {
            return Err(LinkError::OfferTooLarge {
                bytes: offer_sdp.len(),
                limit: MAX_SDP_BYTES,
            });
        }
        self.start(link, Start::Accept(offer_sdp), events)
    }

    /// There are no addresses here to learn.
    fn use_stun(&self, _uris: &[String]) {}

    async fn shutdown(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests;
