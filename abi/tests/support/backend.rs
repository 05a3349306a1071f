//! A store for a test: a namespace nobody else uses, a library to load, and a way to crash it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub trait Backend {
    /// The environment that a consumer needs to find the library and open the store.
    fn environment(&self) -> Vec<(&'static str, String)>;
    fn uri(&self) -> String;
    fn library(&self) -> PathBuf;
    /// Chunks in the store, counted by the store itself.
    fn chunks_stored(&self) -> u64;
    /// Ends the store's process, if it has one, without warning, and starts it again on what is left.
    fn crash(&mut self);

    fn configure(&self, command: &mut Command) {
        command.envs(self.environment());
    }
}

/// libkv_store_dir over a temporary directory.
pub struct Directory {
    library_directory: &'static Path,
    store: TempDir,
}

impl Directory {
    pub fn new() -> Self {
        Directory {
            library_directory: super::dir_backend(),
            store: TempDir::new().expect("a temporary directory"),
        }
    }

    /// Where the backend keeps the manifest of this name: in a file named by its bytes in hex.
    pub fn manifest_file(&self, name: &str) -> PathBuf {
        let hex: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.store.path().join("store/manifests").join(hex)
    }
}

impl Backend for Directory {
    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![("KV_STORE_LIBRARY_PATH", self.library_directory.display().to_string())]
    }

    fn uri(&self) -> String {
        format!("dir://{}/store/", self.store.path().display())
    }

    fn library(&self) -> PathBuf {
        self.library_directory.join("libkv_store_dir.so")
    }

    fn chunks_stored(&self) -> u64 {
        match fs::read_dir(self.store.path().join("store/chunks")) {
            Ok(entries) => entries.count() as u64,
            Err(_) => 0,
        }
    }

    fn crash(&mut self) {}
}
