//! Numbers of bytes as people write them: `4KiB`, `1MiB`, `64k`, `4096`.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

#[derive(Debug, PartialEq, Eq)]
pub struct SizeError;

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a size; give bytes, or a number with KiB, MiB or GiB (k, m, g), such as 64KiB")
    }
}

impl std::error::Error for SizeError {}

const UNITS: [(&str, u32); 10] = [
    ("KIB", 10),
    ("MIB", 20),
    ("GIB", 30),
    ("KB", 10),
    ("MB", 20),
    ("GB", 30),
    ("K", 10),
    ("M", 20),
    ("G", 30),
    ("B", 0),
];

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Size, SizeError> {
        let upper = text.trim().to_ascii_uppercase();
        let unit = UNITS.iter().find_map(|(unit, shift)| Some((upper.strip_suffix(unit)?, *shift)));
        let (number, shift) = unit.unwrap_or((&upper, 0));
        let number: u64 = number.trim().parse().map_err(|_| SizeError)?;
        let size = number.checked_mul(1 << shift).ok_or(SizeError)?;
        Ok(Size(size))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = [("GiB", 30), ("MiB", 20), ("KiB", 10)]
            .into_iter()
            .find(|(_, shift)| self.0 >> shift > 0 && self.0.trailing_zeros() >= *shift);
        match unit {
            Some((name, shift)) => write!(f, "{} {name}", self.0 >> shift),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// The number of bytes.
impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, size) in [
            ("4096", 4096),
            ("4k", 4096),
            ("64KiB", 65536),
            ("1 MiB", 1 << 20),
            ("16m", 16 << 20),
            ("2GiB", 2 << 30),
            ("7B", 7),
        ] {
            assert_eq!(text.parse(), Ok(Size(size)), "{text}");
            assert_eq!(Size(size).to_string().parse(), Ok(Size(size)), "{text}");
        }
        for text in ["", "k", "-1", "1.5MiB", "1TiB", "99999999999999999999", "99999999999999999G"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError), "{text}");
        }
    }
}
