//! The way to an orchestrator: where it is, who we are, and what to say when it does not answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use espalier_process::{Failure, OrFail};
use espalier_proto::v1::channel_service_client::ChannelServiceClient;
use espalier_proto::v1::cluster_service_client::ClusterServiceClient;
use espalier_proto::v1::topology_service_client::TopologyServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ConnectionArgs {
    /// The orchestrator
    #[arg(
        long,
        env = "ESPALIER_ENDPOINT",
        value_name = "URL",
        default_value = "http://127.0.0.1:7300",
        help_heading = "Connection"
    )]
    pub(crate) endpoint: String,
    /// An API token
    #[arg(
        long,
        env = "ESPALIER_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub(crate) token: Option<String>,
    /// Trust this certificate authority (PEM) instead of the public ones, for an https endpoint
    #[arg(
        long,
        env = "ESPALIER_CA",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    pub(crate) ca: Option<PathBuf>,
}

/// An open connection that names our token in every call.
#[derive(Clone)]
pub(crate) struct Connection {
    channel: Channel,
    token: BearerToken,
}

/// Adds the API token to each call.
#[derive(Clone)]
pub(crate) struct BearerToken(Option<MetadataValue<Ascii>>);

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

pub(crate) type Channels = ChannelServiceClient<InterceptedService<Channel, BearerToken>>;
pub(crate) type Clusters = ClusterServiceClient<InterceptedService<Channel, BearerToken>>;
pub(crate) type Topologies = TopologyServiceClient<InterceptedService<Channel, BearerToken>>;

impl ConnectionArgs {
    /// Connects, so that an orchestrator that is not there is known before anything is asked.
    ///
    /// # Errors
    ///
    /// A usage failure for an endpoint or token that cannot be, exit code 69 if nobody answers.
    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        let token = BearerToken(self.token.as_deref().map(bearer).transpose()?);
        let channel = endpoint(&self.endpoint, self.ca.as_deref())?
            .connect()
            .await
            .map_err(|error| {
                Failure::unreachable(format!("no orchestrator answers at {}", self.endpoint))
                    .caused_by(&error)
                    .next(
                        "start one with `espalier-orchestrator --dev`, or name another with \
                     --endpoint or ESPALIER_ENDPOINT",
                    )
            })?;
        Ok(Connection { channel, token })
    }
}

impl Connection {
    pub(crate) fn channels(&self) -> Channels {
        ChannelServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    pub(crate) fn clusters(&self) -> Clusters {
        ClusterServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
    }

    pub(crate) fn topologies(&self) -> Topologies {
        TopologyServiceClient::with_interceptor(self.channel.clone(), self.token.clone())
            // A topology of a hundred thousand peers does not fit into the default 4 MiB.
            .max_decoding_message_size(64 << 20)
    }
}

fn endpoint(text: &str, ca: Option<&Path>) -> Result<Endpoint, Failure> {
    let bad = |why: String| {
        Failure::usage(format!("`{text}` is no orchestrator's address"))
            .because(why)
            .next("write it like http://127.0.0.1:7300 or https://orchestrator.example:7300")
    };
    let url = url::Url::parse(text).map_err(|error| bad(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(bad("it needs http:// or https:// and a host".to_owned()));
    }
    let endpoint = Endpoint::from_shared(text.to_owned())
        .map_err(|error| bad(error.to_string()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .user_agent(concat!("espalier-cli/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| bad(error.to_string()))?;
    if url.scheme() == "https" {
        return endpoint
            .tls_config(tls(ca)?)
            .map_err(|error| bad(error.to_string()));
    }
    Ok(endpoint)
}

fn tls(ca: Option<&Path>) -> Result<ClientTlsConfig, Failure> {
    let Some(path) = ca else {
        return Ok(ClientTlsConfig::new().with_enabled_roots());
    };
    let pem = std::fs::read(path).or_usage(format!(
        "cannot read the certificate authority {}",
        path.display()
    ))?;
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, Failure> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
        .parse()
        .map_err(|_| Failure::usage("the API token has characters that no token has"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_process::ExitCode;

    #[tokio::test]
    async fn endpoints_that_cannot_be_are_bad_usage() {
        for text in [
            "127.0.0.1:7300",
            "ftp://x",
            "http://",
            "nonsense",
            "",
            "unix:///tmp/x",
        ] {
            let outcome = endpoint(text, None);
            assert_eq!(
                outcome.err().map(|failure| failure.code()),
                Some(ExitCode::Usage),
                "{text}"
            );
        }
        assert!(endpoint("http://localhost:7300", None).is_ok());
        assert!(endpoint("https://orchestrator.example", None).is_ok());
    }

    #[tokio::test]
    async fn an_endpoint_where_nobody_listens_is_unreachable() {
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let args = ConnectionArgs {
            endpoint: format!("http://127.0.0.1:{port}"),
            token: None,
            ca: None,
        };
        let failure = args.connect().await.err().unwrap();
        assert_eq!(failure.code(), ExitCode::Unreachable);
        assert!(
            failure.to_string().contains("espalier-orchestrator --dev"),
            "{failure}"
        );
    }

    #[test]
    fn a_token_with_a_line_break_inside_is_refused() {
        assert!(bearer("abc\ndef").is_err());
        assert!(bearer("abc\n").is_ok());
    }
}
