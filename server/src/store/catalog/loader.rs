//! A catalogue while it is read back from journals.
//!
//! Entries go into the chains of their extents; what is removed is noted by extent and taken out of a chain all at once. Nothing can be
//! looked up by its digest before [`Loader::finish`] makes the index, in one go: that is what lets ten million values come back in
//! a second or two.

use std::collections::HashMap;

use super::{Catalog, EntryId, NONE, NewEntry, Place, View};

pub struct Loader {
    catalog: Catalog,
    /// Offsets of records that were removed since their extent's chain was last gone through.
    removed: HashMap<u32, Vec<u32>>,
}

impl Loader {
    pub fn new(extents: u32) -> Self {
        Self { catalog: Catalog::new(extents), removed: HashMap::new() }
    }

    /// A value in one part is there.
    pub fn add(&mut self, new: NewEntry<'_>) {
        // What was removed until now was another record in this place.
        self.purge(new.places[0].extent);
        self.catalog.chain(new);
    }

    /// The record at this place, if there is one, is there no more.
    pub fn remove(&mut self, place: Place) {
        self.removed.entry(place.extent).or_default().push(place.offset);
    }

    /// Nothing is in this extent.
    pub fn clear(&mut self, extent: u32) {
        self.removed.remove(&extent);
        self.keep(extent, |_| false);
    }

    /// The catalogue, and what was left out of it: values whose digest another one has, too.
    pub fn finish(mut self) -> (Catalog, Vec<View>) {
        let extents: Vec<u32> = self.removed.keys().copied().collect();
        extents.into_iter().for_each(|extent| self.purge(extent));
        let twice = self.catalog.index_chains();
        let mut contested = Vec::new();
        for id in twice {
            let view = self.catalog.view(id);
            // A record may be listed more than once.
            let same = |other: EntryId| self.catalog.view(other).place == view.place;
            if !self.catalog.find(&view.digest).is_some_and(same) {
                contested.push(view);
            }
            self.catalog.unchain(id);
            self.catalog.release(id);
        }
        (self.catalog, contested)
    }

    /// Takes out of an extent's chain what was removed.
    fn purge(&mut self, extent: u32) {
        let Some(mut removed) = self.removed.remove(&extent) else { return };
        removed.sort_unstable();
        self.keep(extent, |place| removed.binary_search(&place.offset).is_err());
    }

    fn keep(&mut self, extent: u32, is_kept: impl Fn(Place) -> bool) {
        let catalog = &mut self.catalog;
        let mut at = std::mem::replace(&mut catalog.heads[extent as usize], NONE);
        let mut last = NONE;
        while at != NONE {
            let id = EntryId(at);
            at = catalog.entry(id).next;
            if !is_kept(catalog.view(id).place) {
                catalog.release(id);
                continue;
            }
            catalog.entry_mut(id).next = NONE;
            match last {
                NONE => catalog.heads[extent as usize] = id.0,
                last => catalog.entry_mut(EntryId(last)).next = id.0,
            }
            last = id.0;
        }
    }
}
