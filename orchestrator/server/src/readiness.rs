//! Whether the node says that it is ready, to the probes and to the standard health service.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tonic_health::server::HealthReporter;

/// The services that the health service speaks of; the empty name is the whole node.
const SERVICES: [&str; 6] = [
    "",
    "espalier.v1.ChannelService",
    "espalier.v1.TopologyService",
    "espalier.v1.ClusterService",
    "espalier.v1.PeerService",
    "espalier.v1.SignerService",
];

/// Says it to both. Clones say the same.
#[derive(Clone)]
pub(crate) struct Readiness {
    health: HealthReporter,
    ready: Arc<AtomicBool>,
}

impl Readiness {
    /// Not ready yet.
    pub(crate) fn new() -> Self {
        Self {
            health: HealthReporter::new(),
            ready: Arc::default(),
        }
    }

    /// What the health service reports from.
    pub(crate) fn health(&self) -> HealthReporter {
        self.health.clone()
    }

    /// Whether the node is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    pub(crate) async fn set(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
        let status = if ready {
            tonic_health::ServingStatus::Serving
        } else {
            tonic_health::ServingStatus::NotServing
        };
        for service in SERVICES {
            self.health.set_service_status(service, status).await;
        }
    }
}
