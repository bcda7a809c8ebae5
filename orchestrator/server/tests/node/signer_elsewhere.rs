//! A channel whose signer runs as a process of its own.

use espalier_media::StatementKey;
use espalier_proto::v1;
use espalier_proto::v1::feed_message::Kind as Fed;
use espalier_signer::{ServiceLimits, Signer, SignerConfig, SignerState, StatementService};
use tonic::transport::server::TcpIncoming;

use crate::support::{Bearer, FakePeer, TestNode, create_request, open, origin, within};

#[tokio::test]
async fn its_keys_are_pinned_and_its_statements_mirrored() {
    let origin_uri = origin().await;
    let key = StatementKey::from_seed(&[5; 32]);
    let public = key.public_key().to_bytes().to_vec();
    let config = SignerConfig {
        origin_uri: origin_uri.clone(),
        key,
        state: SignerState::default(),
    };
    let signer = Signer::start(config).unwrap();
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let signer_uri = format!("http://{}", incoming.local_addr().unwrap());
    let service = StatementService::new(signer.clone(), ServiceLimits::default()).into_server();
    let server = tonic::transport::Server::builder().add_service(service);
    let server = tokio::spawn(server.serve_with_incoming(incoming));

    let node = TestNode::dev().await;
    let mut request = create_request("news", &origin_uri);
    request
        .channel
        .as_mut()
        .unwrap()
        .signer_uri
        .clone_from(&signer_uri);
    let channel = node
        .channels()
        .create_channel(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (channel.signer_uri, channel.public_keys),
        (signer_uri.clone(), vec![public])
    );
    assert_eq!(node.tracks("news").await[0].track, "main");

    let token = node.viewer_token("news").await;
    let peer = FakePeer::join(&node, &token, open("news", 1))
        .await
        .unwrap();
    assert_eq!(peer.welcome.signer_uris, [signer_uri, String::new()]);
    let watch = v1::WatchStatementsRequest {
        channel: "news".to_owned(),
    };
    let mut signer_client = node.signer_as(Bearer::new(&token));
    let mut feed = signer_client
        .watch_statements(watch)
        .await
        .unwrap()
        .into_inner();
    let statement = loop {
        let message = within(feed.message()).await.unwrap().unwrap();
        if let Some(Fed::Statement(statement)) = message.kind {
            break statement;
        }
    };
    assert_eq!(statement.signature.len(), 64);
    node.node.shutdown().await;
    server.abort();
    signer.shutdown().await;
}
