//! Chunks and manifests as objects: any bytes become a path of letters that every service takes.
//!
//! A name is written in hex, cut into parts that fit into a file name, below a directory that tells how long it is, so
//! that no name's object is another name's directory.

/// A file name holds 255 bytes.
const PART_DIGITS_MAX: usize = 200;
/// What MemKV itself takes. A service with a lower limit (S3: 1024 bytes of object name) refuses what is longer.
const HASH_SIZE_BYTES_MAX: usize = 64;
const NAME_SIZE_BYTES_MAX: usize = 1024;

/// The object of a chunk; `None` for a hash that is empty or too long.
pub fn of_chunk(hash: &[u8]) -> Option<String> {
    (1..=HASH_SIZE_BYTES_MAX).contains(&hash.len()).then(|| path("chunks", hash))
}

/// The object of a manifest; `None` for a name that is empty or too long.
pub fn of_manifest(name: &[u8]) -> Option<String> {
    (1..=NAME_SIZE_BYTES_MAX).contains(&name.len()).then(|| path("manifests", name))
}

/// The object of one part of a chunk's, by the object of the chunk.
pub fn of_part(chunk: &str, part: usize) -> String {
    format!("parts/{chunk}/{part}")
}

fn path(kind: &str, bytes: &[u8]) -> String {
    let digits: Vec<u8> = bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| b"0123456789abcdef"[usize::from(digit)])
        .collect();
    let mut path = format!("{kind}/{}", bytes.len());
    for part in digits.chunks(PART_DIGITS_MAX) {
        path.push('/');
        path.extend(part.iter().map(|&digit| char::from(digit)));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        assert_eq!(of_chunk(b"\x00\xff/"), Some("chunks/3/00ff2f".to_owned()));
        assert_eq!(of_manifest(b"../a"), Some("manifests/4/2e2e2f61".to_owned()));
        assert_eq!(of_chunk(b""), None);
        assert_eq!(of_chunk(&[0; 65]), None);
        assert_eq!(of_manifest(&[b'a'; 1025]), None);
    }

    #[test]
    fn no_object_is_another_ones_directory() {
        let paths: Vec<String> = (1..=1024).filter_map(|length| of_manifest(&vec![b'a'; length])).collect();
        assert_eq!(paths.len(), 1024);
        for path in &paths {
            assert!(!paths.iter().any(|other| other.starts_with(&format!("{path}/"))), "{path}");
            assert!(path.len() < 2100 && path.split('/').all(|part| part.len() <= PART_DIGITS_MAX));
        }
    }
}
