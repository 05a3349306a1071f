//! Round trips between two processes, as a client and a server are: this program runs itself as the other end.
//!
//! The other end tells over its standard output how it is reached, and is told over its standard input.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use memkv_transport::rdma::Device;
use memkv_transport::session::QueuePairIdentity;
use tokio::net::TcpListener;

use crate::bare::{self, Sizes};
use crate::table::{ROUNDS, microseconds};
use crate::{Failure, own};

/// What the other end of a round trip is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherEnd {
    /// Verbs alone: a thread that waits for events in the kernel.
    Verbs,
    Frames,
}

impl OtherEnd {
    fn name(self) -> &'static str {
        match self {
            OtherEnd::Verbs => "verbs",
            OtherEnd::Frames => "frames",
        }
    }

    pub fn named(name: &str) -> Option<OtherEnd> {
        [OtherEnd::Verbs, OtherEnd::Frames].into_iter().find(|end| end.name() == name)
    }

    /// Answers as often as it is asked.
    pub async fn run(self, device: &Arc<Device>) -> Result<(), Failure> {
        match self {
            OtherEnd::Verbs => {
                let mut side = bare::connected(device, |own| {
                    tell(&mut std::io::stdout(), &own)?;
                    told(&mut std::io::stdin().lock())
                })?;
                println!("ready");
                bare::answer(&mut side, ROUNDS, own::frame_sizes()?)?;
                no_more()
            }
            OtherEnd::Frames => {
                let listener = TcpListener::bind("127.0.0.1:0").await?;
                println!("{}", listener.local_addr()?);
                let mut end = own::accepted(device, &listener).await?;
                tokio::spawn(async move {
                    own::answer(&mut end, ROUNDS).await?;
                    no_more()
                })
                .await?
            }
        }
    }
}

/// A process that is the other end.
struct Apart {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Apart {
    fn start(end: OtherEnd) -> Result<Apart, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--other-end", end.name()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Apart { child, output })
    }

    fn says(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    fn ended(&mut self) -> Result<(), Failure> {
        // This closes its input.
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the other end failed: {status}").into()) }
    }
}

/// Nobody is left waiting for a device when a measurement fails.
impl Drop for Apart {
    fn drop(&mut self) {
        // It fails where the process is gone, as it should be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until whoever asked has every answer: with its process a queue pair goes, and what was not sent.
fn no_more() -> Result<(), Failure> {
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn tell(to: &mut impl Write, identity: &QueuePairIdentity) -> Result<(), Failure> {
    let QueuePairIdentity { number, packet_sequence, gid, path_mtu_bytes, receive_credits, reads_max } =
        identity;
    let told = (number, packet_sequence, gid, path_mtu_bytes, receive_credits, reads_max);
    writeln!(to, "{}", serde_json::to_string(&told)?)?;
    Ok(to.flush()?)
}

fn told(from: &mut impl BufRead) -> Result<QueuePairIdentity, Failure> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let (number, packet_sequence, gid, path_mtu_bytes, receive_credits, reads_max) =
        serde_json::from_str(&line)?;
    Ok(QueuePairIdentity { number, packet_sequence, gid, path_mtu_bytes, receive_credits, reads_max })
}

/// Microseconds of a round trip to another process, each of which waits for its events in the kernel.
pub fn round_trip_of_verbs(device: &Arc<Device>, sizes: Sizes) -> Result<f64, Failure> {
    let mut apart = Apart::start(OtherEnd::Verbs)?;
    let mut side = bare::connected(device, |own| {
        let peer = told(&mut apart.output)?;
        tell(apart.child.stdin.as_mut().ok_or("no input")?, &own)?;
        Ok(peer)
    })?;
    apart.says()?;
    let begun = Instant::now();
    bare::ask(&mut side, ROUNDS, sizes)?;
    let elapsed = begun.elapsed();
    apart.ended()?;
    Ok(microseconds(elapsed))
}

/// Microseconds.
pub async fn round_trip_of_frames(device: &Arc<Device>) -> Result<f64, Failure> {
    let mut apart = Apart::start(OtherEnd::Frames)?;
    let address = apart.says()?.trim().parse()?;
    let elapsed = own::asked(own::connected(device, address).await?).await?;
    apart.ended()?;
    Ok(elapsed)
}
