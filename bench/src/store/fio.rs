//! fio, as the limit: io_uring, O_DIRECT, with its buffers and file registered.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// GB/s.
pub fn run(file: &Path, rw: &str, block_bytes: usize, depth: usize, total: u64) -> Result<f64> {
    let output = Command::new("fio")
        .args(["--name=limit", "--ioengine=io_uring", "--direct=1", "--fixedbufs=1", "--registerfiles=1"])
        .args(["--output-format=json", "--overwrite=1"])
        // Its writes are durable at the end, as ours are.
        .arg("--end_fsync=1")
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--rw={rw}"))
        .arg(format!("--bs={block_bytes}"))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--size={total}"))
        .output()
        .context(
            "fio cannot be run; it is the limit that the store is compared to (Debian: apt-get install fio)",
        )?;
    ensure!(output.status.success(), "fio failed: {}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).context("fio's report")?;
    let side = if rw.ends_with("read") { "read" } else { "write" };
    let rate = report["jobs"][0][side]["bw_bytes"].as_f64().context("fio's report has a bandwidth")?;
    Ok(rate / 1e9)
}
