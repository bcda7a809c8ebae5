//! What to do about a cluster's refusals.

use espalier_process::Failure;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::status;

/// Says what was asked, why it was refused, and what to do next.
pub(super) fn failure(what: &str, refused: &Status) -> Failure {
    let failure = status::failure(what, refused);
    match advice(refused) {
        Some(next) => failure.next(next),
        None => failure,
    }
}

fn advice(refused: &Status) -> Option<&'static str> {
    let details = refused.get_error_details();
    let advice = match details.error_info()?.reason.as_str() {
        "NODE_PRESENT" => {
            "`espalier cluster status` shows it; to put an empty node in its place, `espalier cluster remove` it first"
        }
        "NODE_UNANSWERED" => {
            "start that node with this cluster's key and no `bootstrap` in its [cluster] section, check the address \
             and its certificate, and try again"
        }
        "NODE_UNFIT" => {
            "a node can be added that has this cluster's key and waits: no `bootstrap` in its [cluster] section, and \
             nothing of another cluster in its data_dir"
        }
        "NO_MAJORITY_LEFT" => {
            "start the nodes that are not reached, or remove those instead; `espalier cluster status` shows them"
        }
        "NOBODY_ELSE" => {
            "start another node, or take another one's drain back with `espalier cluster drain ID --undo`"
        }
        "NOT_IN_SERVICE" => "wait until `espalier cluster status` shows it settled, and try again",
        "CANNOT_LEAD" => {
            "choose another node: `espalier cluster status` shows who votes, and who is reached"
        }
        "NO_MAJORITY" => {
            "start the nodes that are down; `espalier cluster status --local` shows which ones this node reaches"
        }
        _ if refused.code() == Code::NotFound => {
            "`espalier cluster status` shows the nodes and the shards that there are"
        }
        _ => return None,
    };
    Some(advice)
}
