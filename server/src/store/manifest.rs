//! Manifests: names that hold values in place.
//!
//! A manifest is published in this order: all its chunks' devices are flushed, its record is written, that device is flushed,
//! it becomes visible. So a record found after a crash names only chunks that are there, unless they were evicted with
//! their manifest or lost since; one that is not whole is not taken up again.
//!
//! Until the removal of a former record of a name is durable, the record that took its place is all that keeps it from coming back
//! after a crash, perhaps from another device. So that one is not removed before: a delete or an eviction of it waits. Removals are
//! numbered; a manifest knows the last one that its own must not overtake.
//!
//! The record holds the body's blocks and then a table: generation, role, and each chunk's digest, checksum and length.
//! In memory a manifest keeps its chunks' entry numbers (4 bytes each), by which references are counted.

use std::ops::Bound;

use memkv_transport::planted::{self, Bug};
use zerocopy::{FromBytes, IntoBytes};

use smallvec::{SmallVec, smallvec};

use super::*;
use crate::store::durability::{Need, Then};
use crate::store::format::{TableChunk, TableHeader};
use crate::store::write::{JobThen, blocks_length};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct OpId(pub u64);

/// Chunks of one manifest that are leased when it is published: what takes long under a lock is left out.
const LEASED_ON_PUT_MAX: usize = 1 << 14;

/// (namespace, name, generation of a manifest of role `Refs`).
type Name = (u16, Vec<u8>, Option<u64>);

#[derive(Default)]
pub(super) struct Manifests {
    by_entry: Map<EntryId, Meta>,
    names: BTreeMap<Name, EntryId>,
    /// By the tick of their last use.
    by_use: BTreeSet<(u32, EntryId)>,
    /// Records removed, ever, and how many of these removals are known to be durable.
    removals: u64,
    removals_durable: u64,
    /// Someone waits for more of them.
    settling: bool,
}

pub(super) struct Meta {
    name: Name,
    pub generation: u64,
    pub body: ValueInfo,
    /// Entries of the chunks it holds; none for role `Home`.
    chunks: Box<[EntryId]>,
    chunk_count: u32,
    chunk_bytes: u64,
    /// The last removal before it was published: it must be durable before this one is removed.
    after: u64,
}

impl Meta {
    /// The generation that is a part of the digest: of manifests of role `Refs` alone.
    pub fn refs_generation(&self) -> Option<u64> {
        self.name.2
    }
}

/// A manifest on its way.
pub(super) struct ManifestOp<B> {
    /// Who put it; those of further attempts too, so that there is one record of it, and one end.
    putters: SmallVec<[Putter; 1]>,
    /// The store chose the generation.
    chosen: bool,
    meta: Meta,
    failed: Option<StoreError>,
    /// Before and after its record is written.
    job: Option<Job<B>>,
}

/// Someone who waits for a manifest to be published.
struct Putter {
    ticket: Ticket,
    client: ClientId,
    /// The chunks were leased for so long, and the manifest will be until then; 0: they were not.
    lease_ms: u64,
    until_ms: u64,
}

impl<B> ManifestOp<B> {
    /// Whether this is an attempt of the same put, and may still end well.
    fn is_attempt_of(&self, namespace: u16, put: &PutManifest<'_, B>, body: ValueInfo) -> bool {
        let Meta { name: (in_namespace, name, refs), generation, body: of_body, .. } = &self.meta;
        let generation = (!self.chosen).then_some(*generation);
        (*in_namespace, &name[..], refs.is_some(), generation, *of_body)
            == (namespace, put.name, put.role == Role::Refs, put.generation, body)
            && self.failed.is_none()
    }

    pub fn chunks(&self) -> impl Iterator<Item = EntryId> + '_ {
        self.meta.chunks.iter().copied()
    }

    /// The bytes it is charged with in a namespace while no job carries them.
    pub fn waiting_bytes(&self, namespace: u16) -> Option<u64> {
        self.job.as_ref().filter(|job| job.namespace == namespace).map(|job| job.shape.length)
    }

    /// These chunks are lost, and the manifest with them, if it holds any. Answers the references it held.
    pub fn forget_chunks(&mut self, chunks: &Set<EntryId>, why: &StoreError) -> Vec<EntryId> {
        let (held, kept): (Vec<_>, Vec<_>) = self.chunks().partition(|id| chunks.contains(id));
        if !held.is_empty() {
            self.meta.chunks = kept.into();
            self.failed = Some(why.clone());
        }
        held
    }
}

impl Manifests {
    pub fn len(&self) -> usize {
        self.by_entry.len()
    }

    /// The chunks of all manifests, as often as they are named.
    pub fn chunks(&self) -> impl Iterator<Item = EntryId> + '_ {
        self.by_entry.values().flat_map(|meta| meta.chunks.iter().copied())
    }

    /// The manifests that hold any of these chunks.
    pub fn naming(&self, chunks: &Set<EntryId>) -> Vec<EntryId> {
        let names = |meta: &Meta| meta.chunks.iter().any(|chunk| chunks.contains(chunk));
        let naming = self.by_entry.iter().filter(|(_, meta)| names(meta));
        naming.map(|(id, _)| *id).collect()
    }

    /// Whether this one may be removed without anything coming back in its place.
    pub fn is_settled(&self, id: EntryId) -> bool {
        self.by_entry.get(&id).is_none_or(|meta| meta.after <= self.removals_durable)
    }

    pub fn is_settling(&self) -> bool {
        self.settling
    }

    /// All are read and decided; those that lost are superseded.
    pub fn recovered(&mut self) {
        self.by_entry.values_mut().for_each(|meta| meta.after = self.removals);
    }

    pub fn meta(&self, id: EntryId) -> Option<&Meta> {
        self.by_entry.get(&id)
    }

    /// Manifests last used before a tick.
    pub fn colder_than(&self, tick: u32) -> Vec<EntryId> {
        self.by_use.iter().take_while(|(used, _)| *used < tick).map(|(_, id)| *id).collect()
    }

    /// The manifest was used.
    pub fn used(&mut self, id: EntryId, before: u32, now: u32) {
        if self.by_use.remove(&(before, id)) {
            self.by_use.insert((now, id));
        }
    }

    pub fn published(&self, namespace: u16, name: &[u8]) -> Option<(EntryId, &Meta)> {
        let id = self.names.get(&(namespace, name.to_vec(), None))?;
        Some((*id, &self.by_entry[id]))
    }

    /// The manifests of role `Refs` of a name, by generation.
    pub fn refs(&self, namespace: u16, name: &[u8]) -> impl DoubleEndedIterator<Item = (EntryId, &Meta)> {
        let from = (namespace, name.to_vec(), Some(0));
        let to = (namespace, name.to_vec(), Some(u64::MAX));
        self.names.range(from..=to).map(|(_, id)| (*id, &self.by_entry[id]))
    }

    fn current(&self, namespace: u16, name: &[u8], role: Role) -> Option<(EntryId, &Meta)> {
        match role {
            Role::Both | Role::Home => self.published(namespace, name),
            Role::Refs => self.refs(namespace, name).next_back(),
        }
    }

    pub fn insert(&mut self, id: EntryId, tick: u32, meta: Meta) {
        self.by_use.insert((tick, id));
        self.names.insert(meta.name.clone(), id);
        self.by_entry.insert(id, meta);
    }

    fn remove(&mut self, id: EntryId, tick: u32) -> Option<Meta> {
        self.by_use.remove(&(tick, id));
        let meta = self.by_entry.remove(&id)?;
        self.names.remove(&meta.name);
        Some(meta)
    }
}

impl Meta {
    fn info(&self) -> ManifestInfo {
        ManifestInfo {
            name: self.name.1.clone(),
            generation: self.generation,
            length: self.body.length,
            checksum: self.body.checksum,
            chunk_count: self.chunk_count,
            chunk_bytes: self.chunk_bytes,
        }
    }
}

/// What the check of a manifest's chunks found.
struct Checked {
    entries: Vec<EntryId>,
    missing: Vec<u32>,
    conflicts: Vec<u32>,
}

impl<B: AsRef<[u8]> + Clone> Store<B> {
    /// Publishes a manifest. Ends in [`Outcome::ManifestStored`], durable with all its chunks, or, with nothing stored, in
    /// [`Outcome::ManifestIncomplete`] (the present chunks are leased in the same step) or [`Outcome::ManifestConflict`].
    //= MKV-PUT-1
    //= MKV-PUT-2
    //= MKV-PUT-3
    pub fn put_manifest(&mut self, now_ms: u64, client: ClientId, ticket: Ticket, put: PutManifest<'_, B>) {
        self.advance(now_ms);
        match self.begin_manifest(client, ticket, put) {
            Ok(None) => {}
            Ok(Some(outcome)) => self.answer(ticket, Ok(outcome)),
            Err(error) => self.answer(ticket, Err(error)),
        }
    }

    fn begin_manifest(
        &mut self,
        client: ClientId,
        ticket: Ticket,
        put: PutManifest<'_, B>,
    ) -> Result<Option<Outcome>, StoreError> {
        self.accepting()?;
        check_name(put.namespace, put.name)?;
        let body_length = blocks_length(&put.body)?;
        if body_length > MANIFEST_BODY_BYTES_MAX {
            return Err(StoreError::TooLarge { bytes_max: MANIFEST_BODY_BYTES_MAX });
        }
        if put.chunks.len() > MANIFEST_CHUNKS_MAX {
            return Err(StoreError::TooLarge { bytes_max: MANIFEST_CHUNKS_MAX as u64 });
        }
        let body = ValueInfo {
            length: body_length,
            checksum: Checksum::of_blocks(put.body.iter().map(|block| &block.checksum)),
        };
        let namespace = self.namespaces.intern(put.namespace, &self.config)?;
        let generation = match self.next_generation(namespace, &put, body)? {
            Some(generation) => generation,
            None => {
                let stored = |generation| Outcome::ManifestStored { generation, lease_ms: 0 };
                return Ok(put.generation.map(stored));
            }
        };
        let checked = match put.role {
            Role::Home => Checked { entries: Vec::new(), missing: Vec::new(), conflicts: Vec::new() },
            Role::Both | Role::Refs => self.check_chunks(&put),
        };
        if !checked.conflicts.is_empty() {
            return Ok(Some(Outcome::ManifestConflict { chunks: checked.conflicts }));
        }
        if !checked.missing.is_empty() && !planted::is(Bug::MissingChunkPublished) {
            self.counters.manifests_incomplete += 1;
            let until_ms = self.now_ms + self.config.lease_ms(put.lease_ms);
            self.leases.take_all(client, checked.entries.into_iter(), until_ms)?;
            return Ok(Some(Outcome::ManifestIncomplete { missing: checked.missing }));
        }
        let lease_ms = self.lease_chunks(client, &checked.entries, put.lease_ms);
        let putter = Putter { ticket, client, lease_ms, until_ms: self.now_ms + lease_ms };
        // Were each attempt published, the last one to end might bring back what was deleted since the first did.
        let under_way = self.manifest_ops.values_mut().find(|op| op.is_attempt_of(namespace, &put, body));
        match under_way {
            Some(op) => op.putters.push(putter),
            None => self.start_manifest(putter, put, (namespace, generation), body, checked.entries)?,
        }
        Ok(None)
    }

    /// Leases the chunks of a manifest that is about to be published, if they are not too many. Answers for how long.
    //= MKV-PUT-7
    fn lease_chunks(&mut self, client: ClientId, entries: &[EntryId], lease_ms: u64) -> u64 {
        if entries.is_empty() || entries.len() > LEASED_ON_PUT_MAX {
            return 0;
        }
        let lease_ms = self.config.lease_ms(lease_ms);
        let until_ms = self.now_ms + lease_ms;
        self.leases.expire(self.now_ms);
        let leased = self.leases.take_all(client, entries.iter().copied(), until_ms).is_ok();
        self.counters.leases_refused += u64::from(!leased);
        if leased { lease_ms } else { 0 }
    }

    /// The generation to store; `None` when this very manifest is stored already.
    //= MKV-PUT-5
    fn next_generation(
        &self,
        namespace: u16,
        put: &PutManifest<'_, B>,
        body: ValueInfo,
    ) -> Result<Option<u64>, StoreError> {
        let current = self.manifests.current(namespace, put.name, put.role).map(|(_, meta)| meta);
        let stored = current.map_or(0, |meta| meta.generation);
        match put.generation {
            Some(generation) if generation > stored || planted::is(Bug::StaleGenerationAccepted) => {
                Ok(Some(generation))
            }
            Some(generation)
                if current.is_some_and(|meta| meta.generation == generation && meta.body == body) =>
            {
                Ok(None)
            }
            Some(_) => Err(StoreError::StaleGeneration { current: stored }),
            None => {
                let same = |op: &&ManifestOp<B>| op.meta.name.0 == namespace && op.meta.name.1 == put.name;
                let on_way = self.manifest_ops.values().filter(same).map(|op| op.meta.generation).max();
                Ok(Some(stored.max(on_way.unwrap_or(0)).saturating_add(1)))
            }
        }
    }

    fn check_chunks(&mut self, put: &PutManifest<'_, B>) -> Checked {
        let mut checked = Checked {
            entries: Vec::with_capacity(put.chunks.len()),
            missing: Vec::new(),
            conflicts: Vec::new(),
        };
        for (index, chunk) in put.chunks.iter().enumerate() {
            let digest = self.value_digests.digest(put.namespace, chunk.key);
            let Some(id) = self.catalog.find(&digest) else {
                checked.missing.push(index as u32);
                continue;
            };
            let view = self.catalog.view(id);
            if view.length != chunk.length || chunk.checksum.is_some_and(|sum| sum != view.checksum) {
                checked.conflicts.push(index as u32);
            }
            checked.entries.push(id);
        }
        checked
    }

    fn start_manifest(
        &mut self,
        putter: Putter,
        put: PutManifest<'_, B>,
        (namespace, generation): (u16, u64),
        body: ValueInfo,
        entries: Vec<EntryId>,
    ) -> Result<(), StoreError> {
        let refs = (put.role == Role::Refs).then_some(generation);
        let table = self.table(put.role, generation, body, &entries, put.chunks.len());
        let shape = Shape { length: body.length + table.len() as u64, body_length: body.length };
        self.namespaces.charge(namespace, shape.length)?;
        entries.iter().for_each(|id| self.catalog.add_ref(*id));
        let mut block_checksums: Vec<_> = put.body.iter().map(|block| block.checksum).collect();
        let mut blocks: Vec<_> =
            put.body.into_iter().map(|block| Some(Segment::Payload(block.bytes))).collect();
        for block in table.chunks(BLOCK_BYTES) {
            block_checksums.push(Checksum::of_block(block));
            blocks.push(Some(Segment::Owned(block.into())));
        }
        let id = OpId(self.fresh_id());
        let job = Job {
            kind: Kind::Manifest,
            digest: self.secrets.digest(Kind::Manifest, put.namespace, put.name, refs),
            namespace,
            key: put.name.into(),
            shape,
            checksum: Checksum::of_blocks(&block_checksums),
            block_checksums: block_checksums.into(),
            blocks: blocks.into(),
            lsn: 0,
            places: SmallVec::new(),
            parts_issued: 0,
            outstanding: 0,
            failed: None,
            then: JobThen::Manifest(id),
        };
        let needs = match planted::is(Bug::ChunkFlushSkipped) {
            true => Vec::new(),
            false => self.chunk_needs(&entries),
        };
        let meta = Meta {
            name: (namespace, put.name.to_vec(), refs),
            generation,
            body,
            chunk_count: put.chunks.len() as u32,
            chunk_bytes: put.chunks.iter().map(|chunk| chunk.length).sum(),
            chunks: entries.into(),
            after: 0,
        };
        let (putters, chosen) = (smallvec![putter], put.generation.is_none());
        self.manifest_ops.insert(id, ManifestOp { putters, chosen, meta, failed: None, job: Some(job) });
        self.wait(needs, Then::ManifestRecord(id));
        Ok(())
    }

    fn table(
        &self,
        role: Role,
        generation: u64,
        body: ValueInfo,
        entries: &[EntryId],
        count: usize,
    ) -> Vec<u8> {
        let header = TableHeader {
            generation: generation.into(),
            role: role_byte(role),
            reserved: [0; 3],
            chunk_count: (count as u32).into(),
            body_length: body.length.into(),
            body_checksum: body.checksum.0,
            reserved_1: [0; 24],
        };
        let mut table =
            Vec::with_capacity(size_of::<TableHeader>() + entries.len() * size_of::<TableChunk>());
        table.extend_from_slice(header.as_bytes());
        for id in entries {
            let view = self.catalog.view(*id);
            let chunk =
                TableChunk { digest: view.digest, checksum: view.checksum.0, length: view.length.into() };
            table.extend_from_slice(chunk.as_bytes());
        }
        table
    }

    /// What must be durable before a record may name these chunks. Removals come along: were a former value of a chunk's key
    /// found again after a crash, it would have to be told from the present one.
    fn chunk_needs(&self, entries: &[EntryId]) -> Vec<Need> {
        let mut extents: Vec<_> =
            entries.iter().flat_map(|id| self.catalog.places(*id)).map(|p| p.extent).collect();
        extents.sort_unstable();
        extents.dedup();
        let mut needs = self.removal_needs();
        for extent in extents {
            needs.extend(self.extent_needs(extent));
        }
        needs
    }

    /// What makes an extent's completed writes durable, and itself found after a crash.
    pub(super) fn extent_needs(&self, extent: u32) -> [Need; 2] {
        let (device, local) = self.locate(extent);
        let state = &self.devices[device].extents[local as usize];
        [
            Need::Writes { device, count: state.last_write },
            Need::Journal { device, position: state.opened_at },
        ]
    }

    /// The chunks are durable.
    pub(super) fn manifest_chunks_durable(&mut self, id: OpId, failed: Option<StoreError>) {
        let Some(op) = self.manifest_ops.get_mut(&id) else { return };
        op.failed = op.failed.take().or(failed);
        match (op.failed.is_some(), op.job.take()) {
            (false, Some(job)) => self.start_job(job),
            (true, job) => self.end_failed_manifest(id, job),
            (false, None) => debug_assert!(false, "a manifest's job is started once"),
        }
    }

    /// The record is on its device, or not.
    pub(super) fn manifest_written(&mut self, id: OpId, job: Job<B>) {
        let Some(op) = self.manifest_ops.get_mut(&id) else { return };
        op.failed = op.failed.take().or(job.failed.clone());
        if op.failed.is_some() {
            return self.end_failed_manifest(id, Some(job));
        }
        let mut needs: Vec<_> = job.places.iter().flat_map(|place| self.extent_needs(place.extent)).collect();
        if planted::is(Bug::ManifestFlushSkipped) {
            needs.clear();
        }
        if let Some(op) = self.manifest_ops.get_mut(&id) {
            op.job = Some(job);
        }
        self.wait(needs, Then::ManifestVisible(id));
    }

    /// The record is durable: publish it.
    pub(super) fn manifest_durable(&mut self, id: OpId, failed: Option<StoreError>) {
        let places = self.manifest_ops.get(&id).and_then(|op| op.job.as_ref()).map(|job| &job.places[..]);
        let lost = self.failed_under(places.unwrap_or_default());
        let Some(op) = self.manifest_ops.get_mut(&id) else { return };
        op.failed = op.failed.take().or(failed).or(lost);
        let (namespace, name, refs) = op.meta.name.clone();
        let (generation, chosen) = (op.meta.generation, op.chosen);
        let lost = op.failed.is_some();
        let job = op.job.take();
        let current = self.manifests.names.get(&(namespace, name, refs)).copied();
        let published = current.and_then(|entry| self.manifests.meta(entry));
        let stored = published.map_or(0, |meta| meta.generation);
        let superseded = stored >= generation && !planted::is(Bug::StaleGenerationAccepted);
        if superseded && !lost && chosen {
            // One that chose no generation is as good as published and replaced at once.
            let putters = std::mem::take(&mut op.putters);
            self.withdraw_manifest(id, job);
            return self.answer_putters(generation, putters);
        }
        if superseded {
            op.failed.get_or_insert(StoreError::StaleGeneration { current: stored });
        }
        let job = match job {
            Some(job) if op.failed.is_none() => job,
            job => return self.end_failed_manifest(id, job),
        };
        //= MKV-PUT-6
        if let Some(old) = current {
            self.remove_manifest(old);
        }
        let Some(mut op) = self.manifest_ops.remove(&id) else { return };
        op.meta.after = self.manifests.removals;
        let entry = self.make_visible(&job);
        for putter in op.putters.iter().filter(|putter| putter.lease_ms > 0) {
            // Evicted before what it names could be, it would make no room. One lease too many is only no lease.
            let _ = self.leases.take(putter.client, entry, putter.until_ms);
        }
        for chunk in op.meta.chunks.iter() {
            self.touch(*chunk);
        }
        self.counters.manifests_put += 1;
        self.manifests.insert(entry, self.catalog.view(entry).tick, op.meta);
        self.answer_putters(generation, op.putters);
    }

    fn answer_putters(&mut self, generation: u64, putters: SmallVec<[Putter; 1]>) {
        for Putter { ticket, lease_ms, .. } in putters {
            self.answer(ticket, Ok(Outcome::ManifestStored { generation, lease_ms }));
        }
    }

    fn end_failed_manifest(&mut self, id: OpId, job: Option<Job<B>>) {
        let Some(op) = self.manifest_ops.get_mut(&id) else { return };
        let error = op.failed.take().unwrap_or(StoreError::OutOfSpace);
        let putters = std::mem::take(&mut op.putters);
        self.withdraw_manifest(id, job);
        putters.into_iter().for_each(|putter| self.answer(putter.ticket, Err(error.clone())));
    }

    /// Takes back what an unpublished manifest holds. Its record may be on a device: the journal says it is dead.
    fn withdraw_manifest(&mut self, id: OpId, job: Option<Job<B>>) {
        let Some(mut op) = self.manifest_ops.remove(&id) else { return };
        let job = job.or(op.job.take());
        op.meta.chunks.iter().for_each(|chunk| self.catalog.drop_ref(*chunk));
        let Some(job) = job else { return };
        self.namespaces.refund(job.namespace, job.shape.length);
        for place in &job.places {
            let (device, local) = self.locate(place.extent);
            let target = &mut self.devices[device];
            let seq = target.extents[local as usize].seq;
            let removed =
                journal::Entry::Removed { digest: job.digest, extent: local, offset: place.offset, seq };
            target.log(&removed);
            self.give_up_place(*place);
        }
        // Whatever counts under this name must outlive the withdrawn record.
        let after = self.manifest_removed(&job.places);
        let current = self.manifests.names.get(&op.meta.name).copied();
        if let Some(meta) = current.and_then(|entry| self.manifests.by_entry.get_mut(&entry)) {
            meta.after = after;
        }
    }

    /// The removal of a manifest's record was just logged. Answers the removal's number.
    pub(super) fn manifest_removed(&mut self, places: &[Place]) -> u64 {
        for place in places {
            let (device, _) = self.locate(place.extent);
            let journal = &mut self.devices[device].journal;
            journal.manifest_removals = journal.appended;
        }
        self.manifests.removals += 1;
        self.manifests.removals
    }

    /// The journals' positions that make every such removal so far durable.
    pub(super) fn manifest_removal_needs(&self) -> Vec<Need> {
        let healthy = self.devices.iter().enumerate().filter(|(_, device)| !device.failed);
        let behind = healthy.filter(|(_, state)| state.journal.manifest_removals > state.journal.durable);
        behind
            .map(|(device, state)| Need::Journal { device, position: state.journal.manifest_removals })
            .collect()
    }

    /// Makes the removals durable that a manifest's removal waits for.
    pub(super) fn settle_manifests(&mut self) {
        if !std::mem::replace(&mut self.manifests.settling, true) {
            let needs = self.manifest_removal_needs();
            self.wait(needs, Then::Settled { removals: self.manifests.removals });
        }
    }

    pub(super) fn manifests_settled(&mut self, removals: u64) {
        self.manifests.settling = false;
        self.manifests.removals_durable = removals;
    }

    /// Takes a manifest out; its chunks lose their references.
    pub(super) fn remove_manifest(&mut self, id: EntryId) {
        let Some(meta) = self.manifests.remove(id, self.catalog.view(id).tick) else { return };
        let leaked = usize::from(planted::is(Bug::ReferenceLeaked));
        meta.chunks.iter().skip(leaked).for_each(|chunk| self.catalog.drop_ref(*chunk));
        let places = self.catalog.places(id);
        self.remove_entry(id);
        self.manifest_removed(&places);
    }

    /// Plans the read of a manifest's body and leases its chunks.
    //= MKV-GET-1
    pub fn get_manifest(
        &mut self,
        now_ms: u64,
        client: ClientId,
        namespace: &[u8],
        name: &[u8],
        lease_ms: u64,
    ) -> Result<(ManifestInfo, ReadPlan), StoreError> {
        self.advance(now_ms);
        check_name(namespace, name)?;
        let number = self.namespaces.find(namespace).ok_or(StoreError::NotFound)?;
        let (id, meta) = self.manifests.published(number, name).ok_or(StoreError::NotFound)?;
        let (info, chunks) = (meta.info(), meta.chunks.clone());
        let until_ms = self.now_ms + self.config.lease_ms(lease_ms);
        self.leases.expire(self.now_ms);
        self.leases.take_all(client, std::iter::once(id).chain(chunks.iter().copied()), until_ms)?;
        chunks.iter().for_each(|chunk| self.touch(*chunk));
        self.touch(id);
        let shape = Shape { length: self.catalog.view(id).length, body_length: info.length };
        let mut plan = self.plan(id, shape, Key::new(namespace, name), 0..shape.body_blocks());
        plan.value = ValueInfo { length: info.length, checksum: info.checksum };
        Ok((info, plan))
    }

    /// The published names of a namespace that begin with a prefix, in byte order, after a cursor (empty: from the start).
    //= MKV-LIST-1
    pub fn list_manifests(
        &self,
        namespace: &[u8],
        prefix: &[u8],
        cursor: &[u8],
        count_max: usize,
    ) -> ManifestPage {
        let mut page = ManifestPage { entries: Vec::new(), more: false };
        let Some(number) = self.namespaces.find(namespace) else { return page };
        let from = match cursor < prefix || cursor.is_empty() {
            true => Bound::Included((number, prefix.to_vec(), None)),
            false => Bound::Excluded((number, cursor.to_vec(), Some(u64::MAX))),
        };
        for ((_, name, refs), id) in self.manifests.names.range((from, Bound::Unbounded)) {
            let meta = &self.manifests.by_entry[id];
            if meta.name.0 != number || !name.starts_with(prefix) {
                break;
            }
            if refs.is_some() {
                continue;
            }
            if page.entries.len() == count_max {
                page.more = true;
                break;
            }
            page.entries.push(meta.info());
        }
        page
    }

    /// Takes up a manifest found on the devices, when it is whole. Answers whether it is.
    pub(super) fn take_up_manifest(&mut self, id: EntryId, name: Vec<u8>, table: &[u8]) -> bool {
        let namespace = self.catalog.view(id).namespace;
        let Some(meta) = self.parse_table(namespace, name, table) else { return false };
        meta.chunks.iter().for_each(|chunk| self.catalog.add_ref(*chunk));
        self.manifests.insert(id, self.catalog.view(id).tick, meta);
        true
    }

    fn parse_table(&self, namespace: u16, name: Vec<u8>, table: &[u8]) -> Option<Meta> {
        let (header, rest) = TableHeader::ref_from_prefix(table).ok()?;
        let listed = <[TableChunk]>::ref_from_bytes(rest).ok()?;
        let role = role_of(header.role)?;
        let mut chunks = Vec::with_capacity(listed.len());
        for chunk in listed {
            let id = self.catalog.find(&chunk.digest)?;
            let view = self.catalog.view(id);
            let same = view.length == chunk.length.get() && view.checksum.0 == chunk.checksum;
            chunks.push(same.then_some(id)?);
        }
        let generation = header.generation.get();
        Some(Meta {
            name: (namespace, name, (role == Role::Refs).then_some(generation)),
            generation,
            body: ValueInfo { length: header.body_length.get(), checksum: Checksum(header.body_checksum) },
            chunk_count: header.chunk_count.get(),
            chunk_bytes: listed.iter().map(|chunk| chunk.length.get()).sum(),
            chunks: chunks.into(),
            after: 0,
        })
    }
}

fn role_byte(role: Role) -> u8 {
    match role {
        Role::Both => 0,
        Role::Refs => 1,
        Role::Home => 2,
    }
}

fn role_of(byte: u8) -> Option<Role> {
    match byte {
        0 => Some(Role::Both),
        1 => Some(Role::Refs),
        2 => Some(Role::Home),
        _ => None,
    }
}

pub(super) fn check_name(namespace: &[u8], name: &[u8]) -> Result<(), StoreError> {
    let fits = (1..=MANIFEST_NAME_BYTES_MAX).contains(&name.len()) && namespace.len() <= NAMESPACE_BYTES_MAX;
    if fits { Ok(()) } else { Err(StoreError::InvalidKey) }
}
