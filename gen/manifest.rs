//! Manifest blobs: the header, the message, and what the bounds of single fields cannot say.
//!
//! Owns the 32-byte header and the rules between fields. A [`ManifestBlob`] stands for a blob whose header,
//! checksum, bounds and cross-field rules all hold. Not checked: that the chunks exist, or hold what their hashes
//! say; whoever reads a chunk verifies it.

use std::collections::HashMap;

use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::BlockHasher;
use crate::layout::{MANIFEST_FORMAT_VERSION, MANIFEST_HEADER_SIZE_BYTES, MANIFEST_MAGIC};
use crate::limits::MANIFEST_SIZE_BYTES_MAX;
use crate::write::{Measure, Out};
use crate::{Chunk, DecodeError, EncodeError, HashAlgorithm, Manifest, Message};

/// Why a blob is no manifest, or a manifest cannot become a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ManifestError {
    #[error("not a manifest of this format: it does not begin with `MKVMANIF`")]
    Magic,
    #[error("a manifest of {actual} bytes has no room for its header")]
    Truncated { actual: usize },
    #[error("a manifest of format version {version}; this version reads {MANIFEST_FORMAT_VERSION}")]
    Version { version: u16 },
    #[error("the header's reserved bytes are not 0")]
    Reserved,
    #[error("the header speaks of {words} words, but {actual} bytes follow it")]
    Length { words: u32, actual: usize },
    #[error("a manifest of {actual} bytes is longer than {max}")]
    TooLong { actual: usize, max: usize },
    #[error("the manifest is damaged: its checksum does not hold")]
    Checksum,
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Encode(#[from] EncodeError),
    #[error("hash algorithm {code} has no known size")]
    HashAlgorithm { code: u16 },
    #[error("{actual} bytes of hashes, but the chunks need {expected}")]
    Hashes { expected: usize, actual: usize },
    #[error("chunks {first} and {second} have the same hash and different lengths")]
    HashCollision { first: usize, second: usize },
    #[error("chunk {chunk} ends at token {end}, but there are {tokens}")]
    TokenRange { chunk: usize, end: u64, tokens: usize },
}

/// The header, as it is stored.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    magic: U64,
    version: U16,
    reserved: U16,
    words: U32,
    checksum: [u8; 16],
}

const CHECKED_HEADER_SIZE_BYTES: usize = 16;
const _: () = {
    assert!(size_of::<Header>() == MANIFEST_HEADER_SIZE_BYTES);
    assert!(std::mem::offset_of!(Header, version) == 8);
    assert!(std::mem::offset_of!(Header, words) == 12);
    assert!(std::mem::offset_of!(Header, checksum) == CHECKED_HEADER_SIZE_BYTES);
};

impl Header {
    fn checksum_with(&self, message: &[u8]) -> [u8; 16] {
        let mut hasher = BlockHasher::new();
        hasher.update(&self.as_bytes()[..CHECKED_HEADER_SIZE_BYTES]);
        hasher.update(message);
        hasher.finish()
    }
}

impl HashAlgorithm {
    /// The size of one hash in bytes; `None` for an algorithm that this version does not know.
    pub const fn size_bytes(self) -> Option<usize> {
        match self {
            HashAlgorithm::Xxh3x64 => Some(8),
            HashAlgorithm::Xxh3x128 => Some(16),
            HashAlgorithm::Sha256 | HashAlgorithm::Blake3 => Some(32),
            HashAlgorithm::Unknown(_) => None,
        }
    }
}

/// True when a blob claims to be a manifest of this format; it may still be damaged or of a newer version.
pub fn is_manifest(blob: &[u8]) -> bool {
    blob.starts_with(&MANIFEST_MAGIC.to_le_bytes())
}

/// A blob that was checked, as a view of its bytes. Their alignment does not matter.
#[derive(Clone, Copy, Debug)]
pub struct ManifestBlob<'a> {
    manifest: Manifest<'a>,
    hash_size_bytes: usize,
}

impl<'a> ManifestBlob<'a> {
    //= MKV-MAN-1
    pub fn decode(blob: &'a [u8]) -> Result<ManifestBlob<'a>, ManifestError> {
        if !is_manifest(blob) {
            return Err(ManifestError::Magic);
        }
        if blob.len() > MANIFEST_SIZE_BYTES_MAX as usize {
            return Err(ManifestError::TooLong { actual: blob.len(), max: MANIFEST_SIZE_BYTES_MAX as usize });
        }
        let (header, message) =
            Header::ref_from_prefix(blob).map_err(|_| ManifestError::Truncated { actual: blob.len() })?;
        if header.version.get() != MANIFEST_FORMAT_VERSION {
            return Err(ManifestError::Version { version: header.version.get() });
        }
        if header.reserved.get() != 0 {
            return Err(ManifestError::Reserved);
        }
        let words = header.words.get();
        if words as usize * 8 != message.len() {
            return Err(ManifestError::Length { words, actual: message.len() });
        }
        if header.checksum != header.checksum_with(message) {
            return Err(ManifestError::Checksum);
        }
        let manifest = Manifest::decode(&Message::new(message)?)?;
        let hash_size_bytes = check(&manifest)?;
        Ok(ManifestBlob { manifest, hash_size_bytes })
    }

    pub fn manifest(&self) -> &Manifest<'a> {
        &self.manifest
    }

    pub fn hash_size_bytes(&self) -> usize {
        self.hash_size_bytes
    }

    /// Every chunk with its hash, in order.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = (&'a [u8], Chunk)> + use<'a> {
        self.manifest.hashes.chunks_exact(self.hash_size_bytes).zip(self.manifest.chunks)
    }
}

/// Writes `manifest` as a blob into `blob`, replacing what is in there.
pub fn encode(manifest: &Manifest<'_>, blob: &mut Vec<u8>) -> Result<(), ManifestError> {
    check(manifest)?;
    let words = Measure::message(manifest)?;
    let size_bytes = MANIFEST_HEADER_SIZE_BYTES + words * 8;
    if size_bytes > MANIFEST_SIZE_BYTES_MAX as usize {
        return Err(ManifestError::TooLong { actual: size_bytes, max: MANIFEST_SIZE_BYTES_MAX as usize });
    }
    blob.clear();
    blob.resize(size_bytes, 0);
    let (head, message) = blob.split_at_mut(MANIFEST_HEADER_SIZE_BYTES);
    Out::message(manifest, message);
    let mut header = Header {
        magic: MANIFEST_MAGIC.into(),
        version: MANIFEST_FORMAT_VERSION.into(),
        reserved: 0.into(),
        words: U32::new(words as u32),
        checksum: [0; 16],
    };
    header.checksum = header.checksum_with(message);
    head.copy_from_slice(header.as_bytes());
    Ok(())
}

/// The rules between fields. Returns the size of one hash.
fn check(manifest: &Manifest<'_>) -> Result<usize, ManifestError> {
    let algorithm = manifest.hash_algorithm;
    let size_bytes = algorithm.size_bytes().ok_or(ManifestError::HashAlgorithm { code: algorithm.code() })?;
    //= MKV-MAN-2
    let expected = size_bytes * manifest.chunks.len();
    if manifest.hashes.len() != expected {
        return Err(ManifestError::Hashes { expected, actual: manifest.hashes.len() });
    }
    let tokens = manifest.tokens.len();
    // The map is bounded by the chunks, and these by the blob's own bytes.
    let mut seen: HashMap<&[u8], (usize, u32)> = HashMap::with_capacity(manifest.chunks.len());
    let hashes = manifest.hashes.chunks_exact(size_bytes);
    for (index, (hash, chunk)) in hashes.zip(manifest.chunks).enumerate() {
        //= MKV-MAN-3
        let (first, length) = *seen.entry(hash).or_insert((index, chunk.length));
        if length != chunk.length {
            return Err(ManifestError::HashCollision { first, second: index });
        }
        //= MKV-MAN-4
        let end = u64::from(chunk.token_start) + u64::from(chunk.token_count);
        if tokens > 0 && end > tokens as u64 {
            return Err(ManifestError::TokenRange { chunk: index, end, tokens });
        }
    }
    Ok(size_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChunkKind, List};

    const TOKENS: [i32; 3] = [1, -2, i32::MAX];
    const CHUNKS: [Chunk; 2] = [
        Chunk { length: 5, token_start: 0, token_count: 3, layer: 1, kind: ChunkKind::Keys },
        Chunk { length: 6, token_start: 1, token_count: 2, layer: u16::MAX, kind: ChunkKind::Unknown(9) },
    ];
    const HASHES: [u8; 16] = *b"hash one11111111";

    fn sample() -> Manifest<'static> {
        Manifest {
            engine: "test",
            engine_state_version: 3,
            model_fingerprint: b"model",
            hash_algorithm: HashAlgorithm::Xxh3x64,
            window_tokens: 64,
            tokens: List::from(&TOKENS),
            engine_state: &[0; 33],
            chunks: List::from(&CHUNKS),
            hashes: &HASHES,
        }
    }

    fn encoded(manifest: &Manifest<'_>) -> Vec<u8> {
        let mut blob = Vec::new();
        encode(manifest, &mut blob).unwrap();
        blob
    }

    #[test]
    fn a_manifest_comes_back_as_it_went() {
        let blob = encoded(&sample());
        assert!(is_manifest(&blob));
        assert_eq!(&blob[..8], b"MKVMANIF");
        let read = ManifestBlob::decode(&blob).unwrap();
        assert_eq!(*read.manifest(), sample());
        let chunks: Vec<_> = read.chunks().collect();
        assert_eq!(chunks, [(&HASHES[..8], CHUNKS[0]), (&HASHES[8..], CHUNKS[1])]);
    }

    #[test]
    fn alignment_does_not_matter() {
        let mut shifted = vec![0];
        shifted.extend(encoded(&sample()));
        assert_eq!(*ManifestBlob::decode(&shifted[1..]).unwrap().manifest(), sample());
    }

    //= MKV-MAN-1 test
    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let blob = encoded(&sample());
        for bit in 0..blob.len() * 8 {
            let mut damaged = blob.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            ManifestBlob::decode(&damaged).unwrap_err();
        }
        for length in 0..blob.len() {
            ManifestBlob::decode(&blob[..length]).unwrap_err();
        }
        let mut longer = blob.clone();
        longer.extend([0; 8]);
        assert!(matches!(ManifestBlob::decode(&longer), Err(ManifestError::Length { .. })));
        let mut newer = blob.clone();
        newer[8] = 2;
        assert_eq!(ManifestBlob::decode(&newer).unwrap_err(), ManifestError::Version { version: 2 });
    }

    //= MKV-MAN-2 test
    #[test]
    fn hashes_match_the_chunks() {
        let short = Manifest { hashes: &HASHES[..15], ..sample() };
        assert_eq!(check(&short), Err(ManifestError::Hashes { expected: 16, actual: 15 }));
        let wider = Manifest { hash_algorithm: HashAlgorithm::Xxh3x128, ..sample() };
        assert_eq!(check(&wider), Err(ManifestError::Hashes { expected: 32, actual: 16 }));
        let unknown = Manifest { hash_algorithm: HashAlgorithm::Unknown(7), ..sample() };
        assert_eq!(encode(&unknown, &mut Vec::new()), Err(ManifestError::HashAlgorithm { code: 7 }));
    }

    //= MKV-MAN-3 test
    #[test]
    fn one_hash_has_one_length() {
        let twice = Manifest { hashes: b"hashhashhashhash", ..sample() };
        assert_eq!(check(&twice), Err(ManifestError::HashCollision { first: 0, second: 1 }));
        let same = [CHUNKS[0], CHUNKS[0]];
        assert_eq!(check(&Manifest { chunks: List::from(&same), ..twice }), Ok(8));
    }

    //= MKV-MAN-4 test
    #[test]
    fn token_ranges_lie_within_the_tokens() {
        let beyond = [Chunk { token_start: u32::MAX, token_count: u32::MAX, ..CHUNKS[0] }, CHUNKS[1]];
        let manifest = Manifest { chunks: List::from(&beyond), ..sample() };
        let end = 2 * u64::from(u32::MAX);
        assert_eq!(check(&manifest), Err(ManifestError::TokenRange { chunk: 0, end, tokens: 3 }));
        assert_eq!(check(&Manifest { tokens: List::empty(), ..manifest }), Ok(8));
    }
}
