//! The specification as plain data: what the emitters see of the schema.
//!
//! Owns no rules: [`crate::read`] fills it, [`crate::check`] says what is wrong with it, the emitters trust it.

use std::fmt;

/// Where something stands in the schema, for messages: `ops.capnp: Write.key`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: String,
    pub item: String,
}

impl Place {
    pub fn child(&self, name: &str) -> Place {
        Place { file: self.file.clone(), item: format!("{}.{name}", self.item) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.item)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub structs: Vec<Struct>,
    pub enums: Vec<Enum>,
    pub constants: Vec<Constant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struct {
    pub id: u64,
    pub name: String,
    pub place: Place,
    pub doc: String,
    pub data_words: u16,
    pub pointer_count: u16,
    /// A root, and the name of the constant that bounds its encoded size.
    pub message: Option<String>,
    /// The fields outside the union, in declaration order.
    pub fields: Vec<Field>,
    pub union: Option<Union>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Union {
    /// The discriminant's place, in units of 16 bits.
    pub tag_slot: u32,
    /// In the order of their discriminants.
    pub arms: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub place: Place,
    pub doc: String,
    /// In units of the field's own size, or among the pointers.
    pub slot: u32,
    pub kind: Kind,
    pub discriminant: Option<u16>,
    pub explicit_default: bool,
    pub bounds: Bounds,
    pub operation: Annotated,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Void,
    Bool,
    Unsigned {
        bits: u32,
    },
    Signed {
        bits: u32,
    },
    Text,
    Data,
    List(Box<Kind>),
    Enum(u64),
    Struct(u64),
    /// A kind that the generator has no rule for.
    Unsupported(&'static str),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    pub len: Option<u32>,
    pub len_min: Option<u32>,
    pub len_max: Option<u32>,
    pub count_min: Option<u32>,
    pub count_max: Option<u32>,
    pub item_len_min: Option<u32>,
    pub item_len_max: Option<u32>,
    pub optional: bool,
    pub min: Option<u64>,
    pub max: Option<u64>,
}

/// The annotations that make a union's arm an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotated {
    pub opcode: Option<u16>,
    pub since: Option<u8>,
    pub idempotent: Option<bool>,
    pub errors: Option<Vec<String>>,
    /// An enumerant of `PayloadUse`.
    pub payload: Option<u16>,
    pub setup: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enum {
    pub id: u64,
    pub name: String,
    pub place: Place,
    pub doc: String,
    /// Part of the annotation vocabulary: never on the wire.
    pub vocabulary: bool,
    pub enumerants: Vec<Enumerant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enumerant {
    pub name: String,
    pub place: Place,
    pub doc: String,
    pub code: u16,
    /// An enumerant of `Fault` and one of `Retry`.
    pub fault: Option<u16>,
    pub retry: Option<u16>,
    /// A status with which any operation may answer.
    pub any_operation: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constant {
    pub name: String,
    pub place: Place,
    pub doc: String,
    pub bits: u32,
    pub value: u64,
    pub role: ConstantRole,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConstantRole {
    Limit { unit: String },
    Layout,
    None,
}

/// A normative sentence, or several, under one ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub id: String,
    pub text: String,
    pub place: Place,
}

impl Model {
    pub fn structure(&self, id: u64) -> Option<&Struct> {
        self.structs.iter().find(|structure| structure.id == id)
    }

    pub fn struct_named(&self, name: &str) -> Option<&Struct> {
        self.structs.iter().find(|structure| structure.name == name)
    }

    pub fn enumeration(&self, id: u64) -> Option<&Enum> {
        self.enums.iter().find(|enumeration| enumeration.id == id)
    }

    pub fn enum_named(&self, name: &str) -> Option<&Enum> {
        self.enums.iter().find(|enumeration| enumeration.name == name)
    }

    pub fn constant(&self, name: &str) -> Option<&Constant> {
        self.constants.iter().find(|constant| constant.name == name)
    }

    /// Every doc comment, with its place.
    pub fn docs(&self) -> Vec<(&Place, &str)> {
        let mut docs: Vec<(&Place, &str)> = Vec::new();
        for structure in &self.structs {
            docs.push((&structure.place, &structure.doc));
            docs.extend(structure.all_fields().map(|field| (&field.place, field.doc.as_str())));
        }
        for enumeration in &self.enums {
            docs.push((&enumeration.place, &enumeration.doc));
            docs.extend(enumeration.enumerants.iter().map(|item| (&item.place, item.doc.as_str())));
        }
        docs.extend(self.constants.iter().map(|constant| (&constant.place, constant.doc.as_str())));
        docs
    }

    /// Every requirement, in order of area and number.
    pub fn requirements(&self) -> Vec<Requirement> {
        let docs = self.docs();
        let mut found: Vec<_> =
            docs.iter().flat_map(|(place, doc)| crate::requirement::split(place, doc)).collect();
        found.sort_by_key(|requirement| crate::requirement::order(&requirement.id));
        found
    }

    /// The struct whose union's arms carry the opcodes, and its arms.
    pub fn request(&self) -> Option<(&Struct, &Union)> {
        self.structs.iter().find_map(|structure| {
            let union = structure.union.as_ref()?;
            union.arms.iter().any(|arm| arm.operation.opcode.is_some()).then_some((structure, union))
        })
    }

    pub fn response(&self) -> Option<(&Struct, &Union)> {
        let structure = self.struct_named("Response")?;
        structure.union.as_ref().map(|union| (structure, union))
    }

    /// True when the view of this struct borrows from its message.
    pub fn borrows(&self, structure: &Struct) -> bool {
        structure.all_fields().any(|field| self.kind_borrows(&field.kind))
    }

    pub fn kind_borrows(&self, kind: &Kind) -> bool {
        match kind {
            Kind::Text | Kind::Data | Kind::List(_) => true,
            Kind::Struct(id) => self.structure(*id).is_some_and(|structure| self.borrows(structure)),
            Kind::Void
            | Kind::Bool
            | Kind::Unsigned { .. }
            | Kind::Signed { .. }
            | Kind::Enum(_)
            | Kind::Unsupported(_) => false,
        }
    }
}

impl Struct {
    pub fn all_fields(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().chain(self.union.iter().flat_map(|union| &union.arms))
    }
}
