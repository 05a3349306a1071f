//! What the process is left with after many calls.
//!
//! Every call is made often enough to warm up what is kept on purpose, then in rounds of as many calls again; what grows
//! in every round, by about as much for every call, leaks. The C heap's own counters see small leaks, the resident
//! set those of libraries that bring an allocator of their own.

use std::time::{Duration, Instant};

use super::Abi;
use super::store::{Chunk, Store as _, hashes, save};
use crate::case::{Case, Level, Outcome, Stop};
use crate::ffi;
use crate::{ensure, fail, skip};

pub const CASES: &[Case<Abi>] = &[
    Case {
        id: "ABI-LEAK-1",
        level: Level::Must,
        requires: &["KVS-LEAK-1"],
        title: "gets do not make the process grow",
        alone: true,
        run: gets,
    },
    Case {
        id: "ABI-LEAK-2",
        level: Level::Must,
        requires: &["KVS-LEAK-1"],
        title: "misses do not make the process grow",
        alone: true,
        run: misses,
    },
    Case {
        id: "ABI-LEAK-3",
        level: Level::Must,
        requires: &["KVS-LEAK-1"],
        title: "putting what is stored does not make the process grow",
        alone: true,
        run: puts,
    },
    Case {
        id: "ABI-LEAK-4",
        level: Level::Must,
        requires: &["KVS-LEAK-1"],
        title: "replacing and deleting manifests does not make the process grow",
        alone: true,
        run: manifests,
    },
    Case {
        id: "ABI-LEAK-5",
        level: Level::Must,
        requires: &["KVS-LEAK-2"],
        title: "opening and closing does not make the process grow",
        alone: true,
        run: handles,
    },
    Case {
        id: "ABI-LEAK-6",
        level: Level::Must,
        requires: &["KVS-LEAK-2"],
        title: "close gives back descriptors and threads",
        alone: true,
        run: descriptors_and_threads,
    },
    Case {
        id: "ABI-LEAK-7",
        level: Level::Must,
        requires: &["KVS-LEAK-1"],
        title: "prefetching does not make the process grow",
        alone: true,
        run: prefetches,
    },
    Case {
        id: "ABI-LEAK-8",
        level: Level::Must,
        requires: &["KVS-LEAK-1"],
        title: "an open that fails leaves nothing behind",
        alone: true,
        run: failed_opens,
    },
];

/// Less than this for every call is noise: a leaked allocation is at least 24 bytes, some are made only now and then.
const HEAP_BYTES_PER_CALL_MAX: u64 = 12;
/// Values of the size that these cases use are at least this long; leaking one of four shows in the resident set.
const VALUE_SIZE_BYTES: usize = 128 * 1024;
/// A leak shows in every one of so many rounds; threads and caches that are still warming up do not.
const WINDOWS_MAX: usize = 30;
/// How long threads may take to end after their handle was closed.
const SETTLE: Duration = Duration::from_secs(5);

/// What the process holds now.
#[derive(Clone, Copy)]
struct Held {
    heap_bytes: u64,
    resident_bytes: u64,
}

impl Held {
    fn now() -> Outcome<Held> {
        let Some(heap_bytes) = ffi::heap_in_use_bytes() else {
            skip!("this C library does not tell what its heap holds")
        };
        let Some(resident_bytes) = resident_bytes() else {
            skip!("this system does not tell what a process holds")
        };
        Ok(Held { heap_bytes, resident_bytes })
    }

    fn growth_since(self, before: Held) -> Held {
        Held {
            heap_bytes: self.heap_bytes.saturating_sub(before.heap_bytes),
            resident_bytes: self.resident_bytes.saturating_sub(before.resident_bytes),
        }
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kib.trim().trim_end_matches("kB").trim_end().parse::<u64>().ok()? * 1024)
}

/// Makes `calls` calls again and again, and fails when the process grew each time by about as much for every call.
fn expect_no_growth(what: &str, calls: usize, mut call: impl FnMut(usize) -> Outcome) -> Outcome {
    (0..calls).try_for_each(&mut call)?;
    let heap_bytes_max = HEAP_BYTES_PER_CALL_MAX * calls as u64;
    let resident_bytes_max = (VALUE_SIZE_BYTES * calls / 4) as u64;
    let (mut heap_bytes, mut resident_bytes) = (u64::MAX, u64::MAX);
    for _ in 0..WINDOWS_MAX {
        let before = Held::now()?;
        (0..calls).try_for_each(&mut call)?;
        let growth = Held::now()?.growth_since(before);
        heap_bytes = heap_bytes.min(growth.heap_bytes);
        resident_bytes = resident_bytes.min(growth.resident_bytes);
        if heap_bytes <= heap_bytes_max && resident_bytes <= resident_bytes_max {
            return Ok(());
        }
    }
    fail!(
        "{calls} calls of {what} left {heap_bytes} bytes more on the heap and the process {resident_bytes} bytes \
         larger, {WINDOWS_MAX} times in a row"
    )
}

fn gets(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let large = Chunk::random(&mut random, 16, VALUE_SIZE_BYTES);
    let small = Chunk::random(&mut random, 16, 40);
    let handle = abi.open()?;
    save(&handle, &name, &[large.clone(), small.clone()])?;
    expect_no_growth("get_chunk of a large chunk", 150, |_| handle.expect_chunk(&large))?;
    expect_no_growth("get_chunk of a small chunk", 500, |_| handle.expect_chunk(&small))?;
    let body = hashes(&[large, small]);
    expect_no_growth("get_manifest", 500, |_| handle.expect_manifest(&name, &body))
}

fn misses(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let handle = abi.open()?;
    let hashes: Vec<Vec<u8>> = (0..500).map(|_| random.bytes(16)).collect();
    let names: Vec<_> = (0..500).map(|index| abi.name(&index.to_string())).collect();
    expect_no_growth("get_chunk of a missing chunk", 500, |at| handle.expect_no_chunk(&hashes[at]))?;
    expect_no_growth("get_manifest of a missing manifest", 500, |at| handle.expect_no_manifest(&names[at]))
}

fn puts(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("flush"));
    let large = Chunk::random(&mut random, 16, VALUE_SIZE_BYTES);
    let small = Chunk::random(&mut random, 16, 40);
    let handle = abi.open()?;
    for chunk in [large, small] {
        expect_no_growth("put_chunk of a stored chunk", 150, |at| {
            handle.put(&chunk)?;
            if at % 25 == 24 { handle.publish(&name, &[]) } else { Ok(()) }
        })?;
    }
    Ok(())
}

fn manifests(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let body = random.bytes(VALUE_SIZE_BYTES);
    let handle = abi.open()?;
    expect_no_growth("put_manifest under one name", 60, |_| handle.publish(&name, &body))?;
    expect_no_growth("put_manifest and delete_manifest", 60, |_| {
        handle.publish(&name, &body)?;
        handle.delete(&name)
    })
}

fn handles(abi: &Abi) -> Outcome {
    let chunk = Chunk::random(&mut abi.random(), 16, 1000);
    save(&abi.open()?, &abi.name("session"), std::slice::from_ref(&chunk))?;
    expect_no_growth("open, get_chunk and close", 60, |_| abi.open()?.expect_chunk(&chunk))
}

fn prefetches(abi: &Abi) -> Outcome {
    let chunks = Chunk::several(&mut abi.random(), 16, 8000);
    let handle = abi.open()?;
    save(&handle, &abi.name("session"), &chunks)?;
    let hashes = hashes(&chunks);
    if handle.prefetch_chunks(&hashes, 16).is_none() {
        skip!("the table is of version 1");
    }
    expect_no_growth("prefetch_chunks", 200, |at| {
        handle.prefetch_chunks(&hashes, 16);
        handle.expect_chunk(&chunks[at % chunks.len()])
    })
}

fn failed_opens(abi: &Abi) -> Outcome {
    // A handle beside it, so that what the library keeps for the process is there.
    let handle = abi.open()?;
    let open_badly = || -> Outcome {
        for uri in [c"", c"no scheme at all", c"nobody-serves-this://host/path"] {
            ensure!(abi.library.open(uri).is_none(), "open({uri:?}) returned a handle");
        }
        Ok(())
    };
    expect_no_growth("an open that fails", 60, |_| open_badly())?;
    let before = settled(&|_| true)?;
    (0..60).try_for_each(|_| open_badly())?;
    let after = settled(&|counts| counts.0 <= before.0 && counts.1 <= before.1)?;
    drop(handle);
    ensure!(after.0 <= before.0, "180 refusals later there are {} open files, before {}", after.0, before.0);
    ensure!(after.1 <= before.1, "180 refusals later there are {} threads, before {}", after.1, before.1);
    Ok(())
}

fn descriptors_and_threads(abi: &Abi) -> Outcome {
    let chunks = Chunk::several(&mut abi.random(), 3, 1000);
    let use_handles = |count: usize| -> Outcome {
        let handles = (0..count).map(|_| abi.open()).collect::<Outcome<Vec<_>>>()?;
        handles.iter().try_for_each(|handle| save(handle, &abi.name("session"), &chunks))
    };
    use_handles(8)?;
    let before = settled(&|_| true)?;
    for _ in 0..8 {
        use_handles(4)?;
    }
    let after = settled(&|counts| counts.0 <= before.0 && counts.1 <= before.1)?;
    ensure!(after.0 <= before.0, "32 handles later there are {} open files, before {}", after.0, before.0);
    ensure!(after.1 <= before.1, "32 handles later there are {} threads, before {}", after.1, before.1);
    Ok(())
}

/// The numbers of open descriptors and of threads, once they are `good` or stay what they are for a while.
fn settled(good: &dyn Fn((usize, usize)) -> bool) -> Outcome<(usize, usize)> {
    let deadline = Instant::now() + SETTLE;
    let mut same_since = Instant::now();
    let mut latest = counts()?;
    while Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        let now = counts()?;
        if now != latest {
            (latest, same_since) = (now, Instant::now());
        }
        if good(now) && same_since.elapsed() > Duration::from_millis(200) {
            break;
        }
    }
    Ok(latest)
}

fn counts() -> Outcome<(usize, usize)> {
    let count = |directory: &str| match std::fs::read_dir(directory) {
        Ok(entries) => Ok(entries.count()),
        Err(_) => {
            Err(Stop::Skipped("this system does not tell a process's descriptors and threads".to_owned()))
        }
    };
    Ok((count("/proc/self/fd")?, count("/proc/self/task")?))
}
