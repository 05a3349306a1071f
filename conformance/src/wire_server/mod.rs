//! The suite for servers: anything that speaks the protocol of `schema/`, over TCP, with a key that is known.
//!
//! The requirements are the numbered sentences of the schema. Every case works in a namespace of its own. Whatever a
//! case is about, each frame that the server sends is checked as a client must ([`crate::peer::session`]).

mod calls;
mod durability;
mod edges;
mod frames;
mod keys;
mod manifests;
mod messages;
mod setup;
mod values;

use memkv_wire::mac::Key;
use memkv_wire::{Ping, RequestWhich, ResponseWhich};

use crate::case::{Case, Entry, Outcome, Stop};
use crate::peer::rdma;
use crate::peer::session::{Session, Terms};
use crate::random::Random;
use crate::ticket::{Ticket, WireServerTarget};
use crate::{ensure, fail};

const GROUPS: &[&[Case<Server>]] = &[
    setup::CASES,
    frames::CASES,
    messages::CASES,
    keys::CASES,
    values::CASES,
    manifests::CASES,
    durability::CASES,
    edges::CASES,
];

/// Every case of the suite, in the order they run.
pub fn cases() -> Vec<Entry> {
    GROUPS.iter().flat_map(|group| group.iter()).map(Case::entry).collect()
}

/// Runs one case in this process.
pub fn run_case(ticket: &Ticket, target: &WireServerTarget) -> Outcome {
    let mut cases = GROUPS.iter().flat_map(|group| group.iter());
    let Some(case) = cases.find(|case| case.id == ticket.case) else {
        fail!("there is no case {}", ticket.case)
    };
    (case.run)(&Server::new(ticket, target)?)?;
    ensure!(rdma::was_given(), "the server gave no queue pair, however often it was asked");
    Ok(())
}

/// What a case works with.
pub struct Server {
    pub target: WireServerTarget,
    pub key: Key,
    ticket: Ticket,
}

impl Server {
    fn new(ticket: &Ticket, target: &WireServerTarget) -> Outcome<Server> {
        match Key::from_hex(&target.key) {
            Ok(key) => Ok(Server { target: target.clone(), key, ticket: ticket.clone() }),
            Err(error) => Err(Stop::Failed(format!("MEMKV_AUTH_KEY: {error}"))),
        }
    }

    /// Terms as a client has them that makes no mistakes.
    pub fn terms(&self) -> Outcome<Terms> {
        let mut nonce = [0; 32];
        match getrandom::fill(&mut nonce) {
            Ok(()) => Ok(Terms { rdma: self.target.rdma, ..Terms::new(nonce) }),
            Err(error) => fail!("the system gives no random bytes: {error}"),
        }
    }

    pub fn connect(&self) -> Outcome<Session> {
        Session::open(&self.target.address, &self.key, self.terms()?)
    }

    /// Bytes that no other case and no other run has.
    pub fn random(&self) -> Random {
        Random::named(self.ticket.seed, &[&self.ticket.run, &self.ticket.case])
    }

    /// A namespace that no other case and no other run uses.
    pub fn namespace(&self) -> Vec<u8> {
        format!("conformance {} {}", self.ticket.run, self.ticket.case).into_bytes()
    }

    /// Whatever was done to the server, it goes on.
    pub fn expect_alive(&self) -> Outcome {
        let mut session = self.connect()?;
        ping(&mut session, 0x0123_4567_89ab_cdef)
    }
}

/// Pings, and expects the echo.
pub fn ping(session: &mut Session, echo: u64) -> Outcome {
    let replies = session.call(&[], RequestWhich::Ping(Ping { echo, ..Ping::default() }), &[])?;
    let [reply] = replies.as_slice() else { fail!("ping has {} frames of reply", replies.len()) };
    let response = reply.response()?;
    let ResponseWhich::Ping(pong) = response.which else { fail!("ping was answered with another arm") };
    ensure!(pong.echo == echo, "ping of {echo:#x} returned {:#x}", pong.echo);
    Ok(())
}
