//! Which package may depend on which: one way only, as docs/ARCHITECTURE.md draws it.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Package, then the workspace's packages that it may use in what it ships (dependencies and build-dependencies).
/// A package that is missing here fails the test: decide where it stands.
const ARROWS: &[(&str, &[&str])] = &[
    ("memkv-codegen", &[]),
    ("memkv-wire", &["memkv-codegen"]),
    ("memkv-transport", &["memkv-wire"]),
    ("memkv-client", &["memkv-wire", "memkv-transport"]),
    ("memkv-server", &["memkv-wire", "memkv-transport"]),
    ("kv-store-memkv", &["memkv-wire", "memkv-transport", "memkv-client"]),
    ("memkv-conformance", &["memkv-wire", "memkv-transport"]),
    ("kv-store-loader", &[]),
    ("kv-store-opendal", &[]),
    ("memkv-simulation", &["memkv-wire", "memkv-transport", "memkv-client", "memkv-server"]),
    (
        "memkv-fuzz",
        &[
            "memkv-wire",
            "memkv-transport",
            "memkv-client",
            "memkv-server",
            "memkv-simulation",
            "kv-store-memkv",
        ],
    ),
    ("memkv-bench", &["memkv-wire", "memkv-client", "kv-store-loader"]),
    ("xtask", &["memkv-codegen", "memkv-wire", "memkv-transport", "memkv-client"]),
];

/// Packages that nothing may use, not even a test.
const ENDS: &[&str] = &["memkv-conformance", "memkv-fuzz", "memkv-bench", "xtask"];

/// Packages that never see each other, not even in a test: what both need belongs in transport, and what tests need of
/// both in the simulation or behind the C ABI.
const STRANGERS: &[(&str, &str)] = &[("memkv-client", "memkv-server")];

struct Dependency {
    from: String,
    to: String,
    in_tests_only: bool,
}

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata writes JSON")
}

/// The workspace's dependencies on its own packages.
fn dependencies(metadata: &Value) -> Vec<Dependency> {
    let mut all = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            if dependency["path"].is_string() {
                all.push(Dependency {
                    from: package["name"].as_str().expect("name").to_owned(),
                    to: dependency["name"].as_str().expect("name").to_owned(),
                    in_tests_only: dependency["kind"] == "dev",
                });
            }
        }
    }
    all
}

#[test]
fn dependencies_point_one_way() {
    let metadata = metadata();
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name");
        assert!(arrows.contains_key(name), "{name} has no place among the arrows");
    }
    let wrong: Vec<String> = dependencies(&metadata)
        .iter()
        .filter(|d| !d.in_tests_only && !arrows[d.from.as_str()].contains(&d.to.as_str()))
        .map(|d| format!("{} -> {}", d.from, d.to))
        .collect();
    assert!(wrong.is_empty(), "not among the arrows: {wrong:?}");
}

#[test]
fn nothing_depends_on_what_only_tests_or_drives() {
    for dependency in dependencies(&metadata()) {
        assert!(!ENDS.contains(&dependency.to.as_str()), "{} -> {}", dependency.from, dependency.to);
    }
}

#[test]
fn client_and_server_never_see_each_other() {
    for dependency in dependencies(&metadata()) {
        let pair = (dependency.from.as_str(), dependency.to.as_str());
        let strangers = STRANGERS.iter().any(|&(a, b)| pair == (a, b) || pair == (b, a));
        assert!(!strangers, "{} -> {}", dependency.from, dependency.to);
    }
}

/// No program that serves has code in it that is wrong on purpose.
#[test]
fn bugs_are_planted_in_the_simulation_alone() {
    const FEATURE: &str = "planted-bugs";
    let metadata = metadata();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("name");
        for (feature, enables) in package["features"].as_object().expect("features") {
            let enables = enables.as_array().expect("a list").iter().filter_map(Value::as_str);
            let plants = enables.filter(|enabled| enabled.contains(FEATURE)).count() > 0;
            assert!(!plants || (name, feature.as_str()) == ("memkv-simulation", FEATURE), "{name}/{feature}");
        }
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let features = dependency["features"].as_array().expect("a list");
            assert!(features.iter().all(|feature| feature != FEATURE), "{name} plants bugs in {dependency}");
        }
    }
}
