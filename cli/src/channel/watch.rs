//! `espalier channel watch`: a channel's trees, live.

use std::io::IsTerminal;
use std::time::Duration;

use espalier_process::{Failure, shutdown};
use espalier_proto::v1;
use futures::StreamExt;
use tokio::sync::watch;

use crate::args::WatchArgs;
use crate::channel::changes::changes;
use crate::channel::record::ChannelRecord;
use crate::channel::resource;
use crate::connection::Connection;
use crate::output;
use crate::status;
use crate::terminal::channel_view::{self, ChannelPicture};
use crate::terminal::{Key, Keys, Screen};
use crate::topology::Topology;

/// How long to wait before a broken stream is opened again.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) async fn run(args: WatchArgs) -> Result<(), Failure> {
    let connection = args.connection.connect().await?;
    // Whether the channel exists is known before a screen is drawn over the answer.
    let channel = connection
        .channels()
        .get_channel(v1::GetChannelRequest {
            name: resource(&args.name),
        })
        .await
        .map_err(|error| status::failure(&format!("{} cannot be watched", args.name), &error))?;
    if std::io::stdout().is_terminal() {
        let picture = ChannelPicture {
            name: args.name.clone(),
            channel: ChannelRecord::from(channel.into_inner()),
            topology: Topology::default(),
            problem: None,
        };
        on_screen(connection, picture).await
    } else {
        as_lines(&connection, &args.name).await
    }
}

async fn as_lines(connection: &Connection, name: &str) -> Result<(), Failure> {
    let mut end = std::pin::pin!(shutdown());
    let request = v1::WatchTopologyRequest {
        channel: resource(name),
    };
    let mut stream = connection
        .topologies()
        .watch_topology(request)
        .await
        .map_err(|error| status::failure(&format!("{name} cannot be watched"), &error))?
        .into_inner();
    let mut seen = Topology::default();
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            _ = &mut end => return Ok(()),
        };
        let topology = match next {
            Some(Ok(topology)) => Topology::from(topology),
            Some(Err(error)) => {
                return Err(status::failure(
                    &format!("{name} is no longer watched"),
                    &error,
                ));
            }
            None => return Ok(()),
        };
        for line in changes(&seen, &topology) {
            output::print(line)?;
        }
        seen = topology;
    }
}

async fn on_screen(connection: Connection, picture: ChannelPicture) -> Result<(), Failure> {
    let (publish, mut picture) = watch::channel(picture);
    let followers = [
        tokio::spawn(follow_topology(connection.clone(), publish.clone())),
        tokio::spawn(follow_channel(connection, publish)),
    ];
    let outcome = show(&mut picture).await;
    for follower in followers {
        follower.abort();
    }
    outcome
}

async fn show(picture: &mut watch::Receiver<ChannelPicture>) -> Result<(), Failure> {
    let mut end = std::pin::pin!(shutdown());
    let mut screen = Screen::open()?;
    let mut keys = Keys::open();
    let mut scroll = 0_u16;
    loop {
        let now = picture.borrow_and_update().clone();
        screen.draw(|frame| channel_view::draw(frame, &now, &mut scroll))?;
        tokio::select! {
            changed = picture.changed() => if changed.is_err() { return Ok(()) },
            key = keys.next() => match key {
                Some(Key::Quit) | None => return Ok(()),
                Some(Key::Up) => scroll = scroll.saturating_sub(1),
                Some(Key::Down) => scroll = scroll.saturating_add(1),
                Some(Key::Restart | Key::Redraw) => {}
            },
            _ = &mut end => return Ok(()),
        }
    }
}

/// Keeps the picture's trees current; a broken stream is shown and opened again.
async fn follow_topology(connection: Connection, picture: watch::Sender<ChannelPicture>) {
    let channel = resource(&picture.borrow().name);
    loop {
        let request = v1::WatchTopologyRequest {
            channel: channel.clone(),
        };
        let problem = match connection.topologies().watch_topology(request).await {
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.next().await {
                        Some(Ok(wire)) => picture.send_modify(|picture| {
                            picture.topology = Topology::from(wire);
                            picture.problem = None;
                        }),
                        Some(Err(status)) => break status.message().to_owned(),
                        None => break "the orchestrator ended the stream".to_owned(),
                    }
                }
            }
            Err(status) => status.message().to_owned(),
        };
        picture.send_modify(|picture| picture.problem = Some(problem));
        tokio::time::sleep(RETRY).await;
    }
}

/// Keeps the rest of the picture current. Problems are [`follow_topology`]'s to show.
async fn follow_channel(connection: Connection, picture: watch::Sender<ChannelPicture>) {
    let name = resource(&picture.borrow().name);
    loop {
        let request = v1::WatchChannelRequest { name: name.clone() };
        if let Ok(stream) = connection.channels().watch_channel(request).await {
            let mut stream = stream.into_inner();
            while let Some(Ok(wire)) = stream.next().await {
                picture.send_modify(|picture| picture.channel = ChannelRecord::from(wire));
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}
