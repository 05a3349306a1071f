//! From a frame to checked pieces: heavy byte work, done before the service is locked.
//!
//! Bytes come in the frame's payload, or lie in memory that the client shares. The latter are copied into memory of our own
//! first and verified there, so that nothing the client does afterwards changes what is stored. The bytes of one
//! frame's pieces are at most a payload's, wherever they are: every bound on payloads bounds the copies too.

use memkv_transport::buf::{Buf, BufMut};
use memkv_transport::sums::{self, Sum};
use memkv_wire::mac::BulkHasher;
use memkv_wire::{List, Message, Piece, PieceWhich, Region, Request, RequestWhich, Status, checksum, limits};

use crate::store::Checksum;

/// Bytes copied at a time: what was just copied is checksummed while it is in the cache.
const STEP_BYTES: usize = 64 << 10;

/// The bytes of one piece, or of one frame of a body.
#[derive(Clone, Debug)]
pub struct PieceBytes {
    pub bytes: Buf,
    /// That of the bytes.
    pub checksum: Checksum,
    /// Why they are not to be used: the sender gave another checksum, or a place that has no bytes.
    pub refused: Option<Status>,
}

/// The inline pieces of the request follow one another in the payload, but do not fill it, or overrun it; or its pieces
/// have more bytes than a frame may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the pieces do not add up to the payload")]
pub struct Uneven;

/// Memory that the client of a connection registered.
pub trait Regions {
    /// Sees to it that bytes of a piece, by its place in the frame's list, are in `into`; what went wrong if they are not.
    fn read(&self, piece: usize, region: u32, offset: u64, into: &mut [u8]) -> Result<(), Status>;

    /// What is held against a piece whose bytes came out of it.
    fn check(&self) -> Check {
        Check::Checksum
    }
}

/// What has to hold for a piece.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "made and used up within one function")]
pub enum Check {
    /// Nothing on the way could change it unseen but the client.
    Checksum,
    /// Its MAC, which this makes, and the checksum.
    Mac(BulkHasher),
    /// Nothing: the checksum is the one that the sender gave.
    Nothing,
}

/// For connections on which no memory can be registered.
#[derive(Clone, Copy, Debug)]
pub struct NoRegions;

impl Regions for NoRegions {
    fn read(&self, _: usize, _: u32, _: u64, _: &mut [u8]) -> Result<(), Status> {
        Err(Status::Unsupported)
    }
}

/// A frame's payload, with the checksums of its pieces that were made as it came.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    pub bytes: &'a Buf,
    pub sums: &'a [Sum],
}

/// A payload without checksums.
impl<'a> From<&'a Buf> for Payload<'a> {
    fn from(bytes: &'a Buf) -> Payload<'a> {
        Payload { bytes, sums: &[] }
    }
}

/// Lists the sizes of a request's inline pieces.
pub fn inline_sizes(control: &[u8], sizes_bytes: &mut Vec<u32>) {
    if let Ok(message) = Message::new(control)
        && let Ok(request) = Request::decode(&message)
        && let Some(pieces) = pieces_of(&request)
    {
        let inline = pieces.iter().filter(|piece| matches!(piece.which, PieceWhich::Inline));
        sizes_bytes.extend(inline.map(|piece| piece.length));
    }
}

/// Cuts a payload into the request's pieces and checksums each. Pieces elsewhere are refused.
pub fn split(request: &Request<'_>, payload: Payload<'_>, into: &mut Vec<PieceBytes>) -> Result<(), Uneven> {
    split_with(request, payload, &NoRegions, BufMut::default(), into)
}

/// How many bytes of the request's pieces lie in regions.
//= MKV-REG-3
pub fn region_bytes(request: &Request<'_>, payload: &Buf) -> Result<usize, Uneven> {
    let Some(pieces) = pieces_of(request) else { return Ok(0) };
    let lengths = pieces.iter().filter(|piece| matches!(piece.which, PieceWhich::Region(_)));
    let bytes = lengths.map(|piece| u64::from(piece.length)).sum::<u64>();
    if bytes + payload.len() as u64 > u64::from(limits::PAYLOAD_SIZE_BYTES_MAX) {
        return Err(Uneven);
    }
    Ok(bytes as usize)
}

/// As [`split`], with the pieces that lie in regions: they are copied to `copy`, which has [`region_bytes`]; when it is
/// shorter those that it has no room for are refused.
//= MKV-VAL-2
//= MKV-VAL-3
pub fn split_with(
    request: &Request<'_>,
    payload: Payload<'_>,
    regions: &impl Regions,
    copy: BufMut,
    into: &mut Vec<PieceBytes>,
) -> Result<(), Uneven> {
    into.clear();
    if let Some(pieces) = pieces_of(request) {
        return cut(pieces, payload, regions, copy, into);
    }
    // Whether other requests may have a payload at all is not asked here.
    if matches!(request.which, RequestWhich::PutManifest(_)) && !payload.bytes.is_empty() {
        let checksum = Checksum::of_block(payload.bytes);
        into.push(PieceBytes { bytes: payload.bytes.clone(), checksum, refused: None });
    }
    Ok(())
}

/// The pieces that a request brings, if it is one that does.
pub fn pieces_of<'a>(request: &Request<'a>) -> Option<List<'a, Piece<'a>>> {
    match request.which {
        RequestWhich::Write(write) => Some(write.pieces),
        RequestWhich::BatchWrite(batch) => Some(batch.pieces),
        _ => None,
    }
}

fn cut<'a>(
    pieces: List<'a, Piece<'a>>,
    Payload { bytes: payload, sums }: Payload<'_>,
    regions: &impl Regions,
    mut copy: BufMut,
    into: &mut Vec<PieceBytes>,
) -> Result<(), Uneven> {
    let (mut at, mut copied, mut sums) = (0, 0, sums.iter());
    for (number, piece) in pieces.iter().enumerate() {
        let length = piece.length as usize;
        let (bytes, sum) = match piece.which {
            PieceWhich::Inline => {
                let end = at + length;
                if end > payload.len() {
                    return Err(Uneven);
                }
                let bytes = payload.slice(at..end);
                at = end;
                let made = sums::next_of(&mut sums, length);
                let checksum = made.map_or_else(|| Checksum::of_block(&bytes), Checksum);
                (bytes, Ok(checksum))
            }
            PieceWhich::Region(place) => {
                let room = copy.get_mut(copied..copied + length).ok_or(Status::Unsupported);
                copied += length;
                (Buf::default(), room.and_then(|room| fetch((number, &piece, &place), regions, room)))
            }
            PieceWhich::Unknown(_) => (Buf::default(), Err(Status::Unsupported)),
        };
        let (checksum, refused) = match sum {
            Ok(sum) if piece.checksum.is_none_or(|declared| *declared == sum.0) => (sum, None),
            Ok(sum) => (sum, Some(Status::ChecksumMismatch)),
            Err(status) => (Checksum([0; 16]), Some(status)),
        };
        into.push(PieceBytes { bytes, checksum, refused });
    }
    // Shared only now: until here it was written.
    let copy = copy.freeze();
    let mut copied = 0;
    for (piece, given) in pieces.iter().zip(into.iter_mut()) {
        if let PieceWhich::Region(_) = piece.which {
            let end = copied + piece.length as usize;
            if given.refused.is_none() {
                given.bytes = copy.slice(copied..end);
            }
            copied = end;
        }
    }
    if at == payload.len() { Ok(()) } else { Err(Uneven) }
}

/// Brings a piece out of a region; the checksum is that of the copy.
//= MKV-REG-5
//= MKV-REG-7
fn fetch(
    (number, piece, place): (usize, &Piece<'_>, &Region<'_>),
    regions: &impl Regions,
    into: &mut [u8],
) -> Result<Checksum, Status> {
    let mut mac = match (regions.check(), piece.checksum) {
        (Check::Nothing, Some(declared)) => {
            regions.read(number, place.id, place.offset, into)?;
            return Ok(Checksum(*declared));
        }
        (Check::Mac(hasher), _) => Some(hasher),
        (Check::Checksum | Check::Nothing, _) => None,
    };
    if mac.is_none() && into.len() <= STEP_BYTES {
        regions.read(number, place.id, place.offset, into)?;
        return Ok(Checksum::of_block(into));
    }
    let mut hasher = checksum::BlockHasher::new();
    let mut offset = place.offset;
    for step in into.chunks_mut(STEP_BYTES) {
        regions.read(number, place.id, offset, step)?;
        hasher.update(step);
        mac.iter_mut().for_each(|mac| mac.update(step));
        // The next step is refused if this goes past the end of all regions.
        offset = offset.saturating_add(step.len() as u64);
    }
    let holds = match (mac, place.mac) {
        (Some(mac), Some(given)) => mac.verify(given).is_ok(),
        (Some(_), None) => false,
        (None, _) => true,
    };
    if holds { Ok(Checksum(hasher.finish())) } else { Err(Status::ChecksumMismatch) }
}
