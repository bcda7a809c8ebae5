//! Mutual TLS between nodes: one authority, a certificate a node.

use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// A node's certificate and the authority that signed all nodes', PEM.
#[derive(Clone)]
pub struct ClusterTls {
    /// The authority's certificate: who has none signed by it is not let in.
    pub authority_pem: Vec<u8>,
    /// This node's certificate chain.
    pub certificate_pem: Vec<u8>,
    /// Its private key.
    pub key_pem: Vec<u8>,
}

impl core::fmt::Debug for ClusterTls {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ClusterTls")
    }
}

impl ClusterTls {
    pub(crate) fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.authority_pem))
            .identity(Identity::from_pem(&self.certificate_pem, &self.key_pem))
    }

    pub(crate) fn server(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .client_ca_root(Certificate::from_pem(&self.authority_pem))
            .identity(Identity::from_pem(&self.certificate_pem, &self.key_pem))
    }
}
