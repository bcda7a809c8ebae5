//! Slots that are used again, named by handles that are not.

use core::cmp::Ordering;
use core::fmt;
use core::marker::PhantomData;

/// Names one value of an [`Arena`]; a handle of a removed value finds nothing.
pub(crate) struct Handle<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Handle<T> {
    /// Comes before every other.
    pub(crate) const LOWEST: Self = Self {
        index: 0,
        generation: 0,
        of: PhantomData,
    };

    /// Names the value that was the first in this slot.
    pub(crate) fn first_of(index: u32) -> Self {
        Self {
            index,
            ..Self::LOWEST
        }
    }

    fn order(self) -> (u32, u32) {
        (self.index, self.generation)
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Handle<T> {}

impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<T> Eq for Handle<T> {}

impl<T> PartialOrd for Handle<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Handle<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl<T> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Values in slots; the last slot freed is the next one used, so equal histories give equal handles.
#[derive(Debug)]
pub(crate) struct Arena<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Arena<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(crate) fn with_capacity(values: usize) -> Self {
        Self {
            slots: Vec::with_capacity(values),
            free: Vec::new(),
        }
    }

    /// Returns the handle of the value that is inserted next, if none is ever removed.
    pub(crate) fn upcoming(&self) -> Handle<T> {
        let slots = u32::try_from(self.slots.len());
        Handle::first_of(slots.expect("invariant: fewer than 2^32 slots"))
    }

    pub(crate) fn insert(&mut self, value: T) -> Handle<T> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                value: None,
            });
            u32::try_from(self.slots.len() - 1).expect("invariant: fewer than 2^32 slots")
        });
        let slot = &mut self.slots[index as usize];
        slot.value = Some(value);
        Handle {
            index,
            generation: slot.generation,
            of: PhantomData,
        }
    }

    /// Walks through all values, in the order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Handle<T>, &T)> {
        let slots = (0..).zip(&self.slots);
        slots.filter_map(|(index, slot)| {
            let handle = Handle {
                index,
                generation: slot.generation,
                of: PhantomData,
            };
            slot.value.as_ref().map(|value| (handle, value))
        })
    }

    pub(crate) fn remove(&mut self, handle: Handle<T>) -> Option<T> {
        let slot = self.slots.get_mut(handle.index as usize)?;
        if slot.generation != handle.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(handle.index);
        Some(value)
    }

    pub(crate) fn get(&self, handle: Handle<T>) -> Option<&T> {
        let slot = self.slots.get(handle.index as usize)?;
        slot.value
            .as_ref()
            .filter(|_| slot.generation == handle.generation)
    }

    pub(crate) fn get_mut(&mut self, handle: Handle<T>) -> Option<&mut T> {
        let slot = self.slots.get_mut(handle.index as usize)?;
        slot.value
            .as_mut()
            .filter(|_| slot.generation == handle.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_of_a_removed_value_finds_nothing() {
        let mut arena = Arena::new();
        let first = arena.insert("first");
        assert_eq!(arena.remove(first), Some("first"));
        let second = arena.insert("second");
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.get(second), Some(&"second"));
        assert_eq!(second.index, first.index);
    }
}
