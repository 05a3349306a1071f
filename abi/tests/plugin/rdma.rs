//! The plugin and the client over RDMA, and what they do without. Needs a device: soft-RoCE in the guest of tools/rdma.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use memkv_client::blocking::Client;
use memkv_client::error::{ConnectionError, Error};
use memkv_client::{Config, Transport, Verify};

use crate::library::{Store, table};
use crate::residue;
use crate::server::{Server, skip};
use crate::sessions::bytes;

/// False, and the test counts as skipped, where there is no device.
fn has_device(test: &str) -> bool {
    let found = std::fs::read_dir("/sys/class/infiniband").is_ok_and(|mut devices| devices.next().is_some());
    if !found {
        skip(test, "no RDMA device here, `cargo xtask test --rdma` makes one");
    }
    found
}

/// Every test of this binary again, all of it over queue pairs.
#[test]
fn everything_holds_over_rdma() {
    if Transport::from_env() != Ok(Transport::Auto) || !has_device("everything_holds_over_rdma") {
        return;
    }
    let own = std::env::current_exe().expect("this test has a path");
    let output = Command::new(own)
        .args(["--skip", "everything_holds_over", "--skip", "rdma::"])
        .env("MEMKV_TRANSPORT", "rdma")
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn config(server: &Server, transport: Transport) -> Config {
    Config { transport, ..server.config("ns") }
}

/// Bytes that no test here put anywhere else.
fn put(client: &Client, key: &[u8]) -> Vec<u8> {
    let value = bytes(9, key.len() as u64, 200_000);
    client.put(key, &[memkv_client::Buf::copy_of(&value).expect("memory")]).expect("stored");
    value
}

#[test]
fn a_client_that_may_choose_takes_rdma_where_both_sides_have_it() {
    if Transport::from_env() != Ok(Transport::Auto)
        || !has_device("a_client_that_may_choose_takes_rdma_where_both_sides_have_it")
    {
        return;
    }
    let Some(server) = Server::start_configured("rdma", "rdma: {}\nnetwork: {local: \"off\"}\n") else {
        return;
    };
    // First, while nobody else has a connection over RDMA, or is about to have another one.
    let plain = Client::connect(Config { rdma: false, ..config(&server, Transport::Auto) })
        .expect("the server is up");
    let value = put(&plain, b"key");
    assert_eq!(server.counter("connections_rdma"), 0, "it was told not to");
    let client = Client::connect(config(&server, Transport::Auto)).expect("the server is up");
    assert!(client.get(b"key").expect("up").expect("stored").to_vec() == value);
    assert!(server.counter("connections_rdma") > 0);
}

/// A server that comes back without RDMA: what is under way ends over TCP, and nothing is lost.
#[test]
fn a_client_goes_on_over_tcp() {
    if Transport::from_env() != Ok(Transport::Auto) || !has_device("a_client_goes_on_over_tcp") {
        return;
    }
    let Some(mut server) = Server::start_configured("rdma", "rdma: {}\nnetwork: {local: \"off\"}\n") else {
        return;
    };
    let client = Client::connect(config(&server, Transport::Auto)).expect("the server is up");
    let strict = Client::connect(config(&server, Transport::Rdma)).expect("the server is up");
    let mut values = vec![put(&client, b"1")];
    server.kill();
    server.configure("network: {local: \"off\"}\n");
    server.start_again();
    values.push(put(&client, b"22"));
    for (key, value) in [&b"1"[..], b"22"].into_iter().zip(&values) {
        assert!(client.get(key).expect("up").expect("stored").to_vec() == *value);
    }
    assert_eq!(server.counter("connections_rdma"), 0);
    let refused = Client::connect(Config { timeout_ms: 2000, ..config(&server, Transport::Rdma) });
    let error = refused.map(|_| ()).expect_err("nothing but RDMA will do");
    assert!(format!("{error}").contains("no RDMA"), "{error}");
    drop(strict);
    assert!(!matches!(error, Error::Connection(ConnectionError::RdmaLost)));
}

/// Whatever is checked, by the client and by the server, what comes back is what was put.
#[test]
fn values_come_back_whatever_is_checked() {
    let test = "values_come_back_whatever_is_checked";
    if Transport::from_env() != Ok(Transport::Auto) || !has_device(test) {
        return;
    }
    for (verify, setting) in
        [(Verify::Always, "always"), (Verify::Sampled, "sampled"), (Verify::Never, "never")]
    {
        let document = format!("rdma: {{verify: {setting}}}\nnetwork: {{local: \"off\"}}\n");
        let Some(server) = Server::start_configured(test, &document) else { return };
        let client = Client::connect(Config { verify, ..config(&server, Transport::Rdma) }).expect("up");
        // Of so many some are in a sample, and most are not.
        for round in 1..=100_u8 {
            let key = vec![round; usize::from(round)];
            let value = bytes(9, round.into(), 200_000);
            let mut buffer = client.buffer(value.len()).expect("memory");
            buffer.copy_from_slice(&value);
            client.put(&key, &[buffer.freeze()]).expect("stored");
            assert!(client.get(&key).expect("up").expect("stored").to_vec() == value, "{setting}");
        }
        let moved = [server.counter("bytes_fetched"), server.counter("bytes_put")];
        assert_eq!(moved, [100 * 200_000; 2], "{setting}");
    }
}

/// The plugin copies a chunk once on its way to the server, into registered memory, and once on its way back, out of it: what else there is of the
/// chunk in the process is the engine's own. In a process that does nothing else.
#[test]
fn the_plugin_copies_once() {
    const PAGES: usize = 128;
    let test = "the_plugin_copies_once";
    if !has_device(test) {
        return;
    }
    if Transport::from_env() != Ok(Transport::Rdma) {
        let mut own = Command::new(std::env::current_exe().expect("this test has a path"));
        own.args(["--exact", "rdma::the_plugin_copies_once"]).env("MEMKV_TRANSPORT", "rdma");
        let output = own.envs(residue::KEEP).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let Some(server) = Server::start(test) else { return };
    let copies = || residue::copies(std::process::id(), 1, PAGES);
    let chunk = residue::marked(1, PAGES);
    let store = Store::open(&server.uri("ns"));
    assert_eq!(copies(), [1; PAGES], "the engine's");
    assert_eq!(store.put(b"hash", &chunk), 0);
    assert_eq!(store.put_manifest("flush", b""), 0);
    assert_eq!(copies(), [2; PAGES], "and what was registered, from where the server's device fetched it");
    assert!(server.counter("connections_rdma") > 0);
    let (reading, mut data, mut len) = (Store::open(&server.uri("ns")), std::ptr::null_mut(), 0);
    // SAFETY: pointers and lengths belong together; the handle came from open.
    let got = unsafe { (table().get_chunk)(reading.handle, b"hash".as_ptr(), 4, &mut data, &mut len) };
    assert_eq!((got, len), (0, PAGES * 4096));
    assert_eq!(
        copies(),
        [4; PAGES],
        "and what was registered, where the server's device put it, and the engine's"
    );
    drop(chunk);
    // SAFETY: a buffer of malloc that is this test's own.
    unsafe { libc::free(data.cast()) };
}

// ---------------------------------------------------------------- an engine in a process of its own

/// A child of this test that is an engine, told by this variable which store to open.
const ENGINE: &str = "MEMKV_TEST_RDMA_ENGINE";

/// Opens a store and does what it is told, line by line: `put N` and `get N`, each answered with what came of it.
#[test]
fn engine() {
    let Ok(uri) = std::env::var(ENGINE) else { return };
    let store = Store::try_open(&uri);
    println!("\nengine {}", if store.is_some() { "open" } else { "refused" });
    let Some(store) = store else { return };
    for line in std::io::stdin().lines() {
        let line = line.expect("text");
        let (what, number) = line.split_once(' ').expect("a word and a number");
        let number: u64 = number.parse().expect("a number");
        let (hash, value) = (number.to_le_bytes(), bytes(3, number, 200_000));
        let is_well = match what {
            "put" => store.put(&hash, &value) == 0 && store.put_manifest("flush", b"") == 0,
            _ => store.get(&hash).as_ref() == Ok(&value),
        };
        println!("\nengine {}", if is_well { "ok" } else { "failed" });
    }
}

/// An engine on a store over RDMA, ended when dropped.
struct Engine {
    child: Child,
    answers: Box<dyn Iterator<Item = String>>,
}

impl Engine {
    /// `wrapper`: a command that runs the engine, with less than this process may do.
    fn start(uri: &str, wrapper: &[&str], environment: &[(&str, &str)]) -> Engine {
        let own = std::env::current_exe().expect("this test has a path");
        let mut command = match wrapper {
            [] => Command::new(&own),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&own);
                command
            }
        };
        command.args(["rdma::engine", "--exact", "--nocapture"]).env(ENGINE, uri);
        command.envs([("MEMKV_LOG", "error"), ("MEMKV_TIMEOUT_MS", "20000")]);
        command.envs(environment.iter().copied());
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("it runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let answers = lines.filter_map(|line| Some(line.strip_prefix("engine ")?.to_owned()));
        Engine { child, answers: Box::new(answers) }
    }

    fn answer(&mut self) -> String {
        self.answers.next().expect("the engine lives")
    }

    fn ask(&mut self, request: &str) {
        writeln!(self.child.stdin.as_mut().expect("a pipe"), "{request}").expect("the engine lives");
    }

    fn expect(&mut self, request: &str) {
        self.ask(request);
        assert_eq!(self.answer(), "ok", "{request}");
    }

    /// Ends it, and returns what the plugin wrote to standard error.
    fn told(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().expect("a pipe");
        stderr.read_to_string(&mut said).expect("text");
        assert!(self.child.wait().expect("it was running").success(), "{said}");
        said.lines().filter(|line| line.starts_with("memkv: ")).map(str::to_owned).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The variables of a client that uses RDMA if it can, as by default, and of one that uses nothing else.
const AUTO: [(&str, &str); 1] = [("MEMKV_TRANSPORT", "auto")];
const STRICT: [(&str, &str); 1] = [("MEMKV_TRANSPORT", "rdma")];
const SERVED: &str = "rdma: {}\nnetwork: {local: \"off\"}\n";

/// Runs a process that may lock so many KiB of memory, though it is root's.
fn confined(memlock: &str) -> [&str; 6] {
    ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "prlimit", memlock, "--"]
}

/// A server for engines, where there is a device.
fn serve(test: &str, document: &str) -> Option<Server> {
    (Transport::from_env() == Ok(Transport::Auto) && has_device(test))
        .then(|| Server::start_configured(test, document))
        .flatten()
}

/// The engine's server is killed in the middle of a session and comes back without RDMA.
#[test]
fn an_engine_goes_on_over_tcp_and_says_so_once() {
    let Some(mut server) = serve("an_engine_goes_on_over_tcp_and_says_so_once", SERVED) else { return };
    let mut engine = Engine::start(&server.uri("ns"), &[], &AUTO);
    assert_eq!(engine.answer(), "open");
    (0..4).for_each(|number| engine.expect(&format!("put {number}")));
    assert!(server.counter("bytes_fetched") >= 4 * 200_000, "they went one-sided");
    server.kill();
    engine.ask("put 4");
    server.configure("network: {local: \"off\"}\n");
    server.start_again();
    assert_eq!(engine.answer(), "ok", "the request under way");
    (5..8).for_each(|number| engine.expect(&format!("put {number}")));
    (0..8).for_each(|number| engine.expect(&format!("get {number}")));
    assert_eq!(server.counter("connections_rdma"), 0);
    let told = engine.told();
    assert!(told.len() == 1 && told[0].contains("going on over TCP"), "{told:?}");
}

#[test]
fn a_strict_engine_does_not_open_without() {
    let test = "a_strict_engine_does_not_open_without";
    let Some(server) = serve(test, "network: {local: \"off\"}\n") else { return };
    let mut engine = Engine::start(&server.uri("ns"), &[], &STRICT);
    assert_eq!(engine.answer(), "refused");
    let told = engine.told();
    assert!(told.len() == 1 && told[0].contains("the server's `rdma` settings"), "{told:?}");
}

#[test]
fn a_device_that_is_not_there_is_named_and_so_are_the_others() {
    let Some(server) = serve("a_device_that_is_not_there_is_named_and_so_are_the_others", SERVED) else {
        return;
    };
    for transport in ["rdma", "auto"] {
        let environment = [("MEMKV_TRANSPORT", transport), ("MEMKV_RDMA_DEVICES", "none7")];
        let mut engine = Engine::start(&server.uri("ns"), &[], &environment);
        let opens = transport == "auto";
        assert_eq!(engine.answer(), if opens { "open" } else { "refused" });
        if opens {
            engine.expect("put 1");
            assert_eq!(server.counter("connections_rdma"), 0);
        }
        let told = engine.told();
        let names = |line: &str| line.contains("no RDMA device none7 here") && line.contains("there are: ");
        assert!(told.len() == 1 && names(&told[0]), "{told:?}");
    }
}

/// A process that may lock too little for a queue pair goes on over TCP; one that may lock enough for that, and not for its buffers, has
/// its bytes go with the frames.
#[test]
fn an_engine_that_may_lock_little_memory_goes_on_without() {
    let Some(server) = serve("an_engine_that_may_lock_little_memory_goes_on_without", SERVED) else { return };
    let mut strict = Engine::start(&server.uri("ns"), &confined("--memlock=65536"), &STRICT);
    assert_eq!(strict.answer(), "refused");
    let told = strict.told();
    assert!(told.iter().any(|line| line.contains("cannot open") && line.contains("ulimit -l")), "{told:?}");
    for (memlock, says, over_rdma) in [
        ("--memlock=65536", "going on over TCP", false),
        ("--memlock=33554432", "bytes go with the frames", true),
    ] {
        let before = ["connections_rdma", "bytes_fetched"].map(|name| server.counter(name));
        let mut engine = Engine::start(&server.uri("ns"), &confined(memlock), &AUTO);
        assert_eq!(engine.answer(), "open");
        engine.expect("put 5");
        engine.expect("get 5");
        let after = ["connections_rdma", "bytes_fetched"].map(|name| server.counter(name));
        assert_eq!((after[0] > before[0], after[1]), (over_rdma, before[1]), "{memlock}");
        let told = engine.told();
        assert!(told.iter().filter(|line| line.contains(says)).count() == 1, "{memlock}: {told:?}");
    }
}

/// Both sides have a device, and neither reaches the other: set-up succeeds, retries run out, and TCP is left.
#[test]
fn devices_that_do_not_reach_each_other_are_found_out() {
    let test = "devices_that_do_not_reach_each_other_are_found_out";
    if !has_rails(test) {
        return;
    }
    let Some(server) = serve(test, "rdma: {device: rxe1}\nnetwork: {local: \"off\"}\n") else { return };
    for transport in ["rdma", "auto"] {
        let environment = [("MEMKV_TRANSPORT", transport), ("MEMKV_RDMA_DEVICES", "rxe0")];
        let mut engine = Engine::start(&server.uri("ns"), &[], &environment);
        let opens = transport == "auto";
        assert_eq!(engine.answer(), if opens { "open" } else { "refused" });
        if opens {
            engine.expect("put 1");
            engine.expect("get 1");
            assert_eq!(server.counter("bytes_fetched"), 0);
        }
        let told = engine.told();
        assert!(told.len() == 1 && told[0].contains("packets do not pass"), "{told:?}");
    }
}

/// The devices of the guest.
const RAILS: [&str; 2] = ["rxe0", "rxe1"];

/// False, and the test counts as skipped, where there are other devices.
fn has_rails(test: &str) -> bool {
    let found = RAILS.iter().all(|rail| std::path::Path::new("/sys/class/infiniband").join(rail).exists());
    if !found {
        skip(test, "no RDMA devices rxe0 and rxe1 here, `cargo xtask test --rdma` makes them");
    }
    found
}

/// Packets that a device sent since it was made.
fn packets(device: &str) -> u64 {
    let path = format!("/sys/class/infiniband/{device}/ports/1/hw_counters/sent_pkts");
    let text = std::fs::read_to_string(path).expect("soft-RoCE counts its packets");
    text.trim().parse().expect("a number")
}

/// Connections take a client's devices in turn, and a server's nearest: both rails carry values, at the same time.
#[test]
fn two_devices_share_the_work() {
    let test = "two_devices_share_the_work";
    if !has_rails(test) {
        return;
    }
    let document = "rdma: {device: [rxe0, rxe1]}\nnetwork: {local: \"off\"}\n";
    let Some(server) = serve(test, document) else { return };
    let rdma_devices = RAILS.map(str::to_owned).to_vec();
    let config = Config { rdma_devices, ..config(&server, Transport::Rdma) };
    let settings = memkv_client::Settings { connections: 4, ..config.settings };
    let client = Client::connect(Config { settings, ..config }).expect("the server is up");
    let before = RAILS.map(packets);
    let values: Vec<Vec<u8>> = (0..16).map(|number| bytes(7, number, 1 << 20)).collect();
    let keys: Vec<[u8; 8]> = (0..16_u64).map(u64::to_le_bytes).collect();
    let put = |key: &[u8], value: &[u8]| {
        let value = [memkv_client::Buf::copy_of(value).expect("memory")];
        client.put(key, &value).expect("stored");
    };
    std::thread::scope(|scope| {
        for (keys, values) in keys.chunks(4).zip(values.chunks(4)) {
            scope.spawn(move || keys.iter().zip(values).for_each(|(key, value)| put(key, value)));
        }
    });
    for (key, value) in keys.iter().zip(&values) {
        assert!(client.get(key).expect("up").expect("stored").to_vec() == *value);
    }
    // 32 MiB in packets of at most 4 KiB.
    let sent = [0, 1].map(|rail| packets(RAILS[rail]) - before[rail]);
    assert!(sent.iter().sum::<u64>() > 8192 && sent.iter().all(|sent| *sent > 1024), "{sent:?}");
}
