//! A `memkv` server of a test's own.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use memkv_client::blocking::Client;
use memkv_client::{Config, Settings, Transport};
use memkv_wire::mac::Key;
use tempfile::TempDir;

/// The key of every server here, so that it need be put into this process's environment only once.
pub const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Says that a test cannot run here, past the harness's capture, so that it can be counted.
pub fn skip(test: &str, reason: &str) {
    let line = format!("MEMKV-SKIP {test} {reason}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("stdout is there");
}

/// A running server, killed when dropped.
pub struct Server {
    child: Child,
    address: String,
    data: TempDir,
}

impl Server {
    /// A server on an empty directory; or `None`, with a line that says so, if there is no binary.
    pub fn start(test: &str) -> Option<Self> {
        let Some(binary) = binary() else {
            let skip =
                format!("MEMKV-SKIP {test} the memkv binary is not built (cargo build -p memkv-server)\n");
            std::io::stdout().write_all(skip.as_bytes()).expect("stdout is there");
            return None;
        };
        let data = TempDir::new().expect("a temporary directory");
        configure(&data, if Transport::from_env() == Ok(Transport::Rdma) { "rdma: {}\n" } else { "" });
        let (child, address) = spawn(&binary, &data, "127.0.0.1:0");
        Some(Self { child, address, data })
    }

    /// As [`Server::start`], with this configuration.
    pub fn start_configured(test: &str, document: &str) -> Option<Self> {
        let mut server = Self::start(test)?;
        server.kill();
        server.configure(document);
        server.start_again();
        Some(server)
    }

    /// What the server is told when it starts the next time.
    pub fn configure(&self, document: &str) {
        configure(&self.data, document);
    }

    pub fn uri(&self, namespace: &str) -> String {
        format!("memkv://{}/{namespace}", self.address)
    }

    /// Ends the server without warning.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is running");
        self.child.wait().expect("it was running");
    }

    /// Starts a killed server anew, with nothing stored.
    pub fn start_empty(&mut self) {
        std::fs::remove_dir_all(self.data.path().join("data")).expect("what the server left");
        self.start_again();
    }

    /// Starts a killed server on what it left behind, where it was.
    pub fn start_again(&mut self) {
        let binary = binary().expect("it was there before");
        (self.child, self.address) = spawn(&binary, &self.data, &self.address);
    }

    /// A client of its own, beside the plugin's.
    pub fn client(&self, namespace: &str) -> Client {
        Client::connect(self.config(namespace)).expect("the server is up")
    }

    pub fn config(&self, namespace: &str) -> Config {
        let mut config =
            Config::new(&self.uri(namespace), Key::from_hex(KEY).expect("a key")).expect("a URI");
        config.settings = Settings { connections: 2, ..config.settings };
        config.transport = Transport::from_env().expect("a transport");
        config
    }

    /// One of the server's counters; asked for without RDMA where there is a choice, so that asking is no connection over it.
    pub fn counter(&self, name: &str) -> u64 {
        let config = Config { rdma: false, ..self.config("") };
        counter(&Client::connect(config).expect("the server is up"), name)
    }

    /// How many messages the server got while `act` ran.
    pub fn round_trips<R>(&self, act: impl FnOnce() -> R) -> (u64, R) {
        let client = self.client("");
        // A connection that is opened meanwhile registers memory, or tries its queue pair, which is no round trip of the operation's.
        let requests = || {
            // Over RDMA that is one and the same request.
            let begun = counter(&client, "memory_registered").max(counter(&client, "connections_rdma"));
            counter(&client, "requests") - begun
        };
        // What asking costs itself.
        let idle = requests().abs_diff(requests());
        let before = requests();
        let result = act();
        (requests() - before - idle, result)
    }
}

fn counter(client: &Client, name: &str) -> u64 {
    let counters = client.stats(name).expect("the server is up");
    counters.iter().find(|(own, _)| own == name).map(|(_, value)| *value).expect("a counter of this name")
}

impl Drop for Server {
    fn drop(&mut self) {
        // Killed already, or killed now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configure(data: &TempDir, document: &str) {
    std::fs::write(data.path().join("config.yaml"), document).expect("a temporary directory");
}

fn spawn(binary: &PathBuf, data: &TempDir, listen: &str) -> (Child, String) {
    let mut child = Command::new(binary)
        .args(["start", "--listen", listen, "--data"])
        .arg(data.path().join("data"))
        .arg("--config")
        .arg(data.path().join("config.yaml"))
        .env("MEMKV_AUTH_KEY", KEY)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server can be started");
    let stdout = child.stdout.take().expect("a pipe");
    let mut lines = BufReader::new(stdout).lines();
    let address = loop {
        let line = lines.next().expect("the server says where it listens").expect("text");
        if let Some(address) = line.strip_prefix("listening on ") {
            break address.to_owned();
        }
    };
    // The rest of its banner goes nowhere; the pipe stays open until the server ends.
    std::thread::spawn(move || lines.for_each(drop));
    (child, address)
}

/// In `MEMKV_BIN_DIR`, or else beside this test's own binary, which is in `deps`.
fn binary() -> Option<PathBuf> {
    let own = std::env::current_exe().expect("this test has a path");
    let directory = std::env::var_os("MEMKV_BIN_DIR").map(PathBuf::from);
    let binary = directory
        .or_else(|| Some(own.parent()?.parent()?.to_owned()))?
        .join(format!("memkv{}", std::env::consts::EXE_SUFFIX));
    binary.is_file().then_some(binary)
}
