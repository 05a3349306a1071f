//! `memkv_protocol.h`: the specification's numbers for those who write C.

use super::names::screaming;
use crate::model::{ConstantRole, Model};

pub fn protocol(model: &Model) -> String {
    let mut text = String::from(
        "/* The numbers of the MemKV protocol: limits, the frame's layout, operations, enums.\n \
         * Generated from schema/ by gen/codegen; `cargo xtask gen` writes it anew. */\n\
         #ifndef MEMKV_PROTOCOL_H\n#define MEMKV_PROTOCOL_H\n\n#include <stdint.h>\n",
    );
    text.push_str("\n/* The layout of frames and stored headers. */\n");
    for constant in model.constants.iter().filter(|constant| constant.role == ConstantRole::Layout) {
        define(&mut text, &screaming(&constant.name), constant.value, "");
    }
    text.push_str("\n/* Limits. */\n");
    for constant in &model.constants {
        if let ConstantRole::Limit { unit } = &constant.role {
            define(&mut text, &screaming(&constant.name), constant.value, unit);
        }
    }
    if let Some((_, union)) = model.request() {
        text.push_str("\n/* Operations: the discriminants of the unions of Request and Response. */\n");
        for arm in &union.arms {
            if let Some(opcode) = arm.operation.opcode {
                define(&mut text, &format!("OPERATION_{}", screaming(&arm.name)), opcode.into(), "");
            }
        }
    }
    for enumeration in model.enums.iter().filter(|item| !item.vocabulary) {
        text.push_str(&format!("\n/* {} */\n", enumeration.name));
        for item in &enumeration.enumerants {
            let name = format!("{}_{}", screaming(&enumeration.name), screaming(&item.name));
            define(&mut text, name.trim_start_matches('_'), item.code.into(), "");
        }
    }
    text.push_str("\n#endif\n");
    text
}

fn define(text: &mut String, name: &str, value: u64, unit: &str) {
    let unit = if unit.is_empty() { String::new() } else { format!(" /* {unit} */") };
    let value =
        if value > u64::from(u32::MAX) { format!("UINT64_C({value:#x})") } else { format!("{value}u") };
    text.push_str(&format!("#define MEMKV_{name} {value}{unit}\n"));
}
