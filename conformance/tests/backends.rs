//! The ABI suite against backends that have nothing in common with MemKV: OpenDAL's file service and a real Redis server.

mod support;

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use support::{Run, text};
use tempfile::TempDir;

/// Builds the backend's library; its own package is no dependency of the suite.
fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| support::build("kv-store-opendal", "libkv_store_opendal.so"))
}

fn run(uri: &str, other: &str, restart: &str) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memkv-conformance"));
    command.arg("abi").arg(library()).args([uri, "--other-uri", other, "--restart-command", restart]);
    Run::of(command.args(["--json", "--strict", "--deadline", "120"]))
}

/// Everything passes but what a table of version 1 does not have.
fn expect_conforming(run: &Run) {
    assert_eq!(run.code, Some(0), "{}", run.told());
    for (case, verdict) in run.verdicts() {
        let prefetching = case.starts_with("ABI-PRE-") || case == "ABI-LEAK-7";
        assert_eq!(verdict, if prefetching { "skipped" } else { "passed" }, "{case}: {}", run.told());
    }
}

#[test]
fn opendal_on_files_conforms() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let uri = |name: &str| format!("opendal://fs{}", text(&directory.path().join(name)));
    expect_conforming(&run(&uri("a"), &uri("b"), "true"));
}

#[test]
fn opendal_on_redis_conforms() {
    let Some(redis) = Redis::start() else {
        println!("MEMKV-SKIP opendal_on_redis_conforms redis-server is not installed");
        return;
    };
    let uri = |name: &str| format!("opendal://redis/127.0.0.1:{}/{name}", redis.port);
    expect_conforming(&run(&uri("a"), &uri("b"), &redis.script()));
}

/// A Redis server that keeps what it acknowledged; ended when dropped.
struct Redis {
    directory: TempDir,
    port: u16,
}

impl Redis {
    fn start() -> Option<Redis> {
        for tool in ["redis-server", "redis-cli"] {
            match Command::new(tool).arg("--version").stdout(Stdio::null()).status() {
                Err(error) if error.kind() == ErrorKind::NotFound => return None,
                status => assert!(status.is_ok_and(|status| status.success()), "{tool} does not run"),
            }
        }
        // Free a moment ago, and nobody else is told of it.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port")
            .port();
        let redis = Redis { directory: tempfile::tempdir().expect("a temporary directory"), port };
        let started = Command::new("sh").arg("-c").arg(redis.script()).status().expect("sh runs");
        assert!(started.success(), "redis-server does not start");
        Some(redis)
    }

    /// Ends the server if it runs, starts it on what it left, and waits until it answers.
    fn script(&self) -> String {
        let (port, directory) = (self.port, text(self.directory.path()));
        format!(
            "redis-cli -p {port} shutdown nosave >/dev/null 2>&1; \
             while redis-cli -p {port} ping >/dev/null 2>&1; do :; done; \
             redis-server --port {port} --bind 127.0.0.1 --dir {directory} --appendonly yes --save '' \
             --daemonize yes --logfile {directory}/log >/dev/null || exit 1; \
             for i in $(seq 2000); do redis-cli -p {port} ping 2>/dev/null | grep -q PONG && exit 0; done; exit 1"
        )
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // The test is over either way.
        let _ = Command::new("redis-cli").args(["-p", &self.port.to_string(), "shutdown", "nosave"]).output();
    }
}
