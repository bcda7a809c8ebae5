//! Things by random 64-bit ids: found in constant time, walked through only in the order of their ids.
//!
//! Ids are random where peers are honest. Where they are not, the multiplication spreads what they choose, and
//! the shells admit nobody without a token.
#![expect(
    clippy::disallowed_types,
    reason = "the hash is the same in every run, and nobody sees the map's own order"
)]

use core::hash::{BuildHasherDefault, Hash, Hasher};
use std::collections::HashMap;

/// A map from ids that are 64 random bits.
#[derive(Debug)]
pub(crate) struct IdMap<K, V>(HashMap<K, V, BuildHasherDefault<IdHasher>>);

impl<K, V> Default for IdMap<K, V> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<K: Hash + Ord + Copy, V: Copy> IdMap<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// How much memory it has taken.
    pub(crate) fn bytes(&self) -> usize {
        self.0.capacity() * (size_of::<(K, V)>() + 1)
    }

    pub(crate) fn reserve(&mut self, more: usize) {
        self.0.reserve(more);
    }

    pub(crate) fn get(&self, id: K) -> Option<V> {
        self.0.get(&id).copied()
    }

    pub(crate) fn contains(&self, id: K) -> bool {
        self.0.contains_key(&id)
    }

    pub(crate) fn insert(&mut self, id: K, value: V) -> Option<V> {
        self.0.insert(id, value)
    }

    pub(crate) fn remove(&mut self, id: K) -> Option<V> {
        self.0.remove(&id)
    }

    /// Everything, in the order of the ids.
    pub(crate) fn in_order(&self) -> Vec<(K, V)> {
        let mut all: Vec<_> = self.0.iter().map(|(id, value)| (*id, *value)).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }
}

/// Folds the 128 bits of a product.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let (low, high) = (self.0 ^ word).widening_product(ODD);
        self.0 = low ^ high;
    }
}

trait WideningProduct {
    fn widening_product(self, other: Self) -> (Self, Self)
    where
        Self: Sized;
}

impl WideningProduct for u64 {
    fn widening_product(self, other: Self) -> (Self, Self) {
        let product = (u128::from(self) * u128::from(other)).to_le_bytes();
        let half = |at: usize| {
            let mut half = [0; 8];
            half.copy_from_slice(&product[at..at + 8]);
            Self::from_le_bytes(half)
        };
        (half(0), half(8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_in_order_and_go() {
        let mut map = IdMap::default();
        for id in [5_u64, 1, 9] {
            assert_eq!(map.insert(id, id * 2), None);
        }
        assert_eq!(map.insert(5, 0), Some(10));
        assert_eq!(map.in_order(), [(1, 2), (5, 0), (9, 18)]);
        assert_eq!(
            (map.remove(1), map.get(1), map.get(9)),
            (Some(2), None, Some(18))
        );
        assert!(map.contains(9) && map.len() == 2);
    }
}
