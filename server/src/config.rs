//! What a server is told: the YAML file of `--config`, the command line over it, and the defaults under both.
//!
//! `File` is the document exactly as written: unknown keys, unknown words and malformed sizes are refused with
//! the line they stand on and what is allowed there. `Settings` is the outcome, with nothing left to default.
//! Files and directories named here are not touched: whether they exist and may be used is found out by who
//! opens them.

mod local;
mod rdma;
mod size;
mod storage;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

pub use local::{LocalSettings, LocalSocket};
use memkv_transport::spin::{SPIN_US_DEFAULT, SPIN_US_MAX};
pub use rdma::{Rdma, RdmaSettings, Verify};
use serde::Deserialize;
use serde_saphyr::Spanned;
pub use size::ByteSize;
pub use storage::*;
use thiserror::Error;

pub const ADDRESS_DEFAULT: &str = "127.0.0.1:9900";
pub const CONNECTIONS_MAX_DEFAULT: u32 = 4096;

#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration {path} is not accepted:\n{source}")]
    Document { path: PathBuf, source: Box<serde_saphyr::Error> },
    #[error("{name}: `{address}` is not an address to listen on; give HOST:PORT, such as {ADDRESS_DEFAULT}")]
    Address { name: &'static str, address: String },
    #[error(
        "{at}network.auth_key and network.auth_keys exclude each other: a list holds the current key first"
    )]
    KeyTwice { at: Line },
    #[error(
        "{at}network.auth_keys is empty: leave it out, or give at least one key (`memkv keygen` makes one)"
    )]
    KeysEmpty { at: Line },
    #[error(
        "{at}network.spin_us is {found}; give at most {SPIN_US_MAX}, or 0 for a server that always sleeps"
    )]
    SpinTooLong { at: Line, found: u32 },
    #[error("{at}storage.path has no meaning in memory mode: remove it, or set storage.mode to file")]
    PathInMemoryMode { at: Line },
    #[error("{at}storage.sync has no meaning in memory mode: nothing there survives the process")]
    SyncInMemoryMode { at: Line },
    #[error("{at}storage.scrub has no meaning in memory mode: there is no drive to reread")]
    ScrubInMemoryMode { at: Line },
    #[error("{at}storage.capacity {capacity} is less than the smallest store, {least}")]
    CapacityTooSmall { at: Line, capacity: ByteSize, least: ByteSize },
    #[error("{at}storage.capacity has no meaning in direct mode: a drive is used as a whole")]
    CapacityInDirectMode { at: Line },
    #[error(
        "storage.drives is missing: direct mode needs drives that `memkv setup --drives ...` has made a store"
    )]
    NoDrives,
    #[error("{at}storage.drives names {count} drives; a store has 1 to {count_max}")]
    DriveCount { at: Line, count: usize, count_max: u16 },
    #[error("{at}storage.drives names {} twice", drive.display())]
    DriveTwice { at: Line, drive: PathBuf },
    #[error("{at}storage.drives has no meaning in {mode} mode: remove it, or set storage.mode to direct")]
    DrivesNotInDirectMode { at: Line, mode: &'static str },
    #[error("{at}storage.id has a meaning in direct mode alone")]
    IdNotInDirectMode { at: Line },
    #[error("rdma needs Linux: remove it")]
    RdmaNeedsLinux,
    #[error("storage.mode direct needs Linux; set it to file")]
    DirectNeedsLinux,
    #[error(
        "no data directory: neither XDG_DATA_HOME nor HOME is set; give one with --data DIR or storage.path"
    )]
    NoDataDirectory,
}

/// Where in the document a mistake stands; shown before it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Line {
    pub source: PathBuf,
    pub line: u64,
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, line {}: ", self.source.display(), self.line)
    }
}

/// The document of `--config`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub network: Network,
    pub rdma: Option<Rdma>,
    pub storage: Storage,
    pub log: Log,
    /// What errors call the document.
    #[serde(skip)]
    pub source: PathBuf,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    pub address: Option<String>,
    pub auth_key: Option<Spanned<String>>,
    /// All are accepted, so that keys rotate without downtime.
    pub auth_keys: Option<Spanned<Vec<String>>>,
    pub connections_max: Option<u32>,
    /// The socket for clients on the same host.
    pub local: Option<LocalSocket>,
    /// The id of a group whose members may use it.
    pub local_group: Option<u32>,
    pub spin_us: Option<Spanned<u32>>,
}

/// Keys stay out of logs and panics.
impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys =
            usize::from(self.auth_key.is_some()) + self.auth_keys.as_ref().map_or(0, |keys| keys.value.len());
        f.debug_struct("Network").field("address", &self.address).field("keys", &keys).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub level: Option<Level>,
    pub format: Option<LogFormat>,
    pub file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

impl File {
    pub fn load(path: &Path) -> Result<File, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        File::parse(&text, path)
    }

    /// `path` is only what errors call the document.
    pub fn parse(text: &str, path: &Path) -> Result<File, ConfigError> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(File::default());
        }
        let file = serde_saphyr::from_str(text)
            .map_err(|source| ConfigError::Document { path: path.to_owned(), source: Box::new(source) })?;
        Ok(File { source: path.to_owned(), ..file })
    }
}

/// What the command line says; it wins over the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub address: Option<String>,
    pub data: Option<PathBuf>,
    pub log_file: Option<PathBuf>,
    pub log_format: Option<LogFormat>,
}

/// What a server runs with.
#[derive(Clone, Debug)]
pub struct Settings {
    pub addresses: Vec<SocketAddr>,
    pub connections_max: u32,
    /// How many microseconds to stay awake for the next small request.
    pub spin_us: u32,
    pub local: LocalSettings,
    pub rdma: Option<RdmaSettings>,
    pub keys: KeySource,
    pub storage: StorageSettings,
    pub log: LogSettings,
}

#[derive(Clone, Debug)]
pub struct LogSettings {
    pub level: Level,
    pub format: LogFormat,
    pub file: Option<PathBuf>,
}

/// Where the shared keys come from, the texts not yet looked at.
#[derive(Clone)]
pub enum KeySource {
    Environment(String),
    Config(Vec<String>),
    DataDirectory,
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            KeySource::Environment(_) => "MEMKV_AUTH_KEY",
            KeySource::Config(_) => "the configuration",
            KeySource::DataDirectory => "the data directory",
        })
    }
}

/// The parts of the environment that settings depend on.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub auth_key: Option<String>,
    pub xdg_data_home: Option<PathBuf>,
    pub xdg_runtime_dir: Option<PathBuf>,
    pub home: Option<PathBuf>,
}

impl Environment {
    pub fn of_process() -> Environment {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        Environment {
            auth_key: std::env::var("MEMKV_AUTH_KEY").ok().filter(|value| !value.is_empty()),
            xdg_data_home: path("XDG_DATA_HOME").filter(|path| path.is_absolute()),
            xdg_runtime_dir: path("XDG_RUNTIME_DIR").filter(|path| path.is_absolute()),
            home: path("HOME"),
        }
    }

    fn data_directory(&self) -> Option<PathBuf> {
        let base = self.xdg_data_home.clone().or_else(|| Some(self.home.as_ref()?.join(".local/share")))?;
        Some(base.join("memkv"))
    }
}

impl Settings {
    pub fn resolve(
        file: File,
        overrides: Overrides,
        environment: &Environment,
    ) -> Result<Settings, ConfigError> {
        let keys = key_source(&file.network, &file.source, environment)?;
        let spin_us = spin_us(&file.network, &file.source)?;
        let (name, address) = match (overrides.address, file.network.address) {
            (Some(address), _) => ("--listen", address),
            (None, Some(address)) => ("network.address", address),
            (None, None) => ("network.address", ADDRESS_DEFAULT.to_owned()),
        };
        if file.rdma.is_some() && !cfg!(target_os = "linux") {
            return Err(ConfigError::RdmaNeedsLinux);
        }
        Ok(Settings {
            spin_us,
            rdma: file.rdma.map(RdmaSettings::from),
            addresses: resolve_address(name, address)?,
            connections_max: file.network.connections_max.unwrap_or(CONNECTIONS_MAX_DEFAULT).max(1),
            local: LocalSettings {
                socket: file.network.local.unwrap_or_default(),
                group: file.network.local_group,
                runtime_directory: environment.xdg_runtime_dir.clone(),
            },
            storage: storage::settings(file.storage, &file.source, overrides.data, &keys, environment)?,
            keys,
            log: LogSettings {
                level: file.log.level.unwrap_or_default(),
                format: overrides.log_format.or(file.log.format).unwrap_or_default(),
                file: overrides.log_file.or(file.log.file),
            },
        })
    }
}

fn key_source(network: &Network, source: &Path, environment: &Environment) -> Result<KeySource, ConfigError> {
    let at = |line| Line { source: source.to_owned(), line };
    let config = match (&network.auth_key, &network.auth_keys) {
        (Some(_), Some(keys)) => return Err(ConfigError::KeyTwice { at: at(keys.referenced.line()) }),
        (None, Some(keys)) if keys.value.is_empty() => {
            return Err(ConfigError::KeysEmpty { at: at(keys.referenced.line()) });
        }
        (None, Some(keys)) => Some(keys.value.clone()),
        (Some(key), None) => Some(vec![key.value.clone()]),
        (None, None) => None,
    };
    Ok(match (&environment.auth_key, config) {
        (Some(key), _) => KeySource::Environment(key.clone()),
        (None, Some(keys)) => KeySource::Config(keys),
        (None, None) => KeySource::DataDirectory,
    })
}

fn spin_us(network: &Network, source: &Path) -> Result<u32, ConfigError> {
    let Some(given) = &network.spin_us else { return Ok(SPIN_US_DEFAULT) };
    if given.value > SPIN_US_MAX {
        let at = Line { source: source.to_owned(), line: given.referenced.line() };
        return Err(ConfigError::SpinTooLong { at, found: given.value });
    }
    Ok(given.value)
}

fn resolve_address(name: &'static str, address: String) -> Result<Vec<SocketAddr>, ConfigError> {
    let resolved: Vec<SocketAddr> = address.to_socket_addrs().map(Iterator::collect).unwrap_or_default();
    if resolved.is_empty() {
        return Err(ConfigError::Address { name, address });
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<File, ConfigError> {
        File::parse(text, Path::new("config.yaml"))
    }

    fn settings(text: &str, overrides: Overrides) -> Result<Settings, ConfigError> {
        let environment = Environment { home: Some("/home/ann".into()), ..Environment::default() };
        Settings::resolve(parse(text)?, overrides, &environment)
    }

    fn message(text: &str) -> String {
        settings(text, Overrides::default()).expect_err("must be refused").to_string()
    }

    #[test]
    fn nothing_at_all_is_the_embedded_default() {
        let settings = settings("# only a comment\n\n", Overrides::default()).unwrap();
        assert_eq!(settings.addresses, ["127.0.0.1:9900".parse().unwrap()]);
        assert_eq!(settings.storage.medium, Medium::File { capacity: CAPACITY_DEFAULT });
        assert_eq!(settings.storage.scrub, Scrub::default());
        assert_eq!(settings.storage.directory, Some("/home/ann/.local/share/memkv".into()));
        assert!(matches!(settings.keys, KeySource::DataDirectory));
    }

    #[test]
    fn the_whole_document_is_read() {
        let text = "network:\n  address: 127.0.0.1:7000\n  auth_keys:\n    - \"aa\"\n    - \"bb\"\n  connections_max: 12\n  spin_us: 20\n\
                    \x20 local: /run/memkv.sock\n  local_group: 44\n\
                    storage:\n  mode: file\n  path: /srv/memkv\n  capacity: 1.5TiB\n  sync: 250ms\n\
                    \x20 quotas:\n    team-a: 10GiB\n    \"\": 1MiB\n  scrub: {rate: 5MiB/s, every: 7d}\n\
                    log:\n  level: debug\n  format: json\n  file: /var/log/memkv.log\n";
        let settings = settings(text, Overrides::default()).unwrap();
        assert_eq!(settings.addresses[0].port(), 7000);
        assert_eq!(settings.connections_max, 12);
        assert_eq!(settings.spin_us, 20);
        assert_eq!(settings.local.socket, LocalSocket::At("/run/memkv.sock".into()));
        assert_eq!(settings.local.group, Some(44));
        assert!(matches!(&settings.keys, KeySource::Config(keys) if keys == &["aa", "bb"]));
        assert_eq!(settings.storage.medium, Medium::File { capacity: ByteSize::from_gib(1536) });
        let quotas = [(String::new(), ByteSize::from_mib(1)), ("team-a".into(), ByteSize::from_gib(10))];
        assert_eq!(settings.storage.quotas, quotas.into());
        let scrub = Scrub { periodic: true, rate: ByteSize::from_mib(5), every_s: 7 * 24 * 3600 };
        assert_eq!(settings.storage.scrub, scrub);
        assert_eq!(settings.storage.sync, Sync::Interval { ms: 250 });
        assert_eq!(settings.log.level, Level::Debug);
        assert_eq!(settings.log.format, LogFormat::Json);
        assert_eq!(settings.log.file, Some("/var/log/memkv.log".into()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn rdma_is_there_when_it_is_asked_for() {
        let rdma = |text: &str| settings(text, Overrides::default()).unwrap().rdma;
        assert_eq!(rdma("log: {level: info}\n"), None);
        let least = RdmaSettings::from(Rdma::default());
        assert_eq!(rdma("rdma: {}\n"), Some(least.clone()));
        let devices = vec!["mlx5_0".to_owned()];
        assert_eq!(rdma("rdma: {device: mlx5_0}\n"), Some(RdmaSettings { devices, ..least.clone() }));
        let text = "rdma:\n  device: [a, b]\n  port: 2\n  gid_type: roce-v1\n  subnet: 10.0.0.0/24\n  connections_max: 9\n  memory: 32MiB\n  verify: sampled\n";
        let whole = RdmaSettings {
            devices: vec!["a".to_owned(), "b".to_owned()],
            port: Some(2),
            gid_type: memkv_transport::gid::GidType::RoceV1,
            subnet: Some("10.0.0.0/24".parse().unwrap()),
            connections_max: 9,
            memory: ByteSize::from_mib(32),
            verify: Verify::Sampled,
        };
        assert_eq!(rdma(text), Some(whole));
        for wrong in [
            "rdma: {subnet: here}\n",
            "rdma: {gid_type: ib}\n",
            "rdma: {devices: a}\n",
            "rdma: {subnet: 10.0.0.0/33}\n",
            "rdma: {verify: seldom}\n",
        ] {
            assert!(message(wrong).contains("line 1"), "{wrong}");
        }
    }

    #[test]
    fn the_command_line_and_the_environment_win() {
        let file = parse("network:\n  address: 127.0.0.1:7000\n  auth_key: \"aa\"\nstorage:\n  path: /srv\n")
            .unwrap();
        let overrides = Overrides {
            address: Some("127.0.0.1:0".into()),
            data: Some("/tmp/elsewhere".into()),
            ..Overrides::default()
        };
        let environment = Environment { auth_key: Some("cc".into()), ..Environment::default() };
        let settings = Settings::resolve(file, overrides, &environment).unwrap();
        assert_eq!(settings.addresses[0].port(), 0);
        assert_eq!(settings.storage.directory, Some("/tmp/elsewhere".into()));
        assert!(matches!(settings.keys, KeySource::Environment(key) if key == "cc"));
    }

    #[test]
    fn memory_mode_with_a_key_needs_no_directory() {
        let settings = settings(
            "network:\n  auth_key: \"aa\"\nstorage:\n  mode: memory\n  capacity: 64MiB\n",
            Overrides::default(),
        )
        .unwrap();
        assert_eq!(settings.storage.directory, None);
    }

    #[test]
    fn a_mistake_is_shown_with_its_line_and_what_is_allowed() {
        let unknown = message("network:\n  address: 127.0.0.1:1\n  adress: x\n");
        assert!(unknown.contains("adress") && unknown.contains("connections_max"), "{unknown}");
        assert!(unknown.contains("line 3") || unknown.contains("3 |"), "{unknown}");
        let mode = message("storage:\n  mode: disk\n");
        assert!(mode.contains("disk") && mode.contains("file") && mode.contains("memory"), "{mode}");
        let size = message("storage:\n  capacity: 10 bananas\n");
        assert!(size.contains("10 bananas") && size.contains("GiB"), "{size}");
        for sync in ["never", "5", "0ms", "61s", "ms"] {
            assert!(message(&format!("storage:\n  sync: {sync}\n")).contains("always"), "{sync}");
        }
        let local = message("network:\n  local: here\n");
        assert!(local.contains("here") && local.contains("auto"), "{local}");
        let section = message("networks:\n  address: x\n");
        assert!(section.contains("networks") && section.contains("network"), "{section}");
    }

    #[test]
    fn scrubbing_is_off_or_has_a_rate_and_an_interval() {
        let scrub = |text: &str| settings(&format!("storage:\n  scrub: {text}\n"), Overrides::default());
        assert!(!scrub("off").unwrap().storage.scrub.periodic);
        assert_eq!(scrub("{every: 12h}").unwrap().storage.scrub.every_s, 12 * 3600);
        assert_eq!(scrub("{rate: 1GiB/s}").unwrap().storage.scrub.rate, ByteSize::from_gib(1));
        for (text, expected) in [
            ("sometimes", "off"),
            ("{rate: 50}", "50MiB/s"),
            ("{rate: 1KiB/s}", "1MiB/s"),
            ("{every: 30}", "30d"),
            ("{every: 1s}", "1m"),
            ("{speed: 1}", "rate"),
        ] {
            let said = scrub(text).expect_err(text).to_string();
            assert!(said.contains(expected) && said.contains('2'), "{text}: {said}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn direct_mode_names_its_drives() {
        let id = "00112233445566778899aabbccddeeff";
        let text = format!("storage:\n  mode: direct\n  drives: [/dev/a, /dev/b]\n  id: \"{id}\"\n");
        let direct = settings(&text, Overrides::default()).unwrap();
        let Medium::Direct { drives, id: Some(found) } = direct.storage.medium else { panic!("direct") };
        assert_eq!(drives, [PathBuf::from("/dev/a"), "/dev/b".into()]);
        assert_eq!(found.to_string(), id);
        for (text, expected) in [
            ("  mode: direct\n", &["memkv setup"][..]),
            ("  mode: direct\n  drives: []\n", &["line 3", "1 to 64"]),
            ("  mode: direct\n  drives:\n    - /dev/a\n    - /dev/a\n", &["line 5", "/dev/a"]),
            ("  mode: direct\n  drives: [/dev/a]\n  capacity: 1GiB\n", &["line 4", "capacity"]),
            ("  drives: [/dev/a]\n", &["line 2", "file mode", "direct"]),
            ("  id: \"00112233445566778899aabbccddeeff\"\n", &["line 2", "direct"]),
            ("  mode: direct\n  drives: [/dev/a]\n  id: abc\n", &["abc", "32 hexadecimal"]),
        ] {
            let said = message(&format!("storage:\n{text}"));
            assert!(expected.iter().all(|word| said.contains(word)), "{text}: {said}");
        }
    }

    #[test]
    fn contradictions_say_what_to_do() {
        assert!(
            message("network:\n  auth_key: \"aa\"\n  auth_keys: [\"bb\"]\n").contains("exclude each other")
        );
        assert!(message("network:\n  auth_keys: []\n").contains("memkv keygen"));
        assert!(message("network:\n  spin_us: 1001\n").contains("line 2: network.spin_us is 1001"));
        assert!(message("network:\n  address: nonsense\n").contains("HOST:PORT"));
        assert!(message("storage:\n  mode: memory\n  path: /srv\n").contains("memory mode"));
        assert!(message("storage:\n  capacity: 1MiB\n").contains("line 2: storage.capacity 1MiB"));
        assert!(message("storage:\n  mode: memory\n  scrub: off\n").contains("line 3"));
        let namespace = "n".repeat(256);
        assert!(message(&format!("storage:\n  quotas:\n    {namespace}: 1GiB\n")).contains("255 bytes"));
        assert!(message("storage:\n  quotas:\n    a: much\n").contains("much"));
    }

    #[test]
    fn keys_are_not_printed() {
        let file = parse("network:\n  auth_key: \"5ecre7\"\n").unwrap();
        assert!(!format!("{file:?}").contains("5ecre7"));
        let settings = settings("network:\n  auth_key: \"5ecre7\"\n", Overrides::default()).unwrap();
        assert!(!format!("{settings:?}").contains("5ecre7"));
    }
}
