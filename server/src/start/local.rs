//! The socket for clients on the same host: where it is, and whether there is one.
//!
//! A server without it serves all the same, over TCP: what goes wrong here is a line in the log, unless the
//! configuration asked for a place that cannot be used.

use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

use memkv_transport::local::{Listener, PATH_SIZE_BYTES_MAX, Socket};

use super::StartError;
use crate::config::{LocalSettings, LocalSocket};

const NAME: &str = "memkv.sock";

/// The local socket, if there is one.
pub struct Local(Option<Listener>);

impl Local {
    /// `directory` is the data directory, which is this server's alone; `address` tells servers without one apart.
    pub fn open(
        settings: &LocalSettings,
        directory: Option<&Path>,
        address: SocketAddr,
    ) -> Result<Local, StartError> {
        let candidates = match &settings.socket {
            LocalSocket::Off => Vec::new(),
            LocalSocket::At(path) => {
                let bound = Listener::bind(path, settings.group);
                return match bound {
                    Ok(listener) => Ok(Local(Some(listener))),
                    Err(source) => Err(StartError::LocalSocket { path: path.clone(), source }),
                };
            }
            LocalSocket::Auto => candidates(settings, directory, address),
        };
        for path in candidates.iter().filter(|path| path.as_os_str().len() <= PATH_SIZE_BYTES_MAX) {
            match Listener::bind(path, settings.group) {
                Ok(listener) => return Ok(Local(Some(listener))),
                Err(error) => tracing::warn!(path = %path.display(), %error, "no local socket here"),
            }
        }
        Ok(Local(None))
    }

    /// What clients on the same host are told; empty if there is nothing to tell.
    pub fn path(&self) -> String {
        let path = self.0.as_ref().and_then(|listener| listener.path().to_str());
        path.unwrap_or_default().to_owned()
    }

    /// The next client. Waits for ever if there is no socket.
    pub async fn accept(&self) -> io::Result<Socket> {
        match &self.0 {
            Some(listener) => listener.accept().await,
            None => std::future::pending().await,
        }
    }
}

fn candidates(settings: &LocalSettings, directory: Option<&Path>, address: SocketAddr) -> Vec<PathBuf> {
    // The address is this server's alone, and so is a name made of it.
    let name = format!("memkv-{}-{}.sock", address.ip(), address.port());
    let mut candidates = Vec::new();
    // Members of a group could not reach a socket in a directory that is its owner's alone.
    if settings.group.is_none() {
        candidates.extend(directory.map(|directory| directory.join(NAME)));
        candidates.extend(settings.runtime_directory.as_ref().map(|runtime| runtime.join(&name)));
    }
    candidates.extend(private_directory(settings.group).map(|own| own.join(name)));
    candidates
}

/// A directory for sockets among the temporary files, when nobody else made it.
fn private_directory(group: Option<u32>) -> Option<PathBuf> {
    let own = rustix::process::geteuid().as_raw();
    let (name, mode) = match group {
        None => (format!("memkv-{own}"), 0o700),
        Some(group) => (format!("memkv-{own}-{group}"), 0o711),
    };
    let path = std::env::temp_dir().join(name);
    match fs::DirBuilder::new().mode(mode).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return None,
        Ok(()) | Err(_) => {}
    }
    let found = fs::symlink_metadata(&path).ok()?;
    let private = found.is_dir() && found.uid() == own && found.mode() & 0o022 == 0;
    private.then_some(path)
}
