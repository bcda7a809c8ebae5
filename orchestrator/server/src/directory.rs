//! The channels of this node: made, found, changed, ended.
//!
//! Invariants: what is in the directory is on disk; changes happen one after the other; a channel that is
//! being ended takes no new session.

use core::time::Duration;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use espalier_orchestrator_core::{ChannelEvent, ChannelId, Policy, PolicyError};
use espalier_signer::{SignerHandle, SignerLookup};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::channel::{Arbiters, ChannelHandle, HandleError, Start};
use crate::config::Limits;
use crate::gateway::{Gate, SignalPosts, Switchboard};
use crate::owner::{Owned, ShardOwner};
use crate::ownership::Ownership;
use crate::secret;
use crate::signing::{self, SigningError};
use crate::status::{ChannelError, Violation};
use crate::store::{ChannelRecord, ChannelStore, PolicyRecord, SigningRecord, StoreError, on_disk};
use crate::translate;
use espalier_orchestrator_core::ShardId;

/// How long the end of a channel's tasks is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A channel that runs: its sessions here, its signer, and its actor if this node owns it.
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    pub(crate) record: watch::Sender<ChannelRecord>,
    pub(crate) board: Arc<Switchboard>,
    pub(crate) signer: SignerHandle,
    /// Cancelled when the channel ends.
    pub(crate) ended: CancellationToken,
    part: Arc<ShardPart>,
    /// There may be peers that hold edges of an earlier owner.
    recovering: AtomicBool,
    queue: usize,
    tasks: TaskTracker,
}

/// Both halves of one shard at this node.
pub(crate) struct ShardPart {
    pub(crate) owner: Arc<ShardOwner>,
    pub(crate) gate: Arc<Gate>,
}

/// What a caller wants a new channel to be; checked.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) id: ChannelId,
    pub(crate) origin_uri: String,
    pub(crate) signer_uri: Option<String>,
    pub(crate) policy: PolicyRecord,
}

/// The channels of this node.
pub(crate) struct Directory {
    channels: RwLock<BTreeMap<ChannelId, Arc<Channel>>>,
    /// Held while a channel is made, changed or ended.
    changing: Mutex<()>,
    /// The node ends: a channel that is not found may well be there elsewhere, or later.
    stopping: AtomicBool,
    store: ChannelStore,
    arbiters: Arc<Arbiters>,
    ownership: Arc<dyn Ownership>,
    parts: BTreeMap<ShardId, Arc<ShardPart>>,
    posts: Arc<SignalPosts>,
    limits: Limits,
}

/// Why the channels that are on disk could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The disk failed, or a file is damaged.
    #[error("the channels cannot be read")]
    Store(#[from] StoreError),
    /// A channel's policy is none.
    #[error("the policy of channel {channel} cannot be used")]
    Policy {
        /// Which channel.
        channel: String,
        /// What is wrong with it.
        #[source]
        source: PolicyError,
    },
    /// A channel's id is none.
    #[error("{0} is no channel's id")]
    Id(String),
    /// There is no such shard.
    #[error("there is no shard {0}")]
    Shard(u32),
    /// A channel's signer did not start.
    #[error("the signer of channel {channel} did not start")]
    Signing {
        /// Which channel.
        channel: String,
        /// Why not.
        #[source]
        source: SigningError,
    },
}

impl Directory {
    pub(crate) fn new(
        store: ChannelStore,
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
            };
            (shard, Arc::new(part))
        };
        Self {
            channels: RwLock::default(),
            changing: Mutex::default(),
            stopping: AtomicBool::new(false),
            store,
            parts: ownership.shards().into_iter().map(part).collect(),
            posts: Arc::new(SignalPosts::new(Arc::clone(&ownership))),
            arbiters,
            ownership,
            limits,
        }
    }

    /// Takes up the shards that this node owns, then runs all of them until `stopping`.
    pub(crate) async fn run_shards(&self, stopping: &CancellationToken) {
        for (shard, part) in &self.parts {
            let leading = self.ownership.leading(*shard);
            let term = *leading.borrow();
            if let Some(term) = term {
                part.owner.take_up(term).await;
            }
            let owner = Arc::clone(&part.owner);
            tokio::spawn(owner.run(leading, stopping.clone()));
            let run =
                Arc::clone(&part.gate).run(Arc::clone(&self.ownership), Arc::clone(&part.owner));
            let stopping = stopping.clone();
            tokio::spawn(async move { stopping.run_until_cancelled(run).await });
        }
    }

    pub(crate) fn ownership(&self) -> &Arc<dyn Ownership> {
        &self.ownership
    }

    /// Both halves of a shard, if there is such a shard.
    pub(crate) fn part(&self, shard: ShardId) -> Option<&Arc<ShardPart>> {
        self.parts.get(&shard)
    }

    /// Starts every channel that is on disk.
    pub(crate) async fn load(&self) -> Result<(), LoadError> {
        let _changing = self.changing.lock().await;
        let store = self.store.clone();
        for record in on_disk(move || store.load()).await? {
            let channel = self.start(record, true).await?;
            tracing::info!(channel = %channel.id, "channel found");
        }
        Ok(())
    }

    pub(crate) fn find(&self, id: &str) -> Result<Arc<Channel>, ChannelError> {
        let missing = || ChannelError::NotFound(id.to_owned());
        let id: ChannelId = id.parse().map_err(|_| missing())?;
        self.read().get(&id).cloned().ok_or_else(missing)
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

    /// Makes a channel; or returns the one that is there, if it is what is wanted.
    pub(crate) async fn create(&self, wanted: Wanted) -> Result<Arc<Channel>, ChannelError> {
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
        if let Ok(existing) = self.find(wanted.id.as_str()) {
            return same_or_conflict(existing, &wanted);
        }
        if self.read().len() >= self.limits.max_channels {
            return Err(ChannelError::TooMany {
                limit: self.limits.max_channels,
            });
        }
        let wanted_id = wanted.id.clone();
        let record = new_record(wanted, signing);
        let (store, kept) = (self.store.clone(), record.clone());
        on_disk(move || store.create(&kept)).await?;
        let started = self.start(record, false).await;
        if started.is_err() {
            let store = self.store.clone();
            on_disk(move || store.delete(wanted_id.as_str())).await?;
        }
        let channel = started.map_err(start_failed)?;
        tracing::info!(channel = %channel.id, "channel created");
        Ok(channel)
    }

    /// Gives a channel another policy.
    pub(crate) async fn update(
        &self,
        id: &str,
        etag: &str,
        change: impl FnOnce(&PolicyRecord) -> PolicyRecord,
    ) -> Result<Arc<Channel>, ChannelError> {
        let _changing = self.changing.lock().await;
        let channel = self.find(id)?;
        let mut record = channel.record.borrow().clone();
        check_etag(&record, etag)?;
        let policy = change(&record.policy);
        let checked = check_policy(&policy)?;
        if policy == record.policy {
            return Ok(channel);
        }
        record.policy = policy;
        record.etag = new_etag();
        let (store, kept) = (self.store.clone(), record.clone());
        on_disk(move || store.update(&kept)).await?;
        channel.record.send_replace(record);
        // An actor that is not there yet starts with the record.
        if let Ok(actor) = channel.actor() {
            let policy = checked;
            actor.tell(ChannelEvent::PolicyChanged { policy }).await?;
        }
        Ok(channel)
    }

    /// Ends a channel and everything in it.
    pub(crate) async fn delete(&self, id: &str, etag: &str) -> Result<(), ChannelError> {
        let _changing = self.changing.lock().await;
        let channel = self.find(id)?;
        check_etag(&channel.record.borrow(), etag)?;
        let (store, name) = (self.store.clone(), id.to_owned());
        on_disk(move || store.delete(&name)).await?;
        self.write().remove(&channel.id);
        channel.board.deleted();
        channel.end(true).await;
        tracing::info!(channel = id, "channel deleted");
        Ok(())
    }

    /// Whether the node ends.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Ends every channel of this run; on disk they stay.
    pub(crate) async fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let _changing = self.changing.lock().await;
        let channels = std::mem::take(&mut *self.write());
        futures::future::join_all(channels.values().map(|channel| channel.end(false))).await;
        self.arbiters.stop();
    }

    /// Starts what belongs to a channel at this node; when this returns, it can be found.
    async fn start(
        &self,
        record: ChannelRecord,
        recovering: bool,
    ) -> Result<Arc<Channel>, LoadError> {
        let id: ChannelId = record
            .id
            .parse()
            .map_err(|_| LoadError::Id(record.id.clone()))?;
        policy_of(&record)?;
        let shard = self.ownership.shard_of(&id);
        let part = self.parts.get(&shard).ok_or(LoadError::Shard(shard.0))?;
        let signer = signing::start(&record, &self.store)
            .await
            .map_err(|source| LoadError::Signing {
                channel: record.id.clone(),
                source,
            })?;
        let board = Switchboard::new(id.clone(), Arc::clone(&part.gate), Arc::clone(&self.posts));
        let board = Arc::new(board);
        part.gate.add(&id, &board);
        let channel = Arc::new(Channel {
            id: id.clone(),
            record: watch::Sender::new(record),
            board,
            signer,
            ended: CancellationToken::new(),
            part: Arc::clone(part),
            recovering: AtomicBool::new(recovering),
            queue: self.limits.channel_queue,
            tasks: TaskTracker::new(),
        });
        let owned: Arc<dyn Owned> = Arc::<Channel>::clone(&channel);
        if let Err(error) = part.owner.add(&owned).await {
            channel.end(false).await;
            return Err(error.into());
        }
        channel.spawn_tasks(&self.store);
        self.write().insert(id, Arc::clone(&channel));
        Ok(channel)
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

impl Channel {
    /// The public keys whose statements peers accept: the channel's, or those of them that a token pins.
    pub(crate) fn public_keys(&self, pinned: &[String]) -> Vec<Vec<u8>> {
        let keys = self.signer.public_keys().iter().map(|key| key.to_bytes());
        keys.filter(|key| pinned.is_empty() || pinned.contains(&thumbprint(key)))
            .map(Vec::from)
            .collect()
    }

    /// Runs a future until the channel ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = task => {}
            }
        });
    }

    fn spawn_tasks(&self, store: &ChannelStore) {
        let board = Arc::clone(&self.board);
        self.spawn(async move { board.expire_signals().await });
        let id = self.id.to_string();
        self.spawn(signing::keep_state(self.signer.clone(), store.clone(), id));
    }

    /// The channel's actor.
    ///
    /// # Errors
    /// When this node does not own the channel.
    pub(crate) fn actor(&self) -> Result<ChannelHandle, HandleError> {
        self.part.owner.actor(&self.id)
    }

    async fn end(&self, deleted: bool) {
        self.board.end();
        self.ended.cancel();
        self.tasks.close();
        let ending = async {
            self.signer.shutdown().await;
            self.tasks.wait().await;
            self.part.owner.remove(&self.id, deleted).await;
            self.part.gate.remove(&self.id);
        };
        if tokio::time::timeout(PATIENCE, ending).await.is_err() {
            tracing::warn!(channel = %self.id, "the channel took too long to end");
        }
    }
}

impl Owned for Channel {
    fn id(&self) -> &ChannelId {
        &self.id
    }

    fn start(&self, term: u64) -> Start {
        let record = self.record.borrow();
        let policy = policy_of(&record).expect("invariant: a channel's record holds a policy");
        Start {
            channel: self.id.clone(),
            policy,
            incarnation: record.incarnation,
            term,
            // Who comes after the first owner finds an audience.
            recovering: self.recovering.swap(true, Ordering::Relaxed),
            queue: self.queue,
        }
    }

    fn accompany(&self, actor: ChannelHandle, ended: CancellationToken) {
        let feed = signing::feed_engine(self.signer.clone(), actor);
        self.spawn(async move {
            // What the actor was not told before it ended, the next one is.
            let _ended = ended.run_until_cancelled(feed).await;
        });
    }
}

fn policy_of(record: &ChannelRecord) -> Result<Policy, LoadError> {
    Policy::validate(&translate::policy_draft(&record.policy)).map_err(|source| LoadError::Policy {
        channel: record.id.clone(),
        source,
    })
}

/// Checks a policy, naming fields as in `Channel`.
pub(crate) fn check_policy(record: &PolicyRecord) -> Result<Policy, ChannelError> {
    Policy::validate(&translate::policy_draft(record)).map_err(|error| {
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
    Err(ChannelError::Changed(record.id.clone()))
}

fn new_record(wanted: Wanted, signing: SigningRecord) -> ChannelRecord {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    ChannelRecord {
        id: wanted.id.to_string(),
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

fn thumbprint(key: &[u8; 32]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(key)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn start_failed(error: LoadError) -> ChannelError {
    match error {
        LoadError::Store(error) => ChannelError::Store(error),
        LoadError::Policy { .. }
        | LoadError::Id(_)
        | LoadError::Shard(_)
        | LoadError::Signing { .. } => {
            let problem = crate::error_chain(&error);
            ChannelError::Invalid(vec![Violation {
                field: "channel".to_owned(),
                problem,
            }])
        }
    }
}
