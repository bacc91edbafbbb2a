//! Which objects lead to a position. Pure: a listing in, a way out.

use std::collections::BTreeMap;

use crate::chain::{Catalog, Object, SNAPSHOT};

/// What one more object costs beside its bytes, in bytes: a request, and a seek.
const EACH: u64 = 32 << 10;

/// All positions of a chain that can be reached, and how.
pub struct Routes<'a> {
    best: BTreeMap<u64, (u64, &'a Object)>,
    /// Every position that an object leads to.
    nodes: Vec<u64>,
}

impl<'a> Routes<'a> {
    /// Finds the cheapest way to each position.
    pub fn new(catalog: &'a Catalog) -> Self {
        let mut objects: Vec<&Object> = catalog.objects.iter().collect();
        // Whatever leads to a position is settled before anything that leads on from it.
        objects.sort_by_key(|object| (object.name.to, object.name.level));
        let mut best: BTreeMap<u64, (u64, &Object)> = BTreeMap::new();
        for object in objects.iter().copied() {
            let before = match object.name.level {
                SNAPSHOT => Some(0),
                _ => best.get(&object.name.from).map(|(cost, _)| *cost),
            };
            let Some(before) = before else { continue };
            let cost = before.saturating_add(object.bytes).saturating_add(EACH);
            let slot = best.entry(object.name.to).or_insert((cost, object));
            if cost < slot.0 {
                *slot = (cost, object);
            }
        }
        let mut nodes: Vec<u64> = objects.iter().map(|object| object.name.to).collect();
        nodes.dedup();
        Self { best, nodes }
    }

    /// Every position that an object leads to, in order, whether or not it can be reached.
    pub fn nodes(&self) -> &[u64] {
        &self.nodes
    }

    /// Whether there is a way to it.
    pub fn reaches(&self, seq: u64) -> bool {
        self.best.contains_key(&seq)
    }

    /// The last position at or before this one that can be reached.
    pub fn last_until(&self, seq: u64) -> Option<u64> {
        self.best.range(..=seq).next_back().map(|(seq, _)| *seq)
    }

    /// The object that the way to `seq` ends with.
    pub fn last_object(&self, seq: u64) -> Option<&'a Object> {
        self.best.get(&seq).map(|(_, object)| *object)
    }

    /// The objects to apply, in order.
    pub fn to(&self, seq: u64) -> Option<Vec<&'a Object>> {
        let mut way = Vec::new();
        let mut at = seq;
        loop {
            let (_, object) = self.best.get(&at)?;
            way.push(*object);
            if object.name.level == SNAPSHOT {
                way.reverse();
                return Some(way);
            }
            at = object.name.from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{ChainId, Name};

    fn catalog(objects: &[(u8, u64, u64, u64)]) -> Catalog {
        let object = |&(level, from, to, bytes)| Object {
            name: Name { level, from, to, part: 0 },
            bytes,
            keys: Vec::new(),
            modified_ms: None,
        };
        Catalog {
            chain: ChainId([0; 16]),
            objects: objects.iter().map(object).collect(),
            orphans: Vec::new(),
            epochs: Vec::new(),
            head: false,
            strangers: Vec::new(),
        }
    }

    fn way(catalog: &Catalog, to: u64) -> Option<Vec<(u8, u64)>> {
        let names = |way: Vec<&Object>| way.iter().map(|o| (o.name.level, o.name.to)).collect();
        Routes::new(catalog).to(to).map(names)
    }

    #[test]
    fn a_merged_object_replaces_many_small_ones() {
        let small = (1..20).map(|n| (0, n, n + 1, 100));
        let all: Vec<_> = small.chain([(3, 0, 1, 1000), (1, 1, 10, 500), (2, 1, 20, 700)]).collect();
        let catalog = catalog(&all);
        assert_eq!(way(&catalog, 20), Some(vec![(3, 1), (2, 20)]));
        assert_eq!(way(&catalog, 11), Some(vec![(3, 1), (1, 10), (0, 11)]));
        assert_eq!(way(&catalog, 21), None);
    }

    #[test]
    fn what_is_behind_a_hole_is_not_reached() {
        let catalog = catalog(&[(3, 0, 1, 9), (0, 1, 2, 9), (0, 3, 4, 9), (0, 4, 5, 9)]);
        let routes = Routes::new(&catalog);
        assert!(routes.reaches(2) && !routes.reaches(4));
        assert_eq!(routes.last_until(5), Some(2));
        assert_eq!(routes.nodes(), [1, 2, 4, 5]);
    }

    #[test]
    fn a_later_snapshot_bridges() {
        let catalog = catalog(&[(3, 0, 1, 9), (3, 0, 3, 9), (0, 3, 4, 9)]);
        assert_eq!(way(&catalog, 4), Some(vec![(3, 3), (0, 4)]));
    }
}
