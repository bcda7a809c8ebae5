//! Viewer tokens: their claims, how they are issued and how they are checked; and the key of a cluster.
//!
//! A viewer token is a JWT (RFC 7519) for the audience `espalier`, signed with EdDSA (Ed25519), ES256 or
//! HS256. It admits whoever holds it to one channel until it expires, and may pin the public keys whose
//! statements that viewer accepts.
//!
//! Invariant: a token is accepted only with the algorithm of the key that verifies it; the token's own
//! header never chooses.
//!
//! This crate knows nothing of sessions, of API tokens, or of where keys come from.

mod claims;
mod cluster_key;
mod issuer;
mod verifier;

pub use claims::{AUDIENCE, Claims, thumbprint_is_valid};
pub use cluster_key::{ClusterKey, ClusterKeyError};
pub use issuer::{IssueError, IssuerKey, KeyError, issue};
pub use verifier::{VerifierKey, VerifyError, verify, verify_late};
