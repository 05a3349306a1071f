//! The generator: schema/memkv.cgr -> code and reference pages.
//!
//! Three steps, each of which knows nothing of the next: [`read`] turns a Cap'n Proto CodeGeneratorRequest into
//! a plain [`model::Model`], [`check`] refuses a model that breaks the rules of the specification, and [`emit`]
//! has one function for each artifact.
#![forbid(unsafe_code)]

pub mod check;
pub mod citations;
pub mod emit;
mod error;
pub mod exceptions;
pub mod model;
pub mod read;
pub mod repository;
pub mod requirement;

pub use error::Error;
pub use repository::regenerate;

use capnp::message::ReaderOptions;
use capnp::schema_capnp::code_generator_request;

/// The model of a CodeGeneratorRequest, checked.
pub fn load(request: &[u8]) -> Result<model::Model, Error> {
    // The request is our own file, not a peer's: no traversal limit is needed.
    let options = ReaderOptions { traversal_limit_in_words: None, nesting_limit: 64 };
    let message = capnp::serialize::read_message(request, options)?;
    let model = read::model(message.get_root::<code_generator_request::Reader<'_>>()?)?;
    let problems = check::problems(&model);
    if problems.is_empty() { Ok(model) } else { Err(Error::Refused(problems)) }
}
