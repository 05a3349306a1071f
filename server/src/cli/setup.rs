//! `memkv setup`: a configuration on standard output, every other word on standard error.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::config::{
    ADDRESS_DEFAULT, ByteSize, ConfigError, Environment, File, Overrides, Settings, StoreId,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The drives: block devices, by names that stay the same (/dev/disk/by-id/...), or files that are there already.
    #[arg(long, value_name = "PATH", value_delimiter = ',', required = true)]
    drives: Vec<PathBuf>,
    /// Overwrite whatever is on the drives. What is mounted or in use is refused all the same.
    #[arg(long)]
    force: bool,
    /// If the drives are one MemKV store already, print its configuration and change nothing.
    #[arg(long)]
    idempotent: bool,
    /// Bytes that a namespace may hold; the others are unlimited.
    #[arg(long, value_name = "NAMESPACE=SIZE", value_delimiter = ',', value_parser = quota)]
    quotas: Vec<(String, ByteSize)>,
    /// The data directory for the configuration [default: $XDG_DATA_HOME/memkv].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The address for the configuration.
    #[arg(long, value_name = "HOST:PORT", default_value = ADDRESS_DEFAULT)]
    listen: String,
}

#[derive(Debug, thiserror::Error)]
pub enum SetupCommandError {
    #[cfg(target_os = "linux")]
    #[error(transparent)]
    Setup(#[from] crate::setup::SetupError),
    #[cfg(not(target_os = "linux"))]
    #[error("whole drives need Linux; file mode needs no setup")]
    NeedsLinux,
    #[error("{0:?} is not UTF-8, which a configuration is: give the drive another name with a link")]
    Name(PathBuf),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the system refused what setup needs: {0}")]
    System(#[from] io::Error),
}

fn quota(text: &str) -> Result<(String, ByteSize), String> {
    let (namespace, size) = text.rsplit_once('=').ok_or("expected NAMESPACE=SIZE, such as team-a=100GiB")?;
    Ok((namespace.to_owned(), size.parse().map_err(|error| format!("{size}: {error}"))?))
}

pub fn run(mut args: Args) -> Result<(), SetupCommandError> {
    // The server may be started elsewhere.
    args.drives = args.drives.iter().map(std::path::absolute).collect::<Result<_, _>>()?;
    args.data = args.data.map(std::path::absolute).transpose()?;
    // Written before anything is changed: what cannot be said in a configuration is no store either.
    let check = |id| -> Result<String, SetupCommandError> {
        let document = document(&args, id)?;
        let file = File::parse(&document, "the new configuration".as_ref())?;
        Settings::resolve(file, Overrides::default(), &Environment::of_process())?;
        Ok(document)
    };
    check(StoreId([0; 16]))?;
    let (id, already) = make(&args)?;
    let document = check(id)?;
    io::stdout().write_all(document.as_bytes())?;
    let told = if already { "the drives are a store already" } else { "made a store" };
    writeln!(io::stderr(), "memkv: {told}, {id}; its configuration is on standard output")?;
    Ok(())
}

#[cfg(target_os = "linux")]
fn make(args: &Args) -> Result<(StoreId, bool), SetupCommandError> {
    use crate::setup::{Options, run};
    let made = run(&args.drives, Options { force: args.force, idempotent: args.idempotent })?;
    Ok((made.id, made.already))
}

#[cfg(not(target_os = "linux"))]
fn make(_: &Args) -> Result<(StoreId, bool), SetupCommandError> {
    Err(SetupCommandError::NeedsLinux)
}

/// Strings are quoted as JSON has them, which YAML reads too.
fn document(args: &Args, id: StoreId) -> Result<String, SetupCommandError> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let path = |path: &PathBuf| match path.to_str() {
        Some(text) => Ok(quoted(text)),
        None => Err(SetupCommandError::Name(path.clone())),
    };
    let mut text = String::from("# Made by `memkv setup`. Use it with: memkv start --config FILE\n");
    let mut line = |indent: usize, line: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{:indent$}{line}", "");
    };
    line(0, format_args!("network:"));
    line(2, format_args!("address: {}", quoted(&args.listen)));
    line(0, format_args!("storage:"));
    line(2, format_args!("mode: direct"));
    line(2, format_args!("id: \"{id}\""));
    line(2, format_args!("drives:"));
    for drive in &args.drives {
        line(4, format_args!("- {}", path(drive)?));
    }
    if let Some(data) = &args.data {
        line(2, format_args!("path: {}", path(data)?));
    }
    if !args.quotas.is_empty() {
        line(2, format_args!("quotas:"));
    }
    for (namespace, size) in &args.quotas {
        line(4, format_args!("{}: {size}", quoted(namespace)));
    }
    Ok(text)
}
