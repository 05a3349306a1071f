//! The store of a server: in memory, in shard files that are made on the first start, or on drives that `memkv setup` made one.
//!
//! A new directory of shards is formatted under another name and moved into place, so that a start cut short leaves either a
//! whole store or none. Drives are never formatted here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use memkv_transport::buf::Buf;
use memkv_wire::limits;
use thiserror::Error;

use crate::config::{ByteSize, Medium, StorageSettings, StoreId, Sync};
use crate::data_directory::DataDirectory;
use crate::io::{Device, Devices, Directory, DirectoryError, MemoryDevice, open_directory, shard_path};
use crate::shell::{ALLOCATIONS_MAX, Drives};
use crate::store::{self, Config, FormatOptions, OpenError, OpenReport, Store};

/// Shard files of a new store.
const SHARDS: u16 = 8;
/// Of a data directory: the store, and one that is not finished yet.
pub const STORE: &str = "store";
const STORE_IN_THE_MAKING: &str = "store.new";
/// How long what a killed process left behind may keep a store in use.
const PAUSE: Duration = Duration::from_millis(50);
const ATTEMPTS: u32 = 20;
/// Threads that read and write shard files.
const FILE_THREADS: usize = 4;

pub struct Storage {
    pub store: Store<Buf>,
    pub drives: Drives,
    /// Of file mode, by slot.
    pub shards: Vec<String>,
    /// Drives that are no part of the store, by slot, and why.
    pub left_out: Vec<(u16, String)>,
}

#[derive(Debug, Error)]
pub enum StorageError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(
        "cannot make the store in {path}: {source}; free space there, or choose another place with --data DIR"
    )]
    Make { path: PathBuf, source: io::Error },
    #[error(
        "cannot make the store in {path}: {source}; free space there, or choose another place with --data DIR"
    )]
    FormatShards { path: PathBuf, source: OpenError },
    #[error("cannot make the store: {0}")]
    Format(OpenError),
    #[error(
        "cannot open the store in {path}: {source}; restore it from where it went, or move it away to begin with an empty one"
    )]
    Open { path: PathBuf, source: OpenError },
    #[error("the system gave no random bytes: {0}")]
    Random(getrandom::Error),
    #[error("{} mode needs a data directory; give one with --data DIR or storage.path", mode)]
    NoDirectory { mode: &'static str },
    #[error("{drive} is in use: it is mounted, or another server or tool has it open", drive = drive.display())]
    DriveInUse { drive: PathBuf },
    #[error(
        "cannot open the store on {drives}: {source}; `memkv drive list {drives}` says what is on them, `memkv setup --drives ...` makes a new store"
    )]
    OpenDrives { drives: String, source: OpenError },
    #[error("storage.mode direct needs Linux")]
    DirectNeedsLinux,
}

pub fn open(settings: &StorageSettings, directory: Option<&DataDirectory>) -> Result<Storage, StorageError> {
    let config = store_config(settings);
    match (&settings.medium, directory) {
        (Medium::Memory { capacity }, _) => open_memory(*capacity, config),
        (Medium::File { capacity }, Some(directory)) => open_file(*capacity, config, directory.path()),
        (Medium::Direct { drives, id }, Some(_)) => open_direct(drives, *id, config),
        (medium @ (Medium::File { .. } | Medium::Direct { .. }), None) => {
            Err(StorageError::NoDirectory { mode: medium.mode().name() })
        }
    }
}

fn store_config(settings: &StorageSettings) -> Config {
    let quotas = settings.quotas.iter();
    Config {
        sync: match settings.sync {
            Sync::Always => store::Sync::Always,
            Sync::Interval { ms } => store::Sync::Interval { ms },
        },
        lease_ms_default: u64::from(limits::LEASE_MS_DEFAULT),
        lease_ms_max: u64::from(limits::LEASE_MS_MAX),
        leases_per_client_max: limits::LEASES_PER_CLIENT_MAX,
        allocations_max: ALLOCATIONS_MAX,
        quotas: quotas.map(|(name, quota)| (name.as_bytes().to_vec(), quota.bytes())).collect(),
        ..Config::default()
    }
}

fn open_memory(capacity: ByteSize, config: Config) -> Result<Storage, StorageError> {
    let device: Arc<dyn Device> = Arc::new(MemoryDevice::new(capacity.bytes()));
    let mut devices = Devices::new(vec![device]);
    store::format(&mut devices, &config, format_options()?).map_err(StorageError::Format)?;
    let (store, _) = Store::open(0, config, &mut devices).map_err(StorageError::Format)?;
    let drives = Drives::new(devices, vec!["memory".to_owned()], true, 0);
    Ok(Storage { store, drives, shards: Vec::new(), left_out: Vec::new() })
}

fn open_file(capacity: ByteSize, config: Config, directory: &Path) -> Result<Storage, StorageError> {
    let path = directory.join(STORE);
    if !path.exists() {
        make(capacity, &config, directory, &path)?;
    }
    let opened = open_shards(&path, capacity)?;
    let shards = (0..).take(opened.devices.len());
    let names: Vec<_> = shards.map(|shard| shard_path(&path, shard).display().to_string()).collect();
    let mut devices = Devices::new(opened.devices);
    let result = Store::open(0, config, &mut devices);
    let (store, report) = result.map_err(|source| StorageError::Open { path: path.clone(), source })?;
    log_opened(&report, &names);
    let capacity_bytes = store.usage().capacity_bytes;
    if capacity_bytes < capacity.bytes() / 2 || capacity_bytes > capacity.bytes() {
        tracing::warn!(
            capacity_bytes,
            "the store keeps the capacity it was made with; storage.capacity is not applied"
        );
    }
    let drives = Drives::new(devices, names.clone(), false, FILE_THREADS);
    Ok(Storage { store, drives, shards: names, left_out: left_out(&report) })
}

/// The data directory's lock is held, so shards in use are those of a process that the kernel is still taking down, or are being
/// checked.
fn open_shards(path: &Path, capacity: ByteSize) -> Result<Directory, DirectoryError> {
    let mut result = open_directory(path, SHARDS, capacity.bytes());
    for _ in 1..ATTEMPTS {
        match &result {
            Err(DirectoryError::InUse { .. }) => std::thread::sleep(PAUSE),
            Ok(_) | Err(_) => break,
        }
        result = open_directory(path, SHARDS, capacity.bytes());
    }
    result
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &[PathBuf], _: Option<StoreId>, _: Config) -> Result<Storage, StorageError> {
    Err(StorageError::DirectNeedsLinux)
}

/// Threads that keep the rings of all drives busy: each waits for the end of one request. With several drives, reads of more than one have the
/// share of a drive.
#[cfg(target_os = "linux")]
const DIRECT_THREADS_MAX: usize = 40;
#[cfg(target_os = "linux")]
const DIRECT_THREADS_A_DRIVE: usize = 8;

#[cfg(target_os = "linux")]
fn open_direct(drives: &[PathBuf], id: Option<StoreId>, mut config: Config) -> Result<Storage, StorageError> {
    use crate::io::Absent;

    config.server_id = id.map(|StoreId(id)| id);
    let names: Vec<_> = drives.iter().map(|drive| drive.display().to_string()).collect();
    let mut devices: Vec<Arc<dyn Device>> = Vec::with_capacity(drives.len());
    let (mut ordinary_pages, mut unregistered) = (0, 0);
    for drive in drives {
        match open_drive(drive) {
            Ok(device) => {
                ordinary_pages += usize::from(!device.huge_pages());
                unregistered += usize::from(!device.is_registered());
                devices.push(Arc::new(device));
            }
            Err(error) if is_in_use(&error) => {
                return Err(StorageError::DriveInUse { drive: drive.clone() });
            }
            Err(error) => {
                tracing::error!(drive = %drive.display(), %error, "a drive cannot be opened");
                devices.push(Arc::new(Absent(error.into())));
            }
        }
    }
    if ordinary_pages > 0 {
        tracing::info!(
            drives = ordinary_pages,
            "no huge pages are reserved for the staging memory: ordinary ones are used (see vm.nr_hugepages)"
        );
    }
    if unregistered > 0 {
        tracing::info!(
            drives = unregistered,
            "the staging memory may not be locked, so it is not registered with the kernel (see ulimit -l)"
        );
    }
    let mut devices = Devices::new(devices);
    let result = Store::open(0, config, &mut devices);
    let (store, report) =
        result.map_err(|source| StorageError::OpenDrives { drives: names.join(" "), source })?;
    log_opened(&report, &names);
    let shares = drives.len() + usize::from(drives.len() > 1);
    let threads = (DIRECT_THREADS_A_DRIVE * shares).min(DIRECT_THREADS_MAX);
    let drives = Drives::new(devices, names, false, threads).each_apart();
    Ok(Storage { store, drives, shards: Vec::new(), left_out: left_out(&report) })
}

/// Opens a drive for this process alone. The kernel takes down what a killed process had in flight some time after its end, and
/// until then its drives are in use.
#[cfg(target_os = "linux")]
pub fn open_drive(path: &Path) -> io::Result<crate::io::UringDevice> {
    use crate::io::{Mode, UringDevice};

    let mut result = UringDevice::open(path, Mode::Direct);
    for _ in 1..ATTEMPTS {
        match &result {
            Err(error) if is_in_use(error) => std::thread::sleep(PAUSE),
            Ok(_) | Err(_) => break,
        }
        result = UringDevice::open(path, Mode::Direct);
    }
    result
}

/// Someone else has it open exclusively.
#[cfg(target_os = "linux")]
pub fn is_in_use(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::WouldBlock)
}

/// Formats a new store aside and moves it into place.
fn make(capacity: ByteSize, config: &Config, directory: &Path, path: &Path) -> Result<(), StorageError> {
    let failed = |source| StorageError::Make { path: path.to_owned(), source };
    let aside = directory.join(STORE_IN_THE_MAKING);
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let made = open_directory(&aside, SHARDS, capacity.bytes())?;
    let mut devices = Devices::new(made.devices);
    store::format(&mut devices, config, format_options()?)
        .map_err(|source| StorageError::FormatShards { path: path.to_owned(), source })?;
    drop(devices);
    fs::rename(&aside, path).map_err(failed)?;
    fs::File::open(directory).and_then(|handle| handle.sync_all()).map_err(failed)?;
    tracing::info!(path = %path.display(), %capacity, "a new store was made");
    Ok(())
}

/// Fresh random names and keys.
pub fn format_options() -> Result<FormatOptions, StorageError> {
    let mut options = FormatOptions { server_id: [0; 16], secrets: [0; 32] };
    getrandom::fill(&mut options.server_id).map_err(StorageError::Random)?;
    getrandom::fill(&mut options.secrets).map_err(StorageError::Random)?;
    Ok(options)
}

fn left_out(report: &OpenReport) -> Vec<(u16, String)> {
    report.problems.iter().map(|(slot, problem)| (*slot, problem.to_string())).collect()
}

fn log_opened(report: &OpenReport, names: &[String]) {
    for (slot, problem) in &report.problems {
        let drive = names.get(*slot as usize).map_or("?", |name| name);
        tracing::error!(drive, %problem, "a drive is left out; what was on it are misses");
    }
    for index in &report.absent {
        tracing::error!(index, "a drive of the store is not there; what was on it are misses");
    }
    tracing::info!(
        drives = names.len(),
        values = report.values,
        manifests = report.manifests,
        clean = report.clean,
        torn_records = report.torn_records,
        manifests_dropped = report.manifests_dropped,
        "the store is open"
    );
}
