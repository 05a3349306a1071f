//! URIs and handles.

use super::store::{Chunk, Store as _, expect_session, save};
use super::{Abi, c_string};
use crate::case::{Case, Level, Outcome};
use crate::{ensure, skip};

pub const CASES: &[Case<Abi>] = &[
    Case {
        id: "ABI-OPEN-1",
        level: Level::Must,
        requires: &["KVS-OPEN-1"],
        title: "a store can be opened and closed over and over",
        alone: false,
        run: open_and_close,
    },
    Case {
        id: "ABI-OPEN-2",
        level: Level::Must,
        requires: &["KVS-OPEN-1"],
        title: "closing one handle leaves the others alone",
        alone: false,
        run: handles_are_independent,
    },
    Case {
        id: "ABI-OPEN-3",
        level: Level::Must,
        requires: &["KVS-OPEN-2", "KVS-TABLE-3"],
        title: "a URI that cannot be served is refused",
        alone: false,
        run: bad_uris,
    },
    Case {
        id: "ABI-OPEN-4",
        level: Level::Must,
        requires: &["KVS-OPEN-3"],
        title: "a slash at the end of the URI makes no difference",
        alone: false,
        run: trailing_slash,
    },
    Case {
        id: "ABI-OPEN-5",
        level: Level::Should,
        requires: &["KVS-OPEN-4"],
        title: "open and close take NULL",
        alone: false,
        run: open_null,
    },
    Case {
        id: "ABI-OPEN-6",
        level: Level::Should,
        requires: &["KVS-OPEN-4"],
        title: "a NULL handle is refused",
        alone: false,
        run: null_handle,
    },
    Case {
        id: "ABI-OPEN-7",
        level: Level::Must,
        requires: &["KVS-OPEN-5"],
        title: "namespaces share neither chunks nor manifests",
        alone: false,
        run: namespaces,
    },
];

fn open_and_close(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunks = Chunk::several(&mut random, 2, 500);
    save(&abi.open()?, &name, &chunks)?;
    for _ in 0..20 {
        expect_session(&abi.open()?, &name, &chunks)?;
    }
    Ok(())
}

fn handles_are_independent(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let mut handles = (0..6).map(|_| abi.open()).collect::<Outcome<Vec<_>>>()?;
    for round in 0_usize.. {
        let name = abi.name(&round.to_string());
        let chunks = Chunk::several(&mut random, 2, 500);
        let Some(writer) = handles.first() else { return Ok(()) };
        save(writer, &name, &chunks)?;
        for reader in &handles {
            expect_session(reader, &name, &chunks)?;
        }
        handles.remove(random.below(handles.len()));
    }
    Ok(())
}

fn bad_uris(abi: &Abi) -> Outcome {
    let scheme = abi.target.uri.split("://").next().unwrap_or_default();
    let other_scheme = format!("x{scheme}x://{}", abi.target.uri.split("://").nth(1).unwrap_or_default());
    for uri in ["", "no scheme", "://", "conformance-no-such-scheme://host/name", &other_scheme] {
        ensure!(abi.library.open(&c_string(uri)?).is_none(), "open({uri:?}) returned a handle");
    }
    abi.open().map(drop)
}

fn trailing_slash(abi: &Abi) -> Outcome {
    let uri = abi.target.uri.as_str();
    if uri.contains('?') || uri.ends_with("://") {
        skip!("a slash at the end of {uri} would not end its path");
    }
    let (plain, slashed) = (uri.trim_end_matches('/').to_owned(), format!("{}/", uri.trim_end_matches('/')));
    let mut random = abi.random();
    for (from, to) in [(&plain, &slashed), (&slashed, &plain)] {
        let name = abi.name(&format!("from-{}", from.len()));
        let chunks = Chunk::several(&mut random, 2, 500);
        save(&abi.open_uri(from)?, &name, &chunks)?;
        expect_session(&abi.open_uri(to)?, &name, &chunks)?;
    }
    Ok(())
}

fn open_null(abi: &Abi) -> Outcome {
    ensure!(abi.library.open_null().is_none(), "open(NULL) returned a handle");
    abi.library.close_null();
    abi.open().map(drop)
}

fn null_handle(abi: &Abi) -> Outcome {
    for (function, code) in abi.library.codes_of_null_handle() {
        ensure!(code < 0, "{function} with a NULL handle returned {code}");
    }
    Ok(())
}

fn namespaces(abi: &Abi) -> Outcome {
    let Some(other_uri) = &abi.target.other_uri else { skip!("no --other-uri was given") };
    let (mut random, name) = (abi.random(), abi.name("session"));
    let (chunks, others) = (Chunk::several(&mut random, 2, 500), Chunk::several(&mut random, 2, 700));
    let (here, there) = (abi.open()?, abi.open_uri(other_uri)?);
    save(&here, &name, &chunks)?;
    there.expect_no_manifest(&name)?;
    there.expect_no_chunk(&chunks[0].hash)?;
    save(&there, &name, &others)?;
    expect_session(&here, &name, &chunks)?;
    here.expect_no_chunk(&others[0].hash)?;
    there.delete(&name)?;
    expect_session(&here, &name, &chunks)?;
    there.expect_no_manifest(&name)
}
