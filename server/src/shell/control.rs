//! The server's end of the control socket: answers from memory, one line for one line.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::Shell;
use super::scrub::Scrubber;
use crate::control::{Drive, LINE_BYTES_MAX, Reply, Request, Status, socket_path};

/// Whoever connects says what it wants at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens until it is dropped.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
}

/// What a control connection speaks to.
pub struct Controlled {
    pub shell: Arc<Shell>,
    /// None in memory mode.
    pub scrubber: Option<Scrubber>,
    /// Drives that were left out when the store was opened: slot and why.
    pub left_out: Vec<(u16, String)>,
}

impl Control {
    /// The data directory's lock is held, so a socket that is there is one that a server left behind.
    pub fn listen(data_directory: &Path) -> io::Result<Control> {
        let path = socket_path(data_directory);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Control { listener, path })
    }

    /// Serves whoever connects, one at a time.
    pub async fn serve(&self, controlled: &Controlled) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match timeout(PATIENCE, answer(stream, controlled)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::info!(%error, "a control connection failed"),
                    Err(_) => tracing::info!("a control connection said nothing"),
                },
                Err(error) => {
                    tracing::warn!(%error, "the control socket cannot accept");
                    tokio::time::sleep(PATIENCE).await;
                }
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Left behind it is removed by the next server.
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(mut stream: UnixStream, controlled: &Controlled) -> io::Result<()> {
    let mut line = String::new();
    let (reader, mut writer) = stream.split();
    BufReader::new(reader.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    let reply = match serde_json::from_str(&line) {
        Ok(request) => controlled.reply(request),
        Err(error) => Reply::Refused(format!("not a request: {error}")),
    };
    let mut text = serde_json::to_string(&reply)?;
    text.push('\n');
    writer.write_all(text.as_bytes()).await
}

impl Controlled {
    /// Ends what runs beside requests.
    pub fn close(&self) {
        self.scrubber.iter().for_each(Scrubber::close);
    }

    fn reply(&self, request: Request) -> Reply {
        match (request, &self.scrubber) {
            (Request::Status, _) => {}
            (Request::ScrubStart, Some(scrubber)) => scrubber.begin(),
            (Request::ScrubStop, Some(scrubber)) => scrubber.end(),
            (Request::ScrubStart | Request::ScrubStop, None) => {
                return Reply::Refused("in memory mode there is no drive to scrub".into());
            }
        }
        Reply::Status(self.status())
    }

    fn status(&self) -> Status {
        let (server_id, generation, statuses) = self.shell.with_service(|service, _| {
            let store = service.store();
            (store.server_id(), store.generation(), store.device_status())
        });
        let drives = &self.shell.drives;
        let mut listed: Vec<Drive> = Vec::new();
        for status in statuses {
            let errors = drives.errors(status.slot);
            listed.push(Drive {
                path: drives.name(status.slot).to_owned(),
                index: Some(status.index),
                failed: status.failed,
                left_out: None,
                extents: status.extents,
                extents_free: status.extents_free,
                read_errors: errors.read,
                write_errors: errors.write,
            });
        }
        for (slot, why) in &self.left_out {
            let path = drives.name(*slot).to_owned();
            match listed.iter_mut().find(|drive| drive.path == path) {
                Some(drive) => drive.left_out = Some(why.clone()),
                None => listed.push(Drive {
                    path,
                    index: None,
                    failed: true,
                    left_out: Some(why.clone()),
                    extents: 0,
                    extents_free: 0,
                    read_errors: 0,
                    write_errors: 0,
                }),
            }
        }
        let scrub = self.scrubber.as_ref().map(Scrubber::status).unwrap_or_default();
        Status { server_id: hex::encode(server_id), generation, drives: listed, scrub }
    }
}
