//! The `memkv` command.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    memkv_server::cli::run()
}
