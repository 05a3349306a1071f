//! What a client is told: where the server is, the key, and its bounds.

use memkv_wire::mac::Key;

use crate::core::{CONNECTIONS_MAX, CallOptions, Settings};
use crate::error::{ApiMisuse, Error};
use crate::uri::{Endpoint, Uri};

/// The environment variable that holds the shared key: 64 hexadecimal digits.
pub const KEY_VARIABLE: &str = "MEMKV_AUTH_KEY";

/// The environment variable that pins the transport.
pub const TRANSPORT_VARIABLE: &str = "MEMKV_TRANSPORT";

/// The environment variable for [`Settings::connections`].
pub const CONNECTIONS_VARIABLE: &str = "MEMKV_CONNECTIONS";

/// How a client reaches its server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transport {
    /// The fastest that both sides have: shared memory on the same host, else TCP.
    #[default]
    Auto,
    /// TCP and nothing else.
    Tcp,
    /// The local socket and nothing else. The URI still names the TCP address, which says where the socket is.
    Local,
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
    /// The memory of each direction that is made ready when it is first shared with a server on the same host. The
    /// rest becomes ready as it is used.
    pub warm_size_bytes: usize,
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
            warm_size_bytes: 4 << 20,
            settings: Settings::default(),
            client_name: concat!("memkv-client ", env!("CARGO_PKG_VERSION")).to_owned(),
        })
    }

    /// As [`Config::new`], with what the environment says: the key ([`KEY_VARIABLE`]), and if it is there the transport
    /// ([`TRANSPORT_VARIABLE`]) and the number of connections ([`CONNECTIONS_VARIABLE`]).
    pub fn from_env(uri: &str) -> Result<Self, Error> {
        let mut config = Self { transport: Transport::from_env()?, ..Self::new(uri, key_from_env()?)? };
        match std::env::var(CONNECTIONS_VARIABLE) {
            Ok(text) => config.settings.connections = connections(&text)?,
            Err(std::env::VarError::NotPresent) => {}
            Err(std::env::VarError::NotUnicode(_)) => return Err(ApiMisuse::Connections.into()),
        }
        Ok(config)
    }

    pub(crate) fn options(&self) -> CallOptions {
        CallOptions { timeout_ms: self.timeout_ms, fail_fast: false }
    }
}

fn connections(text: &str) -> Result<u16, Error> {
    let number = text.parse().ok().filter(|number| (1..=CONNECTIONS_MAX).contains(number));
    Ok(number.ok_or(ApiMisuse::Connections)?)
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
        assert_eq!(Transport::from_name("rdma"), Err(ApiMisuse::NoRdma.into()));
        assert_eq!(Transport::from_name("TCP"), Err(ApiMisuse::Transport.into()));
    }

    #[test]
    fn connections_are_counted() {
        assert_eq!((connections("1"), connections("64")), (Ok(1), Ok(64)));
        for text in ["", "0", "65", "-1", "two"] {
            assert_eq!(connections(text), Err(ApiMisuse::Connections.into()), "{text}");
        }
    }
}
