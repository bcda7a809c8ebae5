//! The one place where errors become gRPC statuses with `google.rpc` details.
//!
//! Invariant: a status says what the caller did or can do, and nothing of what is inside; what went wrong
//! inside is logged here, once.

mod cluster;

use core::time::Duration;
use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

pub(crate) use self::cluster::{ClusterError, shard_name};
use crate::channel::HandleError;
use crate::registry::RegistryError;

/// The domain of every `ErrorInfo` of ours.
pub const ERROR_DOMAIN: &str = "espalier.v1";

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The field, as in the `.proto` files, with dots.
    pub field: String,
    /// What is wrong with it, as the end of a sentence.
    pub problem: String,
}

/// Why a call on channels failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// The request is wrong.
    #[error("the request has {} mistakes", .0.len())]
    Invalid(Vec<Violation>),
    /// There is no such channel.
    #[error("there is no channel {0}")]
    NotFound(String),
    /// There is another channel of that id.
    #[error("channel {0} exists, and differs from the request")]
    Exists(String),
    /// The channel changed since the caller read it.
    #[error("channel {0} has changed: its etag is not the request's")]
    Changed(String),
    /// The node has as many channels as it may.
    #[error("the node has {limit} channels, which is its limit")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The channel's signer could not be asked.
    #[error("the signer at {uri} does not answer")]
    SignerUnreachable {
        /// Where.
        uri: String,
        /// Why not.
        problem: String,
    },
    /// The channel's signer signs for another origin, or with no key.
    #[error("the signer at {uri} {problem}")]
    SignerUnfit {
        /// Where.
        uri: String,
        /// What is wrong.
        problem: String,
    },
    /// The channel's actor did not take it.
    #[error("the channel cannot answer")]
    Channel(#[from] HandleError),
    /// The cluster's state was not changed, or cannot be read.
    #[error("the cluster cannot change its state")]
    Registry(#[from] RegistryError),
}

/// Why a session was refused, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// A message is wrong.
    #[error("the message has {} mistakes", .0.len())]
    Invalid(Vec<Violation>),
    /// The first message is not `Open`, or a later one is.
    #[error("{0}")]
    OutOfOrder(&'static str),
    /// There is no such channel.
    #[error("there is no channel {0}")]
    NoChannel(String),
    /// The id belongs to another session, and the ticket does not prove otherwise.
    #[error("peer {0} has a session already: its ticket is needed to take it over")]
    Taken(String),
    /// The peer speaks no protocol version that this node's peers speak.
    #[error("no common protocol version: this node's peers speak {supported}")]
    Versions {
        /// What they speak.
        supported: String,
    },
    /// Nothing was said in time.
    #[error("no Open within {0:?}")]
    Silent(Duration),
    /// The node has as many sessions as it may.
    #[error("the node has {limit} sessions, which is its limit")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// A newer session of the same peer replaced this one.
    #[error("a newer session of this peer replaced this one")]
    Superseded,
    /// A message comes for a session that is not.
    #[error("there is no such session any more: attach again")]
    Gone,
    /// Messages are missing before those of a call.
    #[error("message {next} comes next, and {sequence} came")]
    Gap {
        /// The number of the message that comes next.
        next: u64,
        /// That of the first that came.
        sequence: u64,
    },
    /// A session's messages come faster than they are read.
    #[error("too many messages wait to be read")]
    Backlog,
    /// The peer does not read what it is sent.
    #[error("the peer reads too slowly: attach again to get the whole state")]
    Laggard,
    /// The node stops.
    #[error("the node is stopping: attach to another")]
    Stopping,
    /// The channel's actor did not take an event.
    #[error("the channel cannot answer")]
    Channel(#[from] HandleError),
}

/// Why a caller was not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccessError {
    /// No token came along.
    #[error("no token: send `authorization: Bearer TOKEN`")]
    Missing,
    /// The token is not known.
    #[error("the token is not known")]
    Unknown,
    /// It is a viewer's token, and does not hold.
    #[error("{0}")]
    Viewer(espalier_token::VerifyError),
    /// It is a viewer's token for another channel.
    #[error("the viewer token is for another channel")]
    OtherChannel,
}

impl From<ChannelError> for Status {
    fn from(error: ChannelError) -> Self {
        let message = error.to_string();
        match error {
            ChannelError::Invalid(violations) => invalid(violations),
            ChannelError::NotFound(id) => {
                resource(Code::NotFound, message, "CHANNEL_NOT_FOUND", &id)
            }
            ChannelError::Exists(id) => {
                resource(Code::AlreadyExists, message, "CHANNEL_EXISTS", &id)
            }
            ChannelError::Changed(id) => resource(Code::Aborted, message, "ETAG_MISMATCH", &id),
            ChannelError::TooMany { limit } => quota("channels", message, limit),
            ChannelError::SignerUnreachable { uri, problem } => {
                let metadata = [("signer_uri", uri), ("problem", problem)];
                let details = info("SIGNER_UNREACHABLE", metadata);
                retry(Code::Unavailable, message, details, Duration::from_secs(5))
            }
            ChannelError::SignerUnfit { uri, .. } => {
                let details = info("SIGNER_UNFIT", [("signer_uri", uri)]);
                Self::with_error_details(Code::FailedPrecondition, message, details)
            }
            ChannelError::Channel(error) => error.into(),
            ChannelError::Registry(error) => error.into(),
        }
    }
}

impl From<SessionError> for Status {
    fn from(error: SessionError) -> Self {
        let message = error.to_string();
        let soon = Duration::from_secs(1);
        match error {
            SessionError::Invalid(violations) => invalid(violations),
            SessionError::OutOfOrder(_) => {
                Self::with_error_details(Code::InvalidArgument, message, info("OUT_OF_ORDER", []))
            }
            SessionError::NoChannel(id) => {
                resource(Code::NotFound, message, "CHANNEL_NOT_FOUND", &id)
            }
            SessionError::Taken(peer) => {
                let details = info("PEER_ATTACHED", [("peer", peer)]);
                Self::with_error_details(Code::AlreadyExists, message, details)
            }
            SessionError::Versions { supported } => {
                let details = info("VERSION_UNSUPPORTED", [("supported", supported)]);
                Self::with_error_details(Code::FailedPrecondition, message, details)
            }
            SessionError::Silent(_) => {
                Self::with_error_details(Code::DeadlineExceeded, message, info("NO_OPEN", []))
            }
            SessionError::TooMany { limit } => quota("sessions", message, limit),
            SessionError::Superseded => {
                Self::with_error_details(Code::Aborted, message, info("SUPERSEDED", []))
            }
            SessionError::Gone => {
                Self::with_error_details(Code::NotFound, message, info("SESSION_ENDED", []))
            }
            SessionError::Gap { next, .. } => {
                let details = info("SEQUENCE_GAP", [("next_sequence", next.to_string())]);
                Self::with_error_details(Code::OutOfRange, message, details)
            }
            SessionError::Backlog => retry(
                Code::ResourceExhausted,
                message,
                info("BACKLOG", []),
                Duration::from_millis(100),
            ),
            SessionError::Laggard => {
                retry(Code::ResourceExhausted, message, info("LAGGARD", []), soon)
            }
            SessionError::Stopping => retry(Code::Unavailable, message, info("STOPPING", []), soon),
            SessionError::Channel(error) => error.into(),
        }
    }
}

impl From<AccessError> for Status {
    fn from(error: AccessError) -> Self {
        let message = error.to_string();
        let (code, reason) = match error {
            AccessError::Missing => (Code::Unauthenticated, "TOKEN_MISSING"),
            AccessError::Unknown => (Code::Unauthenticated, "TOKEN_UNKNOWN"),
            AccessError::Viewer(espalier_token::VerifyError::Expired) => {
                (Code::Unauthenticated, "TOKEN_EXPIRED")
            }
            AccessError::Viewer(_) => (Code::Unauthenticated, "TOKEN_INVALID"),
            AccessError::OtherChannel => (Code::PermissionDenied, "TOKEN_OF_OTHER_CHANNEL"),
        };
        Self::with_error_details(code, message, info(reason, []))
    }
}

impl From<HandleError> for Status {
    fn from(error: HandleError) -> Self {
        let message = error.to_string();
        let soon = Duration::from_secs(1);
        match error {
            HandleError::Busy => retry(
                Code::ResourceExhausted,
                message,
                info("CHANNEL_BUSY", []),
                soon,
            ),
            HandleError::Ended => {
                retry(Code::Unavailable, message, info("CHANNEL_ENDED", []), soon)
            }
            HandleError::NoOwner => retry(
                Code::Unavailable,
                message,
                info("NO_OWNER", []),
                Duration::from_millis(250),
            ),
        }
    }
}

impl From<RegistryError> for Status {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NoLeader => HandleError::NoOwner.into(),
            RegistryError::Unknown => {
                let message = "it is unknown whether the change took place: look, or ask again";
                let details = info("OUTCOME_UNKNOWN", []);
                let after = Duration::from_millis(250);
                retry(Code::Unavailable, message.to_owned(), details, after)
            }
            RegistryError::Refused(refusal) => {
                let details = info("REFUSED", []);
                Self::with_error_details(Code::FailedPrecondition, refusal.to_string(), details)
            }
            error @ (RegistryError::Record(_) | RegistryError::Log(_)) => {
                tracing::error!(error = %crate::error_chain(&error), "the cluster's state failed");
                let details = info("STORAGE", []);
                let message = "the cluster cannot keep its state";
                Self::with_error_details(Code::Internal, message, details)
            }
        }
    }
}

/// INVALID_ARGUMENT with every violation.
pub(crate) fn invalid(violations: Vec<Violation>) -> Status {
    let message = violations
        .iter()
        .map(|violation| format!("{} {}", violation.field, violation.problem))
        .collect::<Vec<_>>()
        .join("; ");
    let fields: Vec<FieldViolation> = violations
        .into_iter()
        .map(|violation| FieldViolation::new(violation.field, violation.problem))
        .collect();
    let mut details = ErrorDetails::with_bad_request(fields);
    details.set_error_info("INVALID", ERROR_DOMAIN, HashMap::<String, String>::new());
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// RESOURCE_EXHAUSTED for a caller that sends more than it may.
pub(crate) fn too_many_calls(wait: Duration) -> Status {
    let details = info("RATE_LIMIT", []);
    retry(
        Code::ResourceExhausted,
        "too many calls from this address".to_owned(),
        details,
        wait,
    )
}

/// RESOURCE_EXHAUSTED for a node that has as much to do as it may.
pub(crate) fn overloaded() -> Status {
    let details = info("OVERLOADED", []);
    retry(
        Code::ResourceExhausted,
        "the node answers as many calls as it may".to_owned(),
        details,
        Duration::from_secs(1),
    )
}

/// DEADLINE_EXCEEDED for an answer that took too long.
pub(crate) fn timed_out() -> Status {
    let details = info("TIMEOUT", []);
    retry(
        Code::DeadlineExceeded,
        "the node took too long to answer".to_owned(),
        details,
        Duration::from_secs(1),
    )
}

fn info<const N: usize>(reason: &str, metadata: [(&str, String); N]) -> ErrorDetails {
    let metadata: HashMap<String, String> = metadata
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata)
}

fn retry(code: Code, message: String, mut details: ErrorDetails, after: Duration) -> Status {
    details.set_retry_info(Some(after));
    Status::with_error_details(code, message, details)
}

fn resource(code: Code, message: String, reason: &str, id: &str) -> Status {
    let mut details = info(reason, [("channel", id.to_owned())]);
    details.set_resource_info(
        "espalier.v1/Channel",
        format!("channels/{id}"),
        "",
        message.clone(),
    );
    Status::with_error_details(code, message, details)
}

fn quota(what: &str, message: String, limit: usize) -> Status {
    let mut details = info("LIMIT", [("limit", limit.to_string())]);
    details.add_quota_failure_violation(what, message.clone());
    Status::with_error_details(Code::ResourceExhausted, message, details)
}
