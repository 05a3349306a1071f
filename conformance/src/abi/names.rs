//! Names of manifests: bytes that stand for themselves.

use std::ffi::CString;

use super::Abi;
use super::store::Store as _;
use crate::case::{Case, Level, Outcome, Stop};
use crate::ensure;

pub const CASES: &[Case<Abi>] = &[
    Case {
        id: "ABI-NAME-1",
        level: Level::Must,
        requires: &["KVS-MAN-4"],
        title: "names may hold slashes, dots, spaces, patterns and any byte",
        alone: false,
        run: odd_names,
    },
    Case {
        id: "ABI-NAME-2",
        level: Level::Must,
        requires: &["KVS-MAN-4"],
        title: "names that look alike are different",
        alone: false,
        run: look_alikes,
    },
    Case {
        id: "ABI-NAME-3",
        level: Level::Must,
        requires: &["KVS-MAN-4"],
        title: "names of 1 to 127 bytes are accepted",
        alone: false,
        run: every_length,
    },
    Case {
        id: "ABI-NAME-4",
        level: Level::Must,
        requires: &["KVS-MAN-4"],
        title: "a name that is too long is refused, never shortened",
        alone: false,
        run: never_shortened,
    },
    Case {
        id: "ABI-NAME-5",
        level: Level::Should,
        requires: &["KVS-MAN-5"],
        title: "names of up to 1024 bytes are accepted",
        alone: false,
        run: long_names,
    },
    Case {
        id: "ABI-NAME-6",
        level: Level::Must,
        requires: &["KVS-MAN-4"],
        title: "names that differ in bytes above 127 are different",
        alone: false,
        run: beyond_ascii,
    },
];

fn c_string(bytes: Vec<u8>) -> Outcome<CString> {
    CString::new(bytes).map_err(|_| Stop::Failed("a name of this suite holds a NUL".to_owned()))
}

/// This case's own name, then these bytes.
fn after(abi: &Abi, bytes: &[u8]) -> Outcome<CString> {
    c_string([abi.name("").as_bytes(), bytes].concat())
}

/// Puts a different manifest under each name, reads all of them, and deletes them one by one.
fn expect_different(abi: &Abi, names: &[CString]) -> Outcome {
    let handle = abi.open()?;
    let body = |index: usize| format!("the manifest of name {index}");
    for (index, name) in names.iter().enumerate() {
        handle.expect_no_manifest(name)?;
        handle.publish(name, body(index).as_bytes())?;
    }
    let other = abi.open()?;
    for (index, name) in names.iter().enumerate() {
        handle.expect_manifest(name, body(index).as_bytes())?;
        other.expect_manifest(name, body(index).as_bytes())?;
    }
    for (index, name) in names.iter().enumerate() {
        handle.delete(name)?;
        handle.expect_no_manifest(name)?;
        if let Some(next) = names.get(index + 1) {
            handle.expect_manifest(next, body(index + 1).as_bytes())?;
        }
    }
    Ok(())
}

fn odd_names(abi: &Abi) -> Outcome {
    let odd: [&[u8]; 22] = [
        b"a/b/c",
        b"/leading",
        b"trailing/",
        b"a//b",
        b"../up",
        b"a/../b",
        b"..",
        b".",
        b".hidden",
        b" spaces ",
        b"tab\tnew\nline\r",
        b"back\\slash",
        b"quote'\"`$(x)",
        b"star*?[a-z]{b}",
        b"percent%2F%00%s%n",
        b"colon:semi;comma,",
        b"query?a=b&c=d#frag",
        b"\x01\x02\x1b[0m\x7f",
        b"\xff\xfe\x80 not unicode",
        "Ünï-日本語-🦀".as_bytes(),
        b"CON",
        b"-rf",
    ];
    let mut names = odd.iter().map(|name| after(abi, name)).collect::<Outcome<Vec<_>>>()?;
    // The odd part first, so that it is the whole of a path's beginning.
    for odd in [b"/".as_slice(), b"../", b"./", b".", b" ", b"-", b"%"] {
        names.push(c_string([odd, abi.name("").as_bytes()].concat())?);
    }
    expect_different(abi, &names)
}

fn beyond_ascii(abi: &Abi) -> Outcome {
    // In UTF-8, in an older encoding, and in none.
    let names = ["\u{e9}", "\u{e8}", "\u{65e5}", "\u{65e6}", "\u{1f980}", "\u{fffd}"].map(str::as_bytes);
    let bytes: [&[u8]; 6] = [b"\xe9", b"\xe8", b"\x80", b"\xff", b"\xfe\xff", b"?"];
    let names = names.iter().chain(&bytes).map(|name| after(abi, name)).collect::<Outcome<Vec<_>>>()?;
    expect_different(abi, &names)
}

fn look_alikes(abi: &Abi) -> Outcome {
    let alike = [
        "name",
        "Name",
        "NAME",
        "name ",
        " name",
        "name/",
        "/name",
        "name.",
        "name%20",
        "name\u{e9}",
        "namee\u{301}",
        "a/b",
        "a_b",
        "a-b",
        "a%2Fb",
        "a\\b",
        "x/../name",
        "name\n",
        "nam",
        "names",
        "name.tmp",
        "name~",
    ];
    let names = alike.iter().map(|name| after(abi, name.as_bytes())).collect::<Outcome<Vec<_>>>()?;
    expect_different(abi, &names)
}

/// Names of these lengths; two of each that differ in the last byte only.
fn of_lengths(abi: &Abi, lengths: &[usize]) -> Outcome<Vec<CString>> {
    let prefix = abi.name("");
    let mut names = Vec::new();
    for &length in lengths {
        for last in [b'x', b'y'] {
            let mut name = prefix.as_bytes().to_vec();
            name.resize(length.max(name.len() + 2) - 1, b'n');
            name.push(last);
            names.push(c_string(name)?);
        }
    }
    names.dedup();
    Ok(names)
}

fn every_length(abi: &Abi) -> Outcome {
    expect_different(abi, &of_lengths(abi, &[31, 32, 33, 60, 63, 64, 65, 96, 100, 119, 120, 126, 127])?)?;
    // The shortest ones cannot be unique to a run.
    let handle = abi.open()?;
    for name in [c"a", c"Z", c"/", c".", c"..", c" "] {
        let body = format!("{:?} {name:?}", abi.name(""));
        handle.publish(name, body.as_bytes())?;
        handle.expect_manifest(name, body.as_bytes())?;
    }
    Ok(())
}

fn never_shortened(abi: &Abi) -> Outcome {
    let handle = abi.open()?;
    let mut stored: Vec<(CString, String)> = Vec::new();
    for name in of_lengths(abi, &[128, 200, 255, 256, 257, 300, 1000, 1024, 1025, 4096, 10_000])? {
        let length = name.as_bytes().len();
        let body = format!("{length} bytes, ending with {:?}", name.as_bytes().last());
        match handle.put_manifest(&name, body.as_bytes()) {
            0 => stored.push((name, body)),
            code => {
                ensure!(code < 0, "put_manifest under a name of {length} bytes returned {code}");
                handle.expect_no_manifest(&name)?;
            }
        }
    }
    stored.iter().try_for_each(|(name, body)| handle.expect_manifest(name, body.as_bytes()))
}

fn long_names(abi: &Abi) -> Outcome {
    expect_different(abi, &of_lengths(abi, &[128, 200, 255, 256, 512, 1000, 1023, 1024])?)
}
