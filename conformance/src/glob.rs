//! Patterns over case ids: `*` stands for any run of characters, `?` for one.

/// Whether the whole of `text` matches. Case does not matter.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_uppercase().into_bytes(), text.to_ascii_uppercase().into_bytes());
    let (mut at, mut place) = (0, 0);
    // Where to go on from when the latest `*` has to take one character more.
    let mut retry: Option<(usize, usize)> = None;
    while place < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, place));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[place] => {
                at += 1;
                place += 1;
            }
            Some(_) | None => {
                let Some((after_star, taken)) = retry else { return false };
                retry = Some((after_star, taken + 1));
                (at, place) = (after_star, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::matches;
    use crate::random::Random;

    #[test]
    fn stars_take_any_run() {
        assert!(matches("ABI-MAN-*", "ABI-MAN-12"));
        assert!(matches("abi-man-1", "ABI-MAN-1"));
        assert!(matches("*MAN*2", "ABI-MAN-122"));
        assert!(matches("*", ""));
        assert!(matches("ABI-???-1", "ABI-MAN-1"));
        assert!(!matches("ABI-MAN-1", "ABI-MAN-11"));
        assert!(!matches("ABI-?", "ABI-"));
        assert!(!matches("", "A"));
    }

    /// The same relation, written the slow and obvious way.
    fn slowly(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|at| slowly(rest, &text[at..])),
            Some((b'?', rest)) => !text.is_empty() && slowly(rest, &text[1..]),
            Some((byte, rest)) => text.first() == Some(byte) && slowly(rest, &text[1..]),
        }
    }

    #[test]
    fn agrees_with_the_definition() {
        let mut random = Random::new(7);
        let mut word = |letters: &[u8], length_max| -> Vec<u8> {
            (0..random.below(length_max)).map(|_| letters[random.below(letters.len())]).collect()
        };
        for _ in 0..20_000 {
            let (pattern, text) = (word(b"AB*?", 8), word(b"AB", 10));
            let as_text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("ASCII");
            let expected = slowly(&pattern, &text);
            assert_eq!(matches(&as_text(&pattern), &as_text(&text)), expected, "{pattern:?} {text:?}");
        }
    }
}
