//! `cargo xtask licences`: every locked dependency's licence against deny.toml's list.
//!
//! Trusts the `license` field of each manifest. Does not look at licence files, sources or advisories: `cargo deny` does.

use anyhow::{Context, Result};
use serde_json::Value;
use spdx::{Expression, Licensee, ParseMode};

use crate::shell;

/// Whether all are allowed; the others are named.
pub fn run() -> Result<bool> {
    let allowed = allowed()?;
    let metadata =
        shell::output(shell::cargo().args(["metadata", "--format-version=1", "--all-features", "--locked"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let refused: Vec<String> = packages.iter().filter_map(|package| refusal(package, &allowed)).collect();
    for refusal in &refused {
        println!("{refusal}");
    }
    println!("{} packages, {} with a licence that is not allowed", packages.len(), refused.len());
    Ok(refused.is_empty())
}

fn allowed() -> Result<Vec<Licensee>> {
    let text = std::fs::read_to_string(shell::root().join("deny.toml")).context("cannot read deny.toml")?;
    let configuration: toml::Table = text.parse().context("deny.toml")?;
    let list =
        configuration["licenses"]["allow"].as_array().context("deny.toml: licenses.allow is no list")?;
    let parse = |entry: &toml::Value| {
        let name = entry.as_str().context("deny.toml: licenses.allow holds more than text")?;
        Licensee::parse(name).with_context(|| format!("deny.toml: {name}"))
    };
    list.iter().map(parse).collect()
}

/// Why the package may not be used, if it may not.
fn refusal(package: &Value, allowed: &[Licensee]) -> Option<String> {
    let name = format!("{} {}", package["name"].as_str()?, package["version"].as_str()?);
    let Some(text) = package["license"].as_str() else {
        return Some(format!("{name}: says no licence"));
    };
    // Old manifests write `MIT/Apache-2.0`.
    let Ok(expression) = Expression::parse_mode(text, ParseMode::LAX) else {
        return Some(format!("{name}: {text} is no SPDX expression"));
    };
    let holds = expression.evaluate(|required| allowed.iter().any(|licence| licence.satisfies(required)));
    (!holds).then(|| format!("{name}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(licence: &str) -> bool {
        let package = serde_json::json!({ "name": "x", "version": "1.0.0", "license": licence });
        refusal(&package, &allowed().expect("deny.toml")).is_some()
    }

    #[test]
    fn a_choice_needs_one_allowed_licence_and_a_conjunction_all() {
        assert!(!refused("MIT OR GPL-3.0-only"));
        assert!(!refused("MIT/Apache-2.0"));
        assert!(!refused("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(refused("MIT AND GPL-3.0-only"));
        assert!(refused("LGPL-2.1-or-later"));
        assert!(refused("anything at all"));
        assert!(refusal(&serde_json::json!({ "name": "x", "version": "1.0.0" }), &[]).is_some());
    }
}
