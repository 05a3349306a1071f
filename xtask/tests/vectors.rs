//! The committed known-answer vectors are what their independent implementation makes.

use std::path::Path;
use std::process::Command;

/// What tools/vectors/make.py exits with when a Python package is missing.
const UNIMPLEMENTED: i32 = 89;

/// The first Python on the path, and the system's: packages of a distribution are only seen by the latter.
const PYTHONS: [&str; 2] = ["python3", "/usr/bin/python3"];

#[test]
fn vectors_are_fresh() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/vectors/make.py");
    let mut reasons = Vec::new();
    for python in PYTHONS {
        // Nothing is to be left in the source tree.
        let run = Command::new(python).arg("-B").arg(&script).arg("--check").output();
        let output = match run {
            Ok(output) => output,
            Err(error) => {
                reasons.push(format!("{python} cannot be run: {error}"));
                continue;
            }
        };
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.code() {
            Some(0) => return,
            Some(UNIMPLEMENTED) => reasons.push(format!("{python}: {said}")),
            _ => panic!("{python} make.py: {}\n{said}", output.status),
        }
    }
    println!("MEMKV-SKIP vectors_are_fresh {}", reasons.join("; "));
}
