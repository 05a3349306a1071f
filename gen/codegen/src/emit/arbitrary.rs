//! `arbitrary.rs`: every struct and enum drawn from a fuzzer's bytes, always within the schema's bounds.

use super::code::Code;
use super::names::{pascal, screaming, snake};
use super::views::{type_name, which_name};
use crate::model::{Field, Kind, Model, Struct, Union};

pub fn emit(model: &Model) -> String {
    let mut code = Code::new("Messages of any content within the schema's bounds.");
    for enumeration in model.enums.iter().filter(|item| !item.vocabulary) {
        let name = &enumeration.name;
        code.lines(&["", &format!("impl<'a> Drawn<'a> for {name} {{")]);
        code.line("fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {");
        code.lines(&[
            &format!("Ok({name}::from_code(draw.code({})?))", enumeration.enumerants.len()),
            "}",
            "}",
        ]);
    }
    for structure in &model.structs {
        code.line("");
        drawn(&mut code, model, structure);
    }
    for structure in &model.structs {
        if let Some(limit) = &structure.message {
            code.line("");
            root(&mut code, structure, limit);
        }
    }
    code.finish()
}

fn drawn(code: &mut Code, model: &Model, structure: &Struct) {
    code.line(&format!("impl<'a> Drawn<'a> for {} {{", type_name(model, structure, "'a")));
    code.line("fn draw(draw: &mut Draw<'_, '_, 'a>) -> Result<Self> {");
    let words = u32::from(structure.data_words) + u32::from(structure.pointer_count);
    code.line(&format!("draw.spend({words});"));
    code.line(&format!("Ok({} {{", structure.name));
    for field in &structure.fields {
        code.line(&format!("{}: {},", snake(&field.name), value(field)));
    }
    if let Some(union) = &structure.union {
        which(code, structure, union);
    }
    code.lines(&["})", "}", "}"]);
}

fn which(code: &mut Code, structure: &Struct, union: &Union) {
    let name = which_name(structure);
    code.line(&format!("which: match draw.code({})? {{", union.arms.len()));
    for arm in &union.arms {
        let (tag, arm_name) = (arm.discriminant.unwrap_or_default(), pascal(&arm.name));
        if arm.kind == Kind::Void {
            code.line(&format!("{tag} => {name}::{arm_name},"));
        } else {
            code.line(&format!("{tag} => {name}::{arm_name}({}),", value(arm)));
        }
    }
    code.lines(&[&format!("tag => {name}::Unknown(tag),"), "},"]);
}

fn value(field: &Field) -> String {
    let bounds = &field.bounds;
    let optional = if bounds.optional { "optional_" } else { "" };
    match &field.kind {
        Kind::Unsigned { bits } => {
            let max = bounds.max.unwrap_or(u64::MAX >> (64 - bits));
            let cast = if *bits == 64 { String::new() } else { format!(" as u{bits}") };
            format!("draw.unsigned({}, {max})?{cast}", bounds.min.unwrap_or(0))
        }
        Kind::Data if bounds.len.is_some() => format!("draw.{optional}array()?"),
        Kind::Data => {
            let min = bounds.len_min.unwrap_or(0);
            format!("draw.{optional}data({min}, {})?", bounds.len_max.unwrap_or(0))
        }
        Kind::Text => format!("draw.text({}, {})?", bounds.len_min.unwrap_or(0), bounds.len_max.unwrap_or(0)),
        Kind::List(element) => {
            let (min, max) = (bounds.count_min.unwrap_or(0), bounds.count_max.unwrap_or(0));
            if **element == Kind::Data {
                let (item_min, item_max) =
                    (bounds.item_len_min.unwrap_or(0), bounds.item_len_max.unwrap_or(0));
                format!("draw.data_list({min}, {max}, {item_min}, {item_max})?")
            } else {
                format!("draw.list({min}, {max})?")
            }
        }
        Kind::Void
        | Kind::Bool
        | Kind::Signed { .. }
        | Kind::Enum(_)
        | Kind::Struct(_)
        | Kind::Unsupported(_) => "Drawn::draw(draw)?".to_owned(),
    }
}

fn root(code: &mut Code, structure: &Struct, limit: &str) {
    let (name, function) = (&structure.name, snake(&structure.name));
    let limit = format!("crate::limits::{} as usize", screaming(limit));
    code.line(&format!("/// A [`{name}`] within its bounds, that lives in `arena`."));
    code.line(&format!("pub fn draw_{function}<'a>("));
    code.lines(&["u: &mut Unstructured<'_>,", "arena: &'a Arena,"]);
    code.lines(&[
        &format!(") -> Result<{name}<'a>> {{"),
        &format!("{name}::draw(&mut Draw::new(u, arena, {limit}))"),
    ]);
    code.lines(&["}", "", &format!("/// Writes a message with a [`{name}`] within its bounds into `buf`.")]);
    code.line(&format!("pub fn {function}(u: &mut Unstructured<'_>, buf: &mut ControlBuf) -> Result<()> {{"));
    code.line(&format!("encoded(draw_{function}(u, &Arena::new())?.encode(buf))"));
    code.line("}");
}
