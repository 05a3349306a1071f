//! The store of a server: made on the first start, opened on every later one.
//!
//! A new store is formatted under another name and moved into place, so that a start cut short leaves either a whole
//! store or none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memkv_transport::buf::Buf;
use memkv_wire::limits;
use thiserror::Error;

use crate::config::{Mode, StorageSettings, Sync};
use crate::data_directory::DataDirectory;
use crate::io::{Device, Devices, DirectoryError, MemoryDevice, open_directory};
use crate::shell::ALLOCATIONS_MAX;
use crate::store::{self, Config, FormatOptions, OpenError, OpenReport, Store};

/// Shard files of a new store.
const SHARDS: u16 = 8;
const STORE: &str = "store";
const STORE_IN_THE_MAKING: &str = "store.new";

pub struct Storage {
    pub store: Store<Buf>,
    pub devices: Devices,
    /// Device work never blocks.
    pub at_once: bool,
}

#[derive(Debug, Error)]
pub enum StorageError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(
        "cannot make the store in {path}: {source}; free space there, or choose another place with --data DIR"
    )]
    Make { path: PathBuf, source: io::Error },
    #[error("cannot make the store: {0}")]
    Format(OpenError),
    #[error(
        "cannot open the store in {path}: {source}; restore it from where it went, or move it away to begin with an empty one"
    )]
    Open { path: PathBuf, source: OpenError },
    #[error("the system gave no random bytes: {0}")]
    Random(getrandom::Error),
    #[error("file mode needs a data directory; give one with --data DIR or storage.path")]
    NoDirectory,
}

pub fn open(settings: &StorageSettings, directory: Option<&DataDirectory>) -> Result<Storage, StorageError> {
    match (settings.mode, directory) {
        (Mode::Memory, _) => open_memory(settings),
        (Mode::File, Some(directory)) => open_file(settings, directory.path()),
        (Mode::File, None) => Err(StorageError::NoDirectory),
    }
}

fn store_config(settings: &StorageSettings) -> Config {
    Config {
        sync: match settings.sync {
            Sync::Always => store::Sync::Always,
            Sync::Interval { ms } => store::Sync::Interval { ms },
        },
        lease_ms_default: u64::from(limits::LEASE_MS_DEFAULT),
        lease_ms_max: u64::from(limits::LEASE_MS_MAX),
        leases_per_client_max: limits::LEASES_PER_CLIENT_MAX,
        allocations_max: ALLOCATIONS_MAX,
        ..Config::default()
    }
}

fn open_memory(settings: &StorageSettings) -> Result<Storage, StorageError> {
    let device: Arc<dyn Device> = Arc::new(MemoryDevice::new(settings.capacity.bytes()));
    let mut devices = Devices::new(vec![device]);
    let config = store_config(settings);
    store::format(&mut devices, &config, format_options()?).map_err(StorageError::Format)?;
    let (store, _) = Store::open(0, config, &mut devices).map_err(StorageError::Format)?;
    Ok(Storage { store, devices, at_once: true })
}

fn open_file(settings: &StorageSettings, directory: &Path) -> Result<Storage, StorageError> {
    let config = store_config(settings);
    let path = directory.join(STORE);
    if !path.exists() {
        make(settings, &config, directory, &path)?;
    }
    let opened = open_directory(&path, SHARDS, settings.capacity.bytes())?;
    let mut devices = Devices::new(opened.devices);
    let result = Store::open(0, config, &mut devices);
    let (store, report) = result.map_err(|source| StorageError::Open { path: path.clone(), source })?;
    log_opened(&report, &path);
    let capacity_bytes = store.usage().capacity_bytes;
    if capacity_bytes < settings.capacity.bytes() / 2 || capacity_bytes > settings.capacity.bytes() {
        tracing::warn!(
            capacity_bytes,
            "the store keeps the capacity it was made with; storage.capacity is not applied"
        );
    }
    Ok(Storage { store, devices, at_once: false })
}

/// Formats a new store aside and moves it into place.
fn make(
    settings: &StorageSettings,
    config: &Config,
    directory: &Path,
    path: &Path,
) -> Result<(), StorageError> {
    let failed = |source| StorageError::Make { path: path.to_owned(), source };
    let aside = directory.join(STORE_IN_THE_MAKING);
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let made = open_directory(&aside, SHARDS, settings.capacity.bytes())?;
    let mut devices = Devices::new(made.devices);
    store::format(&mut devices, config, format_options()?).map_err(StorageError::Format)?;
    drop(devices);
    fs::rename(&aside, path).map_err(failed)?;
    fs::File::open(directory).and_then(|handle| handle.sync_all()).map_err(failed)?;
    tracing::info!(path = %path.display(), capacity = %settings.capacity, "a new store was made");
    Ok(())
}

fn format_options() -> Result<FormatOptions, StorageError> {
    let mut options = FormatOptions { server_id: [0; 16], secrets: [0; 32] };
    getrandom::fill(&mut options.server_id).map_err(StorageError::Random)?;
    getrandom::fill(&mut options.secrets).map_err(StorageError::Random)?;
    Ok(options)
}

fn log_opened(report: &OpenReport, path: &Path) {
    for (slot, problem) in &report.problems {
        tracing::error!(slot, %problem, "a device is left out; what was on it are misses");
    }
    for index in &report.absent {
        tracing::error!(index, "a device of the store is not there; what was on it are misses");
    }
    tracing::info!(
        path = %path.display(),
        values = report.values,
        manifests = report.manifests,
        clean = report.clean,
        torn_records = report.torn_records,
        manifests_dropped = report.manifests_dropped,
        "the store is open"
    );
}
