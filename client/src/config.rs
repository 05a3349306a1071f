//! What a client is told: where the server is, the key, and its bounds.

use memkv_transport::gid::{GidType, Subnet};
use memkv_transport::spin::{SPIN_US_DEFAULT, SPIN_US_MAX};
pub use memkv_transport::verify::Verify;
use memkv_wire::mac::Key;

use crate::core::{CONNECTIONS_MAX, CallOptions, Settings};
use crate::error::{ApiMisuse, Error};
use crate::uri::{Endpoint, Uri};

/// The environment variable that holds the shared key: 64 hexadecimal digits.
pub const KEY_VARIABLE: &str = "MEMKV_AUTH_KEY";

/// The environment variable that pins the transport.
pub const TRANSPORT_VARIABLE: &str = "MEMKV_TRANSPORT";

/// The environment variable that names the RDMA devices to use, with commas between them; `any`, as if it were not there: the first one that can be
/// used; `none`: a client that may choose the transport leaves RDMA alone.
pub const RDMA_DEVICES_VARIABLE: &str = "MEMKV_RDMA_DEVICES";

/// The environment variable for [`Config::rdma_gid_type`]: `roce-v2` or `roce-v1`.
pub const RDMA_GID_TYPE_VARIABLE: &str = "MEMKV_RDMA_GID_TYPE";

/// The environment variable for [`Config::rdma_subnet`], as `10.0.0.0/24` or `fd00::/64`.
pub const RDMA_SUBNET_VARIABLE: &str = "MEMKV_RDMA_SUBNET";

/// The environment variable for [`Settings::connections`].
pub const CONNECTIONS_VARIABLE: &str = "MEMKV_CONNECTIONS";

/// The environment variable for [`Config::spin_us`].
pub const SPIN_VARIABLE: &str = "MEMKV_SPIN_US";

/// The environment variable for [`Config::verify`]: `always`, `sampled` or `never`.
pub const VERIFY_VARIABLE: &str = "MEMKV_VERIFY";

/// How a client reaches its server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// The fastest that both sides have: shared memory on the same host, else RDMA unless [`Config::rdma`] says no, else TCP.
    #[default]
    Auto,
    /// TCP and nothing else.
    Tcp,
    /// The local socket and nothing else. The URI still names the TCP address, which says where the socket is.
    Local,
    /// An RDMA queue pair and nothing else. It is set up over the TCP address that the URI names.
    Rdma,
}

impl Transport {
    /// What the environment says in [`TRANSPORT_VARIABLE`].
    pub fn from_env() -> Result<Self, Error> {
        match std::env::var(TRANSPORT_VARIABLE) {
            Ok(text) => Self::from_name(&text),
            Err(std::env::VarError::NotPresent) => Ok(Self::Auto),
            Err(std::env::VarError::NotUnicode(_)) => Err(ApiMisuse::Transport.into()),
        }
    }

    fn from_name(name: &str) -> Result<Self, Error> {
        match name {
            "" | "auto" => Ok(Self::Auto),
            "tcp" => Ok(Self::Tcp),
            "local" => Ok(Self::Local),
            "rdma" if cfg!(target_os = "linux") => Ok(Self::Rdma),
            "rdma" => Err(ApiMisuse::NoRdma.into()),
            _ => Err(ApiMisuse::Transport.into()),
        }
    }
}

/// The configuration of a client.
#[derive(Debug, Clone)]
pub struct Config {
    /// The server.
    pub server: Endpoint,
    /// The namespace, at most 255 bytes; keys and names of different namespaces are different.
    pub namespace: Vec<u8>,
    /// The key that client and server share.
    pub key: Key,
    /// How long an operation may take, over all attempts, unless the call says otherwise.
    pub timeout_ms: u64,
    /// The most memory for bytes that were received and not yet given up by whoever read them.
    pub receive_size_bytes_max: usize,
    /// The most memory for the buffers of [`Client::buffer`](crate::Client::buffer).
    pub send_size_bytes_max: usize,
    /// How the server is reached.
    pub transport: Transport,
    /// Whether a client that may choose the transport asks for RDMA, where this host has a device and the server says that it has.
    pub rdma: bool,
    /// The RDMA devices to use, in turn; none: the first one that can be used.
    pub rdma_devices: Vec<String>,
    /// How packets travel between RDMA devices; on the server the same.
    pub rdma_gid_type: GidType,
    /// The network that an RDMA device's address has to be in; none: any, of IPv4 first.
    pub rdma_subnet: Option<Subnet>,
    /// The memory of each direction that is registered with RDMA devices, and locked; 0: none, bytes go with the frames.
    pub rdma_size_bytes: usize,
    /// Which of the bytes that a server's RDMA device puts in the client's memory are checked.
    pub verify: Verify,
    /// The memory of each direction that is made ready when it is first shared with a server on the same host. The
    /// rest becomes ready as it is used.
    pub warm_size_bytes: usize,
    /// For how many microseconds to stay awake for the answer to a small request when the last one came as soon; for four times as
    /// many in a few of a hundred when it came within these. 0: always sleep. On a single processor a client always does.
    pub spin_us: u32,
    /// Connections, windows and delays.
    pub settings: Settings,
    /// Told to the server, for its logs; at most 128 bytes of it.
    pub client_name: String,
}

impl Config {
    /// The configuration that a URI and a key describe.
    pub fn new(uri: &str, key: Key) -> Result<Self, Error> {
        let uri: Uri = uri.parse().map_err(ApiMisuse::Uri)?;
        let servers = uri.servers.len();
        let mut names = uri.servers.into_iter();
        let (Some(server), None) = (names.next(), names.next()) else {
            return Err(ApiMisuse::SeveralServers { servers }.into());
        };
        Ok(Self {
            server,
            namespace: uri.namespace.into_bytes(),
            key,
            timeout_ms: 30_000,
            receive_size_bytes_max: 256 << 20,
            send_size_bytes_max: 256 << 20,
            transport: Transport::Auto,
            rdma: true,
            rdma_devices: Vec::new(),
            rdma_gid_type: GidType::default(),
            rdma_subnet: None,
            rdma_size_bytes: 64 << 20,
            verify: Verify::Always,
            warm_size_bytes: 4 << 20,
            spin_us: SPIN_US_DEFAULT,
            settings: Settings::default(),
            client_name: concat!("memkv-client ", env!("CARGO_PKG_VERSION")).to_owned(),
        })
    }

    /// As [`Config::new`], with what the environment says: the key ([`KEY_VARIABLE`]), and if they are there the transport
    /// ([`TRANSPORT_VARIABLE`]), RDMA devices and which of their addresses ([`RDMA_DEVICES_VARIABLE`], [`RDMA_GID_TYPE_VARIABLE`],
    /// [`RDMA_SUBNET_VARIABLE`]), what to verify ([`VERIFY_VARIABLE`]), the number of connections
    /// ([`CONNECTIONS_VARIABLE`]) and how long to stay awake ([`SPIN_VARIABLE`]).
    pub fn from_env(uri: &str) -> Result<Self, Error> {
        Self::from_env_but_key(uri, key_from_env()?)
    }

    /// As [`Config::from_env`], for whoever has the key from elsewhere.
    pub fn from_env_but_key(uri: &str, key: Key) -> Result<Self, Error> {
        let mut config = Self { transport: Transport::from_env()?, ..Self::new(uri, key)? };
        if let Some(names) = std::env::var_os(RDMA_DEVICES_VARIABLE) {
            (config.rdma, config.rdma_devices) = rdma_devices(&names.to_string_lossy());
        }
        if let Some(text) = std::env::var_os(RDMA_GID_TYPE_VARIABLE) {
            config.rdma_gid_type = text.to_string_lossy().parse().map_err(|_| ApiMisuse::GidType)?;
        }
        if let Some(text) = std::env::var_os(RDMA_SUBNET_VARIABLE) {
            config.rdma_subnet = Some(text.to_string_lossy().parse().map_err(|_| ApiMisuse::Subnet)?);
        }
        if let Some(text) = std::env::var_os(VERIFY_VARIABLE) {
            config.verify = verify(&text.to_string_lossy())?;
        }
        match std::env::var(CONNECTIONS_VARIABLE) {
            Ok(text) => config.settings.connections = connections(&text)?,
            Err(std::env::VarError::NotPresent) => {}
            Err(std::env::VarError::NotUnicode(_)) => return Err(ApiMisuse::Connections.into()),
        }
        if let Some(text) = std::env::var_os(SPIN_VARIABLE) {
            config.spin_us = spin_us(&text.to_string_lossy())?;
        }
        Ok(config)
    }

    pub(crate) fn options(&self) -> CallOptions {
        CallOptions { timeout_ms: self.timeout_ms, fail_fast: false }
    }
}

/// Whether RDMA is used where it can be, and on which devices.
fn rdma_devices(text: &str) -> (bool, Vec<String>) {
    let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
    let names: Vec<_> = names.map(str::to_owned).collect();
    match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["none"] => (false, Vec::new()),
        ["any"] => (true, Vec::new()),
        _ => (true, names),
    }
}

fn verify(text: &str) -> Result<Verify, Error> {
    match text {
        "" | "always" => Ok(Verify::Always),
        "sampled" => Ok(Verify::Sampled),
        "never" => Ok(Verify::Never),
        _ => Err(ApiMisuse::Verify.into()),
    }
}

fn connections(text: &str) -> Result<u16, Error> {
    let number = text.parse().ok().filter(|number| (1..=CONNECTIONS_MAX).contains(number));
    Ok(number.ok_or(ApiMisuse::Connections)?)
}

fn spin_us(text: &str) -> Result<u32, Error> {
    let number = text.parse().ok().filter(|number| *number <= SPIN_US_MAX);
    Ok(number.ok_or(ApiMisuse::Spin)?)
}

/// The key in the environment.
pub fn key_from_env() -> Result<Key, Error> {
    match std::env::var(KEY_VARIABLE) {
        Ok(text) => Ok(Key::from_hex(&text).map_err(|_| ApiMisuse::KeyMalformed)?),
        Err(std::env::VarError::NotPresent) => Err(ApiMisuse::KeyAbsent.into()),
        Err(std::env::VarError::NotUnicode(_)) => Err(ApiMisuse::KeyMalformed.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_have_names() {
        for (name, transport) in [
            ("", Transport::Auto),
            ("auto", Transport::Auto),
            ("tcp", Transport::Tcp),
            ("local", Transport::Local),
        ] {
            assert_eq!(Transport::from_name(name), Ok(transport));
        }
        let rdma =
            if cfg!(target_os = "linux") { Ok(Transport::Rdma) } else { Err(ApiMisuse::NoRdma.into()) };
        assert_eq!(Transport::from_name("rdma"), rdma);
        assert_eq!(Transport::from_name("TCP"), Err(ApiMisuse::Transport.into()));
    }

    #[test]
    fn rdma_devices_have_names() {
        let named = |names: &[&str]| (true, names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(rdma_devices("none"), (false, Vec::new()));
        assert_eq!(rdma_devices(""), named(&[]));
        assert_eq!(rdma_devices("any"), named(&[]));
        assert_eq!(rdma_devices("rxe0"), named(&["rxe0"]));
        assert_eq!(rdma_devices("mlx5_0, mlx5_1,"), named(&["mlx5_0", "mlx5_1"]));
    }

    #[test]
    fn what_to_verify_has_names() {
        assert_eq!((verify(""), verify("always")), (Ok(Verify::Always), Ok(Verify::Always)));
        assert_eq!((verify("sampled"), verify("never")), (Ok(Verify::Sampled), Ok(Verify::Never)));
        assert_eq!(verify("no"), Err(ApiMisuse::Verify.into()));
    }

    #[test]
    fn spins_are_counted() {
        assert_eq!((spin_us("0"), spin_us("1000")), (Ok(0), Ok(1000)));
        for text in ["", "1001", "-1", "50us"] {
            assert_eq!(spin_us(text), Err(ApiMisuse::Spin.into()), "{text}");
        }
    }

    #[test]
    fn connections_are_counted() {
        assert_eq!((connections("1"), connections("64")), (Ok(1), Ok(64)));
        for text in ["", "0", "65", "-1", "two"] {
            assert_eq!(connections(text), Err(ApiMisuse::Connections.into()), "{text}");
        }
    }
}
