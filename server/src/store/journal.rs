//! One device's journal: the changes of the catalogue that records alone do not tell.
//!
//! The journal is a chain of frames in extents of its own. Entries are appended in memory and cut into a frame when
//! someone waits for them or enough have gathered; at most one frame is in flight, so frames reach the device in order.
//! Each frame carries the checksum of the one before, so that a frame of an earlier life of the same place never passes
//! for the next one.
//!
//! Positions count the bytes of entries ever appended: `durable <= written <= appended`.
//! Not owned here: which extents are free, and when a flush happens.

use std::collections::HashSet;
use std::mem::size_of;

use zerocopy::{FromBytes, IntoBytes};

use super::format::{
    ENTRY_FREED, ENTRY_NAMESPACE, ENTRY_OPENED, ENTRY_RECORDS, ENTRY_REMOVED, ENTRY_SEALED, EntryHeader,
    ExtentEntry, FORMAT_VERSION, FRAME_LAST, FRAME_MAGIC, FrameHeader, NamespaceEntry, RecordEntry,
    RemovedEntry, Secrets,
};
use super::types::{NAMESPACE_BYTES_MAX, SECTOR_BYTES};

/// A frame with its header, at most.
pub const FRAME_BYTES_MAX: usize = 256 << 10;
/// Records listed by one entry, at most; an extent with more gets several entries.
pub const ENTRY_RECORDS_MAX: usize = 1024;
/// Entries gather up to this before a frame is cut without anyone waiting.
const GATHER_BYTES: usize = 64 << 10;

const _: () = assert!(
    size_of::<FrameHeader>()
        + size_of::<EntryHeader>()
        + size_of::<ExtentEntry>()
        + ENTRY_RECORDS_MAX * size_of::<RecordEntry>()
        <= FRAME_BYTES_MAX
);

/// An entry, on its way in or out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Opened { extent: u32, seq: u64 },
    Records { extent: u32, seq: u64, records: Vec<Listed> },
    Sealed { extent: u32, seq: u64 },
    Freed { extent: u32, seq: u64 },
    Removed { digest: [u8; 16], extent: u32, offset: u32, seq: u64 },
    Namespace { id: u16, name: Vec<u8> },
}

/// A record as a sealed extent's entry lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    pub digest: [u8; 16],
    pub checksum: [u8; 16],
    pub offset: u32,
    pub length: u32,
    pub part: u16,
    pub part_count: u16,
    pub namespace: u16,
    pub kind: u8,
    pub packed: bool,
}

pub struct Journal {
    pub epoch: u64,
    /// Memory devices keep none: every position is durable at once.
    enabled: bool,
    seq: u64,
    previous: [u8; 16],
    extent: u32,
    offset: usize,
    extent_bytes: usize,
    /// All extents of the chain, oldest first.
    pub extents: Vec<u32>,
    /// Where the chain goes on when the current extent is full.
    pub spare: Option<u32>,
    pending: Vec<u8>,
    known_namespaces: HashSet<u16>,
    pub appended: u64,
    pub written: u64,
    pub durable: u64,
    /// What the chain began with: a list of what was alive.
    pub listed: u64,
    /// The end of the last entry that takes something away.
    pub removals: u64,
    /// The end of the last entry that takes away a manifest's record.
    pub manifest_removals: u64,
    in_flight: Option<u64>,
    wanted: u64,
}

/// A frame to write at an offset of an extent.
pub struct Frame {
    pub extent: u32,
    pub offset: usize,
    pub bytes: Vec<u8>,
}

impl Journal {
    pub fn new(epoch: u64, extent: u32, extent_bytes: usize, enabled: bool) -> Self {
        Self {
            epoch,
            enabled,
            seq: 0,
            previous: [0; 16],
            extent,
            offset: 0,
            extent_bytes,
            extents: if enabled { vec![extent] } else { Vec::new() },
            spare: None,
            pending: Vec::new(),
            known_namespaces: HashSet::new(),
            appended: 0,
            written: 0,
            durable: 0,
            listed: 0,
            removals: 0,
            manifest_removals: 0,
            in_flight: None,
            wanted: 0,
        }
    }

    pub fn append(&mut self, entry: &Entry) {
        if !self.enabled {
            return;
        }
        let before = self.pending.len();
        entry.encode(&mut self.pending);
        self.appended += (self.pending.len() - before) as u64;
        if matches!(entry, Entry::Removed { .. } | Entry::Freed { .. }) {
            self.removals = self.appended;
        }
    }

    /// Defines a namespace's number, once in a chain.
    pub fn define_namespace(&mut self, id: u16, name: &[u8]) {
        if self.known_namespaces.insert(id) {
            self.append(&Entry::Namespace { id, name: name.to_vec() });
        }
    }

    /// After a replay: these numbers mean the same here and in memory.
    pub fn know_namespaces(&mut self, ids: HashSet<u16>) {
        self.known_namespaces = ids;
    }

    /// Asks that everything appended so far is written soon.
    pub fn want(&mut self) {
        self.wanted = self.appended;
    }

    pub fn wants_frame(&self) -> bool {
        let due = self.wanted > self.written || self.pending.len() >= GATHER_BYTES;
        self.in_flight.is_none() && !self.pending.is_empty() && due
    }

    pub fn needs_spare(&self) -> bool {
        self.enabled && self.spare.is_none()
    }

    pub fn is_writing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Entries that are not in a frame yet.
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// The next frame, once no other is in flight. `None` when there is nothing to write, or the chain cannot go on
    /// because no spare extent was given in time.
    pub fn cut(&mut self, secrets: &Secrets, next_lsn: u64, next_extent_seq: u64) -> Option<Frame> {
        if self.in_flight.is_some() || self.pending.is_empty() {
            return None;
        }
        let length = whole_entries(&self.pending, FRAME_BYTES_MAX - size_of::<FrameHeader>());
        let bytes_total = (size_of::<FrameHeader>() + length).next_multiple_of(SECTOR_BYTES);
        let last = self.offset + bytes_total + FRAME_BYTES_MAX > self.extent_bytes;
        let next_extent = if last { self.spare? } else { 0 };
        let header = FrameHeader {
            checksum: [0; 16],
            magic: FRAME_MAGIC,
            version: FORMAT_VERSION.into(),
            flags: if last { FRAME_LAST } else { 0 }.into(),
            entries_bytes: (length as u32).into(),
            next_extent: next_extent.into(),
            epoch: self.epoch.into(),
            seq: self.seq.into(),
            previous: self.previous,
            next_lsn: next_lsn.into(),
            next_extent_seq: next_extent_seq.into(),
            reserved: [0; 16],
        };
        let mut bytes = Vec::with_capacity(bytes_total);
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend(self.pending.drain(..length));
        let checksum = secrets.frame_checksum(&bytes[16..]);
        bytes[..16].copy_from_slice(&checksum);
        bytes.resize(bytes_total, 0);
        let frame = Frame { extent: self.extent, offset: self.offset, bytes };
        self.in_flight = Some(self.appended - self.pending.len() as u64);
        self.advance(checksum, bytes_total, last.then_some(next_extent));
        Some(frame)
    }

    fn advance(&mut self, checksum: [u8; 16], bytes: usize, next_extent: Option<u32>) {
        self.seq += 1;
        self.previous = checksum;
        self.offset += bytes;
        if let Some(extent) = next_extent {
            self.spare = None;
            self.extents.push(extent);
            self.extent = extent;
            self.offset = 0;
        }
    }

    /// The frame in flight reached the device.
    pub fn frame_written(&mut self) {
        if let Some(position) = self.in_flight.take() {
            self.written = position;
        }
    }

    /// Takes the frame at the chain's end, if these bytes (from that place on) begin with it. Used when reading a
    /// chain: afterwards the journal stands where the next frame goes.
    pub fn replay(&mut self, bytes: &[u8], secrets: &Secrets) -> Option<Replayed> {
        let (header, rest) = FrameHeader::ref_from_prefix(bytes).ok()?;
        let length = header.entries_bytes.get() as usize;
        if header.magic != FRAME_MAGIC
            || header.version.get() > FORMAT_VERSION
            || header.epoch.get() != self.epoch
            || header.seq.get() != self.seq
            || header.previous != self.previous
            || length > rest.len().min(FRAME_BYTES_MAX - size_of::<FrameHeader>())
        {
            return None;
        }
        let end = size_of::<FrameHeader>() + length;
        if header.checksum != secrets.frame_checksum(&bytes[16..end]) {
            return None;
        }
        let entries = decode_entries(&rest[..length])?;
        let last = header.flags.get() & FRAME_LAST != 0;
        let next = last.then_some(header.next_extent.get());
        self.advance(header.checksum, end.next_multiple_of(SECTOR_BYTES), next);
        Some(Replayed { entries })
    }

    /// Where the chain seems to go on behind these bytes, which begin where [`Journal::tail`] is: nothing is verified.
    pub fn extent_after(&self, bytes: &[u8]) -> Option<u32> {
        let mut at = 0;
        while let Ok((header, _)) = FrameHeader::ref_from_prefix(bytes.get(at..)?) {
            if header.magic != FRAME_MAGIC || header.epoch.get() != self.epoch {
                break;
            }
            if header.flags.get() & FRAME_LAST != 0 {
                return Some(header.next_extent.get());
            }
            at += (size_of::<FrameHeader>() + header.entries_bytes.get() as usize)
                .next_multiple_of(SECTOR_BYTES);
        }
        None
    }

    /// Whether these bytes begin with a frame of this chain that comes after the next one: then the next one is damaged.
    pub fn is_later_frame(&self, bytes: &[u8], secrets: &Secrets) -> bool {
        let Ok((header, rest)) = FrameHeader::ref_from_prefix(bytes) else { return false };
        let length = header.entries_bytes.get() as usize;
        header.magic == FRAME_MAGIC
            && header.epoch.get() == self.epoch
            && header.seq.get() > self.seq
            && length <= rest.len()
            && header.checksum == secrets.frame_checksum(&bytes[16..size_of::<FrameHeader>() + length])
    }

    /// Where the next frame is or goes: (extent, offset in it).
    pub fn tail(&self) -> (u32, usize) {
        (self.extent, self.offset)
    }
}

/// What one frame said.
pub struct Replayed {
    pub entries: Vec<Entry>,
}

/// How many bytes of these entries are whole and fit.
fn whole_entries(pending: &[u8], bytes_max: usize) -> usize {
    let mut at = 0;
    while let Ok((header, _)) = EntryHeader::ref_from_prefix(&pending[at..]) {
        let end = at + size_of::<EntryHeader>() + header.bytes.get() as usize;
        if end > bytes_max {
            break;
        }
        at = end;
    }
    at
}

impl Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; size_of::<EntryHeader>()]);
        let kind = match self {
            Entry::Opened { extent, seq } => put_extent(out, ENTRY_OPENED, *extent, 0, *seq),
            Entry::Sealed { extent, seq } => put_extent(out, ENTRY_SEALED, *extent, 0, *seq),
            Entry::Freed { extent, seq } => put_extent(out, ENTRY_FREED, *extent, 0, *seq),
            Entry::Records { extent, seq, records } => {
                assert!(records.len() <= ENTRY_RECORDS_MAX, "the caller splits long lists");
                let kind = put_extent(out, ENTRY_RECORDS, *extent, records.len() as u32, *seq);
                records.iter().for_each(|record| out.extend_from_slice(record.encode().as_bytes()));
                kind
            }
            Entry::Removed { digest, extent, offset, seq } => {
                let body = RemovedEntry {
                    digest: *digest,
                    extent: (*extent).into(),
                    offset: (*offset).into(),
                    seq: (*seq).into(),
                };
                out.extend_from_slice(body.as_bytes());
                ENTRY_REMOVED
            }
            Entry::Namespace { id, name } => {
                let body =
                    NamespaceEntry { id: (*id).into(), length: (name.len() as u16).into(), reserved: [0; 4] };
                out.extend_from_slice(body.as_bytes());
                out.extend_from_slice(name);
                out.resize(out.len().next_multiple_of(8), 0);
                ENTRY_NAMESPACE
            }
        };
        let bytes = (out.len() - start - size_of::<EntryHeader>()) as u32;
        let header = EntryHeader { kind, reserved: [0; 3], bytes: bytes.into() };
        out[start..start + size_of::<EntryHeader>()].copy_from_slice(header.as_bytes());
    }

    fn decode(kind: u8, body: &[u8]) -> Option<Self> {
        if let ENTRY_REMOVED = kind {
            let entry = RemovedEntry::ref_from_bytes(body).ok()?;
            return Some(Entry::Removed {
                digest: entry.digest,
                extent: entry.extent.get(),
                offset: entry.offset.get(),
                seq: entry.seq.get(),
            });
        }
        if let ENTRY_NAMESPACE = kind {
            let (entry, rest) = NamespaceEntry::ref_from_prefix(body).ok()?;
            let name = rest.get(..entry.length.get() as usize)?;
            return (name.len() <= NAMESPACE_BYTES_MAX)
                .then(|| Entry::Namespace { id: entry.id.get(), name: name.to_vec() });
        }
        let (entry, rest) = ExtentEntry::ref_from_prefix(body).ok()?;
        let (extent, seq) = (entry.extent.get(), entry.seq.get());
        match kind {
            ENTRY_OPENED => Some(Entry::Opened { extent, seq }),
            ENTRY_SEALED => Some(Entry::Sealed { extent, seq }),
            ENTRY_FREED => Some(Entry::Freed { extent, seq }),
            ENTRY_RECORDS => {
                let records = <[RecordEntry]>::ref_from_bytes(rest).ok()?;
                let whole = records.len() == entry.count.get() as usize;
                whole.then(|| Entry::Records {
                    extent,
                    seq,
                    records: records.iter().map(Listed::decode).collect(),
                })
            }
            _ => None,
        }
    }
}

fn put_extent(out: &mut Vec<u8>, kind: u8, extent: u32, count: u32, seq: u64) -> u8 {
    let body = ExtentEntry { extent: extent.into(), count: count.into(), seq: seq.into() };
    out.extend_from_slice(body.as_bytes());
    kind
}

fn decode_entries(mut bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let (header, rest) = EntryHeader::ref_from_prefix(bytes).ok()?;
        let (body, rest) = rest.split_at_checked(header.bytes.get() as usize)?;
        entries.push(Entry::decode(header.kind, body)?);
        bytes = rest;
    }
    Some(entries)
}

impl Listed {
    fn encode(&self) -> RecordEntry {
        RecordEntry {
            digest: self.digest,
            checksum: self.checksum,
            offset: self.offset.into(),
            length: self.length.into(),
            part: self.part.into(),
            part_count: self.part_count.into(),
            namespace: self.namespace.into(),
            kind: self.kind,
            packed: self.packed as u8,
        }
    }

    fn decode(entry: &RecordEntry) -> Self {
        Self {
            digest: entry.digest,
            checksum: entry.checksum,
            offset: entry.offset.get(),
            length: entry.length.get(),
            part: entry.part.get(),
            part_count: entry.part_count.get(),
            namespace: entry.namespace.get(),
            kind: entry.kind,
            packed: entry.packed == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: Secrets = Secrets { digest_key: [1; 16], tag_key: [2; 16] };
    const EXTENT: usize = 1 << 20;

    fn entries(n: u32) -> Vec<Entry> {
        let record = Listed {
            digest: [n as u8; 16],
            checksum: [9; 16],
            offset: n * 8,
            length: n,
            part: 1,
            part_count: 2,
            namespace: 3,
            kind: 1,
            packed: true,
        };
        vec![
            Entry::Namespace { id: n as u16, name: vec![b'n'; n as usize % 256] },
            Entry::Opened { extent: n, seq: u64::from(n) },
            Entry::Records { extent: n, seq: 5, records: vec![record; n as usize % ENTRY_RECORDS_MAX] },
            Entry::Sealed { extent: n, seq: 6 },
            Entry::Freed { extent: n, seq: 7 },
            Entry::Removed { digest: [7; 16], extent: n, offset: 8, seq: 8 },
        ]
    }

    /// Appends many entries over several extents and returns all of them with the extents' bytes.
    fn written() -> (Vec<Entry>, Vec<Vec<u8>>) {
        let mut journal = Journal::new(4, 0, EXTENT, true);
        let mut disk = vec![vec![0; EXTENT]; 8];
        let mut all = Vec::new();
        for n in 0..200 {
            for entry in entries(n * 17) {
                journal.append(&entry);
                all.push(entry);
            }
            if journal.spare.is_none() {
                journal.spare = Some(journal.extents.len() as u32);
            }
            journal.want();
            while let Some(frame) = journal.cut(&SECRETS, 10, 20) {
                disk[frame.extent as usize][frame.offset..][..frame.bytes.len()]
                    .copy_from_slice(&frame.bytes);
                journal.frame_written();
            }
            assert_eq!(journal.written, journal.appended);
        }
        assert!(journal.extents.len() > 2, "the chain must cross extents");
        (all, disk)
    }

    fn replayed(disk: &[Vec<u8>], epoch: u64) -> Vec<Entry> {
        let mut journal = Journal::new(epoch, 0, EXTENT, true);
        let mut all = Vec::new();
        loop {
            let (extent, offset) = journal.tail();
            match journal.replay(&disk[extent as usize][offset..], &SECRETS) {
                Some(frame) => all.extend(frame.entries),
                None => return all,
            }
        }
    }

    #[test]
    fn entries_come_back_in_order() {
        let (all, disk) = written();
        assert_eq!(replayed(&disk, 4), all);
        assert_eq!(replayed(&disk, 5), []);
    }

    #[test]
    fn a_damaged_frame_ends_the_journal() {
        let (all, mut disk) = written();
        disk[1][5000] ^= 1;
        let found = replayed(&disk, 4);
        assert!(found.len() < all.len());
        assert_eq!(found[..], all[..found.len()]);
    }
}
