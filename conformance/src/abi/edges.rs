//! Promises that are easily kept by a backend that is used gently: what differs in a single byte at an odd place, what is
//! put by another thread, what is put once more than a table has room for, what lies in memory that cannot be written.

use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::store::{Chunk, Store, expect_all, expect_same, put_all};
use super::{Abi, c_string};
use crate::case::{Case, Level, Outcome, Stop};
use crate::{ensure, fail};

pub const CASES: &[Case<Abi>] = &[
    Case {
        id: "ABI-OPEN-8",
        level: Level::Must,
        requires: &["KVS-OPEN-2"],
        title: "a scheme that only resembles the library's is refused",
        alone: false,
        run: other_schemes,
    },
    Case {
        id: "ABI-CHUNK-14",
        level: Level::Must,
        requires: &["KVS-CHUNK-2"],
        title: "hashes that differ in zeros at their end are different",
        alone: false,
        run: zeros_at_the_end,
    },
    Case {
        id: "ABI-CHUNK-15",
        level: Level::Must,
        requires: &["KVS-CHUNK-4", "KVS-CHUNK-1"],
        title: "other bytes do not replace a chunk that could be read, before put_manifest either",
        alone: false,
        run: second_put,
    },
    Case {
        id: "ABI-CHUNK-16",
        level: Level::Must,
        requires: &["KVS-CHUNK-2"],
        title: "hashes that differ as letters do in case are different",
        alone: false,
        run: letters,
    },
    Case {
        id: "ABI-MEM-8",
        level: Level::Must,
        requires: &["KVS-MEM-2"],
        title: "what is given may lie in memory that cannot be written",
        alone: false,
        run: constant_inputs,
    },
    Case {
        id: "ABI-MAN-13",
        level: Level::Must,
        requires: &["KVS-MAN-2"],
        title: "a manifest is replaced by one of the same length as a whole",
        alone: false,
        run: same_length,
    },
    Case {
        id: "ABI-MAN-14",
        level: Level::Must,
        requires: &["KVS-MAN-1"],
        title: "300 manifests put through one handle all stay",
        alone: false,
        run: many_manifests,
    },
    Case {
        id: "ABI-THR-7",
        level: Level::Must,
        requires: &["KVS-VIS-1", "KVS-THR-1"],
        title: "put_manifest makes visible what other threads put",
        alone: false,
        run: threads_put_one_publishes,
    },
];

fn other_schemes(abi: &Abi) -> Outcome {
    let uri = &abi.target.uri;
    let Some((scheme, rest)) = uri.split_once("://") else { fail!("{uri} has no scheme") };
    let first = scheme.chars().next().unwrap_or_default();
    for other in [
        format!("{scheme}x"),
        format!("{first}{scheme}"),
        format!("x-{scheme}"),
        scheme.chars().skip(1).collect(),
    ] {
        let uri = c_string(&format!("{other}://{rest}"))?;
        ensure!(abi.library.open(&uri).is_none(), "open({uri:?}), of another scheme, returned a handle");
    }
    Ok(())
}

fn zeros_at_the_end(abi: &Abi) -> Outcome {
    let base = abi.random().bytes(8);
    let longer = |length| {
        let mut hash = base.clone();
        hash.resize(length, 0);
        hash
    };
    expect_different(abi, (8..=32).map(longer))
}

fn letters(abi: &Abi) -> Outcome {
    let base = abi.random().bytes(16);
    let ending = |word: &[u8]| [base.as_slice(), word].concat();
    expect_different(abi, [b"hash", b"HASH", b"Hash", b"hasH", b"h\0sh"].map(|word| ending(word)).into_iter())
}

/// Stores a chunk under each hash and reads all of them, through two handles.
fn expect_different(abi: &Abi, hashes: impl Iterator<Item = Vec<u8>>) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("flush"));
    let chunks: Vec<Chunk> =
        (100..).zip(hashes).map(|(length, hash)| Chunk { hash, data: random.bytes(length) }).collect();
    let handle = abi.open()?;
    for chunk in &chunks {
        handle.expect_no_chunk(&chunk.hash)?;
        handle.put(chunk)?;
    }
    handle.publish(&name, &[])?;
    expect_all(&handle, &chunks)?;
    expect_all(&abi.open()?, &chunks)
}

fn second_put(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("flush"));
    let handle = abi.open()?;
    for length in [1, 300, 70_000] {
        let first = Chunk::random(&mut random, 16, length);
        handle.put(&first)?;
        let readable = handle.get_chunk(&first.hash).is_ok();
        // What a put of other bytes returns is left open.
        let other = random.bytes(length);
        handle.put_chunk(&first.hash, &other);
        handle.publish(&name, &[])?;
        match handle.get_chunk(&first.hash) {
            // As long as nobody could read it, nobody can tell which of the two was first.
            Ok(got) if !readable && *got == *other => {}
            Ok(got) => expect_same(&got, &first.data, "get_chunk after a second put of other bytes")?,
            Err(failure) => fail!("get_chunk after a second put of other bytes returned {failure}"),
        }
    }
    Ok(())
}

fn constant_inputs(abi: &Abi) -> Outcome {
    // Constants are in pages that the system protects: whoever writes there ends the process.
    static DATA: [u8; 9000] = [0x5c; 9000];
    static HASH: [u8; 16] = *b"never stored, no";
    static NAME: &CStr = c"memkv-conformance, never stored";
    let (mut random, name) = (abi.random(), abi.name("manifest"));
    let handle = abi.open()?;
    let hash = random.bytes(16);
    for _ in 0..2 {
        let code = handle.put_chunk(&hash, &DATA);
        ensure!(code == 0, "put_chunk of constant bytes returned {code}");
        handle.publish(&name, &DATA)?;
    }
    handle.expect_chunk(&Chunk { hash, data: DATA.to_vec() })?;
    handle.expect_manifest(&name, &DATA)?;
    handle.expect_no_chunk(&HASH)?;
    handle.prefetch_chunks(&HASH, 16);
    handle.expect_no_manifest(NAME)?;
    handle.delete_manifest(NAME);
    Ok(())
}

/// How many manifests are published beside readers, and how long each is.
const REPLACED: u8 = 60;
const REPLACED_SIZE_BYTES: usize = 512 * 1024;

fn same_length(abi: &Abi) -> Outcome {
    let name = abi.name("manifest");
    let (writer, reader, process) = (abi.open()?, abi.open()?, abi.process()?);
    writer.publish(&name, &[0; REPLACED_SIZE_BYTES])?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = [
            scope.spawn(|| read_whole(&done, &writer, &name)),
            scope.spawn(|| read_whole(&done, &reader, &name)),
            scope.spawn(|| read_whole(&done, &process, &name)),
        ];
        let written = (1..=REPLACED).try_for_each(|number| {
            // A reader that found something wrong has stopped; then there is nothing to write for.
            if readers.iter().any(|reader| reader.is_finished()) {
                return Err(Stop::Failed(String::new()));
            }
            writer.publish(&name, &[number; REPLACED_SIZE_BYTES])
        });
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            match reader.join() {
                Ok(read) => read?,
                Err(_) => fail!("a reader panicked"),
            }
        }
        written
    })
}

/// Reads until the writer is done: every manifest is of one byte, and none is older than the one before.
fn read_whole(done: &AtomicBool, store: &impl Store, name: &CStr) -> Outcome {
    let mut latest = 0;
    while !done.load(Ordering::Relaxed) {
        let body = match store.get_manifest(name) {
            Ok(body) => body,
            Err(failure) => fail!("get_manifest returned {failure} while a writer replaced the manifest"),
        };
        ensure!(body.len() == REPLACED_SIZE_BYTES, "a reader got {} bytes", body.len());
        let torn = body.iter().position(|byte| *byte != body[0]);
        ensure!(torn.is_none(), "a reader got two manifests, the second from offset {torn:?} on");
        ensure!(body[0] >= latest, "a reader got version {} after version {latest}", body[0]);
        latest = body[0];
    }
    Ok(())
}

fn many_manifests(abi: &Abi) -> Outcome {
    let handle = abi.open()?;
    let names: Vec<_> = (0..300).map(|number| abi.name(&number.to_string())).collect();
    for name in &names {
        handle.publish(name, name.to_bytes())?;
    }
    let other = abi.open()?;
    for name in &names {
        handle.expect_manifest(name, name.to_bytes())?;
        other.expect_manifest(name, name.to_bytes())?;
    }
    Ok(())
}

fn threads_put_one_publishes(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("flush"));
    let sessions: Vec<Vec<Chunk>> = (0..4).map(|_| Chunk::several(&mut random, 5, 4000)).collect();
    let (handle, process) = (abi.open()?, abi.process()?);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            sessions.iter().map(|chunks| scope.spawn(|| put_all(&handle, chunks))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(put) => put,
            Err(_) => fail!("a thread panicked"),
        })
    })?;
    handle.publish(&name, &[])?;
    for chunks in &sessions {
        expect_all(&handle, chunks)?;
        expect_all(&process, chunks)?;
    }
    expect_all(&abi.open()?, &sessions.concat())
}
