//! `espalier token`: tokens for viewers.

use std::path::Path;
use std::time::{Duration, SystemTime};

use espalier_process::{Failure, OrFail};
use espalier_proto::v1::IssueViewerTokenRequest;
use espalier_token::{Claims, IssuerKey};

use crate::args::{IssueArgs, TokenCommand};
use crate::{output, status};

pub(crate) async fn run(command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Issue(args) => issue(&args).await,
    }
}

async fn issue(args: &IssueArgs) -> Result<(), Failure> {
    let token = match &args.key {
        Some(key) => sign(key, &args.channel, args.ttl)?,
        None => ask(args).await?,
    };
    output::print(token)
}

fn sign(path: &Path, channel: &str, ttl: Duration) -> Result<String, Failure> {
    let key =
        IssuerKey::from_pem_file(path).map_err(|error| {
            Failure::usage(format!("cannot sign with {}", path.display())).caused_by(&error).next(
            "make one with `openssl genpkey -algorithm ed25519 -out issuer.pem`, and give the \
             orchestrator its public key",
        )
        })?;
    let claims = Claims::new(channel, SystemTime::now(), ttl);
    espalier_token::issue(&key, &claims).or_fail("the token was not signed")
}

async fn ask(args: &IssueArgs) -> Result<String, Failure> {
    let request = IssueViewerTokenRequest {
        channel: format!("channels/{}", args.channel),
        ttl: Some(prost_types::Duration {
            seconds: i64::try_from(args.ttl.as_secs()).or_usage("the ttl is too long")?,
            nanos: i32::try_from(args.ttl.subsec_nanos()).or_usage("the ttl is too long")?,
        }),
    };
    let mut channels = args.connection.connect().await?.channels();
    let response = channels
        .issue_viewer_token(request)
        .await
        .map_err(|error| status::failure("no token was issued", &error))?;
    Ok(response.into_inner().token)
}
