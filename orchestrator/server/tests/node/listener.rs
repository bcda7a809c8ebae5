//! The public port as a whole: TLS, health, reflection, sizes.

use espalier_orchestrator::{NodeConfig, StartError, TlsConfig};
use espalier_proto::v1;
use espalier_proto::v1::channel_service_client::ChannelServiceClient;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::{Bearer, TestNode, create_request, within};

// Made for these tests alone; they hold until 2126.
const CA: &str = include_str!("../keys/ca.pem");
const CERTIFICATE: &str = include_str!("../keys/server.pem");
const KEY: &str = include_str!("../keys/server.key");

fn with_tls(certificate_pem: &str, key_pem: &str) -> NodeConfig {
    let tls = TlsConfig {
        certificate_pem: certificate_pem.into(),
        key_pem: key_pem.into(),
    };
    NodeConfig {
        tls: Some(tls),
        listen: ([127, 0, 0, 1], 0).into(),
        ..NodeConfig::dev()
    }
}

#[tokio::test]
async fn with_a_certificate_only_tls_is_spoken() {
    let node = espalier_orchestrator::Node::start(with_tls(CERTIFICATE, KEY))
        .await
        .unwrap();
    assert!(node.endpoint().starts_with("https://"));
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(CA))
        .domain_name("localhost");
    let endpoint = Channel::from_shared(node.endpoint())
        .unwrap()
        .tls_config(tls)
        .unwrap();
    let transport = within(endpoint.connect()).await.unwrap();
    let bearer = Bearer::new(node.admin_token().unwrap());
    let mut channels = ChannelServiceClient::with_interceptor(transport, bearer);
    let request = create_request("news", "http://127.0.0.1:1/x.m3u8");
    channels.create_channel(request).await.unwrap();

    let plain = node.endpoint().replace("https://", "http://");
    let refused = match Channel::from_shared(plain).unwrap().connect().await {
        Err(_) => true,
        Ok(transport) => {
            let list = v1::ListChannelsRequest::default();
            within(ChannelServiceClient::new(transport).list_channels(list))
                .await
                .is_err()
        }
    };
    assert!(refused);
    node.shutdown().await;
}

#[tokio::test]
async fn a_certificate_that_is_none_stops_the_start() {
    let error = espalier_orchestrator::Node::start(with_tls("nonsense", KEY))
        .await
        .err();
    assert!(matches!(error, Some(StartError::Tls(_))), "{error:?}");
}

#[tokio::test]
async fn health_is_told_without_a_token() {
    let node = TestNode::dev().await;
    let mut health = HealthClient::new(node.transport.clone());
    for service in ["", "espalier.v1.PeerService", "espalier.v1.ChannelService"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = HealthCheckRequest {
        service: "none".to_owned(),
    };
    assert_eq!(
        health.check(unknown).await.unwrap_err().code(),
        Code::NotFound
    );
    node.node.shutdown().await;
}

#[tokio::test]
async fn reflection_lists_every_service() {
    let node = TestNode::dev().await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(node.transport.clone());
    let requests = tokio_stream::iter([request]);
    let mut answers = client
        .server_reflection_info(requests)
        .await
        .unwrap()
        .into_inner();
    let answer = within(answers.message())
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let names: Vec<String> = list
        .service
        .into_iter()
        .map(|service| service.name)
        .collect();
    for service in [
        "ChannelService",
        "TopologyService",
        "PeerService",
        "SignerService",
    ] {
        assert!(
            names.contains(&format!("espalier.v1.{service}")),
            "{names:?}"
        );
    }
    node.node.shutdown().await;
}

#[tokio::test]
async fn requests_that_are_too_large_and_methods_that_are_not_there_are_refused() {
    let node = TestNode::dev().await;
    let huge = create_request("news", &"x".repeat(1_000_000));
    let refused = node.channels().create_channel(huge).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    node.channels()
        .list_channels(v1::ListChannelsRequest::default())
        .await
        .unwrap();
    node.node.shutdown().await;
}
