//! One line on stderr for what an operator should know; `MEMKV_LOG` says how much.
//!
//! The interface has no error text, so this is the only place where a reason can be told.

use std::io::Write;
use std::sync::OnceLock;

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
    static WANTED: OnceLock<Level> = OnceLock::new();
    if level <= *WANTED.get_or_init(|| wanted(std::env::var(VARIABLE).as_deref().unwrap_or_default())) {
        // One write, so that lines of several threads do not mix.
        let _ = std::io::stderr().lock().write_all(format!("memkv: {text}\n").as_bytes());
    }
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
