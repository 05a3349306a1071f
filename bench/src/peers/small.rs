//! Round trips and connections: how long a small request takes, what an idle connection costs, what many busy ones do.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use memkv_client::{Buf, BufMut, Client, Transport};

use super::case::noise;
use super::memkv::Server;
use super::process::{Process, connect, free_port};
use crate::report::{Goal, Line, median};

const KEYS: usize = 96;
const ROUND_TRIPS: usize = 2000;
const IDLE: usize = 1000;
/// A client has at most so many connections.
const CLIENT_CONNECTIONS: u16 = 50;

fn quantile(times: &mut [f64], q: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * q) as usize]
}

/// `Exists` of 96 keys of 8 bytes beside a ping-pong of as many bytes each way, between two processes, in turn.
pub fn exists(program: &Path, rounds: usize) -> Result<Vec<Line>> {
    let server = Server::start(program)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = runtime.block_on(Client::connect(server.config(Transport::Tcp)?))?;
    let keys: Vec<[u8; 8]> =
        (0..KEYS as u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).collect();
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let value = [Buf::copy_of(&[1; 4096])?];
    for key in &keys {
        runtime.block_on(client.put(key, &value))?;
    }
    let before = client.counters();
    runtime.block_on(client.exists(&keys))?;
    let after = client.counters();
    let sizes = [after.sent_bytes - before.sent_bytes, after.received_bytes - before.received_bytes];
    let port = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("ping-server").args([port.to_string(), sizes[0].to_string(), sizes[1].to_string()]);
    let _pong = Process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
    let mut stream = connect(port)?;
    let (asked, mut answer) = (vec![7; sizes[0] as usize], vec![0; sizes[1] as usize]);
    let (mut middle, mut high) = (Vec::new(), Vec::new());
    for _ in 0..=rounds {
        let mut ours = Vec::with_capacity(ROUND_TRIPS);
        runtime.block_on(async {
            for _ in 0..ROUND_TRIPS {
                let began = Instant::now();
                client.exists(&keys).await?;
                ours.push(began.elapsed().as_secs_f64() * 1e6);
            }
            anyhow::Ok(())
        })?;
        let mut bare = Vec::with_capacity(ROUND_TRIPS);
        for _ in 0..ROUND_TRIPS {
            let began = Instant::now();
            stream.write_all(&asked)?;
            stream.read_exact(&mut answer)?;
            bare.push(began.elapsed().as_secs_f64() * 1e6);
        }
        middle.push((quantile(&mut ours, 0.5), quantile(&mut bare, 0.5)));
        high.push((quantile(&mut ours, 0.99), quantile(&mut bare, 0.99)));
    }
    let what = format!("Exists of {KEYS} keys ({} B, {} B)", sizes[0], sizes[1]);
    // The first round warmed up.
    Ok(vec![
        Line::ratio(format!("{what}, p50"), &middle[1..], "us", "bare ping-pong", Some(Goal::AtMost(2.0))),
        Line::ratio(format!("{what}, p99"), &high[1..], "us", "bare ping-pong", Some(Goal::AtMost(5.0))),
    ])
}

/// The other side of the ping-pong, a process of its own.
pub fn answer(port: u16, asked: usize, answered: usize) -> Result<()> {
    let (mut stream, _) = TcpListener::bind(("127.0.0.1", port))?.accept()?;
    stream.set_nodelay(true)?;
    let (mut asked, answered) = (vec![0; asked], vec![7; answered]);
    while stream.read_exact(&mut asked).is_ok() {
        stream.write_all(&answered)?;
    }
    Ok(())
}

async fn clients(server: &Server, connections: usize, each: u16) -> Result<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..connections / usize::from(each) {
        let mut config = server.config(Transport::Tcp)?;
        config.settings.connections = each;
        let client = Client::connect(config).await?;
        // The first read opens the connections for bulk.
        client.get(b"nothing").await?;
        clients.push(client);
    }
    let wanted = (connections / usize::from(each) * usize::from(each)) as u64;
    let began = Instant::now();
    loop {
        let open: u64 = clients.iter().map(|client| client.counters().connections).sum();
        if open >= wanted {
            return Ok(clients);
        }
        anyhow::ensure!(began.elapsed() < Duration::from_secs(30), "only {open} connections were opened");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Memory of the server for each of many connections that do nothing.
pub fn idle(program: &Path) -> Result<Line> {
    let server = Server::start(program)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let _first = clients(&server, usize::from(CLIENT_CONNECTIONS), CLIENT_CONNECTIONS).await?;
        let before = server.process.resident_bytes()?;
        let _idle = clients(&server, IDLE, CLIENT_CONNECTIONS).await?;
        let after = server.process.resident_bytes()?;
        let kib = (after.saturating_sub(before)) as f64 / IDLE as f64 / 1024.0;
        Ok(Line::plain(
            format!("{IDLE} idle connections, resident memory of the server for each"),
            kib,
            "KiB",
            Some(Goal::AtMost(64.0)),
        ))
    })
}

const ACTIVE: [(usize, u16); 2] = [(3, 3), (200, 4)];
const ACTIVE_BYTES: usize = 1 << 20;
const ACTIVE_KEYS: usize = 64;
const ACTIVE_SECONDS: f64 = 1.0;

/// Reads of 1 MiB through 200 connections beside those of one client.
pub fn active(program: &Path, rounds: usize) -> Result<Line> {
    let server = Server::start(program)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut sets = Vec::new();
        for (connections, each) in ACTIVE {
            sets.push(clients(&server, connections, each).await?);
        }
        let first = sets[0].first().context("no client")?;
        let mut buffer: BufMut = first.buffer(ACTIVE_BYTES).await?;
        noise(&mut buffer, 1);
        let value = [buffer.freeze()];
        for n in 0..ACTIVE_KEYS {
            first.put(format!("active {n}").as_bytes(), &value).await?;
        }
        let mut measured = Vec::new();
        for _ in 0..=rounds {
            let one = read_through(&sets[0], 16).await?;
            measured.push((read_through(&sets[1], 200).await?, one));
        }
        let what = "1 MiB reads through 200 connections (50 clients) beside one client's";
        Ok(Line::ratio(what, &measured[1..], "GB/s", "one client", Some(Goal::AtLeast(0.85))))
    })
}

async fn read_through(clients: &[Client], depth: usize) -> Result<f64> {
    let began = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for n in 0..depth {
        let client = clients[n % clients.len()].clone();
        running.spawn(async move {
            let (mut at, mut bytes) = (n, 0);
            while began.elapsed().as_secs_f64() < ACTIVE_SECONDS {
                let value = client.get(format!("active {}", at % ACTIVE_KEYS).as_bytes()).await?;
                bytes += value.context("a value is gone")?.size_bytes();
                at += 7;
            }
            anyhow::Ok(bytes)
        });
    }
    let mut bytes = 0;
    while let Some(ended) = running.join_next().await {
        bytes += ended??;
    }
    Ok(bytes as f64 / 1e9 / began.elapsed().as_secs_f64())
}

/// Sessions through the plugin, as `memkv bench session` measures them.
pub fn sessions(programs: &Path, rounds: usize) -> Result<Vec<Line>> {
    let mut command = Command::new(programs.join("memkv-bench"));
    command.args(["session", "--json", "--rounds", &(3 * rounds).to_string(), "--directory", "/var/tmp"]);
    let output = command.stderr(Stdio::inherit()).output().context("memkv-bench cannot be run")?;
    anyhow::ensure!(output.status.success(), "memkv-bench session failed");
    let figures: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)?;
    let line = |figure: &serde_json::Value| {
        let number = |name: &str| figure[name].as_f64().unwrap_or(f64::NAN);
        let step = figure["step"].as_str().unwrap_or_default();
        let (peer, goal) = match step {
            "cold save" => ("create, write, fdatasync", 1.5),
            "warm save" => ("create, write", 1.0 / 3.0),
            _ => ("read", 2.0),
        };
        Line {
            what: format!(
                "session of {} tokens, {:.2} MB: {step}",
                figure["tokens"],
                number("size_bytes") / 1e6
            ),
            ours: number("ms"),
            peer: Some(crate::report::Peer { name: peer, value: number("file_ms") }),
            unit: "ms",
            figure: number("factor"),
            goal: Some(Goal::AtMost(goal)),
        }
    };
    Ok(figures.iter().map(line).collect())
}

pub fn iperf_server(port: &str) -> Command {
    let mut command = Command::new("iperf3");
    command.args(["-s", "-1", "-B", "127.0.0.1", "-p", port]);
    command
}

pub fn iperf_client(port: &str) -> Command {
    let mut command = Command::new("iperf3");
    command.args(["-c", "127.0.0.1", "-p", port, "-P", "2", "-l", "1M", "-t", "1", "-J"]);
    command
}

/// The rate of iperf3 over as many connections, in GB/s: sockets alone, without looking at a byte.
pub fn iperf(rounds: usize) -> Result<f64> {
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let port = free_port()?.to_string();
        let _server = Process::quiet(&mut iperf_server(&port))?;
        std::thread::sleep(Duration::from_millis(300));
        let output = iperf_client(&port).output()?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let bits =
            report["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 did not measure")?;
        rates.push(bits / 8e9);
    }
    Ok(median(rates.into_iter()))
}
