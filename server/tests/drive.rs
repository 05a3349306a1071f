//! `memkv drive`, and drives that fail under a server: what people and scripts are told, and that the rest is served.
#![cfg(target_os = "linux")]

mod support;

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use memkv_wire::Status;
use serde_json::Value;
use support::loops::loops;
use support::{Client, KEY, Mode, Server, bytes, command, log};

/// On a file system that takes direct I/O, which a temporary one may not.
fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().to_owned();
    (directory, path)
}

fn drive(arguments: &[&str]) -> Output {
    command().arg("drive").args(arguments).output().unwrap()
}

fn said(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let bytes = if code == 2 { &output.stderr } else { &output.stdout };
    String::from_utf8(bytes.clone()).unwrap()
}

fn json(output: &Output, code: i32) -> Value {
    serde_json::from_str(&said(output, code)).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) -> bool {
    std::process::Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// A server in file mode with values `k0`, `k1`, ... of 300,000 bytes on all its shards.
async fn filled(path: &Path, count: u64) -> (Server, Client) {
    let server = Server::start(Mode::File, path);
    let mut client = Client::connect(&server.address, 1).await;
    for n in 0..count {
        assert_eq!(client.write(format!("k{n}").as_bytes(), &value(n)).await, Status::Ok);
    }
    (server, client)
}

fn value(n: u64) -> Vec<u8> {
    bytes(n + 1, 300_000)
}

/// How many of them are served; nothing may be served wrong.
async fn served(client: &mut Client, count: u64) -> u64 {
    let mut served = 0;
    for n in 0..count {
        match client.read(format!("k{n}").as_bytes(), 0, 0).await {
            Ok(found) => {
                assert!(found == value(n), "k{n}");
                served += 1;
            }
            Err(status) => assert!(matches!(status, Status::NotFound | Status::StorageFailed), "{status:?}"),
        }
    }
    served
}

fn shard(path: &Path, number: u16) -> PathBuf {
    path.join(format!("data/store/shard-{number:02}.memkv"))
}

fn find(paths: &[PathBuf], wanted: &[u8]) -> (PathBuf, u64) {
    for path in paths {
        let bytes = fs::read(path).unwrap();
        if let Some(at) = (0..bytes.len()).step_by(8).find(|at| bytes[*at..].starts_with(wanted)) {
            return (path.clone(), at as u64);
        }
    }
    panic!("the bytes are on a shard");
}

fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

fn stopped(server: Server) {
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

fn shards(path: &Path) -> Vec<PathBuf> {
    (0..8).map(|number| shard(path, number)).collect()
}

#[tokio::test]
async fn a_store_is_listed_inspected_and_checked() {
    let (_keep, path) = directory();
    let data = path.join("data");
    let at_data = ["--data", text(&data)];
    let nothing = drive(&[&["check"][..], &at_data].concat());
    assert!(said(&nothing, 2).contains("there is no store"), "{nothing:?}");
    let (server, _client) = filled(&path, 20).await;
    let in_use = said(&drive(&[&["check"][..], &at_data].concat()), 2);
    assert!(in_use.contains("in use") && in_use.contains("memkv drive scrub"), "{in_use}");
    let live = said(&drive(&[&["list"][..], &at_data].concat()), 0);
    assert!(live.contains("IN THE RUNNING SERVER") && live.contains("good"), "{live}");
    let busy = said(&drive(&["inspect", text(&shard(&path, 0))]), 0);
    assert!(busy.contains("in use") && busy.contains("drive 1 of 8"), "{busy}");
    stopped(server);

    let listed = json(&drive(&[&["list", "--json"][..], &at_data].concat()), 0);
    assert_eq!(listed["server"], Value::Null);
    let drives = listed["drives"].as_array().unwrap();
    assert_eq!(drives.len(), 8);
    let ids: Vec<_> = drives.iter().map(|drive| &drive["store"]["id"]).collect();
    assert!(ids.iter().all(|id| *id == ids[0] && id.as_str().unwrap().len() == 32), "{listed}");
    let records = |number| {
        let inspected = json(&drive(&["inspect", "--json", text(&shard(&path, number))]), 0);
        assert_eq!(inspected["store"]["clean"], true, "{inspected}");
        inspected["space"]["records"].as_u64().unwrap()
    };
    assert_eq!((0..8).map(records).sum::<u64>(), 20);

    let whole = said(&drive(&[&["check"][..], &at_data].concat()), 0);
    assert!(whole.contains("20 values") && whole.contains("all holds"), "{whole}");
    let (damaged, at) = find(&shards(&path), &value(7)[..64]);
    flip(&damaged, at + 200_000);
    let told = said(&drive(&[&["check"][..], &at_data].concat()), 1);
    assert!(told.contains("`k7` of namespace `test`") && told.contains(text(&damaged)), "{told}");
    let told = json(&drive(&[&["check", "--json"][..], &at_data].concat()), 1);
    assert_eq!((&told["holds"], told["problems"].as_array().unwrap().len()), (&Value::from(false), 1));
    // The same, named one by one.
    let paths = shards(&path);
    let named: Vec<&str> = ["check"].into_iter().chain(paths.iter().map(|path| text(path))).collect();
    assert!(said(&drive(&named), 1).contains("`k7`"));
}

#[test]
fn block_devices_are_listed_with_what_is_on_them() {
    let (_keep, path) = directory();
    let Some(loops) = loops("block_devices_are_listed_with_what_is_on_them", &path, 2, 64) else { return };
    let listed = |what: &str| {
        let listed = json(&drive(&["list", "--json"]), 0);
        let drives = listed["drives"].as_array().unwrap().clone();
        let of = |drive: &Value| drive["path"] == *loops[0].text() && drive["holds"] == *what;
        assert!(drives.iter().any(of), "{listed:#}");
    };
    listed("nothing");
    File::options().write(true).open(&loops[0].path).unwrap().write_all_at(b"EFI PART", 512).unwrap();
    listed("a partition table (GPT)");
    let output =
        command().args(["setup", "--force", "--data", text(&path), "--drives", loops[0].text()]).output();
    assert!(output.unwrap().status.success());
    listed("memkv");
    let inspected = said(&drive(&["inspect", loops[0].text()]), 0);
    assert!(inspected.contains("drive 1 of 1") && inspected.contains("14 free"), "{inspected}");
    assert!(said(&drive(&["inspect", loops[1].text()]), 0).contains("nothing"));
    assert!(said(&drive(&["check", loops[0].text()]), 0).contains("0 values"));
}

#[tokio::test]
async fn scrubbing_finds_damage_before_a_reader_does() {
    let (_keep, path) = directory();
    let data = path.join("data");
    let scrub = |more: &[&str]| drive(&[&["scrub", "--data", text(&data)][..], more].concat());
    let nobody = said(&scrub(&[]), 2);
    assert!(nobody.contains("no server answers"), "{nobody}");
    let (server, mut client) = filled(&path, 12).await;
    let socket = fs::metadata(data.join("control.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    assert!(said(&scrub(&["--status"]), 0).contains("never scrubbed"));
    let first = said(&scrub(&[]), 0);
    assert!(
        first.contains("complete") && first.contains("12 records") && first.contains("all hold"),
        "{first}"
    );
    let (damaged, at) = find(&shards(&path), &value(5)[..64]);
    flip(&damaged, at + 1000);
    let second = json(&scrub(&["--json"]), 1);
    assert_eq!(
        (&second["pass"]["damaged"], &second["pass"]["complete"]),
        (&Value::from(1), &Value::from(true))
    );
    assert_eq!(client.stat("checksum_failures").await, 1);
    assert_eq!(client.stat("values_lost").await, 1);
    assert!(log(&path).lines().any(|line| line.contains("does not hold") && line.contains(text(&damaged))));
    assert_eq!(client.read(b"k5", 0, 0).await, Err(Status::NotFound));
    assert_eq!(served(&mut client, 12).await, 11);
    assert_eq!(client.stat("checksum_failures").await, 1, "no reader met it");
    assert!(said(&scrub(&[]), 0).contains("11 records"));
    stopped(server);
    assert!(!data.join("control.sock").exists());
    // Passes are counted over the server's life.
    let server = Server::start(Mode::File, &path);
    assert_eq!(json(&scrub(&["--status", "--json"]), 0)["pass"]["number"], 3);
    drop(server);
}

#[tokio::test]
async fn a_slow_scrub_can_be_stopped_and_goes_on_after_a_restart() {
    let (_keep, path) = directory();
    let data = path.join("data");
    let config = path.join("slow.yaml");
    let storage = format!(
        "storage:\n  path: {}\n  capacity: 512MiB\n  scrub: {{rate: 1MiB/s, every: 30d}}\n",
        text(&data)
    );
    fs::write(&config, storage).unwrap();
    let start = || {
        let mut command = command();
        command.env("MEMKV_AUTH_KEY", KEY).args([
            "start",
            "--config",
            text(&config),
            "--listen",
            "127.0.0.1:0",
        ]);
        command.arg("--log-file").arg(path.join("memkv.log"));
        Server::spawn(command)
    };
    let scrub = |more: &[&str]| drive(&[&["scrub", "--config", text(&config)][..], more].concat());
    let server = start();
    let mut client = Client::connect(&server.address, 1).await;
    for n in 0..200 {
        assert_eq!(client.write(format!("k{n}").as_bytes(), &value(n)).await, Status::Ok);
    }
    assert!(said(&scrub(&["--no-wait"]), 0).contains("scrub"));
    while json(&scrub(&["--status", "--json"]), 0)["pass"].is_null() {}
    // A pass takes a minute at this rate; the server does not wait for it.
    stopped(server);
    let server = start();
    let status = json(&scrub(&["--status", "--json"]), 0);
    assert_eq!(
        (&status["running"], &status["pass"]["number"]),
        (&Value::from(true), &Value::from(1)),
        "{status}"
    );
    assert!(status["next_unix_s"].as_u64() > status["pass"]["started_unix_s"].as_u64());
    let _ = scrub(&["--stop"]);
    let ended = loop {
        let status = json(&scrub(&["--status", "--json"]), 0);
        if status["running"] == false {
            break status;
        }
    };
    assert_eq!(ended["pass"]["complete"], false);
    drop(server);
}

#[tokio::test]
async fn a_clean_stop_is_known_at_the_next_start() {
    let (_keep, path) = directory();
    let (server, _) = filled(&path, 3).await;
    server.kill();
    stopped(Server::start(Mode::File, &path));
    drop(Server::start(Mode::File, &path));
    let log = log(&path);
    let opened: Vec<_> = log.lines().filter(|line| line.contains("the store is open")).collect();
    assert_eq!(opened.len(), 3);
    assert!(opened[1].contains("clean=false") && opened[2].contains("clean=true"), "{log}");
}

/// Whatever happened to a shard while the server was down: it says so, names the shard, and serves the rest.
#[tokio::test]
async fn shards_that_are_gone_cut_short_or_swapped_are_named_and_the_rest_is_served() {
    let (_keep, path) = directory();
    let (server, _) = filled(&path, 60).await;
    stopped(server);
    let (_keep_other, other) = directory();
    stopped(filled(&other, 1).await.0);
    let expect = |broken: u16, reason: &str| {
        let (data, shard) = (path.join("data"), shard(&path, broken));
        let log = log(&path);
        let told = log.lines().any(|line| line.contains(text(&shard)) && line.contains(reason));
        assert!(told, "{reason}: {log}");
        let listed = json(&drive(&["list", "--json", "--data", text(&data)]), 0);
        let drives = listed["server"]["drives"].as_array().unwrap();
        let left_out = drives.iter().find(|drive| drive["path"] == *text(&shard)).unwrap();
        assert!(left_out["left_out"].as_str().unwrap().contains(reason), "{listed:#}");
    };
    let mut left = 60;
    for (broken, reason) in [
        (1, "gone"),
        (2, "smaller than when it was formatted"),
        (3, "another server"),
        (4, "says it is device"),
    ] {
        match broken {
            1 => fs::remove_file(shard(&path, 1)).unwrap(),
            2 => File::options().write(true).open(shard(&path, 2)).unwrap().set_len(5 << 20).unwrap(),
            3 => fs::copy(shard(&other, 3), shard(&path, 3)).map(drop).unwrap(),
            _ => fs::copy(shard(&path, 0), shard(&path, 4)).map(drop).unwrap(),
        }
        let data = path.join("data");
        let checked = said(&drive(&["check", "--data", text(&data)]), 1);
        assert!(checked.contains(reason) && checked.contains(text(&shard(&path, broken))), "{checked}");
        let server = Server::start(Mode::File, &path);
        let mut client = Client::connect(&server.address, 1).await;
        expect(broken, reason);
        let found = served(&mut client, 60).await;
        assert!(found <= left && found > 0, "{found} of {left}");
        left = found;
        assert_eq!(client.write(&[broken as u8], b"new values go elsewhere").await, Status::Ok);
        stopped(server);
    }
    assert!(left < 60);
    // One that was away while the server ran may have missed deletes: it does not come back with what it holds.
    let away = path.join("away");
    fs::rename(shard(&path, 5), &away).unwrap();
    let server = Server::start(Mode::File, &path);
    left = served(&mut Client::connect(&server.address, 1).await, 60).await;
    stopped(server);
    fs::rename(&away, shard(&path, 5)).unwrap();
    let server = Server::start(Mode::File, &path);
    expect(5, "left the store in generation");
    let mut client = Client::connect(&server.address, 1).await;
    assert_eq!(served(&mut client, 60).await, left);
    drop(server);
    for number in 0..8 {
        fs::write(shard(&path, number), b"").unwrap();
    }
    let output = command()
        .args(["start", "--data", text(&path.join("data")), "--listen", "127.0.0.1:0"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("cannot open the store") && told.contains("move it away"), "{told}");
}

#[tokio::test]
async fn a_shard_cut_short_under_a_server_costs_what_was_on_it() {
    let (_keep, path) = directory();
    let (server, mut client) = filled(&path, 150).await;
    let cut = shard(&path, 0);
    File::options().write(true).open(&cut).unwrap().set_len(0).unwrap();
    let first = served(&mut client, 150).await;
    assert!(first < 150 && first > 0, "{first}");
    let status = json(&drive(&["list", "--json", "--data", text(&path.join("data"))]), 0);
    let drives = status["server"]["drives"].as_array().unwrap();
    let failed: Vec<_> =
        drives.iter().filter(|drive| drive["failed"] == true).map(|drive| &drive["path"]).collect();
    assert_eq!(failed, [text(&cut)], "{status:#}");
    assert!(drives[0]["read_errors"].as_u64().unwrap() >= 8, "{status:#}");
    assert!(log(&path).lines().any(|line| line.contains("out of service") && line.contains(text(&cut))));
    assert_eq!(client.stat("devices_failed").await, 1);
    for n in 0..150 {
        assert_eq!(client.write(format!("k{n}").as_bytes(), &value(n)).await, Status::Ok);
    }
    assert_eq!(served(&mut client, 150).await, 150);
    stopped(server);
}

/// The file under a loop device is cut away: the device answers with errors, or with zeros.
#[tokio::test]
async fn a_drive_that_fails_is_left_behind() {
    let (_keep, path) = directory();
    let Some(loops) = loops("a_drive_that_fails_is_left_behind", &path, 2, 128) else { return };
    let drives = format!("{},{}", loops[0].text(), loops[1].text());
    let data = path.join("data");
    let made = command().args(["setup", "--data", text(&data), "--drives", &drives]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let config = path.join("config.yaml");
    fs::write(&config, made.stdout).unwrap();
    let start = || {
        let mut command = command();
        command.env("MEMKV_AUTH_KEY", KEY).args([
            "start",
            "--config",
            text(&config),
            "--listen",
            "127.0.0.1:0",
        ]);
        command.arg("--log-file").arg(path.join("memkv.log"));
        Server::spawn(command)
    };
    let server = start();
    let mut client = Client::connect(&server.address, 1).await;
    for n in 0..100 {
        assert_eq!(client.write(format!("k{n}").as_bytes(), &value(n)).await, Status::Ok);
    }
    File::options().write(true).open(&loops[1].file).unwrap().set_len(0).unwrap();
    let left = served(&mut client, 100).await;
    assert!((20..100).contains(&left), "{left}");
    assert_eq!(served(&mut client, 100).await, left, "the others stay");
    // They can be stored again, and are served from wherever they are now.
    for n in 0..100 {
        assert_eq!(client.write(format!("k{n}").as_bytes(), &value(n)).await, Status::Ok);
    }
    assert_eq!(served(&mut client, 100).await, 100);
    let lost = client.stat("values_lost").await;
    assert_eq!(lost, 100 - left);
    let listed = said(&drive(&["list", "--config", text(&config)]), 0);
    let row = listed
        .lines()
        .skip_while(|line| !line.contains("RUNNING"))
        .find(|line| line.contains(loops[1].text()));
    let failed = client.stat("devices_failed").await == 1;
    assert_eq!(row.is_some_and(|row| row.contains("failed")), failed, "{listed}");
    let told =
        log(&path).lines().any(|line| line.contains("out of service") && line.contains(loops[1].text()));
    assert_eq!(told, failed, "{}", log(&path));
    server.kill();
    let server = start();
    let mut client = Client::connect(&server.address, 1).await;
    let left_out = log(&path).lines().any(|line| line.contains("left out") && line.contains(loops[1].text()));
    assert!(left_out, "{}", log(&path));
    assert!(served(&mut client, 100).await >= left);
    stopped(server);
}

/// A file system of a few MiB; unmounted when dropped.
struct Small {
    point: PathBuf,
}

impl Small {
    fn mount(test: &str, point: &Path, size: &str) -> Option<Small> {
        fs::create_dir(point).unwrap();
        let size = format!("size={size}");
        if run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", text(point)]) {
            return Some(Small { point: point.to_owned() });
        }
        println!("MEMKV-SKIP {test} no file system can be mounted here");
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run("umount", &["--lazy", text(&self.point)]);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_what_is_new_and_keeps_what_is_there() {
    let (_keep, path) = directory();
    let data = path.join("data");
    let Some(_small) = Small::mount("a_full_disk_refuses_what_is_new_and_keeps_what_is_there", &data, "24m")
    else {
        return;
    };
    let server = Server::start(Mode::File, &path);
    let mut client = Client::connect(&server.address, 1).await;
    let mut written = Vec::new();
    let refused = loop {
        let n = written.len() as u64;
        match client.write(format!("k{n}").as_bytes(), &value(n)).await {
            Status::Ok => written.push(n),
            status => break status,
        }
        assert!(n < 100, "24 MiB hold less");
    };
    assert_eq!(refused, Status::OutOfSpace, "{}", log(&path));
    assert!(written.len() > 20, "{}", written.len());
    assert!(log(&path).contains("no space left"), "{}", log(&path));
    assert_eq!(served(&mut client, written.len() as u64).await, written.len() as u64);
    assert_eq!(client.stat("devices_failed").await, 0);
    // Its journals wait for room, and it does not say that all is in good order. What it holds is served when there is room again.
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(1), "{}", log(&path));
    assert!(run("mount", &["-o", "remount,size=64m", text(&data)]));
    let server = Server::start(Mode::File, &path);
    let mut client = Client::connect(&server.address, 2).await;
    assert_eq!(served(&mut client, written.len() as u64).await, written.len() as u64);
    assert_eq!(client.stat("devices_failed").await, 0);
    stopped(server);
}

#[test]
fn a_disk_too_full_to_begin_with_is_told() {
    let (_keep, path) = directory();
    let data = path.join("data");
    let Some(_small) = Small::mount("a_disk_too_full_to_begin_with_is_told", &data, "32k") else { return };
    let output =
        command().args(["start", "--data", text(&data), "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("no space left") && told.contains("--data DIR"), "{told}");
    assert!(!data.join("store").exists());
}

/// Without root's rights and with no memory to lock some kernels refuse io_uring, as many containers do.
#[tokio::test]
async fn file_mode_needs_no_rights() {
    let (_keep, path) = directory();
    let data = path.join("data");
    fs::create_dir(&data).unwrap();
    let mut limited = std::process::Command::new("sh");
    limited.env("MEMKV_AUTH_KEY", KEY).args(["-c", "ulimit -l 0 && exec \"$0\" \"$@\""]);
    limited.arg(command().get_program()).args(["start", "--listen", "127.0.0.1:0", "--data", text(&data)]);
    if rustix::process::getuid().is_root() {
        std::os::unix::fs::chown(&data, Some(65534), Some(65534)).unwrap();
        limited.uid(65534).gid(65534);
    }
    let server = Server::spawn(limited);
    let mut client = Client::connect(&server.address, 1).await;
    for n in 0..10 {
        assert_eq!(client.write(format!("k{n}").as_bytes(), &value(n)).await, Status::Ok);
    }
    assert_eq!(served(&mut client, 10).await, 10);
    stopped(server);
}

#[test]
fn what_may_not_be_used_is_told() {
    let (_keep, path) = directory();
    let data = path.join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o500)).unwrap();
    let as_nobody = |arguments: &[&str]| {
        let mut command = command();
        if rustix::process::getuid().is_root() {
            command.uid(65534).gid(65534);
        }
        command.args(arguments).output().unwrap()
    };
    let output = as_nobody(&["start", "--data", text(&data), "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("ermission denied") && told.contains("--data DIR"), "{told}");
    let closed = path.join("drive");
    File::create(&closed).unwrap().set_len(64 << 20).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let output = as_nobody(&["drive", "inspect", text(&closed)]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("ermission denied"));
    let output = as_nobody(&["setup", "--data", text(&path), "--drives", text(&closed)]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("ermission denied"));
}
