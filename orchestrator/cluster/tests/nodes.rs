//! Real nodes on loopback: real disks, real sockets, and for the kills a real process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use espalier_cluster::{ChangeError, Cluster, ClusterConfig, Formation, StartError};
use espalier_orchestrator_core::NodeId;
use espalier_orchestrator_core::state::{MetaOp, NodePhase, Sealed};
use espalier_shards::{GroupId, Settings};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::addresses::free_address;

mod addresses;

const CLUSTER: &str = "c0ffeec0ffeec0ffeec0ffeec0ffee00";
/// Fewer than usual, so that tests that make many clusters share the machine.
const SHARDS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

fn addresses(count: usize) -> Vec<String> {
    (0..count).map(|_| free_address().to_string()).collect()
}

fn config(dir: &Path, address: &str, formation: Formation) -> ClusterConfig {
    ClusterConfig {
        dir: dir.join(address.replace(':', "-")),
        cluster: CLUSTER.to_owned(),
        listen: Some(address.parse().unwrap()),
        advertise: address.to_owned(),
        public_address: format!("public-of-{address}"),
        formation,
        shards: SHARDS,
        tls: None,
        settings: Settings::default(),
    }
}

async fn start(config: ClusterConfig) -> Result<Cluster, StartError> {
    Cluster::start(config, Routes::default(), CancellationToken::new()).await
}

async fn founded(dir: &Path, addresses: &[String]) -> Vec<Cluster> {
    let formation = Formation::Bootstrap(addresses.to_vec());
    let starting = addresses
        .iter()
        .map(|address| start(config(dir, address, formation.clone())));
    futures::future::try_join_all(starting).await.unwrap()
}

fn secret(name: &str) -> Vec<MetaOp> {
    vec![MetaOp::PutSecret {
        name: name.to_owned(),
        secret: Sealed::new(b"sealed".to_vec()),
    }]
}

async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn all_led(cluster: &Cluster) -> bool {
    cluster
        .statuses()
        .iter()
        .all(|status| status.leader.is_some())
}

fn all_active(cluster: &Cluster, nodes: &[u64]) -> bool {
    cluster.meta().read(|_, state| {
        let known = state.nodes().iter();
        let active: Vec<_> = known
            .filter(|(_, it)| it.phase == NodePhase::Active)
            .map(|(id, _)| id.0)
            .collect();
        active == nodes
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_is_a_cluster_of_one_and_keeps_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut alone = config(dir.path(), "127.0.0.1:1", Formation::Alone);
    alone.listen = None;
    let cluster = start(alone.clone()).await.unwrap();
    cluster.change(secret("kept")).await.unwrap();
    until("itself", || all_active(&cluster, &[1])).await;
    cluster.shutdown().await;
    let cluster = start(alone).await.unwrap();
    let state = cluster.current_meta().await.unwrap();
    assert!(state.secrets().contains_key("kept"));
    assert_eq!(state.cluster().unwrap().shards, SHARDS);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_of_three_changes_and_reads_and_a_restart_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let addresses = addresses(3);
    let mut nodes = founded(dir.path(), &addresses).await;
    for (number, node) in nodes.iter().enumerate() {
        node.change(secret(&format!("from {number}")))
            .await
            .unwrap();
    }
    for node in &nodes {
        assert_eq!(node.current_meta().await.unwrap().secrets().len(), 3);
    }
    until("all three", || all_active(&nodes[0], &[1, 2, 3])).await;
    // The leaders spread: five groups over three nodes.
    until("the balance", || {
        let leaders = nodes[0]
            .statuses()
            .into_iter()
            .filter_map(|status| status.leader);
        leaders.collect::<BTreeSet<_>>().len() == 3
    })
    .await;

    let leader = nodes[0].meta().status().leader.unwrap();
    let place = nodes
        .iter()
        .position(|node| node.identity().node == leader)
        .unwrap();
    let begun = Instant::now();
    nodes.remove(place).shutdown().await;
    nodes[0].change(secret("meanwhile")).await.unwrap();
    println!(
        "a planned stop of the leader and a change: {:?}",
        begun.elapsed()
    );
    assert!(nodes.iter().all(all_led));

    let address = &addresses[usize::try_from(leader).unwrap() - 1];
    let again = config(dir.path(), address, Formation::Bootstrap(addresses.clone()));
    let back = start(again).await.unwrap();
    let state = back.current_meta().await.unwrap();
    assert!(state.secrets().contains_key("meanwhile"));
    let there = nodes[0].current_meta().await.unwrap();
    assert_eq!(state.hash(), there.hash(), "{state:#?}\n{there:#?}");
    nodes.push(back);
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_votes_and_another_leaves_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let addresses = addresses(4);
    let mut nodes = founded(dir.path(), &addresses[..3]).await;
    let joining = tokio::spawn(start(config(dir.path(), &addresses[3], Formation::Join)));
    let mut added = nodes[1].handle().add_node(&addresses[3]).await;
    // It may not listen yet.
    let deadline = Instant::now() + PATIENCE;
    while added.is_err() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
        added = nodes[1].handle().add_node(&addresses[3]).await;
    }
    assert_eq!(added.unwrap(), 4);
    nodes.push(joining.await.unwrap().unwrap());
    until("the fourth", || all_active(&nodes[3], &[1, 2, 3, 4])).await;

    nodes[3].handle().remove_node(1).await.unwrap();
    until("the departure", || all_active(&nodes[3], &[2, 3, 4])).await;
    let voters: BTreeSet<u64> = [2, 3, 4].into();
    until("the groups without it", || {
        nodes[3]
            .statuses()
            .iter()
            .all(|status| status.voters == voters)
    })
    .await;
    let removed = nodes[0].handle();
    let told = tokio::time::timeout(PATIENCE, removed.removed()).await;
    assert!(told.is_ok(), "nobody told the node that it is out");
    nodes.remove(0).shutdown().await;
    let again = nodes[2].handle().remove_node(1).await;
    assert!(
        matches!(again, Err(ChangeError::UnknownNode(1))),
        "{again:?}"
    );
    // Even without its data it does not come back as who it was.
    let founder = config(
        dir.path(),
        &addresses[0],
        Formation::Bootstrap(addresses[..3].to_vec()),
    );
    std::fs::remove_dir_all(&founder.dir).unwrap();
    let refused = start(founder).await;
    assert!(
        matches!(refused, Err(StartError::Removed { node: 1 })),
        "{:?}",
        refused.err()
    );
    nodes[2].change(secret("after")).await.unwrap();
    assert_eq!(
        nodes[2].current_meta().await.unwrap().unused_node_id(),
        NodeId(5)
    );
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_that_lost_its_data_does_not_start_as_if_new() {
    let dir = tempfile::tempdir().unwrap();
    let addresses = addresses(3);
    let mut nodes = founded(dir.path(), &addresses).await;
    until("all three", || {
        all_active(&nodes[0], &[1, 2, 3]) && all_active(&nodes[1], &[1, 2, 3])
    })
    .await;
    nodes.pop().unwrap().shutdown().await;
    let lost = config(
        dir.path(),
        &addresses[2],
        Formation::Bootstrap(addresses.clone()),
    );
    std::fs::rename(&lost.dir, lost.dir.with_extension("aside")).unwrap();
    let refused = start(lost.clone()).await;
    assert!(
        matches!(refused, Err(StartError::DataLost { node: 3 })),
        "{:?}",
        refused.err()
    );
    // Half of the data is no better.
    std::fs::remove_dir_all(&lost.dir).unwrap();
    std::fs::rename(lost.dir.with_extension("aside"), &lost.dir).unwrap();
    std::fs::remove_dir_all(lost.dir.join("raft")).unwrap();
    let refused = start(lost).await;
    assert!(
        matches!(refused, Err(StartError::Store(_))),
        "{:?}",
        refused.err()
    );
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_refuses_and_a_wrong_cluster_is_not_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let addresses = addresses(3);
    let mut nodes = founded(dir.path(), &addresses).await;
    nodes[0].change(secret("before")).await.unwrap();
    for node in nodes.drain(1..) {
        node.shutdown().await;
    }
    assert!(nodes[0].change(secret("refused")).await.is_err());
    assert!(nodes[0].current_meta().await.is_err());
    let mut other = config(
        dir.path(),
        &addresses[1],
        Formation::Bootstrap(addresses.clone()),
    );
    other.cluster = "another".to_owned();
    let refused = start(other).await;
    assert!(
        matches!(refused, Err(StartError::OtherCluster { .. })),
        "{:?}",
        refused.err()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_node_leads_nothing_until_that_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let addresses = addresses(3);
    let nodes = founded(dir.path(), &addresses).await;
    until("all three", || all_active(&nodes[0], &[1, 2, 3])).await;
    let asked = nodes[1].handle();
    until("its neighbours", || {
        let neighbours = asked.neighbours();
        let neighbours = neighbours.borrow();
        neighbours.values().filter(|it| it.reachable).count() == 2
    })
    .await;
    asked.drain_node(1, false).await.unwrap();
    let leads_nothing = |node: u64| {
        let statuses = nodes[1].statuses();
        statuses
            .iter()
            .all(|status| status.leader.is_some_and(|leader| leader != node))
    };
    until("its leaders elsewhere", || leads_nothing(1)).await;
    // Nor is it given one.
    let leader = nodes[0].meta().status().leader.unwrap();
    let leading = nodes
        .iter()
        .find(|node| node.identity().node == leader)
        .unwrap();
    let refused = leading.handle().transfer(GroupId::META, 1).await;
    assert!(
        matches!(refused, Err(ChangeError::CannotLead { node: 1, .. })),
        "{refused:?}"
    );
    asked.drain_node(1, true).await.unwrap();
    until("its share again", || !leads_nothing(1)).await;
    assert!(matches!(
        asked.drain_node(9, false).await,
        Err(ChangeError::UnknownNode(9))
    ));
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_about_to_stop_hands_over_first_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let addresses = addresses(3);
    let nodes = founded(dir.path(), &addresses).await;
    until("all three", || all_active(&nodes[0], &[1, 2, 3])).await;
    until("its share", || nodes[0].handle().leads() > 0).await;
    let (ending, other) = (nodes[0].handle(), nodes[1].handle());
    ending.tell_sessions(7);
    until("its word", || {
        let neighbours = other.neighbours();
        let neighbours = neighbours.borrow();
        neighbours
            .get(&1)
            .is_some_and(|it| it.standing.sessions == 7)
    })
    .await;
    let begun = Instant::now();
    ending.hand_over().await;
    println!("all leaderships handed over after {:?}", begun.elapsed());
    assert_eq!(ending.leads(), 0);
    until("its word", || other.is_ending(1)).await;
    // The balance of the others gives it nothing back.
    let quiet = Instant::now() + Duration::from_secs(4);
    until("a while", || {
        assert_eq!(ending.leads(), 0);
        Instant::now() > quiet
    })
    .await;
    let last = other.remove_node(1).await;
    assert!(last.is_ok(), "{last:?}");
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_not_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let addresses = addresses(4);
    let mut nodes = founded(dir.path(), &addresses[..3]).await;
    until("all three", || all_active(&nodes[0], &[1, 2, 3])).await;
    let asked = nodes[0].handle();
    let nobody = asked.add_node(&addresses[3]).await;
    assert!(
        matches!(nobody, Err(ChangeError::Unanswered { .. })),
        "{nobody:?}"
    );
    let present = asked.add_node(&addresses[1]).await;
    assert!(
        matches!(present, Err(ChangeError::Present { node: 2, .. })),
        "{present:?}"
    );
    // A node alone is nobody's to take.
    let mut alone = config(dir.path(), &addresses[3], Formation::Alone);
    "another".clone_into(&mut alone.cluster);
    let alone = start(alone).await.unwrap();
    until("itself", || all_active(&alone, &[1])).await;
    let unfit = asked.add_node(&addresses[3]).await;
    assert!(matches!(unfit, Err(ChangeError::Unfit { .. })), "{unfit:?}");
    assert!(matches!(
        alone.handle().remove_node(1).await,
        Err(ChangeError::NoMajority { .. })
    ));
    assert!(matches!(
        alone.handle().drain_node(1, false).await,
        Err(ChangeError::NobodyElse(1))
    ));
    alone.shutdown().await;
    // With one of three gone, it is the one that may go for good.
    nodes.pop().unwrap().shutdown().await;
    until("its absence", || {
        let neighbours = asked.neighbours();
        let neighbours = neighbours.borrow();
        neighbours.get(&3).is_some_and(|it| !it.reachable)
    })
    .await;
    assert!(matches!(
        asked.remove_node(2).await,
        Err(ChangeError::NoMajority { node: 2, .. })
    ));
    asked.remove_node(3).await.unwrap();
    until("its departure", || all_active(&nodes[1], &[1, 2])).await;
    assert_eq!(
        nodes[0].current_meta().await.unwrap().unused_node_id(),
        NodeId(4),
        "what was refused has cost no id"
    );
    for node in nodes {
        node.shutdown().await;
    }
}

/// Whoever is down is tried now and then, by every group, not without a pause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_down_is_not_run_against() {
    let dir = tempfile::tempdir().unwrap();
    let addresses = addresses(3);
    let mut nodes = founded(dir.path(), &addresses).await;
    until("all three", || all_active(&nodes[0], &[1, 2, 3])).await;
    nodes.pop().unwrap().shutdown().await;
    // In its place somebody who hangs up at once, and counts.
    let listener = tokio::net::TcpListener::bind(&addresses[2]).await.unwrap();
    let mut calls = 0_u32;
    let begun = Instant::now();
    for number in 0..20 {
        nodes[0].change(secret(&number.to_string())).await.unwrap();
    }
    let counting = async {
        loop {
            drop(listener.accept().await.unwrap());
            calls += 1;
        }
    };
    // Long enough for the pauses to have their length.
    drop(tokio::time::timeout(Duration::from_secs(3), counting).await);
    println!("{calls} connections in {:?}", begun.elapsed());
    assert!(calls > 0, "nobody tries whether it is back");
    assert!(calls < 1_000, "{calls} connections in three seconds");
    for node in nodes {
        node.shutdown().await;
    }
}

/// The environment variable that turns a test process into a node: directory, own address, all addresses.
const AS_NODE: &str = "ESPALIER_TEST_NODE";

fn spawn_node(dir: &Path, address: &str, addresses: &[String]) -> Child {
    let arguments = format!("{} {address} {}", dir.display(), addresses.join(","));
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "killed_leaders_are_replaced_at_once",
            "--nocapture",
        ])
        .env(AS_NODE, arguments)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

async fn serve_until_killed(arguments: &str) {
    let mut words = arguments.split(' ');
    let mut word = || words.next().unwrap();
    let (dir, address) = (word(), word());
    let addresses: Vec<String> = word().split(',').map(str::to_owned).collect();
    let config = config(Path::new(dir), address, Formation::Bootstrap(addresses));
    let _node = start(config).await.unwrap();
    std::future::pending::<()>().await;
}

/// Kills whoever leads the meta group, if it is not this process, and measures until a change is committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leaders_are_replaced_at_once() {
    if let Ok(arguments) = std::env::var(AS_NODE) {
        return serve_until_killed(&arguments).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let addresses = addresses(3);
    let mut children = Vec::new();
    for address in &addresses[1..] {
        children.push(spawn_node(dir.path(), address, &addresses));
    }
    let own = config(
        dir.path(),
        &addresses[0],
        Formation::Bootstrap(addresses.clone()),
    );
    let node = start(own).await.unwrap();
    let mut gaps = Vec::new();
    for round in 0..5_u64 {
        until("all three", || all_active(&node, &[1, 2, 3])).await;
        let victim = round % 2 + 2;
        let neighbours = node.neighbours();
        let there = || {
            neighbours
                .borrow()
                .get(&victim)
                .is_some_and(|it| it.reachable)
        };
        until("its presence", there).await;
        let deadline = Instant::now() + PATIENCE;
        while node.meta().status().leader != Some(victim) {
            assert!(Instant::now() < deadline, "node {victim} never led");
            if node.meta().status().leader == Some(1) {
                // Another attempt follows.
                drop(node.handle().transfer(GroupId::META, victim).await);
            } else if let Some(other) = node.meta().status().leader {
                // Its leader is the other child: it hands over when it is asked to end nothing else.
                let mut state = node.handle().drain_node(other, false).await;
                until("the move", || node.meta().status().leader != Some(other)).await;
                while state.is_err() || !all_active(&node, &[1, 2, 3]) {
                    state = node.handle().drain_node(other, true).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        node.change(secret(&format!("before {round}")))
            .await
            .unwrap();
        let child = &mut children[usize::try_from(victim).unwrap() - 2];
        let killed = Instant::now();
        child.kill().unwrap();
        node.change(secret(&format!("after {round}")))
            .await
            .unwrap();
        let change = killed.elapsed();
        until("leaders", || {
            let statuses = node.statuses();
            statuses
                .iter()
                .all(|status| status.leader.is_some_and(|leader| leader != victim))
        })
        .await;
        let everywhere = killed.elapsed();
        child.wait().unwrap();
        println!("round {round}: a change after {change:?}, all groups led after {everywhere:?}");
        gaps.push(everywhere);
        *child = spawn_node(
            dir.path(),
            &addresses[usize::try_from(victim).unwrap() - 1],
            &addresses,
        );
    }
    let secrets = node.current_meta().await.unwrap().secrets().len();
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(secrets, 10, "every acknowledged change is there");
    // A lease alone is 600 ms, a timeout after it at least 300 more.
    let best = gaps.iter().min().unwrap();
    assert!(*best < Duration::from_millis(600), "{gaps:?}");
}
