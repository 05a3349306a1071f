//! The client: one method for each thing a caller wants done.
//!
//! Bytes to be written are given as [`Buf`]s, which are shared with the frames that carry them: fill a
//! [`Client::buffer`] (aligned, pooled) and nothing is copied on the way to the socket. Bytes that are read are received
//! into pooled buffers; [`Client::get`] hands these out as they are, [`Client::get_into`] copies them
//! once into the caller's slice, piece by piece as they arrive.
//!
//! Every method may be called from any number of tasks at once. Dropping a future gives the operation up; what it would
//! have changed may or may not happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use memkv_transport::buf::{Buf, BufMut, BufPool};
use memkv_wire::{Allocate, Commit, ListManifests, Lookup, Op, Ping, Stats};
use memkv_wire::{Status, limits, op};

use crate::batch::{Again, Each, Reached, groups, miss, outcome};
use crate::config::Config;
use crate::core::{CallOptions, Counters, Message};
use crate::driver::{Event, Shared, run_all};
use crate::error::{ApiMisuse, Error, PeerMisbehaved, StorageError};
use crate::operation::keys::{KeysOperation, KeysReplies, keys};
use crate::operation::manifest::{
    Deleted, GetManifestReplies, Published, PutManifestReplies, Reference, StoredManifest, delete_manifest,
    deleted, get_manifest, put_manifest,
};
use crate::operation::read::{Collected, ReadRange, ReadStatus, Slices, Value};
use crate::operation::write::{BatchWriteReplies, PutItem, WritePlace, batch_write, write};
use crate::operation::{check_key, single, with_response};
use crate::reading::LengthHint;
use crate::writing::SPLIT_SIZE_BYTES;

/// A connection pool to one server, in one namespace. Clones share it; it ends with the last one.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
    options: CallOptions,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    namespace: Vec<u8>,
    pool: BufPool,
    /// The last one that was chosen for a manifest.
    generation: AtomicU64,
    /// How long the next value of unknown length may be, by the last one.
    length_hint: LengthHint,
}

impl Inner {
    /// Later than the one that is stored and all that were chosen before: the time in microseconds, as long as clocks agree.
    fn next_generation(&self, stored: u64) -> u64 {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let time_us = u64::try_from(time.as_micros()).unwrap_or(0);
        let later = |last: u64| time_us.max(last.max(stored).saturating_add(1));
        let last =
            self.generation.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(later(last)));
        later(last.unwrap_or_else(|last| last))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// The buffers that [`Client::warm_up`] touches: those of whole frames.
const WARM_SIZE_BYTES: usize = limits::PAYLOAD_SIZE_BYTES_MAX as usize;
/// Attempts to publish or delete a manifest while others publish later ones under the same name.
const GENERATION_ATTEMPTS_MAX: u32 = 4;

impl Client {
    /// Connects, and asks the server for a sign of life: an error here says why it cannot be used now. Must be called
    /// inside a tokio runtime, which then drives the connections.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let options = config.options();
        let namespace = config.namespace.clone();
        let max = limits::NAMESPACE_SIZE_BYTES_MAX as usize;
        if namespace.len() > max {
            return Err(ApiMisuse::NamespaceSize { size_bytes: namespace.len(), max }.into());
        }
        let shared = Shared::start(config)?;
        let pool = shared.send_pool().clone();
        let client = Self {
            inner: Arc::new(Inner {
                shared,
                namespace,
                pool,
                generation: AtomicU64::new(0),
                length_hint: LengthHint::default(),
            }),
            options,
        };
        let first = CallOptions { fail_fast: true, ..options };
        client.single::<op::Ping, _>(first, Ping { echo: 1, ..Ping::default() }, |_| ()).await?;
        Ok(client)
    }

    /// How long an operation may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.options.timeout_ms)
    }

    /// The same connections, with another time for each operation.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        Self { options: CallOptions { timeout_ms, ..self.options }, ..self.clone() }
    }

    /// A buffer of exactly this length for bytes to be written, as soon as there is memory for it. Its contents are
    /// stale. At most 16 MiB: a larger value has several parts.
    pub async fn buffer(&self, size_bytes: usize) -> Result<BufMut, Error> {
        Ok(self.inner.pool.take(size_bytes).await.map_err(ApiMisuse::Buffer)?)
    }

    /// The pool of [`Client::buffer`].
    pub fn pool(&self) -> &BufPool {
        &self.inner.pool
    }

    /// The pool of what is received: what [`Client::get`] hands out counts against its budget until it is dropped.
    pub fn receive_pool(&self) -> &BufPool {
        self.inner.shared.pool()
    }

    /// Touches so much memory of each direction's buffers, so that the first save and the first restore of a process do not
    /// pay for page faults. Takes milliseconds: call it from a thread that has nothing better to do.
    pub fn warm_up(&self, size_bytes: usize) {
        for pool in [&self.inner.pool, self.inner.shared.pool()] {
            let count = size_bytes.min(pool.budget_size_bytes()) / WARM_SIZE_BYTES;
            let mut taken: Vec<BufMut> =
                (0..count).map_while(|_| pool.try_take(WARM_SIZE_BYTES).ok()).collect();
            // A write to each page is what makes it be there; a byte that it is not changed by will do.
            taken.iter_mut().flat_map(|buffer| buffer.iter_mut().step_by(4096)).for_each(|byte| {
                *byte = std::hint::black_box(0);
            });
            drop(taken);
            pool.regroup();
        }
    }

    /// Whether buffers lie in memory that is shared with the server, now.
    pub fn shares_memory(&self) -> bool {
        self.inner.shared.shares()
    }

    /// What the connections counted since the client was made.
    pub fn counters(&self) -> Counters {
        self.inner.shared.counters()
    }
}

/// Values.
impl Client {
    /// Stores a value: its parts, one after the other. Storing what is there already changes nothing.
    pub async fn put(&self, key: &[u8], parts: &[Buf]) -> Result<(), Error> {
        let size_bytes = PutItem::new(key, parts).size_bytes();
        if (SPLIT_SIZE_BYTES..=limits::VALUE_SIZE_BYTES_MAX).contains(&size_bytes) {
            check_key(key)?;
            if let Some(stored) = self.put_in_parts(key, parts).await? {
                return Ok(stored);
            }
        }
        let build = |message: &mut Message| write(message, self.namespace(), key, WritePlace::Whole, parts);
        self.write_call(build).await
    }

    /// Stores many values; each succeeds or fails by itself. The outer error is one that all of them share.
    //= MKV-BATCH-1
    pub async fn put_many(&self, items: &[PutItem<'_>]) -> Result<Vec<Result<(), Error>>, Error> {
        items.iter().try_for_each(PutItem::check)?;
        let mut results: Vec<Result<(), Error>> = vec![Ok(()); items.len()];
        let mut left: Vec<usize> = (0..items.len()).collect();
        let mut retry = Again::new(self.options);
        while !left.is_empty() {
            let now: Vec<PutItem<'_>> = left.iter().map(|&index| items[index]).collect();
            let statuses = match self.put_once(&now, retry.options()).await {
                Err(error) if retry.anew(&error) => continue,
                statuses => statuses?,
            };
            let mut refused = Vec::new();
            for (&index, status) in left.iter().zip(statuses) {
                if let Err(error) = &status
                    && retry.may(error.status)
                {
                    refused.push(index);
                }
                results[index] = status.map_err(Error::from);
            }
            if refused.is_empty() || !retry.wait().await {
                break;
            }
            left = refused;
        }
        Ok(results)
    }

    async fn put_once(
        &self,
        items: &[PutItem<'_>],
        options: CallOptions,
    ) -> Result<Vec<Result<(), StorageError>>, Error> {
        let (mut calls, mut replies) = (Vec::new(), Vec::new());
        for group in groups(items) {
            calls.push(self.inner.shared.call(options, |m| batch_write(m, self.namespace(), group))?);
            replies.push(BatchWriteReplies::new(group.len()));
        }
        run_all(&self.inner.shared, &mut calls, |place, event| match event {
            Event::Frame(frame) => replies[place].frame(frame),
            Event::Restarted => {
                replies[place].restart();
                Ok(())
            }
        })
        .await?;
        let mut statuses = Vec::with_capacity(items.len());
        for replies in replies {
            statuses.extend(replies.finish()?);
        }
        Ok(statuses)
    }

    /// A value; `None` if it is not stored. Its parts are the buffers it was received in: keep them for as long as
    /// they are needed and no longer, for they count against [`Config::receive_size_bytes_max`].
    pub async fn get(&self, key: &[u8]) -> Result<Option<Value>, Error> {
        self.get_range(ReadRange::whole(key)).await
    }

    /// A range of a value; `None` if it is not stored. One that is longer than [`Config::receive_size_bytes_max`] fails with
    /// [`ApiMisuse::BeyondMemory`].
    pub async fn get_range(&self, range: ReadRange<'_>) -> Result<Option<Value>, Error> {
        let held_bytes_max = self.inner.shared.pool().budget_size_bytes() as u64;
        let beyond = |needed_bytes| ApiMisuse::BeyondMemory { needed_bytes, held_bytes_max };
        self.get_at_most(range, held_bytes_max, beyond).await
    }

    /// As [`Client::get`], for whoever has other memory for long values: of one that is longer than `size_bytes_max` only the
    /// beginning is read, and [`ApiMisuse::BufferTooSmall`] tells how long it is.
    pub async fn get_within(&self, key: &[u8], size_bytes_max: u64) -> Result<Option<Value>, Error> {
        let beyond = |needed_bytes| ApiMisuse::BufferTooSmall { needed_bytes, buffer_bytes: size_bytes_max };
        self.get_at_most(ReadRange::whole(key), size_bytes_max, beyond).await
    }

    /// What `beyond` makes of its length when a range has more than so many bytes.
    async fn get_at_most(
        &self,
        range: ReadRange<'_>,
        size_bytes_max: u64,
        beyond: impl FnOnce(u64) -> ApiMisuse,
    ) -> Result<Option<Value>, Error> {
        let mut collected = Collected::new(1);
        let Some(reached) = self.read_one(range, size_bytes_max, &mut collected).await? else {
            return Ok(None);
        };
        match range.size_bytes_of(reached.value_size_bytes) {
            needed_bytes if needed_bytes > size_bytes_max => Err(beyond(needed_bytes).into()),
            _ => Ok(collected.values.pop().map(Value::sorted)),
        }
    }

    /// A value into the caller's buffer; its length, or `None` if it is not stored. What the buffer holds after an
    /// error is not specified.
    pub async fn get_into(&self, key: &[u8], buffer: &mut [u8]) -> Result<Option<usize>, Error> {
        let buffer_bytes = buffer.len() as u64;
        // A buffer without bytes asks for one, to learn the length.
        let range = ReadRange { key, offset: 0, length: buffer_bytes.clamp(1, limits::VALUE_SIZE_BYTES_MAX) };
        let mut spare = [0; 1];
        let buffer = if buffer.is_empty() { &mut spare[..] } else { buffer };
        match self.read_one(range, u64::MAX, &mut Slices { buffers: &mut [buffer] }).await? {
            Some(Reached { value_size_bytes: needed_bytes, .. }) if needed_bytes > buffer_bytes => {
                Err(ApiMisuse::BufferTooSmall { needed_bytes, buffer_bytes }.into())
            }
            read => Ok(read.map(|reached| reached.size_bytes as usize)),
        }
    }

    /// Many values, in one message unless they are very many; `None` for what is not stored. Together they must fit
    /// [`Config::receive_size_bytes_max`]: what cannot be held is waited for until the time is up.
    pub async fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Result<Option<Value>, Error>>, Error> {
        self.get_many_expecting(keys, &[]).await
    }

    /// As [`Client::get_many`]; the caller knows how long the values should be, in the order of the keys, 0 where it does not.
    /// One that is longer or shorter is read all the same; a good guess saves a round trip on the same host.
    pub async fn get_many_expecting(
        &self,
        keys: &[&[u8]],
        lengths: &[u64],
    ) -> Result<Vec<Result<Option<Value>, Error>>, Error> {
        let ranges: Vec<_> = keys.iter().map(|key| ReadRange::whole(key)).collect();
        let mut collected = Collected::new(keys.len());
        let statuses = self.read_many(&ranges, lengths, &mut collected).await?;
        let values = collected.values.into_iter();
        Ok(statuses
            .into_iter()
            .zip(values)
            .map(|(status, value)| Ok(outcome(status)?.map(|_| value.sorted())))
            .collect())
    }

    /// As [`Client::get_many_expecting`]; hands each value out as soon as it is whole, with the place of its key, in any order. Of what
    /// is not stored or fails nothing is told.
    pub async fn get_many_each(
        &self,
        keys: &[&[u8]],
        lengths: &[u64],
        each: impl FnMut(usize, Value),
    ) -> Result<(), Error> {
        let ranges: Vec<_> = keys.iter().map(|key| ReadRange::whole(key)).collect();
        let mut sink = Each::new(keys.len(), each);
        let statuses = self.read_many(&ranges, lengths, &mut sink).await?;
        for (place, status) in statuses.into_iter().enumerate() {
            if let ReadStatus::Read { .. } = status {
                sink.finish(place);
            }
        }
        Ok(())
    }

    /// Many values into the caller's buffers, one for each key; their lengths, or `None` for what is not stored.
    pub async fn get_many_into(
        &self,
        keys: &[&[u8]],
        buffers: &mut [&mut [u8]],
    ) -> Result<Vec<Result<Option<usize>, Error>>, Error> {
        if keys.len() != buffers.len() {
            return Err(ApiMisuse::Items { count: buffers.len(), max: keys.len() }.into());
        }
        let lengths: Vec<u64> = buffers.iter().map(|buffer| buffer.len() as u64).collect();
        if let Some(&buffer_bytes) = lengths.iter().find(|length| **length == 0) {
            return Err(ApiMisuse::BufferTooSmall { needed_bytes: 1, buffer_bytes }.into());
        }
        let lengths_max = lengths.iter().map(|&length| length.min(limits::VALUE_SIZE_BYTES_MAX));
        let ranges = keys.iter().zip(lengths_max).map(|(key, length)| ReadRange { key, offset: 0, length });
        let ranges: Vec<_> = ranges.collect();
        let statuses = self.read_many(&ranges, &[], &mut Slices { buffers }).await?;
        let fit = |(status, buffer_bytes): (ReadStatus, u64)| match outcome(status)? {
            Some(Reached { value_size_bytes: needed_bytes, .. }) if needed_bytes > buffer_bytes => {
                Err(ApiMisuse::BufferTooSmall { needed_bytes, buffer_bytes }.into())
            }
            read => Ok(read.map(|reached| reached.size_bytes as usize)),
        };
        Ok(statuses.into_iter().zip(lengths).map(fit).collect())
    }

    /// The lengths of values, 0 for what is not stored; at most 4096 keys.
    pub async fn exists(&self, asked: &[&[u8]]) -> Result<Vec<u64>, Error> {
        let mut replies = KeysReplies::<u64>::new(asked.len());
        let build = |m: &mut Message| keys(m, self.namespace(), KeysOperation::Exists, asked);
        let mut call = self.inner.shared.call(self.options, build)?;
        call.run(|event| match event {
            Event::Frame(frame) => replies.frame(frame),
            Event::Restarted => {
                replies.restart();
                Ok(())
            }
        })
        .await?;
        replies.finish()
    }

    /// Removes values; at most 4096 keys. For each: `Ok`, `NotFound`, or `Referenced` when a manifest names it.
    pub async fn delete(&self, asked: &[&[u8]]) -> Result<Vec<Status>, Error> {
        let mut replies = KeysReplies::<Status>::new(asked.len());
        let build = |m: &mut Message| keys(m, self.namespace(), KeysOperation::Delete, asked);
        let mut call = self.inner.shared.call(self.options, build)?;
        call.run(|event| match event {
            Event::Frame(frame) => replies.frame(frame),
            Event::Restarted => {
                replies.restart();
                Ok(())
            }
        })
        .await?;
        replies.finish()
    }

    /// What is stored under a key, and a lease on it; `None` if nothing is. `lease_ms` 0 asks for the server's
    /// default.
    pub async fn lookup(&self, key: &[u8], lease_ms: u32) -> Result<Option<Found>, Error> {
        check_key(key)?;
        let found = self
            .single::<op::Lookup, _>(self.options, Lookup { key, lease_ms }, |reply| Found {
                size_bytes: reply.length,
                checksum: reply.checksum.copied(),
                lease_ms: reply.lease_ms,
            })
            .await;
        miss(found)
    }

    /// Makes room for a value that is written piecewise. The server reclaims what is not committed when the lease
    /// ends.
    pub async fn allocate(&self, key: &[u8], size_bytes: u64, lease_ms: u32) -> Result<Allocation, Error> {
        check_key(key)?;
        let request = Allocate { key, length: size_bytes, checksum: None, lease_ms };
        self.single::<op::Allocate, _>(self.options, request, |reply| match reply.present {
            true => Allocation::Present,
            false => Allocation::Made { id: reply.allocation, lease_ms: reply.lease_ms },
        })
        .await
    }

    /// Writes a part of an allocation's value. It begins at a multiple of 1 MiB, and ends at one or at the value's
    /// end.
    pub async fn write_at(
        &self,
        key: &[u8],
        allocation: u64,
        size_bytes: u64,
        offset: u64,
        parts: &[Buf],
    ) -> Result<(), Error> {
        let place = WritePlace::At { allocation, offset, length: size_bytes };
        self.write_call(|message| write(message, self.namespace(), key, place, parts)).await
    }

    /// Makes an allocation's value visible. Not sent again when the connection is lost on the way: then
    /// [`Client::lookup`] tells whether it happened.
    pub async fn commit(&self, allocation: u64) -> Result<(), Error> {
        let request = Commit { allocation, checksum: None };
        self.single::<op::Commit, _>(self.options, request, |_| ()).await
    }

    async fn write_call(&self, build: impl Fn(&mut Message) -> Result<(), Error>) -> Result<(), Error> {
        let mut retry = Again::new(self.options);
        let status = loop {
            let mut status: Option<(Status, Box<str>)> = None;
            let mut call = self.inner.shared.call(retry.options(), &build)?;
            let ended = call.run(|event| {
                status = match event {
                    Event::Frame(frame) => Some(with_response(frame, |r| Ok((r.status, r.detail.into())))?),
                    Event::Restarted => None,
                };
                Ok(())
            });
            match ended.await {
                Err(error) if retry.anew(&error) => {}
                ended => {
                    ended?;
                    break status;
                }
            }
        };
        match status {
            Some((Status::Ok, _)) => Ok(()),
            //= MKV-STAT-1
            Some((status, detail)) => Err(StorageError { status, detail }.into()),
            None => Err(PeerMisbehaved::Results.into()),
        }
    }
}

/// Manifests, and the server itself.
impl Client {
    /// Publishes a manifest that references these chunks. Nothing is sent but references and body: chunks that the
    /// server says are missing are the caller's to write, before it tries again, at most
    /// [`PUT_MANIFEST_RETRIES_MAX`](limits::PUT_MANIFEST_RETRIES_MAX) times.
    //= MKV-PUT-3
    pub async fn put_manifest(
        &self,
        name: &[u8],
        generation: u64,
        references: &[Reference<'_>],
        body: &[Buf],
    ) -> Result<Published, Error> {
        Ok(self.put_generation(name, generation, references, body).await?.outcome)
    }

    async fn put_generation(
        &self,
        name: &[u8],
        generation: u64,
        references: &[Reference<'_>],
        body: &[Buf],
    ) -> Result<Attempted<Published>, Error> {
        let mut replies = PutManifestReplies::new(references.len());
        let build = |m: &mut Message| put_manifest(m, self.namespace(), name, generation, references, body);
        let mut call = self.inner.shared.call(self.options, build)?;
        call.run(|event| match event {
            Event::Frame(frame) => replies.frame(frame),
            Event::Restarted => {
                replies.restart();
                Ok(())
            }
        })
        .await?;
        Ok(Attempted { repeated: call.was_repeated(), outcome: replies.finish()? })
    }

    /// Publishes a manifest over whatever is stored under its name: [`Client::put_manifest`] with a generation later than
    /// any before it, by the clock or by what the server says. An attempt that a lost connection left behind on its way to
    /// the server is then refused as stale, and cannot undo what was published after it. [`Published::Stale`] says that
    /// others go on publishing later ones; or that the connection was lost and a later one is stored: then this one may have been
    /// published before it, and is not published again.
    pub async fn publish(
        &self,
        name: &[u8],
        references: &[Reference<'_>],
        body: &[Buf],
    ) -> Result<Published, Error> {
        let mut stored = 0;
        for _ in 0..GENERATION_ATTEMPTS_MAX {
            let generation = self.inner.next_generation(stored);
            let Attempted { repeated, outcome } =
                self.put_generation(name, generation, references, body).await?;
            match outcome {
                Published::Stale { generation } if !repeated => stored = generation,
                other => return Ok(other),
            }
        }
        Ok(Published::Stale { generation: stored })
    }

    /// A manifest, and a lease on its chunks; `None` if there is none of this name.
    pub async fn get_manifest(&self, name: &[u8], lease_ms: u32) -> Result<Option<StoredManifest>, Error> {
        let mut replies = GetManifestReplies::default();
        let build = |m: &mut Message| get_manifest(m, self.namespace(), name, lease_ms);
        let mut call = self.inner.shared.call(self.options, build)?;
        call.run(|event| match event {
            Event::Frame(frame) => replies.frame(frame),
            Event::Restarted => {
                replies.restart();
                Ok(())
            }
        })
        .await?;
        replies.finish()
    }

    /// Removes a manifest, or with a generation that one and earlier ones; whether there was one. With 0 it is whatever is
    /// stored: a generation is chosen as [`Client::publish`] chooses one, so that an attempt that a lost connection left
    /// behind on its way to the server cannot remove what this client publishes afterwards. When the connection was lost and a
    /// later one is stored, the answer is `staleGeneration`: the one before it may be gone, and the later one is left.
    pub async fn delete_manifest(&self, name: &[u8], generation: u64) -> Result<bool, Error> {
        if generation != 0 {
            return Ok(self.delete_generation(name, generation).await?.outcome.existed()?);
        }
        let mut deleted = self.delete_generation(name, self.inner.next_generation(0)).await?;
        for _ in 1..GENERATION_ATTEMPTS_MAX {
            let Attempted { repeated: false, outcome: Deleted::Stale { generation, .. } } = deleted else {
                break;
            };
            deleted = self.delete_generation(name, self.inner.next_generation(generation)).await?;
        }
        Ok(deleted.outcome.existed()?)
    }

    async fn delete_generation(&self, name: &[u8], generation: u64) -> Result<Attempted<Deleted>, Error> {
        let build = |m: &mut Message| delete_manifest(m, self.namespace(), name, generation);
        let mut call = self.inner.shared.call(self.options, build)?;
        let mut ended = None;
        call.run(|event| {
            ended = match event {
                Event::Frame(frame) => Some(deleted(frame)?),
                Event::Restarted => None,
            };
            Ok(())
        })
        .await?;
        Ok(Attempted { repeated: call.was_repeated(), outcome: ended.ok_or(PeerMisbehaved::Results)?? })
    }

    /// One page of the manifests whose names begin with `prefix`, in byte order, after `cursor`: the last name of the
    /// page before, empty to begin.
    pub async fn list_manifests(&self, prefix: &[u8], cursor: &[u8], count_max: u32) -> Result<Page, Error> {
        let request = ListManifests { prefix, cursor, count_max: count_max.min(limits::LIST_ENTRIES_MAX) };
        self.single::<op::ListManifests, _>(self.options, request, |reply| Page {
            entries: reply
                .entries
                .iter()
                .map(|entry| ManifestEntry {
                    name: entry.name.into(),
                    generation: entry.generation,
                    size_bytes: entry.length,
                    chunk_count: entry.chunk_count,
                    chunk_size_bytes: entry.chunk_bytes,
                })
                .collect(),
            more: reply.more,
        })
        .await
    }

    /// How long the server has been up.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let request = Ping { echo: 0, ..Ping::default() };
        self.single::<op::Ping, _>(self.options, request, |reply| Duration::from_millis(reply.uptime_ms))
            .await
    }

    /// The server's counters whose names begin with `prefix`.
    pub async fn stats(&self, prefix: &str) -> Result<Vec<(String, u64)>, Error> {
        self.single::<op::Stats, _>(self.options, Stats { prefix }, |reply| {
            reply.counters.iter().map(|counter| (counter.name.to_owned(), counter.value)).collect()
        })
        .await
    }

    /// Any operation of one frame each way; what `see` makes of the reply when its status is `ok`.
    pub(crate) async fn single<O: Op, R>(
        &self,
        options: CallOptions,
        request: O::Request<'_>,
        see: impl FnOnce(O::Reply<'_>) -> R,
    ) -> Result<R, Error> {
        let build = |m: &mut Message| single::single::<O>(m, self.namespace(), request);
        let mut call = self.inner.shared.call(options, build)?;
        let mut see = Some(see);
        let mut result = None;
        call.run(|event| {
            if let (Event::Frame(frame), Some(see)) = (event, see.take()) {
                result = Some(single::reply::<O, R>(frame, see));
            }
            Ok(())
        })
        .await?;
        result.unwrap_or(Err(PeerMisbehaved::Results.into()))
    }

    pub(crate) fn namespace(&self) -> &[u8] {
        &self.inner.namespace
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    pub(crate) fn options(&self) -> CallOptions {
        self.options
    }

    pub(crate) fn length_hint(&self) -> &LengthHint {
        &self.inner.length_hint
    }
}

/// What came of a change of a manifest.
struct Attempted<T> {
    /// The message was sent again after an attempt that the server may have carried out.
    repeated: bool,
    outcome: T,
}

/// What [`Client::lookup`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The length of the value.
    pub size_bytes: u64,
    /// Its checksum: XXH3-128 over the checksums of its blocks.
    pub checksum: Option<[u8; 16]>,
    /// How long it is safe from eviction.
    pub lease_ms: u32,
}

/// What [`Client::allocate`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// Room, for so long.
    Made {
        /// Names it, for [`Client::write_at`] and [`Client::commit`].
        id: u64,
        /// What is not committed by then is reclaimed.
        lease_ms: u32,
    },
    /// Nothing: the value is stored already.
    Present,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In byte order of their names.
    pub entries: Vec<ManifestEntry>,
    /// Whether there are others behind the last.
    pub more: bool,
}

/// One manifest of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Its name.
    pub name: Box<[u8]>,
    /// Its generation.
    pub generation: u64,
    /// The length of its body.
    pub size_bytes: u64,
    /// The chunks it references.
    pub chunk_count: u32,
    /// Their bytes.
    pub chunk_size_bytes: u64,
}
