//! The bytes on devices: superblock, record header, journal frame and its entries.
//!
//! All integers are little-endian. `docs/data-format.md` describes every byte; the asserts below and the size
//! snapshot at the bottom freeze it. A structure is changed by raising `FORMAT_VERSION`: an older version is read,
//! a newer one refused.
//!
//! Tags of record headers and seeds of journal checksums depend on secrets in the superblock, so that bytes a client
//! stores can never pass for a header when a device is scanned. They are no protection against someone who can write
//! to the device itself.

use std::hash::Hasher as _;
use std::mem::{offset_of, size_of};

use siphasher::sip128::{Hasher128, SipHasher24};
use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::types::{BLOCK_BYTES, Checksum, SECTOR_BYTES};

pub const FORMAT_VERSION: u16 = 1;
/// Superblocks and nothing else live before this offset.
pub const DATA_OFFSET: u64 = 1 << 20;
/// The two places of the superblock; the one with the higher sequence counts.
pub const SUPERBLOCK_OFFSETS: [u64; 2] = [0, 64 << 10];
/// A value of less than this packs; a longer one starts on a sector.
pub const PACKED_BYTES_MAX: u64 = 64 << 10;
/// A record's start when it packs.
pub const PACK_ALIGN: usize = 8;

pub const SUPERBLOCK_MAGIC: [u8; 8] = *b"MKVSUPER";
pub const RECORD_MAGIC: [u8; 4] = *b"MKVR";
pub const FRAME_MAGIC: [u8; 4] = *b"MKVJ";

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct Superblock {
    pub magic: [u8; 8],
    pub version: U16,
    pub device_index: U16,
    pub device_count: U16,
    /// Bit 0: the store was closed in good order.
    pub flags: U16,
    pub server_id: [u8; 16],
    /// Rises with every write of this superblock.
    pub sequence: U64,
    /// Rises with every opening of the store and every loss of a device.
    pub generation: U64,
    /// Bit i: device i belonged to the store in this generation.
    pub members: U64,
    pub extent_bytes: U32,
    pub extent_count: U32,
    pub data_offset: U64,
    /// The blocks that one part of a striped value holds.
    pub part_blocks: U32,
    pub journal_extent: U32,
    pub journal_epoch: U64,
    pub reserved_0: [u8; 8],
    pub secrets: Secrets,
    pub reserved: [u8; 3952],
    /// XXH3-128 over all bytes before.
    pub checksum: [u8; 16],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Secrets {
    /// Keys of the catalogue's digests; the same on all devices of a store.
    pub digest_key: [u8; 16],
    /// Keys of the record headers' tags; its first half seeds the journal's checksums.
    pub tag_key: [u8; 16],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct RecordHeader {
    /// SipHash-2-4-128 over the header from byte 16 to `header_bytes`.
    pub tag: [u8; 16],
    pub magic: [u8; 4],
    pub version: U16,
    pub kind: u8,
    /// 1: blocks follow the header at multiples of 8; 0: at sectors.
    pub packed: u8,
    /// Fixed and variable part, a multiple of 8.
    pub header_bytes: U32,
    /// From the record's start to its end.
    pub span_bytes: U32,
    /// Rises with every new record of the store; a moved record keeps it.
    pub lsn: U64,
    pub extent_seq: U64,
    /// In the extent.
    pub offset: U32,
    pub part: U32,
    pub part_count: U32,
    /// In this part.
    pub block_count: U32,
    /// All blocks of all parts.
    pub length: U64,
    /// The part of `length` that is a manifest's body; for values, all of it.
    pub body_length: U64,
    pub checksum: [u8; 16],
    pub namespace_bytes: U16,
    pub key_bytes: U16,
    pub reserved: [u8; 12],
    pub digest: [u8; 16],
    // Followed by the checksums of this part's blocks, the namespace, the key, and zeros to a multiple of 8.
}

/// Starts a manifest's table; the table is the last blocks of its record.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct TableHeader {
    pub generation: U64,
    /// 0 both, 1 refs, 2 home.
    pub role: u8,
    pub reserved: [u8; 3],
    pub chunk_count: U32,
    pub body_length: U64,
    pub body_checksum: [u8; 16],
    pub reserved_1: [u8; 24],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct TableChunk {
    pub digest: [u8; 16],
    pub checksum: [u8; 16],
    pub length: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct FrameHeader {
    /// XXH3-128, seeded, over the frame from byte 16 to the end of its entries.
    pub checksum: [u8; 16],
    pub magic: [u8; 4],
    pub version: U16,
    /// Bit 0: the next frame starts `next_extent`.
    pub flags: U16,
    pub entries_bytes: U32,
    pub next_extent: U32,
    pub epoch: U64,
    pub seq: U64,
    /// The checksum of the frame before, zeros in the first.
    pub previous: [u8; 16],
    pub next_lsn: U64,
    pub next_extent_seq: U64,
    pub reserved: [u8; 16],
}

pub const FRAME_LAST: u16 = 1;

/// Starts every journal entry.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct EntryHeader {
    pub kind: u8,
    pub reserved: [u8; 3],
    /// Of what follows this header, a multiple of 8.
    pub bytes: U32,
}

pub const ENTRY_OPENED: u8 = 1;
pub const ENTRY_RECORDS: u8 = 2;
pub const ENTRY_SEALED: u8 = 3;
pub const ENTRY_FREED: u8 = 4;
pub const ENTRY_REMOVED: u8 = 5;
pub const ENTRY_NAMESPACE: u8 = 6;

/// The body of opened, sealed and freed, and the start of records.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct ExtentEntry {
    pub extent: U32,
    /// Of records: how many `RecordEntry` follow.
    pub count: U32,
    pub seq: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct RecordEntry {
    pub digest: [u8; 16],
    pub checksum: [u8; 16],
    pub offset: U32,
    pub length: U32,
    pub part: U16,
    pub part_count: U16,
    /// As defined by a namespace entry of the same journal.
    pub namespace: U16,
    pub kind: u8,
    pub packed: u8,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct RemovedEntry {
    pub digest: [u8; 16],
    pub extent: U32,
    pub offset: U32,
    pub seq: U64,
}

/// Followed by `length` bytes of name and zeros to a multiple of 8.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub struct NamespaceEntry {
    pub id: U16,
    pub length: U16,
    pub reserved: [u8; 4],
}

const _: () = {
    assert!(size_of::<Superblock>() == SECTOR_BYTES);
    assert!(offset_of!(Superblock, extent_bytes) == 56);
    assert!(offset_of!(Superblock, secrets) == 96);
    assert!(offset_of!(Superblock, checksum) == 4080);
    assert!(size_of::<RecordHeader>() == 128);
    assert!(offset_of!(RecordHeader, lsn) == 32);
    assert!(offset_of!(RecordHeader, checksum) == 80);
    assert!(offset_of!(RecordHeader, digest) == 112);
    assert!(size_of::<TableHeader>() == 64);
    assert!(size_of::<TableChunk>() == 40);
    assert!(size_of::<FrameHeader>() == 96);
    assert!(offset_of!(FrameHeader, previous) == 48);
    assert!(size_of::<EntryHeader>() == 8);
    assert!(size_of::<ExtentEntry>() == 16);
    assert!(size_of::<RecordEntry>() == 48);
    assert!(size_of::<RemovedEntry>() == 32);
    assert!(size_of::<NamespaceEntry>() == 8);
};

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    Value = 1,
    Manifest = 2,
}

impl Kind {
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Value),
            2 => Some(Self::Manifest),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

/// A keyed digest of a full key: what the catalogue indexes by.
pub type Digest = [u8; 16];

impl Secrets {
    /// The digest of a value's key, or of a manifest's name and (for role `Refs`) generation.
    pub fn digest(&self, kind: Kind, namespace: &[u8], key: &[u8], refs_generation: Option<u64>) -> Digest {
        self.begun(kind, namespace, refs_generation).digest(key)
    }

    fn begun(&self, kind: Kind, namespace: &[u8], refs_generation: Option<u64>) -> Begun {
        let mut hasher = SipHasher24::new_with_key(&self.digest_key);
        hasher.write(&[kind as u8, refs_generation.is_some() as u8]);
        hasher.write(&refs_generation.unwrap_or(0).to_le_bytes());
        hasher.write(&(namespace.len() as u16).to_le_bytes());
        hasher.write(namespace);
        Begun(hasher)
    }

    fn tag(&self, bytes: &[u8]) -> [u8; 16] {
        let mut hasher = SipHasher24::new_with_key(&self.tag_key);
        hasher.write(bytes);
        hasher.finish128().as_bytes()
    }

    pub fn frame_checksum(&self, frame_after_checksum: &[u8]) -> [u8; 16] {
        let mut seed = [0; 8];
        seed.copy_from_slice(&self.tag_key[..8]);
        xxh3_128_with_seed(frame_after_checksum, u64::from_le_bytes(seed)).to_be_bytes()
    }
}

/// A digest up to the key.
struct Begun(SipHasher24);

impl Begun {
    fn digest(&self, key: &[u8]) -> Digest {
        let mut hasher = self.0;
        hasher.write(key);
        hasher.finish128().as_bytes()
    }
}

/// Digests of values' keys. Those of one message are of one namespace: what comes before the key is hashed once for all of them,
/// which takes nearly half of the time off a digest.
pub struct ValueDigests {
    secrets: Secrets,
    namespace: Vec<u8>,
    begun: Begun,
}

impl ValueDigests {
    pub fn new(secrets: Secrets) -> Self {
        Self { secrets, namespace: Vec::new(), begun: secrets.begun(Kind::Value, b"", None) }
    }

    pub fn digest(&mut self, namespace: &[u8], key: &[u8]) -> Digest {
        if self.namespace != namespace {
            self.namespace.clear();
            self.namespace.extend_from_slice(namespace);
            self.begun = self.secrets.begun(Kind::Value, namespace, None);
        }
        self.begun.digest(key)
    }
}

impl Superblock {
    pub fn seal(&mut self) {
        let bytes = self.as_bytes();
        let checksum = xxh3_128(&bytes[..SECTOR_BYTES - 16]).to_be_bytes();
        self.checksum = checksum;
    }

    /// The superblock in these bytes, if there is a whole one.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (block, _) = Self::read_from_prefix(bytes).ok()?;
        let checksum = xxh3_128(&block.as_bytes()[..SECTOR_BYTES - 16]).to_be_bytes();
        (block.magic == SUPERBLOCK_MAGIC && block.checksum == checksum).then_some(block)
    }
}

/// The lengths that place the blocks of a record: a value has a body alone, a manifest a body and a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub length: u64,
    pub body_length: u64,
}

impl Shape {
    pub fn value(length: u64) -> Self {
        Self { length, body_length: length }
    }

    pub fn body_blocks(&self) -> u32 {
        self.body_length.div_ceil(BLOCK_BYTES as u64) as u32
    }

    pub fn blocks(&self) -> u32 {
        self.body_blocks() + (self.length - self.body_length).div_ceil(BLOCK_BYTES as u64) as u32
    }

    pub fn packed(&self) -> bool {
        self.length < PACKED_BYTES_MAX
    }

    /// The records it takes: one when it packs, however its blocks are divided.
    pub fn parts(&self, part_blocks: u32) -> u32 {
        if self.packed() { 1 } else { self.blocks().div_ceil(part_blocks) }
    }

    /// The blocks of a part.
    pub fn part_range(&self, part: u32, part_blocks: u32) -> std::ops::Range<u32> {
        if self.packed() {
            return 0..self.blocks();
        }
        let first = part * part_blocks;
        first..(first + part_blocks).min(self.blocks())
    }

    pub fn block_length(&self, block: u32) -> usize {
        let body_blocks = self.body_blocks();
        let (index, length) = if block < body_blocks {
            (block, self.body_length)
        } else {
            (block - body_blocks, self.length - self.body_length)
        };
        let begin = u64::from(index) * BLOCK_BYTES as u64;
        length.saturating_sub(begin).min(BLOCK_BYTES as u64) as usize
    }

    /// Where a part's blocks lie, from its record's start.
    pub fn part(&self, part: u32, part_blocks: u32, header_bytes: usize) -> PartLayout {
        let align = if self.packed() { PACK_ALIGN } else { SECTOR_BYTES };
        let range = self.part_range(part, part_blocks);
        let mut at = header_bytes.next_multiple_of(align);
        let mut blocks = Blocks::with_capacity(range.len());
        for block in range.clone() {
            let length = self.block_length(block);
            blocks.push((at, length));
            at = (at + length).next_multiple_of(align);
        }
        PartLayout { first_block: range.start, blocks, span: at }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartLayout {
    /// The value's block that is this part's first.
    pub first_block: u32,
    /// (offset from the record's start, length) of each block.
    pub blocks: Blocks<(usize, usize)>,
    pub span: usize,
}

/// One for each block of a part: no more than these in extents of the default size.
pub type Blocks<T> = SmallVec<[T; 3]>;
/// A namespace or a key, which mostly is a hash: reading a value makes no allocation for either.
pub type ShortBytes = SmallVec<[u8; 32]>;

/// Everything a record header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    pub packed: bool,
    pub header_bytes: usize,
    pub span: usize,
    pub lsn: u64,
    pub extent_seq: u64,
    pub offset: u32,
    pub part: u32,
    pub part_count: u32,
    pub shape: Shape,
    pub checksum: Checksum,
    pub digest: Digest,
    pub block_checksums: Blocks<Checksum>,
    pub namespace: ShortBytes,
    pub key: ShortBytes,
}

/// The length of a record's header, a multiple of 8.
pub fn header_bytes(block_count: usize, namespace: &[u8], key: &[u8]) -> usize {
    (size_of::<RecordHeader>() + 16 * block_count + namespace.len() + key.len()).next_multiple_of(PACK_ALIGN)
}

impl Record {
    /// The header's bytes, `header_bytes` long.
    pub fn encode(&self, secrets: &Secrets) -> Vec<u8> {
        let fixed = RecordHeader {
            tag: [0; 16],
            magic: RECORD_MAGIC,
            version: FORMAT_VERSION.into(),
            kind: self.kind as u8,
            packed: self.packed as u8,
            header_bytes: (self.header_bytes as u32).into(),
            span_bytes: (self.span as u32).into(),
            lsn: self.lsn.into(),
            extent_seq: self.extent_seq.into(),
            offset: self.offset.into(),
            part: self.part.into(),
            part_count: self.part_count.into(),
            block_count: (self.block_checksums.len() as u32).into(),
            length: self.shape.length.into(),
            body_length: self.shape.body_length.into(),
            checksum: self.checksum.0,
            namespace_bytes: (self.namespace.len() as u16).into(),
            key_bytes: (self.key.len() as u16).into(),
            reserved: [0; 12],
            digest: self.digest,
        };
        let mut bytes = Vec::with_capacity(self.header_bytes);
        bytes.extend_from_slice(fixed.as_bytes());
        self.block_checksums.iter().for_each(|checksum| bytes.extend_from_slice(&checksum.0));
        bytes.extend_from_slice(&self.namespace);
        bytes.extend_from_slice(&self.key);
        bytes.resize(self.header_bytes, 0);
        let tag = secrets.tag(&bytes[16..]);
        bytes[..16].copy_from_slice(&tag);
        bytes
    }

    /// The header at the start of these bytes, if its tag holds and its lengths agree with one another.
    pub fn decode(bytes: &[u8], secrets: &Secrets, part_blocks: u32) -> Option<Self> {
        let (fixed, rest) = RecordHeader::ref_from_prefix(bytes).ok()?;
        if fixed.magic != RECORD_MAGIC {
            return None;
        }
        let header_bytes = fixed.header_bytes.get() as usize;
        if header_bytes < size_of::<RecordHeader>() || header_bytes > bytes.len().min(SECTOR_BYTES) {
            return None;
        }
        if fixed.tag != secrets.tag(&bytes[16..header_bytes]) || fixed.version.get() > FORMAT_VERSION {
            return None;
        }
        let block_count = fixed.block_count.get() as usize;
        let (checksums, rest) = rest.split_at_checked(block_count.checked_mul(16)?)?;
        let (namespace, rest) = rest.split_at_checked(fixed.namespace_bytes.get() as usize)?;
        let (key, _) = rest.split_at_checked(fixed.key_bytes.get() as usize)?;
        let record = Self {
            kind: Kind::from_byte(fixed.kind)?,
            packed: fixed.packed == 1,
            header_bytes,
            span: fixed.span_bytes.get() as usize,
            lsn: fixed.lsn.get(),
            extent_seq: fixed.extent_seq.get(),
            offset: fixed.offset.get(),
            part: fixed.part.get(),
            part_count: fixed.part_count.get(),
            shape: Shape { length: fixed.length.get(), body_length: fixed.body_length.get() },
            checksum: Checksum(fixed.checksum),
            digest: fixed.digest,
            block_checksums: checksums.as_chunks().0.iter().map(|sum| Checksum(*sum)).collect(),
            namespace: namespace.into(),
            key: key.into(),
        };
        record.agrees(part_blocks).then_some(record)
    }

    fn agrees(&self, part_blocks: u32) -> bool {
        if self.shape.length == 0
            || self.shape.length < self.shape.body_length
            || self.shape.length > u32::MAX.into()
        {
            return false;
        }
        let parts = self.shape.parts(part_blocks);
        if self.part >= parts || self.part_count != parts || self.packed != self.shape.packed() {
            return false;
        }
        let layout = self.shape.part(self.part, part_blocks, self.header_bytes);
        let whole = self.header_bytes >= header_bytes(self.block_checksums.len(), &self.namespace, &self.key);
        whole && layout.blocks.len() == self.block_checksums.len() && layout.span == self.span
    }

    pub fn layout(&self, part_blocks: u32) -> PartLayout {
        self.shape.part(self.part, part_blocks, self.header_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: Secrets = Secrets { digest_key: [1; 16], tag_key: [2; 16] };

    fn record() -> Record {
        let shape = Shape::value(5 << 20);
        let header_bytes = header_bytes(1, b"ns", b"key");
        Record {
            kind: Kind::Value,
            packed: false,
            header_bytes,
            span: shape.part(1, 4, header_bytes).span,
            lsn: 7,
            extent_seq: 9,
            offset: 4096,
            part: 1,
            part_count: 2,
            shape,
            checksum: Checksum([3; 16]),
            digest: [4; 16],
            block_checksums: Blocks::from_slice(&[Checksum([5; 16])]),
            namespace: ShortBytes::from_slice(b"ns"),
            key: ShortBytes::from_slice(b"key"),
        }
    }

    /// The digests that data formats of this version were written with: SipHash-2-4-128 of everything in one piece.
    #[test]
    fn digests_of_values_do_not_depend_on_those_before() {
        let mut digests = ValueDigests::new(SECRETS);
        for (namespace, key) in
            [("", "a"), ("ns", "key"), ("ns", "another key"), ("", "key"), ("n", "skey"), ("ns", "key")]
        {
            let length = (namespace.len() as u16).to_le_bytes();
            let joined = [&[1, 0][..], &[0; 8], &length, namespace.as_bytes(), key.as_bytes()].concat();
            let expected = SipHasher24::new_with_key(&SECRETS.digest_key).hash(&joined).as_bytes();
            assert_eq!(digests.digest(namespace.as_bytes(), key.as_bytes()), expected);
            assert_eq!(SECRETS.digest(Kind::Value, namespace.as_bytes(), key.as_bytes(), None), expected);
        }
    }

    #[test]
    fn a_header_survives_its_bytes_and_no_flipped_bit() {
        let record = record();
        let bytes = record.encode(&SECRETS);
        assert_eq!(Record::decode(&bytes, &SECRETS, 4).as_ref(), Some(&record));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::decode(&bad, &SECRETS, 4), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..length], &SECRETS, 4), None);
        }
    }

    #[test]
    fn a_header_made_without_the_secret_is_none() {
        let forged = record().encode(&Secrets { tag_key: [0; 16], ..SECRETS });
        assert_eq!(Record::decode(&forged, &SECRETS, 4), None);
    }

    #[test]
    fn a_superblock_with_a_flipped_byte_is_none() {
        let mut block = Superblock::read_from_bytes(&[0; SECTOR_BYTES]).unwrap();
        block.magic = SUPERBLOCK_MAGIC;
        block.seal();
        let mut bytes = block.as_bytes().to_vec();
        assert!(Superblock::read(&bytes).is_some());
        for at in [0, 8, 100, 2000, 4095] {
            bytes[at] ^= 1;
            assert!(Superblock::read(&bytes).is_none());
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn blocks_of_a_manifest_lie_behind_one_another() {
        let shape = Shape { length: (2 << 20) + 100 + 64, body_length: (2 << 20) + 100 };
        assert_eq!(shape.blocks(), 4);
        assert_eq!(shape.block_length(2), 100);
        assert_eq!(shape.block_length(3), 64);
        let part = shape.part(0, 4, 200);
        assert_eq!(part.blocks[0], (4096, 1 << 20));
        assert_eq!(part.blocks[3], (4096 + (2 << 20) + 4096, 64));
        assert_eq!(part.span, 4096 + (2 << 20) + 8192);
    }

    #[test]
    fn sizes_on_disk_have_not_changed() {
        let sizes = [
            ("Superblock", size_of::<Superblock>()),
            ("Secrets", size_of::<Secrets>()),
            ("RecordHeader", size_of::<RecordHeader>()),
            ("TableHeader", size_of::<TableHeader>()),
            ("TableChunk", size_of::<TableChunk>()),
            ("FrameHeader", size_of::<FrameHeader>()),
            ("EntryHeader", size_of::<EntryHeader>()),
            ("ExtentEntry", size_of::<ExtentEntry>()),
            ("RecordEntry", size_of::<RecordEntry>()),
            ("RemovedEntry", size_of::<RemovedEntry>()),
            ("NamespaceEntry", size_of::<NamespaceEntry>()),
        ];
        let text: String = sizes.iter().map(|(name, size)| format!("{name} {size}\n")).collect();
        let frozen = "Superblock 4096\nSecrets 32\nRecordHeader 128\nTableHeader 64\nTableChunk 40\nFrameHeader 96\n\
                      EntryHeader 8\nExtentEntry 16\nRecordEntry 48\nRemovedEntry 32\nNamespaceEntry 8\n";
        assert_eq!(text, frozen, "raise FORMAT_VERSION and describe the change in docs/data-format.md");
    }
}
