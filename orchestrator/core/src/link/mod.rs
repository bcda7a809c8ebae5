//! Between the part of a node that faces peers and the part that owns channels: who says what to whom.
//!
//! ```text
//!  sessions ──► GatewayLink ──ToOwner──►  Intake ──► Seats ──► ChannelEvent ──► ChannelEngine
//!     ▲             │      one stream a               │  ▲                         │
//!     └─────────────┘◄─ToGateway─ (gateway, shard) ───┘  └───────── Assign ────────┘
//! ```
//!
//! A [`GatewayLink`] knows the sessions of one gateway in one shard. Whenever its stream opens it says
//! all of them, then what changes; the owner acknowledges by number. [`Seats`] knows for one channel which
//! peer sits at which gateway, and gives each assignment to the right one together with where the peer's
//! neighbours sit. What a gateway said to an owner that failed, it says again to the next.
//!
//! Invariants: of a peer's attachments the highest wins, over all gateways, in whatever order news of them
//! comes; saying a thing twice is saying it once; only reports may be dropped. Nothing in here is
//! replicated: it is made anew from what the gateways say.
//!
//! There is no transport here, and no decision about trees.

mod gateway;
mod held;
mod message;
mod seats;
mod stream;

pub use gateway::{AttachError, GatewayCommand, GatewayLink, LinkFull};
pub use held::{neighbours_assigned, neighbours_held};
pub use message::{Attached, Change, Refusal, Said, ToGateway, ToOwner, Whereabouts};
pub use seats::{SeatCommand, Seats};
pub use stream::{Intake, LinkGap, StreamKey};

#[cfg(test)]
mod tests;
