//! `espalier demo`: the whole of Espalier on one machine, to look at.
//!
//! It starts the real programs as processes (an orchestrator of one node or several, peers), gives them a live
//! stream from an origin of its own that counts what is taken from it, and shows what happens.
//!
//! Invariant: nothing outlives it. Children die with this process, whatever ends it; on every orderly end they
//! are first asked to go, and the directory with all temporary data is removed.

mod audience;
mod leadership;
mod nodes;
mod observer;
mod peer_stats;
mod picture;
mod process;
mod programs;
mod progress;
mod report;
mod rhythm;
mod scratch;
mod stage;
mod stream;
mod view;

use std::time::Duration;

use espalier_process::{Failure, OrFail, shutdown};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::args::DemoArgs;
use crate::output;
use crate::terminal::{Key, Keys, Screen};
use crate::topology::count;

use leadership::Leadership;
use nodes::Crew;
use observer::Observer;
use picture::Picture;
use progress::Progress;
use report::Report;
use stage::Stage;

/// How long a headless run lasts when nobody says.
const HEADLESS: Duration = Duration::from_secs(60);

/// Why the show was over.
enum Ending {
    /// Its time was up, or the person had seen enough.
    Over,
    /// A signal came before everything had started.
    Interrupted,
}

pub(crate) async fn run(args: DemoArgs) -> Result<(), Failure> {
    let mut end = std::pin::pin!(shutdown());
    let mut stage = Stage::new()?;
    let outcome = tokio::select! {
        outcome = perform(&mut stage, &args) => outcome,
        _ = &mut end => Ok(Ending::Interrupted),
    };
    // The picture is looked at before the children go, and judged after they are gone.
    let picture = stage.last_picture();
    stage.stop().await;
    match outcome? {
        Ending::Interrupted if picture.is_none() => Err(Failure::failed(
            "the demo was stopped before it had started",
        )),
        Ending::Interrupted | Ending::Over => conclude(&args, picture),
    }
}

async fn perform(stage: &mut Stage, args: &DemoArgs) -> Result<Ending, Failure> {
    let progress = Progress::new(args.headless);
    let nodes = stage.start(args, &progress).await?;
    let (observer, mut picture) = Observer::start(stage, nodes);
    stage.observe(observer, picture.clone());
    progress.step(format!("the tree of {} peers is forming", args.peers));
    if args.headless {
        let duration = args.duration.unwrap_or(HEADLESS);
        wait_for(&mut picture, &progress, duration).await;
        return Ok(Ending::Over);
    }
    progress.finish();
    show(&mut picture, stage.crew(), args.duration).await
}

/// Watches without a screen until the time is up, and says when the tree has formed and what becomes of nodes.
async fn wait_for(picture: &mut watch::Receiver<Picture>, progress: &Progress, duration: Duration) {
    let mut end = std::pin::pin!(tokio::time::sleep(duration));
    let mut formed = false;
    let mut leadership = Leadership::default();
    loop {
        let now = picture.borrow_and_update().clone();
        for news in now.leadership.news(&leadership) {
            progress.step(news);
        }
        leadership = now.leadership.clone();
        if !formed && now.formed_after.is_some() {
            formed = true;
            progress.step(said_when_formed(&now));
            if leadership.processes.len() > 1 {
                progress.step(view::invitation(&leadership));
            }
        }
        tokio::select! {
            changed = picture.changed() => if changed.is_err() { break },
            () = &mut end => break,
        }
    }
    progress.finish();
}

fn said_when_formed(picture: &Picture) -> String {
    format!(
        "the tree has formed after {:.1} s: depth {}, {}; watch it at {}",
        picture.formed_after.unwrap_or_default().as_secs_f64(),
        picture.topology.max_depth(),
        count(picture.topology.root_count(), "root"),
        picture.url.as_deref().unwrap_or("no peer's address"),
    )
}

/// Shows the picture until its time is up or a key ends it.
async fn show(
    picture: &mut watch::Receiver<Picture>,
    crew: &Crew,
    duration: Option<Duration>,
) -> Result<Ending, Failure> {
    let deadline = duration.map(|duration| Instant::now() + duration);
    let mut screen = Screen::open()?;
    let mut keys = Keys::open();
    let mut scroll = 0;
    loop {
        let now = picture.borrow_and_update().clone();
        screen.draw(|frame| view::draw(frame, &now, &mut scroll))?;
        let time_up = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = picture.changed() => if changed.is_err() { return Ok(Ending::Over) },
            key = keys.next() => match key {
                Some(Key::Quit) | None => return Ok(Ending::Over),
                Some(Key::Up) => scroll = scroll.saturating_sub(1),
                Some(Key::Down) => scroll = scroll.saturating_add(1),
                Some(Key::Restart) => crew.restart_ended()?,
                Some(Key::Redraw) => {}
            },
            () = time_up => return Ok(Ending::Over),
        }
    }
}

/// Writes the report and says how it went; without a tree there was nothing to show.
fn conclude(args: &DemoArgs, picture: Option<Picture>) -> Result<(), Failure> {
    let picture = picture.unwrap_or_default();
    let report = Report::of(&picture);
    if let Some(path) = &args.report {
        let text = serde_json::to_string_pretty(&report).or_fail("cannot write the report")?;
        std::fs::write(path, text + "\n")
            .or_fail(format!("cannot write the report {}", path.display()))?;
    }
    if args.headless && picture.formed_after.is_none() {
        return Err(Failure::failed("the tree never formed")
            .because(picture.why_not_formed())
            .next("run it again with a longer --duration; --log-level debug says more"));
    }
    output::say(report.summary());
    Ok(())
}
