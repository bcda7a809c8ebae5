//! Compiles the `.proto` files with protox, so that no protoc is needed on the builder's machine.

use std::path::PathBuf;

use prost::Message as _;

const WIRE: &[&str] = &["espalier/wire/v1/wire.proto"];
const SERVICES: &[&str] = &[
    "espalier/cluster/v1/link.proto",
    "espalier/cluster/v1/raft.proto",
    "espalier/v1/channel.proto",
    "espalier/v1/cluster.proto",
    "espalier/v1/common.proto",
    "espalier/v1/peer.proto",
    "espalier/v1/signer.proto",
    "espalier/v1/topology.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    let files: Vec<&str> = if grpc {
        [WIRE, SERVICES].concat()
    } else {
        WIRE.to_vec()
    };
    let descriptors = protox::compile(files, ["proto"])?;
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".espalier.wire.v1")
        .bytes(".espalier.cluster.v1.RaftMessage.body")
        .bytes(".espalier.cluster.v1.SnapshotPart.content")
        .build_client(grpc)
        .build_server(grpc)
        .compile_fds(descriptors)?;
    Ok(())
}
