//! The `storage` section: what it may say, and what a server makes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

use super::{ByteSize, ConfigError, Environment, KeySource, Line};
use crate::store::{DEVICES_MAX, NAMESPACE_BYTES_MAX};

/// How much of the disk or of memory the embedded default may fill.
pub const CAPACITY_DEFAULT: ByteSize = ByteSize::from_gib(10);
pub const CAPACITY_MEMORY_DEFAULT: ByteSize = ByteSize::from_gib(1);
/// The smallest capacity that is worth a server: the largest value and room to move.
pub const CAPACITY_MIN: ByteSize = ByteSize::from_mib(64);
pub const SCRUB_RATE_DEFAULT: ByteSize = ByteSize::from_mib(50);
pub const SCRUB_EVERY_DEFAULT_S: u64 = 30 * DAY_S;

const DAY_S: u64 = 24 * 60 * 60;
/// Slower than this a scrub of one drive takes years.
const SCRUB_RATE_MIN: ByteSize = ByteSize::from_mib(1);
const SCRUB_EVERY_S_MIN: u64 = 60;
const SCRUB_EVERY_S_MAX: u64 = 3650 * DAY_S;
/// Longer intervals are more likely a slip than a wish.
const SYNC_INTERVAL_MS_MAX: u64 = 60_000;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    pub mode: Option<Mode>,
    pub path: Option<Spanned<PathBuf>>,
    pub capacity: Option<Spanned<ByteSize>>,
    pub drives: Option<Spanned<Vec<Spanned<PathBuf>>>>,
    pub id: Option<Spanned<StoreId>>,
    pub quotas: Option<BTreeMap<NamespaceName, ByteSize>>,
    pub sync: Option<Spanned<Sync>>,
    pub scrub: Option<Spanned<Scrub>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    File,
    Memory,
    Direct,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::File => "file",
            Mode::Memory => "memory",
            Mode::Direct => "direct",
        }
    }
}

/// A store's random name, as its superblocks hold it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for StoreId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StoreId, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut id = [0; 16];
        let decoded = hex::decode_to_slice(&text, &mut id);
        let expected = "expected the 32 hexadecimal digits that `memkv setup` printed";
        decoded.map(|()| StoreId(id)).map_err(|_| D::Error::custom(format_args!("`{text}`: {expected}")))
    }
}

/// A namespace as the protocol has them.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct NamespaceName(String);

impl<'de> Deserialize<'de> for NamespaceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NamespaceName, D::Error> {
        let name = String::deserialize(deserializer)?;
        match name.len() {
            0..=NAMESPACE_BYTES_MAX => Ok(NamespaceName(name)),
            _ => Err(D::Error::custom(format_args!("a namespace has at most {NAMESPACE_BYTES_MAX} bytes"))),
        }
    }
}

/// When what was acknowledged is made to survive the loss of power: `always`, or an interval such as `100ms`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sync {
    /// Before a manifest or a delete is acknowledged.
    #[default]
    Always,
    /// At this interval: a loss of power takes at most that much.
    Interval { ms: u64 },
}

/// A number with one of these units.
fn in_units(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))?;
    number.trim().parse::<u64>().ok()?.checked_mul(factor)
}

impl<'de> Deserialize<'de> for Sync {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sync, D::Error> {
        let text = String::deserialize(deserializer)?;
        let interval = in_units(&text, &[("ms", 1), ("s", 1000)]);
        match (text.as_str(), interval.filter(|ms| (1..=SYNC_INTERVAL_MS_MAX).contains(ms))) {
            ("always", _) => Ok(Sync::Always),
            (_, Some(ms)) => Ok(Sync::Interval { ms }),
            (_, None) => Err(D::Error::custom(format_args!(
                "`{text}`: expected `always`, or an interval from 1ms to 60s such as 100ms"
            ))),
        }
    }
}

/// How often everything stored is reread and checked, and how fast: `off`, or a rate and an interval.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Scrub {
    /// Whether the server starts a pass by itself.
    pub periodic: bool,
    /// A second, over all drives.
    pub rate: ByteSize,
    pub every_s: u64,
}

impl Default for Scrub {
    fn default() -> Scrub {
        Scrub { periodic: true, rate: SCRUB_RATE_DEFAULT, every_s: SCRUB_EVERY_DEFAULT_S }
    }
}

impl<'de> Deserialize<'de> for Scrub {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scrub, D::Error> {
        deserializer.deserialize_any(ScrubVisitor)
    }
}

struct ScrubVisitor;

impl<'de> Visitor<'de> for ScrubVisitor {
    type Value = Scrub;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`off`, or a mapping such as {rate: 50MiB/s, every: 30d}")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Scrub, E> {
        match text {
            "off" => Ok(Scrub { periodic: false, ..Scrub::default() }),
            other => {
                Err(E::custom(format_args!("`{other}`: expected `off`, or {{rate: 50MiB/s, every: 30d}}")))
            }
        }
    }

    /// YAML's older rules take `off` for false.
    fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<Scrub, E> {
        Ok(Scrub { periodic: on, ..Scrub::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Scrub, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            rate: Option<Rate>,
            every: Option<Every>,
        }
        let written = Written::deserialize(MapAccessDeserializer::new(map))?;
        let rate = written.rate.map_or(SCRUB_RATE_DEFAULT, |Rate(rate)| rate);
        let every_s = written.every.map_or(SCRUB_EVERY_DEFAULT_S, |Every(every_s)| every_s);
        Ok(Scrub { periodic: true, rate, every_s })
    }
}

struct Rate(ByteSize);

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rate, D::Error> {
        let text = String::deserialize(deserializer)?;
        let rate = text.strip_suffix("/s").and_then(|size| size.parse::<ByteSize>().ok());
        rate.filter(|rate| *rate >= SCRUB_RATE_MIN).map(Rate).ok_or_else(|| {
            D::Error::custom(format_args!("`{text}`: expected a rate of at least 1MiB/s, such as 50MiB/s"))
        })
    }
}

struct Every(u64);

impl<'de> Deserialize<'de> for Every {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Every, D::Error> {
        let text = String::deserialize(deserializer)?;
        let every_s = in_units(&text, &[("s", 1), ("m", 60), ("h", 60 * 60), ("d", DAY_S)]);
        every_s
            .filter(|every_s| (SCRUB_EVERY_S_MIN..=SCRUB_EVERY_S_MAX).contains(every_s))
            .map(Every)
            .ok_or_else(|| {
                D::Error::custom(format_args!("`{text}`: expected an interval from 1m to 3650d, such as 30d"))
            })
    }
}

/// What a server keeps values on, and how.
#[derive(Clone, Debug)]
pub struct StorageSettings {
    pub medium: Medium,
    /// Holds the key, the control socket and, in file mode, the values. In memory mode it is used only for
    /// what the configuration does not give.
    pub directory: Option<PathBuf>,
    /// Bytes of values by namespace; others are unlimited.
    pub quotas: BTreeMap<String, ByteSize>,
    pub sync: Sync,
    pub scrub: Scrub,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Medium {
    File {
        capacity: ByteSize,
    },
    Memory {
        capacity: ByteSize,
    },
    Direct {
        drives: Vec<PathBuf>,
        /// Drives of any other store are refused.
        id: Option<StoreId>,
    },
}

impl Medium {
    pub fn mode(&self) -> Mode {
        match self {
            Medium::File { .. } => Mode::File,
            Medium::Memory { .. } => Mode::Memory,
            Medium::Direct { .. } => Mode::Direct,
        }
    }
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Medium::File { capacity } | Medium::Memory { capacity } => {
                write!(f, "{} mode, {capacity}", self.mode().name())
            }
            Medium::Direct { drives, .. } => {
                let names: Vec<_> = drives.iter().map(|drive| drive.display().to_string()).collect();
                write!(f, "direct mode, {}", names.join(" "))
            }
        }
    }
}

/// `source` is what errors call the document.
pub(super) fn settings(
    storage: Storage,
    source: &Path,
    data: Option<PathBuf>,
    keys: &KeySource,
    environment: &Environment,
) -> Result<StorageSettings, ConfigError> {
    let at = |location: u64| Line { source: source.to_owned(), line: location };
    let medium = medium(&storage, at)?;
    let mode = medium.mode();
    if mode == Mode::Memory {
        if let Some(path) = &storage.path {
            return Err(ConfigError::PathInMemoryMode { at: at(path.referenced.line()) });
        }
        if let Some(sync) = &storage.sync {
            return Err(ConfigError::SyncInMemoryMode { at: at(sync.referenced.line()) });
        }
        if let Some(scrub) = &storage.scrub {
            return Err(ConfigError::ScrubInMemoryMode { at: at(scrub.referenced.line()) });
        }
    }
    let named = data.or(storage.path.map(|path| path.value));
    let directory = match (mode, keys) {
        (Mode::Memory, KeySource::Environment(_) | KeySource::Config(_)) => named,
        (Mode::File | Mode::Direct, _) | (Mode::Memory, KeySource::DataDirectory) => {
            Some(named.or_else(|| environment.data_directory()).ok_or(ConfigError::NoDataDirectory)?)
        }
    };
    let quotas = storage.quotas.unwrap_or_default();
    let quotas = quotas.into_iter().map(|(NamespaceName(name), quota)| (name, quota)).collect();
    Ok(StorageSettings {
        medium,
        directory,
        quotas,
        sync: storage.sync.map(|sync| sync.value).unwrap_or_default(),
        scrub: storage.scrub.map(|scrub| scrub.value).unwrap_or_default(),
    })
}

fn medium(storage: &Storage, at: impl Fn(u64) -> Line) -> Result<Medium, ConfigError> {
    let mode = storage.mode.unwrap_or_default();
    let capacity = |otherwise| match &storage.capacity {
        Some(capacity) if capacity.value < CAPACITY_MIN => Err(ConfigError::CapacityTooSmall {
            at: at(capacity.referenced.line()),
            capacity: capacity.value,
            least: CAPACITY_MIN,
        }),
        Some(capacity) => Ok(capacity.value),
        None => Ok(otherwise),
    };
    if mode == Mode::Direct {
        return direct(storage, at);
    }
    if let Some(drives) = &storage.drives {
        return Err(ConfigError::DrivesNotInDirectMode {
            at: at(drives.referenced.line()),
            mode: mode.name(),
        });
    }
    if let Some(id) = &storage.id {
        return Err(ConfigError::IdNotInDirectMode { at: at(id.referenced.line()) });
    }
    match mode {
        Mode::Memory => Ok(Medium::Memory { capacity: capacity(CAPACITY_MEMORY_DEFAULT)? }),
        Mode::File | Mode::Direct => Ok(Medium::File { capacity: capacity(CAPACITY_DEFAULT)? }),
    }
}

fn direct(storage: &Storage, at: impl Fn(u64) -> Line) -> Result<Medium, ConfigError> {
    if !cfg!(target_os = "linux") {
        return Err(ConfigError::DirectNeedsLinux);
    }
    if let Some(capacity) = &storage.capacity {
        return Err(ConfigError::CapacityInDirectMode { at: at(capacity.referenced.line()) });
    }
    let Some(drives) = storage.drives.as_ref() else { return Err(ConfigError::NoDrives) };
    if drives.value.is_empty() || drives.value.len() > usize::from(DEVICES_MAX) {
        let at = at(drives.referenced.line());
        return Err(ConfigError::DriveCount { at, count: drives.value.len(), count_max: DEVICES_MAX });
    }
    let mut paths: Vec<PathBuf> = Vec::with_capacity(drives.value.len());
    for drive in &drives.value {
        if paths.contains(&drive.value) {
            let (at, drive) = (at(drive.referenced.line()), drive.value.clone());
            return Err(ConfigError::DriveTwice { at, drive });
        }
        paths.push(drive.value.clone());
    }
    Ok(Medium::Direct { drives: paths, id: storage.id.as_ref().map(|id| id.value) })
}
