//! A child process: how it is started, and what it does.
//!
//! The socket that is the child's standard input carries the ticket down and the verdict up. A case that returns also
//! ends with an exit code (0 passed, 1 failed, 89 skipped); a child that ends without a verdict, whatever its exit code,
//! failed. Everything the child or the library under test prints goes to one temporary file.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};

use crate::case::{Outcome, Stop};
use crate::ticket::{Errand, Target, Ticket};
use crate::{abi, wire_client, wire_server};

/// The hidden command line argument of a child.
pub const ARGUMENT: &str = "child";
/// A case that does not apply ends with this.
pub const EXIT_SKIPPED: u8 = 89;
/// A ticket or a verdict longer than this is not read.
const LINE_SIZE_BYTES_MAX: u64 = 1024 * 1024;
/// How much of what a failed child wrote goes into the report.
const OUTPUT_SIZE_BYTES_MAX: i64 = 4096;
const POLL: Duration = Duration::from_millis(5);

// ---------------------------------------------------------------- the parent's side

/// A child that was started.
pub struct Started {
    child: Child,
    socket: UnixStream,
    output: File,
}

/// How a child ended, and what it said before.
pub struct Ended {
    pub verdict: Option<Outcome>,
    /// `None`: it had to be killed at the deadline.
    pub status: Option<ExitStatus>,
    pub output: String,
}

/// Starts this binary again with a ticket. It gets a process group of its own, so that whatever it starts ends with it.
pub fn start(ticket: &Ticket) -> io::Result<Started> {
    let output = tempfile::tempfile()?;
    let (mut command, socket) = command()?;
    command.stdout(output.try_clone()?).stderr(output.try_clone()?).process_group(0);
    let (child, socket) = spawn(command, socket, ticket)?;
    Ok(Started { child, socket, output })
}

/// Starts a helper of a case: in the case's own process group, and printing where the case prints.
pub fn start_helper(ticket: &Ticket, stdout: Option<File>) -> io::Result<(Child, UnixStream)> {
    let (mut command, socket) = command()?;
    if let Some(stdout) = stdout {
        command.stdout(stdout);
    }
    spawn(command, socket, ticket)
}

/// This binary as a child, and our end of its standard input.
fn command() -> io::Result<(Command, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(ARGUMENT).stdin(Stdio::from(OwnedFd::from(theirs)));
    Ok((command, ours))
}

fn spawn(mut command: Command, socket: UnixStream, ticket: &Ticket) -> io::Result<(Child, UnixStream)> {
    let mut line = serde_json::to_vec(ticket)?;
    line.push(b'\n');
    let child = command.spawn()?;
    (&socket).write_all(&line)?;
    Ok((child, socket))
}

impl Started {
    /// Waits for the verdict and the end of the process, until the deadline.
    pub fn finish(mut self, deadline: Instant) -> io::Result<Ended> {
        let verdict = self.read_verdict(deadline);
        let status = self.wait(deadline)?;
        self.kill();
        self.child.wait()?;
        Ok(Ended { verdict, status, output: self.output_end() })
    }

    /// Ends the child and all it started.
    fn kill(&self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            // Nothing left to kill is as good.
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }

    fn read_verdict(&self, deadline: Instant) -> Option<Outcome> {
        let mut line = Vec::new();
        let mut reader = (&self.socket).take(LINE_SIZE_BYTES_MAX);
        let mut piece = [0; 4096];
        while !line.contains(&b'\n') {
            let left = deadline.saturating_duration_since(Instant::now());
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).ok()?;
            match reader.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => line.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        serde_json::from_slice(&line).ok()
    }

    fn wait(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
    }

    fn output_end(&mut self) -> String {
        let mut bytes = Vec::new();
        let length = self.output.metadata().map_or(0, |metadata| metadata.len());
        let from = length.saturating_sub(OUTPUT_SIZE_BYTES_MAX as u64);
        if self.output.seek(io::SeekFrom::Start(from)).is_ok() {
            // The end of a log is a help, its absence no error.
            let _ = self.output.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }
}

impl Ended {
    /// The case's outcome, from what was said and how it ended.
    pub fn outcome(&self, deadline: Duration) -> Outcome {
        let failed = |why: String| Err(Stop::Failed(why));
        if let Some(Err(Stop::Failed(why))) = &self.verdict {
            return failed(why.clone());
        }
        let Some(status) = self.status else {
            return failed(format!("hung: no end after {} ms", deadline.as_millis()));
        };
        if let Some(signal) = status.signal() {
            return failed(format!("killed by {}", signal_name(signal)));
        }
        match (&self.verdict, status.code()) {
            (Some(Ok(())), Some(0)) => Ok(()),
            (Some(Err(stop)), _) => Err(stop.clone()),
            (Some(Ok(())), code) => failed(format!("passed, but the process then ended with {code:?}")),
            (None, Some(101)) => failed("the case panicked".to_owned()),
            (None, code) => failed(format!("the process ended with {code:?} in the middle of the case")),
        }
    }
}

fn signal_name(signal: i32) -> String {
    let known = [
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGTRAP, "SIGTRAP"),
    ];
    let name = known.iter().find(|(number, _)| *number == signal);
    name.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).to_owned())
}

// ---------------------------------------------------------------- the child's side

/// The whole life of a child.
pub fn main() -> ExitCode {
    match errand() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("memkv-conformance: cannot talk to the parent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn errand() -> io::Result<ExitCode> {
    // A crash is a result here, not something to keep an image of.
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut line = Vec::new();
    (&mut reader).take(LINE_SIZE_BYTES_MAX).read_until(b'\n', &mut line)?;
    let ticket: Ticket = serde_json::from_slice(&line)?;
    match ticket.errand {
        Errand::Case => {
            let outcome = run_case(&ticket);
            (&socket).write_all(&[serde_json::to_vec(&outcome)?, b"\n".to_vec()].concat())?;
            Ok(match outcome {
                Ok(()) => ExitCode::SUCCESS,
                Err(Stop::Failed(_)) => ExitCode::FAILURE,
                Err(Stop::Skipped(_)) => ExitCode::from(EXIT_SKIPPED),
            })
        }
        Errand::Serve => {
            if let Target::Abi(target) = &ticket.target {
                abi::process::serve(target, reader, socket)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn run_case(ticket: &Ticket) -> Outcome {
    match &ticket.target {
        Target::Abi(target) => abi::run_case(ticket, target),
        Target::WireServer(target) => wire_server::run_case(ticket, target),
        Target::WireClient(target) => wire_client::run_case(ticket, target),
    }
}
