//! One process of a run: the source, the relay, or all the children.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use espalier_peer::transport::{Signal, TransportConfig, WebRtcTransport};
use espalier_peer_core::{PeerId, Role, Source};
use tokio::sync::mpsc;

use super::bare::{self, BareLink};
use super::meter::{Gaps, cpu_seconds, peak_rss_kib};
use super::shell::{self, Input, Place, Shell};
use super::stream::{Cdn, Stream};
use super::wire::{Envelope, Line, NodeReport};

pub(crate) const SOURCE: u64 = 1;
pub(crate) const RELAY: u64 = 2;
pub(crate) const FIRST_CHILD: u64 = 100;

/// More than any run needs: pacing is not what is measured.
const UPLOAD_BPS: u64 = 2_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stack {
    Ours,
    Bare,
    /// The bare crate, and its relay verifies each chunk before it passes it on, as ours must.
    BareVerifying,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    Source,
    Relay,
    Children,
}

/// What a process is told when it is started.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct NodeArgs {
    #[arg(long)]
    pub(crate) stack: Stack,
    #[arg(long)]
    pub(crate) part: Part,
    #[arg(long)]
    pub(crate) children: u64,
    #[arg(long)]
    pub(crate) bits_per_second: u64,
    #[arg(long)]
    pub(crate) seconds: u64,
}

impl NodeArgs {
    fn children(self) -> impl Iterator<Item = u64> {
        FIRST_CHILD..FIRST_CHILD + self.children
    }

    /// How many links this process shall have.
    fn links(self) -> u64 {
        match self.part {
            Part::Source => 1,
            Part::Relay => 1 + self.children,
            Part::Children => self.children,
        }
    }

    fn length(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// The pipes of a process.
struct Pipes {
    lines: mpsc::Receiver<Line>,
    signals: mpsc::UnboundedSender<Envelope>,
    opened: mpsc::UnboundedSender<u64>,
}

/// Runs a process until it has reported.
pub(crate) async fn run(args: NodeArgs) -> anyhow::Result<()> {
    let (signals, mut signals_out) = mpsc::unbounded_channel::<Envelope>();
    let (opened, mut openings) = mpsc::unbounded_channel::<u64>();
    let (lines_in, lines) = mpsc::channel(256);
    tokio::spawn(async move {
        while let Some(envelope) = signals_out.recv().await {
            say(&envelope.into());
        }
    });
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let line = serde_json::from_str(&line).expect("a line of the conductor's");
            if lines_in.blocking_send(line).is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        for _ in 0..args.links() {
            openings.recv().await;
        }
        say(&Line::Ready);
        while openings.recv().await.is_some() {}
    });
    let pipes = Pipes {
        lines,
        signals,
        opened,
    };
    let report = match args.stack {
        Stack::Ours => ours(args, pipes).await,
        Stack::Bare | Stack::BareVerifying => bare(args, pipes).await,
    };
    say(&Line::Report(report));
    Ok(())
}

fn say(line: &Line) {
    println!("{}", serde_json::to_string(line).expect("JSON"));
}

async fn ours(args: NodeArgs, mut pipes: Pipes) -> NodeReport {
    let stream = Stream::new(args.bits_per_second);
    let cdn = Cdn {
        latency: Duration::ZERO,
        bits_per_second: args.bits_per_second,
    };
    let config = TransportConfig {
        bind: vec!["127.0.0.1".parse().expect("an address")],
        ..TransportConfig::default()
    };
    let transport = Arc::new(WebRtcTransport::new(config).expect("a transport"));
    let shells: HashMap<u64, mpsc::Sender<Input>> = places(args)
        .into_iter()
        .map(|place| {
            let inputs = Shell::start(
                &place,
                stream.clone(),
                cdn,
                transport.clone(),
                pipes.signals.clone(),
                pipes.opened.clone(),
            );
            (place.me, inputs)
        })
        .collect();
    let mut cpu = cpu_seconds();
    while let Some(line) = pipes.lines.recv().await {
        match line {
            Line::Signal {
                from,
                to,
                kind,
                text,
            } => {
                let input = Input::Signal(from, kind.signal(text));
                shells[&to].send(input).await.expect("a live shell");
            }
            Line::Begin => {
                for inputs in shells.values() {
                    inputs.send(Input::Measure).await.expect("a live shell");
                }
                cpu = cpu_seconds();
                if args.part == Part::Source {
                    let (stream, to) =
                        (stream.clone(), shells.values().cloned().collect::<Vec<_>>());
                    tokio::spawn(async move { shell::feed(&stream, &to, args.length()).await });
                }
            }
            Line::Finish => break,
            Line::Ready | Line::Report(_) => {}
        }
    }
    let mut report = NodeReport {
        cpu_seconds: cpu_seconds() - cpu,
        peak_rss_kib: peak_rss_kib(),
        ..NodeReport::default()
    };
    for inputs in shells.values() {
        let outcome = shell::report(inputs).await;
        let counters = outcome.snapshot.counters;
        tracing::info!(?counters, "seen");
        add(&mut report, &outcome.gaps);
        report.faults +=
            counters.corrupt_chunks + counters.bad_statements + counters.objects_missed;
        if args.part != Part::Source {
            report.faults += counters.cdn_requests;
        }
    }
    report
}

fn places(args: NodeArgs) -> Vec<Place> {
    let place = |me, source, children, role| Place {
        me,
        source,
        standby: None,
        children,
        upload_bps: UPLOAD_BPS,
        role,
    };
    match args.part {
        Part::Source => vec![place(
            SOURCE,
            Source::Cdn,
            vec![(RELAY, false)],
            Role::Relay,
        )],
        Part::Relay => {
            let children = args.children().map(|child| (child, false)).collect();
            vec![place(
                RELAY,
                Source::Peer(PeerId(SOURCE)),
                children,
                Role::Relay,
            )]
        }
        Part::Children => {
            let source = Source::Peer(PeerId(RELAY));
            args.children()
                .map(|me| place(me, source, Vec::new(), Role::Consumer))
                .collect()
        }
    }
}

fn add(report: &mut NodeReport, gaps: &Gaps) {
    report.bytes += gaps.bytes;
    report.gaps += gaps.count;
    report.longest_gap_ms = report.longest_gap_ms.max(gaps.longest.as_secs_f64() * 1e3);
}

async fn bare(args: NodeArgs, mut pipes: Pipes) -> NodeReport {
    let rhythm = Stream::new(args.bits_per_second).chunk_interval();
    let (verdicts, mut seen) = mpsc::unbounded_channel::<(u64, usize, bool, Gaps)>();
    let mut links: HashMap<(u64, u64), BareLink> = HashMap::new();
    let (down, mut from_above) = mpsc::channel(64);
    let mut below = Vec::new();
    for me in args.children().filter(|_| args.part == Part::Children) {
        let link = BareLink::offer(me, RELAY, pipes.signals.clone()).await;
        let (messages, mut arrive) = mpsc::channel(64);
        tokio::spawn(bare::receive(
            link.channel.clone(),
            pipes.opened.clone(),
            me,
            messages,
        ));
        links.insert((me, RELAY), link);
        let verdicts = verdicts.clone();
        tokio::spawn(async move {
            let mut gaps = Gaps::new(rhythm);
            while let Some(message) = arrive.recv().await {
                let right = bare::verify(&message, &mut gaps);
                drop(verdicts.send((me, message.len(), right, gaps.clone())));
            }
        });
    }
    if args.part == Part::Relay {
        let link = BareLink::offer(RELAY, SOURCE, pipes.signals.clone()).await;
        tokio::spawn(bare::receive(
            link.channel.clone(),
            pipes.opened.clone(),
            SOURCE,
            down,
        ));
        links.insert((RELAY, SOURCE), link);
    }
    let mut cpu = cpu_seconds();
    while let Some(line) = pipes.lines.recv().await {
        match line {
            Line::Signal {
                from,
                to,
                kind,
                text,
            } => match kind.signal(text) {
                Signal::Offer(offer) => {
                    let link = BareLink::accept(to, from, offer, pipes.signals.clone()).await;
                    below.push(spawn_child(&link, pipes.opened.clone()));
                    links.insert((to, from), link);
                }
                other => {
                    links
                        .get_mut(&(to, from))
                        .expect("a link")
                        .signal(other)
                        .await
                }
            },
            Line::Begin => {
                cpu = cpu_seconds();
                if args.part == Part::Source {
                    let to = below.first().cloned().expect("the relay");
                    tokio::spawn(async move { bare::produce(&to, rhythm, args.length()).await });
                } else if args.part == Part::Relay {
                    let below = below.clone();
                    let mut from_above = std::mem::replace(&mut from_above, mpsc::channel(1).1);
                    let verifies = args.stack == Stack::BareVerifying;
                    let verdicts = verdicts.clone();
                    tokio::spawn(async move {
                        let mut gaps = Gaps::new(rhythm);
                        while let Some(message) = from_above.recv().await {
                            if verifies && !bare::verify(&message, &mut gaps) {
                                drop(verdicts.send((RELAY, message.len(), false, gaps.clone())));
                                continue;
                            }
                            for child in &below {
                                drop(child.send(bytes::Bytes::clone(&message)).await);
                            }
                        }
                    });
                }
            }
            Line::Finish => break,
            Line::Ready | Line::Report(_) => {}
        }
    }
    let mut report = NodeReport {
        cpu_seconds: cpu_seconds() - cpu,
        peak_rss_kib: peak_rss_kib(),
        ..NodeReport::default()
    };
    let mut last: HashMap<u64, Gaps> = HashMap::new();
    while let Ok((child, _, right, gaps)) = seen.try_recv() {
        report.faults += u64::from(!right);
        last.insert(child, gaps);
    }
    for gaps in last.values() {
        add(&mut report, gaps);
    }
    report
}

/// Starts sending to a child; returns where its messages go.
fn spawn_child(link: &BareLink, opened: mpsc::UnboundedSender<u64>) -> mpsc::Sender<bytes::Bytes> {
    let (messages, queue) = mpsc::channel(64);
    let (nothing, _) = mpsc::channel(1);
    tokio::spawn(bare::receive(
        link.channel.clone(),
        opened,
        link.peer,
        nothing,
    ));
    tokio::spawn(bare::send(link.channel.clone(), queue));
    messages
}
