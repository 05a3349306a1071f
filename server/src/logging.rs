//! Structured log lines, to standard error or to a file, as text or as JSON.
//!
//! `RUST_LOG` refines the configured level by module, as usual with `tracing`.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::{LogFormat, LogSettings};

#[derive(Debug, Error)]
pub enum LoggingError {
    #[error("cannot write the log file {path}: {source}; choose another with --log-file FILE")]
    File { path: PathBuf, source: io::Error },
    #[error("RUST_LOG is not a list of filters: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
}

/// Sets up the process's log. A second call in one process changes nothing.
pub fn init(settings: &LogSettings) -> Result<(), LoggingError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(directives)?,
        _ => EnvFilter::new(settings.level.name()),
    };
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(writer(settings)?);
    // Only the tests of one process can come here twice.
    let _ = match settings.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

fn writer(settings: &LogSettings) -> Result<BoxMakeWriter, LoggingError> {
    let Some(path) = &settings.file else { return Ok(BoxMakeWriter::new(io::stderr)) };
    let file: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| LoggingError::File { path: path.clone(), source })?;
    Ok(BoxMakeWriter::new(Mutex::new(file)))
}
