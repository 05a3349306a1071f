//! The real server, as a test's own.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{build, text};

pub const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// A server in file mode on a directory of its own; ended when dropped.
pub struct Memkv {
    directory: TempDir,
    pub address: String,
    /// Ends it, starts it on what it left at the same address, and returns when it listens.
    pub restart_command: String,
}

impl Memkv {
    /// With these sections in its configuration, beside `storage`.
    pub fn start(sections: &str) -> Memkv {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let restart_command = restart_command(&build("memkv-server", "memkv"), directory.path(), sections);
        let script = Command::new("sh").arg("-c").arg(&restart_command).env("MEMKV_AUTH_KEY", KEY).status();
        assert!(script.expect("sh runs").success(), "memkv does not start");
        let output = std::fs::read_to_string(directory.path().join("out")).expect("its output");
        let address =
            output.lines().find_map(|line| line.strip_prefix("listening on ")).expect("its address");
        // The port stays the same over restarts.
        std::fs::write(directory.path().join("address"), address).expect("a file");
        Memkv { address: address.to_owned(), directory, restart_command }
    }
}

impl Drop for Memkv {
    fn drop(&mut self) {
        if let Ok(pid) = std::fs::read_to_string(self.directory.path().join("pid")) {
            // It may have ended by itself.
            let _ = Command::new("kill").arg(pid.trim()).status();
        }
    }
}

fn restart_command(memkv: &Path, directory: &Path, sections: &str) -> String {
    let config = directory.join("config.yaml");
    let data = directory.join("data");
    let storage = format!("storage:\n  mode: file\n  path: {}\n  capacity: 1GiB\n", text(&data));
    std::fs::write(&config, format!("{sections}{storage}")).expect("a configuration");
    let (memkv, config, directory) = (text(memkv), text(&config), text(directory));
    format!(
        "cd {directory} || exit 1; \
         if [ -f pid ]; then kill $(cat pid); while kill -0 $(cat pid) 2>/dev/null; do :; done; fi; \
         rm -f out; {memkv} start --config {config} --listen $(cat address 2>/dev/null || echo 127.0.0.1:0) \
         --log-file log </dev/null >out 2>&1 & echo $! >{directory}/pid; \
         while ! grep -qs '^listening' {directory}/out; do kill -0 $(cat {directory}/pid) || exit 1; done"
    )
}
