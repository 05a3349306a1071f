//! Where records go: the queue of what waits for room, packs, and open extents.

use smallvec::SmallVec;

use super::*;
use crate::store::format::PACK_ALIGN;
use crate::store::write::{append_record, push_zeros};

/// Bytes gathered for one write of small values.
const PACK_BYTES_MAX: usize = 256 << 10;
/// Packs of one device in flight.
const PACKS_IN_FLIGHT_MAX: u32 = 2;

#[derive(PartialEq, Eq)]
pub(super) enum Placed {
    Done,
    Waits,
}

/// What waits for room.
#[derive(Clone, Copy)]
pub(super) enum Placing {
    Job(JobId),
    Piece(AllocationId, u32),
}

impl<B: AsRef<[u8]> + Clone> Store<B> {
    /// Places what waits for room, in the order it came.
    pub(super) fn place_waiting(&mut self) {
        while let Some(next) = self.placing.front().copied() {
            let placed = match next {
                Placing::Job(job) => self.place_job(job),
                Placing::Piece(allocation, block) => self.place_piece(allocation, block),
            };
            if placed == Placed::Waits {
                return;
            }
            self.placing.pop_front();
        }
    }

    /// Nothing fits now: wait when room may come, else fail.
    pub(super) fn no_room(&mut self, what: Placing) -> Placed {
        if self.room_may_come() {
            return Placed::Waits;
        }
        self.counters.out_of_space += 1;
        match what {
            Placing::Job(id) => self.fail_job(id, StoreError::OutOfSpace),
            Placing::Piece(id, block) => self.refuse_piece(id, block),
        }
        Placed::Done
    }

    pub(super) fn take_place(&mut self, stream: Stream, span: usize, align: usize) -> Option<Place> {
        for _ in 0..=self.devices.len() {
            let device = self.hot_device(u32::MAX)?;
            if let Some((local, offset)) = self.devices[device].take_room(stream, span, align) {
                let place = Place { extent: self.devices[device].base + local, offset };
                self.extent_mut(place.extent).pending += 1;
                return Some(place);
            }
            self.close_open(device, stream);
        }
        None
    }

    /// A device with an open extent for new records, opening one if need be.
    pub(super) fn hot_device(&mut self, packs_max: u32) -> Option<usize> {
        let count = self.devices.len();
        let start = match self.config.placement {
            Placement::Rotate => self.rotor,
            Placement::Spread => {
                let load = |index: &usize| self.devices[*index].bytes_in_flight;
                let fit = |index: &usize| {
                    let device = &self.devices[*index];
                    let open = device.open[Stream::Hot as usize].is_some() || device.may_open(Stream::Hot);
                    !device.failed && open && device.packs_in_flight < packs_max
                };
                (0..count).map(|step| (self.rotor + 1 + step) % count).filter(fit).min_by_key(load)?
            }
        };
        for step in 0..count {
            let index = (start + step) % count;
            if self.devices[index].failed {
                continue;
            }
            if self.devices[index].open[Stream::Hot as usize].is_none()
                && !self.open_extent(index, Stream::Hot)
            {
                continue;
            }
            self.rotor = index;
            return (self.devices[index].packs_in_flight < packs_max).then_some(index);
        }
        None
    }

    pub(super) fn open_extent(&mut self, device: usize, stream: Stream) -> bool {
        if !self.devices[device].may_open(stream) {
            return false;
        }
        let target = &mut self.devices[device];
        let Some(local) = target.free.pop_front() else { return false };
        let seq = self.next_extent_seq;
        self.next_extent_seq += 1;
        target.log(&journal::Entry::Opened { extent: local, seq });
        target.journal.want();
        let extent = &mut target.extents[local as usize];
        extent.state = ExtentState::Open;
        extent.seq = seq;
        extent.opened_at = target.journal.appended;
        target.open[stream as usize] = Some(OpenExtent { extent: local, cursor: 0 });
        true
    }

    /// The open extent takes nothing more; the next record goes to the next device.
    pub(super) fn close_open(&mut self, device: usize, stream: Stream) {
        let Some(open) = self.devices[device].open[stream as usize].take() else { return };
        self.devices[device].extents[open.extent as usize].state = ExtentState::Full;
        self.seal_if_settled(self.devices[device].base + open.extent);
        if stream == Stream::Hot {
            self.rotor = (device + 1) % self.devices.len();
        }
    }

    /// Gathers small values into writes.
    pub(super) fn pack_waiting(&mut self) {
        while !self.packing.is_empty() {
            let Some(device) = self.hot_device(PACKS_IN_FLIGHT_MAX) else {
                if self.devices.iter().any(|device| !device.failed && device.packs_in_flight > 0) {
                    return;
                }
                let Some(id) = self.packing.front().copied() else { return };
                if self.no_room(Placing::Job(id)) == Placed::Waits {
                    return;
                }
                self.packing.pop_front();
                continue;
            };
            if !self.pack_on(device) {
                self.close_open(device, Stream::Hot);
            }
        }
    }

    /// Writes one pack into a device's open extent. False when not even one value fits.
    pub(super) fn pack_on(&mut self, device: usize) -> bool {
        let mut segments = Vec::new();
        let mut jobs = Vec::new();
        let mut start = None;
        let mut end = 0;
        while let Some(id) = self.packing.front().copied() {
            let Some(job) = self.jobs.get(&id) else {
                self.packing.pop_front();
                continue;
            };
            let layout = self.job_layout(job, 0);
            let align = if start.is_none() { SECTOR_BYTES } else { PACK_ALIGN };
            let Some((local, offset)) = self.devices[device].take_room(Stream::Hot, layout.span, align)
            else {
                break;
            };
            let place = Place { extent: self.devices[device].base + local, offset };
            self.extent_mut(place.extent).pending += 1;
            let Some(job) = self.jobs.get(&id) else { break };
            let header = self.record(job, 0, place, &layout).encode(&self.secrets);
            let begin = *start.get_or_insert(offset);
            push_zeros(&mut segments, offset as usize - end.max(begin as usize));
            let Some(job) = self.jobs.get_mut(&id) else { break };
            append_record(&mut segments, header, &mut job.blocks, &layout, PACK_ALIGN);
            job.places.push(place);
            job.parts_issued += 1;
            job.outstanding += 1;
            end = offset as usize + layout.span;
            jobs.push((id, local));
            self.packing.pop_front();
            if end - begin as usize >= PACK_BYTES_MAX {
                break;
            }
        }
        let (Some(begin), Some(&(_, local))) = (start, jobs.first()) else { return self.packing.is_empty() };
        push_zeros(&mut segments, end.next_multiple_of(SECTOR_BYTES) - end);
        if let Some(open) = self.devices[device].open[Stream::Hot as usize].as_mut() {
            open.cursor = end.next_multiple_of(SECTOR_BYTES);
        }
        let ids: SmallVec<_> = jobs.iter().map(|(id, _)| *id).collect();
        self.issue_write(device, local, begin, segments, ids.clone(), true);
        ids.into_iter().for_each(|id| self.await_opening(id, device, local));
        true
    }

    /// The room a part counts for; the same when it comes and when it goes. A manifest is weighed as a value of its length, though
    /// its table may take a block, and a part, more: this says nothing of where a record ends.
    pub(super) fn weight(&self, length: u64, part: u32) -> u32 {
        Shape::value(length).part(part, self.part_blocks, 192).span as u32
    }

    /// Where in its extent a record ends, at the latest: a header is never longer than a sector.
    pub(super) fn end_at_most(&self, id: EntryId, part: u32, offset: usize, extent_bytes: usize) -> usize {
        let view = self.catalog.view(id);
        let body_length = match (view.manifest, self.manifests.meta(id)) {
            (true, Some(meta)) => meta.body.length,
            (true, None) => return extent_bytes,
            (false, _) => view.length,
        };
        let shape = Shape { length: view.length, body_length };
        let longest = shape.part(part, self.part_blocks, SECTOR_BYTES).span;
        (offset + longest).next_multiple_of(SECTOR_BYTES).min(extent_bytes)
    }

    /// A placed record will not be.
    pub(super) fn give_up_place(&mut self, place: Place) {
        self.extent_mut(place.extent).pending -= 1;
        self.seal_if_settled(place.extent);
    }
}
