//! `espalier channel`: one call of the orchestrator each, and what it answers.

mod changes;
mod plan;
mod record;
mod watch;

use espalier_process::Failure;
use espalier_proto::v1;

use crate::args::{
    ChannelCommand, CheckArgs, CreateArgs, GetArgs, ListArgs, NameArgs, PlanArgs, RecordFormat,
    TreeArgs, TreeFormat,
};
use crate::topology::{self, Topology};
use crate::{output, policy, status};

pub(crate) use record::ChannelRecord;

/// How many channels are asked for at once.
const PAGE: i32 = 500;

pub(crate) async fn run(command: ChannelCommand) -> Result<(), Failure> {
    match command {
        ChannelCommand::Create(args) => create(args).await,
        ChannelCommand::List(args) => list(args).await,
        ChannelCommand::Get(args) => get(args).await,
        ChannelCommand::Delete(args) => delete(args).await,
        ChannelCommand::Tree(args) => tree(args).await,
        ChannelCommand::Watch(args) => watch::run(args).await,
        ChannelCommand::Check(args) => check(args).await,
        ChannelCommand::Plan(args) => plan(args).await,
    }
}

/// The channel's resource name.
pub(crate) fn resource(name: &str) -> String {
    format!("channels/{name}")
}

async fn create(args: CreateArgs) -> Result<(), Failure> {
    let policy = args.policy.as_deref().map(policy::read).transpose()?;
    let request = v1::CreateChannelRequest {
        channel_id: args.name.clone(),
        channel: Some(v1::Channel {
            origin_uri: args.origin.to_string(),
            signer_uri: args.signer.map(String::from).unwrap_or_default(),
            policy,
            ..v1::Channel::default()
        }),
    };
    let mut channels = args.connection.connect().await?.channels();
    let created = channels
        .create_channel(request)
        .await
        .map_err(|error| status::failure(&format!("{} was not created", args.name), &error))?;
    show(&ChannelRecord::from(created.into_inner()), args.format)
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let mut channels = args.connection.connect().await?.channels();
    let mut records = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListChannelsRequest {
            page_size: PAGE,
            page_token: page_token.clone(),
        };
        let page = channels
            .list_channels(request)
            .await
            .map_err(|error| status::failure("the channels cannot be listed", &error))?
            .into_inner();
        records.extend(page.channels.into_iter().map(ChannelRecord::from));
        // A token that repeats would list for ever.
        if page.next_page_token.is_empty() || page.next_page_token == page_token {
            break;
        }
        page_token = page.next_page_token;
    }
    match args.format {
        RecordFormat::Json => output::print_json(&records),
        RecordFormat::Text if records.is_empty() => {
            output::say("no channels yet: `espalier channel create NAME --origin URL` makes one");
            Ok(())
        }
        RecordFormat::Text => output::print(record::table(&records)),
    }
}

async fn get(args: GetArgs) -> Result<(), Failure> {
    let mut channels = args.connection.connect().await?.channels();
    let channel = channels
        .get_channel(v1::GetChannelRequest {
            name: resource(&args.name),
        })
        .await
        .map_err(|error| status::failure(&format!("{} cannot be shown", args.name), &error))?;
    show(&ChannelRecord::from(channel.into_inner()), args.format)
}

async fn delete(args: NameArgs) -> Result<(), Failure> {
    let mut channels = args.connection.connect().await?.channels();
    channels
        .delete_channel(v1::DeleteChannelRequest {
            name: resource(&args.name),
            etag: String::new(),
        })
        .await
        .map_err(|error| status::failure(&format!("{} was not deleted", args.name), &error))?;
    Ok(())
}

async fn tree(args: TreeArgs) -> Result<(), Failure> {
    let mut topologies = args.connection.connect().await?.topologies();
    let wire = topologies
        .get_topology(v1::GetTopologyRequest {
            channel: resource(&args.name),
        })
        .await
        .map_err(|error| {
            status::failure(&format!("{}'s trees cannot be shown", args.name), &error)
        })?;
    let topology = Topology::from(wire.into_inner());
    match args.format {
        TreeFormat::Text => output::print(topology::text(&args.name, &topology)),
        TreeFormat::Json => output::print_json(&topology::json(&topology)),
        TreeFormat::Dot => output::print(topology::dot(&args.name, &topology)),
    }
}

async fn check(args: CheckArgs) -> Result<(), Failure> {
    let mut topologies = args.connection.connect().await?.topologies();
    let answer = topologies
        .check_topology(v1::CheckTopologyRequest {
            channel: resource(&args.name),
        })
        .await
        .map_err(|error| status::failure(&format!("{} was not checked", args.name), &error))?
        .into_inner();
    match args.format {
        RecordFormat::Json => output::print_json(&record::CheckRecord::from(&answer))?,
        RecordFormat::Text => output::print(record::check_text(&args.name, &answer))?,
    }
    match answer.findings.len() {
        0 => Ok(()),
        1 => Err(Failure::failed(format!(
            "{} breaks an invariant",
            args.name
        ))),
        many => Err(Failure::failed(format!(
            "{} breaks invariants in {many} places",
            args.name
        ))),
    }
}

async fn plan(args: PlanArgs) -> Result<(), Failure> {
    let policy = policy::read(&args.policy)?;
    let mut channels = args.connection.connect().await?.channels();
    let answer = channels
        .plan_channel(v1::PlanChannelRequest {
            name: resource(&args.name),
            policy: Some(policy),
            update_mask: None,
        })
        .await
        .map_err(|error| status::failure(&format!("{} was not planned", args.name), &error))?;
    let plan = plan::PlanRecord::from(answer.into_inner());
    match args.format {
        RecordFormat::Text => output::print(plan::text(&args.name, &plan)),
        RecordFormat::Json => output::print_json(&plan),
    }
}

fn show(record: &ChannelRecord, format: RecordFormat) -> Result<(), Failure> {
    match format {
        RecordFormat::Text => output::print(record::text(record)),
        RecordFormat::Json => output::print_json(record),
    }
}
