//! Three nodes as three processes: one of them is killed, and nobody but its own peers notices.

use espalier_proto::v1;

use crate::members::ClusterDir;
use crate::support::{FakePeer, create_request, hex, is_cdn, open, origin, source_peer, until};

#[tokio::test]
async fn a_killed_owner_is_replaced_and_the_tree_is_the_same() {
    let (_cluster, mut members) = ClusterDir::founded::<3>("").await;
    let origin = origin().await;
    let made = members[1]
        .channels()
        .create_channel(create_request("news", &origin))
        .await
        .unwrap()
        .into_inner();
    // Every node knows the channel, its key and its tracks.
    for member in &members {
        until(|| async {
            let name = "channels/news".to_owned();
            let found = member
                .channels()
                .get_channel(v1::GetChannelRequest { name })
                .await;
            let found = found.ok()?.into_inner();
            assert_eq!(
                (&found.etag, &found.public_keys),
                (&made.etag, &made.public_keys)
            );
            let list = v1::ListChannelsRequest::default();
            let list = member.channels().list_channels(list).await.ok()?;
            let there = list.into_inner().channels.len() == 1;
            (there && !found.tracks.is_empty()).then_some(())
        })
        .await;
    }
    // A peer at each gateway; all are told of all the nodes.
    let viewer = members[0].viewer_token().await;
    let mut peers = Vec::new();
    for (number, member) in (1_u64..).zip(&members) {
        let mut peer = FakePeer::attach(&member.transport, &viewer, open("news", number))
            .await
            .unwrap();
        let assignment = peer
            .assigned(|it| {
                it.tracks.first().is_some_and(|track| match number {
                    1 => is_cdn(track.source.as_ref()),
                    _ => source_peer(track.source.as_ref()).is_some(),
                })
            })
            .await;
        peer.flows(&assignment).await;
        peers.push(peer);
    }
    let before = members[2].tree().await.unwrap();
    assert_eq!(before.len(), 3);

    let owner = until(|| async {
        for (number, member) in members.iter().enumerate() {
            if member.owns_a_channel().await {
                return Some(number);
            }
        }
        None
    })
    .await;
    drop(members.remove(owner));
    peers.remove(owner);

    let survivor = &members[0];
    let after = until(|| survivor.tree()).await;
    assert_eq!(after, before);
    // The sessions at the other gateways are as they were, and a new peer gets a place.
    let mut joined = FakePeer::attach(&members[1].transport, &viewer, open("news", 9))
        .await
        .unwrap();
    joined.assigned(|it| !it.tracks.is_empty()).await;
    let tree = survivor.tree().await.unwrap();
    assert!(tree.iter().any(|(peer, ..)| *peer == hex(9)), "{tree:?}");
    for member in &members {
        let name = "channels/news".to_owned();
        let request = v1::GetChannelRequest { name };
        let found = member.channels().get_channel(request).await.unwrap();
        assert_eq!(
            found.into_inner().etag,
            made.etag,
            "at {}",
            member.place.public
        );
    }
}
