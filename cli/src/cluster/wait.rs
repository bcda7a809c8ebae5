//! Waits until a node is as it is wanted, and shows how far that is.

use std::io::IsTerminal as _;
use std::time::Duration;

use espalier_process::{Failure, format_duration};
use espalier_proto::v1;
use indicatif::ProgressBar;
use tokio::time::{Instant, sleep};
use tonic::Code;

use super::failure::failure;
use super::record::NodeRecord;
use crate::connection::Clusters;
use crate::output;

/// How often the cluster is asked.
const LOOK: Duration = Duration::from_millis(250);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// It votes everywhere.
    Active,
    /// It leads nothing and nobody is attached to it.
    Drained,
    /// It is out of the cluster.
    Gone,
}

impl Wanted {
    /// What is still missing; `None`: nothing.
    pub(super) fn missing(self, node: Option<&NodeRecord>) -> Option<String> {
        match (self, node) {
            (Self::Active | Self::Drained, None) => Some("it is not in the cluster".to_owned()),
            (Self::Gone, None) => None,
            (Self::Gone, Some(node)) => Some(format!("it is {}", node.state)),
            (Self::Active, Some(node)) => {
                (node.state != "active").then(|| format!("it is {}", node.state))
            }
            (Self::Drained, Some(node)) => {
                let done = node.leads == 0 && node.sessions == 0;
                let left = || format!("it leads {} and has {} sessions", node.leads, node.sessions);
                (!done).then(left)
            }
        }
    }
}

/// Waits, and returns the node as it was last seen.
pub(super) async fn until(
    clusters: &mut Clusters,
    seen: NodeRecord,
    wanted: Wanted,
    within: Duration,
) -> Result<NodeRecord, Failure> {
    let until = Instant::now() + within;
    let id = seen.node;
    let mut last = seen;
    let mut progress = Progress::new(id);
    loop {
        let asked = clusters.get_cluster(v1::GetClusterRequest::default()).await;
        let missing = match asked {
            Ok(cluster) => {
                let nodes = cluster.into_inner().nodes.into_iter();
                let node = nodes.map(NodeRecord::from).find(|node| node.node == id);
                let missing = wanted.missing(node.as_ref());
                last = node.unwrap_or(last);
                missing
            }
            // Leaders move meanwhile; that may be what is waited for.
            Err(status) if status.code() == Code::Unavailable => Some(status.message().to_owned()),
            Err(status) => return Err(failure("the cluster cannot be watched", &status)),
        };
        let Some(missing) = missing else {
            progress.end();
            return Ok(last);
        };
        if Instant::now() >= until {
            progress.end();
            let waited = format_duration(within);
            return Err(Failure::failed(format!("node {id} is not there yet"))
                .because(format!("after {waited}, {missing}"))
                .next("it goes on without being watched: ask again, with a longer --timeout"));
        }
        progress.show(&missing);
        sleep(LOOK).await;
    }
}

/// On a terminal one line that changes; elsewhere a line for each change. On stderr, as all words about work.
struct Progress {
    node: u64,
    bar: Option<ProgressBar>,
    said: String,
}

impl Progress {
    fn new(node: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            node,
            bar,
            said: String::new(),
        }
    }

    fn show(&mut self, missing: &str) {
        if self.said == missing {
            return;
        }
        missing.clone_into(&mut self.said);
        let text = format!("node {}: {missing}", self.node);
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None => output::say(text),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use espalier_proto::v1::ClusterNodeState as State;

    use super::*;

    #[test]
    fn what_is_missing_is_said_until_nothing_is() {
        let node = |state: State, leads, sessions| {
            NodeRecord::from(v1::ClusterNode {
                name: "nodes/2".to_owned(),
                state: state.into(),
                leads,
                sessions,
                ..v1::ClusterNode::default()
            })
        };
        let check = |wanted: Wanted, node: Option<NodeRecord>, expect: Option<&str>| {
            assert_eq!(wanted.missing(node.as_ref()).as_deref(), expect, "{node:?}");
        };
        let drained = Some(node(State::Draining, 0, 0));
        check(Wanted::Drained, drained, None);
        let busy = Some(node(State::Draining, 3, 17));
        check(
            Wanted::Drained,
            busy,
            Some("it leads 3 and has 17 sessions"),
        );
        check(Wanted::Drained, None, Some("it is not in the cluster"));
        let joining = Some(node(State::Joining, 0, 0));
        check(Wanted::Active, joining, Some("it is joining"));
        check(Wanted::Active, Some(node(State::Active, 6, 0)), None);
        let leaving = Some(node(State::Leaving, 0, 0));
        check(Wanted::Gone, leaving, Some("it is leaving"));
        check(Wanted::Gone, None, None);
    }
}
