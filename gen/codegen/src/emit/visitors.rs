//! `visitors.rs`: a walk over every field of every struct.

use super::code::Code;
use super::names::{pascal, snake};
use super::views::{type_name, which_name};
use crate::model::{Field, Kind, Model, Struct};

pub fn emit(model: &Model) -> String {
    let mut code = Code::new("Walks over every field of the schema.");
    for enumeration in model.enums.iter().filter(|item| !item.vocabulary) {
        code.lines(&["", &format!("impl Visit for {} {{", enumeration.name)]);
        code.line("fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {");
        code.line("visitor.field(name, Value::Enum { name: self.name(), code: self.code() });");
        code.lines(&["}", "}"]);
    }
    for structure in &model.structs {
        code.line("");
        walk(&mut code, model, structure);
    }
    code.finish()
}

fn walk(code: &mut Code, model: &Model, structure: &Struct) {
    let name = type_name(model, structure, "'_");
    code.line(&format!("impl Visit for {name} {{"));
    code.line("fn visit_as<V: Visitor>(&self, name: &'static str, visitor: &mut V) {");
    code.line("visitor.enter(name);");
    for field in &structure.fields {
        code.line(&format!("self.{}.visit_as(\"{}\", visitor);", snake(&field.name), field.name));
    }
    if let Some(union) = &structure.union {
        code.line("match &self.which {");
        for arm in &union.arms {
            visit_arm(code, structure, arm);
        }
        let unknown = format!("{}::Unknown(tag) => visitor.arm(\"unknown\", *tag),", which_name(structure));
        code.lines(&[&unknown, "}"]);
    }
    code.lines(&["visitor.leave(name);", "}", "}", ""]);
    code.line(&format!("impl {name} {{"));
    code.line("/// Tells `visitor` of every field.");
    code.line("pub fn visit<V: Visitor>(&self, visitor: &mut V) {");
    code.lines(&[&format!("self.visit_as(\"{}\", visitor);", structure.name), "}", "}"]);
}

fn visit_arm(code: &mut Code, structure: &Struct, arm: &Field) {
    let which = format!("{}::{}", which_name(structure), pascal(&arm.name));
    let tag = arm.discriminant.unwrap_or_default();
    let told = format!("visitor.arm(\"{}\", {tag})", arm.name);
    if arm.kind == Kind::Void {
        code.line(&format!("{which} => {told},"));
    } else {
        code.line(&format!("{which}(value) => {{"));
        code.lines(&[&format!("{told};"), &format!("value.visit_as(\"{}\", visitor);", arm.name), "}"]);
    }
}
