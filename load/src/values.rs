//! Values of several sizes, written and read, one by one and in batches: rates, latencies, processor time.
//!
//! A value is stored once and never changes, so every pass of writes makes new keys, and deletes them afterwards, untimed.
//! Reads go over the values of a last pass. The first pass of everything is not counted, and the memory of a server of our own is
//! written once before anything is: steady state is measured, not page faults.
//! Latency is that of one operation as its caller sees it, with `--depth` of them under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use memkv_client::{Buf, Client, PutItem, Transport};
use memkv_wire::limits;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::output::{Output, progress};
use crate::server::{Mode, Server, Target};
use crate::size::Size;
use crate::{chart, cpu, noise, report};

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// Sizes of values.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "SIZE,..",
        default_value = "4KiB,16KiB,64KiB,256KiB,1MiB,4MiB,16MiB"
    )]
    sizes: Vec<Size>,
    /// What is done.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "OPERATION,..",
        default_value = "write,read,batch-write,batch-read"
    )]
    operations: Vec<Operation>,
    /// How the server is reached. `local` needs one on this host, `rdma` a device on either side.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "TRANSPORT,..", default_value = "tcp,local")]
    transports: Vec<Wire>,
    /// Connections of the client; one measurement for each number [default: the client's own default].
    #[arg(long, value_delimiter = ',', value_name = "N,..", value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: Vec<u16>,
    /// Operations under way at once. Fewer where they would hold more than 64 MiB.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: u32,
    /// Values of a batched operation. Fewer where they would have more than 8 MiB.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Seconds for each figure.
    #[arg(long, default_value_t = 2.0, value_parser = positive)]
    seconds: f64,
    /// Bytes of the values of one size; they are written and read over and over.
    #[arg(long, default_value = "128MiB")]
    working_set: Size,
    /// Threads of the client.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    #[command(flatten)]
    output: Output,
}

/// A number of seconds over 0 and up to a day.
pub fn positive(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    let fits = seconds > 0.0 && seconds <= 86_400.0;
    if fits { Ok(seconds) } else { Err("give seconds, more than 0 and at most 86400".to_owned()) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    Write,
    Read,
    BatchWrite,
    BatchRead,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Operation::Write => "write",
            Operation::Read => "read",
            Operation::BatchWrite => "batch-write",
            Operation::BatchRead => "batch-read",
        }
    }

    fn batched(self) -> bool {
        matches!(self, Operation::BatchWrite | Operation::BatchRead)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wire {
    Tcp,
    Local,
    #[cfg(target_os = "linux")]
    Rdma,
}

impl Wire {
    pub fn name(self) -> &'static str {
        match self {
            Wire::Tcp => "tcp",
            Wire::Local => "local",
            #[cfg(target_os = "linux")]
            Wire::Rdma => "rdma",
        }
    }

    pub fn transport(self) -> Transport {
        match self {
            Wire::Tcp => Transport::Tcp,
            Wire::Local => Transport::Local,
            #[cfg(target_os = "linux")]
            Wire::Rdma => Transport::Rdma,
        }
    }
}

/// One line of the result.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub transport: Wire,
    pub connections: u16,
    pub operation: Operation,
    pub value_size_bytes: Size,
    pub values_per_operation: usize,
    pub depth: usize,
    pub operations: u64,
    pub seconds: f64,
    pub gb_per_s: f64,
    pub operations_per_s: f64,
    pub latency_us: Latency,
    pub client_cpu_s_per_gb: f64,
    /// Of a server on another host it is not known.
    pub server_cpu_s_per_gb: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latency {
    /// Of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e3,
        }
    }
}

pub fn run(options: &Options) -> Result<()> {
    for Size(size) in &options.sizes {
        let fits = (1..=limits::VALUE_SIZE_BYTES_MAX.min(16 << 20)).contains(size);
        ensure!(fits, "--sizes: values of 1 byte to 16 MiB are measured, not {}", Size(*size));
    }
    let runtime = match options.threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        threads => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(usize::from(threads)).enable_all().build()?
        }
    };
    // A task like the operations: what they wake is polled when they are done, without a turn of this thread or a look at the runtime's files for each.
    let measuring = runtime.spawn(measure(options.clone()));
    let figures = runtime.block_on(measuring)??;
    if let Some(path) = &options.output.svg {
        chart::values(path, &figures).with_context(|| format!("cannot draw {}", path.display()))?;
    }
    if options.output.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print!("{}", report::values(&figures));
    }
    Ok(())
}

async fn measure(options: Options) -> Result<Vec<Figure>> {
    let options = &options;
    let transports: Vec<_> = options.transports.iter().map(|wire| wire.transport()).collect();
    let server = options.target.server(Mode::Memory, &transports)?;
    let counts: Vec<Option<u16>> = match options.connections.as_slice() {
        [] => vec![None],
        counts => counts.iter().copied().map(Some).collect(),
    };
    let runs = options.transports.len() * counts.len() * options.sizes.len();
    let bar = progress(runs * options.operations.len());
    let mut figures = Vec::new();
    for &wire in &options.transports {
        for &connections in &counts {
            let client = server.connect(wire.transport(), connections).await;
            let client = client.with_context(|| format!("no connection over {}", wire.name()))?;
            let connections = connections.unwrap_or(memkv_client::Settings::default().connections);
            if figures.is_empty() {
                touch(&server, &client).await?;
            }
            for &size in &options.sizes {
                let bench = Bench { client: &client, server: &server, options, wire, connections, size };
                for &operation in &options.operations {
                    bar.set_message(format!("{} {} {size}", wire.name(), operation.name()));
                    figures.push(bench.measure(operation).await?);
                    bar.inc(1);
                }
            }
        }
    }
    bar.finish_and_clear();
    Ok(figures)
}

/// Writes as much as the server holds, a part at a time.
async fn touch(server: &Server, client: &Client) -> Result<()> {
    const PART: Size = Size(32 << 20);
    const VALUE: Size = Size(1 << 20);
    let Some(memory) = server.fresh_memory() else { return Ok(()) };
    let mut value = client.buffer(VALUE.0 as usize).await?;
    noise::fill(&mut value, 1);
    let pass = Pass {
        contents: vec![value.freeze()],
        per_operation: 1,
        depth: 16,
        operations: PART.0 / VALUE.0,
        size_bytes: VALUE.0,
    };
    for _ in 0..memory.0 / PART.0 {
        let keys = Arc::new(pass.keys()?);
        pass.write(client, &keys).await?;
        pass.delete(client, &keys).await?;
    }
    Ok(())
}

/// One size over one client.
struct Bench<'a> {
    client: &'a Client,
    server: &'a Server,
    options: &'a Options,
    wire: Wire,
    connections: u16,
    size: Size,
}

/// Bytes of values that may be under way at once: what is received counts against the client's memory until it is dropped.
const UNDER_WAY_SIZE_BYTES_MAX: u64 = 64 << 20;
const BATCH_SIZE_BYTES_MAX: u64 = 8 << 20;
/// Different values; the same bytes go under many keys.
const CONTENTS_SIZE_BYTES: u64 = 16 << 20;
const VALUES_MAX: u64 = 1 << 15;

impl Bench<'_> {
    async fn measure(&self, operation: Operation) -> Result<Figure> {
        let size = self.size.0;
        let per_operation = match operation.batched() {
            true => u64::from(self.options.batch).min((BATCH_SIZE_BYTES_MAX / size).max(1)),
            false => 1,
        };
        let depth = u64::from(self.options.depth);
        let depth = depth.min((UNDER_WAY_SIZE_BYTES_MAX / (size * per_operation)).max(1));
        let operations = (self.options.working_set.0 / size).clamp(1, VALUES_MAX).div_ceil(per_operation);
        let pass = Pass {
            contents: self.contents().await?,
            per_operation: per_operation as usize,
            depth: depth as usize,
            operations: operations.max(depth),
            size_bytes: size,
        };
        let counted = match operation {
            Operation::Write | Operation::BatchWrite => self.writes(&pass).await?,
            Operation::Read | Operation::BatchRead => self.reads(&pass).await?,
        };
        let gigabytes = (counted.operations * per_operation * size) as f64 / 1e9;
        Ok(Figure {
            transport: self.wire,
            connections: self.connections,
            operation,
            value_size_bytes: self.size,
            values_per_operation: per_operation as usize,
            depth: depth as usize,
            operations: counted.operations,
            seconds: counted.seconds,
            gb_per_s: gigabytes / counted.seconds,
            operations_per_s: counted.operations as f64 / counted.seconds,
            latency_us: Latency::of(&counted.latencies),
            client_cpu_s_per_gb: counted.client_cpu_s / gigabytes,
            server_cpu_s_per_gb: counted.server_cpu_s.map(|seconds| seconds / gigabytes),
        })
    }

    async fn contents(&self) -> Result<Vec<Buf>> {
        let count = (CONTENTS_SIZE_BYTES / self.size.0).clamp(1, 64);
        let mut contents = Vec::new();
        for seed in 0..count {
            let mut buffer = self.client.buffer(self.size.0 as usize).await?;
            noise::fill(&mut buffer, seed ^ self.size.0);
            contents.push(buffer.freeze());
        }
        Ok(contents)
    }

    async fn writes(&self, pass: &Pass) -> Result<Counted> {
        let mut counted = Counted::new()?;
        let mut first = true;
        while first || counted.seconds < self.options.seconds {
            let keys = Arc::new(pass.keys()?);
            let this = self.timed(pass.write(self.client, &keys)).await?;
            pass.delete(self.client, &keys).await?;
            if !first {
                counted.add(&this)?;
            }
            first = false;
        }
        Ok(counted)
    }

    async fn reads(&self, pass: &Pass) -> Result<Counted> {
        let keys = Arc::new(pass.keys()?);
        pass.write(self.client, &keys).await?;
        pass.read(self.client, &keys).await?;
        let mut counted = Counted::new()?;
        while counted.seconds < self.options.seconds {
            counted.add(&self.timed(pass.read(self.client, &keys)).await?)?;
        }
        pass.delete(self.client, &keys).await?;
        Ok(counted)
    }

    /// A pass, with the time it took by the clock and by the processors.
    async fn timed(&self, pass: impl Future<Output = Result<Histogram<u64>>>) -> Result<Counted> {
        let (own, servers, began) = (cpu::own(), self.server.cpu_seconds(), Instant::now());
        let latencies = pass.await?;
        let seconds = began.elapsed().as_secs_f64();
        let servers = servers.zip(self.server.cpu_seconds()).map(|(before, after)| after - before);
        let client_cpu_s = cpu::own() - own;
        Ok(Counted { operations: latencies.len(), latencies, seconds, client_cpu_s, server_cpu_s: servers })
    }
}

struct Counted {
    operations: u64,
    latencies: Histogram<u64>,
    seconds: f64,
    client_cpu_s: f64,
    server_cpu_s: Option<f64>,
}

impl Counted {
    fn new() -> Result<Counted> {
        let latencies = histogram()?;
        Ok(Counted { operations: 0, latencies, seconds: 0.0, client_cpu_s: 0.0, server_cpu_s: Some(0.0) })
    }

    fn add(&mut self, other: &Counted) -> Result<()> {
        self.operations += other.operations;
        self.latencies.add(&other.latencies)?;
        self.seconds += other.seconds;
        self.client_cpu_s += other.client_cpu_s;
        self.server_cpu_s = self.server_cpu_s.zip(other.server_cpu_s).map(|(a, b)| a + b);
        Ok(())
    }
}

/// Of nanoseconds, to three digits.
pub fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, Duration::from_secs(3600).as_nanos() as u64, 3)?)
}

type Keys = Arc<Vec<Vec<u8>>>;

/// So many operations, so many at a time, each with so many values.
struct Pass {
    contents: Vec<Buf>,
    per_operation: usize,
    depth: usize,
    operations: u64,
    size_bytes: u64,
}

impl Pass {
    /// Keys that nobody used before.
    fn keys(&self) -> Result<Vec<Vec<u8>>> {
        let run = getrandom::u64()?;
        let count = self.operations * self.per_operation as u64;
        Ok((0..count).map(|n| format!("bench {run:016x} {n:08}").into_bytes()).collect())
    }

    async fn write(&self, client: &Client, keys: &Keys) -> Result<Histogram<u64>> {
        let per_operation = self.per_operation;
        self.each(|n| {
            let (client, keys) = (client.clone(), keys.clone());
            let values: Vec<Buf> = (0..per_operation)
                .map(|place| self.contents[(n * per_operation + place) % self.contents.len()].clone())
                .collect();
            async move {
                if let [value] = values.as_slice() {
                    return Ok(client.put(&keys[n], std::slice::from_ref(value)).await?);
                }
                let keys = &keys[n * per_operation..][..per_operation];
                let items = keys.iter().zip(&values);
                let items: Vec<_> =
                    items.map(|(key, value)| PutItem::new(key, std::slice::from_ref(value))).collect();
                client.put_many(&items).await?.into_iter().collect::<Result<(), _>>()?;
                Ok(())
            }
        })
        .await
    }

    async fn read(&self, client: &Client, keys: &Keys) -> Result<Histogram<u64>> {
        let (per_operation, size_bytes) = (self.per_operation, self.size_bytes);
        self.each(|n| {
            let (client, keys) = (client.clone(), keys.clone());
            async move {
                if per_operation == 1 {
                    let value =
                        client.get(&keys[n]).await?.context("a value is gone: is the server too small?")?;
                    ensure!(value.size_bytes() == size_bytes, "a value came back with another length");
                    return Ok(());
                }
                let keys = &keys[n * per_operation..][..per_operation];
                let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
                let lengths = vec![size_bytes; keys.len()];
                for value in client.get_many_expecting(&keys, &lengths).await? {
                    value?.context("a value is gone: is the server too small?")?;
                }
                Ok(())
            }
        })
        .await
    }

    async fn delete(&self, client: &Client, keys: &Keys) -> Result<()> {
        for keys in keys.chunks(limits::BATCH_ITEMS_MAX as usize) {
            let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            client.delete(&keys).await?;
        }
        Ok(())
    }

    /// Runs `act` for every operation of the pass.
    async fn each<F>(&self, act: impl Fn(usize) -> F) -> Result<Histogram<u64>>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let mut latencies = histogram()?;
        let mut running = JoinSet::new();
        for n in 0..self.operations as usize {
            if running.len() == self.depth
                && let Some(ended) = running.join_next().await
            {
                latencies.saturating_record(ended??);
            }
            let operation = act(n);
            running.spawn(async move {
                let began = Instant::now();
                operation.await.map(|()| began.elapsed().as_nanos() as u64)
            });
        }
        while let Some(ended) = running.join_next().await {
            latencies.saturating_record(ended??);
        }
        Ok(latencies)
    }
}
