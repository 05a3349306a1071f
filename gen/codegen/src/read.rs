//! CodeGeneratorRequest -> [`Model`].
//!
//! Annotations are recognised by the names `spec.capnp` gives them, so that their ids are written down once, in
//! the schema. What the model cannot say (groups, defaults, floats) is kept as such for the checks to refuse.

use std::collections::BTreeMap;

use capnp::schema_capnp::{annotation, code_generator_request, field, node, type_, value};

use crate::Error;
use crate::model::*;

const VOCABULARY_FILE: &str = "spec.capnp";

/// What the request says of each node, by id.
struct Index<'a> {
    nodes: BTreeMap<u64, node::Reader<'a>>,
    docs: BTreeMap<u64, String>,
    member_docs: BTreeMap<u64, Vec<String>>,
}

pub fn model(request: code_generator_request::Reader<'_>) -> Result<Model, Error> {
    let index = Index::new(request)?;
    let mut model = Model::default();
    for file in request.get_requested_files()? {
        let Some(file_node) = index.nodes.get(&file.get_id()) else { continue };
        let file_name = file_name(file.get_filename()?.to_str()?);
        for nested in file_node.get_nested_nodes()? {
            let Some(node) = index.nodes.get(&nested.get_id()) else { continue };
            let name = nested.get_name()?.to_string()?;
            let place = Place { file: file_name.clone(), item: name.clone() };
            index.node(*node, name, place, &mut model)?;
        }
    }
    Ok(model)
}

fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

impl<'a> Index<'a> {
    fn new(request: code_generator_request::Reader<'a>) -> Result<Index<'a>, Error> {
        let mut index = Index { nodes: BTreeMap::new(), docs: BTreeMap::new(), member_docs: BTreeMap::new() };
        for node in request.get_nodes()? {
            index.nodes.insert(node.get_id(), node);
        }
        for info in request.get_source_info()? {
            index.docs.insert(info.get_id(), doc(info.get_doc_comment()?)?);
            let members = info.get_members()?.iter();
            let members =
                members.map(|member| doc(member.get_doc_comment()?)).collect::<Result<_, Error>>()?;
            index.member_docs.insert(info.get_id(), members);
        }
        Ok(index)
    }

    fn node(
        &self,
        node: node::Reader<'a>,
        name: String,
        place: Place,
        model: &mut Model,
    ) -> Result<(), Error> {
        if !node.get_nested_nodes()?.is_empty() {
            return Err(Error::Nested { place });
        }
        match node.which()? {
            node::Struct(structure) => model.structs.push(self.structure(node, structure, name, place)?),
            node::Enum(enumeration) => model.enums.push(self.enumeration(node, enumeration, name, place)?),
            node::Const(constant) => model.constants.push(self.constant(node, constant, name, place)?),
            node::Annotation(_) | node::File(()) => {}
            node::Interface(_) => return Err(Error::Interface { place }),
        }
        Ok(())
    }

    fn structure(
        &self,
        node: node::Reader<'a>,
        structure: node::struct_::Reader<'a>,
        name: String,
        place: Place,
    ) -> Result<Struct, Error> {
        let mut message = None;
        for (annotation, value) in self.annotations(node.get_annotations()?)? {
            match annotation.as_str() {
                "message" => message = Some(text(value, &place)?),
                _ => return Err(Error::UnknownAnnotation { place, name: annotation }),
            }
        }
        let mut fields = Vec::new();
        let mut arms = Vec::new();
        for (position, field) in structure.get_fields()?.iter().enumerate() {
            let field = self.field(field, self.member_doc(node.get_id(), position), &place)?;
            if field.discriminant.is_some() { arms.push(field) } else { fields.push(field) }
        }
        arms.sort_by_key(|arm| arm.discriminant);
        let tag_slot = structure.get_discriminant_offset();
        Ok(Struct {
            id: node.get_id(),
            name,
            place,
            doc: self.doc(node.get_id()),
            data_words: structure.get_data_word_count(),
            pointer_count: structure.get_pointer_count(),
            message,
            fields,
            union: (!arms.is_empty()).then_some(Union { tag_slot, arms }),
        })
    }

    fn field(&self, field: field::Reader<'a>, doc: String, parent: &Place) -> Result<Field, Error> {
        let name = field.get_name()?.to_string()?;
        let place = parent.child(&name);
        let (slot, kind, explicit_default) = match field.which()? {
            field::Slot(slot) => {
                (slot.get_offset(), kind(slot.get_type()?)?, slot.get_had_explicit_default())
            }
            field::Group(_) => (0, Kind::Unsupported("a group"), false),
        };
        let (mut bounds, mut operation) = (Bounds::default(), Annotated::default());
        for (annotation, value) in self.annotations(field.get_annotations()?)? {
            if !bounds.annotate(&annotation, value, &place)? {
                operation.annotate(&annotation, value, &place)?;
            }
        }
        let discriminant = Some(field.get_discriminant_value()).filter(|tag| *tag != field::NO_DISCRIMINANT);
        Ok(Field { name, place, doc, slot, kind, discriminant, explicit_default, bounds, operation })
    }

    fn enumeration(
        &self,
        node: node::Reader<'a>,
        enumeration: node::enum_::Reader<'a>,
        name: String,
        place: Place,
    ) -> Result<Enum, Error> {
        let mut enumerants = Vec::new();
        for (code, enumerant) in enumeration.get_enumerants()?.iter().enumerate() {
            let name = enumerant.get_name()?.to_string()?;
            let place = place.child(&name);
            let (mut fault, mut retry, mut any_operation) = (None, None, false);
            for (annotation, value) in self.annotations(enumerant.get_annotations()?)? {
                match annotation.as_str() {
                    "atFault" => fault = Some(enumerant_code(value, &place)?),
                    "mayRetry" => retry = Some(enumerant_code(value, &place)?),
                    "anyOperation" => any_operation = true,
                    _ => return Err(Error::UnknownAnnotation { place, name: annotation }),
                }
            }
            let doc = self.member_doc(node.get_id(), code);
            enumerants.push(Enumerant { name, place, doc, code: code as u16, fault, retry, any_operation });
        }
        let vocabulary = place.file == VOCABULARY_FILE;
        let doc = self.doc(node.get_id());
        Ok(Enum { id: node.get_id(), name, place, doc, vocabulary, enumerants })
    }

    fn constant(
        &self,
        node: node::Reader<'a>,
        constant: node::const_::Reader<'a>,
        name: String,
        place: Place,
    ) -> Result<Constant, Error> {
        let (bits, value) = match constant.get_value()?.which()? {
            value::Uint8(value) => (8, value.into()),
            value::Uint16(value) => (16, value.into()),
            value::Uint32(value) => (32, value.into()),
            value::Uint64(value) => (64, value),
            _ => return Err(Error::ConstantKind { place }),
        };
        let mut role = ConstantRole::None;
        for (annotation, value) in self.annotations(node.get_annotations()?)? {
            match annotation.as_str() {
                "limit" => role = ConstantRole::Limit { unit: text(value, &place)? },
                "layout" => role = ConstantRole::Layout,
                _ => return Err(Error::UnknownAnnotation { place, name: annotation }),
            }
        }
        let doc = self.doc(node.get_id());
        Ok(Constant { name, place, doc, bits, value, role })
    }

    fn annotations(
        &self,
        list: capnp::struct_list::Reader<'a, annotation::Owned>,
    ) -> Result<Vec<(String, value::Reader<'a>)>, Error> {
        let mut annotations = Vec::new();
        for annotation in list {
            let Some(node) = self.nodes.get(&annotation.get_id()) else { continue };
            let display = node.get_display_name()?.to_str()?;
            let name = display.rsplit(':').next().unwrap_or(display);
            annotations.push((name.to_owned(), annotation.get_value()?));
        }
        Ok(annotations)
    }

    fn doc(&self, id: u64) -> String {
        self.docs.get(&id).cloned().unwrap_or_default()
    }

    fn member_doc(&self, id: u64, position: usize) -> String {
        self.member_docs.get(&id).and_then(|docs| docs.get(position)).cloned().unwrap_or_default()
    }
}

fn doc(text: capnp::text::Reader<'_>) -> Result<String, Error> {
    Ok(text.to_str()?.trim_end().to_owned())
}

fn kind(kind: type_::Reader<'_>) -> Result<Kind, Error> {
    Ok(match kind.which()? {
        type_::Void(()) => Kind::Void,
        type_::Bool(()) => Kind::Bool,
        type_::Uint8(()) => Kind::Unsigned { bits: 8 },
        type_::Uint16(()) => Kind::Unsigned { bits: 16 },
        type_::Uint32(()) => Kind::Unsigned { bits: 32 },
        type_::Uint64(()) => Kind::Unsigned { bits: 64 },
        type_::Int8(()) => Kind::Signed { bits: 8 },
        type_::Int16(()) => Kind::Signed { bits: 16 },
        type_::Int32(()) => Kind::Signed { bits: 32 },
        type_::Int64(()) => Kind::Signed { bits: 64 },
        type_::Text(()) => Kind::Text,
        type_::Data(()) => Kind::Data,
        type_::List(list) => Kind::List(Box::new(self::kind(list.get_element_type()?)?)),
        type_::Enum(enumeration) => Kind::Enum(enumeration.get_type_id()),
        type_::Struct(structure) => Kind::Struct(structure.get_type_id()),
        type_::Float32(()) | type_::Float64(()) => Kind::Unsupported("a floating-point number"),
        type_::Interface(_) => Kind::Unsupported("an interface"),
        type_::AnyPointer(_) => Kind::Unsupported("an AnyPointer"),
    })
}

impl Bounds {
    /// True when the annotation is a bound.
    fn annotate(&mut self, name: &str, value: value::Reader<'_>, place: &Place) -> Result<bool, Error> {
        match name {
            "len" => self.len = Some(small(value, place)?),
            "lenMin" => self.len_min = Some(small(value, place)?),
            "lenMax" => self.len_max = Some(small(value, place)?),
            "countMin" => self.count_min = Some(small(value, place)?),
            "countMax" => self.count_max = Some(small(value, place)?),
            "itemLenMin" => self.item_len_min = Some(small(value, place)?),
            "itemLenMax" => self.item_len_max = Some(small(value, place)?),
            "optional" => self.optional = true,
            "min" => self.min = Some(number(value, place)?),
            "max" => self.max = Some(number(value, place)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Annotated {
    fn annotate(&mut self, name: &str, value: value::Reader<'_>, place: &Place) -> Result<(), Error> {
        match name {
            "opcode" => self.opcode = u16::try_from(number(value, place)?).ok(),
            "since" => self.since = u8::try_from(number(value, place)?).ok(),
            "idempotent" => match value.which()? {
                value::Bool(idempotent) => self.idempotent = Some(idempotent),
                _ => return Err(Error::AnnotationValue { place: place.clone() }),
            },
            "errors" => match value.which()? {
                value::List(list) => {
                    let list: capnp::text_list::Reader<'_> = list.get_as()?;
                    let names =
                        list.iter().map(|name| Ok(name?.to_string()?)).collect::<Result<_, Error>>()?;
                    self.errors = Some(names);
                }
                _ => return Err(Error::AnnotationValue { place: place.clone() }),
            },
            "payload" => self.payload = Some(enumerant_code(value, place)?),
            "setup" => self.setup = true,
            _ => return Err(Error::UnknownAnnotation { place: place.clone(), name: name.to_owned() }),
        }
        Ok(())
    }
}

fn number(value: value::Reader<'_>, place: &Place) -> Result<u64, Error> {
    match value.which()? {
        value::Uint8(value) => Ok(value.into()),
        value::Uint16(value) => Ok(value.into()),
        value::Uint32(value) => Ok(value.into()),
        value::Uint64(value) => Ok(value),
        _ => Err(Error::AnnotationValue { place: place.clone() }),
    }
}

fn small(value: value::Reader<'_>, place: &Place) -> Result<u32, Error> {
    u32::try_from(number(value, place)?).map_err(|_| Error::AnnotationValue { place: place.clone() })
}

fn enumerant_code(value: value::Reader<'_>, place: &Place) -> Result<u16, Error> {
    match value.which()? {
        value::Enum(code) => Ok(code),
        _ => Err(Error::AnnotationValue { place: place.clone() }),
    }
}

fn text(value: value::Reader<'_>, place: &Place) -> Result<String, Error> {
    match value.which()? {
        value::Text(text) => Ok(text?.to_string()?),
        _ => Err(Error::AnnotationValue { place: place.clone() }),
    }
}
