//! Watches one other node by a call that stays open on a connection of its own, for the reset path, and hears
//! on it what the node says of itself.
//!
//! When the call breaks, a connection is tried at once: refused means that nobody listens there any more;
//! anything else (no route, no answer) means nothing, and the election timeouts decide.

use std::time::{Duration, Instant};

use espalier_proto::cluster::v1 as proto;
use espalier_shards::reset::LinkEvent;
use espalier_shards::{GroupId, NodeId};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::lines::{CONNECT, Lines, client};
use crate::standing::Standing;

/// Pauses between attempts to reach a node that is gone.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A connection that lasted no longer than this is not tried again at once.
const SHORT: Duration = Duration::from_millis(100);

/// What a watch tells, of which node.
pub(crate) type Told = (NodeId, News);

/// What a watch tells.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// Of the connection.
    Link(LinkEvent),
    /// What the node says.
    Says {
        /// Of itself.
        standing: Standing,
        /// This node is out of the cluster.
        removed: bool,
    },
}

impl From<LinkEvent> for News {
    fn from(event: LinkEvent) -> Self {
        News::Link(event)
    }
}

impl From<proto::PresenceReply> for News {
    fn from(reply: proto::PresenceReply) -> Self {
        News::Says {
            standing: Standing::from_wire(reply.standing.unwrap_or_default()),
            removed: reply.removed,
        }
    }
}

/// Watches until the receiver is gone.
pub(crate) async fn watch(
    lines: Lines,
    me: NodeId,
    node: NodeId,
    address: String,
    tell: mpsc::Sender<Told>,
) {
    let mut known_boot = None;
    let mut pause = FIRST_PAUSE;
    while !tell.is_closed() {
        match open(&lines, me, node, &address).await {
            Ok(Opened { first, mut stream }) => {
                let begun = Instant::now();
                let boot = first.boot;
                let same = known_boot.replace(boot).is_none_or(|known| known == boot);
                let opened = if same {
                    LinkEvent::Opened
                } else {
                    LinkEvent::OpenedToAnother
                };
                if tell.send((node, opened.into())).await.is_err()
                    || tell.send((node, first.into())).await.is_err()
                {
                    return;
                }
                // Ends with the other process, or with the connection.
                while let Ok(Some(reply)) = stream.message().await {
                    if tell.send((node, reply.into())).await.is_err() {
                        return;
                    }
                }
                pause = FIRST_PAUSE;
                if tell.send((node, LinkEvent::Broken.into())).await.is_err() {
                    return;
                }
                if begun.elapsed() > SHORT {
                    continue;
                }
            }
            Err(Unopened::Refused) => {
                if tell.send((node, LinkEvent::Refused.into())).await.is_err() {
                    return;
                }
            }
            Err(Unopened::Other) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

struct Opened {
    first: proto::PresenceReply,
    stream: tonic::Streaming<proto::PresenceReply>,
}

enum Unopened {
    Refused,
    Other,
}

async fn open(lines: &Lines, me: NodeId, node: NodeId, address: &str) -> Result<Opened, Unopened> {
    // First without TLS and HTTP, which would hide why it failed.
    match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
        Ok(Ok(probe)) => drop(probe),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            return Err(Unopened::Refused);
        }
        Ok(Err(_)) | Err(_) => return Err(Unopened::Other),
    }
    let endpoint = lines.endpoint(address).map_err(|_| Unopened::Other)?;
    let line = endpoint.connect().await.map_err(|_| Unopened::Other)?;
    let request = proto::PresenceRequest {
        to: Some(lines.destination(node, GroupId::META)),
        from: me,
    };
    let call = async {
        let mut stream = client(line).presence(request).await.ok()?.into_inner();
        let first = stream.message().await.ok()??;
        Some(Opened { first, stream })
    };
    match tokio::time::timeout(CONNECT, call).await {
        Ok(Some(opened)) => Ok(opened),
        Ok(None) | Err(_) => Err(Unopened::Other),
    }
}
