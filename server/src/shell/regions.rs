//! Memory that the client of one connection registered, and what all connections together may map.
//!
//! It is of the kind that the connection is of: files that came over a local socket, which are mapped and copied from and to; or places in the
//! client's memory that the device reaches over the connection's queue pair ([`super::one_sided`]).
//!
//! Files that came beside frames are taken in order, one for each descriptor, whatever becomes of the message. Invariants:
//! a connection has at most [`REGIONS_MAX`] regions and the server at most [`MAPPED_MAX`] mappings; a file that several
//! connections register is mapped once; once [`Regions::close`] has returned, nothing more is copied on behalf of the connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use memkv_transport::buf::Buf;
use memkv_transport::local::Files;
use memkv_transport::shared::{FileId, Region, RegionError};
use memkv_wire::limits::REGIONS_MAX;
use memkv_wire::{Ping, RdmaMemory, RegionDescriptor, RegionDescriptorWhich, Status};

#[cfg(target_os = "linux")]
use super::one_sided::OneSided;
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
    #[error("region {id} has no bytes, or does not end within 64 bits of address")]
    Extent { id: u32 },
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
            Refusal::NoFile { .. } | Refusal::Twice { .. } | Refusal::Extent { .. } => Status::Invalid,
        }
    }
}

/// The regions of one connection.
//= MKV-REG-2
#[derive(Debug, Default)]
pub(super) struct Regions {
    /// Held for reading while bytes are copied.
    table: RwLock<Table>,
    way: Way,
}

/// How the connection's client can share memory.
#[derive(Debug, Default)]
pub(super) enum Way {
    #[default]
    None,
    /// Files that come beside frames.
    Files(Files),
    #[cfg(target_os = "linux")]
    OneSided(Box<OneSided>),
}

#[derive(Debug, Default)]
struct Table {
    regions: HashMap<u32, Registered>,
    closed: bool,
}

#[derive(Debug)]
enum Registered {
    Mapped(Arc<Region>),
    Remote(Remote),
}

/// Memory of a client on another host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remote {
    pub address: u64,
    pub key: u32,
    length: u64,
}

impl Remote {
    //= MKV-REG-8
    fn new(descriptor: &RegionDescriptor, memory: &RdmaMemory) -> Result<Remote, Refusal> {
        let (id, length) = (descriptor.id, descriptor.length);
        let ends = length > 0 && memory.address.checked_add(length).is_some();
        let remote = Remote { address: memory.address, key: memory.remote_key, length };
        if ends { Ok(remote) } else { Err(Refusal::Extent { id }) }
    }

    /// The rest of it from a byte on, if it has so many there.
    //= MKV-REG-1
    fn at(&self, offset: u64, length: usize) -> Option<Remote> {
        let end = offset.checked_add(length as u64)?;
        let rest = self.length.checked_sub(offset).filter(|_| end <= self.length)?;
        Some(Remote { address: self.address + offset, key: self.key, length: rest })
    }
}

impl Regions {
    pub fn over(way: Way) -> Regions {
        Regions { table: RwLock::default(), way }
    }

    /// What reaches the client's memory over its queue pair, if that is what this connection is.
    #[cfg(target_os = "linux")]
    pub fn one_sided(&self) -> Option<&OneSided> {
        match &self.way {
            Way::OneSided(one_sided) => Some(one_sided),
            Way::None | Way::Files(_) => None,
        }
    }

    /// Whether so many bytes from a place on are registered.
    //= MKV-REG-1
    pub fn has(&self, id: u32, offset: u64, length: usize) -> bool {
        match self.read().regions.get(&id) {
            Some(Registered::Mapped(region)) => region.check(offset, length).is_ok(),
            Some(Registered::Remote(remote)) => remote.at(offset, length).is_some(),
            None => false,
        }
    }

    /// Copies bytes to their place, where that is mapped: then none are left. False if they cannot be.
    pub fn land(&self, id: u32, offset: u64, bytes: &mut Buf) -> bool {
        match self.read().regions.get(&id) {
            Some(Registered::Mapped(region)) => region.write(offset, &std::mem::take(bytes)).is_ok(),
            // The sender has the device write them, right before the frame that names them.
            Some(Registered::Remote(remote)) => remote.at(offset, bytes.len()).is_some(),
            None => false,
        }
    }

    /// Where bytes are in the client's memory, if they are registered.
    #[cfg(target_os = "linux")]
    pub fn remote(&self, id: u32, offset: u64, length: usize) -> Option<Remote> {
        match self.read().regions.get(&id)? {
            Registered::Remote(remote) => remote.at(offset, length),
            Registered::Mapped(_) => None,
        }
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
    ) -> Result<Vec<(u32, Registered)>, Refusal> {
        // Taken before anything is refused, or the next message would get them.
        let mut taken = Vec::new();
        for descriptor in ping.regions.iter() {
            let source = match (&descriptor.which, &self.way) {
                (RegionDescriptorWhich::SharedMemory, Way::Files(files)) => Source::File(files.take()),
                #[cfg(target_os = "linux")]
                (RegionDescriptorWhich::Rdma(memory), Way::OneSided(_)) => {
                    Source::Remote(Remote::new(&descriptor, memory))
                }
                _ => Source::Other,
            };
            taken.push((descriptor.id, descriptor.length, source));
        }
        if matches!(self.way, Way::None) && !taken.is_empty() {
            return Err(Refusal::Kind);
        }
        if self.read().regions.len() + taken.len() > REGIONS_MAX as usize {
            return Err(Refusal::TooManyHere);
        }
        let mut regions: Vec<(u32, Registered)> = Vec::with_capacity(taken.len());
        for (id, length, source) in taken {
            if matches!(source, Source::Other) {
                return Err(Refusal::Kind);
            }
            if self.read().regions.contains_key(&id) || regions.iter().any(|(other, _)| *other == id) {
                return Err(Refusal::Twice { id });
            }
            let registered = match source {
                Source::Remote(remote) => Registered::Remote(remote?),
                Source::File(file) => {
                    let (file, mapped) = (file.ok_or(Refusal::NoFile { id })?, Arc::clone(mapped));
                    let opened = tokio::task::spawn_blocking(move || mapped.open(file, length)).await;
                    Registered::Mapped(opened.map_err(|_| RegionError::NoSystem)??)
                }
                Source::Other => return Err(Refusal::Kind),
            };
            regions.push((id, registered));
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

/// What a descriptor of a ping names.
enum Source {
    File(Option<std::os::fd::OwnedFd>),
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "there are no queue pairs"))]
    Remote(Result<Remote, Refusal>),
    Other,
}

impl payload::Regions for Regions {
    fn read(&self, _: usize, region: u32, offset: u64, into: &mut [u8]) -> Result<(), Status> {
        match (self.read().regions.get(&region), &self.way) {
            (Some(Registered::Mapped(region)), _) => {
                //= MKV-REG-1
                region.read(offset, into).map_err(|_| Status::Invalid)
            }
            (_, Way::None) => Err(Status::Unsupported),
            (_, _) => Err(Status::Invalid),
        }
    }
}
