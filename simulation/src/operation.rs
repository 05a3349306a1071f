//! What the world's clients do: operations of several calls, each a small state machine over the client's real messages.
//!
//! An [`Operation`] is given the frames of its calls and says what comes next. It checks all bytes it gets; what it
//! learns goes into the [`Model`].

use std::collections::BTreeMap;

use memkv_client::core::{Core, Message, Progress, Reply};
use memkv_client::error::{Error, PeerMisbehaved};
use memkv_client::operation::keys::{KeysOperation, KeysReplies, keys};
use memkv_client::operation::manifest::{GetManifestReplies, PutManifestReplies, get_manifest, put_manifest};
use memkv_client::operation::read::{Collected, One, ReadReplies, ReadStatus, batch_read};
use memkv_client::operation::single::{reply, single};
use memkv_client::operation::write::{BatchWriteReplies, WritePlace, batch_write, write};
use memkv_client::{Published, PutItem, ReadRange, Reference};
use memkv_transport::buf::Buf;
use memkv_wire::{Allocate, Commit, DeleteManifest, ListManifests, Status, checksum, limits, op};

use crate::content::{self, ChunkId, Version, body, key, read_body};
use crate::model::{Model, Name, Since, Tag, Trust};

pub const NAMESPACE: &[u8] = b"world";

/// What an operation is to do, as the workload drew it.
#[derive(Clone, Debug)]
pub enum Plan {
    /// Ask first, write what is missing, publish.
    Save {
        name: Name,
        version: Version,
        chunks: Vec<ChunkId>,
    },
    /// The manifest, then all its chunks.
    Restore {
        name: Name,
    },
    Write {
        chunks: Vec<ChunkId>,
    },
    Read {
        chunks: Vec<ChunkId>,
    },
    Exists {
        chunks: Vec<ChunkId>,
    },
    Delete {
        chunks: Vec<ChunkId>,
    },
    DeleteManifest {
        name: Name,
    },
    List,
    /// Allocate, Write at offsets, Commit.
    Piecewise {
        chunk: ChunkId,
    },
}

/// What the world must know to judge an answer.
#[derive(Debug)]
pub struct Judge<'a> {
    pub model: &'a mut Model,
    pub now_ms: u64,
}

/// Where an operation is.
#[derive(Debug)]
enum Stage {
    Publish(PutManifestReplies),
    WriteMissing(BatchWriteReplies, Vec<ChunkId>),
    FetchManifest(GetManifestReplies),
    FetchChunks(ReadReplies, Collected, Vec<ChunkId>),
    Write(BatchWriteReplies),
    Exists(KeysReplies<u64>),
    Delete(KeysReplies<Status>),
    /// One frame each way.
    Single(Option<Reply>, Single),
}

#[derive(Clone, Copy, Debug)]
enum Single {
    DeleteManifest,
    List,
    Allocate,
    WriteAt { allocation: u64, offset: u64 },
    Commit,
}

#[derive(Debug)]
pub struct Operation {
    pub plan: Plan,
    stage: Stage,
    attempts: u32,
    /// Of what it does to a name.
    tag: Option<Tag>,
    /// When its present call began.
    since: Since,
    /// The chunks that had to be there when it began.
    there: BTreeMap<ChunkId, u64>,
    /// The version whose chunks it fetches, and since when they may be leased to it.
    fetched: Option<(Version, Since)>,
}

/// What comes of progress.
#[derive(Debug)]
pub enum Next {
    /// Nothing yet.
    Wait,
    /// Another call of the same operation.
    Call(Message),
    /// It is over.
    Over,
}

/// The world broke a promise.
pub type Violation = String;

impl Operation {
    /// The operation and its first message.
    pub fn begin(plan: Plan, core: &mut Core, judge: &mut Judge<'_>) -> (Operation, Message) {
        let mut message = core.message();
        let stage = first(&plan, &mut message);
        let model = &mut *judge.model;
        let tag = match &plan {
            Plan::Save { name, version, .. } => Some(model.put_begins(*name, *version)),
            Plan::Restore { name } => Some(model.get_begins(*name)),
            Plan::DeleteManifest { name } => Some(model.delete_begins(*name)),
            Plan::Delete { chunks } => {
                chunks.iter().for_each(|chunk| model.chunk_delete_begins(*chunk));
                None
            }
            _ => None,
        };
        let operation = Operation {
            plan,
            stage,
            attempts: 0,
            tag,
            since: model.since(judge.now_ms),
            there: model.must_be_there(judge.now_ms),
            fetched: None,
        };
        (operation, message)
    }

    /// Nobody waits for it any more.
    pub fn give_up(&mut self, model: &mut Model) {
        if let Some(tag) = self.tag.take() {
            model.unknown(tag);
        }
        if let (Plan::Delete { chunks }, Stage::Delete(_)) = (&self.plan, &self.stage) {
            chunks.iter().for_each(|chunk| model.chunk_delete_ends(*chunk, false));
        }
    }

    /// Takes what happened to the call.
    pub fn progress(
        &mut self,
        progress: Progress,
        core: &mut Core,
        judge: &mut Judge<'_>,
    ) -> Result<Next, Violation> {
        let next = self.step(progress, core, judge)?;
        match next {
            Next::Over => self.give_up(judge.model),
            Next::Call(_) => self.since = judge.model.since(judge.now_ms),
            Next::Wait => {}
        }
        Ok(next)
    }

    fn step(
        &mut self,
        progress: Progress,
        core: &mut Core,
        judge: &mut Judge<'_>,
    ) -> Result<Next, Violation> {
        match progress {
            Progress::Restarted => {
                self.restart();
                Ok(Next::Wait)
            }
            Progress::Frame(frame) => {
                self.frame(&frame).map_err(|error| format!("a reply of the server: {error}"))?;
                match &mut self.stage {
                    Stage::Single(kept, _) => *kept = Some(frame),
                    _ => core.give_back(frame),
                }
                Ok(Next::Wait)
            }
            Progress::Done => self.done(core, judge),
            Progress::Failed(error) => match error {
                // A link that damages bytes ends in one of these, and so does a crash.
                Error::Timeout { .. } | Error::Connection(_) | Error::Closed | Error::Peer(_) => {
                    Ok(Next::Over)
                }
                Error::Misuse(_) | Error::Storage(_) => Err(format!("a call failed with {error}")),
            },
        }
    }

    fn restart(&mut self) {
        match &mut self.stage {
            Stage::Publish(replies) => replies.restart(),
            Stage::WriteMissing(replies, _) | Stage::Write(replies) => replies.restart(),
            Stage::FetchManifest(replies) => replies.restart(),
            Stage::FetchChunks(replies, collected, _) => {
                replies.restart();
                collected.restart();
            }
            Stage::Exists(replies) => replies.restart(),
            Stage::Delete(replies) => replies.restart(),
            Stage::Single(reply, _) => *reply = None,
        }
    }

    fn frame(&mut self, frame: &Reply) -> Result<(), PeerMisbehaved> {
        match &mut self.stage {
            Stage::Publish(replies) => replies.frame(frame),
            Stage::WriteMissing(replies, _) | Stage::Write(replies) => replies.frame(frame),
            Stage::FetchManifest(replies) => replies.frame(frame),
            Stage::FetchChunks(replies, collected, _) => replies.frame(frame, collected),
            Stage::Exists(replies) => replies.frame(frame),
            Stage::Delete(replies) => replies.frame(frame),
            Stage::Single(..) => Ok(()),
        }
    }

    fn done(&mut self, core: &mut Core, judge: &mut Judge<'_>) -> Result<Next, Violation> {
        let stage = std::mem::replace(&mut self.stage, Stage::Single(None, Single::List));
        match stage {
            Stage::Publish(replies) => self.published(replies.finish(), core, judge),
            Stage::WriteMissing(replies, chunks) => {
                self.missing_written(replies.finish(), &chunks, core, judge)
            }
            Stage::FetchManifest(replies) => self.manifest_fetched(replies.finish(), core, judge),
            Stage::FetchChunks(replies, collected, chunks) => {
                self.chunks_fetched(replies.finish(), &collected, &chunks, judge)
            }
            Stage::Write(replies) => {
                let Plan::Write { chunks } = &self.plan else { return Err("a write of another plan".into()) };
                self.written(replies.finish(), chunks, judge)
            }
            Stage::Exists(replies) => self.existing(replies.finish(), judge),
            Stage::Delete(replies) => self.deleted(replies.finish(), judge),
            Stage::Single(kept, what) => {
                let kept = kept.ok_or("a call is done without a reply")?;
                self.single_done(&kept, what, core, judge)
            }
        }
    }

    fn published(
        &mut self,
        result: Result<Published, Error>,
        core: &mut Core,
        judge: &mut Judge<'_>,
    ) -> Result<Next, Violation> {
        let Plan::Save { name, version, chunks } = &self.plan else {
            return Err("a save of another plan".into());
        };
        match result {
            Ok(Published::Committed { generation, .. }) if generation == *version => {
                self.tag.take().map_or(Ok(()), |tag| judge.model.acknowledged(tag))?;
                Ok(Next::Over)
            }
            //= MKV-PUT-5 test
            Ok(Published::Stale { .. }) => {
                let version = *version;
                self.tag.take().map_or(Ok(()), |tag| judge.model.was_stale(tag, version))?;
                Ok(Next::Over)
            }
            //= MKV-PUT-3 test
            Ok(Published::Missing { chunks: places, .. }) => {
                self.attempts += 1;
                if self.attempts > limits::PUT_MANIFEST_RETRIES_MAX {
                    return Ok(Next::Over);
                }
                let mut missing: Vec<ChunkId> = places.iter().map(|place| chunks[*place as usize]).collect();
                missing.sort_unstable();
                missing.dedup();
                let mut message = core.message();
                write_chunks(&mut message, &missing);
                self.stage = Stage::WriteMissing(BatchWriteReplies::new(missing.len()), missing);
                Ok(Next::Call(message))
            }
            Err(error) => passing(error, judge.model.trust()),
            Ok(other) => Err(format!("version {version} of name {name} was answered with {other:?}")),
        }
    }

    fn missing_written(
        &mut self,
        result: Result<Vec<Result<(), memkv_client::error::StorageError>>, Error>,
        chunks: &[ChunkId],
        core: &mut Core,
        judge: &mut Judge<'_>,
    ) -> Result<Next, Violation> {
        self.written(result, chunks, judge)?;
        let mut message = core.message();
        self.stage = first(&self.plan, &mut message);
        Ok(Next::Call(message))
    }

    fn manifest_fetched(
        &mut self,
        result: Result<Option<memkv_client::StoredManifest>, Error>,
        core: &mut Core,
        judge: &mut Judge<'_>,
    ) -> Result<Next, Violation> {
        let Plan::Restore { name } = self.plan else { return Err("a restore of another plan".into()) };
        let stored = match result {
            Ok(stored) => stored,
            Err(error) => return passing(error, judge.model.trust()),
        };
        let Some(tag) = self.tag else { return Err("a restore of no name".into()) };
        let Some(stored) = stored else {
            judge.model.got(tag, None)?;
            return Ok(Next::Over);
        };
        let bytes = stored.body.to_vec();
        let (version, chunks) =
            read_body(&bytes).ok_or_else(|| format!("name {name} has a body nobody wrote"))?;
        if version != stored.generation {
            return Err(format!("name {name}: generation {} with the body of {version}", stored.generation));
        }
        judge.model.got(tag, Some(version))?;
        let mut unique = chunks;
        unique.sort_unstable();
        unique.dedup();
        self.fetched = Some((version, self.since));
        let mut message = core.message();
        self.stage = fetch(&mut message, unique);
        Ok(Next::Call(message))
    }

    /// Whether a chunk cannot have gone.
    fn must_be_there(&self, chunk: ChunkId, judge: &mut Judge<'_>) -> bool {
        let Some((version, since)) = self.fetched else {
            let now = judge.model.must_be_there(judge.now_ms);
            return now.get(&chunk).is_some_and(|number| self.there.get(&chunk) == Some(number));
        };
        let trust = judge.model.trust();
        if judge.model.still_leased(chunk, since, judge.now_ms) {
            return trust >= Trust::Evicting;
        }
        let shown = self.tag.map(|tag| judge.model.shown(tag)).unwrap_or_default();
        trust == Trust::Full && shown.into_iter().eq([Some(version)])
    }

    /// Every chunk of a manifest is there, byte for byte.
    //= MKV-PUT-2 test
    //= MKV-PUT-4 test
    //= MKV-GET-1 test
    fn chunks_fetched(
        &self,
        result: Result<One<ReadStatus>, Error>,
        collected: &Collected,
        chunks: &[ChunkId],
        judge: &mut Judge<'_>,
    ) -> Result<Next, Violation> {
        let statuses = match result {
            Ok(statuses) => statuses,
            Err(error) => return passing(error, judge.model.trust()),
        };
        for ((chunk, status), value) in chunks.iter().zip(statuses).zip(&collected.values) {
            match status {
                ReadStatus::Read { .. } if value.to_vec() == *content::bytes(*chunk) => {}
                ReadStatus::Read { .. } => return Err(format!("chunk {chunk} has bytes nobody wrote")),
                ReadStatus::Miss if self.must_be_there(*chunk, judge) => {
                    return Err(format!("chunk {chunk} is lost ({:?})", self.plan));
                }
                ReadStatus::Miss => {}
                ReadStatus::Damaged => {
                    return Err(format!("chunk {chunk} came damaged under a MAC that held"));
                }
                ReadStatus::Failed(error) if is_passing(error.status, judge.model.trust()) => {}
                ReadStatus::Failed(error) => return Err(format!("chunk {chunk} cannot be read: {error}")),
            }
        }
        Ok(Next::Over)
    }

    fn existing(&self, result: Result<Vec<u64>, Error>, judge: &mut Judge<'_>) -> Result<Next, Violation> {
        let Plan::Exists { chunks } = &self.plan else { return Err("an exists of another plan".into()) };
        let lengths = match result {
            Ok(lengths) => lengths,
            Err(error) => return passing(error, judge.model.trust()),
        };
        for (chunk, length) in chunks.iter().zip(lengths) {
            let whole = content::bytes(*chunk).len() as u64;
            if length != whole && (length != 0 || self.must_be_there(*chunk, judge)) {
                return Err(format!("chunk {chunk} exists with {length} bytes, not {whole}"));
            }
        }
        Ok(Next::Over)
    }

    fn deleted(&self, result: Result<Vec<Status>, Error>, judge: &mut Judge<'_>) -> Result<Next, Violation> {
        let Plan::Delete { chunks } = &self.plan else { return Err("a delete of another plan".into()) };
        chunks.iter().for_each(|chunk| judge.model.chunk_delete_ends(*chunk, result.is_ok()));
        let trust = judge.model.trust();
        match result {
            Ok(statuses) => statuses.iter().try_fold(Next::Over, |_, status| match status {
                Status::Ok | Status::NotFound | Status::Referenced => Ok(Next::Over),
                status if is_passing(*status, trust) => Ok(Next::Over),
                status => Err(format!("a delete was answered with {status:?}")),
            }),
            Err(error) => passing(error, trust),
        }
    }

    fn single_done(
        &mut self,
        kept: &Reply,
        what: Single,
        core: &mut Core,
        judge: &mut Judge<'_>,
    ) -> Result<Next, Violation> {
        match what {
            Single::DeleteManifest => self.manifest_deleted(kept, judge),
            Single::List => {
                let listed = reply::<op::ListManifests, _>(kept, |page| {
                    page.entries
                        .iter()
                        .map(|entry| (entry.name.to_vec(), entry.generation))
                        .collect::<Vec<_>>()
                });
                match listed {
                    Ok(listed) => check_listing(&listed),
                    Err(error) => passing(error, judge.model.trust()),
                }
            }
            Single::Allocate => {
                let allocated = reply::<op::Allocate, _>(kept, |reply| (reply.allocation, reply.present));
                match allocated {
                    Ok((_, true)) => Ok(Next::Over),
                    Ok((allocation, false)) => Ok(self.write_at(allocation, 0, core)),
                    Err(error) => passing(error, judge.model.trust()),
                }
            }
            Single::WriteAt { allocation, offset } => match reply::<op::Write, _>(kept, |_| ()) {
                Ok(()) => Ok(self.write_at(allocation, offset + u64::from(limits::BLOCK_SIZE_BYTES), core)),
                Err(error) => passing(error, judge.model.trust()),
            },
            Single::Commit => match reply::<op::Commit, _>(kept, |_| ()) {
                Ok(()) => {
                    let Plan::Piecewise { chunk } = self.plan else {
                        return Err("a commit of another plan".into());
                    };
                    judge.model.chunk_acknowledged(chunk, self.since);
                    Ok(Next::Over)
                }
                Err(error) => passing(error, judge.model.trust()),
            },
        }
    }

    fn manifest_deleted(&mut self, kept: &Reply, judge: &mut Judge<'_>) -> Result<Next, Violation> {
        match reply::<op::DeleteManifest, _>(kept, |_| ()) {
            Ok(()) => self.tag.take().map_or(Ok(()), |tag| judge.model.acknowledged(tag))?,
            // An earlier attempt of the same call may have deleted it.
            Err(Error::Storage(error)) if error.status == Status::NotFound => {
                self.tag.take().map_or(Ok(()), |tag| judge.model.acknowledged(tag))?;
            }
            Err(error) => return passing(error, judge.model.trust()),
        }
        Ok(Next::Over)
    }

    /// The acknowledged chunks of a write.
    fn written(
        &self,
        result: Result<Vec<Result<(), memkv_client::error::StorageError>>, Error>,
        chunks: &[ChunkId],
        judge: &mut Judge<'_>,
    ) -> Result<Next, Violation> {
        let results = match result {
            Ok(results) => results,
            Err(error) => return passing(error, judge.model.trust()),
        };
        for (chunk, result) in chunks.iter().zip(results) {
            match result {
                Ok(()) => judge.model.chunk_acknowledged(*chunk, self.since),
                Err(error) if is_passing(error.status, judge.model.trust()) => {}
                Err(error) => return Err(format!("chunk {chunk} cannot be written: {error}")),
            }
        }
        Ok(Next::Over)
    }

    /// The next block of an allocation, or its commit.
    fn write_at(&mut self, allocation: u64, offset: u64, core: &mut Core) -> Next {
        let Plan::Piecewise { chunk } = self.plan else { return Next::Over };
        let bytes = content::bytes(chunk);
        let length = bytes.len() as u64;
        let mut message = core.message();
        if offset < length {
            let end = length.min(offset + u64::from(limits::BLOCK_SIZE_BYTES));
            let part = bytes.slice(offset as usize..end as usize);
            let place = WritePlace::At { allocation, offset, length };
            write(&mut message, NAMESPACE, &key(chunk), place, &[part]).expect("a piece within the limits");
            self.stage = Stage::Single(None, Single::WriteAt { allocation, offset });
        } else {
            let whole = checksum::value_of(&bytes);
            let commit = Commit { allocation, checksum: Some(&whole) };
            single::<op::Commit>(&mut message, NAMESPACE, commit).expect("a commit within the limits");
            self.stage = Stage::Single(None, Single::Commit);
        }
        Next::Call(message)
    }
}

/// The first message of a plan.
fn first(plan: &Plan, message: &mut Message) -> Stage {
    let fits = "the workload keeps to the limits";
    match plan {
        Plan::Save { name, version, chunks: named } => {
            let keys: Vec<[u8; 8]> = named.iter().map(|chunk| key(*chunk)).collect();
            let bytes: Vec<Buf> = named.iter().map(|chunk| content::bytes(*chunk)).collect();
            let sums: Vec<_> = bytes.iter().map(|bytes| checksum::value_of(bytes)).collect();
            let references: Vec<Reference<'_>> = keys
                .iter()
                .zip(&bytes)
                .zip(&sums)
                .map(|((key, bytes), sum)| Reference { key, length: bytes.len() as u64, checksum: Some(sum) })
                .collect();
            let body = [body(*version, named)];
            put_manifest(message, NAMESPACE, &[*name], *version, &references, &body).expect(fits);
            Stage::Publish(PutManifestReplies::new(references.len()))
        }
        Plan::Restore { name } => {
            get_manifest(message, NAMESPACE, &[*name], 0).expect(fits);
            Stage::FetchManifest(GetManifestReplies::default())
        }
        Plan::Write { chunks: ids } => {
            write_chunks(message, ids);
            Stage::Write(BatchWriteReplies::new(ids.len()))
        }
        Plan::Read { chunks: ids } => fetch(message, ids.clone()),
        Plan::Exists { chunks: ids } => {
            list_keys(message, KeysOperation::Exists, ids);
            Stage::Exists(KeysReplies::new(ids.len()))
        }
        Plan::Delete { chunks: ids } => {
            list_keys(message, KeysOperation::Delete, ids);
            Stage::Delete(KeysReplies::new(ids.len()))
        }
        Plan::DeleteManifest { name } => {
            let request = DeleteManifest { name: &[*name], generation: 0 };
            single::<op::DeleteManifest>(message, NAMESPACE, request).expect(fits);
            Stage::Single(None, Single::DeleteManifest)
        }
        Plan::List => {
            let request = ListManifests { prefix: &[], cursor: &[], count_max: 0 };
            single::<op::ListManifests>(message, NAMESPACE, request).expect(fits);
            Stage::Single(None, Single::List)
        }
        Plan::Piecewise { chunk } => {
            let length = content::bytes(*chunk).len() as u64;
            let request = Allocate { key: &key(*chunk), length, checksum: None, lease_ms: 0 };
            single::<op::Allocate>(message, NAMESPACE, request).expect(fits);
            Stage::Single(None, Single::Allocate)
        }
    }
}

fn write_chunks(message: &mut Message, ids: &[ChunkId]) {
    let keys: Vec<[u8; 8]> = ids.iter().map(|chunk| key(*chunk)).collect();
    let bytes: Vec<[Buf; 1]> = ids.iter().map(|chunk| [content::bytes(*chunk)]).collect();
    let items: Vec<PutItem<'_>> =
        keys.iter().zip(&bytes).map(|(key, parts)| PutItem::new(key, parts)).collect();
    batch_write(message, NAMESPACE, &items).expect("the workload keeps to the limits");
}

fn fetch(message: &mut Message, ids: Vec<ChunkId>) -> Stage {
    let keys: Vec<[u8; 8]> = ids.iter().map(|chunk| key(*chunk)).collect();
    let ranges: Vec<ReadRange<'_>> = keys.iter().map(|key| ReadRange::whole(key)).collect();
    batch_read(message, NAMESPACE, &ranges).expect("the workload keeps to the limits");
    Stage::FetchChunks(ReadReplies::new(&ranges), Collected::new(ids.len()), ids)
}

fn list_keys(message: &mut Message, operation: KeysOperation, ids: &[ChunkId]) {
    let list: Vec<[u8; 8]> = ids.iter().map(|chunk| key(*chunk)).collect();
    let list: Vec<&[u8]> = list.iter().map(|key| key.as_slice()).collect();
    keys(message, NAMESPACE, operation, &list).expect("the workload keeps to the limits");
}

//= MKV-LIST-1 test
fn check_listing(listed: &[(Vec<u8>, u64)]) -> Result<Next, Violation> {
    match listed.is_sorted_by(|one, next| one.0 < next.0) {
        true => Ok(Next::Over),
        false => Err(format!("a listing out of order, or twice: {listed:?}")),
    }
}

/// What a server may say when it has too much to do, was restarted meanwhile, or has a disk that fails.
fn is_passing(status: Status, trust: Trust) -> bool {
    match status {
        Status::Busy | Status::OutOfSpace | Status::LeaseExpired | Status::ShuttingDown => true,
        Status::StorageFailed => trust <= Trust::Losing,
        _ => false,
    }
}

fn passing(error: Error, trust: Trust) -> Result<Next, Violation> {
    match error {
        Error::Storage(error) if is_passing(error.status, trust) => Ok(Next::Over),
        other => Err(format!("an operation ended with {other}")),
    }
}
