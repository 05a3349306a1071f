//! What an open handle does, in safe Rust.
//!
//! Puts are buffered. A manifest in MemKV's own format references exactly the chunks it lists: one `PutManifest` asks and
//! publishes at once, and only what the server says is missing is written before it is tried again. An empty
//! manifest is a flush; any other one references nothing. Whoever can read a manifest can read every chunk put before it
//! through the same handle: so chunks that it does not list are written before it is published.
//!
//! A chunk that the server has leased to this handle is not copied when it is put again (see `stored`).
//!
//! No lock is held while the server is waited for, but `flushing`, which only those wait for who flush too.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use memkv_client::blocking::Client;
use memkv_client::error::ApiMisuse;
use memkv_client::{Buf, BufMut, Config, Error, Published, PutItem, Reference, Value};
use memkv_wire::limits::{BATCH_ITEMS_MAX, PUT_MANIFEST_RETRIES_MAX, VALUE_SIZE_BYTES_MAX};
use memkv_wire::manifest::{ManifestBlob, is_manifest};
use memkv_wire::{Status, checksum};

use crate::buffer::{BUFFER_SIZE_BYTES_MAX, Hash, PutBuffer, Ready};
use crate::cbuf::Malloced;
use crate::code::Failure;
use crate::log::{self, Level};
use crate::prefetch::{Prefetch, Wanted};
use crate::stored::{self, Stored, Term};

/// A chunk's limit: that of a value.
pub(crate) const CHUNK_SIZE_BYTES_MAX: usize = VALUE_SIZE_BYTES_MAX as usize;
/// More hashes than any session has chunks are a mistake.
pub(crate) const PREFETCH_CHUNKS_MAX: usize = 1 << 20;
/// How long `close` may take to write what is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take, unless [`TIMEOUT_VARIABLE`] says otherwise.
const TIMEOUT_MS: u64 = 10_000;
const TIMEOUT_VARIABLE: &str = "MEMKV_TIMEOUT_MS";
/// A flush of at least so many bytes asks first what is stored already.
const ASK_SIZE_BYTES_MIN: usize = 256 << 10;
/// Memory made ready for each direction when a store is opened, unless [`WARM_VARIABLE`] says otherwise: a small session's worth.
const WARM_MIB: usize = 4;
/// A page costs microseconds once, so whoever restores a large session first thing had better say its size.
const WARM_VARIABLE: &str = "MEMKV_WARM_MIB";
const WARM_MIB_MAX: usize = RECEIVE_SIZE_BYTES_MAX >> 21;
/// Requests of one prefetch that are under way at a time: enough to keep the server busy while the engine takes what came.
const PREFETCH_TASKS_MAX: usize = 2;
/// A chunk that is written past the buffer may take a second for each so many bytes, beside what any call may take.
const WRITE_SIZE_BYTES_PER_S: usize = 10 << 20;
/// Received bytes that may wait for the engine: what is prefetched, what surrounds it in its buffers, and what else comes.
const RECEIVE_SIZE_BYTES_MAX: usize = 512 << 20;
/// The part of it that a chunk may hold until it is whole. Larger ones are copied out as they come.
const HELD_SHARE: usize = 16;
/// The parts of it that prefetched chunks leave to one that was not prefetched, and to a large one, which comes in waves of a quarter.
const CHUNK_FREE_SHARE: usize = 4;
const LARGE_FREE_SHARE: usize = 2;
/// Attempts to read a large chunk that turns out longer than it was.
const LARGE_ATTEMPTS_MAX: u32 = 3;

#[cfg(test)]
mod tests;

#[derive(Debug)]
pub(crate) struct Store {
    client: Client,
    buffer: Mutex<PutBuffer>,
    /// Held by whoever writes everything that is buffered.
    flushing: Mutex<()>,
    prefetch: Prefetch,
    /// Held by whoever reads a large chunk: several at once could wait for memory that they have from each other.
    reading_large: Mutex<()>,
    /// What the server has, and keeps for now.
    stored: Mutex<Remembered>,
}

/// What is remembered of the server, until a connection to it is lost.
#[derive(Debug, Default)]
struct Remembered {
    stored: Stored,
    connections_lost: u64,
}

impl Store {
    /// Connects. `first` is what every thread of the store does first.
    pub fn open(uri: &str, first: impl FnOnce() + Copy + Send + 'static) -> Result<Self, Error> {
        let mut config = Config::from_env(uri)?;
        config.timeout_ms = std::env::var(TIMEOUT_VARIABLE)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .filter(|timeout_ms| *timeout_ms > 0)
            .unwrap_or(TIMEOUT_MS);
        let warm_mib = std::env::var(WARM_VARIABLE).ok().and_then(|text| text.trim().parse().ok());
        config.warm_size_bytes = warm_mib.unwrap_or(WARM_MIB).min(WARM_MIB_MAX) << 20;
        let warm_size_bytes = config.warm_size_bytes;
        config.receive_size_bytes_max = RECEIVE_SIZE_BYTES_MAX;
        config.client_name = concat!("libkv_store_memkv ", env!("CARGO_PKG_VERSION")).to_owned();
        let store = Self::connect(config, first)?;
        // What is shared with the server was made ready before it was registered.
        if !store.client.client().shares_memory() {
            warm_up(store.client.client().clone(), warm_size_bytes, first);
        }
        Ok(store)
    }

    fn connect(config: Config, first: impl FnOnce() + Send + 'static) -> Result<Self, Error> {
        let client = Client::connect_with(config, first)?;
        let prefetch = Prefetch::new(client.client().receive_pool().clone());
        Ok(Self {
            client,
            buffer: Mutex::new(PutBuffer::new()),
            flushing: Mutex::new(()),
            prefetch,
            reading_large: Mutex::new(()),
            stored: Mutex::default(),
        })
    }

    /// Writes what is left, for a bounded time.
    pub fn close(&self) {
        if lock(&self.buffer).len() == 0 {
            return;
        }
        let client = self.client.with_timeout(CLOSE_TIMEOUT);
        if let Err(failure) = self.flush(&client) {
            let left = lock(&self.buffer).len();
            log::line(
                Level::Error,
                format_args!("{left} chunks were not written when the store was closed: {failure}"),
            );
        }
    }

    // ------------------------------------------------------------------------------------------ chunks

    pub fn put_chunk(&self, hash: Hash, data: &[u8]) -> Result<(), Failure> {
        if data.is_empty() {
            return Err(Failure::Invalid("a chunk has at least one byte"));
        }
        if data.len() > BUFFER_SIZE_BYTES_MAX {
            return self.put_through(&hash, data);
        }
        loop {
            let mut buffer = lock(&self.buffer);
            if let Some(known) = buffer.known(&hash) {
                // Chunks never change: the same hash is the same chunk.
                return if known.size_bytes == data.len() { Ok(()) } else { Err(Failure::Conflict) };
            }
            if let Some(chunk) = self.remembered(|stored| stored.sure(&hash, Instant::now())) {
                return if chunk.size_bytes == data.len() as u64 { Ok(()) } else { Err(Failure::Conflict) };
            }
            if buffer.has_room(data.len()) {
                return buffer.put(self.client.pool(), hash, data);
            }
            drop(buffer);
            self.write_early(data.len())?;
        }
    }

    /// A chunk that is larger than the buffer.
    fn put_through(&self, hash: &Hash, data: &[u8]) -> Result<(), Failure> {
        let parts = self.copied(data)?;
        let more = Duration::from_secs((data.len() / WRITE_SIZE_BYTES_PER_S) as u64);
        let client = self.client.with_timeout(self.client.timeout() + more);
        match client.put(hash.as_bytes(), &parts) {
            Err(Error::Storage(error)) if error.status == Status::Conflict => Err(Failure::Conflict),
            result => Ok(result?),
        }
    }

    pub fn get_chunk(&self, hash: Hash) -> Result<Malloced, Failure> {
        if let Some(copy) = lock(&self.buffer).copy(&hash) {
            return copy;
        }
        if let Some(value) = self.prefetch.take(&hash) {
            return copy_of(&value);
        }
        self.prefetch.leave_free(self.receive_size_bytes_max() / CHUNK_FREE_SHARE);
        let known = lock(&self.stored).stored.remembered(&hash);
        if let Some(chunk) = known.filter(|chunk| chunk.size_bytes > self.held_size_bytes_max()) {
            return self.get_large(&hash, chunk.size_bytes);
        }
        match self.client.get_within(hash.as_bytes(), self.held_size_bytes_max()) {
            Err(Error::Misuse(ApiMisuse::BufferTooSmall { needed_bytes, .. })) => {
                self.get_large(&hash, needed_bytes)
            }
            value => copy_of(&value?.ok_or(Failure::NotFound)?),
        }
    }

    fn receive_size_bytes_max(&self) -> usize {
        self.client.client().receive_pool().budget_size_bytes()
    }

    /// The largest chunk that is held as it was received.
    fn held_size_bytes_max(&self) -> u64 {
        (self.receive_size_bytes_max() / HELD_SHARE) as u64
    }

    /// A chunk of this length, or thereabouts, into the engine's memory as it comes: received whole it could need more memory than
    /// there is for all that is received.
    fn get_large(&self, hash: &Hash, mut size_bytes: u64) -> Result<Malloced, Failure> {
        let _reading = lock(&self.reading_large);
        self.prefetch.leave_free(self.receive_size_bytes_max() / LARGE_FREE_SHARE);
        for _ in 0..LARGE_ATTEMPTS_MAX {
            let mut chunk = Malloced::zeroed(size_bytes.min(VALUE_SIZE_BYTES_MAX) as usize)?;
            match self.client.get_into(hash.as_bytes(), chunk.bytes_mut()) {
                Err(Error::Misuse(ApiMisuse::BufferTooSmall { needed_bytes, .. })) => {
                    size_bytes = needed_bytes
                }
                read => {
                    chunk.truncate(read?.ok_or(Failure::NotFound)?);
                    return Ok(chunk);
                }
            }
        }
        // One manifest or reply says so, the next one otherwise.
        Err(Failure::Conflict)
    }

    /// Begins to read chunks together, for `get_chunk` to find or to wait for. Chunks that are not stored are no failure here;
    /// large ones are left to `get_chunk`, which has the memory for them.
    pub fn prefetch_chunks(&self, hashes: &[u8], hash_size_bytes: usize) -> Result<(), Failure> {
        let mut wanted = Vec::new();
        {
            let buffer = lock(&self.buffer);
            for hash in hashes.chunks_exact(hash_size_bytes) {
                let hash = Hash::new(hash)?;
                if !buffer.contains(&hash) && !self.prefetch.has(&hash) {
                    wanted.push((hash, 0));
                }
            }
        }
        self.find_lengths(&mut wanted)?;
        wanted.retain(|(_, size_bytes)| (1..=self.held_size_bytes_max()).contains(size_bytes));
        let fetch = Arc::new(self.prefetch.begin(wanted));
        for _ in 0..fetch.len().min(PREFETCH_TASKS_MAX) {
            let (client, fetch) = (self.client.client().clone(), Arc::clone(&fetch));
            self.client.spawn(async move {
                while let Some(group) = fetch.next() {
                    let keys: Vec<&[u8]> = group.wanted.iter().map(|(hash, _)| hash.as_bytes()).collect();
                    let lengths: Vec<u64> = group.wanted.iter().map(|(_, size_bytes)| *size_bytes).collect();
                    let came = |place, value| group.came(place, value);
                    if client.get_many_each(&keys, &lengths, came).await.is_err() {
                        return;
                    }
                }
            });
        }
        Ok(())
    }

    /// How long chunks are: as their manifest says, or as the server does; 0 for those that are not stored.
    fn find_lengths(&self, wanted: &mut [Wanted]) -> Result<(), Failure> {
        {
            let remembered = lock(&self.stored);
            for (hash, size_bytes) in wanted.iter_mut() {
                *size_bytes = remembered.stored.remembered(hash).map_or(0, |chunk| chunk.size_bytes);
            }
        }
        let mut unknown: Vec<_> = wanted.iter_mut().filter(|(_, size_bytes)| *size_bytes == 0).collect();
        for group in unknown.chunks_mut(BATCH_ITEMS_MAX as usize) {
            let keys: Vec<&[u8]> = group.iter().map(|(hash, _)| hash.as_bytes()).collect();
            let lengths = self.client.exists(&keys)?;
            for ((_, size_bytes), length) in group.iter_mut().zip(lengths) {
                *size_bytes = length;
            }
        }
        Ok(())
    }

    // --------------------------------------------------------------------------------------- manifests

    pub fn put_manifest(&self, name: &[u8], blob: &[u8]) -> Result<(), Failure> {
        if is_manifest(blob) {
            let Ok(manifest) = ManifestBlob::decode(blob) else {
                return Err(Failure::Invalid(
                    "a manifest of MemKV's format that is damaged or of a newer version",
                ));
            };
            return self.publish(name, blob, &manifest);
        }
        self.flush(&self.client)?;
        match self.client.publish(name, &[], &self.copied(blob)?)? {
            Published::Committed { .. } => Ok(()),
            // No chunk is named, and the generation is the latest.
            Published::Missing { .. } | Published::Conflict { .. } | Published::Stale { .. } => {
                Err(Failure::Conflict)
            }
        }
    }

    //= MKV-MAN-5
    //= MKV-PUT-3
    fn publish(&self, name: &[u8], blob: &[u8], manifest: &ManifestBlob<'_>) -> Result<(), Failure> {
        let chunks = self.named(manifest)?;
        self.write_others(&chunks)?;
        let references: Vec<_> = chunks.iter().map(Named::reference).collect();
        let body = self.copied(blob)?;
        for _ in 0..=PUT_MANIFEST_RETRIES_MAX {
            let sent = self.sending();
            match self.client.publish(name, &references, &body)? {
                Published::Committed { lease_ms, .. } => {
                    self.learn(sent, lease_ms, chunks.iter().map(Named::stored));
                    let mut buffer = lock(&self.buffer);
                    chunks.iter().for_each(|chunk| buffer.remove(&chunk.hash));
                    return Ok(());
                }
                Published::Missing { chunks: missing, .. } => {
                    let missing: Vec<_> = missing.iter().map(|&place| &chunks[place as usize]).collect();
                    self.write(&self.client, &self.ready(&missing)?)?;
                }
                Published::Conflict { .. } => {
                    lock(&self.stored).stored.forget_all();
                    return Err(Failure::Conflict);
                }
                // Others publish under this name, again and again.
                Published::Stale { .. } => return Err(Failure::Conflict),
            }
        }
        Err(Failure::MissingChunk)
    }

    /// The chunks that a manifest lists, each once, with what the buffer knows of them.
    fn named(&self, manifest: &ManifestBlob<'_>) -> Result<Vec<Named>, Failure> {
        let (buffer, remembered) = (lock(&self.buffer), lock(&self.stored));
        let mut seen = HashSet::new();
        let mut named = Vec::new();
        for (hash, chunk) in manifest.chunks() {
            let hash = Hash::new(hash)?;
            if !seen.insert(hash) {
                continue;
            }
            let known = buffer.known(&hash);
            if known.is_some_and(|known| known.size_bytes != chunk.length as usize) {
                return Err(Failure::Conflict);
            }
            let size_bytes = u64::from(chunk.length);
            let stored = remembered.stored.remembered(&hash).filter(|chunk| chunk.size_bytes == size_bytes);
            let checksum = known.map(|known| known.checksum);
            let checksum = checksum.or(stored.and_then(|chunk| chunk.checksum));
            named.push(Named { hash, size_bytes, checksum, buffered: known.is_some() });
        }
        Ok(named)
    }

    /// Looks at what is remembered of the server, if it can still be relied on.
    fn remembered<T>(&self, see: impl FnOnce(&Stored) -> Option<T>) -> Option<T> {
        let mut remembered = lock(&self.stored);
        let connections_lost = self.client.counters().connections_lost;
        if remembered.connections_lost != connections_lost {
            remembered.connections_lost = connections_lost;
            remembered.stored.forget_all();
        }
        see(&remembered.stored)
    }

    /// A request is about to be made, whose reply may grant leases.
    fn sending(&self) -> (Instant, u64) {
        (Instant::now(), self.client.counters().connections_lost)
    }

    /// Remembers chunks that were leased by the reply to a request; not if it may have gone to a server that is gone.
    fn learn(
        &self,
        (sent, connections_lost): (Instant, u64),
        lease_ms: u32,
        chunks: impl ExactSizeIterator<Item = (Hash, stored::Chunk)>,
    ) {
        if lease_ms == 0 || self.client.counters().connections_lost != connections_lost {
            return;
        }
        let mut remembered = lock(&self.stored);
        if remembered.connections_lost != connections_lost {
            remembered.connections_lost = connections_lost;
            remembered.stored.forget_all();
        }
        remembered.stored.learn(chunks, Instant::now(), Term::new(sent, lease_ms));
    }

    pub fn get_manifest(&self, name: &[u8]) -> Result<Malloced, Failure> {
        let sent = self.sending();
        let stored = self.client.get_manifest(name, 0)?.ok_or(Failure::NotFound)?;
        let copy = copy_of(&stored.body)?;
        let mut parts = stored.body.parts();
        if let (Some(blob), None) = (parts.next(), parts.next()) {
            self.learn_chunks(blob, sent, stored.lease_ms);
        }
        Ok(copy)
    }

    /// Keeps in mind how long a manifest's chunks are, if it says so, and that they are stored: known lengths save a round trip when
    /// they are read.
    fn learn_chunks(&self, blob: &[u8], sent: (Instant, u64), lease_ms: u32) {
        let Ok(manifest) = ManifestBlob::decode(blob) else { return };
        let listed = manifest.chunks().take(stored::CHUNKS_MAX);
        let chunks: Vec<_> =
            listed.filter_map(|(hash, chunk)| Some((Hash::new(hash).ok()?, chunk.length))).collect();
        let stored = |(hash, length): &(Hash, u32)| {
            (*hash, stored::Chunk { size_bytes: u64::from(*length), checksum: None })
        };
        self.learn(sent, lease_ms, chunks.iter().map(stored));
    }

    pub fn delete_manifest(&self, name: &[u8]) -> Result<(), Failure> {
        if self.client.delete_manifest(name, 0)? { Ok(()) } else { Err(Failure::NotFound) }
    }

    // ----------------------------------------------------------------------------------------- writing

    /// Makes room for one more chunk.
    fn write_early(&self, size_bytes: usize) -> Result<(), Failure> {
        let _flushing = lock(&self.flushing);
        // Whoever held the lock may have made it.
        if lock(&self.buffer).has_room(size_bytes) {
            return Ok(());
        }
        self.write_all(&self.client)
    }

    /// Writes what is buffered beside these chunks: other sessions' chunks, or those of an engine that lists only some.
    fn write_others(&self, listed: &[Named]) -> Result<(), Failure> {
        let listed: HashSet<Hash> = listed.iter().map(|chunk| chunk.hash).collect();
        let others = |buffer: &PutBuffer| {
            let hashes = buffer.hashes().into_iter().filter(|hash| !listed.contains(hash));
            hashes.collect::<Vec<_>>()
        };
        if others(&lock(&self.buffer)).is_empty() {
            return Ok(());
        }
        let _flushing = lock(&self.flushing);
        let ready = {
            let mut buffer = lock(&self.buffer);
            let hashes = others(&buffer);
            hashes.iter().filter_map(|hash| buffer.ready(hash)).collect()
        };
        self.write_unstored(&self.client, ready)
    }

    /// Everything that was put before is stored.
    fn flush(&self, client: &Client) -> Result<(), Failure> {
        let _flushing = lock(&self.flushing);
        self.write_all(client)
    }

    fn write_all(&self, client: &Client) -> Result<(), Failure> {
        let ready = {
            let mut buffer = lock(&self.buffer);
            let hashes = buffer.hashes();
            hashes.iter().filter_map(|hash| buffer.ready(hash)).collect()
        };
        self.write_unstored(client, ready)
    }

    /// Writes what the server does not have.
    fn write_unstored(&self, client: &Client, mut chunks: Vec<Ready>) -> Result<(), Failure> {
        let size_bytes: usize = chunks.iter().map(|chunk| chunk.size_bytes).sum();
        if size_bytes >= ASK_SIZE_BYTES_MIN {
            let mut stored = Vec::with_capacity(chunks.len());
            for group in chunks.chunks(BATCH_ITEMS_MAX as usize) {
                let keys: Vec<&[u8]> = group.iter().map(|chunk| chunk.hash.as_bytes()).collect();
                stored.extend(client.exists(&keys)?);
            }
            let mut stored = stored.into_iter();
            let mut buffer = lock(&self.buffer);
            chunks.retain(|chunk| {
                let there = stored.next() == Some(chunk.size_bytes as u64);
                if there {
                    buffer.remove(&chunk.hash);
                }
                !there
            });
        }
        self.write(client, &chunks)
    }

    /// Writes chunks; those that the server acknowledged leave the buffer.
    fn write(&self, client: &Client, chunks: &[Ready]) -> Result<(), Failure> {
        if chunks.is_empty() {
            return Ok(());
        }
        let items: Vec<_> = chunks.iter().map(Ready::item).collect();
        let results = client.put_many(&items)?;
        let mut failure = Ok(());
        let mut buffer = lock(&self.buffer);
        for (chunk, result) in chunks.iter().zip(results) {
            match result {
                Ok(()) => buffer.remove(&chunk.hash),
                Err(Error::Storage(error)) if error.status == Status::Conflict => {
                    // It can never be stored; kept, it would fail every flush from now on.
                    buffer.remove(&chunk.hash);
                    failure = Err(Failure::Conflict);
                }
                Err(error) => failure = failure.and(Err(error.into())),
            }
        }
        failure
    }

    /// What is buffered of these chunks, for sending. One that was buffered when its manifest was put, and is not any more, was
    /// stored by another thread after the server looked; one that was not is nowhere, whatever was remembered of it.
    fn ready(&self, missing: &[&Named]) -> Result<Vec<Ready>, Failure> {
        let mut buffer = lock(&self.buffer);
        let mut ready = Vec::with_capacity(missing.len());
        for chunk in missing {
            match buffer.ready(&chunk.hash) {
                Some(chunk) => ready.push(chunk),
                None if chunk.buffered => {}
                None => {
                    lock(&self.stored).stored.forget_all();
                    return Err(Failure::MissingChunk);
                }
            }
        }
        Ok(ready)
    }

    /// A copy of the caller's bytes, which are only good during the call.
    fn copied(&self, bytes: &[u8]) -> Result<Vec<Buf>, Failure> {
        let copy = |part: &[u8]| {
            let size_bytes = part.len();
            let buffer = self.client.pool().try_take(size_bytes).or_else(|_| BufMut::unpooled(size_bytes));
            let mut buffer = buffer.map_err(|_| Failure::NoMemory)?;
            buffer.copy_from_slice(part);
            Ok(buffer.freeze())
        };
        bytes.chunks(checksum::BLOCK_SIZE_BYTES).map(copy).collect()
    }
}

/// A copy for the engine.
fn copy_of(value: &Value) -> Result<Malloced, Failure> {
    let mut copy = Malloced::new(value.size_bytes() as usize)?;
    value.parts().for_each(|part| copy.push(part));
    Ok(copy)
}

/// Makes memory ready for the first session, beside whatever the engine does after opening the store.
fn warm_up(client: memkv_client::Client, size_bytes: usize, first: impl FnOnce() + Send + 'static) {
    let run = move || {
        first();
        client.warm_up(size_bytes);
    };
    // Without a thread for it, the first session is slower: no reason not to open.
    let _ = std::thread::Builder::new().name("memkv-warm-up".to_owned()).spawn(run);
}

impl Ready {
    fn item(&self) -> PutItem<'_> {
        PutItem::with_checksums(self.hash.as_bytes(), &self.parts, &self.blocks)
    }
}

/// A chunk that a manifest lists.
struct Named {
    hash: Hash,
    size_bytes: u64,
    /// There if this handle had the chunk's bytes lately.
    checksum: Option<checksum::Checksum>,
    /// When the manifest was put.
    buffered: bool,
}

impl Named {
    fn reference(&self) -> Reference<'_> {
        Reference { key: self.hash.as_bytes(), length: self.size_bytes, checksum: self.checksum.as_ref() }
    }

    fn stored(&self) -> (Hash, stored::Chunk) {
        (self.hash, stored::Chunk { size_bytes: self.size_bytes, checksum: self.checksum })
    }
}

/// A panic under one of these locks leaves counters off, not memory wrong: what is there is still used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
