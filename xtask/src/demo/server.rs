//! A server in a process of its own, for as long as a demo lasts.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const STOP_TIME_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// Ended when dropped, whatever happened.
pub struct Server {
    child: Child,
    pub address: String,
    /// What the server printed for consumers.
    pub key: String,
}

impl Server {
    /// Starts one on a free port and waits until it serves.
    pub fn start(program: &Path, data: &Path) -> Result<Server> {
        let mut command = Command::new(program);
        command.args(["start", "--listen", "127.0.0.1:0", "--data"]).arg(data);
        // A key of its own, printed on stdout; no log but what goes wrong.
        command.env_remove("MEMKV_AUTH_KEY").env("RUST_LOG", "warn");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        let stdout = child.stdout.take();
        let mut server = Server { child, address: String::new(), key: String::new() };
        let lines = BufReader::new(stdout.context("the server has no stdout")?).lines();
        for line in lines {
            let line = line?;
            if let Some(address) = line.strip_prefix("listening on ") {
                server.address = address.to_owned();
            } else if let Some(key) = line.strip_prefix("export MEMKV_AUTH_KEY=") {
                server.key = key.to_owned();
            }
            if !server.address.is_empty() && !server.key.is_empty() {
                return Ok(server);
            }
        }
        bail!("the server ended before it served: {}", server.child.wait()?)
    }

    /// Asks it to end as an operator would, and expects that it ends well.
    pub fn stop(mut self) -> Result<()> {
        let status =
            Command::new("kill").arg(self.child.id().to_string()).status().context("cannot run kill")?;
        if !status.success() {
            bail!("kill: {status}");
        }
        let deadline = Instant::now() + STOP_TIME_MAX;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("the server ended with {status}");
            }
            std::thread::sleep(POLL);
        }
        bail!("the server did not end in {} s", STOP_TIME_MAX.as_secs())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; there is nobody to tell otherwise.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
