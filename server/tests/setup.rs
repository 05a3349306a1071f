//! `memkv setup`: which drives it takes, which it refuses, and what it leaves behind.
#![cfg(target_os = "linux")]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Output;

use memkv_wire::Status;
use support::loops::loops;
use support::{Client, KEY, Server, bytes, command, log};

/// On a file system that takes direct I/O, which a temporary one may not.
fn directory() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().to_owned();
    (directory, path)
}

fn setup(data: &Path, drives: &[&str], more: &[&str]) -> Output {
    let mut command = command();
    command.arg("setup").arg("--data").arg(data.join("data")).args(["--drives", &drives.join(",")]);
    command.args(more).output().unwrap()
}

/// Drives of 48 MiB: files, for what does not depend on block devices.
fn files(directory: &Path, count: usize) -> Vec<String> {
    let path = |n| directory.join(format!("drive-{n}"));
    let make = |n| fs::File::create(path(n)).unwrap().set_len(48 << 20).unwrap();
    (0..count).for_each(make);
    (0..count).map(|n| path(n).to_str().unwrap().to_owned()).collect()
}

fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

fn made(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "nothing but a configuration goes to standard output");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn start(data: &Path, config: &str) -> Server {
    let file = data.join("config.yaml");
    fs::write(&file, config).unwrap();
    let mut command = command();
    command.env("MEMKV_AUTH_KEY", KEY).arg("start").arg("--config").arg(&file);
    command.arg("--listen").arg("127.0.0.1:0").arg("--log-file").arg(data.join("memkv.log"));
    Server::spawn(command)
}

#[tokio::test]
async fn drives_become_a_store_that_a_server_uses() {
    let (_keep, path) = directory();
    let Some(loops) = loops("drives_become_a_store_that_a_server_uses", &path, 2, 64) else { return };
    let drives = [loops[0].text(), loops[1].text()];
    let config = made(&setup(&path, &drives, &["--quotas", "test=4MiB"]));
    assert!(drives.iter().all(|drive| config.contains(drive)), "{config}");
    let server = start(&path, &config);
    let mut client = Client::connect(&server.address, 1).await;
    let value = bytes(7, 3_000_000);
    assert_eq!(client.write(b"k", &value).await, Status::Ok);
    assert_eq!(client.write(b"too much", &bytes(8, 2_000_000)).await, Status::QuotaExceeded);
    assert_eq!(client.read(b"k", 0, 0).await, Ok(value.clone()));
    // Both are the server's alone.
    let said = refused(&setup(&path, &drives, &["--force"]));
    assert!(said.contains("in use"), "{said}");
    server.kill();
    let server = start(&path, &config);
    let mut client = Client::connect(&server.address, 1).await;
    assert_eq!(client.read(b"k", 0, 0).await, Ok(value));
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    let server = start(&path, &config);
    server.kill();
    let log = log(&path);
    let clean: Vec<_> = log.lines().filter(|line| line.contains("the store is open")).collect();
    assert_eq!(clean.len(), 3, "{log}");
    assert!(clean[1].contains("clean=false") && clean[2].contains("clean=true"), "{log}");
}

/// Where little memory may be locked: without root's rights, and with a small limit.
#[tokio::test]
async fn a_server_that_may_lock_little_memory_serves_all_the_same() {
    let (_keep, path) = directory();
    let names = files(&path, 2);
    let config = made(&setup(&path, &refs(&names), &[]));
    let file = path.join("config.yaml");
    fs::write(&file, config).unwrap();
    let mut limited = std::process::Command::new("sh");
    limited.env("MEMKV_AUTH_KEY", KEY).args(["-c", "ulimit -l 1024 && exec \"$0\" \"$@\""]);
    limited.arg(command().get_program()).args(["start", "--listen", "127.0.0.1:0"]);
    limited.arg("--config").arg(&file).arg("--log-file").arg(path.join("memkv.log"));
    if rustix::process::getuid().is_root() {
        for name in names.iter().map(Path::new).chain([path.as_path()]) {
            std::os::unix::fs::chown(name, Some(65534), Some(65534)).unwrap();
        }
        limited.uid(65534).gid(65534);
    }
    let server = Server::spawn(limited);
    let mut client = Client::connect(&server.address, 1).await;
    for n in 0..10 {
        assert_eq!(client.write(&[n], &bytes(u64::from(n) + 1, 10_000 + usize::from(n))).await, Status::Ok);
    }
    for n in 0..10 {
        assert_eq!(client.read(&[n], 0, 0).await, Ok(bytes(u64::from(n) + 1, 10_000 + usize::from(n))));
    }
    assert!(log(&path).contains("ulimit -l"), "{}", log(&path));
}

#[test]
fn what_is_on_a_drive_is_not_overwritten_unasked() {
    let (_keep, path) = directory();
    let names = files(&path, 2);
    let drives = refs(&names);
    let second = fs::File::options().write(true).open(&names[1]).unwrap();
    for (offset, bytes, expected) in [
        (1024 + 56, &b"\x53\xef"[..], "ext"),
        (512, b"EFI PART", "GPT"),
        (0, b"LUKS\xba\xbe", "LUKS"),
        (700_000, b"x", "not all zeros"),
        ((48 << 20) - 512, b"EFI PART", "GPT"),
    ] {
        second.write_all_at(bytes, offset).unwrap();
        let said = refused(&setup(&path, &drives, &[]));
        assert!(said.contains(expected) && said.contains(&names[1]) && said.contains("--force"), "{said}");
        second.write_all_at(&vec![0; bytes.len()], offset).unwrap();
    }
    second.write_all_at(b"EFI PART", 512).unwrap();
    second.write_all_at(b"EFI PART", (48 << 20) - 512).unwrap();
    made(&setup(&path, &drives, &["--force"]));
    let mut end = [1; 8];
    second.set_len(48 << 20).unwrap();
    fs::File::open(&names[1]).unwrap().read_exact_at(&mut end, (48 << 20) - 512).unwrap();
    assert_eq!(end, [0; 8], "the copy at the end is gone, too");
}

#[test]
fn drives_that_cannot_be_are_named() {
    let (_keep, path) = directory();
    let names = files(&path, 2);
    let link = path.join("link");
    std::os::unix::fs::symlink(&names[0], &link).unwrap();
    let small = path.join("small");
    fs::File::create(&small).unwrap().set_len(8 << 20).unwrap();
    let held = fs::File::open(&names[1]).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockShared).unwrap();
    for (second, expected) in [
        (link.to_str().unwrap(), "same drive"),
        ("/nonexistent", "/nonexistent"),
        (path.to_str().unwrap(), "neither a block device nor a file"),
        (small.to_str().unwrap(), "less than the least"),
        (&names[1], "in use by another process"),
    ] {
        for more in [&[][..], &["--force"]] {
            let said = refused(&setup(&path, &[&names[0], second], more));
            assert!(said.contains(expected), "{said}");
        }
    }
    let mut start = [1; 4096];
    fs::File::open(&names[0]).unwrap().read_exact_at(&mut start, 64 << 10).unwrap();
    assert_eq!(start, [0; 4096], "a setup that is refused writes to no drive");
    let output = setup(&path, &[&names[0]], &["--quotas", "a=much"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_mounted_drive_is_refused_even_by_force() {
    let (_keep, path) = directory();
    let Some(loops) = loops("a_mounted_drive_is_refused_even_by_force", &path, 1, 64) else { return };
    let point = path.join("mounted");
    fs::create_dir(&point).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        std::process::Command::new(program).args(arguments).output().is_ok_and(|out| out.status.success())
    };
    let mounted = run("mkfs.ext4", &["-q", loops[0].text()])
        && run("mount", &[loops[0].text(), point.to_str().unwrap()]);
    if !mounted {
        println!(
            "MEMKV-SKIP a_mounted_drive_is_refused_even_by_force no file system can be made and mounted here"
        );
        return;
    }
    let output = setup(&path, &[loops[0].text()], &["--force"]);
    assert!(run("umount", &[point.to_str().unwrap()]));
    let said = refused(&output);
    assert!(said.contains("mounted at") && said.contains(point.to_str().unwrap()), "{said}");
    let said = refused(&setup(&path, &[loops[0].text()], &[]));
    assert!(said.contains("ext2, ext3 or ext4"), "{said}");
}

#[test]
fn idempotent_means_that_a_whole_store_is_left_as_it_is() {
    let (_keep, path) = directory();
    let names = files(&path, 3);
    let drives = refs(&names);
    let config = made(&setup(&path, &drives, &["--idempotent"]));
    assert_eq!(made(&setup(&path, &drives, &["--idempotent"])), config);
    let said = refused(&setup(&path, &drives, &[]));
    assert!(said.contains("--idempotent") && said.contains("--force"), "{said}");
    drop(start(&path, &config));
    assert_eq!(made(&setup(&path, &drives, &["--idempotent", "--force"])), config);
    // A part of it is no store.
    let said = refused(&setup(&path, &drives[..2], &["--idempotent"]));
    assert!(said.contains("drive 1 of 3"), "{said}");
    let other = made(&setup(&path, &drives, &["--force"]));
    assert_ne!(other, config);
}

#[test]
fn a_setup_cut_short_leaves_no_store_and_can_be_repeated() {
    let (_keep, path) = directory();
    let names = files(&path, 3);
    let drives = refs(&names);
    let config = made(&setup(&path, &drives, &[]));
    // As if it had ended before it came to the third.
    let third = fs::File::options().write(true).open(&names[2]).unwrap();
    third.write_all_at(&vec![0; 1 << 20], 0).unwrap();
    let file = path.join("config.yaml");
    fs::write(&file, &config).unwrap();
    let output = command().arg("start").arg("--config").arg(&file).args(["--listen", "127.0.0.1:0"]).output();
    let said = refused(&output.unwrap());
    assert!(said.contains("2 of 3") && said.contains("memkv setup"), "{said}");
    let said = refused(&setup(&path, &drives, &[]));
    assert!(said.contains("never started"), "{said}");
    let again = made(&setup(&path, &drives, &["--idempotent"]));
    assert_ne!(again, config, "a new store");
    drop(start(&path, &again));
}

#[tokio::test]
async fn drives_of_another_store_are_left_out() {
    let (_keep, path) = directory();
    let names = files(&path, 4);
    let (ours, theirs) = names.split_at(2);
    let config = made(&setup(&path, &refs(ours), &[]));
    let _ = made(&setup(&path, &refs(theirs), &[]));
    drop(start(&path, &config));
    // Someone put another store's drives in two of the three places.
    let mixed = config.replace(&ours[1], &format!("{}\"\n    - \"{}", theirs[0], theirs[1]));
    let server = start(&path, &mixed);
    let log = log(&path);
    for drive in theirs {
        assert!(log.lines().any(|line| line.contains(drive) && line.contains("another server")), "{log}");
    }
    let mut client = Client::connect(&server.address, 1).await;
    assert_eq!(client.write(b"k", b"value").await, Status::Ok);
    assert_eq!(client.read(b"k", 0, 0).await, Ok(b"value".to_vec()));
}
