//! `prefetch_chunks`, in tables of version 2.

use super::Abi;
use super::store::{Chunk, Store as _, expect_all, hashes, save};
use crate::case::{Case, Level, Outcome};
use crate::ffi::Handle;
use crate::{ensure, fail, skip};

pub const CASES: &[Case<Abi>] = &[
    Case {
        id: "ABI-PRE-1",
        level: Level::Must,
        requires: &["KVS-PRE-1"],
        title: "prefetched chunks are read as they were put",
        alone: false,
        run: then_get,
    },
    Case {
        id: "ABI-PRE-2",
        level: Level::Must,
        requires: &["KVS-PRE-1"],
        title: "a chunk that was prefetched before it was put is found",
        alone: false,
        run: before_put,
    },
    Case {
        id: "ABI-PRE-3",
        level: Level::Should,
        requires: &["KVS-PRE-2"],
        title: "missing, repeated and no chunks at all can be prefetched",
        alone: false,
        run: takes_anything,
    },
    Case {
        id: "ABI-PRE-4",
        level: Level::Must,
        requires: &["KVS-PRE-1", "KVS-THR-1"],
        title: "prefetching beside gets changes nothing",
        alone: false,
        run: beside_gets,
    },
    Case {
        id: "ABI-PRE-5",
        level: Level::Must,
        requires: &["KVS-PRE-1", "KVS-THR-2"],
        title: "4,000 chunks can be prefetched at once",
        alone: false,
        run: many,
    },
];

fn prefetch(handle: &Handle, hashes: &[u8], hash_len: usize) -> Outcome<i32> {
    match handle.prefetch_chunks(hashes, hash_len) {
        Some(code) if code > 0 => fail!("prefetch_chunks returned {code}"),
        Some(code) => Ok(code),
        None => skip!("the table is of version 1"),
    }
}

fn then_get(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let handle = abi.open()?;
    for hash_len in [8, 16, 20, 32] {
        let chunks: Vec<Chunk> =
            (0..24).map(|index| Chunk::random(&mut random, hash_len, 4000 + index)).collect();
        save(&handle, &abi.name(&hash_len.to_string()), &chunks)?;
        for handle in [&handle, &abi.open()?] {
            prefetch(handle, &hashes(&chunks), hash_len)?;
            // Twice, and not in the order of the hint.
            for chunk in chunks.iter().rev().chain(&chunks) {
                handle.expect_chunk(chunk)?;
            }
        }
    }
    Ok(())
}

fn before_put(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let chunks = Chunk::several(&mut random, 8, 3000);
    let (handle, writer) = (abi.open()?, abi.open()?);
    prefetch(&handle, &hashes(&chunks), 16)?;
    for chunk in &chunks {
        handle.expect_no_chunk(&chunk.hash)?;
    }
    let (by_other, by_same) = chunks.split_at(4);
    save(&writer, &abi.name("other"), by_other)?;
    expect_all(&handle, by_other)?;
    prefetch(&handle, &hashes(by_same), 16)?;
    save(&handle, &abi.name("same"), by_same)?;
    expect_all(&handle, &chunks)
}

fn takes_anything(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let chunks = Chunk::several(&mut random, 4, 3000);
    let handle = abi.open()?;
    save(&handle, &abi.name("session"), &chunks)?;
    let stored = hashes(&chunks);
    let lists = [
        ("no chunks", Vec::new()),
        ("stored chunks", stored.clone()),
        ("chunks named twice", [stored.clone(), stored.clone()].concat()),
        ("missing chunks", random.bytes(5 * 16)),
        ("stored and missing chunks", [stored, random.bytes(5 * 16)].concat()),
    ];
    for (what, hashes) in lists {
        let code = prefetch(&handle, &hashes, 16)?;
        ensure!(code == 0, "prefetch_chunks of {what} returned {code}");
    }
    expect_all(&handle, &chunks)
}

fn beside_gets(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let chunks = Chunk::several(&mut random, 40, 10_000);
    let handle = abi.open()?;
    save(&handle, &abi.name("session"), &chunks)?;
    let handle = abi.open()?;
    prefetch(&handle, &[], 16)?;
    std::thread::scope(|scope| {
        let prefetcher = scope.spawn(|| {
            for chunks in chunks.chunks(7).cycle().take(60) {
                prefetch(&handle, &hashes(chunks), 16)?;
            }
            Ok(())
        });
        let getter = scope.spawn(|| (0..4).try_for_each(|_| expect_all(&handle, &chunks)));
        [prefetcher, getter].into_iter().try_for_each(|thread| match thread.join() {
            Ok(outcome) => outcome,
            Err(_) => fail!("a thread panicked"),
        })
    })
}

fn many(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let chunks = Chunk::several(&mut random, 50, 1000);
    let handle = abi.open()?;
    save(&handle, &abi.name("session"), &chunks)?;
    let handle = abi.open()?;
    let list = [random.bytes(2000 * 16), hashes(&chunks), random.bytes(1950 * 16)].concat();
    prefetch(&handle, &list, 16)?;
    expect_all(&handle, &chunks)
}
