//! Manifests: their bytes, replacing and deleting them.

use super::Abi;
use super::store::{Chunk, Store as _, expect_all, expect_session, put_all, save};
use crate::case::{Case, Level, Outcome};
use crate::ensure;

pub const CASES: &[Case<Abi>] = &[
    Case {
        id: "ABI-MAN-1",
        level: Level::Must,
        requires: &["KVS-MAN-1"],
        title: "a manifest of 0 bytes to 1 MiB is read as it was put",
        alone: false,
        run: round_trip,
    },
    Case {
        id: "ABI-MAN-2",
        level: Level::Must,
        requires: &["KVS-MAN-1"],
        title: "a manifest of 16 MiB is read as it was put",
        alone: false,
        run: large,
    },
    Case {
        id: "ABI-MAN-3",
        level: Level::Must,
        requires: &["KVS-MAN-1"],
        title: "a shorter or longer manifest replaces the one before",
        alone: false,
        run: replace,
    },
    Case {
        id: "ABI-MAN-4",
        level: Level::Must,
        requires: &["KVS-MAN-3"],
        title: "a replaced manifest is seen by whoever read the one before",
        alone: false,
        run: not_stale,
    },
    Case {
        id: "ABI-MAN-5",
        level: Level::Must,
        requires: &["KVS-MAN-3", "KVS-MAN-6"],
        title: "a deleted manifest is gone for every handle and process",
        alone: false,
        run: deleted_everywhere,
    },
    Case {
        id: "ABI-MAN-6",
        level: Level::Must,
        requires: &["KVS-MAN-6"],
        title: "deleting a manifest takes no other one and no chunk with it",
        alone: false,
        run: delete_takes_nothing_else,
    },
    Case {
        id: "ABI-MAN-7",
        level: Level::Must,
        requires: &["KVS-MAN-6"],
        title: "a deleted name can be used again",
        alone: false,
        run: delete_and_put,
    },
    Case {
        id: "ABI-MAN-8",
        level: Level::Should,
        requires: &["KVS-MAN-7"],
        title: "deleting a manifest that is not stored fails",
        alone: false,
        run: delete_missing,
    },
    Case {
        id: "ABI-MAN-9",
        level: Level::Must,
        requires: &["KVS-MAN-8", "KVS-VIS-1"],
        title: "an empty manifest under one name flushes, over and over",
        alone: false,
        run: empty_over_and_over,
    },
    Case {
        id: "ABI-MAN-10",
        level: Level::Must,
        requires: &["KVS-MAN-8"],
        title: "an empty manifest may be a NULL pointer",
        alone: false,
        run: empty_as_null,
    },
    Case {
        id: "ABI-MAN-11",
        level: Level::Must,
        requires: &["KVS-MAN-9", "KVS-THR-2"],
        title: "getting a manifest that is not stored fails",
        alone: false,
        run: missing,
    },
    Case {
        id: "ABI-MAN-12",
        level: Level::Must,
        requires: &["KVS-MAN-1"],
        title: "manifests and chunks do not share names",
        alone: false,
        run: apart_from_chunks,
    },
];

fn round_trip(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let handle = abi.open()?;
    let mut stored = Vec::new();
    for length in [0, 1, 2, 63, 64, 65, 1000, 4095, 4096, 4097, 65_536, 70_001, 1 << 20] {
        let (name, mut body) = (abi.name(&length.to_string()), random.bytes(length));
        // NULs at both ends and inside: bytes, not text.
        for at in [0, length / 2, length.saturating_sub(1)] {
            body.get_mut(at).into_iter().for_each(|byte| *byte = 0);
        }
        handle.publish(&name, &body)?;
        handle.expect_manifest(&name, &body)?;
        stored.push((name, body));
    }
    let other = abi.open()?;
    stored.iter().try_for_each(|(name, body)| other.expect_manifest(name, body))
}

fn large(abi: &Abi) -> Outcome {
    let (name, body) = (abi.name("large"), abi.random().bytes(16 << 20));
    let handle = abi.open()?;
    handle.publish(&name, &body)?;
    handle.expect_manifest(&name, &body)?;
    abi.open()?.expect_manifest(&name, &body)
}

fn replace(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let handle = abi.open()?;
    for length in [1000, 10, 100_000, 999, 0, 1, 5000, 4999] {
        let body = random.bytes(length);
        handle.publish(&name, &body)?;
        handle.expect_manifest(&name, &body)?;
    }
    Ok(())
}

fn not_stale(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let (writer, reader, process) = (abi.open()?, abi.open()?, abi.process()?);
    for _ in 0..10 {
        let length = random.below(3000);
        let body = random.bytes(length);
        writer.publish(&name, &body)?;
        reader.expect_manifest(&name, &body)?;
        process.expect_manifest(&name, &body)?;
        // And the other way round: the writer's own view must not be stale either.
        let body = random.bytes(length + 1);
        process.publish(&name, &body)?;
        reader.expect_manifest(&name, &body)?;
        writer.expect_manifest(&name, &body)?;
    }
    Ok(())
}

fn deleted_everywhere(abi: &Abi) -> Outcome {
    let name = abi.name("session");
    let (handle, reader, process) = (abi.open()?, abi.open()?, abi.process()?);
    handle.publish(&name, b"here")?;
    reader.expect_manifest(&name, b"here")?;
    process.expect_manifest(&name, b"here")?;
    handle.delete(&name)?;
    handle.expect_no_manifest(&name)?;
    reader.expect_no_manifest(&name)?;
    process.expect_no_manifest(&name)?;
    abi.open()?.expect_no_manifest(&name)
}

fn delete_takes_nothing_else(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let (shared, own) = (Chunk::several(&mut random, 4, 3000), Chunk::several(&mut random, 2, 3000));
    let all = [shared.clone(), own].concat();
    let handle = abi.open()?;
    // Names of which one is the beginning of the other.
    let (kept, longer, gone) = (abi.name("a-kept"), abi.name("a-kept-longer"), abi.name("a"));
    save(&handle, &kept, &all)?;
    save(&handle, &longer, &shared)?;
    save(&handle, &gone, &shared)?;
    handle.delete(&gone)?;
    handle.expect_no_manifest(&gone)?;
    for handle in [handle, abi.open()?] {
        expect_session(&handle, &kept, &all)?;
        expect_session(&handle, &longer, &shared)?;
    }
    Ok(())
}

fn delete_and_put(abi: &Abi) -> Outcome {
    let name = abi.name("session");
    let (handle, other) = (abi.open()?, abi.open()?);
    for round in 0..5 {
        let body = vec![b'a' + round; 10 + usize::from(round)];
        handle.publish(&name, &body)?;
        other.expect_manifest(&name, &body)?;
        handle.delete(&name)?;
        other.expect_no_manifest(&name)?;
    }
    handle.publish(&name, b"last")?;
    handle.expect_manifest(&name, b"last")?;
    other.expect_manifest(&name, b"last")
}

fn delete_missing(abi: &Abi) -> Outcome {
    let handle = abi.open()?;
    for name in [abi.name("never"), abi.name("once")] {
        let code = handle.delete_manifest(&name);
        ensure!(code < 0, "delete_manifest of {name:?}, which is not stored, returned {code}");
        handle.publish(&name, b"x")?;
        handle.delete(&name)?;
        let code = handle.delete_manifest(&name);
        ensure!(code < 0, "the second delete_manifest of {name:?} returned {code}");
    }
    Ok(())
}

fn empty_over_and_over(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("flush"));
    let (handle, reader) = (abi.open()?, abi.open()?);
    let mut all = Vec::new();
    for _ in 0..20 {
        let chunks = Chunk::several(&mut random, 3, 2000);
        put_all(&handle, &chunks)?;
        handle.publish(&name, &[])?;
        expect_all(&handle, &chunks)?;
        expect_all(&reader, &chunks)?;
        handle.expect_manifest(&name, &[])?;
        all.extend(chunks);
    }
    expect_all(&handle, &all)
}

fn empty_as_null(abi: &Abi) -> Outcome {
    let name = abi.name("flush");
    let handle = abi.open()?;
    handle.publish(&name, b"not empty")?;
    let code = handle.put_empty_manifest(&name);
    ensure!(code == 0, "put_manifest of a NULL pointer with length 0 returned {code}");
    handle.expect_manifest(&name, &[])
}

fn missing(abi: &Abi) -> Outcome {
    let handle = abi.open()?;
    handle.expect_no_manifest(&abi.name("never"))?;
    handle.publish(&abi.name("never-mind"), b"x")?;
    handle.expect_no_manifest(&abi.name("never"))?;
    handle.expect_no_manifest(&abi.name("never-min"))?;
    handle.expect_no_manifest(&abi.name("never-mind-"))
}

fn apart_from_chunks(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let handle = abi.open()?;
    // A chunk whose hash is a manifest's name, and a manifest whose name is a chunk's hash in hex.
    let name = abi.name("a");
    let hash = name.to_bytes()[..name.to_bytes().len().min(32)].to_vec();
    let same = Chunk { hash, data: random.bytes(500) };
    let hex_named = Chunk::random(&mut random, 16, 600);
    let hex = super::c_string(&super::store::hex(&hex_named.hash))?;
    put_all(&handle, &[same.clone(), hex_named.clone()])?;
    handle.publish(&abi.name("flush"), &[])?;
    let short = super::c_string(&String::from_utf8_lossy(&same.hash))?;
    handle.expect_no_manifest(&short)?;
    handle.expect_no_manifest(&hex)?;
    handle.publish(&short, b"one")?;
    handle.publish(&hex, b"two")?;
    handle.delete(&short)?;
    handle.expect_manifest(&hex, b"two")?;
    expect_all(&handle, &[same, hex_named])?;
    handle.delete(&hex)
}
