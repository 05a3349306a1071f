//! A trace of an inference service, replayed: each request asks for the blocks of its prompt, and stores those that missed.
//!
//! A trace is JSON, an object a line, with a list `hash_ids`: one id for each block of the prompt, equal ids for equal blocks
//! after equal prefixes. When requests came is not kept to: as many are under way as `--depth` says. A block's bytes
//! are not in the trace; every block is as long as `--value-size` says.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use memkv_client::{Buf, Client, PutItem};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::output::progress;
use crate::server::{Mode, Target};
use crate::size::Size;
use crate::values::{Latency, Wire, histogram};
use crate::{cpu, noise, report};

#[derive(Args, Debug)]
pub struct Options {
    /// The trace, such as conversation_trace.jsonl that was released with Mooncake.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    target: Target,
    /// The length of every block.
    #[arg(long, default_value = "64KiB")]
    value_size: Size,
    /// Replay only so many requests.
    #[arg(long, value_name = "REQUESTS")]
    limit: Option<usize>,
    /// The share of the requests that goes before those that count, in percent: it fills the store.
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=90))]
    warm_up: u8,
    /// Requests under way at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    depth: u16,
    /// How the server is reached.
    #[arg(long, value_enum, default_value_t = Wire::Local)]
    transport: Wire,
    /// Print JSON instead of lines.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Request {
    hash_ids: Vec<u64>,
}

/// What came of a trace.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub transport: Wire,
    pub value_size_bytes: Size,
    /// Those that were not counted, and those that were.
    pub requests_warm_up: usize,
    pub requests: usize,
    pub blocks: u64,
    pub hits: u64,
    pub misses: u64,
    pub hit_rate: f64,
    /// What a store without bounds would reach.
    pub hit_rate_max: f64,
    pub seconds: f64,
    pub blocks_per_s: f64,
    pub read_gb_per_s: f64,
    pub written_gb_per_s: f64,
    pub request_latency_us: Latency,
    pub client_cpu_s_per_gb: f64,
    pub server_cpu_s_per_gb: Option<f64>,
}

pub fn run(options: &Options) -> Result<()> {
    ensure!((1..=1 << 20).contains(&options.value_size.0), "--value-size: a block has 1 byte to 1 MiB");
    let requests = read(&options.file, options.limit)?;
    ensure!(!requests.is_empty(), "{} holds no request", options.file.display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let figures = runtime.block_on(replay(options, &requests))?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&figures)?);
    } else {
        print!("{}", report::trace(&figures));
    }
    Ok(())
}

fn read(file: &Path, limit: Option<usize>) -> Result<Vec<Request>> {
    let opened = std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let lines = BufReader::new(opened).lines().enumerate().take(limit.unwrap_or(usize::MAX));
    lines
        .map(|(number, line)| {
            let request = line.map_err(anyhow::Error::from).and_then(|line| Ok(serde_json::from_str(&line)?));
            request.with_context(|| format!("{}, line {}", file.display(), number + 1))
        })
        .collect()
}

/// Requests have this many blocks at most in one message each way.
const BLOCKS_SIZE_BYTES: u64 = 16 << 20;

async fn replay(options: &Options, requests: &[Request]) -> Result<Figures> {
    let transport = options.transport.transport();
    let server = options.target.server(Mode::Memory, &[transport])?;
    let client = server.connect(transport, None).await?;
    let mut value = client.buffer(options.value_size.0 as usize).await?;
    noise::fill(&mut value, 1);
    let player = Arc::new(Player {
        client,
        value: value.freeze(),
        // Nothing that an earlier run left behind is a hit.
        run: getrandom::u64()?,
        group: (BLOCKS_SIZE_BYTES / options.value_size.0 / u64::from(options.depth)).max(1) as usize,
    });
    let bar = progress(requests.len());
    let (before, counted) = requests.split_at(requests.len() * usize::from(options.warm_up) / 100);
    play_all(&player, before, options.depth, |_| bar.inc(1)).await?;
    let (own, servers, began) = (cpu::own(), server.cpu_seconds(), Instant::now());
    let (mut hits, mut latencies) = (0, histogram()?);
    let count = |ended: Played| {
        hits += ended.hits;
        latencies.saturating_record(ended.nanoseconds);
        bar.inc(1);
    };
    play_all(&player, counted, options.depth, count).await?;
    let seconds = began.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let (blocks, first) = blocks_of(before, counted);
    let gigabytes = |blocks: u64| (blocks * options.value_size.0) as f64 / 1e9;
    let servers = servers.zip(server.cpu_seconds()).map(|(before, after)| after - before);
    Ok(Figures {
        transport: options.transport,
        value_size_bytes: options.value_size,
        requests_warm_up: before.len(),
        requests: counted.len(),
        blocks,
        hits,
        misses: blocks - hits,
        hit_rate: hits as f64 / blocks.max(1) as f64,
        hit_rate_max: (blocks - first) as f64 / blocks.max(1) as f64,
        seconds,
        blocks_per_s: blocks as f64 / seconds,
        read_gb_per_s: gigabytes(hits) / seconds,
        written_gb_per_s: gigabytes(blocks - hits) / seconds,
        request_latency_us: Latency::of(&latencies),
        client_cpu_s_per_gb: (cpu::own() - own) / gigabytes(blocks.max(1)),
        server_cpu_s_per_gb: servers.map(|seconds| seconds / gigabytes(blocks.max(1))),
    })
}

/// Replays requests, so many at once.
async fn play_all(
    player: &Arc<Player>,
    requests: &[Request],
    depth: u16,
    mut ended: impl FnMut(Played),
) -> Result<()> {
    let mut running: JoinSet<Result<Played>> = JoinSet::new();
    for request in requests {
        if running.len() == usize::from(depth)
            && let Some(played) = running.join_next().await
        {
            ended(played??);
        }
        let (player, hashes) = (player.clone(), request.hash_ids.clone());
        running.spawn(async move { player.play(&hashes).await });
    }
    while let Some(played) = running.join_next().await {
        ended(played??);
    }
    Ok(())
}

/// The blocks of the requests that count, and how many of them come for the first time.
fn blocks_of(before: &[Request], counted: &[Request]) -> (u64, u64) {
    let mut seen: HashSet<u64> = before.iter().flat_map(|request| &request.hash_ids).copied().collect();
    let counted = || counted.iter().flat_map(|request| &request.hash_ids);
    (counted().count() as u64, counted().filter(|hash| seen.insert(**hash)).count() as u64)
}

struct Player {
    client: Client,
    value: Buf,
    run: u64,
    /// Blocks that are asked for at once.
    group: usize,
}

struct Played {
    hits: u64,
    nanoseconds: u64,
}

impl Player {
    async fn play(&self, hashes: &[u64]) -> Result<Played> {
        let began = Instant::now();
        let mut hits = 0;
        for hashes in hashes.chunks(self.group) {
            let keys: Vec<Vec<u8>> =
                hashes.iter().map(|hash| format!("trace {:016x} {hash}", self.run).into_bytes()).collect();
            let asked: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let lengths = vec![self.value.len() as u64; asked.len()];
            let mut missed = Vec::new();
            for (key, value) in asked.iter().zip(self.client.get_many_expecting(&asked, &lengths).await?) {
                match value? {
                    Some(_) => hits += 1,
                    None => missed.push(PutItem::new(key, std::slice::from_ref(&self.value))),
                }
            }
            if !missed.is_empty() {
                self.client.put_many(&missed).await?.into_iter().collect::<Result<(), _>>()?;
            }
        }
        Ok(Played { hits, nanoseconds: began.elapsed().as_nanos() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_request_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trace");
        std::fs::write(&file, "{\"timestamp\": 0, \"hash_ids\": [1, 2]}\n{\"hash_ids\": \"x\"}\n").unwrap();
        assert_eq!(read(&file, Some(1)).unwrap()[0].hash_ids, [1, 2]);
        let Err(error) = read(&file, None) else { panic!("it was taken") };
        assert!(error.to_string().contains("line 2"), "{error}");
    }
    #[test]
    fn what_was_asked_for_while_warming_up_can_be_a_hit() {
        let requests = [vec![1, 2], vec![2, 3, 1], vec![4, 3]].map(|hash_ids| Request { hash_ids });
        assert_eq!(blocks_of(&[], &requests), (7, 4));
        assert_eq!(blocks_of(&requests[..1], &requests[1..]), (5, 2));
        assert_eq!(blocks_of(&requests, &[]), (0, 0));
    }
}
