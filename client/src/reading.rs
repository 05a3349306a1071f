//! Reads, on the way between what a caller wants and what messages ask for.
//!
//! Where memory is shared with the server, the bytes are put there, and how long a value is has to be known before: a batch
//! asks for the lengths first, which costs a round trip within the host; a single read guesses by the one before it, and reads
//! the rest when the value turns out longer. Elsewhere the bytes come with the replies, and nothing needs to be known.
//! Long values are read in parts, and long batches in messages, that spread over the connections.

use std::sync::atomic::{AtomicU64, Ordering};

use memkv_transport::buf::Buf;
use memkv_wire::Status;

use crate::batch::{Again, DAMAGES_MAX, Part, Reached, ResettableSink, outcome};
use crate::client::Client;
use crate::core::CallOptions;
use crate::driver::run_all;
use crate::error::{Error, PeerMisbehaved, StorageError};
use crate::operation::read::{
    Collected, One, ReadRange, ReadReplies, ReadStatus, batch_read_into, read_into,
};
use crate::operation::{BATCH_ITEMS_MAX, names};

/// Reads of one message.
const MESSAGE_READS: usize = 512;
/// A batch is cut into messages of about so many bytes, and so many reads where lengths are not known, so that it spreads over
/// the connections.
const MESSAGE_SIZE_BYTES: u64 = 8 << 20;
const MESSAGE_UNKNOWN_READS: usize = 256;
/// A value that is longer is read in parts of this size, which spread over the connections. A multiple of a block.
const PART_SIZE_BYTES: u64 = 8 << 20;
/// The shortest and the first guess at a value's length.
const HINT_SIZE_BYTES_MIN: u64 = 64 << 10;
const HINT_SIZE_BYTES: u64 = 1 << 20;

/// A guess at the length of the next value that is read alone.
#[derive(Debug)]
pub(crate) struct LengthHint(AtomicU64);

impl Default for LengthHint {
    fn default() -> Self {
        Self(AtomicU64::new(HINT_SIZE_BYTES))
    }
}

impl LengthHint {
    fn guess(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn learn(&self, size_bytes: u64) {
        let guess = size_bytes.clamp(HINT_SIZE_BYTES_MIN, PART_SIZE_BYTES).next_power_of_two();
        self.0.store(guess, Ordering::Relaxed);
    }
}

impl Client {
    /// Reads a range; `None` for a miss. What is long is read in parts. Of one that has more than `size_bytes_max` only the first part is.
    pub(crate) async fn read_one(
        &self,
        range: ReadRange<'_>,
        size_bytes_max: u64,
        sink: &mut impl ResettableSink,
    ) -> Result<Option<Reached>, Error> {
        if (1..=PART_SIZE_BYTES).contains(&range.length) {
            return self.read_part(range, sink).await;
        }
        for _ in 0..DAMAGES_MAX {
            let guessed = range.length == 0 && self.shared().shares();
            let first = ReadRange { length: if guessed { 0 } else { PART_SIZE_BYTES }, ..range };
            let Some(reached) = self.read_part(first, sink).await? else { return Ok(None) };
            let size_bytes = range.size_bytes_of(reached.value_size_bytes);
            if size_bytes > size_bytes_max {
                return Ok(Some(reached));
            }
            let (begin, end) = (range.offset + reached.size_bytes, range.offset + size_bytes);
            if begin >= end || self.read_rest(range, begin..end, reached, sink).await? {
                return Ok(Some(Reached { size_bytes: end.max(begin) - range.offset, ..reached }));
            }
            sink.restart();
        }
        // The value changes faster than it can be read in parts.
        Err(PeerMisbehaved::Pieces.into())
    }

    /// Reads what is left of a value, several parts at a time. False: another value has come in its place.
    async fn read_rest(
        &self,
        range: ReadRange<'_>,
        rest: std::ops::Range<u64>,
        value: Reached,
        sink: &mut impl ResettableSink,
    ) -> Result<bool, Error> {
        let part = |offset| {
            let length = PART_SIZE_BYTES.min(rest.end - offset);
            ReadRange { offset, length, ..range }
        };
        let parts: Vec<_> = (rest.start..rest.end).step_by(PART_SIZE_BYTES as usize).map(part).collect();
        // A caller's buffer may be larger than what may be received at a time.
        let budget_size_bytes = self.shared().pool().budget_size_bytes() as u64;
        let wave = (budget_size_bytes / 4 / PART_SIZE_BYTES).max(1) as usize;
        for parts in parts.chunks(wave) {
            let mut collected = Collected::new(parts.len());
            let statuses = self.read_many(parts, &[], &mut collected).await?;
            for ((part, status), bytes) in parts.iter().zip(statuses).zip(collected.values) {
                let same = match status {
                    // The part lies outside of what is stored now.
                    ReadStatus::Failed(StorageError { status: Status::Invalid, .. }) => false,
                    status => outcome(status)? == Some(Reached { size_bytes: part.length, ..value }),
                };
                if !same {
                    return Ok(false);
                }
                for (offset, bytes) in bytes.into_parts() {
                    sink.bytes(0, part.offset - range.offset + offset, bytes);
                }
            }
        }
        Ok(true)
    }

    /// As [`Client::read_one`], with one message. Of a range to the value's end only the beginning may be read.
    async fn read_part(
        &self,
        range: ReadRange<'_>,
        sink: &mut impl ResettableSink,
    ) -> Result<Option<Reached>, Error> {
        let mut retry = Again::new(self.options());
        let mut damages = 0;
        loop {
            let mut asked = range;
            if asked.length == 0 && self.shared().shares() {
                asked.length = self.length_hint().guess();
            }
            let memory = self.destination(&asked);
            let memory_of = memory.as_ref();
            let call =
                self.shared().call(retry.options(), |m| read_into(m, self.namespace(), asked, memory_of));
            let mut replies = ReadReplies::with_destinations(&[asked], One::from_elem(memory.clone(), 1));
            match call?.run(|event| replies.event(event, sink)).await {
                Err(error) if retry.anew(&error) => {
                    sink.restart();
                    continue;
                }
                ended => ended?,
            }
            match replies.finish()?.pop() {
                Some(ReadStatus::Damaged) if damages < DAMAGES_MAX => damages += 1,
                Some(status) => {
                    if let (ReadStatus::Read { value_size_bytes, .. }, 0) = (&status, range.length) {
                        self.length_hint().learn(value_size_bytes - range.offset);
                    }
                    return outcome(status);
                }
                None => return Err(PeerMisbehaved::Results.into()),
            }
            sink.restart();
        }
    }

    /// Reads many ranges into a sink; tries those again that the server refused for now or that came damaged. A range to its
    /// value's end is expected to have the length at its place of `lengths`, if there is one and it is not 0.
    pub(crate) async fn read_many(
        &self,
        ranges: &[ReadRange<'_>],
        lengths: &[u64],
        sink: &mut impl ResettableSink,
    ) -> Result<Vec<ReadStatus>, Error> {
        let mut statuses: Vec<ReadStatus> = vec![ReadStatus::Miss; ranges.len()];
        let mut left: Vec<usize> = (0..ranges.len()).collect();
        let mut asked = ranges.to_vec();
        let mut retry = Again::new(self.options());
        for (range, length) in asked.iter_mut().zip(lengths) {
            range.length = if range.length == 0 { *length } else { range.length };
        }
        if self.shared().shares() {
            self.learn_lengths(&mut asked, &mut left).await?;
        }
        while !left.is_empty() {
            let outcomes = match self.read_once(&asked, &left, sink, retry.options()).await {
                Err(error) if retry.anew(&error) => {
                    left.iter().for_each(|&index| sink.forget(index));
                    continue;
                }
                outcomes => outcomes?,
            };
            let mut refused = Vec::new();
            for (&index, status) in left.iter().zip(outcomes) {
                let again = match &status {
                    ReadStatus::Damaged => retry.may(Status::ChecksumMismatch),
                    ReadStatus::Failed(error) => retry.may(error.status),
                    // Another value came in its place since its length was asked for.
                    ReadStatus::Read { size_bytes, value_size_bytes, .. } => {
                        let short = asked[index].offset + size_bytes < *value_size_bytes;
                        asked[index].length != ranges[index].length && short
                    }
                    ReadStatus::Miss => false,
                };
                if again {
                    sink.forget(index);
                    asked[index] = ranges[index];
                    refused.push(index);
                }
                statuses[index] = status;
            }
            if refused.is_empty() {
                break;
            }
            if !retry.wait().await {
                give_up(&mut statuses, &refused);
                break;
            }
            left = refused;
        }
        Ok(statuses)
    }

    /// Finds out how long the values are that are wanted to their end; what is not stored is not asked for any more.
    async fn learn_lengths(&self, asked: &mut [ReadRange<'_>], left: &mut Vec<usize>) -> Result<(), Error> {
        let open: Vec<usize> = (0..asked.len()).filter(|&index| asked[index].length == 0).collect();
        let mut missing = Vec::new();
        for group in open.chunks(BATCH_ITEMS_MAX) {
            let keys: Vec<&[u8]> = group.iter().map(|&index| asked[index].key).collect();
            for (&index, size_bytes) in group.iter().zip(self.exists(&keys).await?) {
                if size_bytes == 0 {
                    missing.push(index);
                } else {
                    // A range that begins at the end or behind it is for the server to refuse.
                    asked[index].length = size_bytes.saturating_sub(asked[index].offset);
                }
            }
        }
        left.retain(|index| missing.binary_search(index).is_err());
        Ok(())
    }

    async fn read_once(
        &self,
        ranges: &[ReadRange<'_>],
        wanted: &[usize],
        sink: &mut impl ResettableSink,
        options: CallOptions,
    ) -> Result<Vec<ReadStatus>, Error> {
        let (mut calls, mut replies) = (Vec::new(), Vec::new());
        for group in groups(ranges, wanted) {
            let asked: Vec<_> = group.iter().map(|&index| ranges[index]).collect();
            let memory: One<_> = asked.iter().map(|range| self.destination(range)).collect();
            let build = |m: &mut _| batch_read_into(m, self.namespace(), &asked, &memory);
            calls.push(self.shared().call(options, build)?);
            replies.push((group, ReadReplies::with_destinations(&asked, memory)));
        }
        run_all(self.shared(), &mut calls, |place, event| {
            let (places, replies) = &mut replies[place];
            replies.event(event, &mut Part { sink, places })
        })
        .await?;
        let mut statuses = Vec::with_capacity(wanted.len());
        for (_, replies) in replies {
            statuses.extend(replies.finish()?);
        }
        Ok(statuses)
    }

    /// Memory that the server can put a range of known length into, if there is any now.
    fn destination(&self, range: &ReadRange<'_>) -> Option<Buf> {
        let size_bytes = usize::try_from(range.length).ok().filter(|size_bytes| *size_bytes > 0)?;
        if !names(self.shared().naming(), size_bytes) {
            return None;
        }
        let pool = self.shared().pool();
        // What is held until a whole batch is answered must not keep other bytes from coming in.
        if pool.available_size_bytes() < pool.budget_size_bytes() / 2 {
            return None;
        }
        let memory = pool.try_take(size_bytes).ok()?.freeze();
        memory.place().is_some().then_some(memory)
    }
}

/// Says of what was to be read once more, and there is no time left for, that it was not read: the bytes that came are forgotten.
fn give_up(statuses: &mut [ReadStatus], refused: &[usize]) {
    for &index in refused {
        if let ReadStatus::Read { .. } = statuses[index] {
            let detail = "no time was left to read a value of another length than expected".into();
            statuses[index] = ReadStatus::Failed(StorageError { status: Status::Busy, detail });
        }
    }
}

/// Cuts what is wanted of these ranges into messages.
fn groups<'w>(ranges: &[ReadRange<'_>], wanted: &'w [usize]) -> impl Iterator<Item = &'w [usize]> {
    let mut rest = wanted;
    std::iter::from_fn(move || {
        let (mut count, mut size_bytes) = (0, 0);
        for &index in rest.iter().take(MESSAGE_READS) {
            size_bytes += match ranges[index].length {
                0 => MESSAGE_SIZE_BYTES / MESSAGE_UNKNOWN_READS as u64,
                length => length,
            };
            if count > 0 && size_bytes > MESSAGE_SIZE_BYTES {
                break;
            }
            count += 1;
        }
        let (now, later) = rest.split_at(count);
        rest = later;
        (!now.is_empty()).then_some(now)
    })
}
