//! What must hold while nothing happens: shared by several scenarios.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use espalier_e2e::origin::SEGMENT;
use espalier_e2e::rhythm::{arrivals, gaps};
use espalier_e2e::statistics::float;
use espalier_e2e::wait::{observe_for, unix_ms, wait_until};
use espalier_e2e::{Scene, Stats, Tree};

/// A dozen peers take this long at the very most.
pub(crate) const FORMING: Duration = Duration::from_secs(90);

/// How many segments a newcomer may take from the CDN at once.
const NEWCOMER_SEGMENTS: u128 = 3;

/// How an audience of twelve comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coming {
    /// Each level of the tree when the one above it is fed.
    InWaves,
    /// One after the other, each attached before the next is started.
    AtOnce,
}

/// Starts twelve peers that have upload for two children each, and waits for a tree of depth 4 at
/// least. Players may be started at them afterwards.
pub(crate) fn tree_of_twelve(scene: &mut Scene, coming: Coming) -> Result<Tree> {
    let peer = scene.contributor("5mbit")?;
    let started = std::time::Instant::now();
    let waves: &[usize] = match coming {
        Coming::InWaves => &[1, 2, 4, 5],
        Coming::AtOnce => &[12],
    };
    for wave in waves {
        for _ in 0..*wave {
            scene.start_peers(std::slice::from_ref(&peer))?;
        }
        scene.wait_for_tree("one tree", FORMING, |tree| tree.roots().len() == 1)?;
    }
    let tree = scene.tree()?;
    ensure!(
        tree.depth() >= 4,
        "twelve peers with two children each at depth {}",
        tree.depth()
    );
    eprintln!("{}", tree.describe());
    scene
        .figures
        .record("forming_s", started.elapsed().as_secs())?;
    scene.figures.record("depth", tree.depth())?;
    scene.figures.record("roots", tree.roots().len())?;
    newcomers_took_little(scene)?;
    // A player starts three segments back: what a peer has not had by then, it would ask the CDN for.
    wait_until("every peer has had some segments", FORMING, || {
        let had = |stats: &Stats| {
            stats
                .objects
                .iter()
                .filter(|object| object.is_segment())
                .count()
        };
        Ok(scene
            .all_stats()?
            .iter()
            .all(|stats| had(stats) > 4)
            .then_some(()))
    })?;
    scene.wait_for_tree("a settled tree", FORMING, |now| now.roots() == tree.roots())
}

/// Only those took more segments from the CDN than a newcomer may that were roots, if only for a while.
fn newcomers_took_little(scene: &mut Scene) -> Result<()> {
    let mut most = 0;
    for (peer, names) in scene.cdn.media_by_peer(0)? {
        ensure!(
            scene.peer(&peer).is_ok(),
            "nginx's log names a stranger: {peer:?}"
        );
        if !scene.was_root(&peer) {
            let first = scene.peer(&peer)?.stats()?.first;
            let [from_cdn, from_tree] =
                [first.cdn_byte, first.tree_byte].map(Option::unwrap_or_default);
            let waited = Duration::from_millis(from_tree.saturating_sub(from_cdn));
            // While it waits for its parent it takes what appears, too.
            let most_segments =
                NEWCOMER_SEGMENTS + waited.as_millis().div_ceil(SEGMENT.as_millis());
            let segments = names.iter().filter(|name| !name.starts_with("init-"));
            let segments = segments.count();
            most = most.max(segments);
            ensure!(
                segments as u128 <= most_segments,
                "the newcomer {peer} waited {waited:?} for its parent and took {names:?}"
            );
        }
    }
    scene.figures.record("newcomer_cdn_segments_max", most)
}

/// Watches the steady state for `span`: every object arrives everywhere, verified and identical; only
/// roots touch the CDN; the offload is what the tree's shape promises.
///
/// Viewers of `rendition` run already at every peer that has `track`.
pub(crate) fn expect_steady(
    scene: &mut Scene,
    tree: &Tree,
    track: &str,
    rendition: &str,
    span: Duration,
) -> Result<()> {
    let from_ms = unix_ms();
    observe_for(span);
    // What appeared in the last seconds may still be on its way.
    let until_ms = unix_ms() - 4000;

    let mut sequences: BTreeSet<u64> = BTreeSet::new();
    let mut received = 0;
    let mut objects = 0;
    for stats in scene.all_stats()? {
        let arrivals = arrivals(&stats, track, &scene.origin, rendition);
        let missing = gaps(&arrivals);
        ensure!(missing.is_empty(), "{} misses {missing:?}", stats.peer);
        ensure!(
            stats.playout.stalls == 0,
            "{} stalled: {:?}",
            stats.peer,
            stats.playout
        );
        for object in stats
            .objects
            .iter()
            .filter(|object| object.is_segment() && object.track == track)
        {
            let arrival = arrivals.get(&object.sequence);
            let Some(arrival) = arrival.filter(|a| (from_ms..until_ms).contains(&a.appeared_ms))
            else {
                continue;
            };
            let truth = scene.origin.segment(rendition, arrival.sequence);
            let identical = truth
                .as_ref()
                .is_some_and(|truth| truth.sha256 == object.sha256);
            ensure!(
                identical && object.verified,
                "{} has {object:?}, not {truth:?}",
                stats.peer
            );
            sequences.insert(object.sequence);
            received += object.length;
            objects += 1;
        }
    }
    let peers = scene.peers.len();
    ensure!(
        !sequences.is_empty() && objects == peers * sequences.len(),
        "objects are missing at some peer: {objects} of {} at {peers} peers",
        sequences.len()
    );
    expect_only_roots(scene, tree, from_ms)?;

    let name = |sequence: &u64| scene.origin.segment_name(rendition, *sequence);
    let names: BTreeSet<String> = sequences.iter().map(name).collect();
    let from_cdn = scene.cdn.peer_bytes_of(&names)?;
    let offload = 1.0 - float(from_cdn) / float(received);
    let (peers, roots) = (
        float(u64::try_from(peers)?),
        float(u64::try_from(tree.roots().len())?),
    );
    let promised = (peers - roots) / peers;
    scene.figures.record("objects_compared", objects)?;
    scene.figures.record("offload", offload)?;
    scene.figures.record("offload_promised", promised)?;
    ensure!(
        (offload - promised).abs() <= 0.02,
        "offload {offload:.3}, not {promised:.3}"
    );
    Ok(())
}

/// Since `since_ms`, nobody but its roots (and the signer) took segments of any track of the tree from
/// the CDN. Tracks that the tree did not have yet are left out: a player may look into others.
pub(crate) fn expect_only_roots(scene: &Scene, tree: &Tree, since_ms: i64) -> Result<()> {
    let renditions = scene.origin.form().renditions();
    // The first may be a relay, which serves no player.
    let player = scene.peers.last().context("a peer")?;
    let taken = scene.cdn.media_by_peer(since_ms)?;
    for (number, rendition) in renditions.iter().enumerate() {
        let track = scene.track_name(player, number)?;
        if !tree.places().iter().any(|place| place.track == track) {
            continue;
        }
        let roots = tree.roots_of(&track);
        for (peer, names) in taken
            .iter()
            .filter(|(peer, _)| !roots.contains(peer.as_str()))
        {
            let prefix = format!("{rendition}-");
            let names: Vec<_> = names
                .iter()
                .filter(|name| name.starts_with(&prefix))
                .collect();
            ensure!(
                names.is_empty(),
                "{peer} is no root of {track} and took {names:?}"
            );
        }
    }
    Ok(())
}
