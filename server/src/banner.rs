//! What a server prints once it serves: the address, and what a consumer's environment needs.
//!
//! Standard output carries nothing else, so that scripts can wait for the first line and `eval` the others.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// The plugin's file names, as a consumer's loader looks for them.
const LIBRARIES: [&str; 2] = ["libkv_store_memkv.so", "libkv_store_memkv.dylib"];

pub struct Banner {
    pub address: SocketAddr,
    /// Printed only when it was not given by a configuration: whoever wrote that one has it already.
    pub key_hex: Option<Zeroizing<String>>,
    pub library_directory: Option<PathBuf>,
}

impl Banner {
    pub fn text(&self) -> String {
        let mut text = format!("listening on {}\n", self.address);
        // Writing to a string cannot fail.
        if let Some(key) = &self.key_hex {
            let _ = writeln!(text, "export MEMKV_AUTH_KEY={}", key.as_str());
        }
        let _ = match &self.library_directory {
            Some(directory) => writeln!(text, "export KV_STORE_LIBRARY_PATH={}", shell_word(directory)),
            None => writeln!(
                text,
                "# export KV_STORE_LIBRARY_PATH=DIR, DIR being where {} is (not found beside memkv)",
                library_name()
            ),
        };
        text
    }
}

pub fn library_name() -> &'static str {
    LIBRARIES[usize::from(cfg!(target_os = "macos"))]
}

/// Looks beside the running program, and where packages put libraries beside a `bin` directory.
pub fn library_directory() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.canonicalize().ok()?;
    library_directory_of(program.parent()?)
}

fn library_directory_of(directory: &Path) -> Option<PathBuf> {
    let mut places = vec![directory.to_owned()];
    if let Some(prefix) = directory.parent() {
        places.extend([prefix.join("lib/memkv"), prefix.join("lib"), prefix.join("lib64")]);
    }
    places.into_iter().find(|place| LIBRARIES.iter().any(|library| place.join(library).is_file()))
}

/// The path as one word of a POSIX shell.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner(library_directory: Option<PathBuf>) -> Banner {
        Banner {
            address: "127.0.0.1:9900".parse().unwrap(),
            key_hex: Some(Zeroizing::new("abcd".to_owned())),
            library_directory,
        }
    }

    #[test]
    fn the_first_line_is_the_address() {
        assert_eq!(
            banner(Some("/opt/memkv/lib".into())).text(),
            "listening on 127.0.0.1:9900\nexport MEMKV_AUTH_KEY=abcd\nexport KV_STORE_LIBRARY_PATH=/opt/memkv/lib\n"
        );
    }

    #[test]
    fn without_a_library_there_is_a_hint_that_a_shell_ignores() {
        let text = banner(None).text();
        assert!(
            text.lines().last().is_some_and(|line| line.starts_with('#') && line.contains(library_name()))
        );
    }

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(shell_word(Path::new("/a b/it's")), r"'/a b/it'\''s'");
        assert_eq!(shell_word(Path::new("/a/b-1.2")), "/a/b-1.2");
    }

    #[test]
    fn the_library_is_found_beside_the_program_and_in_lib() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("bin");
        let lib = root.path().join("lib");
        std::fs::create_dir(&bin).unwrap();
        std::fs::create_dir(&lib).unwrap();
        assert_eq!(library_directory_of(&bin), None);
        std::fs::write(lib.join(library_name()), "").unwrap();
        assert_eq!(library_directory_of(&bin), Some(lib));
        std::fs::write(bin.join(library_name()), "").unwrap();
        assert_eq!(library_directory_of(&bin), Some(bin));
    }
}
