//! A MemKV client, small enough to be read in one sitting, with the driver that the client suite asks for; right, or with one
//! [`Flaw`].
//!
//! It does one request after the other on one connection; only `get-many` has several open. [`link`] owns the connection,
//! [`operations`] the requests and what their replies mean; here are the lines of the driver and what is tried again.

pub mod flaw;
mod link;
mod operations;
mod values;

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use memkv_wire::control::Message;
use memkv_wire::mac::Key;
use memkv_wire::{Operation, Response, Status};

pub use self::flaw::Flaw;
use self::link::{Link, Reply, Terms, Trouble};
use crate::wire_client::driver::{hex, unhex};

/// How often a request is sent whose connection is lost or whose server is busy.
const TRIES_MAX: u32 = 4;
const BUSY_DELAY: Duration = Duration::from_millis(20);

/// Why the driver ended before its input did.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("{0} is not set, or wrong")]
    Environment(&'static str),
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    #[error("standard input or output: {0}")]
    Io(#[from] io::Error),
}

/// Does what standard input says until it ends.
pub fn run(flaw: Option<Flaw>) -> Result<(), DriverError> {
    let mut client = Client::from_environment(flaw)?;
    let mut out = io::stdout();
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = client.answer(&words);
        if flaw == Some(Flaw::DiesOfFailure) && answer.starts_with("error") {
            std::process::exit(1);
        }
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

/// A message to be sent: its frames, control message and payload.
struct Outgoing {
    operation: Operation,
    frames: Vec<(Vec<u8>, Vec<u8>)>,
}

struct Client {
    terms: Terms,
    namespace: Vec<u8>,
    timeout: Duration,
    link: Option<Link>,
    connected: bool,
}

impl Client {
    fn from_environment(flaw: Option<Flaw>) -> Result<Client, DriverError> {
        let variable = |name| std::env::var(name).map_err(|_| DriverError::Environment(name));
        let key = Key::from_hex(&variable("MEMKV_AUTH_KEY")?)
            .map_err(|_| DriverError::Environment("MEMKV_AUTH_KEY"))?;
        let timeout_ms = variable("MEMKV_TIMEOUT_MS")?
            .parse()
            .map_err(|_| DriverError::Environment("MEMKV_TIMEOUT_MS"))?;
        let mut client_id = [0; 16];
        getrandom::fill(&mut client_id)?;
        let namespace = match flaw {
            Some(Flaw::NamespaceIgnored) => Vec::new(),
            _ => variable("MEMKV_NAMESPACE")?.into_bytes(),
        };
        Ok(Client {
            terms: Terms { address: variable("MEMKV_ADDRESS")?, key, client_id, flaw },
            namespace,
            timeout: Duration::from_millis(timeout_ms),
            link: None,
            connected: false,
        })
    }

    fn flaw(&self) -> Option<Flaw> {
        self.terms.flaw
    }

    /// The answer to a line.
    fn answer(&mut self, words: &[&str]) -> String {
        match self.perform(words) {
            Some(Ok(answer)) => answer,
            Some(Err(Trouble::Refused(Status::NotFound))) => "miss".to_owned(),
            Some(Err(trouble)) => format!("error {trouble}"),
            None => "error this is no request".to_owned(),
        }
    }

    /// `None` for a line that is no request.
    fn perform(&mut self, words: &[&str]) -> Option<Result<String, Trouble>> {
        let (what, rest) = words.split_first()?;
        if matches!(*what, "put-manifest" | "get-range") {
            return self.perform_mixed(what, rest);
        }
        let bytes: Vec<Vec<u8>> = rest.iter().map(|word| unhex(word)).collect::<Option<_>>()?;
        let done = |()| "ok".to_owned();
        let with = |bytes: Vec<u8>| format!("ok {}", hex(&bytes));
        Some(match (*what, bytes.as_slice()) {
            ("ping", []) => self.ping().map(done),
            ("put", [key, value]) => self.put(key, value).map(done),
            ("get", [key]) => self.get(key, 0, 0).map(with),
            ("put-many", pairs) => self.put_many(pairs).map(|words| joined(&words)),
            ("get-many", keys) => self.get_many(keys).map(|words| joined(&words)),
            ("exists", keys) => self.exists(keys).map(|lengths| joined(&lengths)),
            ("delete", [key]) => self.delete(key).map(done),
            ("get-manifest", [name]) => self.get_manifest(name).map(with),
            ("delete-manifest", [name]) => self.delete_manifest(name).map(done),
            ("list", [prefix]) => {
                self.list(prefix).map(|names| joined(&names.iter().map(|name| hex(name)).collect::<Vec<_>>()))
            }
            ("save", [name, body, pairs @ ..]) => self.save(name, body, pairs).map(done),
            _ => return None,
        })
    }

    fn perform_mixed(&mut self, what: &str, rest: &[&str]) -> Option<Result<String, Trouble>> {
        match (what, rest) {
            ("get-range", [key, offset, length]) => {
                let (key, offset, length) = (unhex(key)?, offset.parse().ok()?, length.parse().ok()?);
                Some(self.get(&key, offset, length).map(|bytes| format!("ok {}", hex(&bytes))))
            }
            ("put-manifest", [name, body, chunks @ ..]) => {
                let chunk = |word: &&str| {
                    let (key, length) = word.split_once(':')?;
                    Some((unhex(key)?, length.parse().ok()?))
                };
                let chunks: Vec<(Vec<u8>, u64)> = chunks.iter().map(chunk).collect::<Option<_>>()?;
                let published = self.put_manifest(&unhex(name)?, &unhex(body)?, &chunks);
                Some(published.map(|missing| match missing.as_slice() {
                    [] => "ok".to_owned(),
                    places => format!("missing{}", joined(places).trim_start_matches("ok")),
                }))
            }
            _ => None,
        }
    }

    // ---------------------------------------------------------------- requests and replies

    fn call(&mut self, message: Outgoing) -> Result<Vec<Reply>, Trouble> {
        self.call_many(&[message]).map(|mut replies| replies.pop().unwrap_or_default())
    }

    /// Sends messages and gives the frames of each one's reply; tries again what is worth it.
    fn call_many(&mut self, messages: &[Outgoing]) -> Result<Vec<Vec<Reply>>, Trouble> {
        let deadline = Instant::now() + self.timeout;
        let bounded =
            messages.iter().flat_map(|message| &message.frames).all(|(control, _)| !control.is_empty());
        if !bounded {
            return Err(Trouble::Misuse);
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let again = tries < TRIES_MAX && Instant::now() < deadline;
            match self.attempt(messages, deadline) {
                Ok(replies) if again && self.is_worth_a_retry(&replies) => std::thread::sleep(BUSY_DELAY),
                Ok(replies) => return Ok(replies),
                Err(trouble) => {
                    if self.flaw() != Some(Flaw::StaysOpen) {
                        self.link = None;
                    }
                    if trouble != Trouble::Lost || !again {
                        return Err(trouble);
                    }
                }
            }
        }
    }

    fn is_worth_a_retry(&self, replies: &[Vec<Reply>]) -> bool {
        let statuses = replies.iter().filter_map(|frames| frames.last().and_then(status_of));
        let mut statuses = statuses.filter(|status| *status != Status::Ok);
        match self.flaw() {
            Some(Flaw::RetriesEverything) => statuses.next().is_some(),
            Some(Flaw::BusyIsFinal) => false,
            Some(Flaw::UnknownStatusRetried) => {
                statuses.any(|status| matches!(status, Status::Busy | Status::Unknown(_)))
            }
            _ => statuses.any(|status| status == Status::Busy),
        }
    }

    fn attempt(&mut self, messages: &[Outgoing], deadline: Instant) -> Result<Vec<Vec<Reply>>, Trouble> {
        if self.link.as_ref().is_some_and(Link::is_closed) {
            self.link = None;
        }
        if self.link.is_none() {
            if self.connected && self.flaw() == Some(Flaw::NeverReconnects) {
                return Err(Trouble::Misuse);
            }
            self.link = Some(Link::open(&self.terms, deadline)?);
            self.connected = true;
        }
        let Some(link) = &mut self.link else { return Err(Trouble::Lost) };
        let mut replies = Vec::new();
        let (mut unsent, mut open) = (messages.iter(), std::collections::VecDeque::new());
        while replies.len() < messages.len() {
            while let Some(message) = unsent.as_slice().first().filter(|_| open.len() < link.requests_max) {
                unsent.next();
                let id = link.new_id();
                open.push_back(id);
                for (number, (control, payload)) in (1..).zip(&message.frames) {
                    link.send(id, number == message.frames.len(), control, payload)?;
                }
            }
            let Some(id) = open.pop_front() else { return Err(Trouble::Lost) };
            let mut frames = Vec::new();
            while frames.last().is_none_or(|frame: &Reply| !frame.last) {
                frames.push(link.receive(id, deadline)?);
                if self.terms.flaw == Some(Flaw::FirstFrameIsAll) {
                    break;
                }
            }
            replies.push(frames);
        }
        Ok(replies)
    }

    /// What the server did is against the protocol: the connection is over.
    fn broke<T>(&mut self, what: &'static str) -> Result<T, Trouble> {
        if self.flaw() != Some(Flaw::StaysOpen) {
            self.link = None;
        }
        Err(Trouble::Broke(what))
    }

    //= MKV-STAT-1
    fn check(&self, status: Status) -> Result<(), Trouble> {
        match status {
            Status::Ok => Ok(()),
            Status::Unknown(_) if self.flaw() == Some(Flaw::UnknownStatusIsOk) => Ok(()),
            failed => Err(Trouble::Refused(failed)),
        }
    }
}

fn status_of(reply: &Reply) -> Option<Status> {
    let message = Message::new(&reply.control).ok()?;
    Response::decode(&message).ok().map(|response| response.status)
}

fn joined(words: &[impl ToString]) -> String {
    words.iter().fold("ok".to_owned(), |line, word| line + " " + &word.to_string())
}
