//! `views.rs`: every struct of the schema as a borrowed view, read and written by the same type.

use super::code::Code;
use super::names::{pascal, screaming, snake};
use crate::model::{Bounds, Field, Kind, Model, Struct, Union};

pub fn emit(model: &Model) -> String {
    let mut code =
        Code::new("The structs of the schema: views of a message, and what messages are built from.");
    for structure in &model.structs {
        let view = View { model, structure };
        code.line("");
        view.declaration(&mut code);
        if let Some(union) = &structure.union {
            code.line("");
            view.which(&mut code, union);
        }
        code.line("");
        view.default(&mut code);
        code.line("");
        view.access(&mut code);
        code.line("");
        view.encoding(&mut code);
        code.lines(&["", &format!("crate::list::struct_element!('a, {});", view.type_name())]);
    }
    code.finish()
}

struct View<'m> {
    model: &'m Model,
    structure: &'m Struct,
}

/// The type of a view with its lifetime, if it has one.
pub fn type_name(model: &Model, structure: &Struct, lifetime: &str) -> String {
    if model.borrows(structure) { format!("{}<{lifetime}>", structure.name) } else { structure.name.clone() }
}

pub fn which_name(structure: &Struct) -> String {
    format!("{}Which", structure.name)
}

/// The type of a field of a view, for some lifetime.
pub fn rust_type(model: &Model, kind: &Kind, bounds: &Bounds, lifetime: &str) -> String {
    let plain = match (kind, bounds.len) {
        (Kind::Data, Some(len)) => format!("&{lifetime} [u8; {len}]"),
        (Kind::Data, None) => format!("&{lifetime} [u8]"),
        (Kind::Text, _) => format!("&{lifetime} str"),
        (Kind::List(element), _) => {
            format!("List<{lifetime}, {}>", rust_type(model, element, &Bounds::default(), lifetime))
        }
        (Kind::Void, _) => "()".to_owned(),
        (Kind::Bool, _) => "bool".to_owned(),
        (Kind::Unsigned { bits }, _) => format!("u{bits}"),
        (Kind::Signed { bits }, _) => format!("i{bits}"),
        (Kind::Enum(id), _) => model.enumeration(*id).map(|e| e.name.clone()).unwrap_or_default(),
        (Kind::Struct(id), _) => {
            model.structure(*id).map(|s| type_name(model, s, lifetime)).unwrap_or_default()
        }
        // The checks refuse these.
        (Kind::Unsupported(_), _) => String::new(),
    };
    if bounds.optional { format!("Option<{plain}>") } else { plain }
}

impl View<'_> {
    fn type_name(&self) -> String {
        type_name(self.model, self.structure, "'a")
    }

    fn anonymous_type_name(&self) -> String {
        type_name(self.model, self.structure, "'_")
    }

    fn which_borrows(&self, union: &Union) -> bool {
        union.arms.iter().any(|arm| self.model.kind_borrows(&arm.kind))
    }

    fn which_type(&self, union: &Union) -> String {
        let lifetime = if self.which_borrows(union) { "<'a>" } else { "" };
        which_name(self.structure) + lifetime
    }

    fn declaration(&self, code: &mut Code) {
        code.doc(&self.structure.doc);
        code.line("#[derive(Clone, Copy, Debug, PartialEq, Eq)]");
        code.line(&format!("pub struct {} {{", self.type_name()));
        for field in &self.structure.fields {
            code.doc(&field.doc);
            let kind = rust_type(self.model, &field.kind, &field.bounds, "'a");
            code.line(&format!("pub {}: {kind},", snake(&field.name)));
        }
        if let Some(union) = &self.structure.union {
            code.line(&format!("pub which: {},", self.which_type(union)));
        }
        code.line("}");
    }

    fn which(&self, code: &mut Code, union: &Union) {
        code.line(&format!("/// The union of [`{}`].", self.structure.name));
        code.line("#[derive(Clone, Copy, Debug, PartialEq, Eq)]");
        code.line(&format!("pub enum {} {{", self.which_type(union)));
        for arm in &union.arms {
            code.doc(&arm.doc);
            match arm.kind {
                Kind::Void => code.line(&format!("{},", pascal(&arm.name))),
                _ => {
                    let kind = rust_type(self.model, &arm.kind, &arm.bounds, "'a");
                    code.line(&format!("{}({kind}),", pascal(&arm.name)));
                }
            }
        }
        code.lines(&["/// An arm that this version does not know.", "Unknown(u16),", "}"]);
    }

    fn default(&self, code: &mut Code) {
        code.line("/// Zero, empty and absent; an integer that may not be zero has its least value.");
        code.line(&format!("impl Default for {} {{", self.anonymous_type_name()));
        code.lines(&["fn default() -> Self {", &format!("{} {{", self.structure.name)]);
        for field in &self.structure.fields {
            code.line(&format!("{}: {},", snake(&field.name), default_value(field)));
        }
        if let Some(union) = &self.structure.union {
            let arm = union.arms.first();
            let value = arm.map(|arm| self.arm_value(arm, &default_value(arm))).unwrap_or_default();
            code.line(&format!("which: {value},"));
        }
        code.lines(&["}", "}", "}"]);
    }

    fn arm_value(&self, arm: &Field, value: &str) -> String {
        let which = which_name(self.structure);
        match arm.kind {
            Kind::Void => format!("{which}::{}", pascal(&arm.name)),
            _ => format!("{which}::{}({value})", pascal(&arm.name)),
        }
    }

    /// What callers see: the way in and out of a message for roots, sizes for all.
    fn access(&self, code: &mut Code) {
        let generics = if self.model.borrows(self.structure) { "<'a>" } else { "" };
        code.line(&format!("impl{generics} {} {{", self.type_name()));
        match &self.structure.message {
            Some(limit) => {
                let limit = format!("crate::limits::{} as usize", screaming(limit));
                code.line("/// Checks the whole message, once; copies and allocates nothing.");
                code.line("pub fn decode(message: &Message<'a>) -> Result<Self, DecodeError> {");
                code.lines(&[&format!("message.root({limit})"), "}", ""]);
                code.line(
                    "/// Checks every bound and writes the message; allocates only to make `buf` larger.",
                );
                code.line("pub fn encode(&self, buf: &mut ControlBuf) -> Result<(), EncodeError> {");
                code.lines(&[&format!("buf.encode(self, {limit})"), "}", ""]);
                code.line("/// The size of the message that `encode` would write, whatever the limit.");
                code.line("pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {");
                code.lines(&["crate::write::Measure::message(self).map(|words| words * 8)", "}"]);
            }
            None => {
                code.line("/// What this adds to a message: its own words and what it points at.");
                code.line("pub fn encoded_size_bytes(&self) -> Result<usize, EncodeError> {");
                code.lines(&["crate::write::Measure::part(self).map(|words| words * 8)", "}"]);
            }
        }
        code.line("}");
    }

    fn encoding(&self, code: &mut Code) {
        let structure = self.structure;
        code.line(&format!("impl<'a> Struct<'a> for {} {{", self.type_name()));
        code.line(&format!("const NAME: &'static str = \"{}\";", structure.name));
        code.line(&format!("const DATA_WORDS: u16 = {};", structure.data_words));
        code.line(&format!("const POINTER_COUNT: u16 = {};", structure.pointer_count));
        code.line("");
        self.read(code);
        code.line("");
        self.measure(code);
        code.line("");
        self.put(code);
        code.line("}");
    }

    fn read(&self, code: &mut Code) {
        let walk = if self.structure.all_fields().any(reads_with_walk) { "walk" } else { "_" };
        code.line(&format!("fn read(reader: StructReader<'a>, {walk}: &mut Walk) -> Self {{"));
        for field in &self.structure.fields {
            code.line(&format!("let {} = {};", snake(&field.name), self.read_value(field)));
            if let Some(range) = range_arguments(field) {
                let name = snake(&field.name);
                code.line(&format!("walk.range({}, {range});", widened(&name, &field.kind)));
            }
        }
        let mut names: Vec<String> = self.structure.fields.iter().map(|field| snake(&field.name)).collect();
        if let Some(union) = &self.structure.union {
            code.line(&format!("let which = match reader.u16({}) {{", union.tag_slot));
            for arm in &union.arms {
                let value = self.arm_value(arm, &self.read_value(arm));
                code.line(&format!("{} => {value},", arm.discriminant.unwrap_or_default()));
            }
            code.line(&format!("code => {}::Unknown(code),", which_name(self.structure)));
            code.line("};");
            names.push("which".to_owned());
        }
        code.line(&format!("{} {{ {} }}", self.structure.name, names.join(", ")));
        code.line("}");
    }

    fn read_value(&self, field: &Field) -> String {
        let slot = field.slot;
        let at = format!("&reader, {slot}, \"{}\"", field.place.item);
        let optional = if field.bounds.optional { "optional_" } else { "" };
        match &field.kind {
            Kind::Void | Kind::Unsupported(_) => "()".to_owned(),
            Kind::Bool => format!("reader.bool({slot})"),
            Kind::Unsigned { bits } => format!("reader.u{bits}({slot})"),
            Kind::Signed { bits } => format!("reader.i{bits}({slot})"),
            Kind::Enum(id) => {
                let name = self.model.enumeration(*id).map(|e| e.name.as_str()).unwrap_or_default();
                format!("{name}::from_code(reader.u16({slot}))")
            }
            Kind::Data if field.bounds.len.is_some() => format!("walk.{optional}array({at})"),
            Kind::Data => format!("walk.{optional}data({at}, {})", length_bounds(field)),
            Kind::Text => format!("walk.text({at}, {})", length_bounds(field)),
            Kind::Struct(_) => format!("walk.structure({at})"),
            Kind::List(element) => {
                format!("walk.list({at}, {}, {})", count_bounds(field), item_bounds(field, element))
            }
        }
    }

    fn measure(&self, code: &mut Code) {
        let fields: Vec<_> = self
            .structure
            .fields
            .iter()
            .filter_map(|f| measure(f, &format!("self.{}", snake(&f.name))))
            .collect();
        let arms: Vec<_> = self.structure.union.iter().flat_map(|union| &union.arms).collect();
        let measured = arms.iter().any(|arm| measure(arm, "value").is_some());
        let name = if fields.is_empty() && !measured { "_" } else { "measure" };
        code.line(&format!("fn measure(&self, {name}: &mut Measure) {{"));
        for line in fields {
            code.line(&line);
        }
        if measured {
            code.line("match self.which {");
            for arm in &arms {
                match measure(arm, "value") {
                    Some(line) => {
                        code.line(&format!("{} => {{", self.arm_value(arm, "value")));
                        code.lines(&[&line, "}"]);
                    }
                    None => code.line(&format!("{} => {{}}", self.arm_value(arm, "_"))),
                }
            }
            code.line(&format!("{}::Unknown(_) => {{}}", which_name(self.structure)));
            code.line("}");
        }
        code.line("}");
    }

    fn put(&self, code: &mut Code) {
        let empty = self.structure.fields.is_empty() && self.structure.union.is_none();
        let (out, at) = if empty { ("_", "_") } else { ("out", "at") };
        code.line(&format!("fn put(&self, {out}: &mut Out<'_>, {at}: usize) {{"));
        for field in &self.structure.fields {
            if let Some(line) = self.put_value(field, &format!("self.{}", snake(&field.name))) {
                code.line(&line);
            }
        }
        if let Some(union) = &self.structure.union {
            code.line("let tag: u16 = match self.which {");
            for arm in &union.arms {
                let tag = arm.discriminant.unwrap_or_default();
                match self.put_value(arm, "value") {
                    Some(line) => {
                        code.line(&format!("{} => {{", self.arm_value(arm, "value")));
                        code.lines(&[&line, &tag.to_string(), "}"]);
                    }
                    None => code.line(&format!("{} => {tag},", self.arm_value(arm, "_"))),
                }
            }
            code.line(&format!("{}::Unknown(tag) => tag,", which_name(self.structure)));
            code.line("};");
            let at = byte_offset(union.tag_slot as usize * 2);
            code.line(&format!("out.bytes_at({at}, &tag.to_le_bytes());"));
        }
        code.line("}");
    }

    /// The statement that writes a field of a struct that begins in word `at`.
    fn put_value(&self, field: &Field, value: &str) -> Option<String> {
        let slot = field.slot as usize;
        let pointer = usize::from(self.structure.data_words) + slot;
        let at = if pointer == 0 { "at".to_owned() } else { format!("at + {pointer}") };
        Some(match &field.kind {
            Kind::Void | Kind::Unsupported(_) => return None,
            Kind::Bool => format!("out.bit(at * 8, {slot}, {value});"),
            Kind::Unsigned { bits } | Kind::Signed { bits } => {
                format!("out.bytes_at({}, &{value}.to_le_bytes());", byte_offset(slot * *bits as usize / 8))
            }
            Kind::Enum(_) => {
                format!("out.bytes_at({}, &{value}.code().to_le_bytes());", byte_offset(slot * 2))
            }
            Kind::Data if field.bounds.optional => {
                format!("out.optional_data({at}, {});", sliced(field, value))
            }
            Kind::Data => format!("out.data({at}, {value});"),
            Kind::Text => format!("out.text({at}, {value});"),
            Kind::Struct(_) => format!("out.structure({at}, &{value});"),
            Kind::List(_) => format!("out.list({at}, &{value});"),
        })
    }
}

fn default_value(field: &Field) -> String {
    match &field.kind {
        _ if field.bounds.optional => "None".to_owned(),
        Kind::Data if field.bounds.len.is_some() => format!("&[0; {}]", field.bounds.len.unwrap_or_default()),
        Kind::Data => "&[]".to_owned(),
        Kind::Text => "\"\"".to_owned(),
        Kind::Unsigned { .. } => field.bounds.min.unwrap_or(0).to_string(),
        Kind::Signed { .. } => "0".to_owned(),
        Kind::Bool => "false".to_owned(),
        Kind::Void | Kind::List(_) | Kind::Enum(_) | Kind::Struct(_) | Kind::Unsupported(_) => {
            "Default::default()".to_owned()
        }
    }
}

/// A byte of the struct that begins in word `at`.
fn byte_offset(offset: usize) -> String {
    if offset == 0 { "at * 8".to_owned() } else { format!("at * 8 + {offset}") }
}

fn reads_with_walk(field: &Field) -> bool {
    matches!(field.kind, Kind::Text | Kind::Data | Kind::List(_) | Kind::Struct(_))
        || range_arguments(field).is_some()
}

/// The statement that measures a field, if there is anything to measure or to check.
fn measure(field: &Field, value: &str) -> Option<String> {
    let name = format!("\"{}\"", field.place.item);
    match &field.kind {
        Kind::Unsigned { .. } => range_arguments(field)
            .map(|range| format!("measure.range({}, {range});", widened(value, &field.kind))),
        Kind::Data if field.bounds.optional => {
            let value = sliced(field, value);
            Some(format!("measure.optional_data({value}, {name}, {});", length_bounds(field)))
        }
        Kind::Data => Some(format!("measure.data({value}, {name}, {});", length_bounds(field))),
        Kind::Text => Some(format!("measure.text({value}, {name}, {});", length_bounds(field))),
        Kind::Struct(_) => Some(format!("measure.structure(&{value});")),
        Kind::List(element) => {
            let (count, item) = (count_bounds(field), item_bounds(field, element));
            Some(format!("measure.list(&{value}, {name}, {count}, {item});"))
        }
        Kind::Void | Kind::Bool | Kind::Signed { .. } | Kind::Enum(_) | Kind::Unsupported(_) => None,
    }
}

/// An optional field of fixed length as an optional slice.
fn sliced(field: &Field, value: &str) -> String {
    if field.bounds.len.is_some() { format!("{value}.map(|bytes| &bytes[..])") } else { value.to_owned() }
}

fn widened(value: &str, kind: &Kind) -> String {
    if *kind == (Kind::Unsigned { bits: 64 }) { value.to_owned() } else { format!("u64::from({value})") }
}

/// The last three arguments of a range check, for an integer that has bounds.
fn range_arguments(field: &Field) -> Option<String> {
    let Kind::Unsigned { bits } = field.kind else { return None };
    if field.bounds.min.is_none() && field.bounds.max.is_none() {
        return None;
    }
    let min = field.bounds.min.unwrap_or(0);
    let max = field.bounds.max.unwrap_or(u64::MAX >> (64 - bits));
    Some(format!("\"{}\", {min}, {max}", field.place.item))
}

fn length_bounds(field: &Field) -> String {
    let bounds = &field.bounds;
    let min = bounds.len.or(bounds.len_min).unwrap_or(0);
    let max = bounds.len.or(bounds.len_max).unwrap_or(0);
    format!("({min}, {max})")
}

fn count_bounds(field: &Field) -> String {
    format!("({}, {})", field.bounds.count_min.unwrap_or(0), field.bounds.count_max.unwrap_or(0))
}

fn item_bounds(field: &Field, element: &Kind) -> String {
    match element {
        Kind::Data => {
            let bounds = &field.bounds;
            format!("({}, {})", bounds.item_len_min.unwrap_or(0), bounds.item_len_max.unwrap_or(0))
        }
        _ => "()".to_owned(),
    }
}
