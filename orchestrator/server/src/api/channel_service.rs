//! `espalier.v1.ChannelService`.

use core::pin::Pin;
use core::time::Duration;
use std::sync::Arc;
use std::time::SystemTime;

use espalier_proto::v1;
use espalier_proto::v1::channel_service_client::ChannelServiceClient;
use espalier_proto::v1::channel_service_server::ChannelService;
use espalier_signer::OriginState;
use espalier_token::{Claims, IssuerKey, issue};
use futures::Stream;
use tonic::{Request, Response, Status};
use url::Url;

use super::forward::{Place, Router, answer, forwarded};
use super::plans::Plans;
use super::resource::{channel_id, short};
use super::{paging, watch};
use crate::channel::ChannelView;
use crate::directory::{Channel, Directory, Wanted, check_policy};
use crate::policies;
use crate::status::{ChannelError, Violation};
use crate::translate::{self, Faults};
use espalier_orchestrator_core::PolicyDraft;

/// Longest URI that is taken, bytes.
const MAX_URI: usize = 2_048;
/// How long a viewer's token may hold.
const MAX_TTL: Duration = Duration::from_secs(30 * 86_400);

/// The service.
pub(crate) struct ChannelApi {
    directory: Arc<Directory>,
    router: Router,
    issuer: IssuerKey,
    plans: Plans,
}

impl ChannelApi {
    pub(crate) fn new(directory: Arc<Directory>, router: Router, issuer: IssuerKey) -> Self {
        Self {
            directory,
            router,
            issuer,
            plans: Plans::default(),
        }
    }
}

type Client = ChannelServiceClient<tonic::transport::Channel>;

#[tonic::async_trait]
impl ChannelService for ChannelApi {
    async fn create_channel(
        &self,
        request: Request<v1::CreateChannelRequest>,
    ) -> Result<Response<v1::Channel>, Status> {
        let wanted = check_create(request.get_ref().clone())?;
        if let Place::There(owner) = self.router.place(&wanted.id, &request)? {
            let request = forwarded(request.into_inner());
            return answer(Client::new(owner).create_channel(request).await);
        }
        let channel = self.directory.create(wanted).await?;
        Ok(Response::new(describe_now(&channel).await?))
    }

    async fn get_channel(
        &self,
        request: Request<v1::GetChannelRequest>,
    ) -> Result<Response<v1::Channel>, Status> {
        let id = channel_id("name", &request.get_ref().name)?;
        if let Place::There(owner) = self.router.place(&id, &request)? {
            let request = forwarded(request.into_inner());
            return answer(Client::new(owner).get_channel(request).await);
        }
        let channel = self.directory.find_current(&id).await?;
        Ok(Response::new(describe_now(&channel).await?))
    }

    async fn list_channels(
        &self,
        request: Request<v1::ListChannelsRequest>,
    ) -> Result<Response<v1::ListChannelsResponse>, Status> {
        let request = request.into_inner();
        let size = paging::size(request.page_size)?;
        let after = paging::after(&request.page_token)?;
        let (page, more) = self.directory.page(after.as_ref(), size);
        let next = page
            .last()
            .filter(|_| more)
            .map(|last| paging::token(&last.id));
        // The last published view is a quarter of a second old at the most: good enough for a list. Of
        // channels that other nodes own, the list says what every node knows.
        let channels = page.iter().map(|channel| match channel.actor() {
            Ok(actor) => describe(channel, &actor.watch().borrow()),
            Err(_elsewhere) => v1::Channel {
                audience: None,
                ..describe(channel, &ChannelView::default())
            },
        });
        Ok(Response::new(v1::ListChannelsResponse {
            channels: channels.collect(),
            next_page_token: next.unwrap_or_default(),
        }))
    }

    async fn update_channel(
        &self,
        request: Request<v1::UpdateChannelRequest>,
    ) -> Result<Response<v1::Channel>, Status> {
        let wanted = request.get_ref().channel.clone();
        let wanted = wanted.ok_or_else(|| invalid("channel", "is missing"))?;
        let id = channel_id("channel.name", &wanted.name)?;
        if let Place::There(owner) = self.router.place(&id, &request)? {
            let request = forwarded(request.into_inner());
            return answer(Client::new(owner).update_channel(request).await);
        }
        let request = request.into_inner();
        let paths = request
            .update_mask
            .map(|mask| mask.paths)
            .unwrap_or_default();
        let mask = check_mask(&paths, wanted.policy.is_some())?;
        let given = given_policy("channel.policy", wanted.policy.as_ref())?;
        let update = |old: &PolicyDraft| mask.apply(old, &given);
        let channel = self.directory.update(&id, &wanted.etag, update).await?;
        Ok(Response::new(describe_now(&channel).await?))
    }

    async fn delete_channel(
        &self,
        request: Request<v1::DeleteChannelRequest>,
    ) -> Result<Response<()>, Status> {
        let id = channel_id("name", &request.get_ref().name)?;
        if let Place::There(owner) = self.router.place(&id, &request)? {
            let request = forwarded(request.into_inner());
            return answer(Client::new(owner).delete_channel(request).await);
        }
        let request = request.into_inner();
        self.directory.delete(&id, &request.etag).await?;
        Ok(Response::new(()))
    }

    type WatchChannelStream = Pin<Box<dyn Stream<Item = Result<v1::Channel, Status>> + Send>>;

    async fn watch_channel(
        &self,
        request: Request<v1::WatchChannelRequest>,
    ) -> Result<Response<Self::WatchChannelStream>, Status> {
        let id = channel_id("name", &request.get_ref().name)?;
        if let Place::There(owner) = self.router.place(&id, &request)? {
            let request = forwarded(request.into_inner());
            let states = answer(Client::new(owner).watch_channel(request).await)?;
            return Ok(Response::new(Box::pin(states.into_inner())));
        }
        let channel = self.directory.find_current(&id).await?;
        let states = watch::states(channel, describe)?;
        Ok(Response::new(Box::pin(states)))
    }

    async fn plan_channel(
        &self,
        request: Request<v1::PlanChannelRequest>,
    ) -> Result<Response<v1::PlanChannelResponse>, Status> {
        let id = channel_id("name", &request.get_ref().name)?;
        if let Place::There(owner) = self.router.place(&id, &request)? {
            let request = forwarded(request.into_inner());
            return answer(Client::new(owner).plan_channel(request).await);
        }
        let request = request.into_inner();
        let channel = self.directory.find_current(&id).await?;
        let paths = request.update_mask.unwrap_or_default().paths;
        let mask = check_mask(&paths, request.policy.is_some())?;
        let given = given_policy("policy", request.policy.as_ref())?;
        let wanted = mask.apply(&channel.record.borrow().policy, &given);
        let plan = self.plans.plan(&channel, check_policy(&wanted)?).await?;
        Ok(Response::new(plan))
    }

    async fn issue_viewer_token(
        &self,
        request: Request<v1::IssueViewerTokenRequest>,
    ) -> Result<Response<v1::IssueViewerTokenResponse>, Status> {
        let id = channel_id("channel", &request.get_ref().channel)?;
        let ttl = check_ttl(request.get_ref().ttl)?;
        let channel = match self.directory.find(id.as_str()) {
            Ok(channel) => channel,
            // It may have been made at another node a moment ago.
            Err(absent) => match self.router.place(&id, &request)? {
                Place::Here => return Err(absent.into()),
                Place::There(owner) => {
                    let request = forwarded(request.into_inner());
                    return answer(Client::new(owner).issue_viewer_token(request).await);
                }
            },
        };
        let claims = Claims::new(channel.id.as_str(), SystemTime::now(), ttl);
        let expires = Duration::from_secs(claims.expires_at);
        let token = issue(&self.issuer, &claims).map_err(|error| {
            tracing::error!(
                error = crate::error_chain(&error),
                "a viewer token could not be signed"
            );
            Status::internal("the token could not be signed")
        })?;
        Ok(Response::new(v1::IssueViewerTokenResponse {
            token,
            expire_time: Some(translate::timestamp(SystemTime::UNIX_EPOCH + expires)),
        }))
    }
}

fn given_policy(field: &str, policy: Option<&v1::Policy>) -> Result<PolicyDraft, ChannelError> {
    let mut faults = Faults::default();
    let given = policies::policy_in(&mut faults, field, policy);
    faults.result(Some(given)).map_err(ChannelError::Invalid)
}

fn invalid(field: &str, problem: &str) -> ChannelError {
    ChannelError::Invalid(vec![Violation {
        field: field.to_owned(),
        problem: problem.to_owned(),
    }])
}

fn check_create(request: v1::CreateChannelRequest) -> Result<Wanted, ChannelError> {
    let mut faults = Faults::default();
    let id = faults.parse("channel_id", &request.channel_id);
    let Some(channel) = request.channel else {
        faults.add("channel", "is missing");
        return Err(ChannelError::Invalid(faults.0));
    };
    if !channel.name.is_empty() && channel.name != format!("channels/{}", request.channel_id) {
        faults.add(
            "channel.name",
            "is another than channel_id says; leave it empty",
        );
    }
    check_uri(&mut faults, "channel.origin_uri", &channel.origin_uri);
    if !channel.signer_uri.is_empty() {
        check_uri(&mut faults, "channel.signer_uri", &channel.signer_uri);
    }
    let policy = policies::policy_in(&mut faults, "channel.policy", channel.policy.as_ref());
    if let Err(ChannelError::Invalid(mistakes)) = check_policy(&policy) {
        faults.0.extend(mistakes);
    }
    let id = faults.result(id).map_err(ChannelError::Invalid)?;
    let signer_uri = Some(channel.signer_uri).filter(|uri| !uri.is_empty());
    Ok(Wanted {
        id,
        origin_uri: channel.origin_uri,
        signer_uri,
        policy,
    })
}

fn check_uri(faults: &mut Faults, field: &str, text: &str) {
    if text.is_empty() {
        faults.add(field, "is missing");
        return;
    }
    if text.len() > MAX_URI {
        faults.add(field, format!("is longer than {MAX_URI} bytes"));
        return;
    }
    let url = Url::parse(text).ok();
    let usable = url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !usable {
        faults.add(field, format!("is no http or https URI: `{}`", short(text)));
    }
}

fn check_ttl(ttl: Option<prost_types::Duration>) -> Result<Duration, ChannelError> {
    let ttl = ttl.ok_or_else(|| invalid("ttl", "is missing"))?;
    let ttl = Duration::try_from(ttl).map_err(|_| invalid("ttl", "is negative or no duration"))?;
    if ttl < Duration::from_secs(1) || ttl > MAX_TTL {
        return Err(invalid("ttl", "is not between one second and 30 days"));
    }
    Ok(ttl)
}

/// Which fields of the policy an update replaces.
#[derive(Debug)]
enum PolicyMask {
    Whole,
    Nothing,
    Fields(Vec<fn(&mut PolicyDraft, &PolicyDraft)>),
}

/// Reads an update mask. Without one, what the request carries is replaced (AIP-134).
fn check_mask(paths: &[String], has_policy: bool) -> Result<PolicyMask, ChannelError> {
    if paths.is_empty() {
        return Ok(if has_policy {
            PolicyMask::Whole
        } else {
            PolicyMask::Nothing
        });
    }
    if paths.iter().any(|path| path == "policy" || path == "*") {
        return Ok(PolicyMask::Whole);
    }
    let mut faults = Faults::default();
    let fields = paths.iter().filter_map(|path| {
        let field = path.strip_prefix("policy.").and_then(policies::replace);
        if field.is_none() {
            faults.add(
                "update_mask",
                format!(
                    "`{}` cannot be changed: only policy and its fields can",
                    short(path)
                ),
            );
        }
        field
    });
    let fields = fields.collect();
    faults
        .result(Some(fields))
        .map(PolicyMask::Fields)
        .map_err(ChannelError::Invalid)
}

impl PolicyMask {
    fn apply(&self, old: &PolicyDraft, given: &PolicyDraft) -> PolicyDraft {
        let fields = match self {
            Self::Whole => return given.clone(),
            Self::Nothing => return old.clone(),
            Self::Fields(fields) => fields,
        };
        let mut new = old.clone();
        for replace in fields {
            replace(&mut new, given);
        }
        new
    }
}

async fn describe_now(channel: &Channel) -> Result<v1::Channel, Status> {
    let view = channel.actor()?.look().await?;
    Ok(describe(channel, &view))
}

fn describe(channel: &Channel, view: &ChannelView) -> v1::Channel {
    let record = channel.record.borrow();
    let signer = channel.signer.status();
    let state = match signer.origin.state {
        OriginState::Starting => v1::OriginState::Starting,
        OriginState::Live => v1::OriginState::Live,
        OriginState::Frozen => v1::OriginState::Frozen,
        OriginState::Unreachable => v1::OriginState::Unreachable,
        OriginState::Invalid => v1::OriginState::Invalid,
        OriginState::Ended => v1::OriginState::Ended,
    };
    v1::Channel {
        name: format!("channels/{}", record.id),
        origin_uri: record.origin_uri.clone(),
        signer_uri: record.signer_uri.clone().unwrap_or_default(),
        policy: Some(policies::policy_out(&record.policy)),
        create_time: Some(translate::timestamp_ms(record.create_time_ms)),
        etag: record.etag.clone(),
        public_keys: channel.public_keys(&[]),
        origin_state: state.into(),
        origin_problem: signer.origin.problem,
        tracks: signer.tracks.iter().map(track_status).collect(),
        audience: Some(translate::audience_out(view.audience)),
        suspects: view.suspects.iter().map(translate::suspect_out).collect(),
        degraded: view.degraded,
    }
}

fn track_status(track: &espalier_signer::TrackStatus) -> v1::TrackStatus {
    v1::TrackStatus {
        index: track.index.0,
        track: track.name.clone(),
        epoch: track.epoch,
        newest_sequence: track.newest_sequence.unwrap_or(0),
        rate_bps: track.rate_bps,
        target_duration: prost_types::Duration::try_from(track.target_duration).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_replaces_only_what_it_names() {
        let old = PolicyDraft {
            max_depth: Some(5),
            target_roots: Some(2),
            ..PolicyDraft::default()
        };
        let given = PolicyDraft {
            max_depth: Some(9),
            ..PolicyDraft::default()
        };
        let apply = |paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            check_mask(&paths, true).unwrap().apply(&old, &given)
        };
        assert_eq!(apply(&[]), given);
        assert_eq!(apply(&["policy"]), given);
        assert_eq!(
            apply(&["policy.max_depth"]),
            PolicyDraft {
                max_depth: Some(9),
                ..old.clone()
            }
        );
        assert_eq!(
            apply(&["policy.target_roots"]),
            PolicyDraft {
                target_roots: None,
                ..old.clone()
            }
        );
        assert_eq!(check_mask(&[], false).unwrap().apply(&old, &given), old);
        for wrong in ["origin_uri", "policy.", "policy.depth", "name", ""] {
            assert!(check_mask(&[wrong.to_owned()], true).is_err(), "{wrong}");
        }
    }

    #[test]
    fn uris_are_http_with_a_host() {
        for (uri, good) in [
            ("http://example.org/live.m3u8", true),
            ("https://[::1]:8443/a?b=c", true),
            ("", false),
            ("ftp://example.org/x", false),
            ("file:///etc/passwd", false),
            ("http://", false),
            ("/live.m3u8", false),
            ("javascript:alert(1)", false),
        ] {
            let mut faults = Faults::default();
            check_uri(&mut faults, "uri", uri);
            assert_eq!(faults.0.is_empty(), good, "{uri}");
        }
    }

    #[test]
    fn times_to_live_have_bounds() {
        let ttl =
            |seconds, nanos| check_ttl(Some(prost_types::Duration { seconds, nanos })).is_ok();
        for (seconds, nanos, good) in [
            (1, 0, true),
            (30 * 86_400, 0, true),
            (0, 0, false),
            (30 * 86_400, 1, false),
            (-1, 0, false),
        ] {
            assert_eq!(ttl(seconds, nanos), good, "{seconds}.{nanos}");
        }
        assert!(check_ttl(None).is_err());
    }
}
