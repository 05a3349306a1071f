//! The server that is measured: one that runs already, or one of our own on a temporary directory.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use memkv_client::{Client, Config, KEY_VARIABLE, Transport, key_from_env};
use memkv_wire::mac::Key;
use tempfile::TempDir;

use crate::cpu;
use crate::size::Size;

/// Which server is measured.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub struct Target {
    /// A running server, such as memkv://127.0.0.1:9900/bench; the key comes from MEMKV_AUTH_KEY. Without it, a server is started for
    /// the time of the measurement.
    #[arg(long, value_name = "URI")]
    pub uri: Option<String>,
    /// The program of a server that is started [default: `memkv` beside this program, else on PATH].
    #[arg(long, value_name = "PROGRAM", conflicts_with = "uri")]
    memkv: Option<PathBuf>,
    /// Where a server that is started keeps its values [default: memory; for sessions file].
    #[arg(long, value_enum, conflicts_with = "uri")]
    mode: Option<Mode>,
    /// How much a server that is started holds.
    #[arg(long, default_value = "1GiB", conflicts_with = "uri")]
    capacity: Size,
    /// Where its temporary directory is made; in file mode this decides which drive is measured [default: the system's].
    #[arg(long, value_name = "DIR", conflicts_with = "uri")]
    directory: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// In memory: measures the protocol and the store.
    Memory,
    /// In files, as by default.
    File,
}

/// A server to measure; one of our own ends with it.
pub struct Server {
    uri: String,
    key: Key,
    /// Its process, if it is on this host.
    process: Option<u32>,
    own: Option<(Child, TempDir)>,
    /// Its memory, if it is our own and keeps its values there.
    memory: Option<Size>,
}

impl Target {
    /// The server to measure; if it has to be started, in this mode unless told otherwise, and with queue pairs if some of these go over RDMA.
    pub fn server(&self, mode: Mode, transports: &[Transport]) -> Result<Server> {
        match &self.uri {
            Some(uri) => {
                let config = Config::from_env(uri)?;
                let process = cpu::listener(&config.server);
                Ok(Server { uri: uri.clone(), key: key_from_env()?, process, own: None, memory: None })
            }
            None => self.start(self.mode.unwrap_or(mode), transports.contains(&Transport::Rdma)),
        }
    }

    fn start(&self, mode: Mode, rdma: bool) -> Result<Server> {
        let program = self.memkv.clone().unwrap_or_else(beside);
        let parent = self.directory.clone().unwrap_or_else(std::env::temp_dir);
        let directory = tempfile::Builder::new().prefix("memkv-bench-").tempdir_in(&parent);
        let directory =
            directory.with_context(|| format!("no directory can be made in {}", parent.display()))?;
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        let key = Key::from_bytes(bytes);
        let config = directory.path().join("config.yaml");
        std::fs::write(&config, self.configuration(mode, rdma, directory.path()))?;
        let mut command = Command::new(&program);
        command.args(["start", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
        command.arg("--log-file").arg(directory.path().join("log"));
        command.env("MEMKV_AUTH_KEY", key.to_hex().as_str()).stdin(Stdio::null()).stdout(Stdio::piped());
        let spawned = command.spawn();
        let mut child = spawned.with_context(|| {
            format!("cannot run {}: give the server's program with --memkv, or --uri", program.display())
        })?;
        let address = announced(&mut child);
        let process = Some(child.id());
        let memory = (mode == Mode::Memory).then_some(self.capacity);
        // From here on it is ended whatever happens.
        let mut server = Server { uri: String::new(), key, process, own: Some((child, directory)), memory };
        server.uri = format!("memkv://{}/bench", address?);
        Ok(server)
    }

    fn configuration(&self, mode: Mode, rdma: bool, directory: &Path) -> String {
        let capacity = self.capacity.0;
        let rdma = if rdma { "rdma: {}\n" } else { "" };
        let storage = match mode {
            Mode::Memory => format!("{{mode: memory, capacity: {capacity}}}"),
            Mode::File => {
                let path = directory.join("data").display().to_string();
                format!("{{mode: file, capacity: {capacity}, path: {path:?}}}")
            }
        };
        format!("{rdma}storage: {storage}\n")
    }
}

/// `memkv` in this program's folder, or whatever PATH has under that name.
fn beside() -> PathBuf {
    let name = format!("memkv{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(&name)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| name.into())
}

/// The address in the first line that a server prints. The pipe stays open, for what it prints later.
fn announced(child: &mut Child) -> Result<String> {
    let stdout = child.stdout.take().context("the server has no standard output")?;
    let mut lines = BufReader::new(stdout).lines();
    for line in lines.by_ref() {
        if let Some(address) = line?.strip_prefix("listening on ") {
            std::thread::spawn(move || lines.for_each(drop));
            return Ok(address.to_owned());
        }
    }
    bail!("the server ended before it listened: {}", child.wait()?)
}

impl Server {
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// What a process that uses it has to find in its environment.
    pub fn environment(&self) -> [(&'static str, String); 1] {
        [(KEY_VARIABLE, self.key.to_hex().as_str().to_owned())]
    }

    /// The directory of a server of our own.
    pub fn directory(&self) -> Option<&Path> {
        self.own.as_ref().map(|(_, directory)| directory.path())
    }

    pub async fn connect(&self, transport: Transport, connections: Option<u16>) -> Result<Client> {
        let mut config = Config::from_env_but_key(&self.uri, self.key.clone())?;
        config.transport = transport;
        config.client_name = concat!("memkv-bench ", env!("CARGO_PKG_VERSION")).to_owned();
        config.settings.connections = connections.unwrap_or(config.settings.connections);
        Ok(Client::connect(config).await?)
    }

    /// Memory that a server of our own has not touched yet: whoever writes to a part of it first pays for its pages.
    pub fn fresh_memory(&self) -> Option<Size> {
        self.memory
    }

    /// Seconds it computed so far, if it is on this host.
    pub fn cpu_seconds(&self) -> Option<f64> {
        cpu::of(self.process?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((child, _)) = &mut self.own {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
