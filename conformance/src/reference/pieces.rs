//! Pieces: which bytes of a frame's payload belong where, and what they add up to.

use std::collections::BTreeMap;

use memkv_wire::checksum::{self, BLOCK_SIZE_BYTES};
use memkv_wire::{List, Piece, PieceWhich, Status};

use super::flaw::Flaw;
use super::state::Filling;

impl Filling {
    pub fn new(length: u64) -> Filling {
        let length = length as usize;
        Filling { data: vec![0; length], filled: vec![false; length.div_ceil(BLOCK_SIZE_BYTES)] }
    }

    pub fn is_whole(&self) -> bool {
        self.filled.iter().all(|filled| *filled)
    }

    /// Puts one piece in its place. A block comes as one piece; `again`: it may come once more.
    //= MKV-VAL-1
    //= MKV-VAL-3
    pub fn put(&mut self, piece: &Piece<'_>, bytes: &[u8], again: bool, flaw: Option<Flaw>) -> Status {
        let (start, end) = (piece.offset as usize, piece.offset as usize + bytes.len());
        if start >= self.data.len() || end > self.data.len() {
            return Status::Invalid;
        }
        let block = start / BLOCK_SIZE_BYTES;
        let block_end = self.data.len().min((block + 1) * BLOCK_SIZE_BYTES);
        let cut = flaw == Some(Flaw::LastPieceShort) && block_end == self.data.len() && end > start;
        let whole_block = start == block * BLOCK_SIZE_BYTES && (end == block_end || cut);
        if flaw == Some(Flaw::PiecesAnywhere) {
            let last = end.saturating_sub(1) / BLOCK_SIZE_BYTES;
            self.filled[block..=last].fill(true);
        } else if !whole_block || (std::mem::replace(&mut self.filled[block], true) && !again) {
            return Status::Invalid;
        }
        let expected = piece.checksum.filter(|_| flaw != Some(Flaw::PieceChecksumNotChecked));
        if expected.is_some_and(|expected| *expected != checksum::block(bytes)) {
            return Status::ChecksumMismatch;
        }
        self.data[start..end].copy_from_slice(bytes);
        Status::Ok
    }
}

/// Cuts a frame's payload by its pieces. Fails when they do not add up to it, or lie elsewhere.
//= MKV-VAL-2
pub fn cut<'a>(pieces: List<'a, Piece<'a>>, payload: &'a [u8]) -> Result<Vec<(Piece<'a>, &'a [u8])>, Status> {
    let (mut rest, mut cut) = (payload, Vec::new());
    for piece in pieces {
        let PieceWhich::Inline = piece.which else { return Err(Status::Unsupported) };
        let Some((bytes, after)) = rest.split_at_checked(piece.length as usize) else {
            return Err(Status::Invalid);
        };
        cut.push((piece, bytes));
        rest = after;
    }
    if rest.is_empty() { Ok(cut) } else { Err(Status::Invalid) }
}

/// The values that a message's pieces make: by item, the bytes or why there are none.
pub struct Gathered {
    items: BTreeMap<u32, (Filling, Status)>,
}

impl Gathered {
    pub fn new(lengths: impl Iterator<Item = u64>) -> Gathered {
        Gathered { items: (0..).zip(lengths.map(|length| (Filling::new(length), Status::Ok))).collect() }
    }

    /// False when there is no such item.
    pub fn put(&mut self, piece: &Piece<'_>, bytes: &[u8], flaw: Option<Flaw>) -> bool {
        let Some((filling, status)) = self.items.get_mut(&piece.index) else { return false };
        let put = filling.put(piece, bytes, flaw == Some(Flaw::SecondPieceWins), flaw);
        if *status == Status::Ok {
            *status = put;
        }
        true
    }

    //= MKV-WR-1
    //= MKV-BATCH-2
    pub fn finish(self, flaw: Option<Flaw>) -> Vec<Result<Vec<u8>, Status>> {
        let finish = |(filling, status): (Filling, Status)| match status {
            Status::Ok if filling.is_whole() || flaw == Some(Flaw::GapsTaken) => Ok(filling.data),
            Status::Ok => Err(Status::Invalid),
            failed => Err(failed),
        };
        self.items.into_values().map(finish).collect()
    }
}
