//! A catalogue while it is read back from journals.
//!
//! Entries go into the chains of their extents; what is removed is noted by extent and taken out of a chain all at once. Nothing can be
//! looked up by its digest before [`Loader::finish`] makes the index, in one go: that is what lets ten million values come back in
//! a second or two.

use super::{Catalog, EntryId, NONE, NewEntry, Place, View};
use crate::store::Map;

pub struct Loader {
    catalog: Catalog,
    /// Offsets of records that were removed since their extent's chain was last gone through.
    removed: Map<u32, Vec<u32>>,
    /// The extent that was added to last: nothing was removed from it since.
    adding: u32,
}

impl Loader {
    pub fn new(extents: u32) -> Self {
        Self { catalog: Catalog::new(extents), removed: Map::default(), adding: NONE }
    }

    /// A value in one part is there.
    pub fn add(&mut self, new: NewEntry<'_>) {
        let extent = new.places[0].extent;
        if self.adding != extent {
            // What was removed until now was another record in this place.
            self.purge(extent);
            self.adding = extent;
        }
        self.catalog.chain(new);
    }

    /// The record at this place, if there is one, is there no more.
    pub fn remove(&mut self, place: Place) {
        self.removed.entry(place.extent).or_default().push(place.offset);
        self.adding = NONE;
    }

    /// Nothing is in this extent.
    pub fn clear(&mut self, extent: u32) {
        self.removed.remove(&extent);
        self.keep(extent, |_, _| false);
    }

    /// The catalogue, and what was left out of it: values whose digest another one has, too.
    pub fn finish(mut self) -> (Catalog, Vec<View>) {
        let extents: Vec<u32> = self.removed.keys().copied().collect();
        extents.into_iter().for_each(|extent| self.purge(extent));
        let mut twice = self.catalog.index_chains();
        twice.sort_unstable();
        let mut contested = Vec::new();
        let mut extents = Vec::new();
        for id in &twice {
            let view = self.catalog.view(*id);
            // A record may be listed more than once.
            let same = |other: EntryId| self.catalog.view(other).place == view.place;
            if !self.catalog.find(&view.digest).is_some_and(same) {
                contested.push(view);
            }
            extents.push(view.place.extent);
        }
        extents.sort_unstable();
        extents.dedup();
        for extent in extents {
            self.keep(extent, |id, _| twice.binary_search(&id).is_err());
        }
        (self.catalog, contested)
    }

    /// Takes out of an extent's chain what was removed.
    fn purge(&mut self, extent: u32) {
        let Some(mut removed) = self.removed.remove(&extent) else { return };
        removed.sort_unstable();
        self.keep(extent, |_, place| removed.binary_search(&place.offset).is_err());
    }

    fn keep(&mut self, extent: u32, is_kept: impl Fn(EntryId, Place) -> bool) {
        for (id, _) in self.catalog.residents(extent) {
            if !is_kept(id, self.catalog.view(id).place) {
                self.catalog.bury(id);
            }
        }
        self.catalog.unchain(extent, NONE);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::store::types::Checksum;

    proptest! {
        #[test]
        fn what_was_neither_removed_nor_cleared_is_there_once(
            ops in prop::collection::vec((0..8u8, 0..3u32, 0..20u32, 0..30u8), 0..300),
        ) {
            let mut loader = Loader::new(3);
            let mut model: BTreeMap<Place, u8> = BTreeMap::new();
            for (op, extent, slot, n) in ops {
                let place = Place { extent, offset: slot * 8 };
                match op {
                    0 => {
                        loader.clear(extent);
                        model.retain(|place, _| place.extent != extent);
                    }
                    1 | 2 => {
                        loader.remove(place);
                        model.remove(&place);
                    }
                    // A place may be listed again, but only with what is in it.
                    _ => {
                        let n = *model.entry(place).or_insert(n);
                        loader.add(NewEntry {
                            digest: [n; 16],
                            checksum: Checksum([n; 16]),
                            length: u32::from(n) + 1,
                            namespace: 0,
                            manifest: false,
                            tick: 0,
                            places: &[place],
                        });
                    }
                }
            }
            let (catalog, contested) = loader.finish();
            let distinct: BTreeSet<u8> = model.values().copied().collect();
            prop_assert_eq!(catalog.len(), distinct.len());
            let mut found: BTreeMap<Place, u8> = BTreeMap::new();
            for n in distinct {
                let id = catalog.find(&[n; 16]);
                prop_assert!(id.is_some(), "{} is not in the index", n);
                let view = id.map(|id| catalog.view(id)).into_iter();
                found.extend(view.map(|view| (view.place, view.digest[0])));
            }
            found.extend(contested.iter().map(|view| (view.place, view.digest[0])));
            prop_assert_eq!(&found, &model);
            let chained: usize = (0..3).map(|extent| catalog.residents(extent).len()).sum();
            prop_assert_eq!(chained, catalog.len());
        }
    }
}
