//! What is left after the service behind the store was restarted, by a command the user gives.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use super::Abi;
use super::store::{Chunk, expect_session, save};
use crate::case::{Case, Level, Outcome};
use crate::{ensure, fail, skip};

pub const CASES: &[Case<Abi>] = &[
    Case {
        id: "ABI-DUR-1",
        level: Level::Must,
        requires: &["KVS-DUR-1"],
        title: "sessions outlive a restart of the service",
        alone: true,
        run: sessions_outlive,
    },
    Case {
        id: "ABI-DUR-2",
        level: Level::Should,
        requires: &["KVS-DUR-2", "KVS-THR-2"],
        title: "an open handle works again after a restart of the service",
        alone: true,
        run: handles_recover,
    },
];

/// A handle that has lost its connection may fail so many calls before it works again.
const ATTEMPTS: usize = 5;

fn restart(abi: &Abi) -> Outcome {
    let Some(command) = &abi.target.restart_command else { skip!("no --restart-command was given") };
    // In a process group of its own: what it starts outlives this case.
    let mut shell = Command::new("/bin/sh");
    match shell.arg("-c").arg(command).stdin(Stdio::null()).process_group(0).status() {
        Ok(status) => ensure!(status.success(), "the restart command ended with {status}"),
        Err(error) => fail!("the restart command cannot be run: {error}"),
    }
    Ok(())
}

fn sessions_outlive(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let sessions: Vec<_> = (0..5)
        .map(|number| (abi.name(&number.to_string()), Chunk::several(&mut random, 8, 20_000)))
        .collect();
    let handle = abi.open()?;
    for (name, chunks) in &sessions {
        save(&handle, name, chunks)?;
    }
    drop(handle);
    for _ in 0..2 {
        restart(abi)?;
        let handle = abi.open()?;
        sessions.iter().try_for_each(|(name, chunks)| expect_session(&handle, name, chunks))?;
    }
    Ok(())
}

fn handles_recover(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunks = Chunk::several(&mut random, 8, 20_000);
    let handle = abi.open()?;
    save(&handle, &name, &chunks)?;
    restart(abi)?;
    let mut recovered = expect_session(&handle, &name, &chunks);
    for _ in 1..ATTEMPTS {
        if recovered.is_ok() {
            break;
        }
        recovered = expect_session(&handle, &name, &chunks);
    }
    recovered?;
    let (more, other) = (Chunk::several(&mut random, 8, 20_000), abi.name("after"));
    save(&handle, &other, &more)?;
    expect_session(&handle, &other, &more)
}
