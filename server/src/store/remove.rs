//! How values and manifests leave: deleted by a client, or lost with the bytes under them.

use memkv_transport::planted::{self, Bug};

use super::*;
use crate::store::durability::Then;
use crate::store::journal::Entry;
use crate::store::manifest::check_name;

/// A manifest's delete, while it waits for the removal of what the manifest replaced.
#[derive(Debug)]
pub(super) struct Deletion {
    ticket: Ticket,
    namespace: Vec<u8>,
    name: Vec<u8>,
    slot: Slot,
    generation: Option<u64>,
}

impl<B: AsRef<[u8]> + Clone> Store<B> {
    /// Deletes a value. Ends in [`Outcome::Deleted`] once it is durable, or in `NotFound`, `Referenced` or `Leased`.
    ///
    /// A lease of the deleting client itself is given up; one of another client refuses the delete.
    //= MKV-DEL-2
    pub fn delete(&mut self, now_ms: u64, client: ClientId, ticket: Ticket, key: Key<'_>) {
        self.advance(now_ms);
        let result = self.begin_delete(client, key);
        match result {
            // What is missing may have been evicted a moment ago: the answer holds after a loss of power, too.
            Ok(()) | Err(StoreError::NotFound) => {
                let needs = self.removal_needs();
                self.wait(needs, Then::Answer(ticket, result.map(|()| Outcome::Deleted)));
            }
            Err(error) => self.answer(ticket, Err(error)),
        }
    }

    fn begin_delete(&mut self, client: ClientId, key: Key<'_>) -> Result<(), StoreError> {
        self.accepting()?;
        check_key(key)?;
        let digest = self.value_digests.digest(key.namespace, key.key);
        let id = self.catalog.find(&digest).ok_or(StoreError::NotFound)?;
        let manifests = self.catalog.view(id).refs;
        //= MKV-DEL-1
        if manifests > 0 {
            return Err(StoreError::Referenced { manifests });
        }
        //= MKV-LEASE-1
        self.leases.expire(self.now_ms);
        if let Some(until_ms) = self.leases.held_by_others(id, client) {
            return Err(StoreError::Leased { until_ms });
        }
        self.remove_entry(id);
        self.counters.deletes += 1;
        Ok(())
    }

    /// Deletes a manifest, or those of role `Refs` of a name, up to a generation. Ends in [`Outcome::ManifestDeleted`].
    //= MKV-DELM-1
    //= MKV-DELM-2
    pub fn delete_manifest(
        &mut self,
        now_ms: u64,
        ticket: Ticket,
        namespace: &[u8],
        name: &[u8],
        slot: Slot,
        generation: Option<u64>,
    ) {
        self.advance(now_ms);
        let deletion =
            Deletion { ticket, namespace: namespace.to_vec(), name: name.to_vec(), slot, generation };
        let settled = match (slot, self.namespaces.find(namespace)) {
            (Slot::Published, Some(number)) => {
                let found = self.manifests.published(number, name);
                found.is_none_or(|(id, _)| self.manifests.is_settled(id))
            }
            (Slot::Refs, _) | (_, None) => true,
        };
        let needs = if settled { Vec::new() } else { self.manifest_removal_needs() };
        self.wait(needs, Then::DeleteManifest(Box::new(deletion)));
    }

    /// What the manifest replaced will not come back.
    pub(super) fn delete_manifest_now(&mut self, deletion: Deletion) {
        let Deletion { ticket, namespace, name, slot, generation } = deletion;
        let result = self.begin_delete_manifest(&namespace, &name, slot, generation);
        match result {
            Ok(_) | Err(StoreError::NotFound) => {
                let needs = self.removal_needs();
                let result = result.map(|generation| Outcome::ManifestDeleted { generation });
                self.wait(needs, Then::Answer(ticket, result));
            }
            Err(error) => self.answer(ticket, Err(error)),
        }
    }

    fn begin_delete_manifest(
        &mut self,
        namespace: &[u8],
        name: &[u8],
        slot: Slot,
        generation: Option<u64>,
    ) -> Result<u64, StoreError> {
        self.accepting()?;
        check_name(namespace, name)?;
        let number = self.namespaces.find(namespace).ok_or(StoreError::NotFound)?;
        let found: Vec<_> = match slot {
            Slot::Published => self.manifests.published(number, name).into_iter().collect(),
            Slot::Refs => self.manifests.refs(number, name).collect(),
        };
        let stored = found.iter().map(|(_, meta)| meta.generation).min().ok_or(StoreError::NotFound)?;
        let generation_max = generation.unwrap_or(u64::MAX);
        if stored > generation_max {
            return Err(StoreError::StaleGeneration { current: stored });
        }
        let gone: Vec<_> = found
            .into_iter()
            .filter(|(_, meta)| meta.generation <= generation_max)
            .map(|(id, meta)| (id, meta.generation))
            .collect();
        for (id, _) in &gone {
            self.remove_manifest(*id);
            self.counters.manifests_deleted += 1;
        }
        Ok(gone.into_iter().map(|(_, generation)| generation).max().unwrap_or(stored))
    }

    /// Takes an entry that no manifest names out of the catalogue, and says so in the journals.
    pub(super) fn remove_entry(&mut self, id: EntryId) {
        let view = self.catalog.view(id);
        debug_assert_eq!(view.refs, 0, "a named value stays");
        let places = self.catalog.places(id);
        for (part, place) in places.iter().enumerate() {
            let weight = self.weight(view.length, part as u32);
            let (device, local) = self.locate(place.extent);
            let target = &mut self.devices[device];
            target.records -= 1;
            let extent = &mut target.extents[local as usize];
            extent.live_bytes -= weight;
            let seq = extent.seq;
            let digest = view.digest;
            if !(view.manifest && planted::is(Bug::DeleteNotLogged)) {
                target.log(&Entry::Removed { digest, extent: local, offset: place.offset, seq });
            }
            // It may have a second copy, moved or on the way: that one is dead, too.
            if let Some(copy) = self.reclaim.moving.remove(&(id, part as u32)) {
                let local = copy.extent - target.base;
                let seq = target.extents[local as usize].seq;
                target.log(&Entry::Removed { digest, extent: local, offset: copy.offset, seq });
            }
        }
        self.reclaim.removals += 1;
        self.catalog.remove(id);
        self.leases.forget(id);
        self.namespaces.refund(view.namespace, view.length);
        self.recency.remove(view.tick, view.length);
        places.iter().for_each(|place| self.free_if_dead(place.extent));
    }

    /// The bytes of an entry are gone or wrong: it is a miss from now on, and so is every manifest that names it.
    pub(super) fn lose(&mut self, id: EntryId) {
        let device = &self.devices[self.locate(self.catalog.view(id).place.extent).0];
        // A device that goes on lost this value alone: another attempt is told to write it again.
        let why = match device.failed {
            true => StoreError::DeviceFailed { device: device.index },
            false => StoreError::ChunkLost,
        };
        self.lose_all(&Set::from_iter([id]), &why);
    }

    /// As `lose`. A device takes many at once, and every manifest is looked at once for all of them.
    pub(super) fn lose_all(&mut self, lost: &Set<EntryId>, why: &StoreError) {
        let named: Set<_> = lost.iter().copied().filter(|id| self.catalog.view(*id).refs > 0).collect();
        if !named.is_empty() {
            for manifest in self.manifests.naming(&named) {
                self.counters.manifests_lost += 1;
                self.remove_manifest(manifest);
            }
            let held = self.manifest_ops.values_mut().flat_map(|op| op.forget_chunks(&named, why));
            held.for_each(|chunk| self.catalog.drop_ref(chunk));
        }
        for id in lost {
            // A manifest may have gone with its chunks.
            if !self.catalog.is_live(*id) {
                continue;
            }
            if self.catalog.view(*id).manifest {
                self.remove_manifest(*id);
            } else {
                self.counters.values_lost += 1;
                self.remove_entry(*id);
            }
        }
    }

    /// Marks an entry as used now.
    pub(super) fn touch(&mut self, id: EntryId) {
        let view = self.catalog.view(id);
        let now = self.recency.advance(view.length);
        if now != view.tick {
            self.recency.remove(view.tick, view.length);
            self.recency.add(now, view.length);
            self.catalog.set_tick(id, now);
            if view.manifest {
                self.manifests.used(id, view.tick, now);
            }
        }
    }

    /// Leases an entry for the default time, unless the client holds too many leases.
    pub(super) fn lease_quietly(&mut self, client: ClientId, id: EntryId) {
        let until_ms = self.now_ms + self.config.lease_ms_default;
        if self.leases.take(client, id, until_ms).is_err() {
            self.counters.leases_refused += 1;
        }
    }
}
