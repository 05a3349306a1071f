//! The suite for `kv_store_v1` backends: any library that exports the table, whatever is behind it.
//!
//! The contract is `kv_store_v1.md`. Every case stores under names and hashes of its own ([`Abi::name`],
//! [`Abi::random`]), so that cases never meet each other, nor earlier runs on the same store.

mod chunks;
mod durability;
mod edges;
mod fork;
mod leaks;
mod manifests;
mod memory;
mod names;
mod opening;
mod prefetch;
pub mod process;
mod store;
mod table;
mod threads;
mod versions;
mod visibility;

use std::ffi::CString;

use self::process::Process;
use crate::case::{Case, Entry, Outcome, Stop};
use crate::fail;
use crate::ffi::{Handle, Library};
use crate::random::Random;
use crate::ticket::{AbiTarget, Errand, Ticket};

const GROUPS: &[&[Case<Abi>]] = &[
    table::CASES,
    opening::CASES,
    memory::CASES,
    chunks::CASES,
    visibility::CASES,
    manifests::CASES,
    names::CASES,
    prefetch::CASES,
    threads::CASES,
    leaks::CASES,
    fork::CASES,
    durability::CASES,
    edges::CASES,
];

/// Every case of the suite, in the order they run.
pub fn cases() -> Vec<Entry> {
    GROUPS.iter().flat_map(|group| group.iter()).map(Case::entry).collect()
}

/// Runs one case in this process.
pub fn run_case(ticket: &Ticket, target: &AbiTarget) -> Outcome {
    let mut cases = GROUPS.iter().flat_map(|group| group.iter());
    let Some(case) = cases.find(|case| case.id == ticket.case) else {
        fail!("there is no case {}", ticket.case)
    };
    (case.run)(&Abi::new(ticket, target)?)
}

/// What a case works with.
pub struct Abi {
    pub library: Library,
    pub target: AbiTarget,
    ticket: Ticket,
}

impl Abi {
    fn new(ticket: &Ticket, target: &AbiTarget) -> Outcome<Abi> {
        match Library::load(&target.library) {
            Ok(library) => Ok(Abi { library, target: target.clone(), ticket: ticket.clone() }),
            Err(error) => Err(Stop::Failed(format!("{}: {error}", target.library.display()))),
        }
    }

    /// A handle on the store.
    pub fn open(&self) -> Outcome<Handle> {
        self.open_uri(&self.target.uri)
    }

    pub fn open_uri(&self, uri: &str) -> Outcome<Handle> {
        match self.library.open(&c_string(uri)?) {
            Some(handle) => Ok(handle),
            None => Err(Stop::Failed(format!("open({uri:?}) returned NULL"))),
        }
    }

    /// Another process with a handle on the store.
    pub fn process(&self) -> Outcome<Process> {
        Process::start(Ticket { errand: Errand::Serve, ..self.ticket.clone() }, None)
    }

    /// The same, with its standard output going to a file.
    pub fn process_printing_to(&self, stdout: std::fs::File) -> Outcome<Process> {
        Process::start(Ticket { errand: Errand::Serve, ..self.ticket.clone() }, Some(stdout))
    }

    /// A source of numbers and bytes that no other case and no other run has.
    pub fn random(&self) -> Random {
        Random::named(self.ticket.seed, &[&self.ticket.run, &self.ticket.case])
    }

    /// A manifest name that no other case and no other run uses.
    pub fn name(&self, label: &str) -> CString {
        let text = format!("{}-{}-{label}", self.ticket.run, self.ticket.case.to_lowercase());
        CString::new(text.replace('\0', "")).unwrap_or_default()
    }
}

pub fn c_string(text: &str) -> Outcome<CString> {
    CString::new(text).map_err(|_| Stop::Failed(format!("{text:?} holds a NUL")))
}
