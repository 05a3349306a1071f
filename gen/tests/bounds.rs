//! The generated vectors, which other code made, mean what their lines say.

use memkv_wire::{Message, Request, Response};

const VECTORS: &str = include_str!("../../conformance/vectors/bounds.txt");

#[test]
fn what_is_at_a_bound_decodes_and_what_is_outside_does_not() {
    let (mut allowed, mut refused) = (0, 0);
    for line in VECTORS.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let [root, path, setting, verdict, hex] = words[..] else { panic!("{line}") };
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let message = Message::new(&bytes).unwrap();
        let decoded = match root {
            "Request" => Request::decode(&message).map(|_| ()),
            _ => Response::decode(&message).map(|_| ()),
        };
        match verdict {
            "ok" => {
                assert_eq!(decoded, Ok(()), "{root} {path} {setting}");
                allowed += 1;
            }
            _ => {
                assert!(decoded.is_err(), "{root} {path} {setting} was decoded");
                refused += 1;
            }
        }
    }
    assert!(allowed > 200 && refused > 80, "{allowed} and {refused}");
}
