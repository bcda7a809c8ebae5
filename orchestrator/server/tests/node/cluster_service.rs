//! Clusters of real processes, operated through `ClusterService`.

use std::time::{Duration, Instant};

use espalier_proto::v1::node_message::Kind;
use espalier_proto::v1::{self, ClusterNodeState};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::addresses::free_address;
use crate::members::{ClusterDir, Member, name};
use crate::support::{
    Bearer, FakePeer, assert_invalid, assert_refused, create_request, hex, open, origin, until,
    within,
};

async fn add(at: &Member, address: &str) -> Result<v1::ClusterNode, Status> {
    let cluster_address = address.to_owned();
    let request = v1::AddNodeRequest { cluster_address };
    let added = at.clusters().add_node(request).await;
    added.map(tonic::Response::into_inner)
}

async fn remove(at: &Member, node: &str) -> Result<v1::ClusterNode, Status> {
    let name = node.to_owned();
    let request = v1::RemoveNodeRequest { name };
    let removed = at.clusters().remove_node(request).await;
    removed.map(tonic::Response::into_inner)
}

async fn drain(at: &Member, node: &str, undo: bool) -> Result<v1::ClusterNode, Status> {
    let name = node.to_owned();
    let request = v1::DrainNodeRequest { name, undo };
    let drained = at.clusters().drain_node(request).await;
    drained.map(tonic::Response::into_inner)
}

async fn transfer(at: &Member, shard: &str, to: &str) -> Result<v1::Shard, Status> {
    let request = v1::TransferShardRequest {
        name: shard.to_owned(),
        node: to.to_owned(),
    };
    let moved = at.clusters().transfer_shard(request).await;
    moved.map(tonic::Response::into_inner)
}

/// UNAVAILABLE, and when to ask again.
fn assert_unavailable(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let details = status.get_error_details();
    let delay = details.retry_info().and_then(|retry| retry.retry_delay);
    assert!(
        delay.is_some_and(|delay| delay > Duration::ZERO),
        "{status:?}"
    );
}

#[tokio::test]
async fn nodes_come_and_go_while_sessions_are_open() {
    let (cluster, mut members) = ClusterDir::founded::<3>("").await;
    let origin = origin().await;
    let request = create_request("news", &origin);
    members[0].channels().create_channel(request).await.unwrap();
    let viewer = members[0].viewer_token().await;
    let mut peers = Vec::new();
    for (number, member) in (1_u64..).zip(&members) {
        let peer = async || {
            FakePeer::attach(&member.transport, &viewer, open("news", number))
                .await
                .ok()
        };
        let mut peer = until(peer).await;
        peer.assigned(|it| !it.tracks.is_empty()).await;
        peers.push(peer);
    }
    // Every node says of every other what that says of itself.
    for member in &members {
        for node in 1..=3 {
            member
                .sees(node, |it| {
                    it.is_some_and(|it| it.sessions == 1 && !it.public_uri.is_empty())
                })
                .await;
        }
        let shown = member.cluster().await.unwrap();
        assert_eq!(shown.answered_by, name(member.place.number as u64));
        assert_eq!(shown.shards.len(), 17);
        assert_eq!(shown.shards[0].name, "shards/meta");
        let channels: u32 = shown.shards.iter().map(|shard| shard.channels).sum();
        assert_eq!(channels, 1);
        let leads: u32 = shown.nodes.iter().map(|node| node.leads).sum();
        assert_eq!(leads, 17);
        for node in &shown.nodes {
            assert_eq!(node.release, env!("CARGO_PKG_VERSION"));
            assert!(node.public_uri.starts_with("http://127."), "{node:?}");
        }
    }
    let stranger = v1::cluster_service_client::ClusterServiceClient::with_interceptor(
        members[0].transport.clone(),
        Bearer::new(&viewer),
    );
    let refused = { stranger }
        .get_cluster(v1::GetClusterRequest::default())
        .await;
    assert_refused(
        &refused.unwrap_err(),
        Code::Unauthenticated,
        "TOKEN_UNKNOWN",
    );

    // A fourth.
    let (between, nobody) = (free_address(), free_address());
    let fourth = cluster.place(4, between, false);
    let address = between.to_string();
    let child = fourth.spawn();
    let added = until(async || add(&members[1], &address).await.ok()).await;
    assert_eq!(
        (added.name.as_str(), added.cluster_address.as_str()),
        ("nodes/4", &*address)
    );
    let fourth = cluster.ready(child, fourth);
    members[0]
        .sees(4, |it| {
            it.is_some_and(|it| it.state() == ClusterNodeState::Active)
        })
        .await;
    let shown = members[2].cluster().await.unwrap();
    let everywhere = |shard: &v1::Shard| shard.voters.contains(&name(4));
    assert!(shown.shards.iter().all(everywhere), "{shown:?}");
    assert_refused(
        &add(&members[0], &address).await.unwrap_err(),
        Code::AlreadyExists,
        "NODE_PRESENT",
    );
    assert_invalid(
        &add(&members[0], "nowhere").await.unwrap_err(),
        &["cluster_address"],
    );
    let nobody = add(&members[0], &nobody.to_string()).await.unwrap_err();
    assert_refused(&nobody, Code::Unavailable, "NODE_UNANSWERED");
    assert_unavailable(&nobody);

    // The third goes for good: its process ends by itself, and says that it is no use to start it again.
    assert_invalid(&remove(&members[0], "4").await.unwrap_err(), &["name"]);
    assert_refused(
        &remove(&members[0], "nodes/9").await.unwrap_err(),
        Code::NotFound,
        "NOT_FOUND",
    );
    let leaving = remove(&fourth, "nodes/3").await.unwrap();
    assert_eq!(leaving.state(), ClusterNodeState::Leaving);
    members[0].sees(3, |it| it.is_none()).await;
    drop(peers.pop());
    let mut gone = members.pop().unwrap();
    assert_eq!(gone.ended().await.code(), Some(64));
    let place = gone.place.clone();
    drop(gone);
    let (code, text) = place.fails();
    assert_eq!(code, Some(64), "{text}");
    assert!(
        text.contains("was removed") && text.contains("espalier cluster add"),
        "{text}"
    );

    // Who sat at the others never noticed, and the tree goes on.
    let mut joined = FakePeer::attach(&fourth.transport, &viewer, open("news", 9))
        .await
        .unwrap();
    joined.assigned(|it| !it.tracks.is_empty()).await;
    let tree = until(|| fourth.tree()).await;
    for peer in [1, 2, 9] {
        assert!(tree.iter().any(|(it, ..)| *it == hex(peer)), "{tree:?}");
    }
}

#[tokio::test]
async fn a_leader_moves_where_it_is_asked_to() {
    let (_cluster, members) = ClusterDir::founded::<3>("").await;
    // Whichever node is asked, and whichever leads.
    for (at, to) in members.iter().zip([2, 3, 1]) {
        for shard in ["shards/meta", "shards/7"] {
            let moved = until(async || match transfer(at, shard, &name(to)).await {
                Ok(moved) => Some(moved),
                // The balance moves leaders too.
                Err(status) => {
                    assert_unavailable(&status);
                    None
                }
            })
            .await;
            assert_eq!((moved.name.as_str(), moved.leader), (shard, name(to)));
        }
    }
    let table = [
        ("shards/99", "nodes/1", Code::NotFound),
        ("shards/1", "nodes/9", Code::NotFound),
        ("shards/0", "nodes/1", Code::InvalidArgument),
        ("1", "nodes/1", Code::InvalidArgument),
        ("shards/1", "1", Code::InvalidArgument),
    ];
    for (shard, node, code) in table {
        let refused = transfer(&members[1], shard, node).await.unwrap_err();
        assert_eq!(refused.code(), code, "{shard} {node}: {refused:?}");
    }
    drain(&members[0], "nodes/2", false).await.unwrap();
    members[0]
        .sees(2, |it| it.is_some_and(|it| it.leads == 0))
        .await;
    for member in &members {
        let refused = until(async || {
            let refused = transfer(member, "shards/7", "nodes/2").await.unwrap_err();
            (refused.code() != Code::Unavailable).then_some(refused)
        })
        .await;
        assert_refused(&refused, Code::FailedPrecondition, "CANNOT_LEAD");
    }
}

#[tokio::test]
async fn a_drained_node_leads_nothing_and_sends_its_peers_elsewhere_at_a_pace() {
    const PEERS: u64 = 40;
    const BOUND: usize = 20;
    let limits = format!("moves_per_second = {BOUND}");
    let (cluster, mut members) = ClusterDir::founded::<3>(&limits).await;
    let origin = origin().await;
    let request = create_request("news", &origin);
    members[0].channels().create_channel(request).await.unwrap();
    let viewer = members[0].viewer_token().await;
    let attach = async |member: &Member, number| {
        let peer = async || {
            let open = open("news", number);
            FakePeer::attach(&member.transport, &viewer, open)
                .await
                .ok()
        };
        until(peer).await
    };
    let mut peers = Vec::new();
    for number in 1..=PEERS {
        peers.push(attach(&members[0], number).await);
    }
    members[1]
        .sees(1, |it| it.is_some_and(|it| u64::from(it.sessions) == PEERS))
        .await;
    let drained = drain(&members[2], "nodes/1", false).await.unwrap();
    assert_eq!(drained.state(), ClusterNodeState::Draining);
    // Each is told when it is its turn.
    let mut turns = Vec::new();
    let mut hearing = tokio::task::JoinSet::new();
    for mut peer in peers {
        hearing.spawn(async move {
            loop {
                if let Kind::Notice(notice) = peer.hear().await.unwrap() {
                    let drain = matches!(notice.kind, Some(v1::notice::Kind::Drain(_)));
                    return drain.then(|| (Instant::now(), peer)).unwrap();
                }
            }
        });
    }
    while let Some(turn) = within(hearing.join_next()).await {
        let (at, peer) = turn.unwrap();
        turns.push(at);
        drop(peer);
    }
    turns.sort();
    let second = Duration::from_secs(1);
    for first in &turns {
        let more = turns
            .iter()
            .filter(|at| *at >= first && **at < *first + second);
        assert!(more.count() <= BOUND, "{turns:?}");
    }
    members[1]
        .sees(1, |it| {
            it.is_some_and(|it| it.sessions == 0 && it.leads == 0)
        })
        .await;
    // Nobody is sent there; who comes all the same is let in, and told of the others.
    let excluded = |welcome: &v1::Welcome, at: &Member| {
        let own = format!("http://{}", at.place.public);
        welcome.endpoints.len() == 2 && !welcome.endpoints.contains(&own)
    };
    for (number, member) in (100..).zip(&members) {
        let mut peer = attach(member, number).await;
        assert!(excluded(&peer.welcome, &members[0]), "{:?}", peer.welcome);
        if number == 100 {
            while !matches!(peer.hear().await.unwrap(), Kind::Notice(_)) {}
        }
    }
    // It stays so over a restart, until it is taken back.
    let mut first = members.remove(0);
    first.ask_to_end();
    assert_eq!(first.ended().await.code(), Some(0));
    let first = cluster.start(&first.place.clone());
    members[0]
        .sees(1, |it| {
            it.is_some_and(|it| it.reachable && it.state() == ClusterNodeState::Draining)
        })
        .await;
    let drained = until(|| first.nodes()).await.remove(&1).unwrap();
    assert_eq!(
        (drained.state(), drained.leads),
        (ClusterNodeState::Draining, 0)
    );
    let back = drain(&first, "nodes/1", true).await.unwrap();
    assert_eq!(back.state(), ClusterNodeState::Active);
    members[1]
        .sees(1, |it| it.is_some_and(|it| it.leads > 0))
        .await;
    let welcome = attach(&members[1], 200).await.welcome;
    assert_eq!(welcome.endpoints.len(), 3, "{welcome:?}");
    let unknown = drain(&first, "nodes/9", false).await.unwrap_err();
    assert_refused(&unknown, Code::NotFound, "NOT_FOUND");
}

#[tokio::test]
async fn a_node_that_is_asked_to_end_hands_over_first_and_then_sends_its_peers_away() {
    let (cluster, mut members) = ClusterDir::founded::<3>("").await;
    let origin = origin().await;
    let request = create_request("news", &origin);
    members[0].channels().create_channel(request).await.unwrap();
    let viewer = members[0].viewer_token().await;
    let owner = until(async || {
        for (number, member) in members.iter().enumerate() {
            if member.owns_a_channel().await {
                return Some(number);
            }
        }
        None
    })
    .await;
    let mut owner = members.remove(owner);
    let id = owner.place.number as u64;
    let mut peer = until(async || {
        FakePeer::attach(&owner.transport, &viewer, open("news", 1))
            .await
            .ok()
    })
    .await;
    peer.assigned(|it| !it.tracks.is_empty()).await;
    let before = until(|| members[0].tree()).await;
    owner.ask_to_end();
    while !matches!(peer.hear().await.unwrap(), Kind::Notice(_)) {}
    // By now others own everything: the tree is looked after, as before.
    let led = |shard: &v1::Shard| !shard.leader.is_empty() && shard.leader != name(id);
    until(async || {
        members[0]
            .cluster()
            .await?
            .shards
            .iter()
            .all(led)
            .then_some(())
    })
    .await;
    let after = until(|| members[0].tree()).await;
    assert_eq!(after, before);
    // The peer moves, and the node waits for that.
    let ticket = peer.welcome.ticket.clone();
    let mut again = open("news", 1);
    again.ticket = ticket;
    assert!(owner.child.try_wait().unwrap().is_none());
    let moved = FakePeer::attach(&members[1].transport, &viewer, again).await;
    let own = format!("http://{}", owner.place.public);
    assert!(!moved.unwrap().welcome.endpoints.contains(&own));
    drop(peer);
    assert_eq!(owner.ended().await.code(), Some(0));
    // Nobody wanted it drained: it serves again when it is back.
    let back = cluster.start(&owner.place.clone());
    back.sees(id, |it| {
        it.is_some_and(|it| it.state() == ClusterNodeState::Active && it.leads > 0)
    })
    .await;
}

#[tokio::test]
async fn nodes_that_are_all_asked_to_end_wait_for_nobody() {
    let (_cluster, mut members) = ClusterDir::founded::<3>("stop_grace_ms = 3600000").await;
    let origin = origin().await;
    let request = create_request("news", &origin);
    members[0].channels().create_channel(request).await.unwrap();
    let viewer = members[0].viewer_token().await;
    let mut peers = Vec::new();
    for (number, member) in (1_u64..).zip(&members) {
        let peer = async || {
            FakePeer::attach(&member.transport, &viewer, open("news", number))
                .await
                .ok()
        };
        peers.push(until(peer).await);
    }
    for member in &members {
        member.ask_to_end();
    }
    for member in &mut members {
        assert_eq!(member.ended().await.code(), Some(0));
    }
}

#[tokio::test]
async fn five_nodes_with_two_dead_go_on_and_two_of_five_refuse_with_a_time_to_ask_again() {
    let (_cluster, mut members) = ClusterDir::founded::<5>("").await;
    let origin = origin().await;
    drop(members.split_off(3));
    let request = create_request("news", &origin);
    until(async || {
        members[0]
            .channels()
            .create_channel(request.clone())
            .await
            .ok()
    })
    .await;
    let viewer = members[1].viewer_token().await;
    let mut peer = until(async || {
        FakePeer::attach(&members[1].transport, &viewer, open("news", 1))
            .await
            .ok()
    })
    .await;
    peer.assigned(|it| !it.tracks.is_empty()).await;
    // Without one more, nothing could be decided.
    for node in [1, 2, 3] {
        let refused = until(async || {
            let refused = remove(&members[0], &name(node)).await.unwrap_err();
            (refused.code() != Code::Unavailable).then_some(refused)
        })
        .await;
        assert_refused(&refused, Code::FailedPrecondition, "NO_MAJORITY_LEFT");
    }

    drop(members.pop());
    let survivor = &members[0];
    let mut channels = survivor.channels();
    let name_of = || "channels/news".to_owned();
    let get = v1::GetChannelRequest { name: name_of() };
    // It may take the survivors a moment to notice that nobody leads.
    let refused = until(async || channels.clone().get_channel(get.clone()).await.err()).await;
    assert_unavailable(&refused);
    let create = create_request("more", &origin);
    assert_unavailable(&channels.create_channel(create).await.unwrap_err());
    let delete = v1::DeleteChannelRequest {
        name: name_of(),
        etag: String::new(),
    };
    assert_unavailable(&channels.delete_channel(delete).await.unwrap_err());
    let update = v1::UpdateChannelRequest {
        channel: Some(v1::Channel {
            name: name_of(),
            policy: Some(v1::Policy {
                max_children: Some(3),
                ..v1::Policy::default()
            }),
            ..v1::Channel::default()
        }),
        update_mask: None,
    };
    assert_unavailable(&channels.update_channel(update).await.unwrap_err());
    let channel = name_of();
    let topology = v1::GetTopologyRequest { channel };
    assert_unavailable(
        &survivor
            .topologies()
            .get_topology(topology)
            .await
            .unwrap_err(),
    );
    let cluster = v1::GetClusterRequest::default();
    assert_unavailable(&survivor.clusters().get_cluster(cluster).await.unwrap_err());
    assert_unavailable(&drain(survivor, "nodes/2", false).await.unwrap_err());
    assert_unavailable(&remove(survivor, "nodes/5").await.unwrap_err());
    assert_unavailable(&add(survivor, "127.0.0.1:1").await.unwrap_err());
    // What the node knows by itself it says when it is asked for just that.
    let local = v1::GetClusterRequest { local: true };
    let local = survivor.clusters().get_cluster(local).await.unwrap();
    let dead = local.get_ref().nodes.iter().filter(|node| !node.reachable);
    assert_eq!(dead.count(), 3, "{local:?}");
    // A peer that is attached stays so.
    let open_still = tokio::time::timeout(Duration::from_millis(200), peer.hear()).await;
    assert!(!matches!(open_still, Ok(Err(_))), "{open_still:?}");
}

#[tokio::test]
async fn a_node_without_its_data_is_refused_and_comes_back_under_a_new_id() {
    let (cluster, mut members) = ClusterDir::founded::<3>("").await;
    let mut third = members.pop().unwrap();
    let place = third.place.clone();
    third.ask_to_end();
    assert_eq!(third.ended().await.code(), Some(0));
    drop(third);
    let data = cluster.data(&place).join("cluster");
    // Damaged: nothing is emptied, and what there is to do is said.
    let database = database(&data);
    let good = std::fs::read(&database).unwrap();
    // The file is made longer than what is in it.
    let half = good.iter().rposition(|byte| *byte != 0).unwrap() / 2;
    std::fs::write(&database, &good[..half]).unwrap();
    let (code, text) = place.fails();
    assert_eq!(code, Some(64), "{text}");
    for word in [
        "damaged",
        "espalier cluster remove",
        "espalier cluster add",
        "mv ",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let (code, text) = place.fails();
    assert!(
        code == Some(64) && text.contains("damaged"),
        "nothing was repaired or emptied: {text}"
    );
    // Empty: under its old id it may not vote.
    let aside = data.with_extension("old");
    std::fs::rename(&data, &aside).unwrap();
    let (code, text) = place.fails();
    assert_eq!(code, Some(64), "{text}");
    assert!(text.contains("its data are gone"), "{text}");
    // As it was told to be done.
    remove(&members[0], "nodes/3").await.unwrap();
    members[0].sees(3, |it| it.is_none()).await;
    std::fs::remove_dir_all(&data).unwrap();
    cluster.configure(&place, false);
    let child = place.spawn();
    let address = place.between.to_string();
    let added = until(async || add(&members[1], &address).await.ok()).await;
    assert_eq!(added.name, name(4));
    let back = cluster.ready(child, place);
    back.sees(4, |it| {
        it.is_some_and(|it| it.state() == ClusterNodeState::Active)
    })
    .await;
}

/// The file that holds the log and the votes.
fn database(data: &std::path::Path) -> std::path::PathBuf {
    let mut open = vec![data.join("raft")];
    let mut found = None;
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.metadata().unwrap().is_dir() {
                open.push(entry.path());
            } else if entry.file_name() == "db" {
                found = Some(entry.path());
            }
        }
    }
    found.expect("a database")
}
