//! Each rule of the specification, broken once. The message names the file and the field.

use memkv_codegen::check::problems;
use memkv_codegen::model::{ConstantRole, Field, Kind, Model, Struct};

fn model() -> Model {
    memkv_codegen::load(include_bytes!("../../../schema/memkv.cgr")).unwrap()
}

fn structure<'m>(model: &'m mut Model, name: &str) -> &'m mut Struct {
    model.structs.iter_mut().find(|structure| structure.name == name).unwrap()
}

/// A field or an arm, as `Write.key`.
fn field<'m>(model: &'m mut Model, path: &str) -> &'m mut Field {
    let (parent, name) = path.split_once('.').unwrap();
    let structure = structure(model, parent);
    let arms = structure.union.iter_mut().flat_map(|union| &mut union.arms);
    structure.fields.iter_mut().chain(arms).find(|field| field.name == name).unwrap()
}

/// Breaks the specification and says what was found.
fn refused(break_it: impl FnOnce(&mut Model)) -> Vec<String> {
    let mut model = model();
    break_it(&mut model);
    problems(&model).iter().map(ToString::to_string).collect()
}

/// As [`refused`], for one field.
fn refused_field(path: &str, break_it: impl FnOnce(&mut Field)) -> Vec<String> {
    refused(|model| break_it(field(model, path)))
}

#[test]
fn the_specification_keeps_its_rules() {
    assert_eq!(problems(&model()), []);
}

#[test]
fn data_text_and_lists_are_bounded() {
    let unbounded = refused_field("Lookup.key", |field| field.bounds.len_max = None);
    assert_eq!(unbounded, ["ops.capnp: Lookup.key: data and text need $len or $lenMax"]);
    let unbounded = refused_field("Response.detail", |field| field.bounds.len_max = None);
    assert_eq!(unbounded, ["ops.capnp: Response.detail: data and text need $len or $lenMax"]);
    let unbounded = refused_field("Write.pieces", |field| field.bounds.count_max = None);
    assert_eq!(unbounded, ["ops.capnp: Write.pieces: a list needs $countMax"]);
    let unbounded = refused_field("Exists.keys", |field| field.bounds.item_len_max = None);
    assert_eq!(unbounded, ["ops.capnp: Exists.keys: a list of data needs $itemLenMax"]);
}

#[test]
fn bounds_make_sense_together() {
    let crossed = refused_field("Lookup.key", |field| field.bounds.len_min = Some(513));
    assert_eq!(crossed, ["ops.capnp: Lookup.key: $lenMin is more than $lenMax"]);
    let crossed = refused_field("Exists.keys", |field| field.bounds.count_min = Some(5000));
    assert_eq!(crossed, ["ops.capnp: Exists.keys: $countMin is more than $countMax"]);
    let crossed = refused_field("Exists.keys", |field| field.bounds.item_len_min = Some(513));
    assert_eq!(crossed, ["ops.capnp: Exists.keys: $itemLenMin is more than $itemLenMax"]);
    let crossed = refused_field("Write.length", |field| field.bounds.max = Some(0));
    assert_eq!(crossed, ["ops.capnp: Write.length: $min is more than $max"]);
    let wide = refused_field("Piece.length", |field| field.bounds.max = Some(1 << 32));
    assert_eq!(wide, ["types.capnp: Piece.length: the field cannot hold its bound"]);
    let both = refused_field("Write.checksum", |field| field.bounds.len_min = Some(1));
    assert_eq!(both, ["ops.capnp: Write.checksum: $len excludes $lenMin and $lenMax"]);
}

#[test]
fn bounds_stand_where_they_bind() {
    let stray = refused_field("Write.length", |field| field.bounds.len_max = Some(9));
    assert_eq!(stray, ["ops.capnp: Write.length: $len, $lenMin and $lenMax belong to data and text"]);
    let stray = refused_field("Write.length", |field| field.bounds.count_max = Some(9));
    assert_eq!(stray, ["ops.capnp: Write.length: $countMin and $countMax belong to lists"]);
    let stray = refused_field("Write.pieces", |field| field.bounds.item_len_max = Some(9));
    assert_eq!(stray, ["ops.capnp: Write.pieces: $itemLenMin and $itemLenMax belong to lists of data"]);
    let stray = refused_field("Lookup.key", |field| field.bounds.max = Some(9));
    assert_eq!(stray, ["ops.capnp: Lookup.key: $min and $max belong to unsigned integers"]);
    let stray = refused_field("Stats.prefix", |field| field.bounds.optional = true);
    assert_eq!(stray, ["ops.capnp: Stats.prefix: $optional belongs to data"]);
}

#[test]
fn types_have_a_rule_in_the_generator() {
    let float = refused_field("Ping.echo", |field| field.kind = Kind::Unsupported("a floating-point number"));
    assert_eq!(float, ["ops.capnp: Ping.echo: there is no rule for a floating-point number"]);
    let nested =
        refused_field("PutManifestReply.missing", |field| field.kind = Kind::List(Box::new(Kind::Text)));
    assert_eq!(
        nested,
        ["ops.capnp: PutManifestReply.missing: a list may hold integers, enums, structs and data"]
    );
    let foreign = refused_field("ReadItem.destination", |field| field.kind = Kind::Struct(7));
    assert_eq!(
        foreign,
        ["ops.capnp: ReadItem.destination: its type is not declared in a file of the specification"]
    );
    let default = refused_field("Ping.echo", |field| field.explicit_default = true);
    assert_eq!(default, ["ops.capnp: Ping.echo: a field's default must be zero or empty"]);
    let keyword = refused_field("Ping.echo", |field| field.name = "async".into());
    assert_eq!(keyword, ["ops.capnp: Ping.echo: the name is a keyword"]);
}

#[test]
fn nothing_contains_itself() {
    let found = refused(|model| {
        let piece = structure(model, "Piece").id;
        field(model, "Region.mac").kind = Kind::List(Box::new(Kind::Struct(piece)));
        field(model, "Region.mac").bounds = Default::default();
        field(model, "Region.mac").bounds.count_max = Some(1);
    });
    let rule = "the struct contains itself, so nothing would bound its depth";
    assert_eq!(found, [format!("types.capnp: Region: {rule}"), format!("types.capnp: Piece: {rule}")]);
}

#[test]
fn operations_are_fully_described() {
    let place = "ops.capnp: Request.ping";
    let other = refused_field("Request.ping", |field| field.operation.opcode = Some(15));
    assert_eq!(other, [format!("{place}: $opcode(15) is not the union's discriminant, 14")]);
    let missing = refused_field("Request.ping", |field| field.operation.opcode = None);
    assert_eq!(missing, [format!("{place}: an operation needs $opcode")]);
    let missing = refused_field("Request.ping", |field| field.operation.since = None);
    assert_eq!(missing, [format!("{place}: an operation needs $since")]);
    let future = refused_field("Request.ping", |field| field.operation.since = Some(2));
    assert_eq!(future, [format!("{place}: $since is no version of the protocol")]);
    let missing = refused_field("Request.ping", |field| field.operation.idempotent = None);
    assert_eq!(missing, [format!("{place}: an operation needs $idempotent")]);
    let missing = refused_field("Request.ping", |field| field.operation.payload = None);
    assert_eq!(missing, [format!("{place}: an operation needs $payload")]);
    let missing = refused_field("Request.ping", |field| field.operation.errors = None);
    assert_eq!(missing, [format!("{place}: an operation needs $errors")]);
    let unknown = refused_field("Request.ping", |field| field.operation.errors = Some(vec!["gone".into()]));
    assert_eq!(unknown, [format!("{place}: $errors names `gone`, which is no status")]);
    let general = refused_field("Request.ping", |field| field.operation.errors = Some(vec!["busy".into()]));
    assert_eq!(general, [format!("{place}: $errors need not name `busy`, which is $anyOperation")]);
}

#[test]
fn requests_and_responses_agree() {
    let renamed = refused_field("Response.ping", |field| field.name = "pong".into());
    assert_eq!(renamed, ["ops.capnp: Response.ping: Request calls this arm by another name"]);
    let short = refused(|model| {
        structure(model, "Response").union.as_mut().unwrap().arms.pop();
    });
    assert_eq!(short, ["ops.capnp: Request.stats: Response has no arm with this discriminant"]);
    let long = refused(|model| {
        structure(model, "Request").union.as_mut().unwrap().arms.pop();
    });
    assert_eq!(long, ["ops.capnp: Response: Response has more arms than Request"]);
    let bare = refused_field("Response.ping", |field| field.kind = Kind::Void);
    assert_eq!(bare, ["ops.capnp: Response.ping: a reply must be a struct"]);
}

#[test]
fn constants_statuses_and_roots_are_described() {
    let constant = |name: &'static str, role: Option<ConstantRole>, value: u64| {
        refused(move |model| {
            let constant = model.constants.iter_mut().find(|constant| constant.name == name).unwrap();
            constant.role = role.unwrap_or_else(|| constant.role.clone());
            constant.value = value;
        })
    };
    assert_eq!(constant("regionsMax", None, 0), ["types.capnp: regionsMax: a limit must be positive"]);
    let unit = Some(ConstantRole::Limit { unit: String::new() });
    assert_eq!(constant("regionsMax", unit, 1), ["types.capnp: regionsMax: a limit needs its unit"]);
    let neither = constant("regionsMax", Some(ConstantRole::None), 1);
    assert_eq!(neither, ["types.capnp: regionsMax: a constant is either $limit or $layout"]);
    let silent = refused(|model| {
        let status = model.enums.iter_mut().find(|item| item.name == "Status").unwrap();
        status.enumerants[3].retry = None;
    });
    assert_eq!(silent, ["types.capnp: Status.missingChunks: a status needs $atFault and $mayRetry"]);
    let root = refused(|model| structure(model, "Manifest").message = Some("frameMagic".into()));
    assert_eq!(root, ["manifest.capnp: Manifest: $message must name a constant that is a $limit"]);
}

#[test]
fn names_are_unique_over_all_files() {
    let found = refused(|model| structure(model, "Chunk").name = "Piece".into());
    assert_eq!(found, ["manifest.capnp: Chunk: the name `Piece` is taken by types.capnp: Piece"]);
    let found = refused(|model| structure(model, "Chunk").name = "PieceWhich".into());
    assert_eq!(found, ["types.capnp: Piece: the name `PieceWhich` is taken by manifest.capnp: Chunk"]);
}

#[test]
fn requirement_ids_are_unique_and_well_formed() {
    let twice = refused_field("Ping.echo", |field| field.doc = "[MKV-LIM-1] Again.".into());
    assert_eq!(twice.len(), 1, "{twice:?}");
    assert!(twice[0].contains("[MKV-LIM-1] stands in"), "{twice:?}");
    let odd = refused_field("Ping.echo", |field| field.doc = "[MKV-ping-1] Lower case.".into());
    assert_eq!(odd, ["ops.capnp: Ping.echo: [MKV-ping-1] is not MKV-AREA-number"]);
    let silent = refused_field("Ping.echo", |field| field.doc = "[MKV-PING-1]".into());
    assert_eq!(silent, ["ops.capnp: Ping.echo: [MKV-PING-1] says nothing"]);
}
