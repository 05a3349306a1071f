//! `cargo xtask gen`: writes anew what is generated from the schema and committed.

use std::process::Command;

use anyhow::Result;

use crate::shell;

pub fn run() -> Result<bool> {
    if Command::new("capnp").arg("--version").output().is_err() {
        println!(
            "no capnp tool: generating from the committed request, schema/memkv.cgr; edits of schema/ are not seen"
        );
    }
    let changed = memkv_codegen::repository::regenerate(shell::root())?;
    for path in &changed {
        println!("wrote {}", path.display());
    }
    if changed.is_empty() {
        println!("everything is fresh");
    }
    Ok(true)
}
