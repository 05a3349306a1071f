//! Memory that the client of one connection registered, and what all connections together may map.
//!
//! Files that came beside frames are taken in order, one for each descriptor, whatever becomes of the message. Invariants:
//! a connection has at most [`REGIONS_MAX`] regions and the server at most [`MAPPED_MAX`] mappings; a file that several
//! connections register is mapped once; once [`Regions::close`] has returned, nothing more is copied on behalf of the connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use memkv_transport::local::Files;
use memkv_transport::shared::{FileId, Region, RegionError};
use memkv_wire::limits::REGIONS_MAX;
use memkv_wire::{Ping, RegionDescriptorWhich, Status};

use crate::service::payload;

/// Regions that are mapped at a time, on the whole server: well below what a process may map.
const MAPPED_MAX: usize = 4096;

/// Every region that is mapped.
#[derive(Debug, Default)]
pub(super) struct Mapped(Mutex<HashMap<(FileId, u64), Weak<Region>>>);

impl Mapped {
    /// A region of this file, new or the one that is there. Blocks while memory is mapped.
    fn open(&self, file: std::os::fd::OwnedFd, length: u64) -> Result<Arc<Region>, Refusal> {
        let id = Region::identify(&file)?;
        if let Some(region) = self.lock().get(&(id, length)).and_then(Weak::upgrade) {
            return Ok(region);
        }
        if self.count() >= MAPPED_MAX {
            return Err(Refusal::TooMany);
        }
        let region = Arc::new(Region::open(file, length)?);
        // The file stays open behind the mapping, so its id cannot come to mean another one meanwhile.
        self.lock().insert((id, length), Arc::downgrade(&region));
        Ok(region)
    }

    /// Regions that are in use; forgets the others.
    fn count(&self) -> usize {
        let mut mapped = self.lock();
        mapped.retain(|_, region| region.strong_count() > 0);
        mapped.len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(FileId, u64), Weak<Region>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why memory was not registered.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Region(#[from] RegionError),
    #[error("{MAPPED_MAX} regions are mapped already")]
    TooMany,
    #[error("a connection has at most {REGIONS_MAX} regions")]
    TooManyHere,
    #[error("no file came for region {id}")]
    NoFile { id: u32 },
    #[error("region {id} is registered already")]
    Twice { id: u32 },
    #[error("memory of another kind than this connection can register")]
    Kind,
}

impl Refusal {
    fn status(&self) -> Status {
        match self {
            //= MKV-REG-4
            Refusal::Region(
                RegionError::Outside { .. }
                | RegionError::NotMemory
                | RegionError::HugePages
                | RegionError::Unsealed
                | RegionError::Short { .. }
                | RegionError::Length { .. }
                | RegionError::System(_),
            ) => Status::Invalid,
            Refusal::Region(RegionError::NoSystem) | Refusal::Kind => Status::Unsupported,
            Refusal::TooMany | Refusal::TooManyHere => Status::Busy,
            Refusal::NoFile { .. } | Refusal::Twice { .. } => Status::Invalid,
        }
    }
}

/// The regions of one connection.
//= MKV-REG-2
#[derive(Debug, Default)]
pub(super) struct Regions {
    /// Held for reading while bytes are copied.
    table: RwLock<Table>,
    /// There on connections that files can come over.
    files: Option<Files>,
}

#[derive(Debug, Default)]
struct Table {
    regions: HashMap<u32, Arc<Region>>,
    closed: bool,
}

impl Regions {
    pub fn over(files: Option<Files>) -> Regions {
        Regions { table: RwLock::default(), files }
    }

    /// Uses a region, if it is registered.
    pub fn with<T>(&self, id: u32, copy: impl FnOnce(&Region) -> T) -> Option<T> {
        self.read().regions.get(&id).map(|region| copy(region))
    }

    /// Forgets all regions, after the copies under way have ended.
    //= MKV-REG-6
    pub fn close(&self) {
        let mut table = self.write();
        table.closed = true;
        table.regions.clear();
    }

    /// Does what a Ping asks for.
    //= MKV-PING-2
    pub async fn register(&self, mapped: &Arc<Mapped>, ping: &Ping<'_>) -> Status {
        {
            let mut table = self.write();
            ping.released.iter().for_each(|id| {
                table.regions.remove(&id);
            });
        }
        match self.open_all(mapped, ping).await {
            Ok(regions) => {
                let mut table = self.write();
                if !table.closed {
                    table.regions.extend(regions);
                }
                Status::Ok
            }
            Err(refusal) => {
                tracing::warn!(%refusal, "a client's memory was not registered");
                refusal.status()
            }
        }
    }

    async fn open_all(
        &self,
        mapped: &Arc<Mapped>,
        ping: &Ping<'_>,
    ) -> Result<Vec<(u32, Arc<Region>)>, Refusal> {
        let files = self.files.as_ref().ok_or(Refusal::Kind)?;
        // Taken before anything is refused, or the next message would get them.
        let mut taken = Vec::new();
        for descriptor in ping.regions.iter() {
            let shared = matches!(descriptor.which, RegionDescriptorWhich::SharedMemory);
            let file = if shared { files.take() } else { None };
            taken.push((descriptor.id, descriptor.length, shared, file));
        }
        if self.read().regions.len() + taken.len() > REGIONS_MAX as usize {
            return Err(Refusal::TooManyHere);
        }
        let mut regions: Vec<(u32, Arc<Region>)> = Vec::with_capacity(taken.len());
        for (id, length, shared, file) in taken {
            if !shared {
                return Err(Refusal::Kind);
            }
            if self.read().regions.contains_key(&id) || regions.iter().any(|(other, _)| *other == id) {
                return Err(Refusal::Twice { id });
            }
            let file = file.ok_or(Refusal::NoFile { id })?;
            let mapped = Arc::clone(mapped);
            let opened = tokio::task::spawn_blocking(move || mapped.open(file, length)).await;
            regions.push((id, opened.map_err(|_| RegionError::NoSystem)??));
        }
        Ok(regions)
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl payload::Regions for Regions {
    fn read(&self, region: u32, offset: u64, into: &mut [u8]) -> Result<(), Status> {
        match self.with(region, |region| region.read(offset, into)) {
            Some(Ok(())) => Ok(()),
            //= MKV-REG-1
            Some(Err(_)) => Err(Status::Invalid),
            None if self.files.is_some() => Err(Status::Invalid),
            None => Err(Status::Unsupported),
        }
    }
}
