//! What can be wrong with a control message: seen while reading one, or refused while writing one.
//!
//! Every variant is plain data, so that refusing hostile input costs no allocation. A field is named as in
//! the schema: `Write.key`.

use thiserror::Error;

/// A message that is not what the specification says. The peer is at fault; on a connection it ends it.
//= MKV-MSG-6
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("a message of {length} bytes is not made of whole 8-byte words")]
    NotWholeWords { length: usize },
    #[error("an empty message has no root")]
    Empty,
    #[error("a message of {length} bytes is longer than {max}")]
    TooLong { length: usize, max: usize },
    #[error("{field}: {malformed}")]
    Malformed { field: &'static str, malformed: Malformed },
    #[error("{field}: {bound}")]
    Bound { field: &'static str, bound: Bound },
}

/// A message that we were about to send and that the peer would refuse. The caller is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    #[error("a message of {length} bytes is longer than {max}")]
    TooLong { length: usize, max: usize },
    #[error("{field}: {bound}")]
    Bound { field: &'static str, bound: Bound },
}

/// Where the encoding itself is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("a pointer leads outside the message")]
    OutsideMessage,
    #[error("a far pointer in a message of one segment")]
    FarPointer,
    #[error("a capability pointer")]
    CapabilityPointer,
    #[error("a list where a struct belongs")]
    NotAStruct,
    #[error("a struct where a list belongs")]
    NotAList,
    #[error("a list whose elements have another shape")]
    ElementShape,
    #[error("a text without its final zero byte")]
    TextUnterminated,
    #[error("a text that is not UTF-8")]
    TextNotUtf8,
    #[error("more bytes are pointed at than the message has")]
    Amplified,
}

/// A value outside the bounds that the schema gives its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Bound {
    #[error("{actual} is less than {min}")]
    Below { min: u64, actual: u64 },
    #[error("{actual} is more than {max}")]
    Above { max: u64, actual: u64 },
    #[error("{actual} bytes, but at least {min} belong here")]
    TooShort { min: u32, actual: usize },
    #[error("{actual} bytes, but at most {max} belong here")]
    TooLong { max: u32, actual: usize },
    #[error("{actual} elements, but at least {min} belong here")]
    TooFew { min: u32, actual: usize },
    #[error("{actual} elements, but at most {max} belong here")]
    TooMany { max: u32, actual: usize },
}

impl Bound {
    pub(crate) fn range(actual: u64, min: u64, max: u64) -> Result<(), Bound> {
        if actual < min {
            Err(Bound::Below { min, actual })
        } else if actual > max {
            Err(Bound::Above { max, actual })
        } else {
            Ok(())
        }
    }

    pub(crate) fn length(actual: usize, min: u32, max: u32) -> Result<(), Bound> {
        if actual < min as usize {
            Err(Bound::TooShort { min, actual })
        } else if actual > max as usize {
            Err(Bound::TooLong { max, actual })
        } else {
            Ok(())
        }
    }

    pub(crate) fn count(actual: usize, min: u32, max: u32) -> Result<(), Bound> {
        if actual < min as usize {
            Err(Bound::TooFew { min, actual })
        } else if actual > max as usize {
            Err(Bound::TooMany { max, actual })
        } else {
            Ok(())
        }
    }
}
