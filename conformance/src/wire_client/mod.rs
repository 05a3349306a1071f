//! The suite for clients: any program that does what `wire_client.md` says a driver does.
//!
//! Every case has a server of its own, the reference server in this very process, which it makes misbehave when it wants to.
//! Whatever a case is about, a client that breaks the protocol in it fails it.

mod calls;
mod connections;
pub mod driver;
mod frames;
mod manifests;
mod setup;
mod values;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use memkv_wire::mac::Key;

use self::driver::{Driver, Environment};
use crate::case::{Case, Entry, Outcome};
use crate::random::Random;
use crate::reference::{Behaviour, Event, Hello, Reference, Shared};
use crate::ticket::{Ticket, WireClientTarget};
use crate::{ensure, fail};

const GROUPS: &[&[Case<Client>]] =
    &[setup::CASES, frames::CASES, connections::CASES, values::CASES, manifests::CASES];

/// What a client is given for a request, unless the case is about one that fails.
const TIMEOUT: Duration = Duration::from_secs(20);
/// What a client is given for a request that cannot be answered well.
const TIMEOUT_OF_FAILURES: Duration = Duration::from_millis(2000);
/// How long a client may take to close a connection on which its peer misbehaved.
const CLOSING: Duration = Duration::from_secs(10);

/// Every case of the suite, in the order they run.
pub fn cases() -> Vec<Entry> {
    GROUPS.iter().flat_map(|group| group.iter()).map(Case::entry).collect()
}

/// Runs one case in this process.
pub fn run_case(ticket: &Ticket, target: &WireClientTarget) -> Outcome {
    let mut cases = GROUPS.iter().flat_map(|group| group.iter());
    let Some(case) = cases.find(|case| case.id == ticket.case) else {
        fail!("there is no case {}", ticket.case)
    };
    let client = Client::new(ticket, target)?;
    (case.run)(&client)?;
    client.expect_unbroken()
}

/// What a case works with.
pub struct Client {
    target: WireClientTarget,
    ticket: Ticket,
    key: Key,
    address: String,
    server: Arc<Shared>,
}

impl Client {
    fn new(ticket: &Ticket, target: &WireClientTarget) -> Outcome<Client> {
        let bytes = Random::named(ticket.seed, &[&ticket.run, &ticket.case, "key"]).bytes(Key::SIZE_BYTES);
        let Ok(key) = bytes.try_into().map(Key::from_bytes) else { fail!("a key has another length") };
        let cannot = |error: std::io::Error| format!("the reference server cannot be run: {error}");
        let reference = Reference::bind("127.0.0.1:0", key.clone(), Behaviour::default()).map_err(cannot);
        let (reference, address) = match reference.and_then(|r| r.address().map(|a| (r, a)).map_err(cannot)) {
            Ok(bound) => bound,
            Err(why) => fail!("{why}"),
        };
        let server = reference.shared();
        if target.rdma {
            server.offer_queue_pairs();
        }
        std::thread::spawn(|| reference.serve());
        let address = address.to_string();
        Ok(Client { target: target.clone(), ticket: ticket.clone(), key, address, server })
    }

    /// Bytes that no other case has.
    pub fn random(&self) -> Random {
        Random::named(self.ticket.seed, &[&self.ticket.run, &self.ticket.case])
    }

    pub fn start(&self) -> Outcome<Driver> {
        self.start_in("one", TIMEOUT)
    }

    /// A driver that is to give up early.
    pub fn start_hasty(&self) -> Outcome<Driver> {
        self.start_in("one", TIMEOUT_OF_FAILURES)
    }

    pub fn start_in(&self, namespace: &str, timeout: Duration) -> Outcome<Driver> {
        let key = self.key.to_hex();
        let environment = Environment { address: &self.address, key: &key, namespace, timeout };
        Driver::start(&self.target.command, &environment)
    }

    pub fn behave(&self, behaviour: impl Into<Behaviour>) {
        self.server.behave(behaviour);
    }

    pub fn behave_well(&self) {
        self.behave(Behaviour::default());
    }

    pub fn events(&self) -> Vec<Event> {
        self.server.events()
    }

    /// Every Connect so far.
    pub fn hellos(&self) -> Vec<Hello> {
        let hello = |event| match event {
            Event::Connect { hello, .. } => Some(hello),
            _ => None,
        };
        self.events().into_iter().filter_map(hello).collect()
    }

    /// Expects that the server misbehaved, and that the client closes every connection on which it did.
    pub fn expect_closed(&self) -> Outcome {
        let (mut misbehaved, mut open) = (0, 0);
        let closed = self.server.wait_for(CLOSING, |events| {
            let (wrong, ended) = (misbehaved_on(events), ended(events));
            wrong.is_subset(&ended)
        });
        let events = self.events();
        misbehaved += misbehaved_on(&events).len();
        open += misbehaved_on(&events).difference(&ended(&events)).count();
        ensure!(misbehaved > 0, "the client answered without asking the server");
        ensure!(
            closed,
            "the client did not close {open} of {misbehaved} connections on which the server misbehaved"
        );
        Ok(())
    }

    /// Expects that the client took no connection whose set-up was wrong.
    pub fn expect_unconfirmed(&self) -> Outcome {
        self.expect_closed()?;
        let wrong = misbehaved_on(&self.events());
        let taken = self.events().into_iter().find_map(|event| match event {
            Event::Confirmed { connection } if wrong.contains(&connection) => Some(connection),
            _ => None,
        });
        ensure!(taken.is_none(), "the client confirmed a connection whose reply to Connect is wrong");
        Ok(())
    }

    fn expect_unbroken(&self) -> Outcome {
        let mut events = self.events().into_iter();
        let broke = events.find_map(|event| match event {
            Event::Broke { how, .. } => Some(how),
            _ => None,
        });
        match broke {
            Some(how) => fail!("the client broke the protocol: {how}"),
            None => Ok(()),
        }
    }
}

fn misbehaved_on(events: &[Event]) -> BTreeSet<u64> {
    let connection = |event: &Event| match event {
        Event::Misbehaved { connection } => Some(*connection),
        _ => None,
    };
    events.iter().filter_map(connection).collect()
}

fn ended(events: &[Event]) -> BTreeSet<u64> {
    let connection = |event: &Event| match event {
        Event::Ended { connection } => Some(*connection),
        _ => None,
    };
    events.iter().filter_map(connection).collect()
}
