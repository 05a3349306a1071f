//! What the world's client does: operations of several calls, each a small state machine over the client's real messages.
//!
//! An [`Operation`] is given the frames of its calls and says what comes next. It checks all bytes it gets; what it
//! learns goes into the [`Model`].

use std::collections::BTreeMap;

use memkv_client::core::{Core, Message, Progress, Reply};
use memkv_client::error::{Error, PeerMisbehaved};
use memkv_client::operation::keys::{KeysOperation, KeysReplies, keys};
use memkv_client::operation::manifest::{GetManifestReplies, PutManifestReplies, get_manifest, put_manifest};
use memkv_client::operation::read::{Collected, ReadReplies, ReadStatus, batch_read};
use memkv_client::operation::single::{reply, single};
use memkv_client::operation::write::{BatchWriteReplies, WritePlace, batch_write, write};
use memkv_client::{Published, PutItem, ReadRange, Reference};
use memkv_transport::buf::Buf;
use memkv_wire::{Allocate, Commit, DeleteManifest, ListManifests, Status, checksum, limits, op};

use crate::content::{ChunkId, Chunks, Version, body, key, read_body};
use crate::model::{Model, Name};

const NAMESPACE: &[u8] = b"world";

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

impl Plan {
    /// The name it is about: operations on one name follow one another.
    pub fn name(&self) -> Option<Name> {
        match self {
            Plan::Save { name, .. } | Plan::Restore { name } | Plan::DeleteManifest { name } => Some(*name),
            Plan::Write { .. }
            | Plan::Read { .. }
            | Plan::Exists { .. }
            | Plan::Delete { .. }
            | Plan::List
            | Plan::Piecewise { .. } => None,
        }
    }
}

/// What the world must know to judge an answer.
#[derive(Debug)]
pub struct Judge<'a> {
    pub model: &'a mut Model,
    pub chunks: &'a mut Chunks,
    /// Whether stored bytes may have turned into misses: the disks damage what they read.
    pub rot: bool,
    /// Whether sessions, and values that none names, may have been evicted.
    pub tight: bool,
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
    /// The chunks that had to be there when it began.
    there: BTreeMap<ChunkId, u64>,
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
    pub fn begin(plan: Plan, core: &mut Core, chunks: &mut Chunks, model: &Model) -> (Operation, Message) {
        let mut message = core.message();
        let stage = first(&plan, &mut message, chunks);
        (Operation { plan, stage, attempts: 0, there: model.must_be_there() }, message)
    }

    /// Takes what happened to the call.
    pub fn progress(
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
            Progress::Failed(error) => {
                self.unknown(judge.model);
                match error {
                    // A link that damages bytes ends in one of these, and so does a crash.
                    Error::Timeout { .. } | Error::Connection(_) | Error::Closed | Error::Peer(_) => {
                        Ok(Next::Over)
                    }
                    Error::Misuse(_) | Error::Storage(_) => Err(format!("a call failed with {error}")),
                }
            }
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

    /// The outcome is not known: what the operation asked for may happen, now or later.
    fn unknown(&self, model: &mut Model) {
        match (&self.plan, &self.stage) {
            (Plan::Save { name, version, .. }, Stage::Publish(_)) => model.put_unknown(*name, *version),
            (Plan::DeleteManifest { name }, _) => model.delete_unknown(*name),
            (Plan::Delete { chunks }, _) => chunks.iter().for_each(|chunk| model.chunk_may_be_gone(*chunk)),
            _ => {}
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
                written(replies.finish(), chunks, judge.model)
            }
            Stage::Exists(replies) => self.existing(replies.finish(), judge),
            Stage::Delete(replies) => self.deleted(replies.finish(), judge.model),
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
            Ok(Published::Committed { generation }) if generation == *version => {
                judge.model.put_acknowledged(*name, *version);
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
                write_chunks(&mut message, &missing, judge.chunks);
                self.stage = Stage::WriteMissing(BatchWriteReplies::new(missing.len()), missing);
                Ok(Next::Call(message))
            }
            Err(error) => passing(error),
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
        written(result, chunks, judge.model)?;
        let mut message = core.message();
        self.stage = first(&self.plan, &mut message, judge.chunks);
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
            Err(error) => return passing(error),
        };
        let Some(stored) = stored else {
            if !judge.rot && !judge.tight {
                judge.model.seen(name, None)?;
            }
            return Ok(Next::Over);
        };
        let bytes = stored.body.to_vec();
        let (version, chunks) =
            read_body(&bytes).ok_or_else(|| format!("name {name} has a body nobody wrote"))?;
        if version != stored.generation {
            return Err(format!("name {name}: generation {} with the body of {version}", stored.generation));
        }
        judge.model.seen(name, Some(version))?;
        let mut unique = chunks;
        unique.sort_unstable();
        unique.dedup();
        let mut message = core.message();
        self.stage = fetch(&mut message, unique);
        Ok(Next::Call(message))
    }

    /// Every chunk of a manifest is there, byte for byte.
    //= MKV-PUT-2 test
    //= MKV-PUT-4 test
    //= MKV-GET-1 test
    fn chunks_fetched(
        &self,
        result: Result<Vec<ReadStatus>, Error>,
        collected: &Collected,
        chunks: &[ChunkId],
        judge: &mut Judge<'_>,
    ) -> Result<Next, Violation> {
        let statuses = match result {
            Ok(statuses) => statuses,
            Err(error) => return passing(error),
        };
        for ((chunk, status), value) in chunks.iter().zip(statuses).zip(&collected.values) {
            match status {
                ReadStatus::Read { .. } if value.to_vec() == *judge.chunks.bytes(*chunk) => {}
                ReadStatus::Read { .. } => return Err(format!("chunk {chunk} has bytes nobody wrote")),
                ReadStatus::Miss => {
                    let named = matches!(self.plan, Plan::Restore { name } if judge.model.is_settled(name));
                    let kept = !judge.tight && judge.model.must_have_been_there(&self.there, *chunk);
                    if !judge.rot && (named || kept) {
                        return Err(format!("chunk {chunk} is lost ({:?})", self.plan));
                    }
                }
                ReadStatus::Damaged => {
                    return Err(format!("chunk {chunk} came damaged under a MAC that held"));
                }
                ReadStatus::Failed(error) if is_passing(error.status) => {}
                ReadStatus::Failed(error) => return Err(format!("chunk {chunk} cannot be read: {error}")),
            }
        }
        Ok(Next::Over)
    }

    fn existing(&self, result: Result<Vec<u64>, Error>, judge: &mut Judge<'_>) -> Result<Next, Violation> {
        let Plan::Exists { chunks } = &self.plan else { return Err("an exists of another plan".into()) };
        let lengths = match result {
            Ok(lengths) => lengths,
            Err(error) => return passing(error),
        };
        for (chunk, length) in chunks.iter().zip(lengths) {
            let whole = judge.chunks.bytes(*chunk).len() as u64;
            let kept = !judge.rot && !judge.tight;
            let kept = kept && judge.model.must_have_been_there(&self.there, *chunk);
            if length != whole && (length != 0 || kept) {
                return Err(format!("chunk {chunk} exists with {length} bytes, not {whole}"));
            }
        }
        Ok(Next::Over)
    }

    fn deleted(&self, result: Result<Vec<Status>, Error>, model: &mut Model) -> Result<Next, Violation> {
        let Plan::Delete { chunks } = &self.plan else { return Err("a delete of another plan".into()) };
        chunks.iter().for_each(|chunk| model.chunk_may_be_gone(*chunk));
        match result {
            Ok(statuses) => statuses.iter().try_fold(Next::Over, |_, status| match status {
                Status::Ok | Status::NotFound | Status::Referenced => Ok(Next::Over),
                status if is_passing(*status) => Ok(Next::Over),
                status => Err(format!("a delete was answered with {status:?}")),
            }),
            Err(error) => passing(error),
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
                    Err(error) => passing(error),
                }
            }
            Single::Allocate => {
                let allocated = reply::<op::Allocate, _>(kept, |reply| (reply.allocation, reply.present));
                match allocated {
                    Ok((_, true)) => Ok(Next::Over),
                    Ok((allocation, false)) => Ok(self.write_at(allocation, 0, core, judge)),
                    Err(error) => passing(error),
                }
            }
            Single::WriteAt { allocation, offset } => match reply::<op::Write, _>(kept, |_| ()) {
                Ok(()) => {
                    Ok(self.write_at(allocation, offset + u64::from(limits::BLOCK_SIZE_BYTES), core, judge))
                }
                Err(error) => passing(error),
            },
            Single::Commit => match reply::<op::Commit, _>(kept, |_| ()) {
                Ok(()) => {
                    let Plan::Piecewise { chunk } = self.plan else {
                        return Err("a commit of another plan".into());
                    };
                    judge.model.chunk_acknowledged(chunk);
                    Ok(Next::Over)
                }
                Err(error) => passing(error),
            },
        }
    }

    fn manifest_deleted(&self, kept: &Reply, judge: &mut Judge<'_>) -> Result<Next, Violation> {
        let Plan::DeleteManifest { name } = self.plan else { return Err("a delete of another plan".into()) };
        match reply::<op::DeleteManifest, _>(kept, |_| ()) {
            Ok(()) => judge.model.delete_acknowledged(name),
            // An earlier attempt of the same call may have deleted it.
            Err(Error::Storage(error)) if error.status == Status::NotFound => {
                judge.model.delete_acknowledged(name)
            }
            Err(error) => {
                judge.model.delete_unknown(name);
                return passing(error);
            }
        }
        Ok(Next::Over)
    }

    /// The next block of an allocation, or its commit.
    fn write_at(&mut self, allocation: u64, offset: u64, core: &mut Core, judge: &mut Judge<'_>) -> Next {
        let Plan::Piecewise { chunk } = self.plan else { return Next::Over };
        let bytes = judge.chunks.bytes(chunk);
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
fn first(plan: &Plan, message: &mut Message, chunks: &mut Chunks) -> Stage {
    let fits = "the workload keeps to the limits";
    match plan {
        Plan::Save { name, version, chunks: named } => {
            let keys: Vec<[u8; 8]> = named.iter().map(|chunk| key(*chunk)).collect();
            let bytes: Vec<Buf> = named.iter().map(|chunk| chunks.bytes(*chunk)).collect();
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
            write_chunks(message, ids, chunks);
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
            let length = chunks.bytes(*chunk).len() as u64;
            let request = Allocate { key: &key(*chunk), length, checksum: None, lease_ms: 0 };
            single::<op::Allocate>(message, NAMESPACE, request).expect(fits);
            Stage::Single(None, Single::Allocate)
        }
    }
}

fn write_chunks(message: &mut Message, ids: &[ChunkId], chunks: &mut Chunks) {
    let keys: Vec<[u8; 8]> = ids.iter().map(|chunk| key(*chunk)).collect();
    let bytes: Vec<[Buf; 1]> = ids.iter().map(|chunk| [chunks.bytes(*chunk)]).collect();
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

/// The acknowledged chunks of a write.
fn written(
    result: Result<Vec<Result<(), memkv_client::error::StorageError>>, Error>,
    chunks: &[ChunkId],
    model: &mut Model,
) -> Result<Next, Violation> {
    let results = match result {
        Ok(results) => results,
        Err(error) => return passing(error),
    };
    for (chunk, result) in chunks.iter().zip(results) {
        match result {
            Ok(()) => model.chunk_acknowledged(*chunk),
            Err(error) if is_passing(error.status) => {}
            Err(error) => return Err(format!("chunk {chunk} cannot be written: {error}")),
        }
    }
    Ok(Next::Over)
}

//= MKV-LIST-1 test
fn check_listing(listed: &[(Vec<u8>, u64)]) -> Result<Next, Violation> {
    match listed.is_sorted_by(|one, next| one.0 < next.0) {
        true => Ok(Next::Over),
        false => Err(format!("a listing out of order, or twice: {listed:?}")),
    }
}

/// What a server may say when it has too much to do, or was restarted meanwhile.
fn is_passing(status: Status) -> bool {
    matches!(status, Status::Busy | Status::OutOfSpace | Status::LeaseExpired | Status::ShuttingDown)
}

fn passing(error: Error) -> Result<Next, Violation> {
    match error {
        Error::Storage(error) if is_passing(error.status) => Ok(Next::Over),
        other => Err(format!("an operation ended with {other}")),
    }
}
