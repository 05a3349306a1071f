//! What the methods for many items share: cutting into messages, collecting, trying the refused ones again.

use std::time::{Duration, Instant};

use memkv_transport::buf::Buf;
use memkv_wire::checksum::Checksum;
use memkv_wire::{Retry, Status};

use crate::core::CallOptions;
use crate::driver::Event;
use crate::error::{ConnectionError, Error, PeerMisbehaved, StorageError};
use crate::operation::BATCH_ITEMS_MAX;
use crate::operation::read::{Collected, ReadReplies, ReadStatus, Sink, Slices, Value};
use crate::operation::write::PutItem;

/// A batch is cut into messages of about this many bytes, so that it spreads over the connections.
const MESSAGE_SIZE_BYTES: u64 = 8 << 20;
/// Attempts that damaged bytes may cost an item.
pub(crate) const DAMAGES_MAX: u32 = 2;
/// How often a batch is built anew because the memory that it named is registered nowhere any more.
const REBUILDS_MAX: u32 = 8;
/// The first delay before the refused items of a batch are tried again; it doubles.
const REFUSED_DELAY_MS: u64 = 20;

/// A sink whose items can be begun anew.
pub(crate) trait ResettableSink: Sink {
    /// What came for this item was for nothing.
    fn forget(&mut self, item: usize);
    /// What came was for nothing.
    fn restart(&mut self);
}

impl ResettableSink for Collected {
    fn forget(&mut self, item: usize) {
        self.values[item] = Value::default();
    }

    fn restart(&mut self) {
        Collected::restart(self);
    }
}

impl ResettableSink for Slices<'_, '_> {
    // Bytes that are read again overwrite the others.
    fn forget(&mut self, _: usize) {}
    fn restart(&mut self) {}
}

/// The items of a sink that one message asks for.
pub(crate) struct Part<'a, S> {
    pub sink: &'a mut S,
    pub places: &'a [usize],
}

impl<S: ResettableSink> Sink for Part<'_, S> {
    fn bytes(&mut self, item: usize, offset: u64, bytes: Buf) {
        self.sink.bytes(self.places[item], offset, bytes);
    }

    fn whole(&mut self, item: usize) {
        self.sink.whole(self.places[item]);
    }
}

/// Hands out each value once, as soon as it is known to be whole.
pub(crate) struct Each<F> {
    collected: Collected,
    handed_out: Vec<bool>,
    hand_out: F,
}

impl<F: FnMut(usize, Value)> Each<F> {
    pub fn new(count: usize, hand_out: F) -> Self {
        Self { collected: Collected::new(count), handed_out: vec![false; count], hand_out }
    }

    /// The reply tells that this one is whole, too.
    pub fn finish(&mut self, item: usize) {
        let value = std::mem::take(&mut self.collected.values[item]);
        if !std::mem::replace(&mut self.handed_out[item], true) {
            (self.hand_out)(item, value.sorted());
        }
    }
}

impl<F: FnMut(usize, Value)> Sink for Each<F> {
    fn bytes(&mut self, item: usize, offset: u64, bytes: Buf) {
        self.collected.bytes(item, offset, bytes);
    }

    fn whole(&mut self, item: usize) {
        self.finish(item);
    }
}

impl<F: FnMut(usize, Value)> ResettableSink for Each<F> {
    fn forget(&mut self, item: usize) {
        self.collected.forget(item);
    }

    fn restart(&mut self) {
        self.collected.restart();
    }
}

impl<S: ResettableSink> ResettableSink for Part<'_, S> {
    fn forget(&mut self, item: usize) {
        self.sink.forget(self.places[item]);
    }

    fn restart(&mut self) {
        self.places.iter().for_each(|&place| self.sink.forget(place));
    }
}

impl ReadReplies {
    pub(crate) fn event(
        &mut self,
        event: Event<'_>,
        sink: &mut impl ResettableSink,
    ) -> Result<(), PeerMisbehaved> {
        match event {
            Event::Frame(frame) => self.frame(frame, sink),
            Event::Restarted => {
                self.restart();
                sink.restart();
                Ok(())
            }
        }
    }
}

/// How much was read, and of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reached {
    pub size_bytes: u64,
    pub value_size_bytes: u64,
    pub checksum: Option<Checksum>,
}

/// How much was read; `None` for a miss.
pub(crate) fn outcome(status: ReadStatus) -> Result<Option<Reached>, Error> {
    match status {
        ReadStatus::Read { size_bytes, value_size_bytes, checksum } => {
            Ok(Some(Reached { size_bytes, value_size_bytes, checksum }))
        }
        ReadStatus::Miss => Ok(None),
        ReadStatus::Damaged => Err(PeerMisbehaved::Checksum.into()),
        ReadStatus::Failed(error) => Err(error.into()),
    }
}

pub(crate) fn miss<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Error::Storage(StorageError { status: Status::NotFound, .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Cuts a batch into messages.
pub(crate) fn groups<'i, 'a>(items: &'i [PutItem<'a>]) -> impl Iterator<Item = &'i [PutItem<'a>]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut size_bytes = 0;
        let mut count = 0;
        for item in rest.iter().take(BATCH_ITEMS_MAX) {
            size_bytes += item.size_bytes();
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

/// The attempts of the items of a batch.
pub(crate) struct Again {
    deadline: Instant,
    options: CallOptions,
    attempts: u32,
    rebuilds: u32,
}

impl Again {
    pub fn new(options: CallOptions) -> Self {
        let deadline = Instant::now() + Duration::from_millis(options.timeout_ms.min(u64::from(u32::MAX)));
        Self { deadline, options, attempts: 0, rebuilds: 0 }
    }

    /// The options of the next attempt: the time that is left.
    pub fn options(&self) -> CallOptions {
        if self.attempts == 0 && self.rebuilds == 0 {
            return self.options;
        }
        let left = self.deadline.saturating_duration_since(Instant::now());
        CallOptions { timeout_ms: left.as_millis().max(1) as u64, ..self.options }
    }

    /// Whether an item with this status may be tried again.
    pub fn may(&self, status: Status) -> bool {
        match status.retry() {
            Retry::No => false,
            Retry::AfterDelay => true,
            Retry::Resend => self.attempts < DAMAGES_MAX,
        }
    }

    /// Whether a message that failed so is to be built anew, at once.
    pub fn anew(&mut self, error: &Error) -> bool {
        let gone = matches!(error, Error::Connection(ConnectionError::MemoryGone));
        self.rebuilds += u32::from(gone);
        gone && self.rebuilds <= REBUILDS_MAX
    }

    /// Waits before the next attempt; false if there is no time for one.
    pub async fn wait(&mut self) -> bool {
        let delay = Duration::from_millis(REFUSED_DELAY_MS << self.attempts.min(6));
        self.attempts += 1;
        if Instant::now() + delay >= self.deadline {
            return false;
        }
        tokio::time::sleep(delay).await;
        true
    }
}
