//! The suites over RDMA: the plugin, the server and the client, each held to the same cases as over other transports.
//!
//! Needs a device, soft-RoCE in the guest of tools/rdma, which has one processor.
#![cfg(target_os = "linux")]

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use memkv_conformance::{abi, wire_client, wire_server};
use support::memkv::{KEY, Memkv};
use support::{Run, build, build_example, text};

/// Cases that hold more connections than a server has queue pairs hold the others over TCP, as the protocol has it.
const RDMA: &str = "rdma: {}\nnetwork: {local: \"off\"}\n";
const DEADLINE_S: &str = "120";

/// False, and the test counts as skipped, where there is no device.
fn has_device(test: &str) -> bool {
    let found = std::fs::read_dir("/sys/class/infiniband").is_ok_and(|mut devices| devices.next().is_some());
    if !found {
        println!("MEMKV-SKIP {test} no RDMA device here, `cargo xtask test --rdma` makes one");
    }
    found
}

/// Runs these cases, so many at a time, and expects that each passes.
fn expect_conforming<'a>(arguments: &[&str], jobs: &str, cases: impl Iterator<Item = &'a str>) {
    let cases: BTreeSet<&str> = cases.collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_memkv-conformance"));
    command.args(arguments).args(["--json", "--strict", "--deadline", DEADLINE_S, "--jobs", jobs]);
    command.args(cases.iter().flat_map(|case| ["--filter", case]));
    let run = Run::of(command.envs([("MEMKV_AUTH_KEY", KEY), ("MEMKV_TRANSPORT", "rdma")]));
    assert_eq!(run.code, Some(0), "{}", run.told());
    let verdicts = run.verdicts();
    assert!(verdicts.keys().eq(cases.iter()), "{}", run.told());
    assert!(verdicts.values().all(|verdict| verdict == "passed"), "{}", run.told());
}

#[test]
fn the_plugin_conforms_over_rdma() {
    if !has_device("the_plugin_conforms_over_rdma") {
        return;
    }
    let library = build("kv-store-memkv", "libkv_store_memkv.so");
    let memkv = Memkv::start(RDMA);
    let uri = |namespace: &str| format!("memkv://{}/{namespace}", memkv.address);
    let restart = &memkv.restart_command;
    let (one, other) = (uri("one"), uri("other"));
    let arguments = ["abi", text(&library), &one, "--other-uri", &other, "--restart-command", restart];
    expect_conforming(&arguments, "1", abi::cases().into_iter().map(|case| case.id));
}

#[test]
fn the_server_conforms_over_rdma() {
    if !has_device("the_server_conforms_over_rdma") {
        return;
    }
    let memkv = Memkv::start(RDMA);
    let restart = &memkv.restart_command;
    let arguments = ["wire-server", &memkv.address, "--rdma", "--restart-command", restart];
    expect_conforming(&arguments, "2", wire_server::cases().iter().map(|case| case.id));
}

#[test]
fn the_client_conforms_over_rdma() {
    if !has_device("the_client_conforms_over_rdma") {
        return;
    }
    let driver = build_example("memkv-client", "wire_driver");
    let command = format!("exec {}", text(&driver));
    let arguments = ["wire-client", &command, "--rdma"];
    expect_conforming(&arguments, "2", wire_client::cases().iter().map(|case| case.id));
}
