//! From journals and open extents back to a catalogue.
//!
//! Journals of different devices are independent: an entry speaks only of its own device's places. Values in one part
//! enter the catalogue as they are read; manifests, parts of striped values and second records of a key are kept aside
//! by extent until everything is read, and decided then: manifests by generation, values by the record number in
//! their headers.

use memkv_transport::planted::{self, Bug};

use super::*;
use crate::store::format::Record;
use crate::store::journal::{Entry, Listed};
use crate::store::recovery::journals::{Aside, Asides, Journals};

/// Manifests read at a time.
const BATCH: usize = 256;

pub(super) struct Replay<'a, B> {
    store: &'a mut Store<B>,
    disks: &'a mut dyn Disks,
    report: &'a mut OpenReport,
    /// Records decided at the end.
    aside: Asides,
    /// Dead records of extents that were not sealed.
    dead: HashSet<Place>,
}

/// A manifest's record as read.
struct FoundManifest {
    aside: Aside,
    generation: u64,
    lsn: u64,
    name: Vec<u8>,
    table: Vec<u8>,
}

impl<'a, B: AsRef<[u8]> + Clone> Replay<'a, B> {
    pub fn run(store: &'a mut Store<B>, disks: &'a mut dyn Disks, report: &'a mut OpenReport) {
        let devices = 0..store.devices.len();
        let mut journals = Journals::new(store, report);
        let ends: Vec<_> = devices.map(|device| journals.read(device, disks)).collect();
        let (catalog, aside, dead) = journals.finish();
        store.catalog = catalog;
        let mut replay = Self { store, disks, report, aside, dead };
        for (device, end) in ends.into_iter().enumerate() {
            if let Err(error) = end {
                replay.give_up(device, error);
            }
        }
        for device in 0..replay.store.devices.len() {
            if let Err(error) = replay.scan_open(device) {
                replay.give_up(device, error);
            }
        }
        replay.decide();
        replay.settle();
    }

    fn give_up(&mut self, device: usize, error: IoError) {
        let slot = self.store.devices[device].slot;
        self.report.problems.push((slot, DeviceProblem::Unreadable(error)));
        let range = self.extents_of(device);
        range.clone().for_each(|extent| self.aside.forget(extent));
        // Nothing is counted yet of what was taken up.
        let taken: Vec<_> = range.flat_map(|extent| self.store.catalog.residents(extent)).collect();
        taken.into_iter().for_each(|(id, _)| self.store.catalog.remove(id));
        self.store.fail_device(device);
    }

    fn extents_of(&self, device: usize) -> std::ops::Range<u32> {
        let device = &self.store.devices[device];
        device.base..device.base + device.extents.len() as u32
    }

    /// A record was found.
    fn add(&mut self, record: Aside) {
        match self.store.catalog.find(&record.listed.digest) {
            None if record.is_simple() => {
                self.store.catalog.insert(record.entry(&[record.place]));
            }
            Some(id) if self.store.catalog.view(id).place == record.place => {}
            None | Some(_) => self.aside.put(record),
        }
    }

    fn scan_open(&mut self, device: usize) -> Result<(), IoError> {
        let target = &self.store.devices[device];
        let open = |extent: &u32| target.state(*extent) == ExtentState::Open;
        let open: Vec<_> = (0..target.extents.len() as u32).filter(open).collect();
        for extent in open {
            let target = &self.store.devices[device];
            let bytes = self.disks.read(target.slot, target.offset(extent, 0), target.extent_bytes)?;
            self.report.extents_scanned += 1;
            self.scan(device, extent, &bytes);
        }
        Ok(())
    }

    /// Finds the whole records of an open extent. A hole (a write that never arrived) is stepped over sector by sector.
    fn scan(&mut self, device: usize, extent: u32, bytes: &[u8]) {
        let seq = self.store.devices[device].extents[extent as usize].seq;
        let place_extent = self.store.devices[device].base + extent;
        let mut at = 0;
        while at < bytes.len() {
            let record = Record::decode(&bytes[at..], &self.store.secrets, self.store.part_blocks)
                .filter(|record| record.extent_seq == seq && record.offset as usize == at)
                .filter(|record| at + record.span <= bytes.len());
            let Some(record) = record else {
                at = (at + 1).next_multiple_of(SECTOR_BYTES);
                continue;
            };
            let end = at + record.span;
            let place = Place { extent: place_extent, offset: at as u32 };
            let holds = blocks_hold(&record, &bytes[at..end], self.store.part_blocks);
            if !holds && !planted::is(Bug::TornRecordTaken) {
                self.report.torn_records += 1;
            } else if !self.dead.contains(&place) {
                self.add_scanned(&record, place);
            }
            at = end;
        }
    }

    fn add_scanned(&mut self, record: &Record, place: Place) {
        let Ok(namespace) = self.store.namespaces.intern(&record.namespace, &self.store.config) else {
            return;
        };
        let listed = Listed {
            digest: record.digest,
            checksum: record.checksum.0,
            offset: place.offset,
            length: record.shape.length as u32,
            part: record.part as u16,
            part_count: record.part_count as u16,
            namespace,
            kind: record.kind as u8,
            packed: record.packed,
        };
        self.add(Aside { listed, namespace, place });
    }

    /// Decides among the records kept aside: first values, then the manifests that name them.
    fn decide(&mut self) {
        let mut groups: BTreeMap<Digest, Vec<Aside>> = BTreeMap::new();
        for record in self.aside.take() {
            groups.entry(record.listed.digest).or_default().push(record);
        }
        let mut contested: Vec<(Digest, Place)> =
            groups.values().flatten().map(|record| (record.listed.digest, record.place)).collect();
        let present = groups.keys().filter_map(|digest| Some((*digest, self.store.catalog.find(digest)?)));
        contested.extend(present.map(|(digest, id)| (digest, self.store.catalog.view(id).place)));
        let (manifests, values): (Vec<_>, Vec<_>) =
            groups.into_values().partition(|group| group[0].listed.kind == Kind::Manifest as u8);
        values.into_iter().for_each(|group| self.decide_value(group));
        for batch in manifests.chunks(BATCH) {
            self.decide_manifests(batch);
        }
        contested.into_iter().for_each(|(digest, place)| self.bury_if_lost(&digest, place));
        self.store.manifests.recovered();
    }

    /// A record that was not taken up is dead for good, and the journal says so: otherwise it would come back
    /// when the one that was taken up is deleted and only that delete is on the devices.
    fn bury_if_lost(&mut self, digest: &Digest, place: Place) {
        let store = &mut *self.store;
        let entry = store.catalog.find(digest);
        if entry.is_some_and(|id| store.catalog.places(id).contains(&place)) {
            return;
        }
        let (device, local) = store.locate(place.extent);
        let target = &mut store.devices[device];
        let seq = target.extents[local as usize].seq;
        let removed = Entry::Removed { digest: *digest, extent: local, offset: place.offset, seq };
        target.log(&removed);
        store.manifest_removed(&[place]);
    }

    fn decide_value(&mut self, group: Vec<Aside>) {
        let digest = group[0].listed.digest;
        let mut versions: BTreeMap<([u8; 16], u32), Vec<Aside>> = BTreeMap::new();
        for record in group {
            versions.entry((record.listed.checksum, record.listed.length)).or_default().push(record);
        }
        let mut whole: Vec<_> = versions.into_values().filter_map(whole_value).collect();
        if let Some(id) = self.store.catalog.find(&digest) {
            let view = self.store.catalog.view(id);
            whole.retain(|(record, _)| record.listed.checksum != view.checksum.0);
            if whole.is_empty() {
                return;
            }
            let present = Aside::of(&view);
            whole.push((present, vec![view.place]));
            self.store.catalog.remove(id);
        }
        let newest = whole.into_iter().max_by_key(|(record, _)| self.lsn(record.place));
        if let Some((record, places)) = newest {
            self.store.catalog.insert(record.entry(&places));
        }
    }

    /// The number in a record's header; 0 when it cannot be read.
    fn lsn(&mut self, place: Place) -> u64 {
        let request = self.head_request(place, 0);
        let Ok(bytes) = self.disks.read(request.slot, request.offset, request.length) else { return 0 };
        self.record_at(place, &bytes).map_or(0, |(record, _)| record.lsn)
    }

    /// The sectors with a record's header and, when it packs, this many bytes of blocks.
    fn head_request(&self, place: Place, packed_bytes: usize) -> ReadRequest {
        let (device, local) = self.store.locate(place.extent);
        let target = &self.store.devices[device];
        let start = place.offset as usize - place.offset as usize % SECTOR_BYTES;
        let end = (place.offset as usize + SECTOR_BYTES + packed_bytes).next_multiple_of(SECTOR_BYTES);
        let length = end.min(target.extent_bytes) - start;
        ReadRequest { slot: target.slot, offset: target.offset(local, start), length }
    }

    fn record_at(&self, place: Place, bytes: &[u8]) -> Option<(Record, usize)> {
        let at = place.offset as usize % SECTOR_BYTES;
        let (device, local) = self.store.locate(place.extent);
        let seq = self.store.devices[device].extents[local as usize].seq;
        let record = Record::decode(bytes.get(at..)?, &self.store.secrets, self.store.part_blocks)?;
        (record.extent_seq == seq && record.offset == place.offset).then_some((record, at))
    }

    /// Takes up the newest whole manifest of each name.
    fn decide_manifests(&mut self, groups: &[Vec<Aside>]) {
        let first_parts: Vec<_> = groups.iter().flatten().filter(|record| record.listed.part == 0).collect();
        let requests = first_parts.iter().map(|record| {
            let packed = if record.listed.packed { record.listed.length as usize + SECTOR_BYTES } else { 0 };
            self.head_request(record.place, packed)
        });
        let answers = self.disks.read_batch(requests.collect());
        let mut heads: HashMap<(u16, u64), std::sync::Arc<[u8]>> = HashMap::new();
        for (request, result) in answers {
            if let Ok(bytes) = result {
                heads.insert((request.slot, request.offset), bytes);
            }
        }
        for group in groups {
            let mut found: Vec<_> = group
                .iter()
                .filter(|record| record.listed.part == 0)
                .filter_map(|first| {
                    let request = self.head_request(first.place, 0);
                    let head = heads.get(&(request.slot, request.offset))?;
                    self.read_manifest(first, group, head)
                })
                .collect();
            found.sort_by_key(|(manifest, _)| std::cmp::Reverse((manifest.generation, manifest.lsn)));
            let taken = found.into_iter().any(|(manifest, places)| {
                let id = self.store.catalog.insert(manifest.aside.entry(&places));
                let whole = self.store.take_up_manifest(id, manifest.name, &manifest.table);
                if !whole {
                    self.store.catalog.remove(id);
                }
                whole
            });
            self.report.manifests_dropped += u64::from(!taken);
        }
    }

    /// Reads a manifest's table, the last blocks of its record.
    fn read_manifest(
        &mut self,
        first: &Aside,
        group: &[Aside],
        head: &[u8],
    ) -> Option<(FoundManifest, Vec<Place>)> {
        let (record, at) = self.record_at(first.place, head)?;
        let same = group.iter().filter(|other| other.listed.checksum == first.listed.checksum).copied();
        let (_, places) = whole_value(same.collect())?;
        let mut table = Vec::new();
        let shape = record.shape;
        for block in shape.body_blocks()..shape.blocks() {
            let part = if record.packed { 0 } else { block / self.store.part_blocks };
            let place = places[part as usize];
            // Headers of records in several parts fill a sector; a packed record is in the head.
            let layout = shape.part(part, self.store.part_blocks, record.header_bytes);
            let (offset, length) = layout.blocks[(block - layout.first_block) as usize];
            if record.packed {
                table.extend_from_slice(head.get(at + offset..at + offset + length)?);
                continue;
            }
            let (device, local) = self.store.locate(place.extent);
            let target = &self.store.devices[device];
            let start = target.offset(local, place.offset as usize + offset);
            let bytes = self.disks.read(target.slot, start, length.next_multiple_of(SECTOR_BYTES)).ok()?;
            table.extend_from_slice(&bytes[..length]);
        }
        let mut generation = [0; 8];
        generation.copy_from_slice(table.get(..8)?);
        let generation = u64::from_le_bytes(generation);
        let found =
            FoundManifest { aside: *first, generation, lsn: record.lsn, name: record.key.into_vec(), table };
        Some((found, places))
    }

    /// Extents get their last state. Counts what lives where, and what each namespace uses. Use is not written down, so age is what order the records were written in: extents have
    /// rising numbers.
    fn settle(&mut self) {
        let store = &mut *self.store;
        let mut extents: Vec<(u64, u32)> = Vec::new();
        for device in &store.devices {
            extents.extend(
                device.extents.iter().zip(device.base..).map(|(extent, number)| (extent.seq, number)),
            );
        }
        extents.sort_unstable();
        // As many values share a tick, their bytes are counted together.
        let (mut at_tick, mut bytes) = (0, 0);
        for (_, extent) in extents {
            let (device, _) = store.locate(extent);
            // The latest comes first in its extent's chain.
            for (id, part) in store.catalog.residents(extent).into_iter().rev() {
                let view = store.catalog.view(id);
                let weight = store.weight(view.length, part);
                store.extent_mut(extent).live_bytes += weight;
                store.devices[device].records += 1;
                if part == 0 {
                    store.namespaces.names[usize::from(view.namespace)].used_bytes += view.length;
                    let tick = store.recency.advance(view.length);
                    if tick != at_tick {
                        store.recency.add(at_tick, std::mem::take(&mut bytes));
                        at_tick = tick;
                    }
                    bytes += view.length;
                    store.catalog.set_tick(id, tick);
                    if view.manifest {
                        store.manifests.used(id, view.tick, tick);
                    }
                }
            }
        }
        store.recency.add(at_tick, bytes);
        for device in 0..store.devices.len() {
            let base = store.devices[device].base;
            for local in 0..store.devices[device].extents.len() {
                match store.devices[device].extents[local].state {
                    ExtentState::Free => store.devices[device].free.push_back(local as u32),
                    ExtentState::Open => {
                        store.devices[device].extents[local].state = ExtentState::Full;
                        store.seal_if_settled(base + local as u32);
                    }
                    ExtentState::Full | ExtentState::Sealed | ExtentState::Freeing | ExtentState::Journal => {
                    }
                }
            }
            store.devices[device].journal.want();
            // Nothing is known of what was flushed before.
            store.devices[device].completed = 1;
        }
    }
}

/// All parts of one version of a value, if they are there.
fn whole_value(records: Vec<Aside>) -> Option<(Aside, Vec<Place>)> {
    let first = *records.iter().find(|record| record.listed.part == 0)?;
    let mut places = vec![None; first.listed.part_count as usize];
    for record in &records {
        let place = places.get_mut(record.listed.part as usize)?;
        place.get_or_insert(record.place);
    }
    let places: Option<Vec<_>> = places.into_iter().collect();
    places.map(|places| (first, places))
}

fn blocks_hold(record: &Record, bytes: &[u8], part_blocks: u32) -> bool {
    let layout = record.layout(part_blocks);
    let blocks = layout.blocks.iter().zip(&record.block_checksums);
    blocks.into_iter().all(|((at, length), sum)| Checksum::of_block(&bytes[*at..at + length]) == *sum)
}
