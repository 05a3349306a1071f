//! The command as people and scripts meet it: what it prints, refuses, keeps, and how it ends.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use memkv_transport::error::TransportError;
use memkv_wire::Status;
use support::*;

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command().args(arguments).envs(environment.iter().copied()).output().unwrap()
}

/// Runs a command that must fail, and answers what it said.
fn refusal(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = run(arguments, environment);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn with_no_configuration_it_serves_and_says_how_to_use_it() {
    let (_keep, path) = directory();
    let start = || {
        let mut command = command();
        command.env("XDG_DATA_HOME", &path).args(["start", "--listen", "127.0.0.1:0"]);
        command.args(["--log-file", text(&path.join("log"))]);
        Server::spawn(command)
    };
    let server = start();
    let key = server.exports[0].strip_prefix("export MEMKV_AUTH_KEY=").unwrap().to_owned();
    assert!(server.exports[1].contains("KV_STORE_LIBRARY_PATH"), "{:?}", server.exports);
    let mode = std::fs::metadata(path.join("memkv/auth.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let mut client = Client::try_connect(&server.address, 1, &key).await.unwrap();
    assert_eq!(client.write(b"k", b"value").await, Status::Ok);
    server.kill();
    let server = start();
    assert_eq!(server.exports[0], format!("export MEMKV_AUTH_KEY={key}"), "the key is kept");
    let mut client = Client::try_connect(&server.address, 1, &key).await.unwrap();
    assert_eq!(client.read(b"k", 0, 0).await, Ok(b"value".to_vec()));
}

#[test]
fn keygen_makes_a_new_key_each_time() {
    let keys = [run(&["keygen"], &[]), run(&["keygen"], &[])].map(|output| {
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    });
    for key in &keys {
        assert_eq!(key.trim().len(), 64);
        assert!(key.trim().chars().all(|digit| digit.is_ascii_hexdigit()));
    }
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn a_configuration_is_checked_before_it_is_used() {
    let (_keep, path) = directory();
    let file = path.join("config.yaml");
    let check = ["config", "check", text(&file)];
    std::fs::write(&file, format!("network:\n  auth_key: {KEY}\nstorage:\n  capacity: 2GiB\n")).unwrap();
    let output = run(&check, &[("HOME", text(&path))]);
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("2GiB") && !said.contains(KEY), "{said}");
    for (document, expected) in [
        ("storage:\n  mode: disk\n", &["disk", "file", "memory", "2"][..]),
        ("storage:\n  size: 1GiB\n", &["size", "capacity", "2"]),
        ("network:\n  auth_key: abc\n", &["64 hexadecimal", "keygen"]),
        ("log: [1]\n", &["log"]),
        ("storage:\n  drives: [/dev/a]\n", &["config.yaml, line 2", "direct"]),
        ("storage:\n  mode: direct\n  drives: [/dev/a]\n  capacity: 1GiB\n", &["line 4", "direct"]),
        ("storage:\n  scrub: {rate: 5}\n", &["50MiB/s", "2"]),
        ("storage:\n  quotas:\n    a: much\n", &["much", "3"]),
        ("storage: {\n", &["config.yaml"]),
    ] {
        std::fs::write(&file, document).unwrap();
        let said = refusal(&check, &[("HOME", text(&path))]);
        for word in expected {
            assert!(said.contains(word), "{word}: {said}");
        }
        let start = ["start", "--config", text(&file), "--listen", "127.0.0.1:0"];
        assert!(refusal(&start, &[("HOME", text(&path))]).contains(expected[0]));
    }
    std::fs::remove_file(&file).unwrap();
    assert!(refusal(&check, &[]).contains("config.yaml"));
}

#[test]
fn what_cannot_be_used_is_named_with_what_to_do() {
    let (_keep, path) = directory();
    let data = path.join("data");
    let log = path.join("log");
    let start = |more: &[&str]| {
        let mut all = vec!["start", "--data", text(&data), "--log-file", text(&log)];
        all.extend(more);
        refusal(&all, &[])
    };
    let mut first = command();
    first.args(["start", "--data", text(&data), "--listen", "127.0.0.1:0", "--log-file", text(&log)]);
    let server = Server::spawn(first);
    let said = start(&["--listen", "127.0.0.1:0"]);
    assert!(said.contains("in use by another server") && said.contains("--data"), "{said}");
    let other = path.join("other");
    let arguments = ["start", "--data", text(&other), "--listen", &server.address];
    let said = refusal(&arguments, &[]);
    assert!(said.contains("in use") && said.contains("--listen"), "{said}");
    drop(server);
    std::fs::set_permissions(data.join("auth.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = start(&["--listen", "127.0.0.1:0"]);
    assert!(said.contains("0644") && said.contains("chmod 600"), "{said}");
    let said = refusal(&["start", "--data", text(&data.join("auth.key/x"))], &[]);
    assert!(said.contains("--data DIR"), "{said}");
    let said = refusal(&["start", "--data", text(&other)], &[("MEMKV_AUTH_KEY", "short")]);
    assert!(said.contains("MEMKV_AUTH_KEY") && said.contains("64 hexadecimal"), "{said}");
    assert!(!said.contains("short"), "a key is never quoted: {said}");
    let said = refusal(&["start", "--data", text(&other), "--listen", "nowhere"], &[]);
    assert!(said.contains("HOST:PORT"), "{said}");
    let said = refusal(&["start", "--data", text(&other), "--log-file", "/nonexistent/log"], &[]);
    assert!(said.contains("--log-file"), "{said}");
}

#[tokio::test]
async fn a_signal_ends_it_in_good_order() {
    for (mode, name) in [(Mode::File, "TERM"), (Mode::Memory, "INT")] {
        let (_keep, path) = directory();
        let server = Server::start(mode, &path);
        let mut client = Client::connect(&server.address, 1).await;
        assert_eq!(client.write(b"k", &bytes(1, 100_000)).await, Status::Ok);
        server.signal(name);
        assert!(client.next().await.is_none(), "the connection ends");
        assert_eq!(server.wait().code(), Some(0));
        assert!(log(&path).contains("stopped in good order"), "{}", log(&path));
    }
}

#[tokio::test]
async fn the_seeds_command_line_works_and_logs_can_be_json() {
    let (_keep, path) = directory();
    let mut command = command();
    command.env("MEMKV_AUTH_KEY", KEY).args([
        "start",
        "--license",
        "/nonexistent",
        "--listen",
        "127.0.0.1:0",
    ]);
    command.args(["--data", text(&path.join("data")), "--log-format", "json"]);
    command.args(["--log-file", text(&path.join("memkv.log"))]).stderr(std::process::Stdio::piped());
    let server = Server::spawn(command);
    Client::connect(&server.address, 1).await;
    server.signal("TERM");
    server.wait();
    let lines = log(&path);
    assert!(lines.lines().count() >= 3, "{lines}");
    for line in lines.lines() {
        assert!(line.starts_with('{') && line.ends_with('}') && line.contains("\"level\""), "{line}");
        assert!(!line.contains(KEY));
    }
}

//= MKV-CONN-6 test
#[tokio::test]
async fn keys_rotate_and_data_does_not_depend_on_them() {
    let other = "ff".repeat(32);
    let (_keep, path) = directory();
    let server = Server::start(Mode::File, &path);
    let mut client = Client::connect(&server.address, 1).await;
    assert_eq!(client.write(b"k", b"value").await, Status::Ok);
    assert!(Client::try_connect(&server.address, 1, &other).await.is_err());
    server.kill();
    // Both keys, from the configuration.
    let config = path.join("both.yaml");
    let keys = format!("network:\n  auth_keys: [\"{other}\", \"{KEY}\"]\n");
    let data = path.join("data");
    std::fs::write(&config, format!("{keys}storage:\n  path: {}\n", data.display())).unwrap();
    let mut both = command();
    both.args([
        "start",
        "--config",
        text(&config),
        "--listen",
        "127.0.0.1:0",
        "--log-file",
        text(&path.join("log")),
    ]);
    let server = Server::spawn(both);
    assert!(
        server.exports.iter().all(|line| !line.contains("MEMKV_AUTH_KEY")),
        "a configured key is not printed"
    );
    for key in [KEY, &other] {
        let mut client = Client::try_connect(&server.address, 1, key).await.unwrap();
        assert_eq!(client.read(b"k", 0, 0).await, Ok(b"value".to_vec()));
    }
    server.kill();
    let server = Server::start_with(Mode::File, &path, &other, "");
    let refused = Client::try_connect(&server.address, 1, KEY).await;
    assert!(matches!(refused.err(), Some(TransportError::Setup(_))));
    let mut client = Client::try_connect(&server.address, 1, &other).await.unwrap();
    assert_eq!(client.read(b"k", 0, 0).await, Ok(b"value".to_vec()));
}

#[test]
fn other_commands_are_programs_of_their_own() {
    let (_keep, path) = directory();
    let program = path.join("memkv-greet");
    std::fs::write(&program, "#!/bin/sh\necho \"hello $*\"\nexit 7\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = run(&["greet", "--loud", "x y"], &[("PATH", text(&path))]);
    assert_eq!(output.status.code(), Some(7), "the program's own exit code");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "hello --loud x y\n");
    for (name, said) in
        [("nobody", "no program memkv-nobody"), ("../greet", "no command"), ("stat", "--help")]
    {
        let output = run(&[name], &[("PATH", text(&path))]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{output:?}");
    }
}
