//! A share of the sessions, each on a connection of its own.

use std::time::{Duration, SystemTime};

use clap::Args;
use espalier_proto::v1;
use espalier_proto::v1::node_message::Kind;
use espalier_proto::v1::notice;
use espalier_proto::v1::peer_message::Kind as Said;
use espalier_proto::v1::peer_service_client::PeerServiceClient;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Streaming};

use crate::served::micros;
use crate::support::CHANNEL;

/// Sessions that are being opened at once.
const AT_ONCE: usize = 32;
/// One of so many is a contributor, with room for as many and more.
const ONE_IN: usize = 4;

#[derive(Debug, Args)]
pub(crate) struct Clients {
    endpoint: String,
    count: usize,
    /// The number of the first.
    first: usize,
    per_connection: usize,
}

/// An open session; what it says goes through the sender.
struct Session {
    say: mpsc::Sender<v1::PeerMessage>,
    hear: Streaming<v1::NodeMessage>,
}

impl Clients {
    /// Opens them, says so, waits for the notice at each, and says when it came.
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let mut token = String::new();
        std::io::stdin().read_line(&mut token)?;
        let bearer: MetadataValue<Ascii> = format!("Bearer {}", token.trim()).parse()?;
        let mut lines = Vec::new();
        for _ in 0..self.count.div_ceil(self.per_connection) {
            lines.push(Channel::from_shared(self.endpoint.clone())?.connect_lazy());
        }
        let opening = futures::stream::iter(0..self.count)
            .map(|number| {
                let line = lines[number / self.per_connection].clone();
                session(line, self.first + number, bearer.clone())
            })
            .buffer_unordered(AT_ONCE);
        let sessions: Vec<_> = opening.collect().await;
        let mut waiting = Vec::new();
        for session in sessions {
            waiting.push(tokio::spawn(notice(session?)));
        }
        println!("{{\"open\": {}}}", waiting.len());
        let at = futures::future::join_all(waiting).await;
        let at: Vec<u64> = at.into_iter().filter_map(|at| at.ok().flatten()).collect();
        let (first, last) = (at.iter().min(), at.iter().max());
        println!(
            "{{\"noticed\": {}, \"first_us\": {}, \"last_us\": {}}}",
            at.len(),
            first.copied().unwrap_or(u64::MAX),
            last.copied().unwrap_or(0)
        );
        Ok(())
    }
}

async fn session(
    line: Channel,
    number: usize,
    bearer: MetadataValue<Ascii>,
) -> anyhow::Result<Session> {
    let (say, messages) = mpsc::channel(4);
    let contributes = number.is_multiple_of(ONE_IN);
    let open = v1::Open {
        peer: format!("{number:016x}"),
        channel: CHANNEL.to_owned(),
        role: if contributes {
            v1::PeerRole::Contributor.into()
        } else {
            v1::PeerRole::Consumer.into()
        },
        upload_bps: if contributes { 2_000_000 } else { 0 },
        min_version: 1,
        max_version: 1,
        agent: "bench".to_owned(),
        ..v1::Open::default()
    };
    let kind = Some(Said::Open(open));
    say.send(v1::PeerMessage { kind }).await?;
    let mut request = Request::new(ReceiverStream::new(messages));
    request.metadata_mut().insert("authorization", bearer);
    let mut client = PeerServiceClient::new(line);
    let mut hear = client.session(request).await?.into_inner();
    // The welcome.
    hear.message().await?;
    Ok(Session { say, hear })
}

/// Acknowledges assignments until the notice comes; when it came.
async fn notice(mut session: Session) -> Option<u64> {
    while let Ok(Some(message)) = session.hear.message().await {
        match message.kind {
            Some(Kind::Notice(v1::Notice {
                kind: Some(notice::Kind::Drain(_)),
            })) => {
                let at = micros(SystemTime::now());
                // Everybody stays until all have been told.
                tokio::time::sleep(Duration::from_millis(1_500)).await;
                return Some(at);
            }
            Some(Kind::Assignment(assignment)) => {
                let generation = assignment.generation;
                let mut said = vec![Said::Acknowledge(v1::Acknowledge { generation })];
                said.extend(assignment.tracks.into_iter().map(|track| {
                    Said::SourceEvent(v1::SourceEvent {
                        track: track.track,
                        stripe: track.stripe,
                        source: track.source,
                        state: v1::SourceState::Flowing.into(),
                        generation,
                    })
                }));
                for kind in said {
                    session
                        .say
                        .send(v1::PeerMessage { kind: Some(kind) })
                        .await
                        .ok()?;
                }
            }
            Some(_) | None => {}
        }
    }
    None
}
