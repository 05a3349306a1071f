//! The reference pages in docs/reference/: what the schema says, for people.

use std::collections::BTreeMap;

use super::names::pascal;
use crate::citations::Citations;
use crate::model::{Bounds, Constant, ConstantRole, Enum, Field, Kind, Model, Struct};

/// A page, by its path below `docs/reference/`.
pub type Page = (&'static str, String);

pub fn all(model: &Model, citations: &Citations, exceptions: &BTreeMap<String, String>) -> Vec<Page> {
    let pages = Pages { model };
    vec![
        ("README.md", pages.index()),
        ("operations.md", pages.operations()),
        ("types.md", pages.types()),
        ("limits.md", pages.limits()),
        ("statuses.md", pages.statuses()),
        ("frame.md", pages.frame()),
        ("session.md", pages.file("session.capnp", "Session set-up", SESSION)),
        ("manifest.md", pages.manifest()),
        ("requirements.md", pages.requirements(citations, exceptions)),
    ]
}

const INDEX: &str =
    "What the wire looks like, generated from `schema/`. The schema is the specification; these pages say \
the same for people.

- [Operations](operations.md): every request and its reply
- [Shared types](types.md): what several operations use
- [Frames](frame.md): the header before every control message
- [Session set-up](session.md): nonces, keys, what is negotiated
- [Manifests](manifest.md): MemKV's own manifest format
- [Statuses](statuses.md): how an operation ends, and whether to try again
- [Limits](limits.md): every bound that is not one field's
- [Requirements](requirements.md): every normative sentence, and where it is met and tested
";

const TYPES: &str = "Structs and enums that several operations use. An absent pointer, an empty list and an empty text or \
data are the same on the wire; `optional` data that is empty is absent. A peer keeps codes and union arms that it does \
not know, and reads a shorter struct as if the rest were zero.";

const FRAME: &str = "Every transport carries the same frames: a header of 64 bytes, a control message (a single-segment \
Cap'n Proto message without a segment table), and, when the payload length is not zero, the payload and its tag.";

const SESSION: &str = "The first frame of each direction on every byte stream. `Connect` and `ConnectReply` are arms of \
`Request` and `Response` like any other operation's.";

const STATUSES: &str = "*Fault* says who is to blame, *retry* what a client may do: `afterDelay` means again on the same \
server after `retryAfterMs`, `resend` again at once. A status marked *any* may answer any operation; each operation's \
page lists the others that it may answer with.";

const REQUIREMENTS: &str = "Every normative sentence of the schema. Code that meets one cites it in a comment \
(`//= MKV-AREA-n`), and so does its test (`//= MKV-AREA-n test`); what this implementation does not meet stands in \
`schema/exceptions.toml` with the reason. A test compares all three.";

struct Pages<'m> {
    model: &'m Model,
}

/// Markdown under construction.
struct Text(String);

impl Text {
    fn new(title: &str) -> Text {
        Text(format!(
            "<!-- Generated from schema/ by gen/codegen; `cargo xtask gen` writes it anew. -->\n\n# {title}\n"
        ))
    }

    fn paragraph(&mut self, text: &str) {
        if !text.is_empty() {
            self.0.push('\n');
            self.0.push_str(text.trim_end());
            self.0.push('\n');
        }
    }

    fn table(&mut self, header: &[&str], rows: &[Vec<String>]) {
        if rows.is_empty() {
            return;
        }
        self.0.push_str(&format!("\n| {} |\n|{}\n", header.join(" | "), "---|".repeat(header.len())));
        for row in rows {
            self.0.push_str(&format!("| {} |\n", row.join(" | ")));
        }
    }

    /// A doc comment: running text, then its requirements as a list, then any table as it stands.
    fn prose(&mut self, doc: &str) {
        for paragraph in doc.split("\n\n") {
            if paragraph.starts_with('|') {
                self.paragraph(paragraph);
                continue;
            }
            let (text, requirements) = match paragraph.find("[MKV-") {
                Some(at) => paragraph.split_at(at),
                None => (paragraph, ""),
            };
            self.paragraph(&text.split_whitespace().collect::<Vec<_>>().join(" "));
            let items: Vec<_> =
                requirements.split("[MKV-").skip(1).map(|item| format!("- {}", item_text(item))).collect();
            self.paragraph(&items.join("\n"));
        }
    }
}

/// `AREA-n] text` as a link to the index and the text.
fn item_text(item: &str) -> String {
    let (id, text) = item.split_once(']').unwrap_or((item, ""));
    format!("{} {}", link(&format!("MKV-{id}")), text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn link(id: &str) -> String {
    format!("[{id}](requirements.md#{})", id.to_lowercase())
}

/// A doc comment in a table's cell.
fn cell(doc: &str) -> String {
    let joined = doc.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let mut parts = joined.split("[MKV-");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(&item_text(part));
        text.push(' ');
    }
    text.trim_end().to_owned()
}

fn anchor(name: &str) -> String {
    name.to_lowercase()
}

impl Pages<'_> {
    fn index(&self) -> String {
        let mut text = Text::new("Reference");
        text.paragraph(INDEX);
        text.0
    }

    fn operations(&self) -> String {
        let mut text = Text::new("Operations");
        let (Some((request, requests)), Some((response, responses))) =
            (self.model.request(), self.model.response())
        else {
            return text.0;
        };
        text.prose(&request.doc);
        text.prose(&response.doc);
        let mut rows = Vec::new();
        for arm in &requests.arms {
            let operation = &arm.operation;
            rows.push(vec![
                operation.opcode.unwrap_or_default().to_string(),
                format!("[{0}](#{1})", pascal(&arm.name), anchor(&arm.name)),
                operation.since.unwrap_or_default().to_string(),
                if operation.idempotent == Some(true) { "yes" } else { "no" }.to_owned(),
                self.payload(arm),
            ]);
        }
        text.table(&["opcode", "operation", "since version", "idempotent", "payload of the request"], &rows);
        for (name, structure) in [("Request", request), ("Response", response)] {
            text.paragraph(&format!("## {name}"));
            self.fields(&mut text, structure);
        }
        for (arm, reply) in requests.arms.iter().zip(&responses.arms) {
            self.operation(&mut text, arm, reply);
        }
        text.0
    }

    fn payload(&self, arm: &Field) -> String {
        let code = usize::from(arm.operation.payload.unwrap_or_default());
        let item = self.model.enum_named("PayloadUse").and_then(|payload| payload.enumerants.get(code));
        item.map(|item| format!("`{}`: {}", item.name, cell(&item.doc))).unwrap_or_default()
    }

    fn operation(&self, text: &mut Text, arm: &Field, reply: &Field) {
        text.paragraph(&format!("## {}", pascal(&arm.name)));
        let (Kind::Struct(request), Kind::Struct(reply)) = (&arm.kind, &reply.kind) else { return };
        let (Some(request), Some(reply)) = (self.model.structure(*request), self.model.structure(*reply))
        else {
            return;
        };
        let errors = arm.operation.errors.iter().flatten();
        let errors: Vec<_> = errors.map(|name| format!("[`{name}`](statuses.md)")).collect();
        if arm.operation.setup {
            text.paragraph("See [session set-up](session.md).");
            return;
        }
        text.prose(&request.doc);
        self.fields(text, request);
        text.paragraph(&format!("Reply: `{}`", reply.name));
        text.prose(&reply.doc);
        self.fields(text, reply);
        if !errors.is_empty() {
            text.paragraph(&format!("May end with {}.", errors.join(", ")));
        }
    }

    fn fields(&self, text: &mut Text, structure: &Struct) {
        let mut rows = Vec::new();
        for field in &structure.fields {
            rows.push(self.row(field, &format!("`{}`", field.name)));
        }
        let message = structure.union.iter().flat_map(|union| &union.arms);
        // The arms of the two messages are the operations, which have a section each.
        for arm in message.filter(|_| structure.message.is_none()) {
            rows.push(self.row(arm, &format!("*or* `{}`", arm.name)));
        }
        text.table(&["field", "type", "bounds", "meaning"], &rows);
    }

    fn row(&self, field: &Field, name: &str) -> Vec<String> {
        vec![name.to_owned(), self.kind(&field.kind), bounds(&field.bounds), cell(&field.doc)]
    }

    fn kind(&self, kind: &Kind) -> String {
        match kind {
            Kind::Void => "-".to_owned(),
            Kind::Bool => "Bool".to_owned(),
            Kind::Unsigned { bits } => format!("UInt{bits}"),
            Kind::Signed { bits } => format!("Int{bits}"),
            Kind::Text => "Text".to_owned(),
            Kind::Data => "Data".to_owned(),
            Kind::List(element) => format!("list of {}", self.kind(element)),
            Kind::Enum(id) => self
                .model
                .enumeration(*id)
                .map(|item| reference(&item.name, &item.place.file))
                .unwrap_or_default(),
            Kind::Struct(id) => self
                .model
                .structure(*id)
                .map(|item| reference(&item.name, &item.place.file))
                .unwrap_or_default(),
            Kind::Unsupported(kind) => (*kind).to_owned(),
        }
    }

    /// What is neither a message, nor a request, nor a reply, and stands in the files of the operations.
    fn types(&self) -> String {
        let mut text = Text::new("Shared types");
        text.paragraph(TYPES);
        let arms = [self.model.request(), self.model.response()];
        let arms = arms.into_iter().flatten().flat_map(|(_, union)| &union.arms);
        let top: Vec<&Kind> = arms.map(|arm| &arm.kind).collect();
        for structure in &self.model.structs {
            let inner = structure.message.is_none() && !top.contains(&&Kind::Struct(structure.id));
            if inner && page_of(&structure.place.file) == "types.md" {
                self.structure(&mut text, structure);
            }
        }
        for enumeration in &self.model.enums {
            let here = page_of(&enumeration.place.file) == "types.md" && !enumeration.vocabulary;
            if here && enumeration.name != "Status" && enumeration.name != "FrameKind" {
                self.enumeration(&mut text, enumeration);
            }
        }
        text.0
    }

    fn structure(&self, text: &mut Text, structure: &Struct) {
        text.paragraph(&format!("## {}", structure.name));
        text.prose(&structure.doc);
        self.fields(text, structure);
    }

    fn enumeration(&self, text: &mut Text, enumeration: &Enum) {
        text.paragraph(&format!("## {}", enumeration.name));
        text.prose(&enumeration.doc);
        let rows: Vec<_> = enumeration
            .enumerants
            .iter()
            .map(|item| vec![item.code.to_string(), format!("`{}`", item.name), cell(&item.doc)])
            .collect();
        text.table(&["code", "name", "meaning"], &rows);
    }

    fn file(&self, file: &str, title: &str, about: &str) -> String {
        let mut text = Text::new(title);
        text.paragraph(about);
        for structure in self.model.structs.iter().filter(|item| item.place.file == file) {
            self.structure(&mut text, structure);
        }
        for enumeration in self.model.enums.iter().filter(|item| item.place.file == file) {
            self.enumeration(&mut text, enumeration);
        }
        text.0
    }

    fn manifest(&self) -> String {
        let about = "MemKV's own manifest format. The server stores any bytes as a manifest's body; a client recognises \
                     this format by its first eight.";
        let mut text = self.file("manifest.capnp", "Manifests", about);
        let mut constants = Text(String::new());
        constants.paragraph("## Constants");
        self.layout(&mut constants, |file| file == "manifest.capnp");
        text.push_str(&constants.0);
        text
    }

    fn limits(&self) -> String {
        let mut text = Text::new("Limits");
        let mut rows = Vec::new();
        for constant in &self.model.constants {
            if let ConstantRole::Limit { unit } = &constant.role {
                let value = grouped(constant.value);
                rows.push(vec![format!("`{}`", constant.name), value, unit.clone(), cell(&constant.doc)]);
            }
        }
        text.table(&["limit", "value", "unit", "of what"], &rows);
        text.0
    }

    fn statuses(&self) -> String {
        let mut text = Text::new("Statuses");
        let Some(statuses) = self.model.enum_named("Status") else { return text.0 };
        text.prose(&statuses.doc);
        text.paragraph(STATUSES);
        let name = |kind: &str, code: Option<u16>| {
            let item = self.model.enum_named(kind).and_then(|kind| kind.enumerants.get(usize::from(code?)));
            item.map(|item| item.name.clone()).unwrap_or_default()
        };
        let mut rows = Vec::new();
        for item in &statuses.enumerants {
            rows.push(vec![
                item.code.to_string(),
                format!("`{}`", item.name),
                name("Fault", item.fault),
                name("Retry", item.retry),
                if item.any_operation { "any" } else { "" }.to_owned(),
                cell(&item.doc),
            ]);
        }
        text.table(&["code", "status", "fault", "retry", "from", "meaning"], &rows);
        text.0
    }

    fn frame(&self) -> String {
        let mut text = Text::new("Frames");
        text.paragraph(FRAME);
        text.paragraph("## Header");
        self.header(&mut text);
        text.paragraph("## Constants");
        self.layout(&mut text, |file| file != "manifest.capnp");
        if let Some(kinds) = self.model.enum_named("FrameKind") {
            self.enumeration(&mut text, kinds);
        }
        text.0
    }

    /// The header's fields, each as long as the next one leaves room for.
    fn header(&self, text: &mut Text) {
        let offset =
            |constant: &&Constant| constant.name.starts_with("frame") && constant.name.ends_with("Offset");
        let fields: Vec<&Constant> = self.model.constants.iter().filter(offset).collect();
        let end = self.model.constant("frameHeaderSizeBytes").map_or(0, |size| size.value);
        let ends = fields.iter().skip(1).map(|field| field.value).chain([end]);
        let rows: Vec<_> = fields
            .iter()
            .zip(ends)
            .map(|(field, end)| {
                let name = field.name.trim_start_matches("frame").trim_end_matches("Offset");
                let name = name[..1].to_lowercase() + &name[1..];
                vec![
                    field.value.to_string(),
                    (end - field.value).to_string(),
                    format!("`{name}`"),
                    cell(&field.doc),
                ]
            })
            .collect();
        text.table(&["offset", "size", "field", "meaning"], &rows);
    }

    /// Constants of the layout that are no place in the frame's header.
    fn layout(&self, text: &mut Text, wanted: impl Fn(&str) -> bool) {
        let constants = self.model.constants.iter();
        let constants =
            constants.filter(|item| item.role == ConstantRole::Layout && wanted(&item.place.file));
        let rows: Vec<_> = constants
            .map(|item| {
                let value = if item.name.ends_with("Magic") {
                    format!("`{:#x}`", item.value)
                } else {
                    item.value.to_string()
                };
                vec![format!("`{}`", item.name), value, cell(&item.doc)]
            })
            .collect();
        text.table(&["constant", "value", "meaning"], &rows);
    }

    fn requirements(&self, citations: &Citations, exceptions: &BTreeMap<String, String>) -> String {
        let mut text = Text::new("Requirements");
        text.paragraph(REQUIREMENTS);
        let mut areas: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for requirement in self.model.requirements() {
            let (area, _) = crate::requirement::order(&requirement.id);
            areas.entry(area).or_default().push(requirement);
        }
        for (area, requirements) in areas {
            text.paragraph(&format!("## {area}"));
            for requirement in requirements {
                let id = &requirement.id;
                text.paragraph(&format!("### {id}"));
                text.paragraph(&requirement.text);
                let from = format!("`schema/{}`, {}", requirement.place.file, requirement.place.item);
                let met = citations.places(id, false);
                let tested = citations.places(id, true);
                text.paragraph(&format!("In {from}. Met in {met}. Tested in {tested}."));
                if let Some(reason) = exceptions.get(id) {
                    text.paragraph(&format!("Not met: {reason}"));
                }
            }
        }
        text.0
    }
}

fn page_of(file: &str) -> &'static str {
    match file {
        "session.capnp" => "session.md",
        "manifest.capnp" => "manifest.md",
        _ => "types.md",
    }
}

fn reference(name: &str, file: &str) -> String {
    match name {
        "Status" => "[Status](statuses.md)".to_owned(),
        _ => format!("[{name}]({}#{})", page_of(file), anchor(name)),
    }
}

fn bounds(bounds: &Bounds) -> String {
    let mut parts = Vec::new();
    if bounds.optional {
        parts.push("optional".to_owned());
    }
    if let Some(len) = bounds.len {
        parts.push(format!("{len} bytes"));
    }
    parts.extend(between(bounds.len_min.map(u64::from), bounds.len_max.map(u64::from), " bytes"));
    parts.extend(between(bounds.count_min.map(u64::from), bounds.count_max.map(u64::from), " elements"));
    let (min, max) = (bounds.item_len_min.map(u64::from), bounds.item_len_max.map(u64::from));
    parts.extend(between(min, max, " bytes each"));
    parts.extend(between(bounds.min, bounds.max, ""));
    parts.join(", ")
}

fn between(min: Option<u64>, max: Option<u64>, unit: &str) -> Option<String> {
    match (min, max) {
        (None, None) => None,
        (None, Some(max)) => Some(format!("at most {}{unit}", grouped(max))),
        (Some(min), None) => Some(format!("at least {}{unit}", grouped(min))),
        (Some(min), Some(max)) => Some(format!("{} to {}{unit}", grouped(min), grouped(max))),
    }
}

/// A number with its thousands apart.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}
