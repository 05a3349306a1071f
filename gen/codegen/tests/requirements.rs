//! Every requirement of the schema is met by code that cites it and tested by a test that cites it, or stands in
//! `schema/exceptions.toml` with its reason; nobody cites what the schema does not require.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use memkv_codegen::citations::Citations;
use memkv_codegen::{exceptions, repository};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_requirement_is_met_and_tested_or_exempt() {
    let model = repository::committed(&root()).unwrap();
    let citations = Citations::collect(&root()).unwrap();
    let exceptions = exceptions::load(&root()).unwrap();
    let mut missing = Vec::new();
    for requirement in model.requirements() {
        let id = requirement.id.as_str();
        let (met, tested) = (citations.in_code(id), citations.in_tests(id));
        let exempt = exceptions.contains_key(id);
        match (met, tested, exempt) {
            (true, true, false) | (false | true, false, true) | (false, true, true) => {}
            (true, true, true) => {
                missing.push(format!("{id}: met and tested, so it is no exception any more"))
            }
            (false, _, false) => missing.push(format!("{id}: no code cites it with `//= {id}`")),
            (true, false, false) => missing.push(format!("{id}: no test cites it with `//= {id} test`")),
        }
    }
    assert!(missing.is_empty(), "{} requirements:\n  {}", missing.len(), missing.join("\n  "));
}

#[test]
fn only_requirements_of_the_schema_are_cited() {
    let model = repository::committed(&root()).unwrap();
    let known: BTreeSet<String> =
        model.requirements().into_iter().map(|requirement| requirement.id).collect();
    let citations = Citations::collect(&root()).unwrap();
    let mut unknown = citations.malformed.clone();
    for (id, files) in citations.all() {
        if !known.contains(id) {
            unknown.push(format!("{id}, cited in {}, is not in the schema", files.join(", ")));
        }
    }
    let exceptions = exceptions::load(&root()).unwrap();
    let exempt = exceptions.keys().filter(|id| !known.contains(*id));
    unknown.extend(exempt.map(|id| format!("{id}, in {}, is not in the schema", exceptions::FILE)));
    assert!(unknown.is_empty(), "  {}", unknown.join("\n  "));
}
