//! `enums.rs`: the enums of the schema. Those on the wire keep codes they do not know.

use super::code::Code;
use super::names::pascal;
use crate::model::{Enum, Model};

pub fn emit(model: &Model) -> String {
    let mut code = Code::new("The enums of the schema.");
    for enumeration in &model.enums {
        code.line("");
        declaration(&mut code, enumeration);
        if !enumeration.vocabulary {
            code.line("");
            codes(&mut code, enumeration);
        }
    }
    if let Some(status) = model.enum_named("Status") {
        verdicts(&mut code, model, status);
    }
    code.finish()
}

fn declaration(code: &mut Code, enumeration: &Enum) {
    code.doc(&enumeration.doc);
    let default = if enumeration.vocabulary { "" } else { "Default, " };
    code.line(&format!("#[derive(Clone, Copy, Debug, {default}PartialEq, Eq, Hash)]"));
    code.line(&format!("pub enum {} {{", enumeration.name));
    for (at, enumerant) in enumeration.enumerants.iter().enumerate() {
        code.doc(&enumerant.doc);
        if at == 0 && !enumeration.vocabulary {
            code.line("#[default]");
        }
        code.line(&format!("{},", pascal(&enumerant.name)));
    }
    if !enumeration.vocabulary {
        code.line("/// A code that this version does not know.");
        code.line("Unknown(u16),");
    }
    code.line("}");
}

fn codes(code: &mut Code, enumeration: &Enum) {
    let name = &enumeration.name;
    code.line(&format!("impl {name} {{"));
    code.line(&format!("/// Every {name} of this version, in order of their codes."));
    code.line(&format!("pub const ALL: &'static [{name}] = &["));
    for enumerant in &enumeration.enumerants {
        code.line(&format!("{name}::{},", pascal(&enumerant.name)));
    }
    code.line("];");
    code.line("");
    code.lines(&["/// The number on the wire.", "pub const fn code(self) -> u16 {", "match self {"]);
    for enumerant in &enumeration.enumerants {
        code.line(&format!("{name}::{} => {},", pascal(&enumerant.name), enumerant.code));
    }
    code.lines(&[&format!("{name}::Unknown(code) => code,"), "}", "}", ""]);
    code.lines(&["pub const fn from_code(code: u16) -> Self {", "match code {"]);
    for enumerant in &enumeration.enumerants {
        code.line(&format!("{} => {name}::{},", enumerant.code, pascal(&enumerant.name)));
    }
    code.lines(&[&format!("code => {name}::Unknown(code),"), "}", "}", ""]);
    code.lines(&["/// As in the schema.", "pub const fn name(self) -> &'static str {", "match self {"]);
    for enumerant in &enumeration.enumerants {
        code.line(&format!("{name}::{} => \"{}\",", pascal(&enumerant.name), enumerant.name));
    }
    code.lines(&[&format!("{name}::Unknown(_) => \"unknown\","), "}", "}", "}", ""]);
    code.line(&format!("crate::list::enum_element!({name});"));
}

/// What a status says of whose fault it is, and of trying again.
fn verdicts(code: &mut Code, model: &Model, status: &Enum) {
    code.lines(&["", "impl Status {"]);
    let fault = |item: &crate::model::Enumerant| item.fault;
    let retry = |item: &crate::model::Enumerant| item.retry;
    verdict(code, model, status, ("Fault", "fault", "peer"), &fault);
    code.line("");
    verdict(code, model, status, ("Retry", "retry", "no"), &retry);
    code.lines(&["", "/// Whether any operation may answer so."]);
    code.lines(&["pub const fn any_operation(self) -> bool {", "match self {"]);
    for item in &status.enumerants {
        code.line(&format!("Status::{} => {},", pascal(&item.name), item.any_operation));
    }
    code.lines(&["Status::Unknown(_) => false,", "}", "}"]);
    code.line("}");
}

fn verdict(
    code: &mut Code,
    model: &Model,
    status: &Enum,
    (kind, method, unknown): (&str, &str, &str),
    of: &dyn Fn(&crate::model::Enumerant) -> Option<u16>,
) {
    let Some(verdicts) = model.enum_named(kind) else { return };
    code.line(&format!("pub const fn {method}(self) -> {kind} {{"));
    code.line("match self {");
    for item in &status.enumerants {
        let value = of(item).and_then(|value| verdicts.enumerants.get(usize::from(value)));
        let value = value.map(|value| pascal(&value.name)).unwrap_or_default();
        code.line(&format!("Status::{} => {kind}::{value},", pascal(&item.name)));
    }
    code.line("//= MKV-STAT-1");
    code.line(&format!("Status::Unknown(_) => {kind}::{},", pascal(unknown)));
    code.lines(&["}", "}"]);
}
