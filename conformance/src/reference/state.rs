//! What is stored: values, allocations and manifests of every namespace.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use memkv_wire::checksum::{self, Checksum};
use memkv_wire::limits::LEASE_MS_DEFAULT;
use memkv_wire::{ChunkReference, Status};

use super::flaw::Flaw;

/// Everything.
#[derive(Default)]
pub struct State {
    namespaces: HashMap<Vec<u8>, Namespace>,
    pub allocations: HashMap<u64, Allocation>,
    pub next_allocation: u64,
    /// By namespace and key: who leased a value, and until when.
    leases: HashMap<(Vec<u8>, Vec<u8>), HashMap<ClientId, Instant>>,
}

pub type ClientId = [u8; 16];

#[derive(Default)]
pub struct Namespace {
    pub values: BTreeMap<Vec<u8>, Value>,
    pub manifests: BTreeMap<Vec<u8>, Manifest>,
    /// References of manifests whose names live on another server.
    pub references: BTreeMap<Vec<u8>, Manifest>,
    /// The last generations of names that were deleted, for [`Flaw::DeletedNameNotFree`].
    pub deleted: BTreeMap<Vec<u8>, u64>,
}

/// A stored value.
#[derive(Clone)]
pub struct Value {
    pub data: Arc<Vec<u8>>,
    pub checksum: Checksum,
}

impl Value {
    pub fn new(data: Vec<u8>) -> Value {
        Value { checksum: checksum::value_of(&data), data: Arc::new(data) }
    }
}

/// A value in the making.
pub struct Allocation {
    pub namespace: Vec<u8>,
    pub key: Vec<u8>,
    pub checksum: Option<Checksum>,
    pub filling: Filling,
    pub client: ClientId,
    pub until: Instant,
}

/// Bytes of a value, block by block.
pub struct Filling {
    pub data: Vec<u8>,
    /// Which bytes came, in blocks.
    pub filled: Vec<bool>,
}

/// A chunk that a manifest names.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk {
    pub key: Vec<u8>,
    pub length: u64,
    pub checksum: Option<Checksum>,
}

impl From<ChunkReference<'_>> for Chunk {
    fn from(chunk: ChunkReference<'_>) -> Chunk {
        Chunk { key: chunk.key.to_vec(), length: chunk.length, checksum: chunk.checksum.copied() }
    }
}

#[derive(Clone)]
pub struct Manifest {
    pub generation: u64,
    pub body: Arc<Vec<u8>>,
    pub chunks: Vec<Chunk>,
    /// Chunks of manifests that this one replaced, by mistake.
    pub stale_chunks: Vec<Chunk>,
}

impl State {
    pub fn namespace(&mut self, name: &[u8], flaw: Option<Flaw>) -> &mut Namespace {
        let name = match flaw {
            Some(Flaw::OneNamespace) => &[],
            Some(Flaw::NamespaceLastByteLost) => &name[..name.len().min(254)],
            _ => name,
        };
        self.namespaces.entry(name.to_vec()).or_default()
    }

    pub fn lease(
        &mut self,
        namespace: &[u8],
        key: &[u8],
        client: ClientId,
        lease_ms: u32,
        flaw: Option<Flaw>,
    ) {
        let leases = self.leases.entry((namespace.to_vec(), key.to_vec())).or_default();
        if flaw == Some(Flaw::LastLeaseCounts) {
            leases.clear();
        }
        let end = end_of_lease(lease_ms);
        let until = leases.entry(client).or_insert(end);
        *until = end.max(*until);
    }

    /// Stores a value whose bytes and checksums held; a new one is leased to who wrote it.
    //= MKV-WR-5
    pub fn store(
        &mut self,
        namespace: &[u8],
        key: &[u8],
        client: ClientId,
        value: Value,
        flaw: Option<Flaw>,
    ) -> Status {
        let space = self.namespace(namespace, flaw);
        let is_new = !space.values.contains_key(key);
        let status = space.store(key, value, flaw);
        if is_new && status == Status::Ok && flaw != Some(Flaw::NewValueUnleased) {
            self.lease(namespace, key, client, 0, flaw);
        }
        status
    }

    /// Takes a value out, and the leases on it.
    pub fn remove(&mut self, namespace: &[u8], key: &[u8], flaw: Option<Flaw>) {
        self.namespace(namespace, flaw).values.remove(key);
        self.leases.remove(&(namespace.to_vec(), key.to_vec()));
    }

    pub fn forget_leases(&mut self, client: ClientId) {
        self.leases.values_mut().for_each(|leases| leases.retain(|holder, _| *holder != client));
    }

    /// Whether another client leased the value.
    //= MKV-LEASE-1
    pub fn is_leased(&self, namespace: &[u8], key: &[u8], client: ClientId) -> bool {
        let lease = self.leases.get(&(namespace.to_vec(), key.to_vec()));
        let now = Instant::now();
        lease.is_some_and(|leases| leases.iter().any(|(holder, until)| *holder != client && *until > now))
    }
}

pub fn end_of_lease(lease_ms: u32) -> Instant {
    let lease_ms = if lease_ms == 0 { LEASE_MS_DEFAULT } else { lease_ms };
    Instant::now() + Duration::from_millis(lease_ms.into())
}

impl Namespace {
    //= MKV-WR-3
    fn store(&mut self, key: &[u8], value: Value, flaw: Option<Flaw>) -> Status {
        match self.values.get(key) {
            Some(stored) if flaw == Some(Flaw::ConflictByLength) && stored.data.len() == value.data.len() => {
                Status::Ok
            }
            Some(stored) if stored.data.len() != value.data.len() || stored.checksum != value.checksum => {
                match flaw {
                    Some(Flaw::ConflictReplaces) => {
                        self.values.insert(key.to_vec(), value);
                        Status::Ok
                    }
                    Some(Flaw::ConflictUnsaid) => Status::Ok,
                    _ => Status::Conflict,
                }
            }
            Some(_) if flaw == Some(Flaw::RewriteConflicts) => Status::Conflict,
            Some(_) => Status::Ok,
            None => {
                self.values.insert(key.to_vec(), value);
                Status::Ok
            }
        }
    }

    pub fn is_referenced(&self, key: &[u8]) -> bool {
        let manifests = self.manifests.values().chain(self.references.values());
        manifests
            .flat_map(|manifest| manifest.chunks.iter().chain(&manifest.stale_chunks))
            .any(|chunk| chunk.key == key)
    }
}
