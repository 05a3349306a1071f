//! Consumers in C and Python, against every backend.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use support::backend::{Backend, Directory, Memkv};

#[test]
fn the_c_probe_holds_on_a_directory() {
    probe("the_c_probe_holds_on_a_directory", || Box::new(Directory::new()));
}

#[test]
fn the_c_probe_holds_on_memkv() {
    probe("the_c_probe_holds_on_memkv", || Box::new(Memkv::new()));
}

#[test]
fn omlx_habits_hold_on_memkv() {
    omlx("omlx_habits_hold_on_memkv", || Box::new(Memkv::new()));
}

/// The engine keeps its handle while the server is killed and comes back.
#[test]
fn a_handle_outlives_its_server() {
    if support::missing_tool(&["python3"]).is_some() {
        return support::skip("a_handle_outlives_its_server", "python3 is not installed");
    }
    let mut backend = Memkv::new();
    let mut command = omlx_command(&backend, "restart");
    let mut engine = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 starts");
    let mut said = String::new();
    let output = engine.stdout.as_mut().expect("stdout is a pipe");
    BufReader::new(output).read_line(&mut said).expect("stdout can be read");
    assert_eq!(said, "READY\n");
    backend.crash();
    writeln!(engine.stdin.as_mut().expect("stdin is a pipe")).expect("stdin can be written");
    let status = engine.wait().expect("python3 ends");
    assert!(status.success(), "see the message on stderr: {status}");
}

#[test]
fn omlx_habits_hold_on_a_directory() {
    omlx("omlx_habits_hold_on_a_directory", || Box::new(Directory::new()));
}

/// Compiled as C and as C++, plain and under valgrind, each on an empty store.
fn probe(test: &str, backend: impl Fn() -> Box<dyn Backend>) {
    if let Some(tool) = support::missing_tool(&["gcc", "g++"]) {
        return support::skip(test, &format!("{tool} is not installed"));
    }
    let directory = support::scratch(test);
    let source = support::repository().join("abi/tests/consumers/probe.c");
    let compilers = [("gcc", ["-x", "c", "-std=c11"]), ("g++", ["-x", "c++", "-std=c++17"])];
    for (compiler, language) in compilers {
        let program = directory.join(format!("probe-{compiler}"));
        support::run(
            Command::new(compiler)
                .args(["-Wall", "-Wextra", "-Werror", "-g"])
                .arg(support::header_directory())
                .args(language)
                .arg(&source)
                .args(["-x", "none", "-ldl", "-o"])
                .arg(&program),
        );
        run_probe(&mut Command::new(program), backend());
    }
    if support::missing_tool(&["valgrind"]).is_some() {
        return support::skip(test, "under valgrind: valgrind is not installed");
    }
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--leak-check=full", "--error-exitcode=9"]);
    // What a library keeps until the process ends is no leak.
    valgrind.args(["--errors-for-leak-kinds=definite,indirect", "--show-leak-kinds=definite,indirect"]);
    run_probe(valgrind.arg(directory.join("probe-gcc")), backend());
}

fn run_probe(command: &mut Command, backend: Box<dyn Backend>) {
    backend.configure(command);
    support::run(command.arg(backend.library()).arg(backend.uri()));
}

fn omlx(test: &str, backend: impl Fn() -> Box<dyn Backend>) {
    if support::missing_tool(&["python3"]).is_some() {
        return support::skip(test, "python3 is not installed");
    }
    let mut backend = backend();
    support::run(&mut omlx_command(backend.as_ref(), "fill"));
    backend.crash();
    support::run(&mut omlx_command(backend.as_ref(), "verify"));
}

fn omlx_command(backend: &dyn Backend, mode: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(support::repository().join("abi/tests/consumers/omlx.py"));
    command.arg(backend.library()).arg(backend.uri()).arg(mode);
    backend.configure(&mut command);
    command
}
