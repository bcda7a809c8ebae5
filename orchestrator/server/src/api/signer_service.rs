//! `espalier.v1.SignerService`, for this channel's viewers and for holders of API tokens.

use std::sync::Arc;

use espalier_proto::v1;
use espalier_proto::v1::signer_service_server::SignerService;
use espalier_signer::StatementService;
use tonic::{Request, Response, Status};

use crate::access::Access;
use crate::directory::Directory;

/// The signer crate's service behind this node's checks.
pub(crate) struct GuardedSigner {
    inner: StatementService<Arc<Directory>>,
    access: Arc<Access>,
}

impl GuardedSigner {
    pub(crate) fn new(inner: StatementService<Arc<Directory>>, access: Arc<Access>) -> Self {
        Self { inner, access }
    }
}

#[tonic::async_trait]
impl SignerService for GuardedSigner {
    async fn get_signer(
        &self,
        request: Request<v1::GetSignerRequest>,
    ) -> Result<Response<v1::Signer>, Status> {
        self.access
            .reader(request.metadata(), &request.get_ref().channel)?;
        self.inner.get_signer(request).await
    }

    type WatchStatementsStream =
        <StatementService<Arc<Directory>> as SignerService>::WatchStatementsStream;

    async fn watch_statements(
        &self,
        request: Request<v1::WatchStatementsRequest>,
    ) -> Result<Response<Self::WatchStatementsStream>, Status> {
        self.access
            .reader(request.metadata(), &request.get_ref().channel)?;
        self.inner.watch_statements(request).await
    }
}
