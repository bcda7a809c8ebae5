//! The owner's end of one stream: what has come, and what is acknowledged.

use crate::ids::NodeId;

/// One stream of one gateway. The owner numbers streams as they come: the higher is the newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamKey {
    /// Whose.
    pub gateway: NodeId,
    /// Which.
    pub stream: u64,
}

/// A change is missing: the stream is of no more use, and the gateway has to open another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("change {expected} of a gateway is missing: {found} came instead")]
pub struct LinkGap {
    /// What should have come.
    pub expected: u64,
    /// What came.
    pub found: u64,
}

/// Counts the changes of one stream.
#[derive(Debug, Clone, Default)]
pub struct Intake {
    taken: u64,
    acked: u64,
}

impl Intake {
    /// Takes in a change's number; returns whether it is new.
    ///
    /// # Errors
    /// [`LinkGap`] when one before it has not come.
    pub fn take(&mut self, seq: u64) -> Result<bool, LinkGap> {
        let expected = self.taken + 1;
        if seq > expected {
            let found = seq;
            return Err(LinkGap { expected, found });
        }
        let new = seq == expected;
        if new {
            self.taken = seq;
        }
        Ok(new)
    }

    /// Returns how many changes were taken and not yet acknowledged.
    pub fn owed(&self) -> u64 {
        self.taken - self.acked
    }

    /// Returns the number to acknowledge, if there is news.
    pub fn acknowledge(&mut self) -> Option<u64> {
        if self.acked == self.taken {
            return None;
        }
        self.acked = self.taken;
        Some(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_count_once_and_in_order() {
        let mut intake = Intake::default();
        assert_eq!(intake.acknowledge(), None);
        assert_eq!(intake.take(1), Ok(true));
        assert_eq!(intake.take(2), Ok(true));
        assert_eq!(intake.take(2), Ok(false), "it came twice");
        let gap = LinkGap {
            expected: 3,
            found: 5,
        };
        assert_eq!(intake.take(5), Err(gap));
        assert_eq!(intake.owed(), 2);
        assert_eq!(intake.acknowledge(), Some(2));
        assert_eq!(intake.acknowledge(), None);
    }
}
