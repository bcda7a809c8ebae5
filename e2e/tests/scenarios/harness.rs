//! The harness itself, without any program of ours: ffmpeg, the publisher and nginx.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use espalier_e2e::binaries::tool;
use espalier_e2e::namespaces::{self, HUB, Uplink};
use espalier_e2e::playlist;
use espalier_e2e::publisher::{Fault, sha256_hex};
use espalier_e2e::scene::free_address;
use espalier_e2e::wait::wait_until;
use espalier_e2e::{Cdn, Form, Http, Origin};

use crate::player::Player;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_stream_reaches_nginx_unchanged_and_is_counted() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let served = directory.path().join("served");
    let mut origin = Origin::start(Form::TransportStream, directory.path(), &served)?;
    let cdn = Cdn::start(directory.path(), &served, &free_address("127.0.0.1")?, None)?;
    origin.wait_for_segments(3, PATIENCE)?;
    let http = Http::new()?;

    let get = |name: &str| http.get(&cdn.url(name), Duration::from_secs(5));
    let list = || -> Result<Option<playlist::Playlist>> {
        Ok(playlist::parse(&String::from_utf8_lossy(
            &get("live.m3u8")?.body,
        )))
    };
    let listed = wait_until("three segments are listed", PATIENCE, || {
        Ok(list()?.filter(|playlist| playlist.segments.len() >= 3))
    })?;
    let mut names = BTreeSet::new();
    for segment in &listed.segments {
        assert!(segment.dated, "ffmpeg writes the program's date and time");
        assert_eq!(segment.uri, origin.segment_name("seg", segment.sequence));
        let truth = origin
            .published(&segment.uri)
            .expect("listed, so published");
        let answer = get(&segment.uri)?;
        assert_eq!(
            (answer.status, sha256_hex(&answer.body)),
            (200, truth.sha256)
        );
        names.insert(segment.uri.clone());
    }
    let expected: u64 = names
        .iter()
        .filter_map(|name| Some(origin.published(name)?.length))
        .sum();
    assert_eq!(cdn.peer_bytes_of(&names)?, expected);

    origin.set_fault(Fault::Missing)?;
    assert_eq!(get("live.m3u8")?.status, 404);
    origin.set_fault(Fault::Garbage)?;
    assert_eq!(list()?, None);
    origin.set_fault(Fault::None)?;
    origin.restart_packager()?;
    wait_until("the numbering begins anew", PATIENCE, || {
        let first = list()?.and_then(|playlist| playlist.segments.into_iter().next());
        Ok(first.filter(|segment| segment.uri == origin.segment_name("seg", 0)))
    })?;
    Ok(())
}

#[test]
fn a_real_player_plays_the_origin_itself() -> Result<()> {
    for form in [Form::TransportStream, Form::TwoRenditions] {
        let directory = tempfile::tempdir()?;
        let served = directory.path().join("served");
        let mut origin = Origin::start(form, directory.path(), &served)?;
        let cdn = Cdn::start(directory.path(), &served, &free_address("127.0.0.1")?, None)?;
        origin.wait_for_segments(4, PATIENCE)?;
        let span = Duration::from_secs(8);
        let player = Player::start("player", &cdn.url(form.entry()), span, directory.path())?;
        assert!(player.expect_flawless(PATIENCE)? >= 200);
    }
    Ok(())
}

#[test]
fn two_renditions_have_a_master_and_init_sections() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let served = directory.path().join("served");
    let mut origin = Origin::start(Form::TwoRenditions, directory.path(), &served)?;
    let cdn = Cdn::start(directory.path(), &served, &free_address("127.0.0.1")?, None)?;
    origin.wait_for_segments(2, PATIENCE)?;
    let http = Http::new()?;

    let text = |name: &str| -> Result<String> {
        Ok(String::from_utf8(
            http.get(&cdn.url(name), Duration::from_secs(5))?.body,
        )?)
    };
    let variants = wait_until("the master playlist", PATIENCE, || {
        let variants = playlist::variants(&text("master.m3u8")?);
        Ok((variants.len() == 2).then_some(variants))
    })?;
    for (index, variant) in variants.iter().enumerate() {
        let listed = playlist::parse(&text(variant)?).expect("a media playlist");
        let newest = listed.segments.last().expect("a segment");
        let rendition = origin.form().renditions()[index];
        assert_eq!(newest.uri, origin.segment_name(rendition, newest.sequence));
        let init = newest.init.as_deref().expect("an init section");
        let truth = origin
            .published(init)
            .expect("the init section is published");
        let answer = http.get(&cdn.url(init), Duration::from_secs(5))?;
        assert_eq!(sha256_hex(&answer.body), truth.sha256);
    }
    Ok(())
}

#[test]
fn a_line_is_as_slow_as_it_should_be() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let directory = directory.path();
    if !namespaces::enter("harness::a_line_is_as_slow_as_it_should_be", directory)? {
        return Ok(());
    }
    std::fs::write(directory.join("file"), vec![7_u8; 500_000])?;
    let cdn = Cdn::start(directory, directory, &format!("{HUB}:8080"), None)?;
    let line = Uplink {
        number: 1,
        up: "3mbit".to_owned(),
        down: "4mbit".to_owned(),
    };
    // Any HTTP client does, and ffmpeg is there; that the file holds no media is no matter.
    let url = format!("http://{HUB}:8080/file");
    let arguments = ["-nostdin", "-v", "quiet", "-i", &url]
        .map(str::to_owned)
        .to_vec();
    let started = Instant::now();
    let mut client = line.start("client", &tool("ffmpeg")?, arguments, directory)?;
    client.wait_for_end(PATIENCE)?;
    let took = started.elapsed();
    let served = cdn.requests()?;
    let request = served
        .first()
        .expect("the client reached nginx through its line");
    assert_eq!(request.name(), "file");
    assert_eq!(request.bytes, 500_000);
    // 500 kB through 4 Mbit/s take a second, less the bucket; unshaped they take a millisecond.
    assert!(took > Duration::from_millis(700), "{took:?}");
    Ok(())
}
