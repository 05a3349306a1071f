//! `limits.rs` and `layout.rs`: the constants of the schema.

use super::code::Code;
use super::names::screaming;
use crate::model::{Constant, ConstantRole, Model};

pub fn limits(model: &Model) -> String {
    let mut code = Code::new("The limits of the protocol.");
    for constant in &model.constants {
        if let ConstantRole::Limit { unit } = &constant.role {
            code.line("");
            code.line(&format!("/// In {unit}."));
            // Limits are lengths and counts of messages: those the wire says in 8 or 16 bits compare as u32 too.
            let kind = if constant.bits == 64 { "u64" } else { "u32" };
            emit(&mut code, constant, kind, &constant.value.to_string());
        }
    }
    code.finish()
}

pub fn layout(model: &Model) -> String {
    let mut code = Code::new("Places, sizes and values in the frame header and in stored headers.");
    for constant in model.constants.iter().filter(|constant| constant.role == ConstantRole::Layout) {
        code.line("");
        let index = constant.name.ends_with("Offset") || constant.name.ends_with("SizeBytes");
        let kind = if index { "usize".to_owned() } else { format!("u{}", constant.bits) };
        let value = if constant.name.ends_with("Magic") {
            format!("{:#x}", constant.value)
        } else {
            constant.value.to_string()
        };
        emit(&mut code, constant, &kind, &value);
    }
    code.finish()
}

fn emit(code: &mut Code, constant: &Constant, kind: &str, value: &str) {
    code.doc(&constant.doc);
    code.line(&format!("pub const {}: {kind} = {value};", screaming(&constant.name)));
}
