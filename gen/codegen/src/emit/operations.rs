//! `operations.rs`: the operations of the request union: their table, dispatch and stubs.

use super::code::Code;
use super::names::{pascal, snake};
use super::views::type_name;
use crate::model::{Enum, Field, Kind, Model, Struct};

/// An operation, as its two arms and its structs tell.
struct Operation<'m> {
    arm: &'m Field,
    request: &'m Struct,
    reply: &'m Struct,
}

pub fn emit(model: &Model) -> String {
    let mut code = Code::new("The operations: their table, their dispatch and the caller's stubs.");
    let operations = operations(model);
    table(&mut code, model, &operations);
    whichs(&mut code, &operations);
    markers(&mut code, model, &operations);
    dispatch(&mut code, model, &operations);
    caller(&mut code, model, &operations);
    code.finish()
}

fn operations(model: &Model) -> Vec<Operation<'_>> {
    let (Some((_, requests)), Some((_, responses))) = (model.request(), model.response()) else {
        return Vec::new();
    };
    let structure = |field: &Field| match field.kind {
        Kind::Struct(id) => model.structure(id),
        _ => None,
    };
    let pairs = requests.arms.iter().zip(&responses.arms);
    pairs
        .filter_map(|(arm, reply)| {
            Some(Operation { arm, request: structure(arm)?, reply: structure(reply)? })
        })
        .collect()
}

fn table(code: &mut Code, model: &Model, operations: &[Operation<'_>]) {
    code.lines(&[
        "",
        "/// Every operation of this version.",
        "#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]",
    ]);
    code.lines(&["#[repr(u16)]", "pub enum Operation {"]);
    for operation in operations {
        let doc = operation.request.doc.split("\n\n").next().unwrap_or_default();
        code.doc(doc.split("[MKV-").next().unwrap_or_default().trim_end());
        let opcode = operation.arm.operation.opcode.unwrap_or_default();
        code.line(&format!("{} = {opcode},", pascal(&operation.arm.name)));
    }
    code.lines(&["}", "", "impl Operation {", "pub const ALL: &'static [Operation] = &["]);
    for operation in operations {
        code.line(&format!("Operation::{},", pascal(&operation.arm.name)));
    }
    code.lines(&["];", "", "/// The union's discriminant.", "pub const fn opcode(self) -> u16 {"]);
    code.lines(&["self as u16", "}", "", "pub const fn from_opcode(opcode: u16) -> Option<Operation> {"]);
    code.line("match opcode {");
    for operation in operations {
        let opcode = operation.arm.operation.opcode.unwrap_or_default();
        code.line(&format!("{opcode} => Some(Operation::{}),", pascal(&operation.arm.name)));
    }
    code.lines(&["_ => None,", "}", "}"]);
    let payloads = model.enum_named("PayloadUse");
    property(code, operations, "As in the schema.", "name", "&'static str", &|arm| {
        format!("\"{}\"", arm.name)
    });
    let doc = "The first protocol version that has it.";
    property(code, operations, doc, "since", "u8", &|arm| {
        arm.operation.since.unwrap_or_default().to_string()
    });
    let doc = "Whether a client may send it again after it lost the connection without knowing the outcome.";
    property(code, operations, doc, "idempotent", "bool", &|arm| {
        arm.operation.idempotent.unwrap_or_default().to_string()
    });
    let doc = "Whether it belongs to session set-up: it rides in hello frames and has no handler.";
    property(code, operations, doc, "setup", "bool", &|arm| arm.operation.setup.to_string());
    let doc = "What the frames of a request carry beside the control message.";
    property(code, operations, doc, "payload", "PayloadUse", &|arm| payload(payloads, arm));
    let doc = "The statuses of its replies, besides `ok` and those every operation may return.";
    property(code, operations, doc, "errors", "&'static [Status]", &errors);
    property(
        code,
        operations,
        "An empty reply, to go with a status that is not `ok`.",
        "empty_reply",
        "ResponseWhich<'static>",
        &|arm| format!("ResponseWhich::{}(Default::default())", pascal(&arm.name)),
    );
    code.lines(&["", "/// Whether a reply to it may have this status."]);
    code.line("pub fn may_answer(self, status: Status) -> bool {");
    code.line("status == Status::Ok || status.any_operation() || self.errors().contains(&status)");
    code.line("}");
    code.line("}");
}

/// A method of `Operation` that answers each operation with a literal.
fn property(
    code: &mut Code,
    operations: &[Operation<'_>],
    doc: &str,
    name: &str,
    kind: &str,
    value: &dyn Fn(&Field) -> String,
) {
    let constant = if name == "empty_reply" { "" } else { "const " };
    code.lines(&[
        "",
        &format!("/// {doc}"),
        &format!("pub {constant}fn {name}(self) -> {kind} {{"),
        "match self {",
    ]);
    for operation in operations {
        code.line(&format!("Operation::{} => {},", pascal(&operation.arm.name), value(operation.arm)));
    }
    code.lines(&["}", "}"]);
}

fn payload(payloads: Option<&Enum>, arm: &Field) -> String {
    let code = usize::from(arm.operation.payload.unwrap_or_default());
    let name = payloads.and_then(|payloads| payloads.enumerants.get(code)).map(|item| pascal(&item.name));
    format!("PayloadUse::{}", name.unwrap_or_default())
}

fn errors(arm: &Field) -> String {
    let names = arm.operation.errors.iter().flatten();
    let names: Vec<String> = names.map(|name| format!("Status::{}", pascal(name))).collect();
    format!("&[{}]", names.join(", "))
}

fn whichs(code: &mut Code, operations: &[Operation<'_>]) {
    for which in ["RequestWhich", "ResponseWhich"] {
        code.lines(&[
            "",
            &format!("impl {which}<'_> {{"),
            "/// `None` for an arm that this version does not know.",
        ]);
        code.lines(&["pub const fn operation(&self) -> Option<Operation> {", "match self {"]);
        for operation in operations {
            let name = pascal(&operation.arm.name);
            code.line(&format!("{which}::{name}(_) => Some(Operation::{name}),"));
        }
        code.lines(&[&format!("{which}::Unknown(_) => None,"), "}", "}", ""]);
        code.lines(&["pub const fn opcode(&self) -> u16 {", "match self {"]);
        for operation in operations {
            let opcode = operation.arm.operation.opcode.unwrap_or_default();
            code.line(&format!("{which}::{}(_) => {opcode},", pascal(&operation.arm.name)));
        }
        code.lines(&[&format!("{which}::Unknown(opcode) => *opcode,"), "}", "}", "}"]);
    }
}

fn markers(code: &mut Code, model: &Model, operations: &[Operation<'_>]) {
    code.lines(&[
        "",
        "/// An operation as a type; [`op`] has one for each.",
        "pub trait Op {",
        "const OPERATION: Operation;",
        "type Request<'a>;",
        "type Reply<'a>;",
        "",
        "fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a>;",
        "fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a>;",
        "/// `None` for the arm of another operation.",
        "fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>>;",
        "}",
        "",
        "/// The operations as types.",
        "pub mod op {",
        "use super::{Operation, RequestWhich, ResponseWhich};",
    ]);
    for operation in operations {
        let name = pascal(&operation.arm.name);
        let request = type_name(model, operation.request, "'a");
        let reply = type_name(model, operation.reply, "'a");
        code.lines(&["", "#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]"]);
        code.lines(&[&format!("pub struct {name};"), "", &format!("impl super::Op for {name} {{")]);
        code.line(&format!("const OPERATION: Operation = Operation::{name};"));
        code.line(&format!("type Request<'a> = super::{request};"));
        code.line(&format!("type Reply<'a> = super::{reply};"));
        code.line("");
        // Lifetimes are named, because an elided one that a type ignores differs in kind from the trait's.
        code.line("fn wrap<'a>(request: Self::Request<'a>) -> RequestWhich<'a> {");
        code.lines(&[&format!("RequestWhich::{name}(request)"), "}", ""]);
        code.line("fn wrap_reply<'a>(reply: Self::Reply<'a>) -> ResponseWhich<'a> {");
        code.lines(&[&format!("ResponseWhich::{name}(reply)"), "}", ""]);
        code.line("fn reply<'a>(which: ResponseWhich<'a>) -> Option<Self::Reply<'a>> {");
        code.lines(&[
            "match which {",
            &format!("ResponseWhich::{name}(reply) => Some(reply),"),
            "_ => None,",
        ]);
        code.lines(&["}", "}", "}"]);
    }
    code.line("}");
}

fn dispatch(code: &mut Code, model: &Model, operations: &[Operation<'_>]) {
    code.lines(&[
        "",
        "/// A handler for every operation but those of session set-up. A handler answers through its call, now or",
        "/// later; nothing is returned.",
        "pub trait Dispatch {",
        "/// What a handler needs to answer: whose request it is, its payload, where the reply goes.",
        "type Call;",
    ]);
    let handled: Vec<_> = operations.iter().filter(|operation| !operation.arm.operation.setup).collect();
    for operation in &handled {
        let (name, kind) = (snake(&operation.arm.name), type_name(model, operation.request, "'_"));
        code.lines(&[
            "",
            &format!("fn {name}(&mut self, call: Self::Call, namespace: &[u8], request: {kind});"),
        ]);
    }
    code.lines(&[
        "}",
        "",
        "/// Why a request reached no handler.",
        "#[derive(Clone, Copy, Debug, PartialEq, Eq)]",
        "pub enum Undispatched<C> {",
        "/// To be answered with `unknownOperation`.",
        "Unknown { call: C, opcode: u16 },",
        "/// Session set-up where no session is set up.",
        "Setup { call: C, operation: Operation },",
        "}",
        "",
        "/// Hands a request to its handler.",
        "pub fn dispatch<D: Dispatch>(",
        "handlers: &mut D,",
        "call: D::Call,",
        "request: &Request<'_>,",
        ") -> Result<(), Undispatched<D::Call>> {",
        "match request.which {",
    ]);
    for operation in operations {
        let (arm, method) = (pascal(&operation.arm.name), snake(&operation.arm.name));
        if operation.arm.operation.setup {
            code.line(&format!("RequestWhich::{arm}(_) => {{"));
            code.line(&format!("return Err(Undispatched::Setup {{ call, operation: Operation::{arm} }});"));
            code.line("}");
        } else {
            let handler = format!("handlers.{method}(call, request.namespace, request_arm)");
            code.line(&format!("RequestWhich::{arm}(request_arm) => {handler},"));
        }
    }
    code.lines(&[
        "RequestWhich::Unknown(opcode) => return Err(Undispatched::Unknown { call, opcode }),",
        "}",
        "Ok(())",
        "}",
    ]);
}

fn caller(code: &mut Code, model: &Model, operations: &[Operation<'_>]) {
    code.lines(&[
        "",
        "/// The client's side: one method sends a request, the others name the operations.",
        "pub trait Caller {",
        "/// A reply that has not come yet.",
        "type Pending<O: Op>;",
        "",
        "fn call<O: Op>(&mut self, namespace: &[u8], request: O::Request<'_>) -> Self::Pending<O>;",
    ]);
    for operation in operations.iter().filter(|operation| !operation.arm.operation.setup) {
        let (arm, method) = (pascal(&operation.arm.name), snake(&operation.arm.name));
        let kind = type_name(model, operation.request, "'_");
        code.line("");
        code.line(&format!(
            "fn {method}(&mut self, namespace: &[u8], request: {kind}) -> Self::Pending<op::{arm}> {{"
        ));
        code.lines(&[&format!("self.call::<op::{arm}>(namespace, request)"), "}"]);
    }
    code.line("}");
}
