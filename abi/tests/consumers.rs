//! Consumers in C and Python, against every backend.

mod support;

use std::process::Command;

use support::backend::{Backend, Directory};

#[test]
fn the_c_probe_holds_on_a_directory() {
    probe("the_c_probe_holds_on_a_directory", || Box::new(Directory::new()));
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
                .args(support::header_directories())
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
    valgrind.args([
        "--quiet",
        "--leak-check=full",
        "--errors-for-leak-kinds=definite,indirect",
        "--error-exitcode=9",
    ]);
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
