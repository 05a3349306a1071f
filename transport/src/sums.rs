//! Checksums of a payload's pieces, made as its bytes come in, while these are in the processor's cache.
//!
//! Owns where the pieces of the payload in progress end, as its frame's control message tells, and the checksums of those that
//! are filled. They are of bytes whose tag nobody has seen yet: the receiver hands them out when it held. Made later, by whoever takes the
//! frame, they take twice as long with many connections, whose payloads drive one another out of the cache.

use memkv_wire::checksum::{Checksum, block};

/// Lists the sizes of the pieces that follow one another in a payload, as the frame's verified control message has them. When it lists
/// none, or what does not make up the payload, no checksums are made.
pub type Pieces = fn(control: &[u8], sizes_bytes: &mut Vec<u32>);

/// Payload bytes to a byte of control message from which on the pieces are asked for: of many small ones that alone would take
/// longer than is gained.
const PAYLOAD_SHARE_MIN: usize = 64;

/// The checksum of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The piece's.
    pub size_bytes: u32,
    /// That of its bytes.
    pub checksum: Checksum,
}

/// The checksum of the next piece, when it was made as the bytes came and is of so many of them.
pub fn next_of<'a>(sums: &mut impl Iterator<Item = &'a Sum>, size_bytes: usize) -> Option<Checksum> {
    sums.next().filter(|sum| sum.size_bytes as usize == size_bytes).map(|sum| sum.checksum)
}

#[derive(Debug, Default)]
pub(crate) struct Sums {
    pieces: Option<Pieces>,
    sizes_bytes: Vec<u32>,
    made: Vec<Sum>,
    /// Where in the payload the piece in progress begins.
    start: usize,
}

impl Sums {
    /// From the next frame on.
    pub fn of(&mut self, pieces: Pieces) {
        self.pieces = Some(pieces);
    }

    /// A frame's control message is here and verified.
    pub fn begin(&mut self, control: &[u8], payload_size_bytes: usize) {
        self.made.clear();
        self.sizes_bytes.clear();
        self.start = 0;
        let Some(pieces) = self.pieces else { return };
        if payload_size_bytes < PAYLOAD_SHARE_MIN * control.len() {
            return;
        }
        pieces(control, &mut self.sizes_bytes);
        let size_bytes: u64 = self.sizes_bytes.iter().map(|size_bytes| u64::from(*size_bytes)).sum();
        if size_bytes != payload_size_bytes as u64 {
            self.sizes_bytes.clear();
        }
    }

    /// Where the piece in progress ends, if there is one.
    pub fn end(&self) -> Option<usize> {
        Some(self.start + *self.sizes_bytes.get(self.made.len())? as usize)
    }

    /// So much of the payload is filled: makes the checksums of the pieces that are whole now.
    pub fn filled(&mut self, filled: &[u8]) {
        while let Some(end) = self.end()
            && let Some(piece) = filled.get(self.start..end)
        {
            self.made.push(Sum { size_bytes: piece.len() as u32, checksum: block(piece) });
            self.start = end;
        }
    }

    /// Those of the whole payload.
    pub fn made(&self) -> &[Sum] {
        &self.made
    }
}

#[cfg(test)]
mod tests {
    use memkv_wire::checksum::block;

    use super::*;

    fn listed(control: &[u8], sizes_bytes: &mut Vec<u32>) {
        sizes_bytes.extend(control.iter().map(|size_bytes| u32::from(*size_bytes)));
    }

    /// However the bytes come.
    #[test]
    fn pieces_have_their_checksums() {
        let payload: Vec<u8> = (0..700u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let mut sums = Sums::default();
        sums.of(listed);
        for step in [1, 3, 99, 100, 250, 251, 699, 700] {
            let control = [100, 250, 200, 150];
            sums.begin(&control, payload.len());
            (0..payload.len()).step_by(step).for_each(|filled| sums.filled(&payload[..filled]));
            sums.filled(&payload);
            let (mut start, mut made) = (0, sums.made().iter());
            for size in control.map(usize::from) {
                assert_eq!(next_of(&mut made, size), Some(block(&payload[start..start + size])), "by {step}");
                start += size;
            }
            assert_eq!(made.next(), None);
        }
    }

    #[test]
    fn what_does_not_make_up_the_payload_has_none() {
        let mut sums = Sums::default();
        sums.of(listed);
        for control in [&[100, 99][..], &[100, 101], &[0], &[]] {
            sums.begin(control, 200);
            sums.filled(&[7; 200]);
            assert!(sums.end().is_none() && sums.made().is_empty(), "{control:?}");
        }
        sums.begin(&[64, 64], 128);
        sums.filled(&[8; 100]);
        // The frame broke off, and another one came.
        sums.begin(&[64], 64);
        sums.filled(&[7; 64]);
        assert_eq!(next_of(&mut sums.made().iter(), 64), Some(block(&[7; 64])));
        assert_eq!(next_of(&mut sums.made().iter(), 63), None);
    }

    #[test]
    fn of_many_small_pieces_nobody_is_asked() {
        let mut sums = Sums::default();
        sums.of(listed);
        sums.begin(&[63, 63], 126);
        assert_eq!(sums.end(), None);
        sums.begin(&[64, 64], 128);
        assert_eq!(sums.end(), Some(64));
    }
}
