//! What a specification must not be. Every problem names the file and the field, and says what to do.
//!
//! The emitters rely on all of it: a model without problems can be emitted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::{Bounds, Constant, ConstantRole, Enum, Field, Kind, Model, Place, Struct};
use crate::requirement;

/// One rule broken in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    pub rule: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.rule)
    }
}

/// Everything that is wrong with `model`.
pub fn problems(model: &Model) -> Vec<Problem> {
    let mut check = Check { model, problems: Vec::new() };
    check.names();
    for structure in &model.structs {
        check.structure(structure);
    }
    for enumeration in &model.enums {
        check.enumeration(enumeration);
    }
    for constant in &model.constants {
        check.constant(constant);
    }
    check.operations();
    check.requirements();
    check.problems
}

/// Words that a field or an arm cannot be called in Rust, or in the C and Python that read the same schema.
const KEYWORDS: &[&str] = &[
    "as", "async", "await", "break", "class", "const", "continue", "crate", "def", "dyn", "else", "enum",
    "extern", "false", "final", "fn", "for", "gen", "if", "impl", "import", "in", "is", "lambda", "let",
    "loop", "match", "mod", "move", "mut", "pass", "pub", "ref", "return", "self", "static", "struct",
    "super", "trait", "true", "try", "type", "union", "unsafe", "use", "virtual", "where", "which", "while",
    "with", "yield",
];

struct Check<'m> {
    model: &'m Model,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn refuse(&mut self, place: &Place, rule: impl Into<String>) {
        self.problems.push(Problem { place: place.clone(), rule: rule.into() });
    }

    fn require(&mut self, holds: bool, place: &Place, rule: &str) {
        if !holds {
            self.refuse(place, rule);
        }
    }

    /// The files share one namespace in the generated code.
    fn names(&mut self) {
        let model = self.model;
        let mut seen: BTreeMap<String, &Place> = BTreeMap::new();
        let structs = model.structs.iter().map(|item| (item.name.clone(), &item.place));
        let whichs = model.structs.iter().filter(|item| item.union.is_some());
        let whichs = whichs.map(|item| (format!("{}Which", item.name), &item.place));
        let enums = model.enums.iter().map(|item| (item.name.clone(), &item.place));
        let constants = model.constants.iter().map(|item| (item.name.clone(), &item.place));
        for (name, place) in structs.chain(whichs).chain(enums).chain(constants) {
            if let Some(first) = seen.insert(name.clone(), place) {
                self.refuse(place, format!("the name `{name}` is taken by {first}"));
            }
        }
    }

    fn structure(&mut self, structure: &Struct) {
        for field in structure.all_fields() {
            self.field(field);
        }
        if let Some(limit) = &structure.message {
            let known = self.model.constant(limit).is_some_and(is_limit);
            self.require(known, &structure.place, "$message must name a constant that is a $limit");
        }
        if self.contains_itself(structure) {
            self.refuse(&structure.place, "the struct contains itself, so nothing would bound its depth");
        }
    }

    fn contains_itself(&self, structure: &Struct) -> bool {
        let mut inside = BTreeSet::new();
        let mut next = struct_ids(structure);
        while let Some(id) = next.pop() {
            if id == structure.id {
                return true;
            }
            if inside.insert(id) {
                next.extend(self.model.structure(id).map(struct_ids).unwrap_or_default());
            }
        }
        false
    }

    fn field(&mut self, field: &Field) {
        let place = &field.place;
        self.require(!KEYWORDS.contains(&field.name.as_str()), place, "the name is a keyword");
        self.require(!field.explicit_default, place, "a field's default must be zero or empty");
        self.type_known(&field.kind, place);
        let bounds = &field.bounds;
        match &field.kind {
            Kind::Unsupported(kind) => self.refuse(place, format!("there is no rule for {kind}")),
            Kind::Data => self.lengths(bounds, place),
            Kind::Text => {
                self.lengths(bounds, place);
                self.require(bounds.len.is_none(), place, "a text cannot have $len; use $lenMin and $lenMax");
            }
            Kind::List(element) => self.list(bounds, element, place),
            Kind::Unsigned { bits } => self.range(bounds, *bits, place),
            Kind::Void | Kind::Bool | Kind::Signed { .. } | Kind::Enum(_) | Kind::Struct(_) => {}
        }
        self.applicable(field);
    }

    /// A bound on a field of another kind would silently hold nothing.
    fn applicable(&mut self, field: &Field) {
        let (bounds, place) = (&field.bounds, &field.place);
        let bytes = matches!(field.kind, Kind::Data | Kind::Text);
        let lengths = [bounds.len, bounds.len_min, bounds.len_max];
        let stray = !bytes && lengths.iter().any(Option::is_some);
        self.require(!stray, place, "$len, $lenMin and $lenMax belong to data and text");
        let list = matches!(field.kind, Kind::List(_));
        let counts = [bounds.count_min, bounds.count_max];
        let stray = !list && counts.iter().any(Option::is_some);
        self.require(!stray, place, "$countMin and $countMax belong to lists");
        let of_data = matches!(&field.kind, Kind::List(element) if **element == Kind::Data);
        let items = [bounds.item_len_min, bounds.item_len_max];
        let stray = !of_data && items.iter().any(Option::is_some);
        self.require(!stray, place, "$itemLenMin and $itemLenMax belong to lists of data");
        let unsigned = matches!(field.kind, Kind::Unsigned { .. });
        let stray = !unsigned && (bounds.min.is_some() || bounds.max.is_some());
        self.require(!stray, place, "$min and $max belong to unsigned integers");
        let optional = bounds.optional && field.kind != Kind::Data;
        self.require(!optional, place, "$optional belongs to data");
        let fits = !bounds.optional || bounds.len.or(bounds.len_max) != Some(0);
        self.require(fits, place, "an $optional field must have room for something");
    }

    fn type_known(&mut self, kind: &Kind, place: &Place) {
        let known = match kind {
            Kind::Enum(id) => self.model.enumeration(*id).is_some_and(|item| !item.vocabulary),
            Kind::Struct(id) => self.model.structure(*id).is_some(),
            _ => true,
        };
        self.require(known, place, "its type is not declared in a file of the specification");
    }

    fn lengths(&mut self, bounds: &Bounds, place: &Place) {
        let bounded = bounds.len.is_some() || bounds.len_max.is_some();
        self.require(bounded, place, "data and text need $len or $lenMax");
        let both = bounds.len.is_some() && (bounds.len_min.is_some() || bounds.len_max.is_some());
        self.require(!both, place, "$len excludes $lenMin and $lenMax");
        let ordered = bounds.len_min.unwrap_or(0) <= bounds.len_max.unwrap_or(u32::MAX);
        self.require(ordered, place, "$lenMin is more than $lenMax");
    }

    fn list(&mut self, bounds: &Bounds, element: &Kind, place: &Place) {
        self.type_known(element, place);
        self.require(bounds.count_max.is_some(), place, "a list needs $countMax");
        let ordered = bounds.count_min.unwrap_or(0) <= bounds.count_max.unwrap_or(u32::MAX);
        self.require(ordered, place, "$countMin is more than $countMax");
        match element {
            Kind::Data => {
                self.require(bounds.item_len_max.is_some(), place, "a list of data needs $itemLenMax");
                let ordered = bounds.item_len_min.unwrap_or(0) <= bounds.item_len_max.unwrap_or(u32::MAX);
                self.require(ordered, place, "$itemLenMin is more than $itemLenMax");
            }
            Kind::Unsigned { .. } | Kind::Signed { .. } | Kind::Enum(_) | Kind::Struct(_) => {}
            Kind::Void | Kind::Bool | Kind::Text | Kind::List(_) | Kind::Unsupported(_) => {
                self.refuse(place, "a list may hold integers, enums, structs and data");
            }
        }
    }

    fn range(&mut self, bounds: &Bounds, bits: u32, place: &Place) {
        let largest = u64::MAX >> (64 - bits);
        let (min, max) = (bounds.min.unwrap_or(0), bounds.max.unwrap_or(largest));
        self.require(min <= max, place, "$min is more than $max");
        self.require(max <= largest && min <= largest, place, "the field cannot hold its bound");
    }

    fn enumeration(&mut self, enumeration: &Enum) {
        let status = enumeration.name == "Status";
        for item in &enumeration.enumerants {
            let judged = item.fault.is_some() && item.retry.is_some();
            self.require(!status || judged, &item.place, "a status needs $atFault and $mayRetry");
            self.require(
                item.name != "unknown",
                &item.place,
                "`unknown` is what a code that is not known becomes",
            );
        }
    }

    fn constant(&mut self, constant: &Constant) {
        match &constant.role {
            ConstantRole::Limit { unit } => {
                self.require(constant.value > 0, &constant.place, "a limit must be positive");
                self.require(!unit.is_empty(), &constant.place, "a limit needs its unit");
            }
            ConstantRole::Layout => {}
            ConstantRole::None => self.refuse(&constant.place, "a constant is either $limit or $layout"),
        }
    }

    fn operations(&mut self) {
        let model = self.model;
        let Some((request, requests)) = model.request() else { return };
        let Some((response, responses)) = model.response() else {
            self.refuse(&request.place, "there is no struct `Response` with a union to answer it");
            return;
        };
        for arm in &requests.arms {
            self.operation(arm);
            let reply = responses.arms.iter().find(|reply| reply.discriminant == arm.discriminant);
            match reply {
                None => self.refuse(&arm.place, "Response has no arm with this discriminant"),
                Some(reply) => {
                    let same = reply.name == arm.name;
                    self.require(same, &reply.place, "Request calls this arm by another name");
                    let structure = matches!(reply.kind, Kind::Struct(_));
                    self.require(structure, &reply.place, "a reply must be a struct");
                }
            }
        }
        let extra = responses.arms.len() > requests.arms.len();
        self.require(!extra, &response.place, "Response has more arms than Request");
    }

    fn operation(&mut self, arm: &Field) {
        let place = &arm.place;
        let operation = &arm.operation;
        self.require(matches!(arm.kind, Kind::Struct(_)), place, "a request must be a struct");
        match operation.opcode {
            None => self.refuse(place, "an operation needs $opcode"),
            Some(opcode) if Some(opcode) != arm.discriminant => {
                let tag = arm.discriminant.unwrap_or_default();
                self.refuse(place, format!("$opcode({opcode}) is not the union's discriminant, {tag}"));
            }
            Some(_) => {}
        }
        self.require(operation.since.is_some(), place, "an operation needs $since");
        self.require(operation.idempotent.is_some(), place, "an operation needs $idempotent");
        self.require(operation.payload.is_some(), place, "an operation needs $payload");
        let version = self.model.constant("protocolVersion").map_or(u64::MAX, |version| version.value);
        let since = operation.since.map_or(1, u64::from);
        self.require((1..=version).contains(&since), place, "$since is no version of the protocol");
        let Some(errors) = &operation.errors else {
            self.refuse(place, "an operation needs $errors");
            return;
        };
        let status = self.model.enum_named("Status");
        for error in errors {
            let known = status.is_some_and(|status| status.enumerants.iter().any(|item| item.name == *error));
            self.require(known, place, &format!("$errors names `{error}`, which is no status"));
            let general = status.is_some_and(|status| {
                status.enumerants.iter().any(|item| item.name == *error && item.any_operation)
            });
            self.require(
                !general,
                place,
                &format!("$errors need not name `{error}`, which is $anyOperation"),
            );
        }
    }

    fn requirements(&mut self) {
        let mut seen: BTreeMap<String, Place> = BTreeMap::new();
        for requirement in self.model.requirements() {
            let (id, place) = (requirement.id, requirement.place);
            self.require(requirement::well_formed(&id), &place, &format!("[{id}] is not MKV-AREA-number"));
            self.require(!requirement.text.is_empty(), &place, &format!("[{id}] says nothing"));
            if let Some(first) = seen.insert(id.clone(), place.clone()) {
                self.refuse(&place, format!("[{id}] stands in {first} too"));
            }
        }
    }
}

fn is_limit(constant: &Constant) -> bool {
    matches!(constant.role, ConstantRole::Limit { .. })
}

/// The structs directly inside, in lists too.
fn struct_ids(structure: &Struct) -> Vec<u64> {
    let mut ids = Vec::new();
    for field in structure.all_fields() {
        let mut kind = &field.kind;
        while let Kind::List(element) = kind {
            kind = element;
        }
        if let Kind::Struct(id) = kind {
            ids.push(*id);
        }
    }
    ids
}
