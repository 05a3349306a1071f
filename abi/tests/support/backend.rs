//! A store for a test: a namespace nobody else uses, a library to load, and a way to crash it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use memkv_client::Config;
use memkv_client::blocking::Client;
use memkv_wire::mac::Key;
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
    /// Bytes that the store's process fetched from, and put into, memory of its clients over RDMA, since it was started.
    fn moved_by_rdma_bytes(&self) -> [u64; 2] {
        [0, 0]
    }

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

/// libkv_store_memkv and a server of its own, in file mode on a temporary directory.
pub struct Memkv {
    data: TempDir,
    server: Server,
    transport: &'static str,
}

impl Memkv {
    pub fn new() -> Self {
        Memkv::configured("", "auto")
    }

    /// With the first RDMA device of this host, and consumers that use nothing else.
    pub fn over_rdma() -> Self {
        Memkv::configured("rdma: {}\n", "rdma")
    }

    fn configured(document: &str, transport: &'static str) -> Self {
        let data = TempDir::new().expect("a temporary directory");
        fs::write(data.path().join("config.yaml"), document).expect("a configuration");
        let server = Server::start(data.path(), "127.0.0.1:0");
        Memkv { data, server, transport }
    }

    fn counter(&self, name: &str) -> u64 {
        let key = Key::from_hex(&self.server.key).expect("the server printed a key");
        let config = Config::new(&self.uri(), key).expect("the uri is good");
        let client = Client::connect(config).expect("the server is there");
        let counters = client.stats(name).expect("the server answers");
        let [(_, count)] = counters.as_slice() else { panic!("one counter, not {counters:?}") };
        *count
    }
}

impl Backend for Memkv {
    fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("KV_STORE_LIBRARY_PATH", super::programs().display().to_string()),
            ("MEMKV_AUTH_KEY", self.server.key.clone()),
            ("MEMKV_TRANSPORT", self.transport.to_owned()),
        ]
    }

    fn uri(&self) -> String {
        format!("memkv://{}/consumers/", self.server.address)
    }

    fn library(&self) -> PathBuf {
        super::programs().join("libkv_store_memkv.so")
    }

    fn chunks_stored(&self) -> u64 {
        self.counter("values_stored")
    }

    fn moved_by_rdma_bytes(&self) -> [u64; 2] {
        ["bytes_fetched", "bytes_put"].map(|name| self.counter(name))
    }

    fn crash(&mut self) {
        self.server.kill();
        self.server = Server::start(self.data.path(), &self.server.address);
    }
}

struct Server {
    process: Child,
    address: String,
    key: String,
}

impl Server {
    /// Returns once the server listens. Its log goes to a file beside its data.
    fn start(data: &Path, listen: &str) -> Self {
        let mut command = Command::new(super::programs().join("memkv"));
        command.arg("start").arg("--data").arg(data.join("data")).args(["--listen", listen]);
        command.arg("--config").arg(data.join("config.yaml"));
        command.arg("--log-file").arg(data.join("log")).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut lines = BufReader::new(process.stdout.take().expect("stdout is a pipe")).lines();
        let mut value_after = |prefix: &str| {
            let line = lines.next().and_then(Result::ok).unwrap_or_default();
            match line.strip_prefix(prefix) {
                Some(value) => value.to_owned(),
                None => panic!("the server said {line:?}; log: {:?}", fs::read_to_string(data.join("log"))),
            }
        };
        let address = value_after("listening on ");
        let key = value_after("export MEMKV_AUTH_KEY=");
        Server { process, address, key }
    }

    fn kill(&mut self) {
        self.process.kill().expect("the server can be killed");
        self.process.wait().expect("the server ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
