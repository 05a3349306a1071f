//! What is left after the server was restarted, by a command the user gives.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use memkv_wire::{ChunkReference, Status};

use super::Server;
use super::calls::{
    Manifest, delete, expect_absent, expect_manifest, expect_no_manifest, expect_published, expect_value,
    remove, store,
};
use crate::case::{Case, Outcome};
use crate::{ensure, fail, skip};

pub const CASES: &[Case<Server>] = &[
    Case::must(
        "SRV-DUR-1",
        &["MKV-WR-2", "MKV-PUT-2"],
        "what was acknowledged outlives a restart",
        acknowledged,
    )
    .alone(),
    Case::must(
        "SRV-DUR-2",
        &["MKV-DEL-2", "MKV-DELM-1"],
        "what was deleted stays deleted after a restart",
        deleted,
    )
    .alone(),
    Case::must("SRV-DUR-3", &["MKV-CONN-2"], "the server's id outlives a restart", identity).alone(),
];

fn restart(server: &Server) -> Outcome {
    let Some(command) = &server.target.restart_command else { skip!("no --restart-command was given") };
    // In a process group of its own: what it starts outlives this case.
    let mut shell = Command::new("/bin/sh");
    match shell.arg("-c").arg(command).stdin(Stdio::null()).process_group(0).status() {
        Ok(status) => ensure!(status.success(), "the restart command ended with {status}"),
        Err(error) => fail!("the restart command cannot be run: {error}"),
    }
    Ok(())
}

fn acknowledged(server: &Server) -> Outcome {
    let (namespace, mut random) = (server.namespace(), server.random());
    let values: Vec<(Vec<u8>, Vec<u8>)> = [1, 4096, 70_000, (2 << 20) + 1]
        .iter()
        .map(|length| (random.bytes(16), random.bytes(*length)))
        .collect();
    let mut session = server.connect()?;
    for (key, data) in &values {
        store(&mut session, &namespace, key, data)?;
    }
    let chunks: Vec<ChunkReference<'_>> = values
        .iter()
        .map(|(key, data)| ChunkReference { key, length: data.len() as u64, checksum: None })
        .collect();
    let body = random.bytes(10_000);
    let generation = expect_published(&mut session, &namespace, &Manifest::new(b"name", &body, &chunks))?;
    for _ in 0..2 {
        restart(server)?;
        let mut session = server.connect()?;
        expect_manifest(&mut session, &namespace, b"name", (generation, &body))?;
        for (key, data) in &values {
            expect_value(&mut session, &namespace, key, data)?;
        }
    }
    Ok(())
}

fn deleted(server: &Server) -> Outcome {
    let namespace = server.namespace();
    let mut session = server.connect()?;
    store(&mut session, &namespace, b"gone", b"1")?;
    store(&mut session, &namespace, b"kept", b"2")?;
    expect_published(&mut session, &namespace, &Manifest::new(b"gone", b"body", &[]))?;
    let told = delete(&mut session, &namespace, &[b"gone"])?;
    ensure!(told == [Status::Ok], "delete told {told:?}");
    let status = remove(&mut session, &namespace, b"gone", 0)?;
    ensure!(status == Status::Ok, "DeleteManifest was answered with {}", status.name());
    restart(server)?;
    let mut session = server.connect()?;
    expect_absent(&mut session, &namespace, b"gone")?;
    expect_no_manifest(&mut session, &namespace, b"gone")?;
    expect_value(&mut session, &namespace, b"kept", b"2")
}

fn identity(server: &Server) -> Outcome {
    let before = server.connect()?.answer.server_id;
    restart(server)?;
    let after = server.connect()?.answer.server_id;
    ensure!(before == after, "the server has another id after a restart");
    Ok(())
}
