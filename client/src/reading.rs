//! Reads, on the way between what a caller wants and what messages ask for.
//!
//! Where memory is shared with the server, the bytes are put there, and how long a value is has to be known before: a batch
//! asks for the lengths first, which costs a round trip within the host; a single read guesses by the one before it, and reads
//! again when the value turns out longer. Elsewhere the bytes come with the replies, and nothing needs to be known.

use std::sync::atomic::{AtomicU64, Ordering};

use memkv_transport::buf::{BUFFER_SIZE_BYTES_MAX, Buf};
use memkv_wire::Status;

use crate::batch::{Again, DAMAGES_MAX, Part, ResettableSink, outcome};
use crate::client::Client;
use crate::core::CallOptions;
use crate::driver::run_all;
use crate::error::{Error, PeerMisbehaved};
use crate::operation::BATCH_ITEMS_MAX;
use crate::operation::read::{ReadRange, ReadReplies, ReadStatus, batch_read_into, read_into};

/// Reads of one message: their lengths may not be known beforehand, and a batch spreads over the connections.
const MESSAGE_READS: usize = 512;
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
        let guess = size_bytes.clamp(HINT_SIZE_BYTES_MIN, BUFFER_SIZE_BYTES_MAX as u64).next_power_of_two();
        self.0.store(guess, Ordering::Relaxed);
    }
}

impl Client {
    /// The bytes read and the length of the value; `None` for a miss.
    pub(crate) async fn read_one(
        &self,
        range: ReadRange<'_>,
        sink: &mut impl ResettableSink,
    ) -> Result<Option<(u64, u64)>, Error> {
        let mut retry = Again::new(self.options());
        let (mut damages, mut length) = (0, range.length);
        loop {
            if length == 0 && self.shared().shares() {
                length = self.length_hint().guess();
            }
            let mut asked = ReadRange { length, ..range };
            let memory = self.destination(&asked);
            if memory.is_none() {
                asked.length = range.length;
            }
            let memory_of = memory.as_ref();
            let call =
                self.shared().call(retry.options(), |m| read_into(m, self.namespace(), asked, memory_of));
            let mut replies = ReadReplies::with_destinations(&[asked], vec![memory.clone()]);
            match call?.run(|event| replies.event(event, sink)).await {
                Err(error) if retry.anew(&error) => {
                    length = range.length;
                    sink.restart();
                    continue;
                }
                ended => ended?,
            }
            match replies.finish()?.pop() {
                Some(ReadStatus::Damaged) if damages < DAMAGES_MAX => damages += 1,
                Some(ReadStatus::Read { size_bytes, value_size_bytes })
                    if asked.length != range.length && range.offset + size_bytes < value_size_bytes =>
                {
                    self.length_hint().learn(value_size_bytes - range.offset);
                    length = value_size_bytes - range.offset;
                }
                Some(status) => {
                    if let (ReadStatus::Read { size_bytes, .. }, 0) = (&status, range.length) {
                        self.length_hint().learn(*size_bytes);
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
        if self.shared().shares() {
            for (range, length) in asked.iter_mut().zip(lengths) {
                range.length = if range.length == 0 { *length } else { range.length };
            }
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
                    ReadStatus::Read { size_bytes, value_size_bytes } => {
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
            if refused.is_empty() || !retry.wait().await {
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
        let (mut calls, mut groups) = (Vec::new(), Vec::new());
        for group in wanted.chunks(MESSAGE_READS) {
            let asked: Vec<_> = group.iter().map(|&index| ranges[index]).collect();
            let memory: Vec<_> = asked.iter().map(|range| self.destination(range)).collect();
            let build = |m: &mut _| batch_read_into(m, self.namespace(), &asked, &memory);
            calls.push(self.shared().call(options, build)?);
            groups.push((group, ReadReplies::with_destinations(&asked, memory)));
        }
        run_all(self.shared(), &mut calls, |place, event| {
            let (places, replies) = &mut groups[place];
            replies.event(event, &mut Part { sink, places })
        })
        .await?;
        let mut statuses = Vec::with_capacity(wanted.len());
        for (_, replies) in groups {
            statuses.extend(replies.finish()?);
        }
        Ok(statuses)
    }

    /// Memory that the server can put a range of known length into, if there is any now.
    fn destination(&self, range: &ReadRange<'_>) -> Option<Buf> {
        if range.length == 0 || !self.shared().shares() {
            return None;
        }
        let size_bytes = usize::try_from(range.length).ok()?;
        let pool = self.shared().pool();
        // What is held until a whole batch is answered must not keep other bytes from coming in.
        if pool.available_size_bytes() < pool.budget_size_bytes() / 2 {
            return None;
        }
        let memory = pool.try_take(size_bytes).ok()?.freeze();
        memory.place().is_some().then_some(memory)
    }
}
