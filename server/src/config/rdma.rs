//! Which RDMA devices are served, and by which of their addresses.

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
    pub gid_type: GidType,
    /// The network that the device's address is in.
    pub subnet: Option<Subnet>,
    pub connections_max: Option<u32>,
    /// For what goes one-sided, of each direction; locked for as long as the server runs.
    pub memory: Option<ByteSize>,
    pub verify: Verify,
}

/// How RDMA packets travel.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum GidType {
    RoceV1,
    #[default]
    RoceV2,
}

/// `ADDRESS/BITS`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Subnet(pub String);

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Subnet, D::Error> {
        let text = String::deserialize(deserializer)?;
        if is_subnet(&text) {
            return Ok(Subnet(text));
        }
        Err(D::Error::custom(format_args!("`{text}`: expected a network, such as 10.0.0.0/24 or fd00::/64")))
    }
}

fn is_subnet(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let bits_max = match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse().is_ok_and(|bits: u32| bits <= bits_max)
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
