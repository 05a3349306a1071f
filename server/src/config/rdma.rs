//! Which RDMA devices are served, and by which of their addresses.

use std::fmt::Display;
use std::str::FromStr;

use memkv_transport::gid::{GidType, Subnet};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::ByteSize;

/// Connections that are served over RDMA at a time, when nothing else is said: each has about 1 MiB of locked memory.
pub const RDMA_CONNECTIONS_MAX_DEFAULT: u32 = 256;

/// Memory of each direction that is registered, when nothing else is said.
pub const RDMA_MEMORY_DEFAULT: ByteSize = ByteSize::from_mib(64);

/// Which of the bytes that come one-sided are held against their MAC and checksum.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    #[default]
    Always,
    /// One piece in sixteen, drawn at random.
    Sampled,
    Never,
}

impl From<Verify> for memkv_transport::verify::Verify {
    fn from(verify: Verify) -> Self {
        match verify {
            Verify::Always => Self::Always,
            Verify::Sampled => Self::Sampled,
            Verify::Never => Self::Never,
        }
    }
}

/// One name or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Names {
    One(String),
    Several(Vec<String>),
}

/// The document's `rdma`. There is no RDMA without it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rdma {
    /// As `ibv_devices` lists them; without it the first one that can be used.
    pub device: Option<Names>,
    pub port: Option<u8>,
    #[serde(deserialize_with = "parsed")]
    pub gid_type: GidType,
    /// The network that the device's address is in.
    #[serde(deserialize_with = "parsed_some")]
    pub subnet: Option<Subnet>,
    pub connections_max: Option<u32>,
    /// For what goes one-sided, of each direction; locked for as long as the server runs.
    pub memory: Option<ByteSize>,
    pub verify: Verify,
}

/// What is written as it is in a client's environment.
fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(deserializer: D) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|error| D::Error::custom(format_args!("`{text}`: {error}")))
}

fn parsed_some<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    parsed(deserializer).map(Some)
}

/// How clients with RDMA are served.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RdmaSettings {
    /// None: the first one that can be used.
    pub devices: Vec<String>,
    pub port: Option<u8>,
    pub gid_type: GidType,
    pub subnet: Option<Subnet>,
    pub connections_max: u32,
    pub memory: ByteSize,
    pub verify: Verify,
}

impl From<Rdma> for RdmaSettings {
    fn from(rdma: Rdma) -> RdmaSettings {
        let devices = match rdma.device {
            None => Vec::new(),
            Some(Names::One(name)) => vec![name],
            Some(Names::Several(names)) => names,
        };
        RdmaSettings {
            devices,
            port: rdma.port,
            gid_type: rdma.gid_type,
            subnet: rdma.subnet,
            connections_max: rdma.connections_max.unwrap_or(RDMA_CONNECTIONS_MAX_DEFAULT).max(1),
            memory: rdma.memory.unwrap_or(RDMA_MEMORY_DEFAULT),
            verify: rdma.verify,
        }
    }
}
