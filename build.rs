//! Generates the wire crate's modules from the committed CodeGeneratorRequest; needs no `capnp` tool.

use std::path::PathBuf;
use std::{env, fs};

const REQUEST: &str = "schema/memkv.cgr";

fn main() {
    println!("cargo::rerun-if-changed={REQUEST}");
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(error) = generate() {
        println!("cargo::error={}", error.to_string().replace('\n', " "));
    }
}

fn generate() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let model = memkv_codegen::load(&fs::read(REQUEST)?)?;
    for output in memkv_codegen::emit::rust(&model) {
        fs::write(out.join(output.name), output.text)?;
    }
    #[cfg(feature = "oracle")]
    oracle(&out)?;
    Ok(())
}

/// capnpc's own readers of the same request, for the tests to compare ours with.
#[cfg(feature = "oracle")]
fn oracle(out: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let request = fs::read(REQUEST)?;
    capnpc::codegen::CodeGenerationCommand::new().output_directory(out).run(&request[..])?;
    Ok(())
}
