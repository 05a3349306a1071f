//! The shared keys: read from text, drawn anew, kept in the data directory.
//!
//! A key's text lives only in buffers that are wiped. A key file that others may read is refused, never
//! repaired: whoever widened it must know that the key may have leaked.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use memkv_wire::mac::{self, Key};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::config::KeySource;

/// The file's name in the data directory.
pub const KEY_FILE: &str = "auth.key";

#[derive(Debug, Error)]
pub enum KeyError {
    #[error("{place}: {source}; `memkv keygen` makes one")]
    Malformed { place: KeyPlace, source: mac::KeyError },
    #[error("the system gave no random bytes: {0}")]
    Random(getrandom::Error),
    #[error("cannot use the key file {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error(
        "the key file {path} may be read by others (mode {mode:04o}); if nobody else saw the key run \
         `chmod 600 {path}`, else remove the file and a new key is made"
    )]
    Exposed { path: PathBuf, mode: u32 },
}

#[derive(Clone, Debug)]
pub enum KeyPlace {
    Environment,
    Config { place: usize },
    File(PathBuf),
}

impl std::fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyPlace::Environment => f.write_str("MEMKV_AUTH_KEY"),
            KeyPlace::Config { place } => {
                write!(f, "key {} of the configuration's network section", place + 1)
            }
            KeyPlace::File(path) => write!(f, "the content of {}", path.display()),
        }
    }
}

fn parse(text: &str, place: KeyPlace) -> Result<Key, KeyError> {
    Key::from_hex(text).map_err(|source| KeyError::Malformed { place, source })
}

/// A new key from the system's random source.
pub fn draw() -> Result<Key, KeyError> {
    let mut bytes = Zeroizing::new([0; Key::SIZE_BYTES]);
    getrandom::fill(bytes.as_mut()).map_err(KeyError::Random)?;
    Ok(Key::from_bytes(*bytes))
}

/// The keys that the environment or the configuration gives, the current one first; `None` when neither does.
pub fn from_source(source: &KeySource) -> Result<Option<Vec<Key>>, KeyError> {
    match source {
        KeySource::Environment(text) => Ok(Some(vec![parse(text, KeyPlace::Environment)?])),
        KeySource::Config(texts) => texts
            .iter()
            .enumerate()
            .map(|(place, text)| parse(text, KeyPlace::Config { place }))
            .collect::<Result<Vec<_>, _>>()
            .map(Some),
        KeySource::DataDirectory => Ok(None),
    }
}

/// The key kept in `directory`, made on the first start.
pub fn in_directory(directory: &Path) -> Result<Key, KeyError> {
    let path = directory.join(KEY_FILE);
    match read(&path) {
        Err(KeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => create(&path),
        other => other,
    }
}

fn read(path: &Path) -> Result<Key, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let mut file = fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new([0; 2 * Key::SIZE_BYTES + 2]);
    let length = read_up_to(&mut file, text.as_mut()).map_err(failed)?;
    let text = std::str::from_utf8(&text[..length]).unwrap_or_default();
    parse(text, KeyPlace::File(path.to_owned()))
}

fn read_up_to(file: &mut fs::File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// Written aside and linked into place, so that a crash leaves no half-written key and nobody's is replaced. The directory's lock is
/// held: what is aside already is of a start that was cut short.
fn create(path: &Path) -> Result<Key, KeyError> {
    let failed = |source| KeyError::File { path: path.to_owned(), source };
    let key = draw()?;
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(KeyError::File { path: aside, source });
        }
        Ok(()) | Err(_) => {}
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside).map_err(failed)?;
    let written = file
        .write_all(format!("{}\n", key.to_hex().as_str()).as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&aside, path));
    // The name aside is of no use any more, whatever happened.
    let _ = fs::remove_file(&aside);
    match written {
        Ok(()) => Ok(key),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => read(path),
        Err(source) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let directory = tempfile::tempdir().unwrap();
        let first = in_directory(directory.path()).unwrap();
        let second = in_directory(directory.path()).unwrap();
        assert_eq!(first, second);
        let mode = fs::metadata(directory.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_start_that_was_cut_short_does_not_hinder_the_next() {
        let directory = tempfile::tempdir().unwrap();
        // Processes of a container have the same id at every start.
        for left in ["auth.new".to_owned(), format!("auth.new-{}", std::process::id())] {
            fs::write(directory.path().join(left), "half a k").unwrap();
        }
        let key = in_directory(directory.path()).unwrap();
        assert_eq!(in_directory(directory.path()).unwrap(), key);
        assert!(!directory.path().join("auth.new").exists());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        in_directory(directory.path()).unwrap();
        let path = directory.path().join(KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = in_directory(directory.path()).err().map(|error| error.to_string()).unwrap();
        assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn damaged_keys_are_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(KEY_FILE);
        for text in ["", "zz", &"g".repeat(64), &"a".repeat(63), &"a".repeat(65), &"a".repeat(128)] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = in_directory(directory.path()).err().map(|error| error.to_string());
            assert!(error.is_some_and(|error| error.contains("64 hexadecimal")), "{text:?}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn keys_come_from_the_configuration_in_order() {
        let source = KeySource::Config(vec!["11".repeat(32), "22".repeat(32)]);
        let keys = from_source(&source).unwrap().unwrap();
        assert_eq!(keys[0], Key::from_bytes([0x11; 32]));
        assert_eq!(keys[1], Key::from_bytes([0x22; 32]));
        let source = KeySource::Config(vec!["11".repeat(32), "2".repeat(31)]);
        let error = from_source(&source).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("key 2")));
    }

    #[test]
    fn drawn_keys_differ() {
        assert_ne!(draw().unwrap(), draw().unwrap());
    }
}
