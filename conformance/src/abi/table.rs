//! The table itself, and how the library behaves in the process that loads it.

use std::io::{Read as _, Seek as _};

use super::Abi;
use super::store::{Chunk, Store as _, expect_session, save};
use crate::case::{Case, Level, Outcome, Stop};
use crate::ensure;

pub const CASES: &[Case<Abi>] = &[
    Case {
        id: "ABI-TABLE-1",
        level: Level::Must,
        requires: &["KVS-TABLE-1"],
        title: "the table is static",
        alone: false,
        run: table_is_static,
    },
    Case {
        id: "ABI-TABLE-2",
        level: Level::Must,
        requires: &["KVS-TABLE-2", "KVS-TABLE-3"],
        title: "a session can be saved and restored through the table",
        alone: false,
        run: table_works,
    },
    Case {
        id: "ABI-TABLE-3",
        level: Level::Must,
        requires: &["KVS-RET-1"],
        title: "no function returns more than 0",
        alone: false,
        run: codes_are_not_positive,
    },
    Case {
        id: "ABI-TABLE-4",
        level: Level::Should,
        requires: &["KVS-TABLE-4"],
        title: "nothing is written to standard output",
        alone: false,
        run: stdout_is_quiet,
    },
];

fn table_is_static(abi: &Abi) -> Outcome {
    let before = abi.library.table_now();
    let handle = abi.open()?;
    let during = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| abi.library.table_now())).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    drop(handle);
    for table in during.into_iter().flatten().chain([abi.library.table_now()]) {
        ensure!(table.0 == before.0, "kv_store_get_vtable returned two different pointers");
        ensure!(table.1 == before.1, "the table changed after it was handed out");
    }
    Ok(())
}

fn table_works(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunks = Chunk::several(&mut random, 12, 3000);
    let handle = abi.open()?;
    save(&handle, &name, &chunks)?;
    drop(handle);
    expect_session(&abi.open()?, &name, &chunks)
}

fn codes_are_not_positive(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunk = Chunk::random(&mut random, 8, 100);
    let handle = abi.open()?;
    let got_code = |got: Result<crate::ffi::Buffer, crate::ffi::Failure>| match got {
        Ok(_) | Err(crate::ffi::Failure::NoBuffer) => 0,
        Err(crate::ffi::Failure::Code(code) | crate::ffi::Failure::HandedOut { code }) => code,
    };
    let mut codes = Vec::new();
    for round in ["at first", "again"] {
        codes.extend([
            ("get_chunk", got_code(handle.get_chunk(&chunk.hash))),
            ("put_chunk", handle.put_chunk(&chunk.hash, &chunk.data)),
            ("get_manifest", got_code(handle.get_manifest(&name))),
            ("put_manifest", handle.put_manifest(&name, round.as_bytes())),
            ("get_manifest", got_code(handle.get_manifest(&name))),
            ("get_chunk", got_code(handle.get_chunk(&chunk.hash))),
            ("delete_manifest", handle.delete_manifest(&name)),
            ("delete_manifest", handle.delete_manifest(&name)),
        ]);
        codes.extend(handle.prefetch_chunks(&chunk.hash, 8).map(|code| ("prefetch_chunks", code)));
    }
    for (function, code) in codes {
        ensure!(code <= 0, "{function} returned {code}");
    }
    Ok(())
}

fn stdout_is_quiet(abi: &Abi) -> Outcome {
    let failed = |error: std::io::Error| Stop::Failed(format!("a temporary file: {error}"));
    let mut stdout = tempfile::tempfile().map_err(failed)?;
    let process = abi.process_printing_to(stdout.try_clone().map_err(failed)?)?;
    let chunks = Chunk::several(&mut abi.random(), 2, 100);
    let name = abi.name("session");
    save(&process, &name, &chunks)?;
    expect_session(&process, &name, &chunks)?;
    process.expect_no_chunk(b"no such chunk")?;
    process.delete(&name)?;
    process.close()?;
    let mut printed = Vec::new();
    stdout.rewind().and_then(|()| stdout.read_to_end(&mut printed)).map_err(failed)?;
    ensure!(printed.is_empty(), "the library printed {:?}", String::from_utf8_lossy(&printed));
    Ok(())
}
