//! Espalier's protocol definitions and the code made from them.
//!
//! [`wire`] holds what signers sign and what peers say to each other (`proto/WIRE.md` is normative);
//! [`v1`] holds the gRPC services of the control plane and needs the `grpc` feature, which is on by
//! default. There is no logic here, and no type that a pure core may keep: cores translate at their
//! edge into types of their own.

/// Signed statements and the messages between linked peers.
#[allow(
    missing_docs,
    reason = "generated; the .proto file carries the documentation"
)]
#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod wire {
    /// The only version so far.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/espalier.wire.v1.rs"));
    }
}

/// The gRPC services of the control plane.
#[cfg(feature = "grpc")]
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; the .proto files carry the documentation"
)]
#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    reason = "generated"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/espalier.v1.rs"));
}

/// What the nodes of a cluster say to each other.
#[cfg(feature = "grpc")]
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; the .proto files carry the documentation"
)]
#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    reason = "generated"
)]
pub mod cluster {
    /// The only version so far.
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/espalier.cluster.v1.rs"));
    }
}

/// The encoded `FileDescriptorSet` of every `.proto` file, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
