//! The documentation names what the code has.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Rows of the table begin with a name in backquotes.
#[test]
fn every_counter_is_documented_and_no_other() {
    let source = read("server/src/service/stats.rs");
    let named = source.split("(\"").skip(1).filter_map(|rest| rest.split_once("\", ")).map(|(name, _)| name);
    let counted: BTreeSet<&str> = named.filter(|name| !name.contains(char::is_whitespace)).collect();
    assert!(counted.len() > 40, "stats.rs is not what this test was written for: {counted:?}");
    let page = read("docs/operating.md");
    let (_, table) = page.split_once("## Counters").expect("the section");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: BTreeSet<&str> = rows.map(|(name, _)| name).collect();
    assert_eq!(documented, counted);
}

/// Links between pages lead somewhere. Those into the web, and to places within a page, are not followed.
#[test]
fn links_lead_somewhere() {
    let mut pages = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("docs/ is there").flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                path if path.extension().is_some_and(|extension| extension == "md") => pages.push(path),
                _ => {}
            }
        }
    }
    let mut dead = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("pages are text");
        for target in
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
        {
            let path = target.split('#').next().unwrap_or_default();
            let there = page.parent().is_some_and(|folder| folder.join(path).exists());
            if !path.is_empty() && !path.contains("://") && !there {
                dead.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "dead links: {dead:#?}");
}
