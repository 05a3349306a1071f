//! One emitter per artifact. Each is a function from the checked [`Model`] to the text of one file.

mod arbitrary;
mod code;
mod constants;
mod enums;
mod header;
mod names;
mod operations;
mod pages;
mod vectors;
mod views;
mod visitors;

pub use pages::all as pages;

use crate::model::Model;

/// A generated file, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    pub name: &'static str,
    pub text: String,
}

/// What those need who test peers, or write them in C. Paths are those below `conformance/`.
pub fn conformance(model: &Model) -> Vec<Output> {
    vec![
        Output { name: "include/memkv_protocol.h", text: header::protocol(model) },
        Output { name: "vectors/bounds.txt", text: vectors::bounds(model) },
    ]
}

/// The Rust modules that `gen/lib.rs` includes, and that `gen/golden/` keeps a copy of.
pub fn rust(model: &Model) -> Vec<Output> {
    vec![
        Output { name: "limits.rs", text: constants::limits(model) },
        Output { name: "layout.rs", text: constants::layout(model) },
        Output { name: "enums.rs", text: enums::emit(model) },
        Output { name: "views.rs", text: views::emit(model) },
        Output { name: "operations.rs", text: operations::emit(model) },
        Output { name: "visitors.rs", text: visitors::emit(model) },
        Output { name: "arbitrary.rs", text: arbitrary::emit(model) },
    ]
}
