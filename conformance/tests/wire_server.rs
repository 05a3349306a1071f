//! The server suite against the reference server, against the real one, and against servers that are wrong.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use memkv_conformance::reference::Flaw;
use memkv_conformance::wire_server;
use support::memkv::{KEY, Memkv};
use support::{Run, conformance};

fn suite(address: &str, arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_memkv-conformance"));
    command.args(["wire-server", address, "--json", "--strict", "--deadline", "120"]).args(arguments);
    Run::of(command.env("MEMKV_AUTH_KEY", KEY))
}

/// A server that says `listening on HOST:PORT`; ended when dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(command: &mut Command) -> Server {
        let mut child =
            command.env("MEMKV_AUTH_KEY", KEY).stdout(Stdio::piped()).spawn().expect("the server starts");
        let stdout = BufReader::new(child.stdout.take().expect("its output"));
        let lines = stdout.lines().map_while(Result::ok);
        let address = lines.filter_map(|line| line.strip_prefix("listening on ").map(str::to_owned)).next();
        Server { address: address.expect("the server says where it listens"), child }
    }

    fn reference(flaw: Option<&str>) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memkv-conformance"));
        command.arg("reference").args(flaw.map(|flaw| ["--flaw", flaw]).iter().flatten());
        Server::start(&mut command)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_reference_server_conforms() {
    let run = suite(&Server::reference(None).address, &[]);
    assert_eq!(run.code, Some(0), "{}", run.told());
    assert_eq!(run.verdicts().len(), wire_server::cases().len());
    for (case, verdict) in run.verdicts() {
        // It keeps nothing over its own end.
        assert_eq!(verdict, if case.starts_with("SRV-DUR-") { "skipped" } else { "passed" }, "{case}");
    }
}

#[test]
fn memkv_conforms() {
    let memkv = Memkv::start("");
    let run = suite(&memkv.address, &["--restart-command", &memkv.restart_command]);
    assert_eq!(run.code, Some(0), "{}", run.told());
    for (case, verdict) in run.verdicts() {
        assert_eq!(verdict, "passed", "{case}: {}", run.told());
    }
}

/// Every line of wire_server.txt: the named case fails on the flaw. That it passes without is tested above.
#[test]
fn every_flaw_is_caught_by_its_case() {
    let flaws = flaws();
    assert!(flaws.len() >= 30, "only {} flaws", flaws.len());
    support::all_caught(flaws, 3, |(flaw, case)| {
        let run = suite(&Server::reference(Some(&flaw)).address, &["--filter", &case]);
        if run.fails(&case) { Ok(()) } else { Err(format!("{flaw} by {case}: {}", run.told())) }
    });
}

/// A flaw that is in one list and not in the other would never run.
#[test]
fn the_lists_of_flaws_agree() {
    let listed: BTreeSet<String> = flaws().into_iter().map(|(flaw, _)| flaw).collect();
    let there: BTreeSet<String> = Flaw::ALL.iter().map(|flaw| flaw.name().to_owned()).collect();
    assert_eq!(listed, there);
}

fn flaws() -> Vec<(String, String)> {
    support::pairs(&conformance().join("mutants/wire_server.txt"))
}

/// The requirements of the schema that no case for servers tests, and why.
const UNTESTED: &[(&str, &str)] = &[
    ("MKV-CONN-8", "what a client checks: tested by the suite for clients"),
    ("MKV-STAT-1", "what a client does with a status: tested by the suite for clients"),
    ("MKV-MAN-1", "a blob is opaque to a server"),
    ("MKV-MAN-2", "a blob is opaque to a server"),
    ("MKV-MAN-3", "a blob is opaque to a server"),
    ("MKV-MAN-4", "a blob is opaque to a server"),
    ("MKV-MAN-5", "what a client references"),
    ("MKV-CONN-11", "the local socket, which this suite does not connect to"),
    ("MKV-RD-4", "needs a transport that registers memory"),
];

#[test]
fn cases_and_requirements_match() {
    let mut requirements = BTreeSet::new();
    for file in ["types", "session", "ops", "manifest"] {
        let path = conformance().join(format!("../schema/{file}.capnp"));
        let schema = std::fs::read_to_string(path).expect("the schema");
        for (at, _) in schema.match_indices("[MKV-") {
            let id = schema[at + 1..].split(']').next().unwrap_or_default();
            requirements.insert(id.to_owned());
        }
    }
    let (mut ids, mut tested) = (BTreeSet::new(), BTreeSet::new());
    for case in wire_server::cases() {
        assert!(ids.insert(case.id), "{} is there twice", case.id);
        assert!(!case.requires.is_empty(), "{} tests nothing", case.id);
        for id in case.requires {
            assert!(requirements.contains(*id), "{}: there is no {id}", case.id);
            tested.insert((*id).to_owned());
        }
    }
    // All but what can be asked for on a transport without: that memory is refused.
    tested.extend(requirements.iter().filter(|id| id.starts_with("MKV-REG-")).cloned());
    // How RDMA carries frames is the transport's matter, here too with `--rdma`; what a server says of its queue pair is tested.
    tested.extend(requirements.iter().filter(|id| id.starts_with("MKV-RDMA-")).cloned());
    for (id, why) in UNTESTED {
        assert!(!why.is_empty() && requirements.contains(*id), "there is no {id}");
        assert!(tested.insert((*id).to_owned()), "{id} is tested");
    }
    let untested: Vec<_> = requirements.difference(&tested).collect();
    assert!(untested.is_empty(), "no case tests {untested:?}");
}
