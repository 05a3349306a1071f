//! MemKV itself: a server of the built program, and the async client on a thread of its own, as the plugin has it; as many of these as the
//! peers' clients have threads.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use memkv_client::{Buf, Client, Config, PutItem, Transport};
use memkv_wire::limits;
use memkv_wire::mac::Key;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::case::{Act, CONNECTIONS, Case, Peer, Sample, contents};
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
    lanes: Vec<Lane>,
    passes: u64,
}

/// A client and its thread's runtime, with its share of the values.
struct Lane {
    number: usize,
    client: Client,
    runtime: Runtime,
    contents: Vec<Buf>,
    /// Of the values that are there to be read.
    kept: Vec<Vec<u8>>,
}

impl MemKv {
    pub fn start(name: &'static str, program: &Path, transport: Transport) -> Result<MemKv> {
        MemKv::with(name, program, |server| server.config(transport))
    }

    pub fn with(
        name: &'static str,
        program: &Path,
        config: impl Fn(&Server) -> Result<Config>,
    ) -> Result<MemKv> {
        let server = Server::start(program)?;
        let lane = |number| Lane::connect(number, config(&server)?);
        let lanes = (0..CONNECTIONS).map(lane).collect::<Result<_>>()?;
        let mut started = MemKv { name, server, lanes, passes: 0 };
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

    /// Every value of the case once, each lane its share; those that are written get the keys of this pass.
    fn timed(&mut self, case: &Case, act: Act) -> Result<Sample> {
        let share = share_of(case);
        let bytes = (case.count * case.value_bytes) as u64;
        self.passes += u64::from(act == Act::Write);
        let (lanes, passes, process) = (&self.lanes, self.passes, &self.server.process);
        Sample::of(
            bytes,
            || process.cpu_seconds(),
            || {
                std::thread::scope(|scope| {
                    let start = |lane| scope.spawn(move || Lane::timed(lane, &share, act, passes));
                    let threads: Vec<_> = lanes.iter().map(start).collect();
                    threads.into_iter().try_for_each(|thread| match thread.join() {
                        Ok(ended) => ended,
                        Err(_) => bail!("a client's thread panicked"),
                    })
                })
            },
        )
    }
}

impl Lane {
    fn connect(number: usize, config: Config) -> Result<Lane> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(Client::connect(config))?;
        Ok(Lane { number, client, runtime, contents: Vec::new(), kept: Vec::new() })
    }

    /// Values are stored once and never change: every pass of writes has keys of its own.
    fn keys(&self, case: &Case, pass: u64) -> Vec<Vec<u8>> {
        (0..case.count).map(|n| format!("bench-{}-{pass}-{n:08}", self.number).into_bytes()).collect()
    }

    fn timed(&self, case: &Case, act: Act, pass: u64) -> Result<()> {
        let keys = if act == Act::Read { &self.kept } else { &self.keys(case, pass) };
        self.runtime.block_on(run(&self.client, case, act, keys, &self.contents))
    }

    fn delete(&self, keys: &[Vec<u8>]) -> Result<()> {
        for keys in keys.chunks(limits::BATCH_ITEMS_MAX as usize) {
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            self.runtime.block_on(self.client.delete(&keys))?;
        }
        Ok(())
    }

    fn fill(&mut self, case: &Case) -> Result<()> {
        self.contents.clear();
        for bytes in contents(case) {
            let mut buffer = self.runtime.block_on(self.client.buffer(case.value_bytes))?;
            buffer.copy_from_slice(&bytes);
            self.contents.push(buffer.freeze());
        }
        Ok(())
    }
}

impl Peer for MemKv {
    fn name(&self) -> &'static str {
        self.name
    }

    fn prepare(&mut self, case: &Case) -> Result<()> {
        for lane in &mut self.lanes {
            let kept = std::mem::take(&mut lane.kept);
            lane.delete(&kept)?;
            lane.fill(case)?;
        }
        self.timed(case, Act::Write)?;
        let share = share_of(case);
        for lane in &mut self.lanes {
            lane.kept = lane.keys(&share, self.passes);
        }
        self.timed(case, Act::Read)?;
        Ok(())
    }

    fn pass(&mut self, case: &Case, act: Act) -> Result<Sample> {
        let sample = self.timed(case, act)?;
        if act == Act::Write {
            let share = share_of(case);
            let passes = self.passes;
            self.lanes.iter().try_for_each(|lane| lane.delete(&lane.keys(&share, passes)))?;
        }
        Ok(sample)
    }
}

/// Each lane's part of a case.
fn share_of(case: &Case) -> Case {
    Case { in_flight: case.in_flight / CONNECTIONS, count: case.count / CONNECTIONS, ..*case }
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
