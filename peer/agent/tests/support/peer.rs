//! An agent of the test's, and what it says about itself.

use std::sync::Arc;

use espalier_peer::transport::{MemoryNetwork, Transport, TransportConfig, WebRtcTransport};
use espalier_peer::{Agent, AgentConfig};
use serde_json::Value;

use super::{DEADLINE, Node, segment_hash, wait_for};

/// An agent and what it says about itself.
pub(crate) struct Peer {
    pub(crate) id: String,
    pub(crate) agent: Agent,
    http: reqwest::Client,
}

impl Peer {
    async fn start(node: &Node, network: &MemoryNetwork, name: &str) -> Self {
        Self::start_on(node, Arc::new(network.transport(name))).await
    }

    /// An agent with real links on loopback.
    pub(crate) async fn start_real(node: &Node) -> Self {
        let config = TransportConfig {
            bind: vec![[127, 0, 0, 1].into()],
            ..TransportConfig::default()
        };
        Self::start_on(node, Arc::new(WebRtcTransport::new(config).unwrap())).await
    }

    async fn start_on(node: &Node, transport: Arc<dyn Transport>) -> Self {
        let mut config = AgentConfig::new(&node.uri, "demo", "token");
        config.listen = Some(([127, 0, 0, 1], 0).into());
        let id = config.peer.to_string();
        let agent = Agent::start(config, transport).await.unwrap();
        Self {
            id,
            agent,
            http: reqwest::Client::new(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        let address = self.agent.local_address().unwrap();
        let request = self
            .http
            .get(format!("http://{address}{path}"))
            .timeout(DEADLINE);
        request.send().await.unwrap()
    }

    pub(crate) async fn stats(&self) -> Value {
        serde_json::from_str(&self.get("/stats").await.text().await.unwrap()).unwrap()
    }

    /// The completed objects that came whole from the parent.
    pub(crate) async fn taken_from_parent(&self) -> Vec<Value> {
        let stats = self.stats().await;
        let objects = stats["objects"].as_array().unwrap().iter();
        objects
            .filter(|object| object["from"]["parent"] == object["length"])
            .cloned()
            .collect()
    }

    pub(crate) async fn newest(&self) -> u64 {
        self.stats().await["tracks"][0]["newest"]
            .as_u64()
            .unwrap_or_default()
    }
}

/// A root and its child, both flowing.
pub(crate) async fn root_and_child(node: &Node, network: &MemoryNetwork) -> (Peer, Peer) {
    let root = Peer::start(node, network, "root").await;
    let child = Peer::start(node, network, "child").await;
    node.assign(&root.id, None, &[&child.id]);
    node.assign(&child.id, Some(&root.id), &[]);
    wait_for("the child takes objects from its parent", || async {
        (child.taken_from_parent().await.len() >= 4).then_some(())
    })
    .await;
    (root, child)
}

/// Every completed object in `stats` has the hash of the origin's.
pub(crate) fn every_object_is_the_origins(stats: &Value) {
    let objects = stats["objects"].as_array().unwrap();
    assert!(!objects.is_empty());
    for object in objects {
        let sequence = object["sequence"].as_u64().unwrap();
        assert_eq!(object["sha256"], segment_hash(sequence), "{object}");
    }
}
