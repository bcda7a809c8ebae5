//! Turns an orchestrator's gRPC status into words and an exit code.

use espalier_process::{ExitCode, Failure};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Says what was asked and why the orchestrator refused it, with the details that it gave.
pub(crate) fn failure(what: &str, status: &Status) -> Failure {
    let mut failure = Failure::new(exit_code(status), what);
    if !status.message().is_empty() {
        failure = failure.because(status.message());
    }
    for detail in details(status) {
        failure = failure.because(detail);
    }
    match advice(status) {
        Some(next) => failure.next(next),
        None => failure,
    }
}

/// A refusal of our arguments is bad usage like any other, and says so to scripts; so is what
/// cannot be reached.
fn exit_code(status: &Status) -> ExitCode {
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => ExitCode::Usage,
        Code::Unavailable => ExitCode::Unreachable,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => ExitCode::Failed,
    }
}

/// Details that the server promises: google.rpc error details, one line each.
fn details(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let mut lines = Vec::new();
    if let Some(request) = details.bad_request() {
        lines.extend(
            request
                .field_violations
                .iter()
                .map(|v| format!("{}: {}", v.field, v.description)),
        );
    }
    if let Some(failed) = details.precondition_failure() {
        lines.extend(
            failed
                .violations
                .iter()
                .map(|v| format!("{}: {}", v.subject, v.description)),
        );
    }
    if let Some(quota) = details.quota_failure() {
        lines.extend(
            quota
                .violations
                .iter()
                .map(|v| format!("{}: {}", v.subject, v.description)),
        );
    }
    if let Some(resource) = details.resource_info()
        && !resource.description.is_empty()
    {
        lines.push(format!(
            "{}: {}",
            resource.resource_name, resource.description
        ));
    }
    if let Some(retry) = details.retry_info().and_then(|retry| retry.retry_delay) {
        lines.push(format!(
            "try again in {}",
            espalier_process::format_duration(retry)
        ));
    }
    lines
}

fn advice(status: &Status) -> Option<&'static str> {
    match status.code() {
        Code::Unauthenticated => Some(
            "give an API token with --token or ESPALIER_TOKEN (`espalier-orchestrator --dev` prints \
             one, a configured node keeps its first in data_dir/admin.token)",
        ),
        Code::PermissionDenied => Some("use an API token that may do this"),
        Code::NotFound => Some("`espalier channel list` shows the channels that exist"),
        Code::AlreadyExists => {
            Some("choose another name, or delete the existing one with `espalier channel delete`")
        }
        Code::Unavailable => {
            Some("check that what is named above runs and can be reached, and try again")
        }
        Code::Aborted => Some("somebody else changed it meanwhile: look again and try again"),
        Code::ResourceExhausted => Some("wait a moment and try again"),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn codes_become_exit_codes() {
        let table = [
            (Code::InvalidArgument, ExitCode::Usage),
            (Code::Unavailable, ExitCode::Unreachable),
            (Code::NotFound, ExitCode::Failed),
            (Code::Unauthenticated, ExitCode::Failed),
            (Code::Internal, ExitCode::Failed),
        ];
        for (code, exit) in table {
            assert_eq!(
                failure("x", &Status::new(code, "y")).code(),
                exit,
                "{code:?}"
            );
        }
    }

    #[test]
    fn field_violations_are_named() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("channel.policy.max_depth", "must be 1 to 64");
        let status = Status::with_error_details(Code::InvalidArgument, "bad channel", details);
        let text = failure("the channel was not created", &status).to_string();
        assert!(text.contains("bad channel"), "{text}");
        assert!(
            text.contains("channel.policy.max_depth: must be 1 to 64"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_token_is_told_where_to_find_one() {
        let text = failure("no", &Status::unauthenticated("missing token")).to_string();
        assert!(text.contains("ESPALIER_TOKEN"), "{text}");
    }
}
