//! Between the feed's events and `espalier.v1.FeedMessage`.

use bytes::Bytes;
use espalier_media::{
    ByteRange, ObjectKey, ObjectKind, SignedStatement, StatementError, TrackIndex, TrustedKeys,
};
use espalier_proto::v1::{self, feed_message::Kind};
use espalier_proto::wire::v1 as wire;

use crate::feed::FeedEvent;
use crate::status::{Announcement, OriginState, OriginStatus};

pub(crate) fn to_message(event: &FeedEvent) -> v1::FeedMessage {
    let kind = match event {
        FeedEvent::Announce(announcement) => Kind::Announce(v1::Announce {
            object: Some(key_to_wire(&announcement.key)),
            uri: announcement.uri.clone(),
            byte_range: announcement.byte_range.map(|range| wire::ByteRange {
                offset: range.offset,
                length: range.length,
            }),
        }),
        FeedEvent::Statement(statement) => Kind::Statement(wire::Signed {
            payload: statement.payload().clone(),
            signature: Bytes::copy_from_slice(statement.signature()),
            key_id: Bytes::copy_from_slice(&statement.key_id().0),
        }),
        FeedEvent::CaughtUp => Kind::CaughtUp(v1::CaughtUp {}),
        FeedEvent::Origin(status) => Kind::OriginStatus(v1::OriginStatus {
            state: u32::try_from(i32::from(state_to_wire(status.state))).unwrap_or(0),
            problem: status.problem.clone(),
        }),
    };
    v1::FeedMessage { kind: Some(kind) }
}

/// Why a message of a remote signer is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedMessageError {
    /// It says nothing that this version knows: skip it.
    #[error("the message says nothing that this version knows")]
    Unknown,
    /// A statement is refused.
    #[error("a statement is refused")]
    Statement(#[from] StatementError),
    /// An announcement names no object.
    #[error("an announcement names no object")]
    Announcement,
}

/// Reads a remote signer's message; statements are verified.
///
/// # Errors
/// [`FeedMessageError`] says why it is no event.
pub fn from_message(
    message: v1::FeedMessage,
    trusted: &TrustedKeys,
) -> Result<FeedEvent, FeedMessageError> {
    Ok(match message.kind.ok_or(FeedMessageError::Unknown)? {
        Kind::Announce(announce) => FeedEvent::Announce(announcement(announce)?),
        Kind::Statement(signed) => FeedEvent::Statement(SignedStatement::from_parts(
            signed.payload,
            &signed.signature,
            &signed.key_id,
            trusted,
        )?),
        Kind::CaughtUp(v1::CaughtUp {}) => FeedEvent::CaughtUp,
        Kind::OriginStatus(status) => FeedEvent::Origin(OriginStatus {
            state: state_from_wire(status.state).ok_or(FeedMessageError::Unknown)?,
            problem: status.problem,
        }),
    })
}

fn announcement(announce: v1::Announce) -> Result<Announcement, FeedMessageError> {
    let key = announce.object.ok_or(FeedMessageError::Announcement)?;
    let kind = match key.kind() {
        wire::ObjectKind::Unspecified => return Err(FeedMessageError::Announcement),
        wire::ObjectKind::Segment => ObjectKind::Segment,
        wire::ObjectKind::Init => ObjectKind::Init,
        wire::ObjectKind::Part => ObjectKind::Part,
    };
    let byte_range = announce.byte_range.map(|range| ByteRange {
        offset: range.offset,
        length: range.length,
    });
    if byte_range.is_some_and(|range| range.length == 0 || range.end().is_none()) {
        return Err(FeedMessageError::Announcement);
    }
    let key = ObjectKey {
        track: TrackIndex(key.track),
        epoch: key.epoch,
        kind,
        sequence: key.sequence,
        part: key.part,
    };
    Ok(Announcement {
        key,
        uri: announce.uri,
        byte_range,
    })
}

fn key_to_wire(key: &ObjectKey) -> wire::ObjectKey {
    let kind = match key.kind {
        ObjectKind::Init => wire::ObjectKind::Init,
        ObjectKind::Part => wire::ObjectKind::Part,
        ObjectKind::Segment => wire::ObjectKind::Segment,
    };
    wire::ObjectKey {
        track: key.track.0,
        epoch: key.epoch,
        kind: kind.into(),
        sequence: key.sequence,
        part: key.part,
    }
}

fn state_to_wire(state: OriginState) -> v1::OriginState {
    match state {
        OriginState::Starting => v1::OriginState::Starting,
        OriginState::Live => v1::OriginState::Live,
        OriginState::Frozen => v1::OriginState::Frozen,
        OriginState::Unreachable => v1::OriginState::Unreachable,
        OriginState::Invalid => v1::OriginState::Invalid,
        OriginState::Ended => v1::OriginState::Ended,
    }
}

fn state_from_wire(state: u32) -> Option<OriginState> {
    let state = v1::OriginState::try_from(i32::try_from(state).ok()?).ok()?;
    match state {
        v1::OriginState::Unspecified => None,
        v1::OriginState::Starting => Some(OriginState::Starting),
        v1::OriginState::Live => Some(OriginState::Live),
        v1::OriginState::Frozen => Some(OriginState::Frozen),
        v1::OriginState::Unreachable => Some(OriginState::Unreachable),
        v1::OriginState::Invalid => Some(OriginState::Invalid),
        v1::OriginState::Ended => Some(OriginState::Ended),
    }
}
