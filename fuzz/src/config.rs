//! What people write: configurations, URIs, keys.

use std::path::Path;

use memkv_client::Uri;
use memkv_server::config::{Environment, File, Overrides, Settings};
use memkv_wire::mac::Key;

pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(uri) = text.parse::<Uri>() {
        assert!(!uri.servers.is_empty(), "a URI without a server");
    }
    if let Ok(key) = Key::from_hex(text) {
        // A key file ends with a line break: the space around a key is not part of it.
        assert!(key.to_hex().eq_ignore_ascii_case(text.trim()));
    }
    let file = match File::parse(text, Path::new("config.yaml")) {
        Ok(file) => file,
        Err(error) => return drop(error.to_string()),
    };
    // Names of hosts are not looked up here.
    let overrides = Overrides { address: Some("127.0.0.1:9900".to_owned()), ..Overrides::default() };
    let environment = Environment { home: Some("/nowhere".into()), ..Environment::default() };
    match Settings::resolve(file, overrides, &environment) {
        Ok(settings) => assert!(settings.connections_max > 0),
        Err(error) => drop(error.to_string()),
    }
}
