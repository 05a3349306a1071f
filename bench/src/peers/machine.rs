//! What a page with figures has to say beside them: the machine, the versions, the command.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use super::process::first_line;
use crate::report::{self, Line};

/// What stands behind this line is written by people, and stays.
const NOTES: &str = "## Notes";

fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Runnable threads of everyone, averaged over the last 1, 5 and 15 minutes. On a machine with a load of its own, who has more
/// threads gets more of it: rates are then no measure, processor time still is.
pub fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(", ")
}

fn machine() -> String {
    let unknown = || "unknown".to_owned();
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(unknown);
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    let memory_kib: u64 = field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    let system = rustix::system::uname();
    format!(
        "{processor}, {count} cores, {} GiB, {} {}",
        memory_kib >> 20,
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy()
    )
}

fn versions(python: Option<&Path>) -> Vec<String> {
    let mut all = vec![concat!("MemKV ", env!("CARGO_PKG_VERSION")).to_owned()];
    for (program, arguments) in
        [("redis-server", ["--version"]), ("memcached", ["--version"]), ("iperf3", ["--version"])]
    {
        all.extend(first_line(program, &arguments));
    }
    let script = "from importlib.metadata import version; print('Mooncake', version('mooncake-transfer-engine-non-cuda'))";
    all.extend(python.and_then(|python| first_line(&python.display().to_string(), &["-c", script])));
    all
}

/// How the figures came about.
pub struct Run<'a> {
    pub command: String,
    /// How those beside it were started.
    pub peers: Vec<String>,
    /// Before anything was measured.
    pub load: String,
    pub python: Option<&'a Path>,
}

/// Writes the page, and keeps its notes.
pub fn write_page(path: &Path, lines: &[Line], run: &Run<'_>) -> Result<()> {
    let notes = std::fs::read_to_string(path).unwrap_or_default();
    let notes = notes.find(NOTES).map_or(NOTES, |at| &notes[at..]);
    let missed = lines.iter().filter(|line| !line.met()).count();
    let goals = lines.iter().filter(|line| line.goal.is_some()).count();
    let mut page = String::from("# Benchmarks\n\n");
    writeln!(
        page,
        "Written by `{}`; only what stands under Notes is not. Client, server and peers share one machine, and",
        run.command
    )?;
    page.push_str(
        "machines are noisy: what is compared ran in turn, round after round, and the figure is the median of the rounds' ratios.\n\
         Absolute rates are medians, too, in 10^9 bytes a second, and good for nothing but this run.\n\n",
    );
    writeln!(page, "- Machine: {}", machine())?;
    writeln!(page, "- Load when it began, besides the bench: {}", run.load)?;
    writeln!(page, "- Versions: {}", versions(run.python).join("; "))?;
    if !run.peers.is_empty() {
        writeln!(page, "- Peers: `{}`", run.peers.join("`; `"))?;
    }
    writeln!(page, "- Goals met: {} of {goals}\n", goals - missed)?;
    page.push_str(WHAT);
    page.push_str(&report::table(lines));
    page.push('\n');
    page.push_str(notes.trim_end());
    page.push('\n');
    std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))
}

const WHAT: &str = "\
MemKV authenticates every byte (AEGIS-128X4, AEGIS-128X2 or HMAC-SHA256) and checks every value (XXH3-128) at both ends; redis, memcached and Mooncake do
neither. Two threads each have an async client of their own, with the connections it has by default; redis, memcached and the bare loop have
pipelined blocking sockets, a thread for each of two, Mooncake its own Python binding with registered buffers. Values are noise. The
bare loop is the yardstick: same sizes and depth over plain sockets, with the same MAC and checksum and nothing else; the bare
copy is the same through memory, without a MAC.

";
