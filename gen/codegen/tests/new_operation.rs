//! A new operation is a schema edit and a handler, and nothing else: in a scratch copy of the sources an operation is
//! added to the schema, everything is generated anew, and the compiler names exactly one thing that is missing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memkv_codegen::repository;

/// What is no source: builds, other tools' files, and everything with a dot but `.cargo`.
const SKIPPED: &[&str] = &["target", "node_modules", "docs"];

/// Packages that read the schema's operations, on both sides.
const CHECKED: &[&str] = &["memkv-wire", "memkv-transport", "memkv-client", "memkv-server", "kv-store-memkv"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_compiler_names_the_missing_handler_and_nothing_else() {
    let work = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let scratch = work.join("new-operation");
    mirror(&root(), &scratch);
    match repository::refresh_request(&scratch) {
        Ok(Some(_)) => {}
        Ok(None) => {
            println!(
                "MEMKV-SKIP the_compiler_names_the_missing_handler_and_nothing_else there is no capnp tool"
            );
            return;
        }
        Err(error) => panic!("the new operation is refused: {error}"),
    }
    assert_eq!(
        errors(&scratch, &work.join("new-operation-target")),
        [("E0046".to_owned(), "not all trait items implemented, missing: `touch`".to_owned())]
    );
}

/// The schema with one more operation: an arm in both unions and their two structs.
fn with_touch(schema: &str) -> String {
    let opcode = schema.matches("$Spec.opcode(").count();
    let annotations = format!(
        "$Spec.opcode({opcode}) $Spec.since(1) $Spec.idempotent(true) $Spec.payload(none) $Spec.errors([\"notFound\"])"
    );
    let schema = with_arm(schema, "Request", &format!("Touch {annotations}"));
    let schema = with_arm(&schema, "Response", "TouchReply");
    schema
        + "
struct Touch {
  # Counts a value as used now.
  key @0 :Data $Spec.lenMin(1) $Spec.lenMax(512);
}

struct TouchReply {
  length @0 :UInt64;
}
"
}

/// One more arm `touch` at the end of the union of a struct, with the struct's next ordinal.
fn with_arm(schema: &str, structure: &str, kind: &str) -> String {
    let start = schema.find(&format!("struct {structure} ")).unwrap();
    let end = start + schema[start..].find("\n  }\n}\n").unwrap();
    let ordinal = schema[start..end].matches(" @").count();
    format!("{}\n    touch @{ordinal} :{kind};{}", &schema[..end], &schema[end..])
}

/// What the compiler says in the scratch copy: the code and the message of every error. It shares the build folder,
/// where what the dependencies need (macros, C code) is built already; only packages of this project are other ones,
/// because they lie elsewhere.
fn errors(scratch: &Path, target: &Path) -> Vec<(String, String)> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["check", "--offline", "--locked", "--keep-going", "--message-format=json"]);
    for package in CHECKED {
        cargo.args(["--package", package]);
    }
    let output = cargo.current_dir(scratch).env("CARGO_TARGET_DIR", target).output().unwrap();
    let mut errors = Vec::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        let message = &message["message"];
        if message["level"] == "error" && message["code"]["code"].is_string() {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            errors.push((text(&message["code"]["code"]), text(&message["message"])));
        }
    }
    assert!(!output.status.success() && !errors.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    errors
}

/// Makes `to` a copy of the sources in `from`, with one more operation in the schema. A file that is the same stays
/// untouched, for cargo to see; so does the request made of the schema, which is made again when it is stale.
fn mirror(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut kept = BTreeSet::new();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if SKIPPED.contains(&&*text) || (text.starts_with('.') && text != ".cargo") {
            continue;
        }
        let (source, copy) = (entry.path(), to.join(&name));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            mirror(&source, &copy);
        } else if text == "ops.capnp" {
            write_if_changed(&copy, with_touch(&fs::read_to_string(&source).unwrap()).as_bytes());
        } else if kind.is_file() && !(text == "memkv.cgr" && copy.exists()) {
            write_if_changed(&copy, &fs::read(&source).unwrap());
        }
        kept.insert(name);
    }
    for entry in fs::read_dir(to).unwrap() {
        let entry = entry.unwrap();
        if kept.contains(&entry.file_name()) {
            continue;
        }
        let gone = if entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
        gone.unwrap();
    }
}

fn write_if_changed(path: &Path, bytes: &[u8]) {
    if !fs::read(path).is_ok_and(|current| current == bytes) {
        fs::write(path, bytes).unwrap();
    }
}
