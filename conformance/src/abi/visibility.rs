//! When what was put can be read, and by whom.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Abi;
use super::store::{Chunk, Store, expect_all, expect_session, put_all, save};
use super::versions::{self, Version};
use crate::case::{Case, Level, Outcome, Stop};
use crate::{ensure, fail};

/// How many versions a writer publishes while others read.
const VERSIONS: u64 = 40;

pub const CASES: &[Case<Abi>] = &[
    Case {
        id: "ABI-VIS-1",
        level: Level::Must,
        requires: &["KVS-VIS-1"],
        title: "after put_manifest its handle reads every chunk",
        alone: false,
        run: same_handle,
    },
    Case {
        id: "ABI-VIS-2",
        level: Level::Must,
        requires: &["KVS-VIS-1"],
        title: "after put_manifest other handles read every chunk",
        alone: false,
        run: other_handles,
    },
    Case {
        id: "ABI-VIS-3",
        level: Level::Must,
        requires: &["KVS-VIS-1"],
        title: "after put_manifest another process reads every chunk",
        alone: false,
        run: other_process,
    },
    Case {
        id: "ABI-VIS-4",
        level: Level::Should,
        requires: &["KVS-VIS-2"],
        title: "a handle reads what it put, before any put_manifest",
        alone: false,
        run: own_puts,
    },
    Case {
        id: "ABI-VIS-5",
        level: Level::Must,
        requires: &["KVS-VIS-3", "KVS-MAN-2"],
        title: "whoever sees a manifest can read its chunks, while it is replaced",
        alone: false,
        run: readers_beside_a_writer,
    },
    Case {
        id: "ABI-VIS-6",
        level: Level::Must,
        requires: &["KVS-VIS-4"],
        title: "a chunk that no manifest names stays readable",
        alone: false,
        run: unnamed_chunks,
    },
    Case {
        id: "ABI-VIS-7",
        level: Level::Should,
        requires: &["KVS-VIS-5"],
        title: "close keeps what was put",
        alone: false,
        run: close_keeps,
    },
    Case {
        id: "ABI-VIS-8",
        level: Level::Must,
        requires: &["KVS-VIS-6"],
        title: "what was published outlives a process that is killed",
        alone: false,
        run: killed_after,
    },
    Case {
        id: "ABI-VIS-9",
        level: Level::Must,
        requires: &["KVS-VIS-1"],
        title: "a miss is not remembered once another handle put the chunk",
        alone: false,
        run: miss_then_put,
    },
    Case {
        id: "ABI-VIS-10",
        level: Level::Must,
        requires: &["KVS-MAN-2", "KVS-VIS-3"],
        title: "a writer killed midway leaves whole sessions only",
        alone: false,
        run: killed_midway,
    },
];

fn same_handle(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let handle = abi.open()?;
    for round in 0..5 {
        let name = abi.name(&round.to_string());
        let chunks = Chunk::several(&mut random, 6, 5000);
        save(&handle, &name, &chunks)?;
        expect_session(&handle, &name, &chunks)?;
    }
    Ok(())
}

fn other_handles(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunks = Chunk::several(&mut random, 6, 5000);
    let (writer, before) = (abi.open()?, abi.open()?);
    save(&writer, &name, &chunks)?;
    expect_session(&before, &name, &chunks)?;
    expect_session(&abi.open()?, &name, &chunks)
}

fn other_process(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let (process, handle) = (abi.process()?, abi.open()?);
    let (to, from) = (abi.name("to"), abi.name("from"));
    let chunks = Chunk::several(&mut random, 6, 5000);
    save(&handle, &to, &chunks)?;
    expect_session(&process, &to, &chunks)?;
    let chunks = Chunk::several(&mut random, 6, 5000);
    save(&process, &from, &chunks)?;
    expect_session(&handle, &from, &chunks)?;
    process.close()
}

fn own_puts(abi: &Abi) -> Outcome {
    let chunks = Chunk::several(&mut abi.random(), 8, 5000);
    let handle = abi.open()?;
    for chunk in &chunks {
        handle.put(chunk)?;
        handle.expect_chunk(chunk)?;
    }
    expect_all(&handle, &chunks)
}

fn readers_beside_a_writer(abi: &Abi) -> Outcome {
    let name = abi.name("session");
    let (writer, shared, own, process) = (abi.open()?, abi.open()?, abi.open()?, abi.process()?);
    Version::new(&name, 0).publish(&writer, &name)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers = [
            scope.spawn(|| read_until(&done, &shared, &name)),
            scope.spawn(|| read_until(&done, &shared, &name)),
            scope.spawn(|| read_until(&done, &own, &name)),
            scope.spawn(|| read_until(&done, &process, &name)),
        ];
        let written = (1..=VERSIONS).try_for_each(|number| {
            let written = Version::new(&name, number).publish(&writer, &name);
            // A reader that found something wrong has stopped; then there is nothing to write for.
            if readers.iter().any(|reader| reader.is_finished()) {
                Err(Stop::Failed(String::new()))
            } else {
                written
            }
        });
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            match reader.join() {
                Ok(read) => read?,
                Err(_) => fail!("a reader panicked"),
            }
        }
        written
    })?;
    let last = versions::read_any(&process, &name)?;
    ensure!(last == VERSIONS, "after version {VERSIONS} was published a reader got version {last}");
    Ok(())
}

/// Reads until the writer is done; versions never go back.
fn read_until(done: &AtomicBool, store: &impl Store, name: &std::ffi::CStr) -> Outcome {
    let mut latest = 0;
    while !done.load(Ordering::Relaxed) {
        let number = versions::read_any(store, name)?;
        ensure!(number >= latest, "a reader got version {number} after version {latest}");
        latest = number;
    }
    Ok(())
}

fn unnamed_chunks(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let chunks = Chunk::several(&mut random, 6, 5000);
    let handle = abi.open()?;
    put_all(&handle, &chunks)?;
    handle.publish(&abi.name("flush"), &[])?;
    handle.delete(&abi.name("flush"))?;
    save(&handle, &abi.name("other"), &Chunk::several(&mut random, 20, 5000))?;
    expect_all(&handle, &chunks)?;
    drop(handle);
    expect_all(&abi.open()?, &chunks)
}

fn close_keeps(abi: &Abi) -> Outcome {
    let chunks = Chunk::several(&mut abi.random(), 6, 5000);
    let handle = abi.open()?;
    put_all(&handle, &chunks)?;
    drop(handle);
    expect_all(&abi.open()?, &chunks)
}

fn killed_after(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    for round in 0..3 {
        let name = abi.name(&round.to_string());
        let chunks = Chunk::several(&mut random, 6, 5000);
        let process = abi.process()?;
        save(&process, &name, &chunks)?;
        process.kill()?;
        expect_session(&abi.open()?, &name, &chunks)?;
    }
    Ok(())
}

fn miss_then_put(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunks = Chunk::several(&mut random, 4, 5000);
    let (reader, writer) = (abi.open()?, abi.open()?);
    for chunk in &chunks {
        reader.expect_no_chunk(&chunk.hash)?;
    }
    reader.expect_no_manifest(&name)?;
    save(&writer, &name, &chunks)?;
    expect_session(&reader, &name, &chunks)
}

fn killed_midway(abi: &Abi) -> Outcome {
    let handle = abi.open()?;
    let mut random = abi.random();
    for round in 0..6 {
        let name = abi.name(&round.to_string());
        Version::new(&name, 0).publish(&handle, &name)?;
        let process = abi.process()?;
        process.publish_versions(&name)?;
        // Killed after it published a few, wherever it then stands.
        let until = 1 + random.below(6) as u64;
        while versions::read_any(&handle, &name)? < until {}
        process.kill()?;
        versions::read_any(&handle, &name)?;
        versions::read_any(&abi.open()?, &name)?;
    }
    Ok(())
}
