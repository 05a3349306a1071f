//! MemKV itself: a server of the built program, and the async client on one thread, as the plugin has it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use memkv_client::{Buf, Client, Config, PutItem, Transport};
use memkv_wire::limits;
use memkv_wire::mac::Key;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::case::{Act, Case, Peer, Sample, contents};
use super::process::Process;

/// A server in memory.
pub struct Server {
    pub process: Process,
    pub address: String,
    pub key: Key,
    _directory: tempfile::TempDir,
}

impl Server {
    pub fn start(program: &Path) -> Result<Server> {
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("config.yaml");
        std::fs::write(&config, "storage: {mode: memory, capacity: 512MiB}\n")?;
        let key = Key::from_bytes([7; 32]);
        let mut command = Command::new(program);
        command.args(["start", "--listen", "127.0.0.1:0", "--config"]).arg(&config);
        command
            .arg("--log-file")
            .arg(directory.path().join("log"))
            .env("MEMKV_AUTH_KEY", key.to_hex().as_str());
        let mut process = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        let mut lines = BufReader::new(process.child().stdout.take().context("no output")?).lines();
        let first = lines.next().context("the server did not start")??;
        let address =
            first.strip_prefix("listening on ").context("the server said something else")?.to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Server { process, address, key, _directory: directory })
    }

    pub fn config(&self, transport: Transport) -> Result<Config> {
        let mut config = Config::new(&format!("memkv://{}/bench", self.address), self.key.clone())?;
        config.transport = transport;
        Ok(config)
    }
}

pub struct MemKv {
    name: &'static str,
    server: Server,
    client: Client,
    runtime: Runtime,
    contents: Vec<Buf>,
    /// Of the values that are there to be read.
    kept: Vec<Vec<u8>>,
    passes: u64,
}

impl MemKv {
    pub fn start(name: &'static str, program: &Path, transport: Transport) -> Result<MemKv> {
        MemKv::with(name, program, |server| server.config(transport))
    }

    pub fn with(
        name: &'static str,
        program: &Path,
        config: impl FnOnce(&Server) -> Result<Config>,
    ) -> Result<MemKv> {
        let server = Server::start(program)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(Client::connect(config(&server)?))?;
        let mut started =
            MemKv { name, server, client, runtime, contents: Vec::new(), kept: Vec::new(), passes: 0 };
        started.touch()?;
        Ok(started)
    }

    /// Writes as much as the server holds, so that no later pass pays for its pages. The peers write the same memory again by
    /// themselves.
    fn touch(&mut self) -> Result<()> {
        let case = Case { name: "", value_bytes: 1 << 20, in_flight: 16, batch: 1, count: 32 };
        self.prepare(&case)?;
        for _ in 0..16 {
            self.pass(&case, Act::Write)?;
        }
        Ok(())
    }

    /// Values are stored once and never change: every pass of writes has keys of its own.
    fn keys(&mut self, count: usize) -> Vec<Vec<u8>> {
        self.passes += 1;
        (0..count).map(|n| format!("bench-{}-{n:08}", self.passes).into_bytes()).collect()
    }

    fn delete(&self, keys: &[Vec<u8>]) -> Result<()> {
        for keys in keys.chunks(limits::BATCH_ITEMS_MAX as usize) {
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            self.runtime.block_on(self.client.delete(&keys))?;
        }
        Ok(())
    }

    fn timed(&self, case: &Case, act: Act, keys: &[Vec<u8>]) -> Result<Sample> {
        let bytes = (case.count * case.value_bytes) as u64;
        let servers = || self.server.process.cpu_seconds();
        Sample::of(bytes, servers, || {
            self.runtime.block_on(run(&self.client, case, act, keys, &self.contents))
        })
    }
}

impl Peer for MemKv {
    fn name(&self) -> &'static str {
        self.name
    }

    fn prepare(&mut self, case: &Case) -> Result<()> {
        let kept = std::mem::take(&mut self.kept);
        self.delete(&kept)?;
        self.contents.clear();
        for bytes in contents(case) {
            let mut buffer = self.runtime.block_on(self.client.buffer(case.value_bytes))?;
            buffer.copy_from_slice(&bytes);
            self.contents.push(buffer.freeze());
        }
        self.kept = self.keys(case.count);
        self.timed(case, Act::Write, &self.kept)?;
        self.timed(case, Act::Read, &self.kept)?;
        Ok(())
    }

    fn pass(&mut self, case: &Case, act: Act) -> Result<Sample> {
        if act == Act::Read {
            return self.timed(case, act, &self.kept);
        }
        let keys = self.keys(case.count);
        let sample = self.timed(case, act, &keys)?;
        self.delete(&keys)?;
        Ok(sample)
    }
}

async fn run(client: &Client, case: &Case, act: Act, keys: &[Vec<u8>], contents: &[Buf]) -> Result<()> {
    let depth = case.in_flight / case.batch;
    let mut running: JoinSet<Result<()>> = JoinSet::new();
    for (n, keys) in keys.chunks(case.batch).enumerate() {
        if running.len() == depth
            && let Some(ended) = running.join_next().await
        {
            ended??;
        }
        let (client, keys, size) = (client.clone(), keys.to_vec(), case.value_bytes as u64);
        match act {
            Act::Read => running.spawn(async move { read(&client, &keys, size).await }),
            Act::Write => {
                let value = |place: usize| contents[(n * case.batch + place) % contents.len()].clone();
                let values: Vec<Buf> = (0..keys.len()).map(value).collect();
                running.spawn(async move { write(&client, &keys, &values).await })
            }
        };
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

async fn write(client: &Client, keys: &[Vec<u8>], values: &[Buf]) -> Result<()> {
    if let ([key], [value]) = (keys, values) {
        return Ok(client.put(key, std::slice::from_ref(value)).await?);
    }
    let items = keys.iter().zip(values).map(|(key, value)| PutItem::new(key, std::slice::from_ref(value)));
    let items: Vec<_> = items.collect();
    Ok(client.put_many(&items).await?.into_iter().collect::<Result<(), _>>()?)
}

async fn read(client: &Client, keys: &[Vec<u8>], size: u64) -> Result<()> {
    if let [key] = keys {
        let value = client.get(key).await?.context("a value is gone")?;
        ensure!(value.size_bytes() == size, "a value has another length");
        return Ok(());
    }
    let asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    for value in client.get_many_expecting(&asked, &vec![size; asked.len()]).await? {
        value?.context("a value is gone")?;
    }
    Ok(())
}
