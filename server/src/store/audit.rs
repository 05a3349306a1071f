//! Do the books add up? Recounts what the store keeps counted.

use super::*;

/// What does not add up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    #[error("extent {extent}: {counted} live bytes counted, {found} found")]
    LiveBytes { extent: u32, counted: u32, found: u32 },
    #[error("extent {extent} is free or the journal's, and {records} records live in it")]
    LivesInFree { extent: u32, records: usize },
    #[error("value {entry}: {counted} references counted, {found} found")]
    References { entry: u32, counted: u32, found: u32 },
    #[error("a manifest names value {entry}, which is gone")]
    Dangling { entry: u32 },
    #[error("a lease on value {entry}, which is gone")]
    LeaseOfNothing { entry: u32 },
    #[error("namespace {namespace}: {counted} bytes counted, {found} stored")]
    Namespace { namespace: u16, counted: u64, found: u64 },
    #[error("device {device}: {free} free extents listed, {found} found")]
    FreeList { device: usize, free: usize, found: usize },
    #[error("device {device}: {counted} records counted, {found} found")]
    Records { device: usize, counted: u64, found: u64 },
    #[error("{counted} bytes in the recency order, {found} stored")]
    Recency { counted: u64, found: u64 },
}

impl<B: AsRef<[u8]> + Clone> Store<B> {
    /// Recounts everything; a healthy store answers `Ok` at any moment. Takes time in proportion to what is stored.
    pub fn audit(&self) -> Result<(), AuditError> {
        self.audit_space()?;
        self.audit_references()?;
        let mut used = vec![0; self.namespaces.names.len()];
        let mut stored = 0;
        for id in self.catalog.ids() {
            let view = self.catalog.view(id);
            used[view.namespace as usize] += view.length;
            stored += view.length;
        }
        if self.recency.bytes() != stored {
            return Err(AuditError::Recency { counted: self.recency.bytes(), found: stored });
        }
        for (namespace, found) in used.into_iter().enumerate() {
            let counted = self.namespaces.names[namespace].used_bytes;
            let pending = self.pending_bytes(namespace as u16);
            if counted != found + pending {
                return Err(AuditError::Namespace {
                    namespace: namespace as u16,
                    counted,
                    found: found + pending,
                });
            }
        }
        Ok(())
    }

    /// What is stored under a key. Unlike [`Store::exists`] it does not count as a use.
    pub fn holds(&self, key: Key<'_>) -> Option<ValueInfo> {
        let digest = self.secrets.digest(Kind::Value, key.namespace, key.key, None);
        let view = self.catalog.view(self.catalog.find(&digest)?);
        Some(ValueInfo { length: view.length, checksum: view.checksum })
    }

    /// Bytes that are charged and not stored yet.
    fn pending_bytes(&self, namespace: u16) -> u64 {
        let jobs = self.jobs.values().filter(|job| job.namespace == namespace).map(|job| job.shape.length);
        let waiting = self.manifest_ops.values().filter_map(|op| op.waiting_bytes(namespace));
        let open = self.allocations.values().filter_map(|allocation| allocation.charged_bytes(namespace));
        jobs.chain(waiting).chain(open).sum()
    }

    fn audit_space(&self) -> Result<(), AuditError> {
        for (device, state) in self.devices.iter().enumerate().filter(|(_, state)| !state.failed) {
            let mut free = 0;
            let mut records = 0;
            for (local, extent) in state.extents.iter().enumerate() {
                let number = state.base + local as u32;
                let residents = self.catalog.residents(number);
                let weigh = |(id, part): &(EntryId, u32)| self.weight(self.catalog.view(*id).length, *part);
                let found: u32 = residents.iter().map(weigh).sum();
                if extent.live_bytes != found {
                    return Err(AuditError::LiveBytes { extent: number, counted: extent.live_bytes, found });
                }
                let empty = matches!(extent.state, ExtentState::Free | ExtentState::Journal);
                if empty && !residents.is_empty() {
                    return Err(AuditError::LivesInFree { extent: number, records: residents.len() });
                }
                free += usize::from(extent.state == ExtentState::Free);
                records += residents.len() as u64;
            }
            if free != state.free.len() {
                return Err(AuditError::FreeList { device, free: state.free.len(), found: free });
            }
            if records != state.records {
                return Err(AuditError::Records { device, counted: state.records, found: records });
            }
        }
        Ok(())
    }

    fn audit_references(&self) -> Result<(), AuditError> {
        let mut found: HashMap<EntryId, u32> = HashMap::new();
        let published = self.manifests.chunks();
        let on_way = self.manifest_ops.values().flat_map(|op| op.chunks());
        published.chain(on_way).for_each(|chunk| *found.entry(chunk).or_default() += 1);
        if let Some(gone) = found.keys().find(|entry| !self.catalog.is_live(**entry)) {
            return Err(AuditError::Dangling { entry: gone.0 });
        }
        if let Some(gone) = self.leases.entries().find(|entry| !self.catalog.is_live(*entry)) {
            return Err(AuditError::LeaseOfNothing { entry: gone.0 });
        }
        for id in self.catalog.ids() {
            let counted = self.catalog.view(id).refs;
            let found = found.get(&id).copied().unwrap_or(0);
            if counted != found {
                return Err(AuditError::References { entry: id.0, counted, found });
            }
        }
        Ok(())
    }
}
