//! What the first and the last bytes of a drive say is on it.

use crate::store::inspect::{LABEL_BYTES, Label};

/// Of a drive's end, what is looked at: some keep a superblock or a copy of it there.
pub const TAIL_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// Zeros in all of the first MiB, and no known signature at the end.
    Blank,
    MemKv(Label),
    Foreign {
        what: &'static str,
    },
    /// Something, but nothing known.
    Unknown,
}

struct Magic {
    what: &'static str,
    offset: usize,
    bytes: &'static [u8],
}

const fn magic(what: &'static str, offset: usize, bytes: &'static [u8]) -> Magic {
    Magic { what, offset, bytes }
}

/// From the start of the drive. What may hold others (partition tables) comes after what would be in them.
const MAGICS: &[Magic] = &[
    magic("a LUKS volume", 0, b"LUKS\xba\xbe"),
    magic("an XFS file system", 0, b"XFSB"),
    magic("a squashfs image", 0, b"hsqs"),
    magic("a Ceph BlueStore device", 0, b"bluestore block device"),
    magic("a BitLocker volume", 3, b"-FVE-FS-"),
    magic("an NTFS file system", 3, b"NTFS    "),
    magic("an exFAT file system", 3, b"EXFAT   "),
    magic("a FAT file system", 54, b"FAT1"),
    magic("a FAT file system", 82, b"FAT32"),
    magic("an LVM physical volume", 0, b"LABELONE"),
    magic("an LVM physical volume", 512, b"LABELONE"),
    magic("an LVM physical volume", 1024, b"LABELONE"),
    magic("an LVM physical volume", 1536, b"LABELONE"),
    magic("an ext2, ext3 or ext4 file system", 1024 + 56, b"\x53\xef"),
    magic("an F2FS file system", 1024, b"\x10\x20\xf5\xf2"),
    magic("an HFS+ file system", 1024, b"H+"),
    magic("an APFS container", 32, b"NXSB"),
    magic("swap space", 4096 - 10, b"SWAPSPACE2"),
    magic("swap space", 65536 - 10, b"SWAPSPACE2"),
    magic("a member of a RAID array (md)", 0, b"\xfc\x4e\x2b\xa9"),
    magic("a member of a RAID array (md)", 4096, b"\xfc\x4e\x2b\xa9"),
    magic("a bcache device", 4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca"),
    magic("a bcachefs file system", 4096 + 24, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9"),
    magic("an ISO 9660 image", 32769, b"CD001"),
    magic("a btrfs file system", 65536 + 64, b"_BHRfS_M"),
    magic("a ZFS pool", 128 << 10, b"\x0c\xb1\xba\x00"),
    magic("a partition table (GPT)", 512, b"EFI PART"),
    magic("a partition table (GPT)", 4096, b"EFI PART"),
    magic("a partition table (MBR) or a boot sector", 510, b"\x55\xaa"),
];

const MD_MAGIC: &[u8] = b"\xfc\x4e\x2b\xa9";
const SECTOR: u64 = 512;

/// `head`: the first [`LABEL_BYTES`] of a drive of this size, `tail`: its last [`TAIL_BYTES`]; of a smaller drive, all of it.
pub fn contents(head: &[u8], tail: &[u8], size_bytes: u64) -> Contents {
    if let Some(label) = Label::find(head) {
        return Contents::MemKv(label);
    }
    let found = MAGICS.iter().find(|magic| at(head, magic.offset, magic.bytes));
    if let Some(magic) = found {
        return Contents::Foreign { what: magic.what };
    }
    if let Some(what) = at_the_end(tail, size_bytes) {
        return Contents::Foreign { what };
    }
    if head.iter().any(|byte| *byte != 0) { Contents::Unknown } else { Contents::Blank }
}

fn at(bytes: &[u8], offset: usize, wanted: &[u8]) -> bool {
    bytes.get(offset..).is_some_and(|rest| rest.starts_with(wanted))
}

fn at_the_end(tail: &[u8], size_bytes: u64) -> Option<&'static str> {
    let from = size_bytes.checked_sub(tail.len() as u64)?;
    let holds = |offset: Option<u64>, wanted| {
        let offset = offset.and_then(|offset| offset.checked_sub(from));
        offset.and_then(|offset| usize::try_from(offset).ok()).is_some_and(|offset| at(tail, offset, wanted))
    };
    let sectors = size_bytes / SECTOR;
    // md 1.0 lies 8 KiB before the end, on 4 KiB; md 0.90 in the last whole 64 KiB.
    let md_1 = sectors.checked_sub(16).map(|sector| (sector & !7) * SECTOR);
    let md_0 = (size_bytes & !0xffff).checked_sub(0x10000);
    if holds(md_1, MD_MAGIC) || holds(md_0, MD_MAGIC) {
        return Some("a member of a RAID array (md)");
    }
    let last = |sector: u64| size_bytes.checked_sub(sector);
    if holds(last(512), b"EFI PART") || holds(last(4096), b"EFI PART") {
        return Some("the copy of a partition table (GPT)");
    }
    None
}

const _: () = assert!(LABEL_BYTES > 128 << 10);

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 64 << 20;

    fn looked_at(head: &[u8], tail: &[u8]) -> Contents {
        contents(head, tail, SIZE)
    }

    #[test]
    fn every_known_signature_is_told() {
        let tail = vec![0; TAIL_BYTES];
        for magic in MAGICS {
            let mut head = vec![0; LABEL_BYTES];
            head[magic.offset..magic.offset + magic.bytes.len()].copy_from_slice(magic.bytes);
            let found = looked_at(&head, &tail);
            assert_eq!(found, Contents::Foreign { what: magic.what }, "{}", magic.offset);
        }
    }

    #[test]
    fn copies_at_the_end_are_found() {
        let head = vec![0; LABEL_BYTES];
        for (from_end, magic, what) in [
            (8 << 10, MD_MAGIC, "RAID"),
            (64 << 10, MD_MAGIC, "RAID"),
            (512, b"EFI PART", "GPT"),
            (4096, b"EFI PART", "GPT"),
        ] {
            let mut tail = vec![0; TAIL_BYTES];
            let at = TAIL_BYTES - from_end;
            tail[at..at + magic.len()].copy_from_slice(magic);
            let Contents::Foreign { what: found } = looked_at(&head, &tail) else { panic!("{what}") };
            assert!(found.contains(what), "{found}");
        }
    }

    #[test]
    fn zeros_are_blank_and_any_other_byte_is_not() {
        let tail = vec![0; TAIL_BYTES];
        let mut head = vec![0; LABEL_BYTES];
        assert_eq!(looked_at(&head, &tail), Contents::Blank);
        for offset in [0, 4096, LABEL_BYTES - 1] {
            head[offset] = 7;
            assert_eq!(looked_at(&head, &tail), Contents::Unknown);
            head[offset] = 0;
        }
    }

    #[test]
    fn drives_of_any_size_are_looked_at() {
        for size in [0, 1, 511, 512, 4096, 70_000, 1 << 20] {
            let bytes = vec![0; size];
            assert_eq!(contents(&bytes, &bytes, size as u64), Contents::Blank);
        }
    }
}
