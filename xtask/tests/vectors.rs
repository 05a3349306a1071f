//! The committed known-answer vectors are what their independent implementation makes.

use std::path::Path;
use std::process::Command;

/// What tools/vectors/make.py exits with when a Python package is missing.
const UNIMPLEMENTED: i32 = 89;

#[test]
fn vectors_are_fresh() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/vectors/make.py");
    // Nothing is to be left in the source tree.
    let run = Command::new("python3").arg("-B").arg(script).arg("--check").output();
    let output = match run {
        Ok(output) => output,
        Err(error) => return println!("MEMKV-SKIP vectors_are_fresh python3 cannot be run: {error}"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => {}
        Some(UNIMPLEMENTED) => println!("MEMKV-SKIP vectors_are_fresh {}", said.trim()),
        _ => panic!("make.py: {}\n{said}", output.status),
    }
}
