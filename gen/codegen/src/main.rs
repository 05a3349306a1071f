//! `cargo run -p memkv-codegen -- regenerate`: writes everything generated anew.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments != ["regenerate"] {
        eprintln!("usage: memkv-codegen regenerate");
        return ExitCode::from(2);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match memkv_codegen::repository::regenerate(&root) {
        Ok(changed) => {
            for path in changed {
                println!("wrote {}", path.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
