//! What may go wrong with changes of the cluster, as statuses.

use core::time::Duration;

use espalier_cluster::{ChangeError, MetaError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{Violation, info, invalid, retry};

/// How soon a lost leader is expected to have a successor.
const SOON: Duration = Duration::from_millis(500);
/// How soon a node that does not answer may.
const LATER: Duration = Duration::from_secs(5);

/// Why a call on the cluster failed; its `From` maps it to a status.
pub(crate) struct ClusterError(pub(crate) ChangeError);

impl From<ClusterError> for Status {
    fn from(ClusterError(error): ClusterError) -> Self {
        let message = error.to_string();
        match error {
            ChangeError::Meta(error) => meta(&error),
            ChangeError::UnknownNode(node) => {
                absent("ClusterNode", &format!("nodes/{node}"), message)
            }
            ChangeError::UnknownGroup(group) => absent("Shard", &shard_name(group.0), message),
            ChangeError::Present { node, .. } => {
                let details = info("NODE_PRESENT", [("node", format!("nodes/{node}"))]);
                Self::with_error_details(Code::AlreadyExists, message, details)
            }
            ChangeError::Unanswered { address, .. } => {
                let details = info("NODE_UNANSWERED", [("cluster_address", address)]);
                retry(Code::Unavailable, message, details, LATER)
            }
            ChangeError::Unfit { address, .. } => refused("NODE_UNFIT", &address, message),
            ChangeError::NoMajority { node, .. } => {
                refused("NO_MAJORITY_LEFT", &name(node), message)
            }
            ChangeError::NobodyElse(node) => refused("NOBODY_ELSE", &name(node), message),
            ChangeError::NotInService { node, .. } => {
                refused("NOT_IN_SERVICE", &name(node), message)
            }
            ChangeError::CannotLead { node, .. } => refused("CANNOT_LEAD", &name(node), message),
            ChangeError::NotLeader(_) => {
                retry(Code::Unavailable, message, info("NO_OWNER", []), SOON)
            }
            ChangeError::NotMoved { .. } => {
                retry(Code::Unavailable, message, info("NOT_MOVED", []), SOON)
            }
        }
    }
}

impl From<MetaError> for ClusterError {
    fn from(error: MetaError) -> Self {
        Self(error.into())
    }
}

fn meta(error: &MetaError) -> Status {
    match error {
        MetaError::Unavailable => {
            let message = "no majority of the cluster's nodes can be reached from here";
            let details = info("NO_MAJORITY", []);
            retry(Code::Unavailable, message.to_owned(), details, SOON * 2)
        }
        MetaError::Unknown => {
            let message = "it is unknown whether the change took place: look, or ask again";
            let details = info("OUTCOME_UNKNOWN", []);
            retry(Code::Unavailable, message.to_owned(), details, SOON)
        }
        MetaError::Refused(refusal) => {
            let details = info("REFUSED", []);
            Status::with_error_details(Code::FailedPrecondition, refusal.to_string(), details)
        }
        MetaError::Answer => {
            tracing::error!(%error, "another node is not understood");
            let message = "the node that leads is not understood here";
            Status::with_error_details(Code::Internal, message, info("NODES_DIFFER", []))
        }
        MetaError::Address(bad) => invalid(vec![Violation {
            field: "cluster_address".to_owned(),
            problem: format!("is no address of a node: {}", bad.reason),
        }]),
    }
}

/// A group's resource name.
pub(crate) fn shard_name(group: u32) -> String {
    match group {
        0 => "shards/meta".to_owned(),
        number => format!("shards/{number}"),
    }
}

fn name(node: u64) -> String {
    format!("nodes/{node}")
}

fn absent(kind: &str, name: &str, message: String) -> Status {
    let mut details = info("NOT_FOUND", [("name", name.to_owned())]);
    details.set_resource_info(format!("espalier.v1/{kind}"), name, "", message.clone());
    Status::with_error_details(Code::NotFound, message, details)
}

fn refused(reason: &str, subject: &str, message: String) -> Status {
    let mut details: ErrorDetails = info(reason, []);
    details.add_precondition_failure_violation(reason, subject, message.clone());
    Status::with_error_details(Code::FailedPrecondition, message, details)
}
