//! Which entry has a digest.
//!
//! Open addressing in buckets of one cache line each: twelve tags of a byte, twelve numbers of entries, and a count of the entries
//! that belong here or before and found no place. So a lookup touches the line of its home, and then, once a tag matches, the entry
//! itself: two lines that are far away, however many entries there are. A lookup goes on to the next bucket only if something
//! overflowed from the one at hand; taking an entry out counts its overflows back, so nothing is ever shifted and no marks of
//! removed entries pile up.
//!
//! There are 256 shards that grow by a quarter, so that no growth stalls anyone for long and little stays unused: an entry costs
//! between 6.1 and 7.6 bytes.
//!
//! Digests are in the entries alone: whoever calls says what the digest of an entry is (`digest_of`).

use super::Digest;

const SHARDS: usize = 256;
/// Entries of a bucket.
const PLACES: usize = 12;

pub struct Index {
    shards: Box<[Shard]>,
}

#[derive(Clone, Default)]
struct Shard {
    buckets: Vec<Bucket>,
    used: usize,
}

#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Bucket {
    /// Some bits of the digest; 0 is an empty place.
    tags: [u8; PLACES],
    /// Entries that this bucket had no place for, on their way from their home to where they are.
    overflowed: u32,
    entries: [u32; PLACES],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// What of a digest decides where its entry is.
#[derive(Clone, Copy)]
struct Hash {
    shard: u8,
    tag: u8,
    home: u32,
}

impl Hash {
    fn of(digest: &Digest) -> Self {
        let home = u32::from_le_bytes([digest[2], digest[3], digest[4], digest[5]]);
        Self { shard: digest[0], tag: digest[1] | 0x80, home }
    }
}

impl Index {
    pub fn new() -> Self {
        Self { shards: vec![Shard::default(); SHARDS].into() }
    }

    pub fn find<'a>(&self, digest: &Digest, digest_of: impl Fn(u32) -> &'a Digest) -> Option<u32> {
        let hash = Hash::of(digest);
        let shard = &self.shards[usize::from(hash.shard)];
        let (bucket, place) = shard.find(hash, |entry| digest_of(entry) == digest)?;
        Some(shard.buckets[bucket].entries[place])
    }

    /// The digest must not be in the index.
    pub fn insert<'a>(&mut self, digest: &Digest, entry: u32, digest_of: impl Fn(u32) -> &'a Digest) {
        let hash = Hash::of(digest);
        let shard = &mut self.shards[usize::from(hash.shard)];
        if (shard.used + 1) * 8 > shard.buckets.len() * PLACES * 7 {
            let buckets = shard.buckets.len();
            shard.resize((buckets + buckets / 4).max(buckets + 1), &digest_of);
        }
        shard.place(hash, entry);
    }

    /// The digest must be in the index.
    pub fn remove<'a>(&mut self, digest: &Digest, digest_of: impl Fn(u32) -> &'a Digest) {
        let hash = Hash::of(digest);
        let shard = &mut self.shards[usize::from(hash.shard)];
        shard.remove(hash, |entry| digest_of(entry) == digest);
    }

    /// Makes the index of these entries, and answers those whose digest another one has.
    ///
    /// Entry by entry, every insertion and every growth would wait for memory that is far away. Here each shard is made at once,
    /// in its last size: that is a few hundred KiB, which stay in cache.
    pub fn of<'a>(
        entries: impl Iterator<Item = u32>,
        digest_of: impl Fn(u32) -> &'a Digest,
    ) -> (Self, Vec<u32>) {
        let mut index = Self::new();
        let mut shares: Vec<Vec<(Hash, u32)>> = vec![Vec::new(); SHARDS];
        for entry in entries {
            let hash = Hash::of(digest_of(entry));
            shares[usize::from(hash.shard)].push((hash, entry));
        }
        let mut twice = Vec::new();
        for (shard, share) in index.shards.iter_mut().zip(shares) {
            shard.buckets = vec![Bucket::default(); (share.len() * 8).div_ceil(PLACES * 7)];
            for (hash, entry) in share {
                match shard.find(hash, |other| digest_of(other) == digest_of(entry)) {
                    Some(_) => twice.push(entry),
                    None => shard.place(hash, entry),
                }
            }
        }
        (index, twice)
    }

    /// All entries, in no order.
    pub fn entries(&self) -> impl Iterator<Item = u32> + '_ {
        let buckets = self.shards.iter().flat_map(|shard| &shard.buckets);
        let places = buckets.flat_map(|bucket| bucket.tags.iter().zip(&bucket.entries));
        places.filter(|(tag, _)| **tag != 0).map(|(_, entry)| *entry)
    }

    pub fn memory_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.buckets.capacity() * size_of::<Bucket>()).sum()
    }
}

impl Shard {
    fn home(&self, hash: Hash) -> usize {
        ((u64::from(hash.home) * self.buckets.len() as u64) >> 32) as usize
    }

    /// The bucket and the place in it.
    fn find(&self, hash: Hash, is_wanted: impl Fn(u32) -> bool) -> Option<(usize, usize)> {
        let mut at = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = &self.buckets[at];
            for place in 0..PLACES {
                if bucket.tags[place] == hash.tag && is_wanted(bucket.entries[place]) {
                    return Some((at, place));
                }
            }
            if bucket.overflowed == 0 {
                return None;
            }
            at = self.after(at);
        }
        None
    }

    /// There is an empty place.
    fn place(&mut self, hash: Hash, entry: u32) {
        let mut at = self.home(hash);
        loop {
            let bucket = &mut self.buckets[at];
            if let Some(place) = bucket.tags.iter().position(|tag| *tag == 0) {
                bucket.tags[place] = hash.tag;
                bucket.entries[place] = entry;
                break;
            }
            bucket.overflowed += 1;
            at = self.after(at);
        }
        self.used += 1;
    }

    fn remove(&mut self, hash: Hash, is_wanted: impl Fn(u32) -> bool) {
        let (bucket, place) = self.find(hash, is_wanted).expect("only what is in the index is removed");
        self.buckets[bucket].tags[place] = 0;
        let mut at = self.home(hash);
        while at != bucket {
            self.buckets[at].overflowed -= 1;
            at = self.after(at);
        }
        self.used -= 1;
    }

    fn resize<'a>(&mut self, buckets: usize, digest_of: &impl Fn(u32) -> &'a Digest) {
        let old = std::mem::replace(&mut self.buckets, vec![Bucket::default(); buckets]);
        let places = old.iter().flat_map(|bucket| bucket.tags.iter().zip(&bucket.entries));
        // All digests first, then all places: reads that do not wait for one another overlap.
        let hashes =
            places.filter(|(tag, _)| **tag != 0).map(|(_, entry)| (Hash::of(digest_of(*entry)), *entry));
        let hashes: Vec<_> = hashes.collect();
        self.used = 0;
        hashes.into_iter().for_each(|(hash, entry)| self.place(hash, entry));
    }

    fn after(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() { 0 } else { at + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Digests that share shards, tags and homes, so that buckets overflow.
    fn digest(n: u32) -> Digest {
        let mut digest = [0; 16];
        digest[1] = (n % 3) as u8;
        digest[2..6].copy_from_slice(&(n % 5).wrapping_mul(0x3333_3333).to_le_bytes());
        digest[12..].copy_from_slice(&n.to_le_bytes());
        digest
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(
            first in prop::collection::vec(0..400u32, 0..300),
            ops in prop::collection::vec((any::<bool>(), 0..400u32), 0..1500),
        ) {
            let digests: Vec<Digest> = (0..400).map(digest).collect();
            let digest_of = |entry: u32| &digests[entry as usize];
            let (mut index, twice) = Index::of(first.iter().copied(), digest_of);
            let mut model: std::collections::BTreeSet<u32> = first.iter().copied().collect();
            prop_assert_eq!(twice.len(), first.len() - model.len());
            for (inserts, n) in ops {
                match (inserts, model.contains(&n)) {
                    (true, false) => {
                        index.insert(&digest(n), n, digest_of);
                        model.insert(n);
                    }
                    (false, true) => {
                        index.remove(&digest(n), digest_of);
                        model.remove(&n);
                    }
                    (true, true) | (false, false) => {}
                }
                prop_assert_eq!(index.find(&digest(n), digest_of), model.contains(&n).then_some(n));
            }
            for n in 0..400 {
                prop_assert_eq!(index.find(&digest(n), digest_of), model.contains(&n).then_some(n));
            }
            let mut entries: Vec<u32> = index.entries().collect();
            entries.sort_unstable();
            prop_assert_eq!(entries, model.iter().copied().collect::<Vec<_>>());
            model.iter().for_each(|n| index.remove(&digest(*n), digest_of));
            let overflowed: u32 =
                index.shards.iter().flat_map(|shard| &shard.buckets).map(|bucket| bucket.overflowed).sum();
            prop_assert_eq!(overflowed, 0);
        }
    }
}
