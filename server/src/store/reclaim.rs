//! Making room: which extents are reclaimed, what in them is evicted, and what moves.
//!
//! One recency order decides what goes first. When a device runs short of free extents, the coldest bytes of the store are
//! declared cold: sessions in them lose their manifest, chunks that then no manifest names and nobody leases may be evicted.
//! Of some sealed extents the one with the fewest bytes to keep is reclaimed: its cold records go, its others move to an
//! extent of survivors. Only when that finds nothing is more declared cold, at last everything that is not leased.
//!
//! An extent is used again only when (1) the moved copies are durable, then (2) the journal says that it is free, durably. So
//! at no moment does a crash find a journal that points to bytes that are not there.
//!
//! Until then a moved record is in two places, and a delete names both: `Reclaim::moving` knows the other one.

use memkv_transport::planted::{self, Bug};

use super::*;
use crate::store::durability::{Need, Then};
use crate::store::format::{PACK_ALIGN, Record};
use crate::store::journal::Entry;

/// Share of the stored bytes that counts as cold when room is short, in 1/256; the steps are tried in turn.
///
/// The first one trades hits for moves: the more is cold, the fewer records move, and the sooner something goes that would have been
/// asked for again. It and `CANDIDATES` were chosen with the trace of `cargo xtask bench store`.
const COLD_256THS: [u64; 4] = [11, 32, 128, EVERYTHING];
const EVERYTHING: u64 = 256;
/// Extents looked at for one victim.
const CANDIDATES: usize = 128;
/// Entries looked at for one victim.
const ENTRIES_LOOKED_AT: usize = 8192;
/// Extents reclaimed at a time on one device, at most: they share their two flushes.
const BATCH_MAX: usize = 16;
/// An extent is worth reclaiming when at least this share of it comes free.
const GAIN_MIN: usize = 16;

/// Extents of one device on their way to be free, together.
pub(super) struct Batch {
    device: usize,
    extents: Vec<u32>,
    /// Extents that were opened for what moved.
    opened: usize,
    /// Reads and writes in flight.
    outstanding: u32,
    /// Extents that took moved records.
    targets: Vec<u32>,
    /// A record could not be moved: its extent stays.
    stuck: Vec<u32>,
    moved: Vec<Move>,
}

/// A record to move: entry, digest, part and where it is.
pub(super) type Keep = (EntryId, Digest, u32, Place);

/// A stretch of an extent on its way here, for the records in it that are to move.
pub(super) struct MoveRead {
    batch: BatchId,
    device: usize,
    extent: u32,
    /// Of the stretch, in the extent.
    start: usize,
    records: Vec<Keep>,
    /// It is a part of a stretch that could not be read.
    again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BatchId(pub u64);

#[derive(Default)]
pub(super) struct Reclaim {
    pub batches: Map<BatchId, Batch>,
    /// The other place of a record that is being moved: first that of the copy, then that of the original.
    pub moving: Map<(EntryId, u32), Place>,
    /// Where the search for victims goes on, by device.
    cursors: Map<usize, u32>,
    efforts: Map<usize, Effort>,
    /// Entries that left the catalogue, ever.
    pub removals: u64,
    pub batches_ended: u64,
}

/// How hard a device tries.
#[derive(Clone, Copy, Default)]
struct Effort {
    /// The place in `COLD_256THS`; behind its end when all was tried.
    level: usize,
    /// `removals` when the last batch ended without gain.
    fruitless_at: Option<u64>,
}

/// A record on its way from one place to another.
#[derive(Clone, Copy)]
pub(super) struct Move {
    pub entry: EntryId,
    digest: Digest,
    part: u32,
    from: Place,
    to: Place,
}

impl<B: AsRef<[u8]> + Clone> Store<B> {
    /// Starts reclaiming on devices that run short of free extents.
    pub(super) fn reclaim_pump(&mut self) {
        let waiting = !self.placing.is_empty() || !self.packing.is_empty();
        if self.stopping.is_some() && !waiting {
            return;
        }
        for device in 0..self.devices.len() {
            let target = &self.devices[device];
            let enough = target.free_extents_soon() > target.low_water();
            if target.failed || enough || self.is_reclaiming(device) {
                continue;
            }
            // Nobody is in need, and nothing went since the last try gained nothing.
            let effort = self.reclaim.efforts.entry(device).or_default();
            if waiting || effort.fruitless_at != Some(self.reclaim.removals) {
                let level = if waiting { effort.level } else { 0 };
                self.reclaim(device, level..level + 1);
            }
        }
    }

    /// Whether waiting may make room; if nothing is on its way, tries harder.
    pub(super) fn room_may_come(&mut self) -> bool {
        let still = |device: &Device| device.full;
        let batches = self.reclaim.batches.values().any(|batch| !still(&self.devices[batch.device]));
        let settling = self.manifests.is_settling() && !self.devices.iter().any(still);
        let on_its_way = batches || settling;
        if on_its_way || self.devices.iter().any(|device| device.room_on_its_way()) {
            return true;
        }
        let mut any = false;
        for device in 0..self.devices.len() {
            let level = self.reclaim.efforts.entry(device).or_default().level;
            any |= self.reclaim(device, level..COLD_256THS.len());
        }
        if !any {
            // Whoever asks next tries all of it again.
            self.reclaim.efforts.clear();
        }
        any
    }

    fn is_reclaiming(&self, device: usize) -> bool {
        self.reclaim.batches.values().any(|batch| batch.device == device)
    }

    /// Starts a batch on a device, with ever more declared cold. False when nothing can be gained.
    fn reclaim(&mut self, device: usize, levels: std::ops::Range<usize>) -> bool {
        if self.devices[device].failed || self.devices[device].full {
            return false;
        }
        self.leases.expire(self.now_ms);
        for level in levels {
            let Some(share) = COLD_256THS.get(level) else { break };
            let cutoff = self.declare_cold(*share);
            let mut extents = Vec::new();
            let mut keep = Vec::new();
            let mut kept_bytes = 0;
            while extents.len() < self.devices[device].batch_extents() {
                let Some((extent, hot)) = self.victim(device, cutoff) else { break };
                kept_bytes += hot.iter().map(|(id, part)| self.weight_of(*id, *part)).sum::<usize>();
                // What moves must fit the room that is kept back for it.
                if !extents.is_empty() && kept_bytes > self.devices[device].extent_bytes {
                    self.devices[device].extents[extent as usize].state = ExtentState::Sealed;
                    break;
                }
                extents.push(extent);
                keep.extend(hot);
            }
            if !extents.is_empty() {
                self.reclaim.efforts.entry(device).or_default().level = level;
                self.start_batch(device, extents, keep);
                return true;
            }
        }
        false
    }

    /// A batch is over: when it gained nothing, the next one tries harder. What others took meanwhile says nothing of that.
    fn judge_batch(&mut self, batch: &Batch) {
        self.reclaim.batches_ended += 1;
        let removals = self.reclaim.removals;
        let effort = self.reclaim.efforts.entry(batch.device).or_default();
        if batch.extents.len() > batch.opened {
            *effort = Effort::default();
        } else {
            effort.level += 1;
            effort.fruitless_at = Some(removals);
        }
    }

    /// The tick below which everything counts as cold. Sessions below it lose their manifests.
    fn declare_cold(&mut self, share: u64) -> u32 {
        let stored = self.recency.bytes();
        let capacity: u64 =
            self.devices.iter().filter(|device| !device.failed).map(Device::data_bytes_max).sum();
        // While there is much dead space, moving makes room and nothing need go.
        let cold = if share == COLD_256THS[0] && stored * 4 < capacity * 3 {
            0
        } else {
            stored * share / EVERYTHING
        };
        if cold == 0 {
            return 0;
        }
        let cutoff = if share == EVERYTHING { u32::MAX } else { self.recency.cutoff(cold) };
        for id in self.manifests.colder_than(cutoff) {
            if !self.manifests.is_settled(id) {
                self.settle_manifests();
            }
            if self.manifests.is_settled(id) && !self.is_leased(id) {
                self.counters.manifests_evicted += 1;
                self.remove_manifest(id);
            }
        }
        cutoff
    }

    /// The sealed extent with the fewest bytes to keep, on its way to be free from now on, and the records that hold them.
    fn victim(&mut self, device: usize, cutoff: u32) -> Option<(u32, Vec<(EntryId, u32)>)> {
        let count = self.devices[device].extents.len() as u32;
        let start = self.reclaim.cursors.get(&device).copied().unwrap_or(0);
        let mut best: Option<(usize, u32)> = None;
        let mut looked_at = 0;
        let mut candidates = 0;
        let mut next = start;
        for step in 0..count {
            let local = (start + step) % count;
            let extent = &self.devices[device].extents[local as usize];
            if extent.state != ExtentState::Sealed || extent.busy > 0 {
                continue;
            }
            let (hot_bytes, entries) = match extent.live_bytes {
                0 => (0, 0),
                _ => self.hot_bytes(device, local, cutoff),
            };
            if best.is_none_or(|(bytes, _)| hot_bytes < bytes) {
                best = Some((hot_bytes, local));
            }
            candidates += 1;
            looked_at += entries;
            next = local + 1;
            if candidates >= CANDIDATES || looked_at >= ENTRIES_LOOKED_AT {
                break;
            }
        }
        self.reclaim.cursors.insert(device, next % count.max(1));
        let (hot_bytes, local) = best?;
        let extent_bytes = self.devices[device].extent_bytes;
        if hot_bytes + extent_bytes / GAIN_MIN > extent_bytes {
            return None;
        }
        let residents = self.catalog.residents(self.devices[device].base + local);
        let (hot, cold): (Vec<_>, Vec<_>) =
            residents.into_iter().partition(|(id, _)| self.is_hot(*id, cutoff));
        // Before its last record goes: nobody else is to free it.
        self.devices[device].extents[local as usize].state = ExtentState::Freeing;
        for (id, _) in cold {
            // A striped value may have several parts here.
            if self.catalog.is_live(id) {
                self.counters.values_evicted += 1;
                self.counters.bytes_evicted += self.catalog.view(id).length;
                self.remove_entry(id);
            }
        }
        Some((local, hot))
    }

    fn hot_bytes(&self, device: usize, local: u32, cutoff: u32) -> (usize, usize) {
        let residents = self.catalog.residents(self.devices[device].base + local);
        let hot = residents.iter().filter(|(id, _)| self.is_hot(*id, cutoff));
        (hot.map(|(id, part)| self.weight_of(*id, *part)).sum(), residents.len())
    }

    fn weight_of(&self, id: EntryId, part: u32) -> usize {
        self.weight(self.catalog.view(id).length, part) as usize
    }

    //= MKV-PUT-4
    fn is_hot(&self, id: EntryId, cutoff: u32) -> bool {
        let view = self.catalog.view(id);
        view.refs > 0 || view.manifest || view.tick >= cutoff || self.is_leased(id)
    }

    fn is_leased(&self, id: EntryId) -> bool {
        self.leases.is_leased(id) && !planted::is(Bug::LeaseIgnored)
    }

    fn start_batch(&mut self, device: usize, extents: Vec<u32>, keep: Vec<(EntryId, u32)>) {
        let id = BatchId(self.fresh_id());
        let mut by_extent: BTreeMap<u32, Vec<Keep>> = BTreeMap::new();
        for (entry, part) in keep {
            // It may have gone with a part in another extent of the batch.
            if self.catalog.is_live(entry)
                && let Some(place) = self.catalog.places(entry).get(part as usize)
            {
                let digest = self.catalog.view(entry).digest;
                by_extent.entry(place.extent).or_default().push((entry, digest, part, *place));
            }
        }
        let batch = Batch {
            device,
            opened: 0,
            extents,
            outstanding: 0,
            targets: Vec::new(),
            stuck: Vec::new(),
            moved: Vec::new(),
        };
        self.reclaim.batches.insert(id, batch);
        for (extent, records) in by_extent {
            let local = extent - self.devices[device].base;
            self.read_for_move(id, (device, local), records, false);
        }
        self.batch_step(id);
    }

    /// Reads the stretch of an extent that holds the records to move.
    fn read_for_move(
        &mut self,
        batch: BatchId,
        (device, extent): (usize, u32),
        records: Vec<Keep>,
        again: bool,
    ) {
        let target = &self.devices[device];
        let first = records.iter().map(|(.., place)| place.offset as usize).min().unwrap_or(0);
        let end_of = |(id, _, part, place): &Keep| {
            self.end_at_most(*id, *part, place.offset as usize, target.extent_bytes)
        };
        let end = records.iter().map(end_of).max().unwrap_or(0);
        let start = first - first % SECTOR_BYTES;
        let offset = target.offset(extent, start);
        self.devices[device].extents[extent as usize].busy += 1;
        if let Some(batch) = self.reclaim.batches.get_mut(&batch) {
            batch.outstanding += 1;
        }
        let read = MoveRead { batch, device, extent, start, records, again };
        self.issue(device, Op::Read { offset, length: end - start }, InFlight::MoveRead(read));
    }

    pub(super) fn move_read_ended(&mut self, read: MoveRead, result: Result<Done, IoError>) {
        let MoveRead { batch, device, extent, .. } = read;
        self.devices[device].extents[extent as usize].busy -= 1;
        match result {
            Ok(Done::Read(bytes)) if !self.devices[device].failed => self.move_records(read, &bytes),
            Err(error) if error.lasts() => self.move_unreadable(read, error),
            // Another attempt may do better.
            Ok(_) | Err(_) if read.records.iter().any(|record| self.is_there_yet(record)) => {
                self.stick(batch, extent);
            }
            Ok(_) | Err(_) => {}
        }
        if let Some(batch) = self.reclaim.batches.get_mut(&batch) {
            batch.outstanding -= 1;
        }
        self.batch_step(batch);
    }

    /// Whether a record still lives in its place.
    fn is_there_yet(&self, (entry, digest, part, place): &Keep) -> bool {
        self.catalog.find(digest) == Some(*entry)
            && self.catalog.places(*entry).get(*part as usize) == Some(place)
    }

    /// The bytes are not coming: reads both halves of the records by themselves, so that in the end only those are lost that cannot
    /// be read alone.
    fn move_unreadable(&mut self, read: MoveRead, error: IoError) {
        let MoveRead { batch, device, extent, mut records, again, .. } = read;
        self.counters.read_errors += 1;
        // Bad places lie together: many of one extent are no more than one.
        if !again {
            self.read_failed(device, error);
        }
        let was_alone = records.len() == 1;
        records.retain(|record| self.is_there_yet(record));
        if was_alone {
            return records.into_iter().for_each(|(entry, ..)| self.lose(entry));
        }
        records.sort_unstable_by_key(|(.., place)| place.offset);
        let behind = records.split_off(records.len() / 2);
        for half in [records, behind].into_iter().filter(|half| !half.is_empty()) {
            self.read_for_move(batch, (device, extent), half, true);
        }
    }

    /// The bytes are there: write each record that still lives to an extent of survivors.
    fn move_records(&mut self, read: MoveRead, bytes: &std::sync::Arc<[u8]>) {
        let MoveRead { batch, device, extent, start, records, .. } = read;
        self.devices[device].unreadable_in_a_row = 0;
        let extent_seq = self.devices[device].extents[extent as usize].seq;
        let mut run = Run::default();
        for keep in records {
            if !self.is_there_yet(&keep) || planted::now_and_then(Bug::LiveRecordNotMoved, 4) {
                continue;
            }
            let (entry, digest, part, from) = keep;
            let at = from.offset as usize - start;
            let expected = (extent_seq, from.offset, part, digest, self.catalog.view(entry).checksum);
            // Its blocks are not looked at: an extent's bytes take too long under the store's lock. They keep their checksums, so
            // that what is wrong with them is found by whoever reads them next.
            let record = Record::decode(&bytes[at..], &self.secrets, self.part_blocks).filter(|record| {
                let Record { extent_seq, offset, part, digest, checksum, .. } = *record;
                (extent_seq, offset, part, digest, checksum) == expected
            });
            let Some(record) = record else {
                self.counters.corrupt += 1;
                self.lose(entry);
                continue;
            };
            // Had too little been read, that would be no fault of the record's.
            let whole = at + record.span <= bytes.len();
            if !whole || !self.add_to_run(&mut run, batch, device, record, bytes, at, keep) {
                self.stick(batch, extent);
            }
        }
        self.end_run(&mut run, batch, device);
    }

    /// Finds the record a new place behind the run's others. False when there is none.
    #[expect(clippy::too_many_arguments, reason = "one record and where it comes from")]
    fn add_to_run(
        &mut self,
        run: &mut Run<B>,
        batch: BatchId,
        device: usize,
        mut record: Record,
        bytes: &std::sync::Arc<[u8]>,
        at: usize,
        (entry, digest, part, from): Keep,
    ) -> bool {
        let packed = record.packed;
        let align = |run: &Run<B>| if packed && !run.moves.is_empty() { PACK_ALIGN } else { SECTOR_BYTES };
        let room = match self.devices[device].take_room(Stream::Cold, record.span, align(run)) {
            Some(room) => Some(room),
            None => {
                self.end_run(run, batch, device);
                self.close_open(device, Stream::Cold);
                let opened = self.open_extent(device, Stream::Cold);
                if let Some(batch) = self.reclaim.batches.get_mut(&batch) {
                    batch.opened += usize::from(opened);
                }
                opened
                    .then(|| self.devices[device].take_room(Stream::Cold, record.span, SECTOR_BYTES))
                    .flatten()
            }
        };
        let Some((local, offset)) = room else { return false };
        let target = &mut self.devices[device];
        target.extents[local as usize].pending += 1;
        record.extent_seq = target.extents[local as usize].seq;
        record.offset = offset;
        let to = Place { extent: target.base + local, offset };
        if run.moves.is_empty() {
            run.start = offset as usize;
            run.end = offset as usize;
        }
        run.zeros(offset as usize - run.end);
        let span = record.span;
        let header = record.encode(&self.secrets);
        let body = at + header.len()..at + span;
        run.segments.push(Segment::Owned(header.into()));
        run.segments.push(Segment::Slice(std::sync::Arc::clone(bytes), body));
        run.end = offset as usize + span;
        run.moves.push(Move { entry, digest, part, from, to });
        self.reclaim.moving.insert((entry, part), to);
        true
    }

    /// Hands out the write of the records gathered so far.
    fn end_run(&mut self, run: &mut Run<B>, batch: BatchId, device: usize) {
        let Some(first) = run.moves.first() else { return };
        let end = run.end.next_multiple_of(SECTOR_BYTES);
        let extent = first.to.extent;
        run.zeros(end - run.end);
        let run = std::mem::take(run);
        let target = &mut self.devices[device];
        let local = extent - target.base;
        if let Some(open) = target.open[Stream::Cold as usize].as_mut().filter(|open| open.extent == local) {
            open.cursor = open.cursor.max(end);
        }
        target.extents[local as usize].busy += 1;
        let op = Op::Write { offset: target.offset(local, run.start), segments: run.segments };
        let bytes = op.write_length();
        self.counters.device_bytes_written += bytes as u64;
        self.counters.bytes_moved += bytes as u64;
        if let Some(state) = self.reclaim.batches.get_mut(&batch) {
            state.outstanding += 1;
            state.targets.push(extent);
        }
        self.issue(device, op, InFlight::Moves { device, extent: local, batch, moves: run.moves });
    }

    /// Copies are on their device, or not.
    pub(super) fn moves_ended(
        &mut self,
        batch: BatchId,
        device: usize,
        moves: Vec<Move>,
        result: Result<(), IoError>,
    ) {
        for one in moves {
            let lives = self.catalog.find(&one.digest) == Some(one.entry)
                && self.catalog.places(one.entry).get(one.part as usize) == Some(&one.from);
            if lives && result.is_ok() {
                let weight = self.weight_of(one.entry, one.part) as u32;
                self.catalog.moved(one.entry, one.part, one.to);
                self.extent_mut(one.from.extent).live_bytes -= weight;
                self.extent_mut(one.to.extent).live_bytes += weight;
                self.reclaim.moving.insert((one.entry, one.part), one.from);
                self.counters.records_moved += 1;
                if let Some(batch) = self.reclaim.batches.get_mut(&batch) {
                    batch.moved.push(one);
                }
            } else if lives {
                self.reclaim.moving.remove(&(one.entry, one.part));
                self.stick(batch, one.from.extent - self.devices[device].base);
            }
            self.give_up_place(one.to);
        }
        if let Some(batch) = self.reclaim.batches.get_mut(&batch) {
            batch.outstanding -= 1;
        }
        self.batch_step(batch);
    }

    fn stick(&mut self, batch: BatchId, local: u32) {
        if let Some(batch) = self.reclaim.batches.get_mut(&batch)
            && !batch.stuck.contains(&local)
        {
            batch.stuck.push(local);
        }
    }

    /// Once everything moved: wait until the copies are durable.
    fn batch_step(&mut self, id: BatchId) {
        let Some(batch) = self.reclaim.batches.get_mut(&id) else { return };
        if batch.outstanding > 0 {
            return;
        }
        let device = batch.device;
        let stuck = std::mem::take(&mut batch.stuck);
        batch.extents.retain(|extent| !stuck.contains(extent));
        let mut targets = std::mem::take(&mut batch.targets);
        targets.sort_unstable();
        targets.dedup();
        for extent in stuck {
            self.devices[device].extents[extent as usize].state = ExtentState::Sealed;
        }
        if planted::is(Bug::ReuseBeforeFlush) {
            targets.clear();
        }
        let needs: Vec<_> = targets.into_iter().flat_map(|extent| self.extent_needs(extent)).collect();
        self.wait(needs, Then::Moved(id));
    }

    /// The copies are durable: say in the journal that the extents are free.
    pub(super) fn batch_moved(&mut self, id: BatchId) {
        let Some(batch) = self.reclaim.batches.get(&id) else { return };
        let (device, extents, moved) = (batch.device, batch.extents.clone(), batch.moved.clone());
        for one in moved {
            if self.reclaim.moving.get(&(one.entry, one.part)) != Some(&one.from) {
                continue;
            }
            self.reclaim.moving.remove(&(one.entry, one.part));
            let target = &mut self.devices[device];
            let extent = one.from.extent - target.base;
            if !extents.contains(&extent) {
                let seq = target.extents[extent as usize].seq;
                target.log(&Entry::Removed { digest: one.digest, extent, offset: one.from.offset, seq });
            }
        }
        if self.devices[device].failed || extents.is_empty() {
            if let Some(batch) = self.reclaim.batches.remove(&id) {
                self.judge_batch(&batch);
            }
            return;
        }
        for extent in extents {
            debug_assert_eq!(
                self.catalog.residents(self.devices[device].base + extent),
                [],
                "all moved or gone"
            );
            let seq = self.devices[device].extents[extent as usize].seq;
            self.devices[device].log(&Entry::Freed { extent, seq });
        }
        let position = self.devices[device].journal.appended;
        if planted::is(Bug::ReuseBeforeFlush) {
            return self.batch_freed(id);
        }
        self.wait([Need::Journal { device, position }], Then::Freed(id));
    }

    /// That is durable: they may be used again.
    pub(super) fn batch_freed(&mut self, id: BatchId) {
        let Some(batch) = self.reclaim.batches.remove(&id) else { return };
        for extent in &batch.extents {
            self.devices[batch.device].extents[*extent as usize].freed = true;
            self.free_if_idle(batch.device, *extent);
        }
        self.judge_batch(&batch);
    }

    /// A sealed extent without live records is free at once on a device that survives nothing: no journal has to say so first, and
    /// the memory that was used last is used again.
    pub(super) fn free_if_dead(&mut self, extent: u32) {
        let (device, local) = self.locate(extent);
        let target = &mut self.devices[device];
        let state = &mut target.extents[local as usize];
        let dead = state.state == ExtentState::Sealed && state.live_bytes == 0;
        if dead && !target.geometry.persistent && !target.failed {
            state.state = ExtentState::Freeing;
            state.freed = true;
            self.free_if_idle(device, local);
        }
    }

    /// Gives a freed extent back once nobody reads it any more.
    pub(super) fn free_if_idle(&mut self, device: usize, local: u32) {
        let target = &mut self.devices[device];
        let extent = &mut target.extents[local as usize];
        if !extent.freed || extent.busy > 0 {
            return;
        }
        extent.freed = false;
        self.counters.extents_reclaimed += 1;
        if target.geometry.discard && self.config.discard {
            target.discards.push(local);
        } else {
            extent.state = ExtentState::Free;
            target.give_back(local);
        }
    }

    /// Discards what was freed, one command for many extents.
    pub(super) fn discard_pump(&mut self, device: usize) {
        let target = &mut self.devices[device];
        // Whoever still reads when the store closes is not waited for.
        if target.failed || target.discards.is_empty() || self.stop_begun {
            return;
        }
        let mut extents = std::mem::take(&mut target.discards);
        extents.sort_unstable();
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for extent in &extents {
            let (offset, length) = (target.offset(*extent, 0), target.extent_bytes as u64);
            match ranges.last_mut().filter(|(start, bytes)| start + bytes == offset) {
                Some((_, bytes)) => *bytes += length,
                None => ranges.push((offset, length)),
            }
        }
        target.discards_in_flight += 1;
        target.discarding += extents.len();
        self.counters.discards += 1;
        self.issue(device, Op::Discard { ranges }, InFlight::Discard { device, extents });
    }

    /// Discarded or not, the extents are free: a discard is only a hint.
    pub(super) fn discard_ended(&mut self, device: usize, extents: Vec<u32>) {
        let target = &mut self.devices[device];
        target.discards_in_flight -= 1;
        target.discarding -= extents.len();
        for extent in extents {
            target.extents[extent as usize].state = ExtentState::Free;
            target.give_back(extent);
            if planted::is(Bug::ExtentFreedTwice) {
                target.free.push_back(extent);
            }
        }
    }
}

/// Records gathered for one write.
struct Run<B> {
    start: usize,
    end: usize,
    segments: Vec<Segment<B>>,
    moves: Vec<Move>,
}

impl<B> Default for Run<B> {
    fn default() -> Self {
        Self { start: 0, end: 0, segments: Vec::new(), moves: Vec::new() }
    }
}

impl<B> Run<B> {
    fn zeros(&mut self, count: usize) {
        if count > 0 {
            self.segments.push(Segment::Zeros(count));
        }
    }
}

impl Device {
    /// Free extents beyond those that are kept back, below which reclaiming starts.
    pub(super) fn low_water(&self) -> usize {
        self.kept_back() + self.batch_extents()
    }

    /// Those are empty until they are written again: a small store can spare only few.
    pub(super) fn batch_extents(&self) -> usize {
        (self.extents.len() / 64).clamp(1, BATCH_MAX)
    }

    /// Extents that only wait for a discard, or the flush that lets them be sealed. Those that wait for a reader do not count: he may
    /// take as long as he likes.
    fn room_on_its_way(&self) -> bool {
        !self.failed
            && (self.discards_in_flight > 0
                || !self.discards.is_empty()
                || !self.unsealed.is_empty() && !self.full)
    }
}
