//! The gRPC service and the mirror of a signer elsewhere, over real connections.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use espalier_media::{ObjectKey, StatementKey, TrackIndex};
use espalier_proto::v1::signer_service_client::SignerServiceClient;
use espalier_proto::v1::{GetSignerRequest, WatchStatementsRequest};
use espalier_signer::{
    Announcement, OriginState, RemoteConfig, RemoteSigner, ServiceLimits, Signer, SignerConfig,
    SignerHandle, SignerLookup, SignerState, StatementService,
};
use support::{Live, Origin, Reader, wait_for};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::transport::{Channel, Server};

fn key() -> StatementKey {
    StatementKey::from_seed(&[9; 32])
}

fn start(url: String) -> SignerHandle {
    let config = SignerConfig {
        origin_uri: url,
        key: key(),
        state: SignerState::default(),
    };
    Signer::start(config).expect("a signer")
}

/// Knows one channel, as a node does.
struct OnlyNews(SignerHandle);

impl SignerLookup for OnlyNews {
    fn signer(&self, channel: &str) -> Option<SignerHandle> {
        (channel == "news").then(|| self.0.clone())
    }
}

/// A served signer, in a runtime of its own: that can be ended as by a killed process.
struct Served {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn serve(signer: &SignerHandle, at: SocketAddr, limits: ServiceLimits) -> Served {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let service = StatementService::new(Arc::new(OnlyNews(signer.clone())), limits).into_server();
    let serving = runtime.spawn(async move {
        let started = std::time::Instant::now();
        let listener = loop {
            // The port of a server that was just killed may be held for a moment.
            match TcpListener::bind(at).await {
                Ok(listener) => break listener,
                Err(error) => assert!(started.elapsed() < support::DEADLINE, "{error}"),
            }
        };
        let address = listener.local_addr().expect("an address");
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        address
    });
    let address = serving.await.expect("it serves");
    Served {
        address,
        runtime: Some(runtime),
    }
}

impl Served {
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn client(&self) -> SignerServiceClient<Channel> {
        SignerServiceClient::connect(self.url())
            .await
            .expect("a connection")
    }

    fn mirror(&self, key: &StatementKey) -> SignerHandle {
        RemoteSigner::connect(RemoteConfig {
            endpoint: self.url(),
            channel: "news".to_owned(),
            keys: vec![key.public_key()],
            origin_uri: "http://origin.example/".to_owned(),
        })
        .expect("a mirror")
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn watch(channel: &str) -> WatchStatementsRequest {
    WatchStatementsRequest {
        channel: channel.to_owned(),
    }
}

async fn live_signer() -> (Live, SignerHandle) {
    let origin = Origin::start().await;
    let mut live = Live::new(&origin, "/live/");
    live.publish([1, 2, 3]);
    let signer = start(live.url());
    Reader::new(&signer).until_segment(0, 3).await;
    (live, signer)
}

#[tokio::test]
async fn a_signer_describes_itself() {
    let (live, signer) = live_signer().await;
    let served = serve(&signer, any_port(), ServiceLimits::default()).await;
    let info = RemoteSigner::describe(&served.url(), "news")
        .await
        .expect("a signer");
    assert_eq!(info.keys, [key().public_key()]);
    assert_eq!(info.origin_uri, live.url());
    assert!(
        RemoteSigner::describe(&served.url(), "sport")
            .await
            .is_err()
    );
    assert!(
        RemoteSigner::describe("http://127.0.0.1:9", "news")
            .await
            .is_err()
    );
    assert!(RemoteSigner::describe("no uri", "news").await.is_err());
}

#[tokio::test]
async fn an_unknown_channel_is_not_found() {
    let (_live, signer) = live_signer().await;
    let served = serve(&signer, any_port(), ServiceLimits::default()).await;
    let mut client = served.client().await;
    let refused = client
        .watch_statements(watch("sport"))
        .await
        .expect_err("no such channel");
    assert_eq!(refused.code(), Code::NotFound);
    let request = GetSignerRequest {
        channel: "sport".to_owned(),
    };
    assert_eq!(
        client.get_signer(request).await.expect_err("none").code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn a_mirror_tells_the_same() {
    let (mut live, signer) = live_signer().await;
    let served = serve(&signer, any_port(), ServiceLimits::default()).await;
    let mirror = served.mirror(&key());
    let mut reader = Reader::new(&mirror);
    reader.until_segment(0, 3).await;
    live.publish([4]);
    reader.until_segment(0, 4).await;
    assert_eq!(reader.segment_numbers(0), [1, 2, 3, 4]);
    assert_eq!(mirror.feed().snapshot(), signer.feed().snapshot());
    assert_eq!(mirror.master(), signer.master());
    wait_for("equal statuses", || {
        (mirror.status() == signer.status()).then_some(())
    })
    .await;
    mirror.shutdown().await;
}

#[tokio::test]
async fn a_mirror_refuses_what_another_key_signed() {
    let (_live, signer) = live_signer().await;
    let served = serve(&signer, any_port(), ServiceLimits::default()).await;
    let mirror = served.mirror(&StatementKey::from_seed(&[1; 32]));
    // The origin's state comes behind the statements, so they have been refused when it is here.
    wait_for("the origin's state", || {
        (mirror.status().origin.state == OriginState::Live).then_some(())
    })
    .await;
    assert!(mirror.feed().snapshot().is_empty());
}

#[tokio::test]
async fn a_mirror_comes_back_when_its_signer_does() {
    let (mut live, signer) = live_signer().await;
    let mut served = serve(&signer, any_port(), ServiceLimits::default()).await;
    let mirror = served.mirror(&key());
    let mut reader = Reader::new(&mirror);
    reader.until_segment(0, 3).await;
    served.kill();
    wait_for("the loss is noticed", || {
        (mirror.status().origin.state == OriginState::Unreachable).then_some(())
    })
    .await;
    live.publish([4]);
    let _again = serve(&signer, served.address, ServiceLimits::default()).await;
    reader.until_segment(0, 4).await;
    assert_eq!(reader.segment_numbers(0), [1, 2, 3, 4]);
    wait_for("live again", || {
        (mirror.status().origin.state == OriginState::Live).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_ended() {
    let (_live, signer) = live_signer().await;
    let served = serve(&signer, any_port(), ServiceLimits::default()).await;
    let mut stream = served
        .client()
        .await
        .watch_statements(watch("news"))
        .await
        .expect("a feed")
        .into_inner();
    assert!(stream.message().await.expect("a message").is_some());
    // More at once than connection, stream and feed may hold together.
    for sequence in 0..200_000 {
        let key = ObjectKey::segment(TrackIndex(0), 9, sequence);
        let uri = "http://origin.example/a/rather/long/name/of/a/segment.ts".to_owned();
        signer.feed().announce(Announcement {
            key,
            uri,
            byte_range: None,
        });
    }
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn open_feeds_are_bounded_and_given_back() {
    let (_live, signer) = live_signer().await;
    let served = serve(&signer, any_port(), ServiceLimits { max_streams: 1 }).await;
    let mut client = served.client().await;
    let first = client
        .watch_statements(watch("news"))
        .await
        .expect("a feed");
    let refused = client
        .watch_statements(watch("news"))
        .await
        .expect_err("one too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(first);
    let started = std::time::Instant::now();
    while client.watch_statements(watch("news")).await.is_err() {
        assert!(
            started.elapsed() < support::DEADLINE,
            "the place was not given back"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_feed_ends_with_its_signer() {
    let (_live, signer) = live_signer().await;
    let served = serve(&signer, any_port(), ServiceLimits::default()).await;
    let mut stream = served
        .client()
        .await
        .watch_statements(watch("news"))
        .await
        .expect("a feed")
        .into_inner();
    signer.shutdown().await;
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable);
}
