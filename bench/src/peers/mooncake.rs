//! Mooncake Store over TCP, through its own Python binding: a master, a process with the memory, a process that moves values.
//!
//! It is there if a Python that has it is given (`--python`): PyPI mooncake-transfer-engine-non-cuda and numpy.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::case::{Act, Case, Peer, Sample};
use super::process::{Process, connect, free_port};

const DRIVER: &str = include_str!("store_driver.py");

pub struct Mooncake {
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
    kept: Option<Case>,
    // Ended in this order: who uses a thing before the thing.
    _client: Process,
    server: Process,
    master: Process,
    _directory: tempfile::TempDir,
}

impl Mooncake {
    pub fn start(python: &Path) -> Result<Mooncake> {
        let directory = tempfile::tempdir()?;
        let driver = directory.path().join("store_driver.py");
        std::fs::write(&driver, DRIVER)?;
        let port = free_port()?;
        let mut master = Command::new(python.with_file_name("mooncake_master"));
        master.arg(format!("--rpc_port={port}")).arg(format!("--metrics_port={}", free_port()?));
        master.current_dir(&directory);
        let master = Process::quiet(&mut master)?;
        drop(connect(port)?);
        let spawn = |role: &str| {
            let mut command = Command::new(python);
            command.arg(&driver).arg(role).arg(format!("127.0.0.1:{}", free_port()?));
            command
                .arg(format!("127.0.0.1:{port}"))
                .env("MC_TCP_ENABLE_CONNECTION_POOL", "1")
                .env("MC_LOG_LEVEL", "ERROR");
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .current_dir(&directory);
            let mut process = Process::spawn(&mut command)?;
            let mut lines = BufReader::new(process.child().stdout.take().context("no output")?);
            let mut line = String::new();
            while line.trim() != "ready" {
                line.clear();
                ensure!(lines.read_line(&mut line)? > 0, "Mooncake's {role} did not start");
            }
            anyhow::Ok((process, lines))
        };
        let (server, _) = spawn("server")?;
        let (mut client, answers) = spawn("client")?;
        let asked = client.child().stdin.take().context("no input")?;
        Ok(Mooncake { asked, answers, kept: None, _client: client, server, master, _directory: directory })
    }

    /// Seconds it took, and seconds the client computed.
    fn ask(&mut self, act: &str, case: &Case) -> Result<(f64, f64)> {
        let (size, depth) = (case.value_bytes, case.in_flight / case.batch);
        writeln!(self.asked, "{act} {size} {} {depth} {}", case.count, case.batch)?;
        // It logs on its standard output, too.
        loop {
            let mut line = String::new();
            ensure!(self.answers.read_line(&mut line)? > 0, "Mooncake's client ended");
            ensure!(!line.starts_with("error"), "Mooncake: {}", line.trim());
            let mut numbers = line.split_whitespace().map(str::parse);
            if let (Some(Ok(seconds)), Some(Ok(computed)), None) =
                (numbers.next(), numbers.next(), numbers.next())
            {
                return Ok((seconds, computed));
            }
        }
    }

    /// A key is written once there, too.
    fn clear(&mut self, next: &Case) -> Result<()> {
        if let Some(kept) = self.kept.replace(*next) {
            self.ask("clear", &kept)?;
        }
        Ok(())
    }

    fn servers(&self) -> f64 {
        self.server.cpu_seconds() + self.master.cpu_seconds()
    }
}

impl Peer for Mooncake {
    fn name(&self) -> &'static str {
        "Mooncake"
    }

    fn prepare(&mut self, case: &Case) -> Result<()> {
        self.clear(case)?;
        self.ask("put", case).map(drop)
    }

    fn pass(&mut self, case: &Case, act: Act) -> Result<Sample> {
        if act == Act::Write {
            self.clear(case)?;
        }
        let servers = self.servers();
        let name = if act == Act::Write { "put" } else { "get" };
        let (seconds, computed) = self.ask(name, case)?;
        let cpu_seconds = computed + self.servers() - servers;
        Ok(Sample { bytes: (case.count * case.value_bytes) as u64, seconds, cpu_seconds })
    }
}
