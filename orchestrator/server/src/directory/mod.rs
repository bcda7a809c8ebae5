//! The channels of this node: found, and made, changed, ended in the cluster's state.
//!
//! What runs here follows the state of the shards, on every node alike: a change is proposed, and what is
//! committed is then carried out by everybody. Invariants: what is in the directory was committed; this
//! node's changes of channels happen one after the other; a channel that is being ended takes no new session.

mod channel;
mod follow;

use core::time::Duration;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use espalier_orchestrator_core::{ChannelId, Policy, PolicyDraft, ShardId};
use espalier_signer::{SignerHandle, SignerLookup};
use tokio::sync::Mutex;

pub(crate) use self::channel::Channel;
use crate::channel::Arbiters;
use crate::config::Limits;
use crate::gateway::{Gate, SignalPosts};
use crate::owner::ShardOwner;
use crate::ownership::Ownership;
use crate::registry::{ChannelRecord, Registry, RegistryError, SigningRecord};
use crate::secret;
use crate::signing;
use crate::status::{ChannelError, Violation};

/// How soon a channel that the cluster has runs at every node that hears the cluster.
const RUNS_WITHIN: Duration = Duration::from_secs(2);

/// Both halves of one shard at this node.
pub(crate) struct ShardPart {
    pub(crate) owner: Arc<ShardOwner>,
    pub(crate) gate: Arc<Gate>,
    /// The shard's channels here, with the incarnations and etags that are carried out. Held while the
    /// shard's state is compared with what runs here.
    known: Mutex<BTreeMap<ChannelId, (u64, String)>>,
}

/// What a caller wants a new channel to be; checked.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) id: ChannelId,
    pub(crate) origin_uri: String,
    pub(crate) signer_uri: Option<String>,
    pub(crate) policy: PolicyDraft,
}

/// The channels of this node.
pub(crate) struct Directory {
    channels: RwLock<BTreeMap<ChannelId, Arc<Channel>>>,
    /// Held while a channel is made, changed or ended.
    changing: Mutex<()>,
    /// The node ends: a channel that is not found may well be there elsewhere, or later.
    stopping: AtomicBool,
    registry: Arc<Registry>,
    arbiters: Arc<Arbiters>,
    ownership: Arc<dyn Ownership>,
    parts: BTreeMap<ShardId, Arc<ShardPart>>,
    posts: Arc<SignalPosts>,
    limits: Limits,
}

impl Directory {
    pub(crate) fn new(
        registry: Arc<Registry>,
        arbiters: Arbiters,
        ownership: Arc<dyn Ownership>,
        limits: Limits,
    ) -> Self {
        let arbiters = Arc::new(arbiters);
        // A process's streams must not be taken for those of the one before it.
        let boot = secret::random_id();
        let part = |shard| {
            let log = ownership.log(shard);
            let owner = ShardOwner::new(shard, log, Arc::clone(&arbiters));
            let part = ShardPart {
                owner: Arc::new(owner),
                gate: Arc::new(Gate::new(shard, ownership.this(), boot)),
                known: Mutex::default(),
            };
            (shard, Arc::new(part))
        };
        Self {
            channels: RwLock::default(),
            changing: Mutex::default(),
            stopping: AtomicBool::new(false),
            registry,
            parts: ownership.shards().into_iter().map(part).collect(),
            posts: Arc::new(SignalPosts::new(Arc::clone(&ownership))),
            arbiters,
            ownership,
            limits,
        }
    }

    pub(crate) fn ownership(&self) -> &Arc<dyn Ownership> {
        &self.ownership
    }

    /// Both halves of a shard, if there is such a shard.
    pub(crate) fn part(&self, shard: ShardId) -> Option<&Arc<ShardPart>> {
        self.parts.get(&shard)
    }

    pub(crate) fn find(&self, id: &str) -> Result<Arc<Channel>, ChannelError> {
        let missing = || ChannelError::NotFound(id.to_owned());
        let id: ChannelId = id.parse().map_err(|_| missing())?;
        self.read().get(&id).cloned().ok_or_else(missing)
    }

    /// Finds a channel that may have been made at another node a moment ago: asks the cluster before it says
    /// that there is none.
    pub(crate) async fn find_anywhere(
        &self,
        id: &ChannelId,
    ) -> Result<Option<Arc<Channel>>, RegistryError> {
        if let Ok(channel) = self.find(id.as_str()) {
            return Ok(Some(channel));
        }
        if self.is_stopping() || !self.registry.is_active(id).await? {
            return Ok(None);
        }
        let runs_here = async {
            loop {
                if let Ok(channel) = self.find(id.as_str()) {
                    return channel;
                }
                tokio::time::sleep(follow::INTERVAL).await;
            }
        };
        Ok(tokio::time::timeout(RUNS_WITHIN, runs_here).await.ok())
    }

    /// Finds a channel of a shard that this node owns, with everything that was committed before the call.
    pub(crate) async fn find_current(
        self: &Arc<Self>,
        id: &ChannelId,
    ) -> Result<Arc<Channel>, ChannelError> {
        let shard = self.ownership.shard_of(id);
        self.registry.be_current(shard).await?;
        self.sync(shard).await;
        self.find(id.as_str())
    }

    /// Returns up to `count` channels in the order of their ids, from behind `after` on, and whether there
    /// are more.
    pub(crate) fn page(
        &self,
        after: Option<&ChannelId>,
        count: usize,
    ) -> (Vec<Arc<Channel>>, bool) {
        let channels = self.read();
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.clone()));
        let mut rest = channels
            .range((from, Bound::Unbounded))
            .map(|(_, channel)| Arc::clone(channel));
        let page = rest.by_ref().take(count).collect();
        (page, rest.next().is_some())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Channel>> {
        self.read().values().cloned().collect()
    }

    /// How many sessions there are at this node.
    pub(crate) fn sessions(&self) -> usize {
        let channels = self.read();
        channels
            .values()
            .map(|channel| channel.board.sessions())
            .sum()
    }

    /// Makes a channel; or returns the one that is there, if it is what is wanted.
    pub(crate) async fn create(
        self: &Arc<Self>,
        wanted: Wanted,
    ) -> Result<Arc<Channel>, ChannelError> {
        // The signer elsewhere is asked before the lock is taken: it may take its time.
        if let Ok(existing) = self.find(wanted.id.as_str()) {
            return same_or_conflict(existing, &wanted);
        }
        let signing = match &wanted.signer_uri {
            None => SigningRecord::Own(secret::random()),
            Some(uri) => SigningRecord::Remote(
                signing::pin(uri, wanted.id.as_str(), &wanted.origin_uri).await?,
            ),
        };
        let _changing = self.changing.lock().await;
        let shard = self.ownership.shard_of(&wanted.id);
        self.sync(shard).await;
        if let Ok(existing) = self.find(wanted.id.as_str()) {
            return same_or_conflict(existing, &wanted);
        }
        if self.read().len() >= self.limits.max_channels {
            return Err(ChannelError::TooMany {
                limit: self.limits.max_channels,
            });
        }
        let policy = check_policy(&wanted.policy)?;
        let id = wanted.id.clone();
        let record = new_record(wanted, signing);
        let created = self.registry.create(shard, record, policy).await;
        created.map_err(|error| refused(error, &id))?;
        self.sync(shard).await;
        tracing::info!(channel = %id, "channel created");
        self.find(id.as_str())
    }

    /// Gives a channel another policy.
    pub(crate) async fn update(
        self: &Arc<Self>,
        id: &ChannelId,
        etag: &str,
        change: impl FnOnce(&PolicyDraft) -> PolicyDraft,
    ) -> Result<Arc<Channel>, ChannelError> {
        let _changing = self.changing.lock().await;
        let channel = self.find_current(id).await?;
        let mut record = channel.record.borrow().clone();
        check_etag(&record, etag)?;
        let policy = change(&record.policy);
        check_policy(&policy)?;
        if policy == record.policy {
            return Ok(channel);
        }
        record.policy = policy;
        let old_etag = std::mem::replace(&mut record.etag, new_etag());
        let shard = channel.part.owner.shard();
        let updated = self.registry.update(shard, old_etag, &record).await;
        updated.map_err(|error| refused(error, id))?;
        self.sync(shard).await;
        Ok(channel)
    }

    /// Ends a channel and everything in it.
    pub(crate) async fn delete(
        self: &Arc<Self>,
        id: &ChannelId,
        etag: &str,
    ) -> Result<(), ChannelError> {
        let _changing = self.changing.lock().await;
        let channel = self.find_current(id).await?;
        let incarnation = {
            let record = channel.record.borrow();
            check_etag(&record, etag)?;
            record.incarnation
        };
        let shard = channel.part.owner.shard();
        let deleted = self.registry.delete(shard, id, incarnation).await;
        deleted.map_err(|error| refused(error, id))?;
        self.sync(shard).await;
        tracing::info!(channel = %id, "channel deleted");
        Ok(())
    }

    /// Whether the node ends.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Ends every channel of this run; in the cluster's state they stay.
    pub(crate) async fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        for part in self.parts.values() {
            // Whoever has it may be starting a channel; the next one sees that the node stops.
            drop(part.known.lock().await);
        }
        let channels = std::mem::take(&mut *self.write());
        futures::future::join_all(channels.values().map(|channel| channel.end(false))).await;
        self.arbiters.stop();
    }

    /// Nothing that panics is done under the lock, so a poisoned one holds whole data.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<ChannelId, Arc<Channel>>> {
        self.channels.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<ChannelId, Arc<Channel>>> {
        self.channels
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl SignerLookup for Directory {
    fn signer(&self, channel: &str) -> Option<SignerHandle> {
        self.find(channel)
            .ok()
            .map(|channel| channel.signer.clone())
    }
}

/// Checks a policy, naming fields as in `Channel`.
pub(crate) fn check_policy(draft: &PolicyDraft) -> Result<Policy, ChannelError> {
    Policy::validate(draft).map_err(|error| {
        let violations = error.mistakes.into_iter().map(|mistake| Violation {
            field: format!("channel.policy.{}", mistake.key),
            problem: mistake.problem,
        });
        ChannelError::Invalid(violations.collect())
    })
}

fn same_or_conflict(existing: Arc<Channel>, wanted: &Wanted) -> Result<Arc<Channel>, ChannelError> {
    let same = {
        let record = existing.record.borrow();
        record.origin_uri == wanted.origin_uri
            && record.signer_uri == wanted.signer_uri
            && record.policy == wanted.policy
    };
    if same {
        Ok(existing)
    } else {
        Err(ChannelError::Exists(wanted.id.to_string()))
    }
}

fn check_etag(record: &ChannelRecord, etag: &str) -> Result<(), ChannelError> {
    if etag.is_empty() || etag == record.etag {
        return Ok(());
    }
    Err(ChannelError::Changed(record.id.to_string()))
}

fn new_record(wanted: Wanted, signing: SigningRecord) -> ChannelRecord {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    ChannelRecord {
        id: wanted.id,
        origin_uri: wanted.origin_uri,
        signer_uri: wanted.signer_uri,
        policy: wanted.policy,
        create_time_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
        etag: new_etag(),
        incarnation: secret::random_id(),
        signing,
    }
}

fn new_etag() -> String {
    URL_SAFE_NO_PAD.encode(secret::random::<12>())
}

/// What the state's refusal of a change means to whoever wanted it.
fn refused(error: RegistryError, id: &ChannelId) -> ChannelError {
    use espalier_orchestrator_core::state::Refusal;
    let RegistryError::Refused(refusal) = &error else {
        return error.into();
    };
    if *refusal == Refusal::Etag {
        ChannelError::Changed(id.to_string())
    } else if matches!(refusal, Refusal::AlreadyExists) {
        ChannelError::Exists(id.to_string())
    } else if matches!(refusal, Refusal::UnknownChannel | Refusal::Incarnation) {
        ChannelError::NotFound(id.to_string())
    } else {
        error.into()
    }
}
