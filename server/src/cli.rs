//! The `memkv` command line: what each subcommand takes, and its exit code.
//!
//! What a person or a script needs goes to standard output; log lines and errors go to standard error.
//! Exit codes: 0 done, 1 failed (one line says why and what to do), 2 the command line itself is wrong. Of `drive check` and
//! `drive scrub`, which are for scripts: 0 nothing found, 1 damage found, 2 it could not be looked for.

mod drive;
mod external;
mod setup;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigError, Environment, File, LogFormat, Overrides, Settings};
use crate::keys;
use crate::start::{self, StartError};

/// An open, distributed store for inference context (KV cache).
#[derive(Debug, Parser)]
#[command(
    name = "memkv",
    version,
    arg_required_else_help = true,
    after_help = external::HELP
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server. With no configuration at all: file mode in a data directory, on 127.0.0.1:9900.
    Start(StartArgs),
    /// Make whole drives one store, for direct mode, and print a configuration for it.
    Setup(setup::Args),
    /// Look at drives: what is on them, whether it holds, and how they fare in a running server.
    #[command(subcommand)]
    Drive(drive::Command),
    /// Make a new shared key and print it.
    Keygen,
    /// Work with configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// `memkv NAME ...` for any other name runs `memkv-NAME ...`.
    #[command(external_subcommand)]
    External(Vec<OsString>),
}

#[derive(Debug, Args)]
struct StartArgs {
    /// The configuration (YAML).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where values, the key and the server's identity are kept [default: $XDG_DATA_HOME/memkv].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The address to listen on; port 0 lets the system choose [default: 127.0.0.1:9900].
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Write log lines to this file instead of standard error.
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// How log lines look [default: text].
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Accepted for compatibility; MemKV needs no license.
    #[arg(long, value_name = "FILE")]
    license: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Read a configuration and say whether a server would take it.
    Check {
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Key(#[from] keys::KeyError),
    #[error(transparent)]
    Setup(#[from] setup::SetupCommandError),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::Drive(command) => {
            return drive::run(command).unwrap_or_else(|failed| {
                let _ = writeln!(io::stderr(), "memkv: {}", failed.error);
                failed.code
            });
        }
        Command::Start(args) => start(args),
        Command::Setup(args) => setup::run(args).map_err(CliError::Setup),
        Command::Keygen => keygen(),
        Command::Config(ConfigCommand::Check { file }) => config_check(file),
        Command::External(words) => return external::run(&words).unwrap_or_else(|error| failed(&error, 2)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error, 1),
    }
}

fn failed(error: &dyn std::error::Error, code: u8) -> ExitCode {
    // Standard error may be gone too; the exit code still tells.
    let _ = writeln!(io::stderr(), "memkv: {error}");
    ExitCode::from(code)
}

fn start(args: StartArgs) -> Result<(), CliError> {
    if let Some(license) = &args.license {
        writeln!(io::stderr(), "memkv: no license is needed; {} is not read", license.display())?;
    }
    let configured = args.config.is_some();
    let file = args.config.as_deref().map(File::load).transpose()?.unwrap_or_default();
    let overrides = Overrides {
        address: args.listen,
        data: args.data,
        log_file: args.log_file,
        log_format: args.log_format,
    };
    let settings = Settings::resolve(file, overrides, &Environment::of_process())?;
    Ok(start::run(settings, configured)?)
}

fn keygen() -> Result<(), CliError> {
    let key = keys::draw()?;
    writeln!(io::stdout(), "{}", key.to_hex().as_str())?;
    Ok(())
}

fn config_check(file: PathBuf) -> Result<(), CliError> {
    let settings = Settings::resolve(File::load(&file)?, Overrides::default(), &Environment::of_process())?;
    keys::from_source(&settings.keys)?;
    let storage = &settings.storage;
    let addresses: Vec<String> = settings.addresses.iter().map(ToString::to_string).collect();
    writeln!(
        io::stdout(),
        "{} is fine: {}, listening on {}, key from {:?}",
        file.display(),
        storage.medium,
        addresses.join(" or "),
        settings.keys,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
