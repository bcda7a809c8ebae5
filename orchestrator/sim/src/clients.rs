//! Callers of the API: they change and read channels' settings through any node, and what they were told is
//! checked for linearizability in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use espalier_orchestrator_core::state::{ChannelSettings, Outcome, Refusal, ShardEntry, ShardOp};
use espalier_orchestrator_core::{ChannelId, PolicyDraft};
use espalier_shards::{ProposeError, Stopped};
use openraft::AsyncRuntime as _;

use crate::audit::Audit;
use crate::context::{Context, Event, Mail};
use crate::dice::Dice;
use crate::linear::{self, Ask, Operation, Told};
use crate::node::{Me, ShardGroup};
use crate::planted::Bug;
use crate::runtime::{NodeRuntime, spawn_in};

/// How long a caller waits.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a caller was told.
#[derive(Debug)]
pub(crate) struct Answer {
    number: u64,
    /// `None`: it certainly had no effect.
    told: Option<Told>,
}

#[derive(Debug, Default)]
struct Client {
    pending: Option<Pending>,
    /// The last value that it saw of each channel.
    seen: BTreeMap<ChannelId, u64>,
}

#[derive(Debug)]
struct Pending {
    number: u64,
    channel: ChannelId,
    ask: Ask,
    invoked: u64,
}

/// All callers and their history.
pub(crate) struct Clients {
    clients: Vec<Client>,
    channels: Vec<ChannelId>,
    history: BTreeMap<ChannelId, Vec<Operation>>,
    moments: u64,
    values: u64,
    dice: Dice,
    /// They begin nothing new.
    pub(crate) resting: bool,
}

impl Clients {
    pub(crate) fn new(count: u32, channels: Vec<ChannelId>, dice: Dice) -> Self {
        Self {
            clients: (0..count).map(|_| Client::default()).collect(),
            channels,
            history: BTreeMap::new(),
            moments: 0,
            values: 0,
            dice,
            resting: false,
        }
    }

    /// A caller asks something of a node, if it waits for nothing.
    pub(crate) fn turn(&mut self, client: u32, node: Option<&Me>, context: &mut Context) {
        let wait = self.dice.millis(10, 250);
        context.after(wait, Event::Client(client));
        let Some(channel) = self.dice.pick(&self.channels).cloned() else {
            return;
        };
        self.moments += 1;
        self.values += 1;
        let (invoked, value) = (self.moments, self.values);
        let Some(asking) = self.clients.get_mut(client as usize) else {
            return;
        };
        let Some(me) = node.filter(|_| asking.pending.is_none() && !self.resting) else {
            return;
        };
        let ask = match self.dice.below(10) {
            0..=4 => Ask::Read,
            5..=7 => Ask::Write(value),
            _ => Ask::Swap(asking.seen.get(&channel).copied().unwrap_or(0), value),
        };
        let number = invoked;
        asking.pending = Some(Pending {
            number,
            channel: channel.clone(),
            ask,
            invoked,
        });
        context.after(PATIENCE, Event::Late(client, number));
        let (there, back) = (self.dice.millis(0, 8), self.dice.millis(0, 8));
        let (group, audit, mail) = (
            me.group.clone(),
            context.audit.clone(),
            context.mail.clone(),
        );
        let lease = context.bug == Some(Bug::LeaseReads);
        spawn_in(Some(me.life.clone()), async move {
            NodeRuntime::sleep(there).await;
            let told = execute(&group, &audit, &channel, ask, lease).await;
            NodeRuntime::sleep(back).await;
            // The world is gone only when the run is over.
            drop(mail.unbounded_send(Mail::Client(client, Answer { number, told })));
        });
    }

    pub(crate) fn answered(&mut self, client: u32, answer: &Answer, context: &Context) {
        self.moments += 1;
        let Some(asking) = self.clients.get_mut(client as usize) else {
            return;
        };
        let Some(pending) = asking.pending.take_if(|of| of.number == answer.number) else {
            return;
        };
        context.audit.note(pending.number ^ 0xc11e47, || {
            let Pending { channel, ask, .. } = &pending;
            format!("client {client}: {channel} {ask:?}: {:?}", answer.told)
        });
        let Some(told) = answer.told else { return };
        match (pending.ask, told) {
            (_, Told::Value(value)) | (Ask::Write(value) | Ask::Swap(_, value), Told::Written) => {
                asking.seen.insert(pending.channel.clone(), value);
            }
            (_, Told::Refused | Told::Unknown | Told::Written) => {}
        }
        let returned = if told == Told::Unknown {
            u64::MAX
        } else {
            self.moments
        };
        self.remember(pending, told, returned);
    }

    /// A caller gives up: what it asked for may happen or not.
    pub(crate) fn late(&mut self, client: u32, number: u64) {
        let asking = self.clients.get_mut(client as usize);
        if let Some(pending) = asking.and_then(|of| of.pending.take_if(|of| of.number == number)) {
            self.remember(pending, Told::Unknown, u64::MAX);
        }
    }

    fn remember(&mut self, pending: Pending, told: Told, returned: u64) {
        let Pending {
            channel,
            ask,
            invoked,
            ..
        } = pending;
        if ask == Ask::Read && told == Told::Unknown {
            return;
        }
        let operation = Operation {
            ask,
            told,
            invoked,
            returned,
        };
        self.history.entry(channel).or_default().push(operation);
    }

    /// Whether what the callers were told could have been told by one register a channel.
    pub(crate) fn check(&mut self, audit: &Audit) {
        for client in 0..self.clients.len() {
            if let Some(pending) = self.clients[client].pending.take() {
                self.remember(pending, Told::Unknown, u64::MAX);
            }
        }
        for (channel, history) in &self.history {
            if let Err(possible) = linear::check(0, history) {
                let detail = format!(
                    "{channel}: {possible} of {} operations can be put in order",
                    history.len()
                );
                audit.violated("the API is linearizable", detail);
            }
        }
    }

    /// How many operations there were.
    pub(crate) fn count(&self) -> usize {
        self.history.values().map(Vec::len).sum()
    }
}

async fn execute(
    group: &ShardGroup,
    audit: &Audit,
    channel: &ChannelId,
    ask: Ask,
    lease: bool,
) -> Option<Told> {
    let term = group.current_leadership().leading_term()?;
    let value = match ask {
        Ask::Read => {
            let read = if lease {
                group.read_lease().await
            } else {
                group.read_index().await
            };
            read.ok()?;
            return value_of(group, channel).map(Told::Value);
        }
        Ask::Write(value) | Ask::Swap(_, value) => value,
    };
    let known = group.read(|_, replica| {
        let channel = replica.state.channel(channel);
        channel.map(|channel| channel.settings.clone())
    })?;
    let expected = match ask {
        Ask::Swap(old, _) => Some(old.to_string()),
        Ask::Read | Ask::Write(_) => None,
    };
    let update = ShardOp::Update {
        channel: channel.clone(),
        expected_etag: expected,
        settings: settings(known.incarnation, value),
    };
    let command: Bytes = ShardEntry::new(term, vec![update]).encode().ok()?.into();
    match group.propose(term, command.clone()).await {
        Ok((at, answer)) => {
            audit.acknowledged(at, &command);
            match Outcome::decode_all(&answer).ok()?.first()? {
                Outcome::Applied => Some(Told::Written),
                Outcome::Refused(Refusal::Etag) => Some(Told::Refused),
                Outcome::Refused(_) => None,
            }
        }
        Err(ProposeError::Unknown { .. }) => Some(Told::Unknown),
        Err(ProposeError::NotLeader { .. } | ProposeError::TooLarge { .. }) => None,
    }
}

fn value_of(group: &ShardGroup, channel: &ChannelId) -> Option<u64> {
    group.read(|_, replica| {
        let channel = replica.state.channel(channel)?;
        channel.settings.etag.parse().ok()
    })
}

/// Settings that hold this value; the policy differs with it.
pub(crate) fn settings(incarnation: u64, value: u64) -> ChannelSettings {
    let small = |of: u64| u32::try_from(value % of).unwrap_or(0);
    ChannelSettings {
        incarnation,
        origin_uri: "https://origin.example/live.m3u8".to_owned(),
        signer_uri: None,
        policy: PolicyDraft {
            target_roots: Some(1 + small(3)),
            max_depth: Some(3 + small(7)),
            max_children: Some(2 + small(5)),
            ..PolicyDraft::default()
        },
        create_time_ms: 0,
        etag: value.to_string(),
        signing: espalier_orchestrator_core::state::Sealed::default(),
    }
}

/// Makes the channels, which everything begins with.
pub(crate) async fn create(group: &ShardGroup, channels: &[ChannelId]) -> Result<bool, Stopped> {
    let Some(term) = group.current_leadership().leading_term() else {
        return Ok(false);
    };
    let ops = channels.iter().enumerate().map(|(place, channel)| {
        let settings = settings(place as u64 + 1, 0);
        let policy = espalier_orchestrator_core::Policy::validate(&settings.policy);
        ShardOp::Create {
            channel: channel.clone(),
            settings,
            policy: policy.unwrap_or_default(),
        }
    });
    let stopped = |reason: String| Stopped { reason };
    let command = ShardEntry::new(term, ops.collect()).encode();
    let command = command.map_err(|error| stopped(error.to_string()))?;
    let outcome = group.propose(term, command.into()).await;
    Ok(outcome.is_ok())
}
