//! What the server is known to have, and not to lose for a while.
//!
//! A chunk that this handle published or looked at is leased to it: the server says for how long, and neither evicts nor deletes
//! it meanwhile. A chunk that is put again before then needs no copy: whoever reads its hash gets these bytes. Only a server that lost
//! them all the same, with a drive or by ending, makes that wrong; then publishing answers that the chunk is missing, and all
//! that is remembered here is forgotten.
//!
//! Bounds: at most [`CHUNKS_MAX`] chunks. When there are more, those whose lease is over go, or else all.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use memkv_wire::checksum::Checksum;

use crate::buffer::Hash;

/// Chunks that are remembered.
pub(crate) const CHUNKS_MAX: usize = 1 << 16;

/// A chunk that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub size_bytes: u64,
    /// There if this handle wrote the chunk.
    pub checksum: Option<Checksum>,
}

/// Until when leases hold that a request got.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Term {
    /// A chunk that is put later is not left out: the rest of the lease is for its manifest to come.
    skipped_until: Instant,
    over: Instant,
}

impl Term {
    /// The term of leases that a reply granted. They began after `sent`, when its request was made, so this ends before they do.
    pub fn new(sent: Instant, lease_ms: u32) -> Self {
        let lease = Duration::from_millis(lease_ms.into());
        Self { skipped_until: sent + lease / 2, over: sent + lease }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Stored {
    chunks: HashMap<Hash, (Chunk, Term)>,
}

impl Stored {
    /// A chunk that is sure to stay for as long as it takes to publish a manifest that lists it.
    pub fn sure(&self, hash: &Hash, now: Instant) -> Option<Chunk> {
        let (chunk, term) = self.chunks.get(hash)?;
        (now < term.skipped_until).then_some(*chunk)
    }

    /// A chunk that is remembered, whether or not its lease is over.
    pub fn remembered(&self, hash: &Hash) -> Option<Chunk> {
        self.chunks.get(hash).map(|(chunk, _)| *chunk)
    }

    /// Remembers chunks. A checksum that is known stays known.
    pub fn learn(&mut self, chunks: impl ExactSizeIterator<Item = (Hash, Chunk)>, now: Instant, term: Term) {
        self.learn_within(chunks, now, term, CHUNKS_MAX);
    }

    fn learn_within(
        &mut self,
        chunks: impl ExactSizeIterator<Item = (Hash, Chunk)>,
        now: Instant,
        term: Term,
        chunks_max: usize,
    ) {
        if self.chunks.len() + chunks.len() > chunks_max {
            self.chunks.retain(|_, (_, term)| now < term.over);
        }
        if self.chunks.len() + chunks.len() > chunks_max {
            self.chunks.clear();
        }
        for (hash, chunk) in chunks.take(chunks_max) {
            let (known, until) = self.chunks.entry(hash).or_insert((chunk, term));
            let checksum = chunk.checksum.or(known.checksum.filter(|_| known.size_bytes == chunk.size_bytes));
            (*known, *until) = (Chunk { checksum, ..chunk }, term);
        }
    }

    pub fn forget_all(&mut self) {
        self.chunks.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(seed: usize) -> Hash {
        Hash::new(&seed.to_le_bytes()).expect("a hash")
    }

    fn chunk(size_bytes: u64, checksum: Option<Checksum>) -> Chunk {
        Chunk { size_bytes, checksum }
    }

    #[test]
    fn a_chunk_is_sure_for_half_of_its_lease() {
        let (sent, mut stored) = (Instant::now(), Stored::default());
        stored.learn([(hash(1), chunk(5, None))].into_iter(), sent, Term::new(sent, 10_000));
        let after = |ms| sent + Duration::from_millis(ms);
        assert_eq!(stored.sure(&hash(1), after(4_999)), Some(chunk(5, None)));
        assert_eq!(stored.sure(&hash(1), after(5_000)), None);
        assert_eq!(stored.remembered(&hash(1)), Some(chunk(5, None)));
        assert_eq!(stored.sure(&hash(2), sent), None);
        // A new lease counts anew; what was known of the bytes still is.
        stored.learn(
            [(hash(1), chunk(5, Some([7; 16])))].into_iter(),
            after(6_000),
            Term::new(after(6_000), 10_000),
        );
        stored.learn([(hash(1), chunk(5, None))].into_iter(), after(9_000), Term::new(after(9_000), 10_000));
        assert_eq!(stored.sure(&hash(1), after(13_999)), Some(chunk(5, Some([7; 16]))));
        stored.forget_all();
        assert_eq!(stored.remembered(&hash(1)), None);
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let (sent, mut stored) = (Instant::now(), Stored::default());
        let learn = |stored: &mut Stored, hashes: std::ops::Range<usize>, at| {
            let chunks = hashes.map(|seed| (hash(seed), chunk(1, None)));
            stored.learn_within(chunks, at, Term::new(at, 1_000), 10);
        };
        learn(&mut stored, 0..6, sent);
        let later = sent + Duration::from_millis(600);
        learn(&mut stored, 6..9, later);
        // The first six are over, the others are not.
        let late = sent + Duration::from_millis(1_100);
        learn(&mut stored, 9..12, late);
        assert_eq!((stored.chunks.len(), stored.sure(&hash(0), late)), (6, None));
        assert!(stored.sure(&hash(6), later).is_some());
        // All are held, and these are too many.
        learn(&mut stored, 12..40, late);
        assert_eq!(stored.chunks.len(), 10);
    }
}
