//! From a frame's payload to checked pieces: heavy byte work, done before the service is locked.

use memkv_transport::buf::Buf;
use memkv_wire::{Piece, PieceWhich, Request, RequestWhich};

use crate::store::Checksum;

/// The inline bytes of one piece, or of one frame of a body.
#[derive(Clone, Debug)]
pub struct Inline {
    pub bytes: Buf,
    /// That of the bytes.
    pub checksum: Checksum,
    /// Whether the sender gave the same one, or none.
    pub holds: bool,
}

/// The inline pieces of the request follow one another in the payload, but do not fill it, or overrun it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the pieces do not add up to the payload")]
pub struct Uneven;

/// Cuts a payload into the request's pieces and checksums each.
//= MKV-VAL-2
//= MKV-VAL-3
pub fn split(request: &Request<'_>, payload: &Buf, into: &mut Vec<Inline>) -> Result<(), Uneven> {
    into.clear();
    match request.which {
        RequestWhich::Write(write) => cut(write.pieces.iter(), payload, into),
        RequestWhich::BatchWrite(batch) => cut(batch.pieces.iter(), payload, into),
        RequestWhich::PutManifest(_) if !payload.is_empty() => {
            into.push(Inline { bytes: payload.clone(), checksum: Checksum::of_block(payload), holds: true });
            Ok(())
        }
        // Whether others may have a payload at all is not asked here.
        _ => Ok(()),
    }
}

fn cut<'a>(
    pieces: impl Iterator<Item = Piece<'a>>,
    payload: &Buf,
    into: &mut Vec<Inline>,
) -> Result<(), Uneven> {
    let mut at = 0;
    for piece in pieces {
        if let PieceWhich::Inline = piece.which {
            let end = at + piece.length as usize;
            if end > payload.len() {
                return Err(Uneven);
            }
            let bytes = payload.slice(at..end);
            let checksum = Checksum::of_block(&bytes);
            let holds = piece.checksum.is_none_or(|declared| *declared == checksum.0);
            into.push(Inline { bytes, checksum, holds });
            at = end;
        }
    }
    if at == payload.len() { Ok(()) } else { Err(Uneven) }
}
