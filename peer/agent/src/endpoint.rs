//! How this peer dials gRPC servers.
//!
//! HTTP/2 pings find a dead node within seconds; a plain `http://` URI means no TLS, `https://` TLS
//! with the system's certificate authorities or with those of a given file.

use std::path::Path;
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// Where Linux distributions keep the system's certificate authorities, in one PEM file.
const SYSTEM_AUTHORITIES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// Why a URI cannot be dialled.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// It is no `http://` or `https://` URI.
    #[error("{0:?} is not of the form http://host:port or https://host:port")]
    Uri(String),
    /// The file with certificate authorities cannot be read.
    #[error("the certificate authorities in {path} cannot be read")]
    Authorities {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no file with the system's certificate authorities.
    #[error("this system has no file of certificate authorities; name one with --ca")]
    NoAuthorities,
    /// The TLS settings are refused.
    #[error("TLS cannot be set up")]
    Tls(#[source] tonic::transport::Error),
}

/// Makes an endpoint of a URI, with authorities from `ca` or else the system's.
///
/// # Errors
/// The URI is malformed, or TLS is asked for and cannot be set up.
pub(crate) fn parse(uri: &str, ca: Option<&Path>) -> Result<Endpoint, EndpointError> {
    let bad = || EndpointError::Uri(uri.to_owned());
    let parsed = url::Url::parse(uri).map_err(|_| bad())?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err(bad());
    }
    let endpoint = Endpoint::from_shared(uri.to_owned())
        .map_err(|_| bad())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    if parsed.scheme() == "http" {
        return Ok(endpoint);
    }
    let pem = authorities(ca)?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    endpoint.tls_config(tls).map_err(EndpointError::Tls)
}

fn authorities(ca: Option<&Path>) -> Result<Vec<u8>, EndpointError> {
    let system = || {
        SYSTEM_AUTHORITIES
            .iter()
            .map(Path::new)
            .find(|path| path.exists())
    };
    let path = ca.or_else(system).ok_or(EndpointError::NoAuthorities)?;
    std::fs::read(path).map_err(|source| EndpointError::Authorities {
        path: path.display().to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http_uris_with_a_host_are_dialled() {
        for bad in ["", "127.0.0.1:7300", "ftp://host", "http://", "not a uri"] {
            assert!(
                matches!(parse(bad, None), Err(EndpointError::Uri(_))),
                "{bad}"
            );
        }
        assert!(parse("http://127.0.0.1:7300", None).is_ok());
    }

    #[test]
    fn missing_authorities_are_named() {
        let error = parse("https://host", Some(Path::new("/nowhere/ca.pem"))).unwrap_err();
        assert!(error.to_string().contains("/nowhere/ca.pem"));
    }
}
