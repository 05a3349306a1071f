//! Why nothing was generated.

use std::fmt;
use std::path::PathBuf;

use crate::check::Problem;
use crate::model::Place;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the CodeGeneratorRequest cannot be read: {0}")]
    Request(#[from] capnp::Error),
    #[error("the CodeGeneratorRequest is of a newer Cap'n Proto: {0}")]
    NewerRequest(#[from] capnp::NotInSchema),
    #[error("the CodeGeneratorRequest holds text that is not UTF-8: {0}")]
    Utf8(#[from] std::str::Utf8Error),
    #[error("{place}: nested declarations have no rule here; declare it at the top level")]
    Nested { place: Place },
    #[error("{place}: an interface has no rule here; operations are arms of a union")]
    Interface { place: Place },
    #[error("{place}: a constant must be an unsigned integer")]
    ConstantKind { place: Place },
    #[error("{place}: an annotation's value is of another kind than its declaration, or too large")]
    AnnotationValue { place: Place },
    #[error("{place}: there is no rule for the annotation `{name}`")]
    UnknownAnnotation { place: Place, name: String },
    #[error("the schema breaks the rules of the specification:\n{}", Lines(.0))]
    Refused(Vec<Problem>),
    #[error("capnp refuses the schema:\n{messages}")]
    Schema { messages: String },
    #[error("schema/exceptions.toml:{line}: not an exception with an id and a reason, each once")]
    Exceptions { line: usize },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
}

struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.0 {
            writeln!(f, "  {problem}")?;
        }
        Ok(())
    }
}
