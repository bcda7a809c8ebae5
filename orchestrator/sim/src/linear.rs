//! Whether a register's history is linearizable: the search of Wing and Gong, with Lowe's memory of
//! configurations that led nowhere.
//!
//! An operation whose outcome nobody knows may take effect at any time after it was invoked, or never. One that
//! is known to have failed is not part of the history.

use std::collections::BTreeSet;

/// What was asked of the register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Read,
    Write(u64),
    /// Writes the second if the register holds the first.
    Swap(u64, u64),
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Value(u64),
    Written,
    /// The register held something else than was expected.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// One operation. Moments are numbered in the order in which they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) ask: Ask,
    pub(crate) told: Told,
    pub(crate) invoked: u64,
    /// Of one whose outcome nobody knows: never.
    pub(crate) returned: u64,
}

/// Looks for an order in which every operation takes effect between its invocation and its return. `Err` says
/// how far it is possible: the longest order that was found, of so many operations with a known outcome.
pub(crate) fn check(initial: u64, history: &[Operation]) -> Result<(), usize> {
    let mut operations = history.to_vec();
    operations.sort_by_key(|operation| operation.invoked);
    let known = |operation: &&Operation| operation.told != Told::Unknown;
    let known = operations.iter().filter(known).count();
    let mut search = Search {
        done: vec![false; operations.len()],
        operations,
        failed: BTreeSet::new(),
        left: known,
        best: known,
    };
    if search.go(initial) {
        Ok(())
    } else {
        Err(known - search.best)
    }
}

struct Search {
    operations: Vec<Operation>,
    done: Vec<bool>,
    /// Configurations (what is done, the value) from which there is no way on.
    failed: BTreeSet<(Vec<bool>, u64)>,
    left: usize,
    best: usize,
}

impl Search {
    fn go(&mut self, value: u64) -> bool {
        if self.left == 0 {
            return true;
        }
        let first = self.done.iter().position(|done| !done).unwrap_or(0);
        let open = (first..self.operations.len()).filter(|at| !self.done[*at]);
        let end = open
            .map(|at| self.operations[at].returned)
            .min()
            .unwrap_or(0);
        // Whatever was invoked after the earliest return comes after it.
        for at in first..self.operations.len() {
            let operation = self.operations[at];
            if operation.invoked > end {
                break;
            }
            let Some(next) = (!self.done[at]).then(|| effect(operation, value)).flatten() else {
                continue;
            };
            if operation.told == Told::Unknown && next == value {
                continue;
            }
            if self.take(at, next) {
                return true;
            }
        }
        false
    }

    fn take(&mut self, at: usize, next: u64) -> bool {
        let counts = usize::from(self.operations[at].told != Told::Unknown);
        self.done[at] = true;
        self.left -= counts;
        self.best = self.best.min(self.left);
        let found = self.failed.insert((self.done.clone(), next)) && self.go(next);
        if !found {
            self.done[at] = false;
            self.left += counts;
        }
        found
    }
}

/// The value after the operation; `None`: it cannot take effect here with what it was told.
fn effect(operation: Operation, value: u64) -> Option<u64> {
    match (operation.ask, operation.told) {
        (Ask::Read, Told::Value(read)) => (read == value).then_some(value),
        (Ask::Read, _) => Some(value),
        (Ask::Write(new), _) => Some(new),
        (Ask::Swap(old, new), Told::Written) => (old == value).then_some(new),
        (Ask::Swap(old, _), Told::Refused) => (old != value).then_some(value),
        (Ask::Swap(old, new), Told::Value(_) | Told::Unknown) => {
            Some(if old == value { new } else { value })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it is about, its operations, and whether there is an order.
    type Row = (&'static str, &'static [(Ask, Told, u64, u64)], bool);

    fn history(of: &[(Ask, Told, u64, u64)]) -> Vec<Operation> {
        let operation = |(ask, told, invoked, returned): &(Ask, Told, u64, u64)| Operation {
            ask: *ask,
            told: *told,
            invoked: *invoked,
            returned: *returned,
        };
        of.iter().map(operation).collect()
    }

    const NEVER: u64 = u64::MAX;

    #[test]
    fn table() {
        use Ask::{Read, Swap, Write};
        use Told::{Refused, Unknown, Value, Written};
        let table: &[Row] = &[
            ("nothing", &[], true),
            ("the initial value", &[(Read, Value(0), 1, 2)], true),
            ("a value from nowhere", &[(Read, Value(7), 1, 2)], false),
            (
                "its own write",
                &[(Write(1), Written, 1, 2), (Read, Value(1), 3, 4)],
                true,
            ),
            (
                "a stale read",
                &[(Write(1), Written, 1, 2), (Read, Value(0), 3, 4)],
                false,
            ),
            (
                "either, meanwhile",
                &[(Write(1), Written, 1, 4), (Read, Value(0), 2, 3)],
                true,
            ),
            (
                "new and then old again",
                &[
                    (Write(1), Written, 1, 9),
                    (Read, Value(1), 2, 3),
                    (Read, Value(0), 4, 5),
                ],
                false,
            ),
            (
                "unknown and late",
                &[
                    (Write(1), Unknown, 1, NEVER),
                    (Read, Value(0), 2, 3),
                    (Read, Value(1), 4, 5),
                ],
                true,
            ),
            (
                "unknown and never",
                &[(Write(1), Unknown, 1, NEVER), (Read, Value(0), 2, 3)],
                true,
            ),
            (
                "unknown, but not before it was asked",
                &[(Read, Value(1), 1, 2), (Write(1), Unknown, 3, NEVER)],
                false,
            ),
            (
                "unknown, once",
                &[
                    (Write(1), Unknown, 1, NEVER),
                    (Read, Value(1), 2, 3),
                    (Write(2), Written, 4, 5),
                    (Read, Value(1), 6, 7),
                ],
                false,
            ),
            (
                "a lost write",
                &[
                    (Write(1), Written, 1, 2),
                    (Write(2), Written, 3, 4),
                    (Read, Value(1), 5, 6),
                ],
                false,
            ),
            (
                "swaps",
                &[
                    (Swap(0, 1), Written, 1, 2),
                    (Swap(0, 2), Refused, 3, 4),
                    (Swap(1, 3), Written, 5, 6),
                    (Read, Value(3), 7, 8),
                ],
                true,
            ),
            (
                "two swaps of one value",
                &[(Swap(0, 1), Written, 1, 4), (Swap(0, 2), Written, 2, 5)],
                false,
            ),
            (
                "refused for no reason",
                &[(Swap(0, 1), Refused, 1, 2)],
                false,
            ),
            (
                "refused by who was not heard of",
                &[(Write(5), Unknown, 1, NEVER), (Swap(0, 1), Refused, 2, 3)],
                true,
            ),
        ];
        for (what, operations, linearizable) in table {
            let found = check(0, &history(operations));
            assert_eq!(found.is_ok(), *linearizable, "{what}: {found:?}");
        }
    }

    /// Histories that a real register made are always accepted, however they overlap.
    #[test]
    fn real_histories_are_accepted() {
        for seed in 0..200 {
            let mut dice = crate::dice::Dice::new(seed);
            let mut value = 0;
            let mut history = Vec::new();
            for number in 1..60_u64 {
                // Each takes effect at its own moment, somewhere in its span.
                let at = number * 10;
                let (invoked, returned) = (at - dice.below(25).min(at), at + dice.below(25));
                let unknown = dice.chance(150);
                let (ask, mut told) = match dice.below(3) {
                    0 => (Ask::Read, Told::Value(value)),
                    1 => {
                        value = number;
                        (Ask::Write(number), Told::Written)
                    }
                    _ => {
                        let old = if dice.chance(600) {
                            value
                        } else {
                            number + 1_000
                        };
                        let fits = old == value;
                        if fits {
                            value = number;
                        }
                        (
                            Ask::Swap(old, number),
                            if fits { Told::Written } else { Told::Refused },
                        )
                    }
                };
                let mut end = returned;
                if unknown && ask != Ask::Read {
                    (told, end) = (Told::Unknown, u64::MAX);
                }
                history.push(Operation {
                    ask,
                    told,
                    invoked,
                    returned: end,
                });
            }
            assert_eq!(check(0, &history), Ok(()), "seed {seed}");
        }
    }
}
