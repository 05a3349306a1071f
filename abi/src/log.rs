//! One line on stderr for what an operator should know; `MEMKV_LOG` says how much.
//!
//! The interface has no error text, so this is the only place where a reason can be told. What the client warns of is told here, too:
//! it is little, and said once.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// `off`, `error` (the default), `warn`, `info` or `debug`.
const VARIABLE: &str = "MEMKV_LOG";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Off,
    Error,
    Warn,
    Debug,
}

/// Writes a line if it is wanted. A closed stderr is nobody's failure.
pub(crate) fn line(level: Level, text: std::fmt::Arguments<'_>) {
    if is_wanted(level) {
        // One write, so that lines of several threads do not mix.
        let _ = std::io::stderr().lock().write_all(format!("memkv: {text}\n").as_bytes());
    }
}

/// Has what the client tells written here, for all stores of the process. The program that loaded this library has a copy of its own of what this
/// sets, if it has one at all.
pub(crate) fn listen() {
    // A second store finds it done.
    let _ = tracing::subscriber::set_global_default(OfClient);
}

/// Takes the client's events.
struct OfClient;

impl Subscriber for OfClient {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_wanted(level_of(metadata))
    }

    fn event(&self, event: &Event<'_>) {
        let mut words = Words::default();
        event.record(&mut words);
        line(level_of(event.metadata()), format_args!("{}{}", words.message, words.fields));
    }

    // The client has no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// A warning of the client's is an operator's to know; that of a call here is its caller's, too, who has a code.
fn level_of(metadata: &Metadata<'_>) -> Level {
    if *metadata.level() <= tracing::Level::WARN { Level::Error } else { Level::Debug }
}

/// An event in words: `message: field; field`.
#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            _ if self.fields.is_empty() => write!(self.fields, ": {value:?}"),
            _ => write!(self.fields, "; {value:?}"),
        };
    }
}

fn is_wanted(level: Level) -> bool {
    static WANTED: OnceLock<Level> = OnceLock::new();
    level <= *WANTED.get_or_init(|| wanted(std::env::var(VARIABLE).as_deref().unwrap_or_default()))
}

fn wanted(text: &str) -> Level {
    match text.trim().to_ascii_lowercase().as_str() {
        "off" | "none" => Level::Off,
        "warn" | "info" => Level::Warn,
        "debug" | "trace" => Level::Debug,
        _ => Level::Error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        assert_eq!(wanted(""), Level::Error);
        assert_eq!(wanted(" OFF "), Level::Off);
        assert_eq!(wanted("debug"), Level::Debug);
        assert_eq!(wanted("nonsense"), Level::Error);
        assert!(Level::Debug > wanted("info"));
    }
}
