//! Conformance suites that strangers run: against any `kv_store_v1` backend, any MemKV server and any MemKV client.
//!
//! Every case runs in a child process of this very binary, so that a crash, an abort or a hang is a failed case and not
//! a dead suite. The parent holds the list of cases, the deadlines and the report ([`runner`], [`report`], [`known`]);
//! the child gets a [`ticket::Ticket`] over a socket that is its standard input, runs one case and sends its verdict
//! back. Nothing here knows how a backend, a server or a client works inside.
#![deny(unsafe_code)]

pub mod abi;
pub mod case;
pub mod child;
pub mod ffi;
pub mod glob;
pub mod junit;
pub mod known;
mod named;
pub mod peer;
pub mod random;
pub mod reference;
pub mod reference_client;
pub mod report;
pub mod runner;
pub mod ticket;
pub mod wire_client;
pub mod wire_server;
