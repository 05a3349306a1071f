//! The schema's camelCase names in Rust's cases.

pub fn snake(name: &str) -> String {
    let mut out = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

pub fn screaming(name: &str) -> String {
    snake(name).to_ascii_uppercase()
}

pub fn pascal(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn camel_case_becomes_each_case() {
        assert_eq!(snake("keySizeBytesMax"), "key_size_bytes_max");
        assert_eq!(snake("BatchRead"), "batch_read");
        assert_eq!(screaming("frameIdOffset"), "FRAME_ID_OFFSET");
        assert_eq!(pascal("aegis128x2"), "Aegis128x2");
    }
}
