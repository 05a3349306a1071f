//! What of a value is where in a process's memory: whoever copies bytes leaves a second set of them behind.
//!
//! A value is marked at every page, with bytes of its own. Memory that was given back to the system is not seen, so that a process that is to be
//! looked at is started with [`KEEP`].

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Has the C library keep what is freed.
pub const KEEP: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "4294967296"), ("MALLOC_TRIM_THRESHOLD_", "4294967296")];

const PAGE_BYTES: usize = 4096;
const MARK_BYTES: usize = 32;
/// Where in its page a mark is: away from the ends of what is hashed at once, for hashers keep some bytes of these.
const MARK_AT: usize = PAGE_BYTES / 2;
/// What is looked at in one go.
const STEP_BYTES: usize = 1 << 20;

/// What every mark begins with, before its page's number.
fn fixed(seed: u64) -> [u64; 2] {
    let first = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    [first, first.rotate_left(23)]
}

/// A value of so many pages that no other seed has anything of.
pub fn marked(seed: u64, pages: usize) -> Vec<u8> {
    let mut value = vec![seed as u8; pages * PAGE_BYTES];
    for (page, bytes) in value.chunks_exact_mut(PAGE_BYTES).enumerate() {
        let ([first, second], page) = (fixed(seed), page as u64);
        for (place, word) in bytes[MARK_AT..].chunks_exact_mut(8).zip([first, second, page, !page]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }
    value
}

/// How often each page of a marked value is in that memory of a process that may be written to.
pub fn copies(process: u32, seed: u64, pages: usize) -> Vec<usize> {
    let memory = File::open(format!("/proc/{process}/mem")).expect("a process of this user");
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).expect("a process of this user");
    let mut found = vec![0; pages];
    let mut space = vec![0; STEP_BYTES + MARK_BYTES];
    // Of this process's own, when it looks at itself.
    let own = space.as_ptr() as usize..space.as_ptr() as usize + space.len();
    for (start, end) in written(&maps) {
        for from in (start..end).step_by(STEP_BYTES) {
            let length = space.len().min(end - from);
            // Some pages of devices cannot be read.
            let Ok(length) = memory.read_at(&mut space[..length], from as u64) else { continue };
            for (at, page) in marks(&space[..length], seed) {
                if at < STEP_BYTES && !own.contains(&(from + at)) && page < pages {
                    found[page] += 1;
                }
            }
        }
    }
    // What was looked at is not to be found by the next one.
    space.fill(0);
    std::hint::black_box(&space);
    found
}

/// The ranges of `/proc/PID/maps` that are readable and writable.
fn written(maps: &str) -> impl Iterator<Item = (usize, usize)> {
    maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        rest.starts_with("rw").then_some((address(start)?, address(end)?))
    })
}

/// Where in some bytes a mark is, and of which page.
fn marks(bytes: &[u8], seed: u64) -> impl Iterator<Item = (usize, usize)> {
    // Most memory is empty, and a mark begins with an odd byte.
    let pages = (0..bytes.len()).step_by(PAGE_BYTES);
    let used = pages.filter(|start| !bytes[*start..].starts_with(&[0; PAGE_BYTES]));
    let places = used.flat_map(|start| start..start + PAGE_BYTES);
    places.filter_map(move |at| {
        let found = bytes.get(at..at + MARK_BYTES)?;
        let word = |n: usize| found[8 * n..].first_chunk().map(|word| u64::from_le_bytes(*word));
        let [first, second] = fixed(seed);
        let page = word(2)?;
        let holds = word(0)? == first && word(1)? == second && word(3)? == !page;
        holds.then_some((at, page as usize))
    })
}
