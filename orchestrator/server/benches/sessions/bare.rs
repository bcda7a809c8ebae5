//! The bare server: greets each peer and passes one notice to all.

use std::pin::Pin;
use std::process::{Command, Stdio};
use std::time::Duration;

use espalier_proto::v1;
use espalier_proto::v1::node_message::Kind;
use espalier_proto::v1::peer_service_server::{PeerService, PeerServiceServer};
use futures::{Stream, StreamExt as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::served::Served;

struct Bare(watch::Receiver<bool>);

#[tonic::async_trait]
impl PeerService for Bare {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::NodeMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::PeerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut messages = request.into_inner();
        tokio::spawn(async move { while let Ok(Some(_)) = messages.message().await {} });
        let say = |kind| Ok(v1::NodeMessage { kind: Some(kind) });
        let welcome = say(Kind::Welcome(v1::Welcome::default()));
        let drained = futures::stream::unfold(self.0.clone(), move |mut draining| async move {
            draining.changed().await.ok()?;
            let drain = v1::notice::Kind::Drain(v1::Drain { within_ms: 2_000 });
            let notice = v1::Notice { kind: Some(drain) };
            Some((say(Kind::Notice(notice)), draining))
        });
        let said = futures::stream::iter([welcome]).chain(drained);
        Ok(Response::new(said.boxed()))
    }

    type AttachStream = Self::SessionStream;

    async fn attach(
        &self,
        _request: Request<v1::AttachRequest>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("native peers open a Session"))
    }

    async fn send(
        &self,
        _request: Request<v1::SendRequest>,
    ) -> Result<Response<v1::SendResponse>, Status> {
        Err(Status::unimplemented("native peers open a Session"))
    }
}

/// Serves until SIGTERM, then tells everybody.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?.with_nodelay(Some(true));
    println!("ESPALIER_ENDPOINT=http://{}", incoming.local_addr()?);
    let (drain, draining) = watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let server = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .max_concurrent_streams(100_000)
        .add_service(PeerServiceServer::new(Bare(draining)))
        .serve_with_incoming(incoming);
    tokio::select! {
        served = server => served?,
        () = async {
            terminate.recv().await;
            drain.send_replace(true);
            tokio::time::sleep(Duration::from_secs(3)).await;
        } => {}
    }
    Ok(())
}

/// Starts it as a process.
pub(crate) fn start() -> anyhow::Result<Served> {
    let child = Command::new(std::env::current_exe()?)
        .arg("bare")
        .stdout(Stdio::piped())
        .spawn()?;
    Served::new(child, "none".to_owned())
}
