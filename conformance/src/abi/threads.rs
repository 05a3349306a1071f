//! Many threads, many handles.

use super::Abi;
use super::store::{Chunk, Store as _, expect_all, expect_session, put_all, save};
use crate::case::{Case, Level, Outcome};
use crate::fail;

pub const CASES: &[Case<Abi>] = &[
    Case {
        id: "ABI-THR-1",
        level: Level::Must,
        requires: &["KVS-THR-1", "KVS-THR-2"],
        title: "threads save and restore sessions through one handle",
        alone: false,
        run: one_handle,
    },
    Case {
        id: "ABI-THR-2",
        level: Level::Must,
        requires: &["KVS-THR-1", "KVS-CHUNK-4"],
        title: "threads put the same chunks at the same time",
        alone: false,
        run: same_chunks,
    },
    Case {
        id: "ABI-THR-3",
        level: Level::Must,
        requires: &["KVS-THR-1", "KVS-THR-2"],
        title: "threads work with a handle each",
        alone: false,
        run: handle_each,
    },
    Case {
        id: "ABI-THR-4",
        level: Level::Must,
        requires: &["KVS-THR-1", "KVS-OPEN-1"],
        title: "handles are opened and closed beside one in use",
        alone: false,
        run: opening_beside,
    },
    Case {
        id: "ABI-THR-5",
        level: Level::Must,
        requires: &["KVS-THR-1", "KVS-MAN-8"],
        title: "threads put, flush under one name and read back",
        alone: false,
        run: flush_from_threads,
    },
    Case {
        id: "ABI-THR-6",
        level: Level::Must,
        requires: &["KVS-THR-1", "KVS-CHUNK-1"],
        title: "threads read the same chunks through one handle",
        alone: false,
        run: same_reads,
    },
];

const THREADS: usize = 8;

/// Runs `work` on several threads, each with its number, and gives the first failure.
fn on_threads(work: impl Fn(usize) -> Outcome + Sync) -> Outcome {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || work(number))).collect();
        let mut outcomes = threads.into_iter().map(|thread| match thread.join() {
            Ok(outcome) => outcome,
            Err(_) => fail!("a thread panicked"),
        });
        outcomes.try_for_each(|outcome| outcome)
    })
}

fn sessions_of_threads(abi: &Abi, count: usize) -> Vec<Vec<Chunk>> {
    let mut random = abi.random();
    (0..THREADS).map(|_| Chunk::several(&mut random, count, 4000)).collect()
}

fn one_handle(abi: &Abi) -> Outcome {
    let sessions = sessions_of_threads(abi, 12);
    let handle = abi.open()?;
    on_threads(|number| {
        for (round, chunks) in sessions[number].chunks(4).enumerate() {
            let name = abi.name(&format!("{number}-{round}"));
            save(&handle, &name, chunks)?;
            expect_session(&handle, &name, chunks)?;
            handle.expect_no_chunk(&chunks[0].hash[..8])?;
        }
        Ok(())
    })?;
    expect_all(&abi.open()?, &sessions.concat())
}

fn same_chunks(abi: &Abi) -> Outcome {
    let chunks = Chunk::several(&mut abi.random(), 20, 9000);
    let handle = abi.open()?;
    on_threads(|number| {
        let name = abi.name(&number.to_string());
        save(&handle, &name, &chunks)?;
        expect_session(&handle, &name, &chunks)
    })?;
    expect_all(&abi.open()?, &chunks)
}

fn handle_each(abi: &Abi) -> Outcome {
    let sessions = sessions_of_threads(abi, 6);
    on_threads(|number| {
        let handle = abi.open()?;
        let name = abi.name(&number.to_string());
        for _ in 0..3 {
            save(&handle, &name, &sessions[number])?;
            expect_session(&handle, &name, &sessions[number])?;
        }
        Ok(())
    })?;
    expect_all(&abi.open()?, &sessions.concat())
}

fn opening_beside(abi: &Abi) -> Outcome {
    let sessions = sessions_of_threads(abi, 6);
    let handle = abi.open()?;
    on_threads(|number| {
        let name = abi.name(&number.to_string());
        for _ in 0..5 {
            if number % 2 == 0 {
                save(&handle, &name, &sessions[number])?;
                expect_session(&handle, &name, &sessions[number])?;
            } else {
                let own = abi.open()?;
                save(&own, &name, &sessions[number])?;
                drop(own);
                expect_session(&handle, &name, &sessions[number])?;
            }
        }
        Ok(())
    })
}

fn flush_from_threads(abi: &Abi) -> Outcome {
    let (sessions, name) = (sessions_of_threads(abi, 15), abi.name("flush"));
    let handle = abi.open()?;
    on_threads(|number| {
        for chunks in sessions[number].chunks(3) {
            put_all(&handle, chunks)?;
            handle.publish(&name, &[])?;
            expect_all(&handle, chunks)?;
        }
        Ok(())
    })?;
    expect_all(&abi.open()?, &sessions.concat())
}

fn same_reads(abi: &Abi) -> Outcome {
    let (chunks, name) = (Chunk::several(&mut abi.random(), 30, 20_000), abi.name("session"));
    let handle = abi.open()?;
    save(&handle, &name, &chunks)?;
    on_threads(|number| {
        for round in 0..4 {
            let (late, early) = chunks.split_at((number + round) % chunks.len());
            expect_all(&handle, early)?;
            expect_all(&handle, late)?;
        }
        handle.expect_manifest(&name, &super::store::hashes(&chunks))
    })
}
