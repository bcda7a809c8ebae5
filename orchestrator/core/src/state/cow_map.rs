//! A sorted map whose copies share what neither of them has changed.
//!
//! Two levels: chunks of up to [`MOST`] neighbours, and one list of all chunks. A clone is one
//! reference count; the first change after it copies the list (a pointer and a key per chunk) and
//! the chunk that it touches, nothing else. So a snapshot is taken by cloning, written from the clone at
//! leisure, and never keeps the writer waiting.
//!
//! It holds a million records with a few hundred bytes each; it is not meant for many more, since the list
//! is copied whole.

use std::sync::Arc;

/// Neighbours that share a chunk.
const MOST: usize = 64;

/// A sorted map with cheap copies.
#[derive(Debug, Clone)]
pub(crate) struct CowMap<K, V> {
    root: Arc<Root<K, V>>,
    len: usize,
}

/// Invariant: `firsts[i]` is the first key of `chunks[i]`; no chunk is empty; keys rise throughout.
#[derive(Debug, Clone)]
struct Root<K, V> {
    firsts: Vec<K>,
    chunks: Vec<Arc<Vec<(K, V)>>>,
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        let (firsts, chunks) = (Vec::new(), Vec::new());
        let root = Arc::new(Root { firsts, chunks });
        Self { root, len: 0 }
    }
}

impl<K: Ord + Clone, V: Clone> CowMap<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let chunk = &self.root.chunks[self.root.chunk_of(key)?];
        let at = chunk.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
        Some(&chunk[at].1)
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let chunk = self.root.chunk_of(key)?;
        let known = &self.root.chunks[chunk];
        let at = known.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
        let root = Arc::make_mut(&mut self.root);
        Some(&mut Arc::make_mut(&mut root.chunks[chunk])[at].1)
    }

    /// Adds a record, or replaces it and returns the old one.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let root = Arc::make_mut(&mut self.root);
        if root.chunks.is_empty() {
            root.firsts.push(key.clone());
            root.chunks.push(Arc::new(vec![(key, value)]));
            self.len = 1;
            return None;
        }
        let which = root.chunk_of(&key).unwrap_or(0);
        let chunk = Arc::make_mut(&mut root.chunks[which]);
        let at = match chunk.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(at) => return Some(core::mem::replace(&mut chunk[at].1, value)),
            Err(at) => at,
        };
        self.len += 1;
        if at == 0 {
            root.firsts[which] = key.clone();
        }
        chunk.insert(at, (key, value));
        if chunk.len() > MOST {
            root.split(which, at);
        }
        None
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let which = self.root.chunk_of(key)?;
        let known = &self.root.chunks[which];
        let at = known.binary_search_by(|(known, _)| known.cmp(key)).ok()?;
        let root = Arc::make_mut(&mut self.root);
        let chunk = Arc::make_mut(&mut root.chunks[which]);
        let (_, value) = chunk.remove(at);
        self.len -= 1;
        match chunk.first() {
            Some((first, _)) if at == 0 => root.firsts[which] = first.clone(),
            Some(_) => {}
            None => {
                root.firsts.remove(which);
                root.chunks.remove(which);
            }
        }
        root.merge(which);
        Some(value)
    }

    /// Walks through all records in the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let chunks = self.root.chunks.iter();
        chunks.flat_map(|chunk| chunk.iter().map(|(key, value)| (key, value)))
    }
}

impl<K: Ord + Clone, V: Clone> Root<K, V> {
    /// Returns the chunk in which the key is if it is anywhere; `None`: it is before all of them.
    fn chunk_of(&self, key: &K) -> Option<usize> {
        self.firsts
            .partition_point(|first| first <= key)
            .checked_sub(1)
    }

    /// Splits a chunk that has grown too large at `at`. One that grew at its end is left nearly full:
    /// whoever fills a map in order fills its chunks.
    fn split(&mut self, which: usize, at: usize) {
        let chunk = Arc::make_mut(&mut self.chunks[which]);
        let middle = if at + 1 == chunk.len() {
            at
        } else {
            chunk.len() / 2
        };
        let tail = chunk.split_off(middle);
        self.firsts.insert(which + 1, tail[0].0.clone());
        self.chunks.insert(which + 1, Arc::new(tail));
    }

    /// Joins a chunk that has become small with the next, so that a map that shrinks gives its space
    /// back.
    fn merge(&mut self, which: usize) {
        let length = |at: usize| self.chunks.get(at).map_or(MOST, |chunk| chunk.len());
        if length(which) + length(which + 1) > MOST / 2 {
            return;
        }
        self.firsts.remove(which + 1);
        let next = self.chunks.remove(which + 1);
        Arc::make_mut(&mut self.chunks[which]).extend(next.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn verify(map: &CowMap<u16, u32>, model: &BTreeMap<u16, u32>) {
        assert!(map.iter().eq(model.iter()));
        assert_eq!(map.len(), model.len());
        let root = &map.root;
        assert_eq!(root.firsts.len(), root.chunks.len());
        for (first, chunk) in root.firsts.iter().zip(&root.chunks) {
            assert_eq!(*first, chunk[0].0);
            assert!(chunk.len() <= MOST);
        }
    }

    proptest! {
        #[test]
        fn it_is_a_sorted_map_and_its_copies_stay_as_they_were(
            steps in proptest::collection::vec((0_u8..8, any::<u16>(), any::<u32>()), 1..3000),
            keys in prop_oneof![Just(40_u16), Just(700), Just(u16::MAX)],
        ) {
            let (mut map, mut model) = (CowMap::default(), BTreeMap::new());
            let mut copies = Vec::new();
            for (kind, key, value) in steps {
                let key = key % keys;
                match kind {
                    0..=3 => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    4 | 5 => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                    6 => {
                        let (one, other) = (map.get_mut(&key), model.get_mut(&key));
                        prop_assert_eq!(one.is_some(), other.is_some());
                        if let (Some(one), Some(other)) = (one, other) {
                            (*one, *other) = (value, value);
                        }
                    }
                    _ if value % 64 == 0 => copies.push((map.clone(), model.clone())),
                    _ => prop_assert_eq!(map.get(&key), model.get(&key)),
                }
            }
            copies.push((map, model));
            for (map, model) in &copies {
                verify(map, model);
            }
        }
    }

    #[test]
    fn a_map_that_is_filled_in_order_has_full_chunks() {
        let mut map = CowMap::default();
        for key in 0..6400_u16 {
            map.insert(key, 0);
        }
        assert!(map.root.chunks.len() <= 101, "{}", map.root.chunks.len());
        for key in 0..6400 {
            map.remove(&key);
        }
        assert!(map.root.chunks.is_empty());
    }
}
