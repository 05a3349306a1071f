//! Engines that fork: what an inherited handle does, and what the parent's does afterwards.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::Abi;
use super::store::{Chunk, Store as _, expect_session, save};
use crate::case::{Case, Level, Outcome, Stop};
use crate::ffi;
use crate::{ensure, fail};

pub const CASES: &[Case<Abi>] = &[
    Case {
        id: "ABI-FORK-1",
        level: Level::Should,
        requires: &["KVS-FORK-1"],
        title: "a call on an inherited handle returns",
        alone: false,
        run: inherited_handle,
    },
    Case {
        id: "ABI-FORK-2",
        level: Level::Should,
        requires: &["KVS-FORK-1"],
        title: "a child's use of an inherited handle does not disturb the parent",
        alone: false,
        run: parent_undisturbed,
    },
    Case {
        id: "ABI-FORK-3",
        level: Level::Should,
        requires: &["KVS-FORK-2"],
        title: "a forked child opens a handle of its own",
        alone: false,
        run: own_handle,
    },
];

const FORKED_CHILD_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// Forks, and gives the code with which the child ended.
fn in_child(errand: impl FnOnce() -> Outcome) -> Outcome {
    let child = match ffi::fork(|| u8::from(errand().is_err())) {
        Ok(child) => child,
        Err(error) => fail!("fork: {error}"),
    };
    let deadline = Instant::now() + FORKED_CHILD_MAX;
    let Some(status) = wait(child, deadline) else { fail!("a call hung in a forked child") };
    if let Some(signal) = status.terminating_signal() {
        fail!("a call in a forked child was ended by signal {signal}");
    }
    let code = status.exit_status();
    ensure!(code == Some(0), "a call in a forked child gave a wrong result (the child ended with {code:?})");
    Ok(())
}

fn wait(child: i32, deadline: Instant) -> Option<WaitStatus> {
    let pid = Pid::from_raw(child)?;
    while Instant::now() < deadline {
        if let Ok(Some((_, status))) = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG) {
            return Some(status);
        }
        std::thread::sleep(POLL);
    }
    // It hangs; nothing is lost by ending it.
    let _ = rustix::process::kill_process(pid, Signal::KILL);
    let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
    None
}

/// Right or refused, but not wrong.
fn right_or_failed(handle: &ffi::Handle, chunk: &Chunk) -> Outcome {
    match handle.get_chunk(&chunk.hash) {
        Ok(got) => ensure!(*got == *chunk.data, "wrong bytes"),
        Err(failure) => ensure!(failure.is_proper(), "returned {failure}"),
    }
    Ok(())
}

fn inherited_handle(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunks = Chunk::several(&mut random, 3, 3000);
    let handle = abi.open()?;
    save(&handle, &name, &chunks)?;
    in_child(|| {
        chunks.iter().try_for_each(|chunk| right_or_failed(&handle, chunk))?;
        handle.put_chunk(&random.bytes(16), &random.bytes(100));
        handle.put_manifest(&abi.name("of-child"), b"from a child");
        Ok(())
    })
}

fn parent_undisturbed(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let handle = abi.open()?;
    for round in 0..3 {
        let name = abi.name(&round.to_string());
        let chunks = Chunk::several(&mut random, 3, 3000);
        save(&handle, &name, &chunks)?;
        in_child(|| right_or_failed(&handle, &chunks[0]))
            .map_err(|stop| Stop::Failed(format!("in the child: {stop}")))?;
        expect_session(&handle, &name, &chunks)?;
        handle.expect_no_chunk(&random.bytes(16))?;
    }
    Ok(())
}

fn own_handle(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let (before, name) = (Chunk::several(&mut random, 3, 3000), abi.name("before"));
    let handle = abi.open()?;
    save(&handle, &name, &before)?;
    let (after, of_child) = (Chunk::several(&mut random, 3, 3000), abi.name("of-child"));
    in_child(|| {
        let own = abi.open()?;
        expect_session(&own, &name, &before)?;
        save(&own, &of_child, &after)
    })?;
    expect_session(&handle, &of_child, &after)
}
