//! Where clients on the same host find the server's socket.

use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// `auto`, `off`, or the path of a socket.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum LocalSocket {
    /// In the data directory, or where the system keeps such things for a user.
    #[default]
    Auto,
    Off,
    At(PathBuf),
}

impl<'de> Deserialize<'de> for LocalSocket {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LocalSocket, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "auto" => Ok(LocalSocket::Auto),
            "off" => Ok(LocalSocket::Off),
            path if path.starts_with('/') => Ok(LocalSocket::At(path.into())),
            _ => Err(D::Error::custom(format_args!(
                "`{text}`: expected `auto`, `off`, or the absolute path of a socket"
            ))),
        }
    }
}

/// How clients on the same host are served.
#[derive(Clone, Debug, Default)]
pub struct LocalSettings {
    pub socket: LocalSocket,
    /// A group whose members may connect beside the server's own user.
    pub group: Option<u32>,
    /// The system's directory for a user's sockets.
    pub runtime_directory: Option<PathBuf>,
}
