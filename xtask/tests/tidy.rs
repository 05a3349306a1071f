//! What every source file of the project keeps to, and the compiler does not check.
//!
//! Reads the files that git tracks, as tokens and syntax trees: a word in a comment or a string is no finding. Generated
//! files are exempt from the limits of size.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::Visit;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;
/// What is larger than that and stays, each with its size. The list only shrinks.
const OVERSIZE: &str = "xtask/tests/tidy_oversize.txt";

/// Where `unsafe` may stand; everywhere else a crate forbids it.
const UNSAFE_FOLDERS: &[&str] = &[
    "transport/",
    "server/src/io/",
    "abi/",
    "nixl/",
    "conformance/src/ffi.rs",
    "conformance/backends/",
    "fuzz/src/abi.rs",
    "fuzz/libfuzzer/",
];
/// Packages with such a folder. They cannot forbid it as a whole.
const UNSAFE_PACKAGES: &[&str] = &["transport", "server", "abi", "nixl", "conformance", "fuzz"];

const GENERATED: &[&str] = &["/golden/", "/generated/", "abi/include/"];

/// Not finished, or switched off.
const UNFINISHED_MACROS: &[&str] = &["todo", "unimplemented", "dbg"];

struct Source {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The tracked files whose names end so. A file deleted but not yet committed is left out.
fn tracked(endings: &[&str]) -> Vec<Source> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("git runs");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).expect("paths are UTF-8");
    let wanted = |name: &&str| endings.iter().any(|ending| name.ends_with(ending));
    let read = |name: &str| {
        Some(Source { path: name.to_owned(), text: std::fs::read_to_string(root().join(name)).ok()? })
    };
    let sources: Vec<Source> = names.split('\0').filter(wanted).filter_map(read).collect();
    assert!(!sources.is_empty(), "git tracks no file that ends in {endings:?}");
    sources
}

fn is_generated(path: &str) -> bool {
    GENERATED.iter().any(|part| path.contains(part))
}

fn tokens(source: &Source) -> TokenStream {
    source.text.parse().unwrap_or_else(|error| panic!("{}: {error}", source.path))
}

fn fail_on(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

// ---------------------------------------------------------------- sizes

/// Collects the functions of a file with their numbers of lines, from the signature to the closing brace.
#[derive(Default)]
struct Functions {
    within: Vec<String>,
    sizes: BTreeMap<String, usize>,
}

impl Functions {
    fn function(&mut self, name: &syn::Ident, item: &impl syn::spanned::Spanned, signature: &syn::Signature) {
        let lines = item.span().end().line - signature.span().start().line + 1;
        let name = self.within.iter().cloned().chain([name.to_string()]).collect::<Vec<_>>().join("::");
        let size = self.sizes.entry(name).or_default();
        *size = lines.max(*size);
    }
}

impl<'a> Visit<'a> for Functions {
    fn visit_item_mod(&mut self, module: &'a syn::ItemMod) {
        self.within.push(module.ident.to_string());
        syn::visit::visit_item_mod(self, module);
        self.within.pop();
    }

    fn visit_item_impl(&mut self, block: &'a syn::ItemImpl) {
        let name = match &*block.self_ty {
            syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        self.within.push(name.unwrap_or_else(|| "impl".to_owned()));
        syn::visit::visit_item_impl(self, block);
        self.within.pop();
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.function(&item.sig.ident, item, &item.sig);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        self.function(&item.sig.ident, item, &item.sig);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        self.function(&item.sig.ident, item, &item.sig);
        syn::visit::visit_trait_item_fn(self, item);
    }
}

fn function_sizes(source: &Source) -> BTreeMap<String, usize> {
    let file = syn::parse_file(&source.text).unwrap_or_else(|error| panic!("{}: {error}", source.path));
    let mut functions = Functions::default();
    functions.visit_file(&file);
    functions.sizes
}

/// Everything over a limit: `path` or `path::function`, and its lines.
fn oversize() -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let is_rust = |source: &Source| source.path.ends_with(".rs");
    for source in tracked(&[".rs", ".py", ".c", ".cc", ".h", ".sh", ".capnp"]) {
        if is_generated(&source.path) {
            continue;
        }
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            found.insert(source.path.clone(), lines);
        }
        if is_rust(&source) {
            let large = function_sizes(&source).into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX);
            found.extend(large.map(|(name, lines)| (format!("{}::{name}", source.path), lines)));
        }
    }
    found
}

#[test]
fn large_functions_and_files_are_few_and_known() {
    let text = std::fs::read_to_string(root().join(OVERSIZE)).expect("the list");
    let entries = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let known: BTreeMap<String, usize> = entries
        .map(|line| {
            let (name, lines) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}: no size"));
            (name.to_owned(), lines.parse().unwrap_or_else(|_| panic!("{line}: no size")))
        })
        .collect();
    let found = oversize();
    let mut findings = Vec::new();
    for (name, lines) in &found {
        match known.get(name) {
            None => findings.push(format!("{name} has {lines} lines: make it smaller")),
            Some(before) if lines > before => {
                findings.push(format!("{name} grew from {before} to {lines} lines"))
            }
            Some(before) if lines < before => {
                findings.push(format!("{name} shrank to {lines} lines: say so in the list"))
            }
            Some(_) => {}
        }
    }
    let gone = known.keys().filter(|name| !found.contains_key(*name));
    findings.extend(gone.map(|name| format!("{name} is no longer too large: take it off the list")));
    fail_on(
        &findings,
        &format!("functions over {FUNCTION_LINES_MAX} lines, files over {FILE_LINES_MAX} ({OVERSIZE})"),
    );
}

// ---------------------------------------------------------------- tokens

/// Every token with its line, those inside macros and groups too.
fn flatten(stream: TokenStream, into: &mut Vec<(String, usize)>) {
    for tree in stream {
        match tree {
            TokenTree::Group(group) => flatten(group.stream(), into),
            other => {
                let line = other.span().start().line;
                into.push((other.to_string(), line));
            }
        }
    }
}

fn words(source: &Source) -> Vec<(String, usize)> {
    let mut all = Vec::new();
    flatten(tokens(source), &mut all);
    all
}

#[test]
fn nothing_is_unfinished_or_switched_off() {
    let mut findings = Vec::new();
    for source in tracked(&[".rs"]) {
        for pair in words(&source).windows(2) {
            let [(word, line), (next, _)] = pair else { continue };
            if UNFINISHED_MACROS.contains(&word.as_str()) && next == "!" {
                findings.push(format!("{}:{line}: {word}!", source.path));
            }
            if word == "#" && next == "ignore" {
                findings.push(format!("{}:{line}: #[ignore]", source.path));
            }
        }
    }
    fail_on(&findings, "unfinished, or switched off");
}

#[test]
fn unsafe_stands_only_where_it_may() {
    let mut findings = Vec::new();
    for source in tracked(&[".rs"]) {
        if UNSAFE_FOLDERS.iter().any(|folder| source.path.starts_with(folder)) {
            continue;
        }
        let uses = words(&source).into_iter().filter(|(word, _)| word == "unsafe");
        findings.extend(uses.map(|(_, line)| format!("{}:{line}", source.path)));
    }
    fail_on(&findings, &format!("unsafe outside of {UNSAFE_FOLDERS:?}"));
}

#[test]
fn crates_without_unsafe_forbid_it() {
    let mut findings = Vec::new();
    for source in tracked(&["/src/lib.rs", "/src/main.rs", "gen/lib.rs"]) {
        let package = source.path.split('/').next().unwrap_or_default();
        if UNSAFE_PACKAGES.contains(&package) {
            continue;
        }
        let file = syn::parse_file(&source.text).unwrap_or_else(|error| panic!("{}: {error}", source.path));
        let forbids = file.attrs.iter().any(|attribute| {
            attribute.path().is_ident("forbid")
                && attribute.parse_args::<syn::Ident>().is_ok_and(|lint| lint == "unsafe_code")
        });
        if !forbids {
            findings.push(source.path.clone());
        }
    }
    fail_on(&findings, "no #![forbid(unsafe_code)]");
}

// ---------------------------------------------------------------- the rules themselves

#[test]
fn the_rules_find_what_they_look_for() {
    let text =
        "mod m { impl T { fn f() {\n\n\n} } }\n#[ignore] fn g() { call(|| unsafe { 1 }); vec![todo!()]; }"
            .to_owned();
    let source = Source { path: "x.rs".to_owned(), text };
    let sizes = function_sizes(&source);
    assert_eq!(sizes["m::T::f"], 4);
    assert_eq!(sizes["g"], 1);
    let said = spoken(&source);
    for pair in [["#", "ignore"], ["todo", "!"]] {
        assert!(said.windows(2).any(|w| w == pair), "{pair:?} is not in {said:?}");
    }
    assert!(said.contains(&"unsafe".to_owned()));
    let quiet =
        Source { path: "y.rs".to_owned(), text: "// unsafe todo!()\nconst A: &str = \"unsafe\";".to_owned() };
    assert!(!spoken(&quiet).contains(&"unsafe".to_owned()));
}

fn spoken(source: &Source) -> Vec<String> {
    words(source).into_iter().map(|(word, _)| word).collect()
}
