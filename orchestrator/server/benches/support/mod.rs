//! The channel that the benchmarks' peers belong to.

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use espalier_proto::v1;
use espalier_proto::v1::channel_service_client::ChannelServiceClient;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;

/// Its id.
pub(crate) const CHANNEL: &str = "news";

/// Makes the channel, waits until every node knows its tracks, and returns a token for its viewers.
pub(crate) async fn viewer_token(endpoints: &[Endpoint], token: &str) -> anyhow::Result<String> {
    let bearer: MetadataValue<Ascii> = format!("Bearer {token}").parse()?;
    let mut channels = Vec::new();
    for endpoint in endpoints {
        let line = endpoint.connect().await?;
        let bearer = bearer.clone();
        channels.push(ChannelServiceClient::with_interceptor(
            line,
            move |mut request: Request<()>| {
                let metadata = request.metadata_mut();
                metadata.insert("authorization", bearer.clone());
                Ok(request)
            },
        ));
    }
    let request = v1::CreateChannelRequest {
        channel_id: CHANNEL.to_owned(),
        channel: Some(v1::Channel {
            origin_uri: origin().await?,
            ..v1::Channel::default()
        }),
    };
    channels[0].create_channel(request).await?;
    let name = format!("channels/{CHANNEL}");
    for channel in &mut channels {
        loop {
            let request = v1::GetChannelRequest { name: name.clone() };
            let found = channel.get_channel(request).await;
            if found.is_ok_and(|found| !found.get_ref().tracks.is_empty()) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let request = v1::IssueViewerTokenRequest {
        channel: name,
        ttl: Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        }),
    };
    Ok(channels[0]
        .issue_viewer_token(request)
        .await?
        .into_inner()
        .token)
}

/// An origin of 100 kbit/s that never changes.
async fn origin() -> anyhow::Result<String> {
    let playlist = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:1\n\
                    #EXTINF:2.0,\n1.ts\n#EXTINF:2.0,\n2.ts\n#EXTINF:2.0,\n3.ts\n#EXTINF:2.0,\n4.ts\n";
    let router = Router::new()
        .route("/live.m3u8", get(move || async move { playlist }))
        .route(
            "/{name}",
            get(|| async { (StatusCode::OK, vec![0x47_u8; 25_000]) }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("http://{address}/live.m3u8"))
}
