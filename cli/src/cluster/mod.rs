//! `espalier cluster`: makes a cluster's keys and certificates, and asks any of its nodes to look after it.

mod args;
mod certificates;
mod failure;
mod files;
mod record;
mod wait;

use espalier_process::{Failure, OrFail as _};
use espalier_proto::v1;
use espalier_token::ClusterKey;
use serde::Serialize;

pub(crate) use args::ClusterCommand;
use args::{
    AddArgs, CertsArgs, DrainArgs, InitArgs, RemoveArgs, StatusArgs, TransferArgs, WaitArgs,
};
use failure::failure;
use record::{ClusterRecord, NodeRecord, ShardRecord};
use wait::Wanted;

use crate::args::RecordFormat;
use crate::connection::Clusters;
use crate::output;

pub(crate) async fn run(command: ClusterCommand) -> Result<(), Failure> {
    match command {
        ClusterCommand::Init(args) => init(&args),
        ClusterCommand::Certs(args) => certs(&args),
        ClusterCommand::Status(args) => cluster_status(args).await,
        ClusterCommand::Add(args) => add(args).await,
        ClusterCommand::Remove(args) => remove(args).await,
        ClusterCommand::Transfer(args) => transfer(args).await,
        ClusterCommand::Drain(args) => drain(args).await,
    }
}

#[derive(Serialize)]
struct Made {
    cluster: String,
    key: String,
    admin_token: String,
}

fn init(args: &InitArgs) -> Result<(), Failure> {
    let (key, token) = ClusterKey::generate();
    files::directory(&args.dir)?;
    let made = Made {
        cluster: key.cluster.clone(),
        key: files::write_secret(&args.dir, "cluster.key", &key.to_text())?,
        admin_token: files::write_secret(&args.dir, "admin.token", &format!("{token}\n"))?,
    };
    match args.format {
        RecordFormat::Json => output::print_json(&made),
        RecordFormat::Text => {
            output::print(format!(
                "cluster      {}\nkey          {}\nadmin token  {}",
                made.cluster, made.key, made.admin_token
            ))?;
            output::say(
                "Give each node the key, as key_file in the [cluster] section of its configuration. The token is for \
                 ESPALIER_TOKEN. Both are secret.",
            );
            Ok(())
        }
    }
}

fn certs(args: &CertsArgs) -> Result<(), Failure> {
    files::directory(&args.dir)?;
    let key = args.dir.join("cluster.key");
    let text = std::fs::read_to_string(&key).map_err(|error| {
        Failure::usage(format!("cannot read {}", key.display()))
            .caused_by(&error)
            .next(format!(
                "make one with `espalier cluster init --dir {}`",
                args.dir.display()
            ))
    })?;
    let cluster =
        ClusterKey::from_text(&text).or_usage(format!("{} is of no use", key.display()))?;
    let made = certificates::make(&args.dir, &cluster.cluster, &args.nodes, args.days)?;
    match args.format {
        RecordFormat::Json => output::print_json(&made),
        RecordFormat::Text => output::print(made.join("\n")),
    }
}

async fn cluster_status(args: StatusArgs) -> Result<(), Failure> {
    let mut clusters = args.connection.connect().await?.clusters();
    let cluster = clusters
        .get_cluster(v1::GetClusterRequest { local: args.local })
        .await
        .map_err(|refused| failure("the cluster cannot be shown", &refused))?;
    let record = ClusterRecord::from(cluster.into_inner());
    match args.format {
        RecordFormat::Json => output::print_json(&record),
        RecordFormat::Text => output::print(record::text(&record)),
    }
}

async fn add(args: AddArgs) -> Result<(), Failure> {
    let mut clusters = args.connection.connect().await?.clusters();
    let request = v1::AddNodeRequest {
        cluster_address: args.address.clone(),
    };
    let node = clusters
        .add_node(request)
        .await
        .map_err(|refused| failure(&format!("{} was not added", args.address), &refused))?;
    let node = settled(&mut clusters, node.into_inner(), Wanted::Active, args.wait).await?;
    show_node(&node, args.format)
}

async fn remove(args: RemoveArgs) -> Result<(), Failure> {
    let mut clusters = args.connection.connect().await?.clusters();
    let request = v1::RemoveNodeRequest {
        name: node_name(args.node),
    };
    let node = clusters
        .remove_node(request)
        .await
        .map_err(|refused| failure(&format!("node {} was not removed", args.node), &refused))?;
    let node = settled(&mut clusters, node.into_inner(), Wanted::Gone, args.wait).await?;
    show_node(&node, args.format)
}

async fn transfer(args: TransferArgs) -> Result<(), Failure> {
    let mut clusters = args.connection.connect().await?.clusters();
    let request = v1::TransferShardRequest {
        name: format!("shards/{}", args.shard),
        node: node_name(args.to),
    };
    let shard = clusters.transfer_shard(request).await.map_err(|refused| {
        let what = format!("shard {} was not moved to node {}", args.shard, args.to);
        failure(&what, &refused)
    })?;
    let record = ShardRecord::from(shard.into_inner());
    match args.format {
        RecordFormat::Json => output::print_json(&record),
        RecordFormat::Text => output::print(record::shard_text(&record)),
    }
}

async fn drain(args: DrainArgs) -> Result<(), Failure> {
    let mut clusters = args.connection.connect().await?.clusters();
    let request = v1::DrainNodeRequest {
        name: node_name(args.node),
        undo: args.undo,
    };
    let node = clusters
        .drain_node(request)
        .await
        .map_err(|refused| failure(&format!("node {} is as it was", args.node), &refused))?;
    let wanted = match args.undo {
        true => Wanted::Active,
        false => Wanted::Drained,
    };
    let node = settled(&mut clusters, node.into_inner(), wanted, args.wait).await?;
    show_node(&node, args.format)
}

/// The node as it is, or as it is once it is as wanted.
async fn settled(
    clusters: &mut Clusters,
    node: v1::ClusterNode,
    wanted: Wanted,
    args: WaitArgs,
) -> Result<NodeRecord, Failure> {
    let node = NodeRecord::from(node);
    match args.wait {
        true => wait::until(clusters, node, wanted, args.timeout).await,
        false => Ok(node),
    }
}

fn node_name(id: u64) -> String {
    format!("nodes/{id}")
}

fn show_node(node: &NodeRecord, format: RecordFormat) -> Result<(), Failure> {
    match format {
        RecordFormat::Json => output::print_json(node),
        RecordFormat::Text => output::print(record::node_text(node)),
    }
}
