//! What happens when: a wheel of wheels over whole milliseconds.
//!
//! Three wheels of 4,096 places each: of 1 ms, of 4.1 s and of 4.7 h. An appointment goes into the
//! finest wheel that reaches it and moves inwards as its time comes, so that making one and coming to
//! it cost a few memory accesses whatever their number.
//!
//! Invariant: appointments come in the order of their times; those of one millisecond in an order that
//! depends on nothing but the calls before.

const BITS: u32 = 12;
const PLACES: usize = 1 << BITS;
const WHEELS: usize = 3;

/// Something to be done at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appointment<T> {
    pub(crate) at: u32,
    pub(crate) what: T,
}

/// All appointments from a time on.
#[derive(Debug)]
pub(crate) struct Calendar<T> {
    /// The time before which nothing is left.
    now: u32,
    wheels: Vec<Vec<Vec<Appointment<T>>>>,
    /// What is in each wheel.
    counts: [usize; WHEELS],
}

impl<T: Copy> Calendar<T> {
    pub(crate) fn new() -> Self {
        Self {
            now: 0,
            wheels: (0..WHEELS)
                .map(|_| (0..PLACES).map(|_| Vec::new()).collect())
                .collect(),
            counts: [0; WHEELS],
        }
    }

    /// Makes an appointment; one in the past is due now.
    pub(crate) fn add(&mut self, at: u32, what: T) {
        let at = at.max(self.now);
        self.put(Appointment { at, what });
    }

    fn put(&mut self, appointment: Appointment<T>) {
        let apart = appointment.at ^ self.now;
        let wheel = (0..WHEELS - 1).find(|wheel| apart >> (BITS * (shift(*wheel) + 1)) == 0);
        let wheel = wheel.unwrap_or(WHEELS - 1);
        let place = place(appointment.at, wheel);
        self.counts[wheel] += 1;
        self.wheels[wheel][place].push(appointment);
    }

    /// Moves everything of the next time that has something, if that is not after `end`, into `due`, and
    /// returns that time.
    pub(crate) fn take_next(&mut self, end: u32, due: &mut Vec<T>) -> Option<u32> {
        loop {
            if self.counts.iter().all(|count| *count == 0) {
                self.advance_to(end.saturating_add(1).max(self.now));
                return None;
            }
            let wheel = (0..WHEELS).find(|wheel| self.counts[*wheel] > 0)?;
            let from = place(self.now, wheel);
            let rest = &self.wheels[wheel][from..];
            let found = rest.iter().position(|at| !at.is_empty())?;
            let at = self.start_of(wheel, from + found);
            if at > end {
                self.advance_to(end.saturating_add(1).max(self.now));
                return None;
            }
            self.now = self.now.max(at);
            let taken = core::mem::take(&mut self.wheels[wheel][from + found]);
            self.counts[wheel] -= taken.len();
            if wheel == 0 {
                due.extend(taken.iter().map(|appointment| appointment.what));
                self.wheels[0][from + found] = recycled(taken);
                return Some(at);
            }
            for appointment in taken {
                self.put(appointment);
            }
        }
    }

    /// Lets time pass over which there is nothing, and brings inwards what is near now.
    fn advance_to(&mut self, to: u32) {
        if to <= self.now {
            return;
        }
        let before = core::mem::replace(&mut self.now, to);
        for wheel in (1..WHEELS).rev() {
            let bits = BITS * shift(wheel);
            if before >> bits != to >> bits {
                let taken = core::mem::take(&mut self.wheels[wheel][place(to, wheel)]);
                self.counts[wheel] -= taken.len();
                for appointment in taken {
                    self.put(appointment);
                }
            }
        }
    }

    /// The time at which this place of the wheel begins, in its turn of now.
    fn start_of(&self, wheel: usize, place: usize) -> u32 {
        let bits = BITS * shift(wheel);
        let turn = u64::from(self.now) >> (bits + BITS) << (bits + BITS);
        let start = turn + ((place as u64) << bits);
        u32::try_from(start).unwrap_or(u32::MAX)
    }
}

/// Gives an emptied list back to its place, so that it need not grow again.
fn recycled<T>(mut taken: Vec<T>) -> Vec<T> {
    taken.clear();
    taken
}

fn shift(wheel: usize) -> u32 {
    u32::try_from(wheel).unwrap_or(0)
}

fn place(at: u32, wheel: usize) -> usize {
    (at >> (BITS * shift(wheel))) as usize & (PLACES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;
    use std::collections::BTreeMap;

    #[test]
    fn everything_comes_once_and_at_its_time() {
        for seed in 0..20 {
            let mut dice = Dice::new(seed);
            let mut calendar = Calendar::new();
            let mut expected: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
            let (mut now, mut number) = (0_u32, 0_u32);
            for _ in 0..3_000 {
                for _ in 0..dice.below(5) {
                    let reach = [3, 5_000, 20_000_000, 500_000_000]
                        [usize::try_from(dice.below(4)).unwrap()];
                    let at = now + u32::try_from(dice.below(reach)).unwrap();
                    calendar.add(at, number);
                    expected.entry(at).or_default().push(number);
                    number += 1;
                }
                let end = now + u32::try_from(dice.below(100_000)).unwrap();
                let mut due = Vec::new();
                let at = calendar.take_next(end, &mut due);
                let first = expected.first_key_value().map(|(at, _)| *at);
                let first = first.filter(|at| *at <= end);
                assert_eq!(at, first, "seed {seed}");
                let mut wanted = first.map_or(Vec::new(), |at| expected.remove(&at).unwrap());
                due.sort_unstable();
                wanted.sort_unstable();
                assert_eq!(due, wanted, "seed {seed}");
                now = at.unwrap_or(end + 1);
            }
        }
    }
}
