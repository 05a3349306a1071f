//! `Read` and `BatchRead`: pieces in any order, put together and held against their checksums.
//!
//! The bytes go to a [`Sink`] as they come, so that a caller's buffer fills while more is on its way. A piece is
//! verified before the sink sees it (MKV-VAL-3); that the pieces cover what was asked exactly once, and that a whole
//! value has the checksum its writer gave it, is known at the end, in [`ReadReplies::finish`].

use memkv_transport::buf::Buf;
use memkv_transport::sums;
use memkv_transport::verify::Checker;
use memkv_wire::{
    BatchRead, BatchReadReply, Destination, DestinationWhich, List, Piece, PieceWhich, Read, ReadItem,
    ReadReply, Region, Request, RequestWhich, Response, ResponseWhich, Status, checksum, control, limits,
};
use smallvec::SmallVec;

use super::{
    BLOCK_SIZE_BYTES, CONTROL_FILL_SIZE_BYTES, FRAME_ITEMS_MAX, check_items, check_key, data_size_bytes,
    item_refusal, names, refusal, with_response,
};
use crate::core::{Message, Reply};
use crate::error::{ApiMisuse, Error, PeerMisbehaved, StorageError};

/// Bytes to be read: of which value, from where, how many at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRange<'a> {
    /// What the value is stored under.
    pub key: &'a [u8],
    /// The first byte.
    pub offset: u64,
    /// How many; 0 for all to the end of the value.
    pub length: u64,
}

impl<'a> ReadRange<'a> {
    /// A whole value.
    pub fn whole(key: &'a [u8]) -> Self {
        Self { key, offset: 0, length: 0 }
    }

    /// How many bytes this is of a value that has so many.
    pub(crate) fn size_bytes_of(&self, value_size_bytes: u64) -> u64 {
        size_bytes_from(self.offset, self.length, value_size_bytes).unwrap_or(0)
    }

    fn check(&self) -> Result<(), ApiMisuse> {
        check_key(self.key)?;
        let max = limits::VALUE_SIZE_BYTES_MAX;
        if self.offset > max || self.length > max {
            return Err(ApiMisuse::Range { offset: self.offset, length: self.length, value: max });
        }
        Ok(())
    }
}

/// How many bytes `length` from `offset` on are (0: all) of a value that has so many; `None` if it ends before they begin.
fn size_bytes_from(offset: u64, length: u64, value_size_bytes: u64) -> Option<u64> {
    let asked = if length == 0 { u64::MAX } else { length };
    Some(value_size_bytes.checked_sub(offset)?.min(asked))
}

// What an entry takes at most: its data section and pointers, and what these point at.
const ITEM_SIZE_BYTES: usize = 96;

/// Fills a message with a batch of reads.
pub fn batch_read(message: &mut Message, namespace: &[u8], ranges: &[ReadRange<'_>]) -> Result<(), Error> {
    batch_read_into(message, namespace, ranges, &[])
}

/// As [`batch_read`]; the bytes of a range go to its destination, if it has one.
pub fn batch_read_into(
    message: &mut Message,
    namespace: &[u8],
    ranges: &[ReadRange<'_>],
    destinations: &[Option<Buf>],
) -> Result<(), Error> {
    check_items(ranges.len())?;
    let mut items = Vec::with_capacity(ranges.len());
    let mut control_size_bytes = 0;
    for (place, range) in ranges.iter().enumerate() {
        range.check()?;
        let memory = destinations.get(place).and_then(Option::as_ref);
        let size_bytes = ITEM_SIZE_BYTES + data_size_bytes(range.key.len());
        if control_size_bytes + size_bytes > CONTROL_FILL_SIZE_BYTES || items.len() == FRAME_ITEMS_MAX {
            push(message, namespace, &items)?;
            items.clear();
            control_size_bytes = 0;
        }
        let (key, offset, length) = (range.key, range.offset, range.length);
        items.push(ReadItem { key, offset, length, destination: destination(message, memory) });
        control_size_bytes += size_bytes;
    }
    push(message, namespace, &items)
}

/// Where the server is to put bytes. Memory that it cannot reach is not used.
fn destination(message: &mut Message, memory: Option<&Buf>) -> Destination<'static> {
    let named = memory
        .filter(|memory| names(message.naming(), memory.len()))
        .and_then(|memory| Some((memory, memory.place()?)));
    let which = match named {
        None => DestinationWhich::Inline,
        Some((memory, place)) => {
            message.attach_destination(memory.clone());
            DestinationWhich::Region(Region { id: place.region, offset: place.offset, mac: None })
        }
    };
    Destination { which }
}

fn push(message: &mut Message, namespace: &[u8], items: &[ReadItem<'_>]) -> Result<(), Error> {
    let which = RequestWhich::BatchRead(BatchRead { items: List::from(items) });
    message.push(&Request { namespace, which })?;
    Ok(())
}

/// Fills a message with one read.
pub fn read(message: &mut Message, namespace: &[u8], range: ReadRange<'_>) -> Result<(), Error> {
    read_into(message, namespace, range, None)
}

/// As [`read`]; the bytes go to the destination, if there is one.
pub fn read_into(
    message: &mut Message,
    namespace: &[u8],
    range: ReadRange<'_>,
    memory: Option<&Buf>,
) -> Result<(), Error> {
    range.check()?;
    let ReadRange { key, offset, length } = range;
    let destination = destination(message, memory);
    let which = RequestWhich::Read(Read { key, offset, length, destination });
    message.push(&Request { namespace, which })?;
    Ok(())
}

/// Where bytes go that were read.
pub trait Sink {
    /// Verified bytes of an item, `offset` counted from the beginning of what was asked. When the whole reply turns
    /// out bad, or begins anew, they were for nothing.
    fn bytes(&mut self, item: usize, offset: u64, bytes: Buf);

    /// All bytes of an item came, and hold. Told of values of one block, before the reply is whole; of others its end tells.
    fn whole(&mut self, _item: usize) {}
}

/// Lists the sizes of a reply's inline pieces.
pub fn inline_sizes(control: &[u8], sizes_bytes: &mut Vec<u32>) {
    if let Ok(message) = control::Message::new(control)
        && let Ok(response) = Response::decode(&message)
        && let ResponseWhich::Read(ReadReply { pieces, .. })
        | ResponseWhich::BatchRead(BatchReadReply { pieces, .. }) = response.which
    {
        let inline = pieces.iter().filter(|piece| matches!(piece.which, PieceWhich::Inline));
        sizes_bytes.extend(inline.map(|piece| piece.length));
    }
}

/// What became of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadStatus {
    /// All that was asked for is in the sink.
    Read {
        /// The bytes that were read.
        size_bytes: u64,
        /// The length of the whole value.
        value_size_bytes: u64,
        /// The checksum of the whole value, if the server gave it.
        checksum: Option<checksum::Checksum>,
    },
    /// Nothing is stored under the key.
    Miss,
    /// The bytes do not have the checksums they came with: they were damaged after the frame's MAC was made.
    Damaged,
    /// The server could not.
    Failed(StorageError),
}

/// A list of mostly one: a read of one value of one block allocates nothing.
pub type One<T> = SmallVec<[T; 1]>;

/// The reply to a `Read` or `BatchRead`, being put together.
#[derive(Debug)]
pub struct ReadReplies {
    items: One<Item>,
    /// Where the bytes of items go that do not come in the reply; by item.
    destinations: One<Option<Buf>>,
    // Of all items, in the order of arrival.
    spans: One<Span>,
    refused: Option<StorageError>,
}

#[derive(Debug, Clone)]
struct Item {
    offset: u64,
    /// What was asked for; 0 for all.
    length: u64,
    received_bytes: u64,
    damaged: bool,
    result: Option<ItemResult>,
}

#[derive(Debug, Clone, Copy)]
struct ItemResult {
    status: Status,
    value_size_bytes: u64,
    checksum: Option<checksum::Checksum>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    item: u32,
    offset: u64,
    size_bytes: u32,
    checksum: checksum::Checksum,
}

impl ReadReplies {
    /// For these ranges.
    pub fn new(ranges: &[ReadRange<'_>]) -> Self {
        Self::with_destinations(ranges, One::new())
    }

    /// For these ranges, whose bytes go to these destinations.
    pub fn with_destinations(ranges: &[ReadRange<'_>], destinations: One<Option<Buf>>) -> Self {
        let item = |range: &ReadRange<'_>| Item {
            offset: range.offset,
            length: range.length,
            received_bytes: 0,
            damaged: false,
            result: None,
        };
        let items = ranges.iter().map(item).collect();
        Self { items, destinations, spans: One::new(), refused: None }
    }

    /// Forgets the frames of an attempt that was cut off.
    pub fn restart(&mut self) {
        self.spans.clear();
        self.refused = None;
        for item in &mut self.items {
            *item = Item { received_bytes: 0, damaged: false, result: None, ..item.clone() };
        }
    }

    /// Takes a frame.
    pub fn frame(&mut self, frame: &Reply, sink: &mut impl Sink) -> Result<(), PeerMisbehaved> {
        with_response(frame, |response| match response.which {
            ResponseWhich::Read(_) if response.status != Status::Ok => self.single_refused(response),
            ResponseWhich::Read(reply) => {
                self.result(0, Status::Ok, reply.length, reply.checksum.copied(), true)?;
                self.pieces(reply.pieces, frame, sink)
            }
            _ if response.status != Status::Ok => {
                self.refused = Some(refusal(response));
                Ok(())
            }
            ResponseWhich::BatchRead(reply) => {
                for result in reply.results.iter() {
                    let index = result.index as usize;
                    self.result(index, result.status, result.length, result.checksum.copied(), false)?;
                }
                let came_before = self.spans.len();
                self.pieces(reply.pieces, frame, sink)?;
                self.tell_whole(came_before, sink);
                Ok(())
            }
            _ => Err(PeerMisbehaved::WrongOperation),
        })
    }

    /// Tells the sink of the items that are one piece, of this frame, and whose result came.
    fn tell_whole(&self, came_before: usize, sink: &mut impl Sink) {
        for span in &self.spans[came_before..] {
            let index = span.item as usize;
            if let Some(item) = self.items.get(index)
                && item.result.is_some()
                && item.received_bytes == u64::from(span.size_bytes)
                && let Ok(ReadStatus::Read { size_bytes, value_size_bytes, .. }) =
                    item.status(std::slice::from_ref(span))
                && size_bytes == value_size_bytes
            {
                sink.whole(index);
            }
        }
    }

    fn single_refused(&mut self, response: &Response<'_>) -> Result<(), PeerMisbehaved> {
        match response.status {
            Status::NotFound => self.result(0, Status::NotFound, 0, None, true),
            _ => {
                self.refused = Some(refusal(response));
                Ok(())
            }
        }
    }

    /// Takes the result of an item. The frames of a `Read` repeat theirs, and the last one counts; those of a
    /// `BatchRead` bring it once.
    fn result(
        &mut self,
        index: usize,
        status: Status,
        value_size_bytes: u64,
        checksum: Option<checksum::Checksum>,
        repeated: bool,
    ) -> Result<(), PeerMisbehaved> {
        let item = self.items.get_mut(index).ok_or(PeerMisbehaved::Results)?;
        // By its length the rest of a value is asked for.
        let too_long = status == Status::Ok && value_size_bytes > limits::VALUE_SIZE_BYTES_MAX;
        if item.result.is_some() && !repeated || too_long {
            return Err(PeerMisbehaved::Results);
        }
        item.result = Some(ItemResult { status, value_size_bytes, checksum });
        Ok(())
    }

    //= MKV-VAL-2
    fn pieces<'a>(
        &mut self,
        pieces: List<'a, Piece<'a>>,
        frame: &Reply,
        sink: &mut impl Sink,
    ) -> Result<(), PeerMisbehaved> {
        let empty = Buf::default();
        let payload = frame.payload.as_ref().unwrap_or(&empty);
        let (mut start, mut sums) = (0, frame.sums.iter());
        for piece in pieces.iter() {
            let bytes = match piece.which {
                PieceWhich::Inline => {
                    let end = start + piece.length as usize;
                    if end > payload.len() {
                        return Err(PeerMisbehaved::Pieces);
                    }
                    let bytes = payload.slice(start..end);
                    start = end;
                    bytes
                }
                PieceWhich::Region(place) => {
                    let bytes = self.landed(&piece, &place).ok_or(PeerMisbehaved::Pieces)?;
                    let checksum = landed_checksum(&piece, &place, &bytes, frame.checker.as_deref());
                    self.piece(&piece, (bytes, checksum), sink)?;
                    continue;
                }
                PieceWhich::Unknown(_) => return Err(PeerMisbehaved::Pieces),
            };
            let made = sums::next_of(&mut sums, bytes.len());
            let checksum = made.unwrap_or_else(|| checksum::block(&bytes));
            self.piece(&piece, (bytes, Some(checksum)), sink)?;
        }
        if start == payload.len() { Ok(()) } else { Err(PeerMisbehaved::Pieces) }
    }

    /// The bytes of a piece that the server put where it was told to, and nowhere else.
    fn landed(&self, piece: &Piece<'_>, place: &Region<'_>) -> Option<Buf> {
        let item = self.items.get(piece.index as usize)?;
        let memory = self.destinations.get(piece.index as usize)?.as_ref()?;
        let start = usize::try_from(piece.offset.checked_sub(item.offset)?).ok()?;
        let end = start.checked_add(piece.length as usize).filter(|end| *end <= memory.len())?;
        let asked = memory.place_of(start)?;
        (asked.region == place.id && asked.offset == place.offset).then(|| memory.slice(start..end))
    }

    /// Takes a piece's bytes with their checksum; none: they are not those that the server's MAC is of.
    fn piece(
        &mut self,
        piece: &Piece<'_>,
        (bytes, checksum): (Buf, Option<checksum::Checksum>),
        sink: &mut impl Sink,
    ) -> Result<(), PeerMisbehaved> {
        let item = self.items.get_mut(piece.index as usize).ok_or(PeerMisbehaved::Pieces)?;
        let size_bytes = bytes.len() as u64;
        let asked = match item.length {
            0 => limits::VALUE_SIZE_BYTES_MAX.saturating_sub(item.offset),
            length => length,
        };
        let begins = piece.offset == item.offset || piece.offset.is_multiple_of(BLOCK_SIZE_BYTES);
        let inside = piece.offset >= item.offset && piece.offset - item.offset + size_bytes <= asked;
        item.received_bytes += size_bytes;
        if size_bytes == 0 || !begins || !inside || item.received_bytes > asked {
            return Err(PeerMisbehaved::Pieces);
        }
        //= MKV-VAL-3
        let held = checksum.filter(|own| piece.checksum.is_none_or(|theirs| theirs == own));
        let Some(checksum) = held else {
            item.damaged = true;
            return Ok(());
        };
        let (index, offset) = (piece.index, piece.offset);
        self.spans.push(Span { item: index, offset, size_bytes: size_bytes as u32, checksum });
        sink.bytes(index as usize, offset - item.offset, bytes);
        Ok(())
    }

    /// The whole reply: what became of each item.
    //= MKV-BATCH-4
    pub fn finish(mut self) -> Result<One<ReadStatus>, Error> {
        if let Some(refused) = self.refused {
            return Err(refused.into());
        }
        self.spans.sort_unstable_by_key(|span| (span.item, span.offset));
        let mut spans = self.spans.as_slice();
        let mut statuses = One::with_capacity(self.items.len());
        for (index, item) in self.items.iter().enumerate() {
            let count = spans.iter().take_while(|span| span.item as usize == index).count();
            let (own, others) = spans.split_at(count);
            spans = others;
            statuses.push(item.status(own)?);
        }
        Ok(statuses)
    }
}

/// The checksum of bytes that the server put in the client's memory, after what is to be checked of them was.
//= MKV-REG-7
fn landed_checksum(
    piece: &Piece<'_>,
    place: &Region<'_>,
    bytes: &[u8],
    checker: Option<&Checker>,
) -> Option<checksum::Checksum> {
    let Some(checker) = checker else { return Some(checksum::block(bytes)) };
    let (Some(mut mac), Some(given)) = (checker.begin(), place.mac) else {
        // Not to be checked; or without a MAC, which is as bad as a wrong one.
        return place.mac.and(piece.checksum).copied();
    };
    let mut hasher = checksum::BlockHasher::new();
    for step in bytes.chunks(STEP_SIZE_BYTES) {
        mac.update(step);
        hasher.update(step);
    }
    mac.verify(given).ok().map(|()| hasher.finish())
}

/// Bytes that are looked at twice while they are in the cache.
const STEP_SIZE_BYTES: usize = 64 << 10;

impl Item {
    /// What became of this item, with the spans that came for it, in order.
    fn status(&self, spans: &[Span]) -> Result<ReadStatus, PeerMisbehaved> {
        let result = self.result.ok_or(PeerMisbehaved::Results)?;
        match result.status {
            Status::Ok => {}
            Status::NotFound => return Ok(ReadStatus::Miss),
            //= MKV-STAT-1
            status => return Ok(ReadStatus::Failed(item_refusal(status))),
        }
        if self.damaged {
            return Ok(ReadStatus::Damaged);
        }
        let value_size_bytes = result.value_size_bytes;
        let size_bytes = size_bytes_from(self.offset, self.length, value_size_bytes);
        let size_bytes = size_bytes.ok_or(PeerMisbehaved::Pieces)?;
        let end = self.offset + size_bytes;
        //= MKV-RD-1
        let mut covered = self.offset;
        for span in spans {
            if span.offset != covered {
                return Err(PeerMisbehaved::Pieces);
            }
            covered += u64::from(span.size_bytes);
        }
        if covered != end {
            return Err(PeerMisbehaved::Pieces);
        }
        // What the writer made, against what came: the server's memory and drive lie between. Only blocks can be
        // compared, so only a whole value whose pieces are blocks.
        let whole = self.offset == 0 && end == value_size_bytes;
        let blocks = spans.iter().all(|span| span.offset.is_multiple_of(BLOCK_SIZE_BYTES));
        if let Some(theirs) = result.checksum.filter(|_| whole && blocks) {
            let checksums = spans.iter().map(|span| &span.checksum);
            if checksum::value(checksums) != theirs {
                return Ok(ReadStatus::Damaged);
            }
        }
        Ok(ReadStatus::Read { size_bytes, value_size_bytes, checksum: result.checksum })
    }
}

/// Bytes that were read, in one or more parts.
#[derive(Debug, Clone, Default)]
pub struct Value {
    parts: Parts,
}

#[derive(Debug, Clone, Default)]
enum Parts {
    #[default]
    None,
    One(u64, Buf),
    Many(Vec<(u64, Buf)>),
}

impl Value {
    /// Its length.
    pub fn size_bytes(&self) -> u64 {
        self.parts().map(|part| part.len() as u64).sum()
    }

    /// Its bytes, in order.
    pub fn parts(&self) -> impl Iterator<Item = &Buf> {
        let (one, many) = match &self.parts {
            Parts::None => (None, &[][..]),
            Parts::One(_, buf) => (Some(buf), &[][..]),
            Parts::Many(many) => (None, many.as_slice()),
        };
        one.into_iter().chain(many.iter().map(|(_, buf)| buf))
    }

    /// Its parts, each with its offset.
    pub(crate) fn into_parts(self) -> impl Iterator<Item = (u64, Buf)> {
        let (one, many) = match self.parts {
            Parts::None => (None, Vec::new()),
            Parts::One(offset, bytes) => (Some((offset, bytes)), Vec::new()),
            Parts::Many(many) => (None, many),
        };
        one.into_iter().chain(many)
    }

    /// A copy in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size_bytes() as usize);
        self.parts().for_each(|part| bytes.extend_from_slice(part));
        bytes
    }

    pub(crate) fn add(&mut self, offset: u64, bytes: Buf) {
        self.parts = match std::mem::take(&mut self.parts) {
            Parts::None => Parts::One(offset, bytes),
            Parts::One(first, buf) => Parts::Many(vec![(first, buf), (offset, bytes)]),
            Parts::Many(mut many) => {
                many.push((offset, bytes));
                Parts::Many(many)
            }
        };
    }

    pub(crate) fn sorted(mut self) -> Self {
        if let Parts::Many(many) = &mut self.parts {
            many.sort_unstable_by_key(|(offset, _)| *offset);
        }
        self
    }
}

/// Keeps the received buffers as they are: nothing is copied.
#[derive(Debug, Default)]
pub struct Collected {
    /// One for each item.
    pub values: One<Value>,
}

impl Collected {
    /// For so many items.
    pub fn new(count: usize) -> Self {
        Self { values: One::from_elem(Value::default(), count) }
    }

    /// Forgets what came.
    pub fn restart(&mut self) {
        self.values.fill(Value::default());
    }
}

impl Sink for Collected {
    fn bytes(&mut self, item: usize, offset: u64, bytes: Buf) {
        self.values[item].add(offset, bytes);
    }
}

/// Copies into the caller's buffers, once, while the bytes are still in the cache.
#[derive(Debug)]
pub struct Slices<'a, 'b> {
    /// One for each item; at least as long as what was asked for.
    pub buffers: &'a mut [&'b mut [u8]],
}

impl Sink for Slices<'_, '_> {
    fn bytes(&mut self, item: usize, offset: u64, bytes: Buf) {
        let start = offset as usize;
        self.buffers[item][start..start + bytes.len()].copy_from_slice(&bytes);
    }
}

impl From<Buf> for Value {
    fn from(bytes: Buf) -> Self {
        Self { parts: Parts::One(0, bytes) }
    }
}
