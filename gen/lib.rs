//! The MemKV wire protocol: control messages, operations, limits and the frame's layout.
//!
//! Most of it is generated from `schema/` (see `gen/codegen`): [`limits`], [`layout`], the enums, a view for every
//! struct, the table of operations with [`Dispatch`] and [`Caller`]. By hand are the small engine below the
//! views and what the schema cannot say. No I/O, no clock, no unsafe code.
//!
//! A view is read and written by the same type. Reading checks everything once ([`Request::decode`]); nothing
//! past it sees bytes that were not checked.
#![forbid(unsafe_code)]

#[cfg(feature = "arbitrary")]
pub mod arbitrary;
pub mod checksum;
pub mod control;
mod error;
pub mod frame;
mod list;
pub mod mac;
pub mod manifest;
mod read;
mod visit;
mod write;

pub use control::{ControlBuf, Message};
pub use error::{Bound, DecodeError, EncodeError, Malformed};
pub use generated::*;
pub use list::{Iter, List};
pub use visit::{Value, Visitor};

// Lengths of a message, in bytes, are computed as usize from fields of up to 32 bits and their products.
const _: () = assert!(usize::BITS >= 64);

/// Limits of the protocol.
pub mod limits {
    include!(concat!(env!("OUT_DIR"), "/limits.rs"));
}

/// Places, sizes and values in the frame header and in stored headers.
pub mod layout {
    include!(concat!(env!("OUT_DIR"), "/layout.rs"));
}

mod generated {
    // The arms of the two message unions are views of a few pointers each, passed on and never stored.
    #![allow(clippy::large_enum_variant)]

    use crate::control::{ControlBuf, Message};
    use crate::error::{DecodeError, EncodeError};
    use crate::list::List;
    use crate::read::{Struct, StructReader, Walk};
    use crate::visit::{Value, Visit, Visitor};
    use crate::write::{Measure, Out};

    include!(concat!(env!("OUT_DIR"), "/enums.rs"));
    include!(concat!(env!("OUT_DIR"), "/views.rs"));
    include!(concat!(env!("OUT_DIR"), "/operations.rs"));
    include!(concat!(env!("OUT_DIR"), "/visitors.rs"));
}
