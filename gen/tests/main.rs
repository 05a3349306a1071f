//! The wire crate seen from outside. One binary, so that what the tests share is built once.

mod allocations;
mod bounds;
mod drawn;
mod hostile;
mod messages;
mod oracle;
mod support;
mod versions;

/// capnpc's readers expect each other at the root of the crate.
macro_rules! capnp_readers {
    ($($name:ident),*) => {$(
        #[allow(dead_code, clippy::all)]
        mod $name {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));
        }
    )*};
}

capnp_readers!(spec_capnp, types_capnp, session_capnp, ops_capnp, manifest_capnp);
