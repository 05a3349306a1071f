//! `bounds.txt`: for every field of every message, messages with the field at its bounds and just outside of them.
//!
//! The messages are made here, word by word, and not by the code that is generated: that is what they test.

use crate::model::{Field, Kind, Model, Struct};

const WORD: usize = 8;
/// Longer messages are left out, and said to be.
const SIZE_BYTES_MAX: usize = 2048;

const HEAD: &str = "\
# Control messages with one field at its bounds, or just outside of them. Generated from schema/ by gen/codegen;
# `cargo xtask gen` writes it anew.
#
# Each line: the root struct, the field, its value, `ok` or `refused`, and the message, one segment without a segment
# table, in hexadecimal. All other fields have the least value that is allowed. A message that is `refused` breaks a bound
# of the specification (MKV-MSG-6); one that is `ok` may still contradict itself. Values whose messages are longer than
# 2048 bytes are left out.
";

/// What a field is made to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Number(u64),
    /// Bytes, elements; of a list of bytes, elements of this length.
    Length(u64),
    ItemLength(u64),
    Absent,
}

/// A field, by the names on the way to it from the root.
type Path<'m> = Vec<&'m str>;

pub fn bounds(model: &Model) -> String {
    let mut text = HEAD.to_owned();
    for name in ["Request", "Response"] {
        let Some(root) = model.struct_named(name) else { continue };
        visit(model, root, &mut Vec::new(), &mut |path, field| {
            for (setting, allowed) in settings(field) {
                let message = Builder::message(model, root, &Change { path: path.clone(), setting });
                if let Some(bytes) = message.filter(|bytes| bytes.len() <= SIZE_BYTES_MAX) {
                    let verdict = if allowed { "ok" } else { "refused" };
                    let (path, said) = (path.join("."), said(setting));
                    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    text.push_str(&format!("{name} {path} {said} {verdict} {hex}\n"));
                }
            }
        });
    }
    text
}

fn said(setting: Setting) -> String {
    match setting {
        Setting::Number(value) => format!("={value}"),
        Setting::Length(length) => format!("length={length}"),
        Setting::ItemLength(length) => format!("item-length={length}"),
        Setting::Absent => "absent".to_owned(),
    }
}

/// Tells of every field below a struct.
fn visit<'m>(
    model: &'m Model,
    structure: &'m Struct,
    path: &mut Path<'m>,
    tell: &mut dyn FnMut(&Path<'m>, &'m Field),
) {
    for field in structure.all_fields() {
        path.push(&field.name);
        tell(path, field);
        let inner = match &field.kind {
            Kind::Struct(id) => Some(*id),
            Kind::List(element) => match **element {
                Kind::Struct(id) => Some(id),
                _ => None,
            },
            _ => None,
        };
        if let Some(inner) = inner.and_then(|id| model.structure(id)) {
            visit(model, inner, path, tell);
        }
        path.pop();
    }
}

/// The values to try, and whether they are allowed.
fn settings(field: &Field) -> Vec<(Setting, bool)> {
    let bounds = &field.bounds;
    match &field.kind {
        Kind::Unsigned { bits } => {
            let most = u64::MAX >> (64 - bits);
            let range = (bounds.min.unwrap_or(0), bounds.max.unwrap_or(most));
            around(range).into_iter().filter(|(value, _)| *value <= most).map(number).collect()
        }
        Kind::Enum(_) => [0, u64::from(u16::MAX)].map(|code| (Setting::Number(code), true)).to_vec(),
        Kind::Data if bounds.len.is_some() => {
            let len = u64::from(bounds.len.unwrap_or(0));
            let mut all: Vec<_> =
                around((len, len)).into_iter().filter(|(len, _)| *len > 0).map(length).collect();
            all.push((Setting::Absent, bounds.optional));
            all
        }
        Kind::Data | Kind::Text => {
            let range = (bounds.len_min.unwrap_or(0).into(), bounds.len_max.unwrap_or(0).into());
            around(range).into_iter().map(length).collect()
        }
        Kind::List(_) => {
            let range = (bounds.count_min.unwrap_or(0).into(), bounds.count_max.unwrap_or(0).into());
            let mut all: Vec<_> = around(range).into_iter().map(length).collect();
            if let (Some(min), Some(max)) = (bounds.item_len_min, bounds.item_len_max) {
                let items = around((min.into(), max.into())).into_iter();
                all.extend(items.map(|(value, allowed)| (Setting::ItemLength(value), allowed)));
            }
            all
        }
        Kind::Void | Kind::Bool | Kind::Signed { .. } | Kind::Struct(_) | Kind::Unsupported(_) => Vec::new(),
    }
}

/// Both ends of a range, and their neighbours outside of it.
fn around((min, max): (u64, u64)) -> Vec<(u64, bool)> {
    let mut all = vec![(min, true)];
    all.extend((max > min).then_some((max, true)));
    all.extend(min.checked_sub(1).map(|below| (below, false)));
    all.extend(max.checked_add(1).map(|above| (above, false)));
    all
}

fn number((value, allowed): (u64, bool)) -> (Setting, bool) {
    (Setting::Number(value), allowed)
}

fn length((value, allowed): (u64, bool)) -> (Setting, bool) {
    (Setting::Length(value), allowed)
}

// ---------------------------------------------------------------- messages

struct Change<'m> {
    path: Path<'m>,
    setting: Setting,
}

/// A message in the making: every field has the least value that is allowed, but for the change.
struct Builder<'m> {
    model: &'m Model,
    bytes: Vec<u8>,
    /// The message became longer than any that is wanted.
    too_long: bool,
}

impl<'m> Builder<'m> {
    /// `None` when it would be too long.
    fn message(model: &'m Model, root: &'m Struct, change: &Change<'m>) -> Option<Vec<u8>> {
        let mut builder = Builder { model, bytes: Vec::new(), too_long: false };
        builder.words(1);
        builder.struct_at(0, root, Some((&change.path, change.setting)));
        (!builder.too_long).then_some(builder.bytes)
    }

    /// The index of so many new words.
    fn words(&mut self, count: usize) -> usize {
        let at = self.bytes.len() / WORD;
        if self.bytes.len() + count * WORD > 4 * SIZE_BYTES_MAX {
            self.too_long = true;
            return 0;
        }
        self.bytes.resize(self.bytes.len() + count * WORD, 0);
        at
    }

    fn put(&mut self, at_bytes: usize, value: u64, size_bytes: usize) {
        if let Some(place) = self.bytes.get_mut(at_bytes..at_bytes + size_bytes) {
            place.copy_from_slice(&value.to_le_bytes()[..size_bytes]);
        }
    }

    /// A pointer at a word, to another: its lowest bits are the kind, its upper half the size.
    fn point(&mut self, at: usize, to: usize, kind: u64, size: u64) {
        let distance = (to as u64).wrapping_sub(at as u64 + 1) & 0x3fff_ffff;
        self.put(at * WORD, distance << 2 | kind | size << 32, WORD);
    }

    fn struct_at(&mut self, pointer: usize, structure: &'m Struct, change: Option<(&[&'m str], Setting)>) {
        let (data, pointers) = (usize::from(structure.data_words), usize::from(structure.pointer_count));
        let at = self.words(data + pointers);
        self.point(pointer, at, 0, data as u64 | (pointers as u64) << 16);
        self.fill(at, structure, change);
    }

    fn fill(&mut self, at: usize, structure: &'m Struct, change: Option<(&[&'m str], Setting)>) {
        let of = |field: &Field| change.filter(|(path, _)| path.first() == Some(&field.name.as_str()));
        for field in &structure.fields {
            self.field(at, structure, field, of(field).map(|(path, setting)| (&path[1..], setting)));
        }
        let Some(union) = &structure.union else { return };
        let arm = union.arms.iter().find(|arm| of(arm).is_some()).or(union.arms.first());
        if let Some(arm) = arm {
            self.put(at * WORD + union.tag_slot as usize * 2, arm.discriminant.unwrap_or(0).into(), 2);
            self.field(at, structure, arm, of(arm).map(|(path, setting)| (&path[1..], setting)));
        }
    }

    fn field(
        &mut self,
        at: usize,
        structure: &Struct,
        field: &'m Field,
        change: Option<(&[&'m str], Setting)>,
    ) {
        let pointer = at + usize::from(structure.data_words) + field.slot as usize;
        let here = change.filter(|(path, _)| path.is_empty()).map(|(_, setting)| setting);
        let (bounds, slot) = (&field.bounds, field.slot as usize);
        match &field.kind {
            Kind::Unsigned { bits } => {
                let value = match here {
                    Some(Setting::Number(value)) => value,
                    _ => bounds.min.unwrap_or(0),
                };
                let size = *bits as usize / 8;
                self.put(at * WORD + slot * size, value, size);
            }
            Kind::Enum(_) => {
                let Some(Setting::Number(code)) = here else { return };
                self.put(at * WORD + slot * 2, code, 2);
            }
            Kind::Data | Kind::Text => {
                let text = field.kind == Kind::Text;
                let least = bounds.len.filter(|_| !bounds.optional).or(bounds.len_min);
                match here {
                    Some(Setting::Length(length)) => self.data(pointer, length, text),
                    None if least.is_some() => self.data(pointer, least.unwrap_or(0).into(), text),
                    _ => {}
                }
            }
            Kind::List(element) => {
                let within = change.filter(|(path, _)| !path.is_empty());
                let count = match here {
                    Some(Setting::Length(count)) => count,
                    Some(Setting::ItemLength(_)) => 1,
                    _ if within.is_some() => 1,
                    _ => bounds.count_min.unwrap_or(0).into(),
                };
                let item = match here {
                    Some(Setting::ItemLength(length)) => length,
                    _ => bounds.item_len_min.unwrap_or(0).into(),
                };
                self.list(pointer, element, count, item, within);
            }
            Kind::Struct(id) => {
                if let Some(inner) = self.model.structure(*id) {
                    self.struct_at(pointer, inner, change);
                }
            }
            Kind::Void | Kind::Bool | Kind::Signed { .. } | Kind::Unsupported(_) => {}
        }
    }

    /// Bytes; text has a NUL after it, which counts.
    fn data(&mut self, pointer: usize, length: u64, text: bool) {
        let count = length + u64::from(text);
        let to = self.words(usize::try_from(count).unwrap_or(usize::MAX / 16).div_ceil(WORD));
        self.point(pointer, to, 1, 2 | count << 3);
        for place in 0..length as usize {
            self.put(to * WORD + place, b'a'.into(), 1);
        }
    }

    fn list(
        &mut self,
        pointer: usize,
        element: &'m Kind,
        count: u64,
        item: u64,
        within: Option<(&[&'m str], Setting)>,
    ) {
        let items = usize::try_from(count).unwrap_or(usize::MAX / 1024);
        let (code, bits) = match element {
            Kind::Unsigned { bits: 64 } => (5, 64),
            Kind::Unsigned { bits: 32 } | Kind::Signed { bits: 32 } => (4, 32),
            Kind::Unsigned { bits: 16 } | Kind::Enum(_) => (3, 16),
            Kind::Data | Kind::Text => (6, 64),
            Kind::Struct(id) => return self.struct_list(pointer, *id, items, within),
            _ => return,
        };
        let to = self.words((items * bits).div_ceil(64));
        self.point(pointer, to, 1, code | count << 3);
        if matches!(element, Kind::Data | Kind::Text) && !self.too_long {
            (0..items).for_each(|number| self.data(to + number, item, *element == Kind::Text));
        }
    }

    fn struct_list(&mut self, pointer: usize, id: u64, items: usize, within: Option<(&[&'m str], Setting)>) {
        let Some(structure) = self.model.structure(id) else { return };
        let (data, pointers) = (usize::from(structure.data_words), usize::from(structure.pointer_count));
        let tag = self.words(1 + items * (data + pointers));
        if self.too_long {
            return;
        }
        self.point(pointer, tag, 1, 7 | ((items * (data + pointers)) as u64) << 3);
        self.put(tag * WORD, (items as u64) << 2 | (data as u64) << 32 | (pointers as u64) << 48, WORD);
        for number in 0..items {
            self.fill(tag + 1 + number * (data + pointers), structure, within);
        }
    }
}
