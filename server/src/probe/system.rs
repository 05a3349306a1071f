//! Block devices as Linux lists them, and who uses them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

const CLASS: &str = "/sys/class/block";
const SECTOR: u64 = 512;

/// A disk, a partition, a loop device, ...; none that is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDevice {
    pub path: PathBuf,
    pub size_bytes: u64,
    /// The disk that it is a part of.
    pub part_of: Option<String>,
    pub read_only: bool,
    pub uses: Vec<Use>,
}

/// Why a device is not free.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    Mounted {
        at: PathBuf,
    },
    Swap,
    /// Another block device is made of it: LVM, RAID, dm-crypt.
    HeldBy {
        name: String,
    },
}

impl std::fmt::Display for Use {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Use::Mounted { at } => write!(f, "mounted at {}", at.display()),
            Use::Swap => f.write_str("used as swap"),
            Use::HeldBy { name } => write!(f, "a part of {name}"),
        }
    }
}

/// All of them, by name.
pub fn block_devices() -> io::Result<Vec<BlockDevice>> {
    let tables = Tables::read();
    let mut devices = Vec::new();
    for entry in fs::read_dir(CLASS)? {
        let name = entry?.file_name();
        let Some(name) = name.to_str() else { continue };
        devices.extend(block_device(name, &tables));
    }
    devices.sort_by_key(|device| natural(&device.path));
    Ok(devices)
}

/// Numbers in names count as numbers.
fn natural(path: &Path) -> (String, u64, String) {
    let name = path.to_string_lossy().into_owned();
    let digits = name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let number = name[digits..].parse().unwrap_or(0);
    (name[..digits].to_owned(), number, name)
}

fn block_device(name: &str, tables: &Tables) -> Option<BlockDevice> {
    let class = Path::new(CLASS).join(name);
    let number = |attribute: &str| -> Option<u64> {
        fs::read_to_string(class.join(attribute)).ok()?.trim().parse().ok()
    };
    let size_bytes = number("size")?.checked_mul(SECTOR).filter(|size| *size > 0)?;
    let part_of = if class.join("partition").exists() { disk_of(&class) } else { None };
    Some(BlockDevice {
        path: Path::new("/dev").join(name.replace('!', "/")),
        size_bytes,
        part_of,
        read_only: number("ro") == Some(1),
        uses: tables.uses(&class),
    })
}

/// Of a partition: the folder above its own.
fn disk_of(class: &Path) -> Option<String> {
    let real = fs::canonicalize(class).ok()?;
    Some(real.parent()?.file_name()?.to_str()?.to_owned())
}

/// Who uses a block device or one of its partitions.
pub fn uses_of(device: &Path) -> io::Result<Vec<Use>> {
    let number = fs::metadata(device)?.rdev();
    let class = PathBuf::from(format!("/sys/dev/block/{}:{}", major(number), minor(number)));
    Ok(Tables::read().uses(&class))
}

/// What the kernel lists as mounted or used for swap.
struct Tables {
    mounts: Vec<Mount>,
    swaps: Vec<PathBuf>,
}

struct Mount {
    /// `major:minor`; of some file systems (btrfs) not that of a block device.
    device: String,
    source: PathBuf,
    at: PathBuf,
}

impl Tables {
    fn read() -> Tables {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Tables { mounts: mounts(&text("/proc/self/mountinfo")), swaps: swaps(&text("/proc/swaps")) }
    }

    fn uses(&self, class: &Path) -> Vec<Use> {
        let mut uses = BTreeSet::new();
        self.add_uses(class, &mut uses);
        for entry in fs::read_dir(class).into_iter().flatten().flatten() {
            if entry.path().join("partition").exists() {
                self.add_uses(&entry.path(), &mut uses);
            }
        }
        uses.into_iter().collect()
    }

    fn add_uses(&self, class: &Path, uses: &mut BTreeSet<Use>) {
        let Ok(device) = fs::read_to_string(class.join("dev")) else { return };
        let device = device.trim();
        let is_this = |path: &Path| {
            fs::metadata(path)
                .is_ok_and(|found| format!("{}:{}", major(found.rdev()), minor(found.rdev())) == device)
        };
        for mount in &self.mounts {
            if mount.device == device || (mount.source.starts_with("/dev") && is_this(&mount.source)) {
                uses.insert(Use::Mounted { at: mount.at.clone() });
            }
        }
        if self.swaps.iter().any(|swap| swap.starts_with("/dev") && is_this(swap)) {
            uses.insert(Use::Swap);
        }
        for holder in fs::read_dir(class.join("holders")).into_iter().flatten().flatten() {
            uses.insert(Use::HeldBy { name: holder.file_name().to_string_lossy().into_owned() });
        }
    }
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS... - TYPE SOURCE OPTIONS`, as proc(5) describes it.
fn mounts(text: &str) -> Vec<Mount> {
    let mount = |line: &str| {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(2);
        let device = front.next()?.to_owned();
        let at = front.nth(1)?;
        let source = back.split(' ').nth(1)?;
        Some(Mount { device, source: unescaped(source), at: unescaped(at) })
    };
    text.lines().filter_map(mount).collect()
}

fn swaps(text: &str) -> Vec<PathBuf> {
    let names = text.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    names.map(unescaped).collect()
}

/// The kernel writes blanks, tabs, line ends and backslashes as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut plain = text.to_owned();
    for (escape, character) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(escape, character);
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_their_escapes() {
        let text = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
                    40 35 0:44 / /srv/a\\040b rw shared:7 - btrfs /dev/sdb1 rw\nnonsense\n";
        let found = mounts(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].device.as_str(), found[0].at.as_path()), ("98:0", Path::new("/mnt2")));
        assert_eq!(found[1].at, Path::new("/srv/a b"));
        assert_eq!(found[1].source, Path::new("/dev/sdb1"));
    }

    #[test]
    fn swaps_are_read() {
        let text = "Filename\t\t\t\tType\t\tSize\n/dev/sda2                               partition\t1\n";
        assert_eq!(swaps(text), [PathBuf::from("/dev/sda2")]);
    }

    #[test]
    fn devices_are_in_the_order_of_their_numbers() {
        let mut names = ["/dev/sda10", "/dev/sda2", "/dev/sda", "/dev/loop1"].map(PathBuf::from);
        names.sort_by_key(|path| natural(path));
        assert_eq!(names, ["/dev/loop1", "/dev/sda", "/dev/sda2", "/dev/sda10"].map(PathBuf::from));
    }

    #[test]
    fn what_the_machine_has_is_listed() {
        // A container may hide /sys; what is listed must make sense.
        for device in block_devices().unwrap_or_default() {
            assert!(device.path.starts_with("/dev") && device.size_bytes > 0, "{device:?}");
        }
    }
}
