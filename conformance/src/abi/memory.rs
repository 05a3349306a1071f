//! Who owns which bytes.

use super::Abi;
use super::store::{Chunk, Store as _, expect_same, save};
use crate::case::{Case, Level, Outcome};
use crate::ffi::{Buffer, Failure};
use crate::{ensure, fail};

pub const CASES: &[Case<Abi>] = &[
    Case {
        id: "ABI-MEM-1",
        level: Level::Must,
        requires: &["KVS-MEM-1"],
        title: "buffers come from malloc and take free",
        alone: false,
        run: buffers_are_from_malloc,
    },
    Case {
        id: "ABI-MEM-2",
        level: Level::Must,
        requires: &["KVS-MEM-1"],
        title: "every get has a buffer of its own",
        alone: false,
        run: buffers_are_not_shared,
    },
    Case {
        id: "ABI-MEM-3",
        level: Level::Must,
        requires: &["KVS-MEM-1"],
        title: "buffers outlive later calls and close",
        alone: false,
        run: buffers_stay,
    },
    Case {
        id: "ABI-MEM-4",
        level: Level::Must,
        requires: &["KVS-MEM-2"],
        title: "what is given is read during the call only",
        alone: false,
        run: inputs_are_not_kept,
    },
    Case {
        id: "ABI-MEM-5",
        level: Level::Must,
        requires: &["KVS-MEM-2"],
        title: "what is given is not written to",
        alone: false,
        run: inputs_are_not_written,
    },
    Case {
        id: "ABI-MEM-6",
        level: Level::Should,
        requires: &["KVS-MEM-3"],
        title: "an empty value is a buffer that is not NULL",
        alone: false,
        run: empty_is_not_null,
    },
    Case {
        id: "ABI-MEM-7",
        level: Level::Must,
        requires: &["KVS-RET-2", "KVS-RET-1"],
        title: "a get that fails hands out nothing",
        alone: false,
        run: failures_hand_out_nothing,
    },
];

fn get(got: Result<Buffer, Failure>, what: &str) -> Outcome<Buffer> {
    match got {
        Ok(buffer) => Ok(buffer),
        Err(failure) => fail!("{what}, which is stored, returned {failure}"),
    }
}

fn buffers_are_from_malloc(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let handle = abi.open()?;
    for length in [1, 7, 64, 4096, 100_000, 2_000_000] {
        let chunk = Chunk::random(&mut random, 16, length);
        save(&handle, &name, std::slice::from_ref(&chunk))?;
        for _ in 0..8 {
            let buffer = get(handle.get_chunk(&chunk.hash), "get_chunk of a chunk")?;
            let room = buffer.heap_size_bytes().unwrap_or(length);
            ensure!(room >= length, "the heap has {room} bytes for a buffer of {length}");
            expect_same(&buffer, &chunk.data, "get_chunk")?;
            drop(get(handle.get_manifest(&name), "get_manifest of a manifest")?);
        }
    }
    Ok(())
}

fn buffers_are_not_shared(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunk = Chunk::random(&mut random, 16, 5000);
    let handle = abi.open()?;
    save(&handle, &name, std::slice::from_ref(&chunk))?;
    let mut first = get(handle.get_chunk(&chunk.hash), "get_chunk of a chunk")?;
    let mut manifest = get(handle.get_manifest(&name), "get_manifest of a manifest")?;
    let second = get(handle.get_chunk(&chunk.hash), "get_chunk of a chunk")?;
    ensure!(first.address() != second.address(), "two gets handed out the same buffer");
    first.fill(0xee);
    manifest.fill(0xee);
    expect_same(&second, &chunk.data, "a get beside one whose buffer was written to")?;
    handle.expect_chunk(&chunk)?;
    handle.expect_manifest(&name, &chunk.hash)
}

fn buffers_stay(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunks = Chunk::several(&mut random, 20, 3000);
    let handle = abi.open()?;
    save(&handle, &name, &chunks)?;
    let mut buffers = Vec::new();
    for chunk in &chunks {
        buffers.push(get(handle.get_chunk(&chunk.hash), "get_chunk of a chunk")?);
    }
    save(&handle, &name, &Chunk::several(&mut random, 20, 3000))?;
    handle.delete(&name)?;
    drop(handle);
    drop(abi.open()?);
    for (buffer, chunk) in buffers.iter().zip(&chunks) {
        expect_same(buffer, &chunk.data, "a buffer read before the handle was closed")?;
    }
    Ok(())
}

fn inputs_are_not_kept(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let chunks = Chunk::several(&mut random, 8, 20_000);
    let handle = abi.open()?;
    for chunk in &chunks {
        let mut given = chunk.clone();
        handle.put(&given)?;
        given.data.fill(0xee);
        given.hash.fill(0xee);
    }
    let name = abi.name("session");
    let (mut given_name, mut given_body) = (name.to_bytes_with_nul().to_vec(), super::store::hashes(&chunks));
    match std::ffi::CStr::from_bytes_with_nul(&given_name) {
        Ok(given) => handle.publish(given, &given_body)?,
        Err(error) => fail!("{error}"),
    }
    given_name.fill(b'x');
    given_body.fill(0xee);
    super::store::expect_session(&handle, &name, &chunks)?;
    super::store::expect_session(&abi.open()?, &name, &chunks)
}

fn inputs_are_not_written(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunk = Chunk::random(&mut random, 16, 20_000);
    let body = random.bytes(1000);
    let given = (chunk.clone(), body.clone(), name.clone());
    let handle = abi.open()?;
    handle.put(&given.0)?;
    handle.publish(&given.2, &given.1)?;
    drop(get(handle.get_chunk(&given.0.hash), "get_chunk of a chunk")?);
    drop(get(handle.get_manifest(&given.2), "get_manifest of a manifest")?);
    handle.prefetch_chunks(&given.0.hash, 16);
    handle.delete(&given.2)?;
    expect_same(&given.0.data, &chunk.data, "the caller's copy of the data")?;
    expect_same(&given.0.hash, &chunk.hash, "the caller's copy of the hash")?;
    expect_same(&given.1, &body, "the caller's copy of the manifest")?;
    ensure!(given.2 == name, "the caller's copy of the name was changed to {:?}", given.2);
    Ok(())
}

fn empty_is_not_null(abi: &Abi) -> Outcome {
    let name = abi.name("empty");
    let handle = abi.open()?;
    handle.publish(&name, &[])?;
    let buffer = get(handle.get_manifest(&name), "get_manifest of an empty manifest")?;
    ensure!(buffer.is_empty(), "an empty manifest came back with {} bytes", buffer.len());
    ensure!(!buffer.is_null(), "an empty manifest came back as NULL");
    Ok(())
}

fn failures_hand_out_nothing(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let handle = abi.open()?;
    for round in 0..3 {
        handle.expect_no_chunk(&random.bytes(16))?;
        handle.expect_no_manifest(&abi.name(&format!("missing-{round}")))?;
        // A hit in between must not leave anything behind for the next miss.
        let chunk = Chunk::random(&mut random, 16, 300);
        save(&handle, &abi.name("stored"), std::slice::from_ref(&chunk))?;
        handle.expect_chunk(&chunk)?;
    }
    Ok(())
}
