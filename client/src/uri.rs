//! The address of a namespace: `memkv://host:port[,host:port]/namespace`.
//!
//! Owns the text form only. Names are not resolved here, and nothing is connected.

use std::fmt;
use std::str::FromStr;

use memkv_wire::limits::NAMESPACE_SIZE_BYTES_MAX;

/// The port of a server whose URI names none.
pub const PORT_DEFAULT: u16 = 9900;

const SCHEME: &str = "memkv://";

/// One server's address, as written in a URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A host name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// A parsed `memkv://` URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Uri {
    /// The servers, in the order they were written; never empty.
    pub servers: Vec<Endpoint>,
    /// The namespace; may be empty.
    pub namespace: String,
}

/// Why a URI was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Anything but `memkv://` at the start.
    #[error("a store URI begins with memkv://, such as memkv://127.0.0.1:9900/sessions")]
    Scheme,
    /// No server, or an empty name between commas.
    #[error("a store URI names at least one server: memkv://host:port/namespace")]
    Host,
    /// An IPv6 address without its closing bracket, or something between bracket and port.
    #[error("an IPv6 address stands in brackets: memkv://[::1]:9900/namespace")]
    Brackets,
    /// A port that is no number from 1 to 65535.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// `?` or `#`: a MemKV URI has no parameters.
    #[error("a store URI has no parameters after ? or #")]
    Parameters,
    /// A namespace over 255 bytes.
    #[error("a namespace has at most {NAMESPACE_SIZE_BYTES_MAX} bytes, this one has {size_bytes}")]
    Namespace {
        /// Its length.
        size_bytes: usize,
    },
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let rest = text.strip_prefix(SCHEME).ok_or(UriError::Scheme)?;
        if rest.contains(['?', '#']) {
            return Err(UriError::Parameters);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let namespace = path.trim_end_matches('/');
        if namespace.len() > NAMESPACE_SIZE_BYTES_MAX as usize {
            return Err(UriError::Namespace { size_bytes: namespace.len() });
        }
        let servers = authority.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { servers, namespace: namespace.to_owned() })
    }
}

impl FromStr for Endpoint {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or(UriError::Brackets)?;
                match after {
                    "" => (host, None),
                    _ => (host, Some(after.strip_prefix(':').ok_or(UriError::Brackets)?)),
                }
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.is_empty()
            || host.contains(|c: char| c.is_whitespace() || c.is_control() || "@[]".contains(c))
        {
            return Err(UriError::Host);
        }
        Ok(Self { host: host.to_owned(), port: port.map_or(Ok(PORT_DEFAULT), parse_port)? })
    }
}

fn parse_port(text: &str) -> Result<u16, UriError> {
    // `u16::from_str` takes a leading plus sign.
    match text.parse() {
        Ok(0) | Err(_) => Err(UriError::Port),
        Ok(port) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        Ok(_) => Err(UriError::Port),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        for (i, server) in self.servers.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{server}")?;
        }
        write!(f, "/{}", self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> (Vec<(String, u16)>, String) {
        let uri: Uri = text.parse().expect(text);
        (uri.servers.into_iter().map(|s| (s.host, s.port)).collect(), uri.namespace)
    }

    fn server(host: &str, port: u16) -> (String, u16) {
        (host.to_owned(), port)
    }

    #[test]
    fn accepted_forms() {
        assert_eq!(parsed("memkv://10.0.0.1:1234/llama"), (vec![server("10.0.0.1", 1234)], "llama".into()));
        assert_eq!(parsed("memkv://kv.example/llama/"), (vec![server("kv.example", 9900)], "llama".into()));
        assert_eq!(parsed("memkv://host"), (vec![server("host", 9900)], String::new()));
        assert_eq!(parsed("memkv://host:1/"), (vec![server("host", 1)], String::new()));
        assert_eq!(parsed("memkv://[::1]:77/a/b"), (vec![server("::1", 77)], "a/b".into()));
        assert_eq!(parsed("memkv://[fe80::1]/x"), (vec![server("fe80::1", 9900)], "x".into()));
        assert_eq!(
            parsed("memkv://a:1,b,[::2]:3/ns").0,
            vec![server("a", 1), server("b", 9900), server("::2", 3)]
        );
    }

    #[test]
    fn refused_forms() {
        for (text, error) in [
            ("", UriError::Scheme),
            ("redis://host/x", UriError::Scheme),
            ("MEMKV://host/x", UriError::Scheme),
            ("memkv://", UriError::Host),
            ("memkv:///ns", UriError::Host),
            ("memkv://a,,b/ns", UriError::Host),
            ("memkv://user@host/ns", UriError::Host),
            ("memkv://ho st/ns", UriError::Host),
            ("memkv://host:/ns", UriError::Port),
            ("memkv://host:0/ns", UriError::Port),
            ("memkv://host:+1/ns", UriError::Port),
            ("memkv://host:65536/ns", UriError::Port),
            ("memkv://::1/ns", UriError::Host),
            ("memkv://[::1/ns", UriError::Brackets),
            ("memkv://[::1]9/ns", UriError::Brackets),
            ("memkv://a[b]/ns", UriError::Host),
            ("memkv://[[::1]/ns", UriError::Host),
            ("memkv://host/ns?x=1", UriError::Parameters),
        ] {
            assert_eq!(text.parse::<Uri>(), Err(error), "{text}");
        }
        let long = "n".repeat(256);
        assert_eq!(format!("memkv://h/{long}").parse::<Uri>(), Err(UriError::Namespace { size_bytes: 256 }));
        assert!(format!("memkv://h/{}", "n".repeat(255)).parse::<Uri>().is_ok());
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "(memkv://)?[a-z:\\[\\],/0-9?# @\u{0}-\u{ff}]{0,40}") {
            // A form that is accepted is written back to one that means the same.
            if let Ok(uri) = text.parse::<Uri>() {
                prop_assert_eq!(uri.to_string().parse::<Uri>(), Ok(uri));
            }
        }
    }
}
