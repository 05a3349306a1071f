//! The program as people and scripts run it, on sizes that take no time. The figures mean nothing here.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

/// Past what captures the output of tests.
fn skip(test: &str, reason: &str) {
    let line = format!("MEMKV-SKIP {test} {reason}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("stdout is there");
}

/// The server's program, if it is built; otherwise a line that says so.
fn memkv(test: &str) -> Option<PathBuf> {
    let own = PathBuf::from(env!("CARGO_BIN_EXE_memkv-bench"));
    let memkv = own.with_file_name(format!("memkv{}", std::env::consts::EXE_SUFFIX));
    if memkv.is_file() {
        return Some(memkv);
    }
    skip(test, "the memkv binary is not built (cargo build -p memkv-server)");
    None
}

fn bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memkv-bench"));
    command.env_remove("MEMKV_AUTH_KEY").args(arguments).output().expect("the program runs")
}

/// Runs what must succeed, and reads its JSON.
fn measured(arguments: &[&str]) -> Value {
    let output = bench(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn refused(arguments: &[&str], code: i32, word: &str) {
    let output = bench(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(word), "{arguments:?}: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

const SMALL: &[&str] = &[
    "--capacity",
    "64MiB",
    "--sizes",
    "4KiB,64KiB",
    "--seconds",
    "0.01",
    "--working-set",
    "256KiB",
    "--depth",
    "4",
];

#[test]
fn values_are_measured_over_every_transport() {
    if memkv("values_are_measured_over_every_transport").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a directory");
    let svg = folder.path().join("chart.svg");
    let drawn = ["--json", "--svg", svg.to_str().expect("text"), "--connections", "1,2", "--batch", "3"];
    let figures = measured(&[SMALL, &drawn].concat());
    let figures = figures.as_array().expect("a list");
    // Two transports, two numbers of connections, two sizes, four operations.
    assert_eq!(figures.len(), 2 * 2 * 2 * 4);
    for figure in figures {
        let number = |value: &Value| value.as_f64().expect("a number");
        let latency = &figure["latency_us"];
        assert!(
            number(&figure["gb_per_s"]) > 0.0 && number(&figure["client_cpu_s_per_gb"]) > 0.0,
            "{figure}"
        );
        assert!(
            number(&latency["p50"]) > 0.0 && number(&latency["p50"]) <= number(&latency["p99"]),
            "{figure}"
        );
        let batched = figure["operation"].as_str().expect("a name").starts_with("batch-");
        assert_eq!(figure["values_per_operation"], if batched { 3 } else { 1 });
    }
    let chart = std::fs::read_to_string(&svg).expect("a chart");
    assert!(chart.starts_with("<svg") && chart.trim_end().ends_with("</svg>"));
    assert!(chart.contains("local batch-read, 2 connections") && chart.contains("64 KiB"), "{chart}");
}

/// In the guest of tools/rdma, with a server of its own: over the queue pair, and not over what a client may fall back to.
#[cfg(target_os = "linux")]
#[test]
fn values_are_measured_over_rdma() {
    let test = "values_are_measured_over_rdma";
    if std::fs::read_dir("/sys/class/infiniband").map_or(0, Iterator::count) == 0 {
        skip(test, "no RDMA device here, `cargo xtask test --rdma` makes one");
        // Where there is none, it is said by whoever was to have one.
        let output = bench(&[SMALL, &["--transports", "rdma"]].concat());
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    if memkv(test).is_none() {
        return;
    }
    let figures =
        measured(&[SMALL, &["--transports", "rdma", "--operations", "write,read", "--json"]].concat());
    let figures = figures.as_array().expect("a list");
    assert_eq!(figures.len(), 4, "two sizes, two operations");
    for figure in figures {
        assert!(figure["transport"] == "rdma" && figure["gb_per_s"].as_f64() > Some(0.0), "{figure}");
    }
}

#[test]
fn without_json_there_is_a_table() {
    if memkv("without_json_there_is_a_table").is_none() {
        return;
    }
    let output = bench(&[SMALL, &["--transports", "tcp", "--operations", "read"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(
        lines[0].contains("GB/s") && lines[2].starts_with("tcp") && lines[2].contains("64 KiB"),
        "{table}"
    );
}

/// The plugin, if it is built; otherwise a line that says so.
fn library(test: &str) -> Option<PathBuf> {
    let name = if cfg!(target_os = "macos") { "libkv_store_memkv.dylib" } else { "libkv_store_memkv.so" };
    let library = PathBuf::from(env!("CARGO_BIN_EXE_memkv-bench")).with_file_name(name);
    if library.is_file() {
        return Some(library);
    }
    skip(test, "the plugin is not built (cargo build -p kv-store-memkv)");
    None
}

#[test]
fn a_session_is_measured_beside_a_file() {
    let test = "a_session_is_measured_beside_a_file";
    if memkv(test).is_none() || library(test).is_none() {
        return;
    }
    let figures = measured(&["session", "--tokens", "65,256", "--rounds", "2", "--json"]);
    let figures = figures.as_array().expect("a list");
    let steps: Vec<_> = figures.iter().map(|figure| figure["step"].as_str().expect("a name")).collect();
    assert_eq!(steps, ["cold save", "warm save", "restore"].repeat(2));
    assert_eq!((&figures[0]["chunks"], &figures[3]["chunks"]), (&Value::from(48), &Value::from(96)));
    for figure in figures {
        assert!(figure["ms"].as_f64() > Some(0.0) && figure["factor"].as_f64() > Some(0.0), "{figure}");
    }
    refused(&["session", "--library", "/nonexistent.so", "--rounds", "1"], 1, "/nonexistent.so");
}

#[test]
fn a_trace_is_replayed() {
    if memkv("a_trace_is_replayed").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("trace.jsonl");
    let line = |ids: &str| format!("{{\"timestamp\": 1, \"hash_ids\": {ids}}}\n");
    std::fs::write(&file, line("[1, 2, 3]") + &line("[1, 2, 4]") + &line("[]") + &line("[4, 1]"))
        .expect("written");
    let file = file.to_str().expect("text");
    for transport in ["tcp", "local"] {
        let arguments =
            ["trace", file, "--value-size", "8KiB", "--depth", "1", "--json", "--transport", transport];
        let figures = measured(&arguments);
        for (name, value) in [("requests", 4), ("blocks", 8), ("hits", 4), ("misses", 4)] {
            assert_eq!(figures[name], Value::from(value), "{name}: {figures}");
        }
        assert_eq!((&figures["hit_rate"], &figures["hit_rate_max"]), (&Value::from(0.5), &Value::from(0.5)));
    }
    let limited = bench(&["trace", file, "--limit", "1", "--depth", "1"]);
    let said = String::from_utf8(limited.stdout).expect("text");
    assert!(said.contains("hit rate         0.00 %"), "{said}");
    refused(&["trace", "/nonexistent"], 1, "/nonexistent");
    refused(&["trace", file, "--value-size", "2MiB"], 1, "1 MiB");
    refused(&["trace"], 2, "FILE");
}

#[test]
fn a_wrong_command_line_is_refused() {
    for arguments in [
        &["--sizes", "big"][..],
        &["--operations", "copy"],
        &["--transports", "udp"],
        &["--connections", "0"],
        &["--depth", "0"],
        &["--seconds", "-1"],
        &["--seconds", "nan"],
        &["--uri", "memkv://127.0.0.1:9900/x", "--mode", "file"],
        &["nonsense"],
    ] {
        refused(arguments, 2, "error:");
    }
    refused(&["--sizes", "32MiB"], 1, "16 MiB");
    refused(&["--uri", "memkv://127.0.0.1:1/x"], 1, "MEMKV_AUTH_KEY");
    refused(&["--memkv", "/nonexistent/memkv"], 1, "--memkv");
    refused(&["--directory", "/nonexistent"], 1, "/nonexistent");
}
