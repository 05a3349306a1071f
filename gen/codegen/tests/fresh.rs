//! Whatever is generated and committed is what the generator makes now. A test that finds something stale
//! rewrites it and fails; its next run passes.

use std::path::{Path, PathBuf};

use memkv_codegen::repository;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn assert_fresh(changed: &[PathBuf]) {
    assert!(changed.is_empty(), "stale, and now rewritten: {changed:?}");
}

#[test]
fn the_request_is_what_the_schema_says() {
    match repository::refresh_request(&root()).unwrap() {
        Some(changed) => assert_fresh(&changed),
        None => println!("MEMKV-SKIP the_request_is_what_the_schema_says there is no capnp tool"),
    }
}

#[test]
fn the_golden_copy_is_what_the_wire_crate_includes() {
    assert_fresh(&repository::refresh_golden(&root()).unwrap());
}

#[test]
fn the_vectors_and_the_header_say_what_the_schema_says() {
    assert_fresh(&repository::refresh_conformance(&root()).unwrap());
}

#[test]
fn the_reference_pages_say_what_the_schema_says() {
    assert_fresh(&repository::refresh_pages(&root()).unwrap());
}
