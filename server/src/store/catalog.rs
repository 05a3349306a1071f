//! The catalogue: every visible value and manifest, by digest, in at most 64 bytes of memory each.
//!
//! Owns the entries (56 bytes each, in slabs that never move, so growing copies nothing) and the index over them (`index.rs`);
//! `loader.rs` brings both back from journals. Entries of one extent are chained through `next`, so that an extent's residents are
//! known without reading it; parts of striped values beyond the first are kept in side tables.
//!
//! Invariants: a digest is in the index exactly when its entry is live; an entry is in the chain of its first part's extent.
//! Not checked here: that what an entry says is true of the device.

mod index;
mod loader;

use std::collections::HashMap;
use std::mem::size_of;

use smallvec::{SmallVec, smallvec};

use super::format::Digest;
use super::types::Checksum;
use index::Index;
pub use loader::Loader;

/// Most entries a catalogue can hold.
pub const ENTRIES_MAX: usize = u32::MAX as usize - 1;
const SLAB_ENTRIES: usize = 1 << 10;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u32);

/// Where a record begins: an extent of the whole store and an offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub extent: u32,
    pub offset: u32,
}

impl Place {
    pub const EXTENTS_MAX: u32 = 1 << 28;
    pub const OFFSET_MAX: u32 = 8 << 20;
}

/// What is asked of the catalogue to remember.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    pub digest: Digest,
    pub checksum: Checksum,
    pub length: u32,
    pub namespace: u16,
    pub manifest: bool,
    pub tick: u32,
    pub places: &'a [Place],
}

#[derive(Clone, Copy)]
struct Entry {
    digest: Digest,
    checksum: Checksum,
    /// 28 bits of extent, 20 bits of offset in units of 8 bytes, 16 bits of namespace.
    place: u64,
    /// 30 bits of (length - 1), then the flags.
    length: u32,
    /// Manifests that name the value.
    refs: u32,
    /// When it was last used, in the recency order's own time.
    tick: u32,
    /// The next entry of the same extent; of a free entry, the next free one.
    next: u32,
}

const FLAG_MANIFEST: u32 = 1 << 30;
const FLAG_STRIPED: u32 = 1 << 31;
const LENGTH_MASK: u32 = FLAG_MANIFEST - 1;

const _: () = assert!(size_of::<Entry>() == 56);

/// A copy of an entry's facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub digest: Digest,
    pub checksum: Checksum,
    pub length: u64,
    pub namespace: u16,
    pub manifest: bool,
    pub striped: bool,
    pub place: Place,
    pub refs: u32,
    pub tick: u32,
}

/// The entries of an extent: a list in one direction, for the other one would cost every entry four bytes more. So an entry that
/// is removed is found again only by going through the list. It stays in it, dead, until it is the first, or the dead are
/// so many that going through all of the list costs each of them little.
#[derive(Clone, Copy)]
struct Chain {
    head: u32,
    /// The dead ones included.
    entries: u32,
    dead: u32,
}

/// In place of its references: the entry was removed.
const DEAD: u32 = u32::MAX;
/// One entry in so many may be dead.
const DEAD_SHARE: u32 = 8;

pub struct Catalog {
    slabs: Vec<Vec<Entry>>,
    free: u32,
    len: usize,
    index: Index,
    /// The places of a striped value's parts from the second on.
    parts: HashMap<u32, Box<[Place]>>,
    /// The second and later parts that lie in an extent.
    part_residents: HashMap<u32, Vec<(EntryId, u32)>>,
    /// By extent.
    chains: Vec<Chain>,
}

impl Catalog {
    pub fn new(extents: u32) -> Self {
        assert!(extents <= Place::EXTENTS_MAX, "the caller bounds the extents");
        Self {
            slabs: Vec::new(),
            free: NONE,
            len: 0,
            index: Index::new(),
            parts: HashMap::new(),
            part_residents: HashMap::new(),
            chains: vec![Chain { head: NONE, entries: 0, dead: 0 }; extents as usize],
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn find(&self, digest: &Digest) -> Option<EntryId> {
        self.index.find(digest, |id| &self.entry(EntryId(id)).digest).map(EntryId)
    }

    pub fn view(&self, id: EntryId) -> View {
        let entry = self.entry(id);
        View {
            digest: entry.digest,
            checksum: entry.checksum,
            length: u64::from(entry.length & LENGTH_MASK) + 1,
            namespace: entry.place as u16,
            manifest: entry.length & FLAG_MANIFEST != 0,
            striped: entry.length & FLAG_STRIPED != 0,
            place: unpack(entry.place),
            refs: entry.refs,
            tick: entry.tick,
        }
    }

    /// Whether the entry is (still) one of the catalogue's.
    pub fn is_live(&self, id: EntryId) -> bool {
        self.find(&self.entry(id).digest) == Some(id)
    }

    /// The places of all parts, in order.
    pub fn places(&self, id: EntryId) -> SmallVec<[Place; 2]> {
        let mut places = smallvec![unpack(self.entry(id).place)];
        if let Some(rest) = self.parts.get(&id.0) {
            places.extend_from_slice(rest);
        }
        places
    }

    /// The digest must not be in the catalogue.
    pub fn insert(&mut self, new: NewEntry<'_>) -> EntryId {
        debug_assert!(self.find(&new.digest).is_none(), "one entry a digest");
        let id = self.chain(new);
        let slabs = &self.slabs;
        self.index.insert(&new.digest, id.0, |id| &slot(slabs, id).digest);
        id
    }

    /// An entry in its extents, but not in the index.
    fn chain(&mut self, new: NewEntry<'_>) -> EntryId {
        let flags = if new.manifest { FLAG_MANIFEST } else { 0 }
            | if new.places.len() > 1 { FLAG_STRIPED } else { 0 };
        let chain = &mut self.chains[new.places[0].extent as usize];
        chain.entries += 1;
        let next = chain.head;
        let id = self.take_slot(Entry {
            digest: new.digest,
            checksum: new.checksum,
            place: pack(new.places[0], new.namespace),
            length: (new.length - 1) & LENGTH_MASK | flags,
            refs: 0,
            tick: new.tick,
            next,
        });
        self.chains[new.places[0].extent as usize].head = id.0;
        for (part, place) in new.places.iter().enumerate().skip(1) {
            self.part_residents.entry(place.extent).or_default().push((id, part as u32));
        }
        if new.places.len() > 1 {
            self.parts.insert(id.0, new.places[1..].into());
        }
        self.len += 1;
        id
    }

    /// Makes the index of all entries that are in an extent. Answers those that are not in it, as another one has their digest.
    fn index_chains(&mut self) -> Vec<EntryId> {
        let slabs = &self.slabs;
        let next = |id: u32| Some(slot(slabs, id).next).filter(|next| *next != NONE);
        let heads = self.chains.iter().map(|chain| chain.head).filter(|head| *head != NONE);
        let entries = heads.flat_map(|head| std::iter::successors(Some(head), |id| next(*id)));
        let (index, twice) = Index::of(entries, |id| &slot(slabs, id).digest);
        self.index = index;
        twice.into_iter().map(EntryId).collect()
    }

    pub fn remove(&mut self, id: EntryId) {
        let digest = self.entry(id).digest;
        let slabs = &self.slabs;
        self.index.remove(&digest, |id| &slot(slabs, id).digest);
        if let Some(rest) = self.parts.remove(&id.0) {
            for place in rest {
                self.forget_part(place.extent, id);
            }
        }
        self.bury(id);
        let extent = unpack(self.entry(id).place).extent;
        while let Some(first) = self.first_dead(extent) {
            self.unchain(extent, first);
        }
        let chain = &self.chains[extent as usize];
        if chain.dead * DEAD_SHARE > chain.entries {
            self.unchain(extent, NONE);
        }
    }

    /// The entry counts no more, and is in its extent's chain alone, to be taken out of it.
    fn bury(&mut self, id: EntryId) {
        let extent = unpack(self.entry(id).place).extent;
        self.entry_mut(id).refs = DEAD;
        self.chains[extent as usize].dead += 1;
        self.len -= 1;
    }

    fn first_dead(&self, extent: u32) -> Option<u32> {
        let head = self.chains[extent as usize].head;
        (head != NONE && self.entry(EntryId(head)).refs == DEAD).then_some(head)
    }

    /// A record was copied: this part now lives elsewhere.
    pub fn moved(&mut self, id: EntryId, part: u32, to: Place) {
        if part > 0 {
            let rest = self.parts.get_mut(&id.0).expect("a value with this part is striped");
            let from = std::mem::replace(&mut rest[part as usize - 1], to);
            if let Some(list) = self.part_residents.get_mut(&from.extent) {
                list.retain(|resident| *resident != (id, part));
            }
            self.part_residents.entry(to.extent).or_default().push((id, part));
            return;
        }
        self.unchain(unpack(self.entry(id).place).extent, id.0);
        let chain = &mut self.chains[to.extent as usize];
        chain.entries += 1;
        let next = std::mem::replace(&mut chain.head, id.0);
        let namespace = self.entry(id).place as u16;
        let entry = self.entry_mut(id);
        entry.place = pack(to, namespace);
        entry.next = next;
    }

    /// The (entry, part) pairs that lie in an extent.
    pub fn residents(&self, extent: u32) -> Vec<(EntryId, u32)> {
        let mut found = self.part_residents.get(&extent).cloned().unwrap_or_default();
        let mut at = self.chains[extent as usize].head;
        while at != NONE {
            let entry = self.entry(EntryId(at));
            if entry.refs != DEAD {
                found.push((EntryId(at), 0));
            }
            at = entry.next;
        }
        found
    }

    pub fn set_tick(&mut self, id: EntryId, tick: u32) {
        self.entry_mut(id).tick = tick;
    }

    pub fn add_ref(&mut self, id: EntryId) {
        let entry = self.entry_mut(id);
        entry.refs =
            entry.refs.checked_add(1).filter(|refs| *refs != DEAD).expect("manifests are fewer than 2^32");
    }

    pub fn drop_ref(&mut self, id: EntryId) {
        let entry = self.entry_mut(id);
        entry.refs = entry.refs.checked_sub(1).expect("a reference is dropped once");
    }

    /// All live entries, in no order.
    pub fn ids(&self) -> impl Iterator<Item = EntryId> + '_ {
        self.index.entries().map(EntryId)
    }

    /// Memory held, side tables left out (they cost by part, not by value).
    pub fn memory_bytes(&self) -> usize {
        self.slabs.len() * SLAB_ENTRIES * size_of::<Entry>() + self.index.memory_bytes()
    }

    /// Goes through an extent's chain up to this entry, which is taken out of it, or to its end. Dead ones on the way are freed.
    fn unchain(&mut self, extent: u32, until: u32) {
        let (mut last, mut at) = (NONE, self.chains[extent as usize].head);
        while at != NONE {
            let entry = self.entry(EntryId(at));
            let (next, is_dead) = (entry.next, entry.refs == DEAD);
            if is_dead || at == until {
                match last {
                    NONE => self.chains[extent as usize].head = next,
                    last => self.entry_mut(EntryId(last)).next = next,
                }
                let chain = &mut self.chains[extent as usize];
                chain.entries -= 1;
                chain.dead -= u32::from(is_dead);
                if is_dead {
                    *self.entry_mut(EntryId(at)) = Entry { next: self.free, ..FREE_ENTRY };
                    self.free = at;
                }
                if at == until {
                    return;
                }
            } else {
                last = at;
            }
            at = next;
        }
    }

    fn forget_part(&mut self, extent: u32, id: EntryId) {
        if let Some(list) = self.part_residents.get_mut(&extent) {
            list.retain(|(resident, _)| *resident != id);
            if list.is_empty() {
                self.part_residents.remove(&extent);
            }
        }
    }

    fn take_slot(&mut self, entry: Entry) -> EntryId {
        if self.free != NONE {
            let id = EntryId(self.free);
            self.free = self.entry(id).next;
            *self.entry_mut(id) = entry;
            return id;
        }
        if self.slabs.last().is_none_or(|slab| slab.len() == SLAB_ENTRIES) {
            self.slabs.push(Vec::with_capacity(SLAB_ENTRIES));
        }
        let full = (self.slabs.len() - 1) * SLAB_ENTRIES;
        let slab = self.slabs.last_mut().expect("just pushed");
        slab.push(entry);
        EntryId((full + slab.len() - 1) as u32)
    }

    fn entry(&self, id: EntryId) -> &Entry {
        slot(&self.slabs, id.0)
    }

    fn entry_mut(&mut self, id: EntryId) -> &mut Entry {
        &mut self.slabs[id.0 as usize / SLAB_ENTRIES][id.0 as usize % SLAB_ENTRIES]
    }
}

fn slot(slabs: &[Vec<Entry>], id: u32) -> &Entry {
    &slabs[id as usize / SLAB_ENTRIES][id as usize % SLAB_ENTRIES]
}

const FREE_ENTRY: Entry =
    Entry { digest: [0; 16], checksum: Checksum([0; 16]), place: 0, length: 0, refs: 0, tick: 0, next: NONE };

fn pack(place: Place, namespace: u16) -> u64 {
    debug_assert!(
        place.extent < Place::EXTENTS_MAX
            && place.offset < Place::OFFSET_MAX
            && place.offset.is_multiple_of(8)
    );
    u64::from(place.extent) << 36 | u64::from(place.offset / 8) << 16 | u64::from(namespace)
}

fn unpack(place: u64) -> Place {
    Place { extent: (place >> 36) as u32, offset: ((place >> 16) as u32 & 0xf_ffff) * 8 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(n: u32) -> Digest {
        xxhash_rust::xxh3::xxh3_128(&n.to_le_bytes()).to_be_bytes()
    }

    fn entry(n: u32, places: &[Place]) -> NewEntry<'_> {
        NewEntry {
            digest: digest(n),
            checksum: Checksum(digest(n)),
            length: n + 1,
            namespace: n as u16,
            manifest: n % 2 == 1,
            tick: n,
            places,
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(ops in prop::collection::vec((0..3u8, 0..300u32, 0..8u32), 1..2000)) {
            let mut catalog = Catalog::new(8);
            let mut model: HashMap<u32, Vec<Place>> = HashMap::new();
            for (op, n, extent) in ops {
                let place = Place { extent, offset: n * 8 };
                match (op, catalog.find(&digest(n))) {
                    (0, None) => {
                        let count = 1 + n as usize % 3;
                        let places = vec![place; count];
                        catalog.insert(entry(n, &places));
                        model.insert(n, places);
                    }
                    (1, Some(id)) => {
                        catalog.remove(id);
                        model.remove(&n);
                    }
                    (2, Some(id)) => {
                        let places = model.get_mut(&n).unwrap();
                        let part = places.len() - 1;
                        catalog.moved(id, part as u32, place);
                        places[part] = place;
                    }
                    (_, found) => prop_assert_eq!(found.is_some(), model.contains_key(&n)),
                }
            }
            prop_assert_eq!(catalog.len(), model.len());
            prop_assert_eq!(catalog.ids().count(), model.len());
            let mut residents = [0; 8];
            for (n, places) in &model {
                let id = catalog.find(&digest(*n)).unwrap();
                let view = catalog.view(id);
                prop_assert_eq!(view.length, u64::from(*n) + 1);
                prop_assert_eq!(view.namespace, *n as u16);
                prop_assert_eq!(view.manifest, n % 2 == 1);
                prop_assert_eq!(&catalog.places(id)[..], &places[..]);
                places.iter().for_each(|place| residents[place.extent as usize] += 1);
            }
            for extent in 0..8 {
                prop_assert_eq!(catalog.residents(extent).len(), residents[extent as usize]);
            }
        }
    }

    #[test]
    fn an_entry_costs_at_most_64_bytes_at_every_size() {
        let mut catalog = Catalog::new(1);
        let place = [Place { extent: 0, offset: 0 }];
        for n in 0..400_000 {
            catalog.insert(entry(n, &place));
            if n >= 100_000 && n % 1000 == 0 {
                let bytes = catalog.memory_bytes() as f64 / catalog.len() as f64;
                assert!(bytes <= 64.0, "{bytes} bytes an entry at {n}");
            }
        }
    }

    #[test]
    fn what_is_replaced_over_and_over_costs_an_eighth_more() {
        let mut catalog = Catalog::new(1);
        let place = [Place { extent: 0, offset: 0 }];
        for n in 0..10_000 {
            catalog.insert(entry(n, &place));
        }
        for n in 10_000..100_000u32 {
            // Neither the first nor the last of the chain.
            let id = catalog.find(&digest(n - 5_000)).unwrap();
            catalog.remove(id);
            catalog.insert(entry(n, &place));
        }
        assert_eq!((catalog.len(), catalog.residents(0).len()), (10_000, 10_000));
        assert!(catalog.slabs.len() * SLAB_ENTRIES <= 10_000 * 9 / 8 + 2 * SLAB_ENTRIES);
    }
}
