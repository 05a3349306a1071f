//! `Write` and `BatchWrite`: values cut into pieces, pieces packed into frames.

use memkv_transport::buf::{Buf, Place};
use memkv_wire::{
    BatchWrite, ControlBuf, List, Piece, PieceWhich, Region, Request, RequestWhich, ResponseWhich, Status,
    Write, WriteItem, checksum,
};

use super::{
    BLOCK_SIZE_BYTES, CONTROL_FILL_SIZE_BYTES, FRAME_ITEMS_MAX, PAYLOAD_SIZE_BYTES_MAX, check_items,
    check_key, check_value, data_size_bytes, item_refusal, names, refusal, with_response,
};
use crate::core::{Message, Naming, Reply};
use crate::error::{ApiMisuse, Error, PeerMisbehaved, StorageError};

/// A value to be written: its key, and its bytes in any number of parts, in order. They are shared with the
/// frames that carry them, not copied.
#[derive(Debug, Clone, Copy)]
pub struct PutItem<'a> {
    /// What it is stored under.
    pub key: &'a [u8],
    /// Its bytes.
    pub parts: &'a [Buf],
    /// The checksums of its blocks, or none of them if they are to be made here.
    blocks: &'a [checksum::Checksum],
}

impl<'a> PutItem<'a> {
    /// A value whose checksums are made when it is sent.
    pub fn new(key: &'a [u8], parts: &'a [Buf]) -> Self {
        Self { key, parts, blocks: &[] }
    }

    /// A value whose checksums were made before, of each 1 MiB of it, so that they cover what happened to the bytes since.
    /// The server holds them against what it receives.
    pub fn with_checksums(key: &'a [u8], parts: &'a [Buf], blocks: &'a [checksum::Checksum]) -> Self {
        Self { key, parts, blocks }
    }

    /// The length of the value.
    pub fn size_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    fn cut(&self) -> impl Iterator<Item = Block<'a>> + use<'a> {
        let known = self.blocks;
        let with_checksum =
            move |(place, block): (usize, Block<'a>)| Block { known: known.get(place), ..block };
        Blocks::of(self.parts).enumerate().map(with_checksum)
    }

    pub(crate) fn check(&self) -> Result<(), ApiMisuse> {
        check_key(self.key)?;
        check_value(self.size_bytes())
    }
}

// What an entry takes at most: its data section and pointers, and what these point at.
const PIECE_SIZE_BYTES: usize = 96 + 16 + 32;
const ITEM_SIZE_BYTES: usize = 40 + 16;

/// Fills a message with a batch of values.
//= MKV-BATCH-2
pub fn batch_write(message: &mut Message, namespace: &[u8], items: &[PutItem<'_>]) -> Result<(), Error> {
    check_items(items.len())?;
    let mut frame = BatchFrame::default();
    for (index, item) in items.iter().enumerate() {
        item.check()?;
        let listing = ITEM_SIZE_BYTES + data_size_bytes(item.key.len());
        let mut listed = false;
        for block in item.cut() {
            let more = PIECE_SIZE_BYTES + if listed { 0 } else { listing };
            if !frame.has_room(more, block.size_bytes()) {
                frame.push(message, namespace)?;
            }
            if !listed {
                frame.list(*item, listing);
                listed = true;
            }
            frame.add(index as u32, block, message.naming());
        }
    }
    frame.push(message, namespace)
}

/// One frame of a `BatchWrite` in the making.
#[derive(Default)]
struct BatchFrame<'a> {
    items: Vec<WriteItem<'a>>,
    pieces: Vec<PieceEntry>,
    payload: Vec<Buf>,
    /// Bytes that the server takes from shared memory.
    sources: Vec<Buf>,
    control_size_bytes: usize,
    payload_size_bytes: usize,
}

impl<'a> BatchFrame<'a> {
    fn has_room(&self, control_size_bytes: usize, payload_size_bytes: usize) -> bool {
        self.control_size_bytes + control_size_bytes <= CONTROL_FILL_SIZE_BYTES
            && self.payload_size_bytes + payload_size_bytes <= PAYLOAD_SIZE_BYTES_MAX
            && self.pieces.len() < FRAME_ITEMS_MAX
    }

    fn list(&mut self, item: PutItem<'a>, control_size_bytes: usize) {
        self.items.push(WriteItem { key: item.key, length: item.size_bytes(), checksum: None });
        self.control_size_bytes += control_size_bytes;
    }

    fn add(&mut self, index: u32, block: Block<'_>, naming: Naming) {
        let entry = block.entry(index, 0, naming);
        self.pieces.push(entry);
        if entry.place.is_some() { &mut self.sources } else { &mut self.payload }.extend(block.parts());
        self.control_size_bytes += PIECE_SIZE_BYTES;
        self.payload_size_bytes += block.size_bytes();
    }

    /// Adds the frame to the message and begins another.
    fn push(&mut self, message: &mut Message, namespace: &[u8]) -> Result<(), Error> {
        let pieces: Vec<Piece<'_>> = self.pieces.iter().map(PieceEntry::piece).collect();
        let which = RequestWhich::BatchWrite(BatchWrite {
            items: List::from(self.items.as_slice()),
            pieces: List::from(pieces.as_slice()),
        });
        message.push(&Request { namespace, which })?;
        self.payload.drain(..).for_each(|part| message.attach(part));
        attach_sources(message, &mut self.sources);
        self.items.clear();
        self.pieces.clear();
        self.control_size_bytes = 0;
        self.payload_size_bytes = 0;
        Ok(())
    }
}

/// Fills a message with one value, or, with an allocation, with a part of it that begins at `offset`, a block's
/// beginning.
//= MKV-WR-1
pub fn write(
    message: &mut Message,
    namespace: &[u8],
    key: &[u8],
    place: WritePlace,
    parts: &[Buf],
) -> Result<(), Error> {
    let (allocation, offset, length) = match place {
        WritePlace::Whole => (0, 0, PutItem::new(key, parts).size_bytes()),
        WritePlace::At { allocation, offset, length } => (allocation, offset, length),
    };
    check_key(key)?;
    check_value(length)?;
    let size_bytes = PutItem::new(key, parts).size_bytes();
    let end = offset.checked_add(size_bytes).filter(|&end| end <= length);
    let whole_blocks = end.is_some_and(|end| end == length || end.is_multiple_of(BLOCK_SIZE_BYTES));
    if size_bytes == 0 || !offset.is_multiple_of(BLOCK_SIZE_BYTES) || !whole_blocks {
        return Err(ApiMisuse::Range { offset, length: size_bytes, value: length }.into());
    }
    // A frame holds one block: two never fit, except when the last one is short.
    for block in Blocks::of(parts) {
        let entry = block.entry(0, offset, message.naming());
        let pieces = [entry.piece()];
        let pieces = List::from(pieces.as_slice());
        let which = RequestWhich::Write(Write { key, length, checksum: None, allocation, pieces });
        message.push(&Request { namespace, which })?;
        match entry.place {
            Some(_) => attach_sources(message, &mut block.parts().collect()),
            None => block.parts().for_each(|part| message.attach(part)),
        }
    }
    Ok(())
}

/// Attaches bytes to the last frame, which names each of them in a piece, in this order; where there are MACs, it has a place for each.
fn attach_sources(message: &mut Message, sources: &mut Vec<Buf>) {
    let signed =
        message.frames().last().filter(|_| message.naming() == Naming::Signed && !sources.is_empty());
    let mut macs = signed.map(|frame| macs_of(&frame.control)).unwrap_or_default().into_iter();
    sources.drain(..).for_each(|bytes| message.attach_source(bytes, macs.next()));
}

/// Where in a message the MACs of its pieces go.
fn macs_of(control: &ControlBuf) -> Vec<usize> {
    let Ok(message) = control.message() else { return Vec::new() };
    let pieces = match Request::decode(&message).map(|request| request.which) {
        Ok(RequestWhich::Write(write)) => write.pieces,
        Ok(RequestWhich::BatchWrite(batch)) => batch.pieces,
        _ => return Vec::new(),
    };
    control.macs_of(pieces).collect()
}

/// Which bytes of a value a `Write` carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WritePlace {
    /// All of them.
    Whole,
    /// Some of an allocation's.
    At {
        /// What `Allocate` answered.
        allocation: u64,
        /// Where they begin.
        offset: u64,
        /// The length of the whole value.
        length: u64,
    },
}

/// A piece whose checksum is not borrowed yet: the list of a frame's pieces is made when the frame is.
#[derive(Debug, Clone, Copy)]
struct PieceEntry {
    index: u32,
    offset: u64,
    size_bytes: u32,
    checksum: checksum::Checksum,
    /// Where in the client's memory the server finds it.
    place: Option<Place>,
    signed: bool,
}

impl PieceEntry {
    fn piece(&self) -> Piece<'_> {
        Piece {
            index: self.index,
            offset: self.offset,
            length: self.size_bytes,
            checksum: Some(&self.checksum),
            which: match self.place {
                Some(place) => {
                    // Made when the frame is sealed, with the key of the connection that it goes on.
                    let mac = self.signed.then_some(&[0; 32]);
                    PieceWhich::Region(Region { id: place.region, offset: place.offset, mac })
                }
                None => PieceWhich::Inline,
            },
        }
    }
}

/// The blocks of a value whose bytes lie in several parts.
struct Blocks<'a> {
    parts: &'a [Buf],
    /// Where in the first part the next block begins.
    start: usize,
    offset: u64,
}

/// One block: at most [`BLOCK_SIZE_BYTES`] over one or more parts.
#[derive(Clone, Copy)]
struct Block<'a> {
    parts: &'a [Buf],
    start: usize,
    size_bytes: usize,
    offset: u64,
    known: Option<&'a checksum::Checksum>,
}

impl<'a> Blocks<'a> {
    fn of(parts: &'a [Buf]) -> Self {
        Self { parts, start: 0, offset: 0 }
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        let (parts, start) = (self.parts, self.start);
        let mut size_bytes = 0;
        while let Some(part) = self.parts.first() {
            let take = (part.len() - self.start).min(BLOCK_SIZE_BYTES as usize - size_bytes);
            size_bytes += take;
            self.start += take;
            if self.start < part.len() {
                break;
            }
            self.parts = &self.parts[1..];
            self.start = 0;
        }
        let offset = self.offset;
        self.offset += size_bytes as u64;
        (size_bytes > 0).then_some(Block { parts, start, size_bytes, offset, known: None })
    }
}

impl<'a> Block<'a> {
    fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// The ranges of parts that it is made of; none is empty.
    fn ranges(self) -> impl Iterator<Item = (&'a Buf, std::ops::Range<usize>)> {
        let (mut start, mut left) = (self.start, self.size_bytes);
        self.parts.iter().filter_map(move |part| {
            let range = start..start + left.min(part.len() - start);
            start = 0;
            left -= range.len();
            (!range.is_empty()).then_some((part, range))
        })
    }

    fn parts(self) -> impl Iterator<Item = Buf> + 'a {
        self.ranges().map(|(part, range)| part.slice(range))
    }

    /// `naming`: it may name the client's memory, if it lies there in one piece.
    fn entry(self, index: u32, base: u64, naming: Naming) -> PieceEntry {
        let mut ranges = self.ranges();
        let place = match (ranges.next(), ranges.next()) {
            (Some((part, range)), None) if names(naming, self.size_bytes) => part.place_of(range.start),
            _ => None,
        };
        PieceEntry {
            place,
            signed: naming == Naming::Signed,
            index,
            offset: base + self.offset,
            size_bytes: self.size_bytes as u32,
            checksum: self.checksum(),
        }
    }

    fn checksum(self) -> checksum::Checksum {
        if let Some(known) = self.known {
            return *known;
        }
        let mut ranges = self.ranges();
        match (ranges.next(), ranges.next()) {
            (Some((part, range)), None) => checksum::block(&part[range]),
            _ => {
                let mut hasher = checksum::BlockHasher::new();
                self.ranges().for_each(|(part, range)| hasher.update(&part[range]));
                hasher.finish()
            }
        }
    }
}

/// The checksum of the value that these parts make.
pub fn value_checksum(parts: &[Buf]) -> checksum::Checksum {
    let blocks: Vec<_> = Blocks::of(parts).map(Block::checksum).collect();
    checksum::value(&blocks)
}

/// The reply to a `BatchWrite`, being put together.
#[derive(Debug)]
pub struct BatchWriteReplies {
    statuses: Vec<Option<Status>>,
    refused: Option<StorageError>,
}

impl BatchWriteReplies {
    /// For a batch of so many items.
    pub fn new(count: usize) -> Self {
        Self { statuses: vec![None; count], refused: None }
    }

    /// Forgets the frames of an attempt that was cut off.
    pub fn restart(&mut self) {
        self.statuses.fill(None);
        self.refused = None;
    }

    /// Takes a frame.
    pub fn frame(&mut self, frame: &Reply) -> Result<(), PeerMisbehaved> {
        with_response(frame, |response| {
            if response.status != Status::Ok {
                self.refused = Some(refusal(response));
                return Ok(());
            }
            let ResponseWhich::BatchWrite(reply) = response.which else {
                return Err(PeerMisbehaved::WrongOperation);
            };
            for result in reply.results.iter() {
                let slot = self.statuses.get_mut(result.index as usize).ok_or(PeerMisbehaved::Results)?;
                if slot.replace(result.status).is_some() {
                    return Err(PeerMisbehaved::Results);
                }
            }
            Ok(())
        })
    }

    /// The whole reply: what became of each item.
    pub fn finish(self) -> Result<Vec<Result<(), StorageError>>, Error> {
        if let Some(refused) = self.refused {
            return Err(refused.into());
        }
        let results = self.statuses.into_iter().map(|status| match status {
            None => Err(PeerMisbehaved::Results),
            //= MKV-STAT-1
            Some(Status::Ok) => Ok(Ok(())),
            Some(status) => Ok(Err(item_refusal(status))),
        });
        Ok(results.collect::<Result<_, _>>()?)
    }
}
