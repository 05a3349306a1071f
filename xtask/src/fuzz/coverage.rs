//! How much of the project's code the corpora reach, file by file: functions, and edges within them.
//!
//! Every check of a bound or of an overflow has an edge that only a bug would take, so half of the edges is much.
//! libFuzzer counts edges between blocks of code, function by function; `nm` and `addr2line` (Debian: binutils) say where
//! a function stands. A function that was inlined counts for the one it went into; one that several targets reach counts
//! as far as the best of them came.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::shell;

/// The symbol that addresses are counted from.
const MARKER: &str = "memkv_fuzz_marker";

/// A function's edges: reached, and all.
type Edges = (u32, u32);

/// Prints, for every file of the project, how many of its edges the targets' inputs reach; and, of files whose paths begin with
/// `unreached`, the functions that none reaches.
pub fn print(folder: &Path, binaries: &Path, targets: &[String], unreached: Option<&str>) -> Result<()> {
    let mut functions: BTreeMap<(String, String), Edges> = BTreeMap::new();
    for target in targets {
        let binary = binaries.join(target);
        let edges = edges(folder, &binary, target)?;
        for ((_, edges), place) in edges.iter().zip(places(&binary, &edges)?) {
            let known = functions.entry(place).or_default();
            known.0 = known.0.max(edges.0);
            known.1 = known.1.max(edges.1);
        }
    }
    if let Some(start) = unreached {
        let wanted = |file: &str| ours(file).is_some_and(|file| file.starts_with(start));
        for ((file, name), _) in functions.iter().filter(|((file, _), edges)| edges.0 == 0 && wanted(file)) {
            println!("not reached: {} {name}", ours(file).unwrap_or(file));
        }
    }
    let mut files: BTreeMap<&str, (Edges, Edges)> = BTreeMap::new();
    for ((file, _), edges) in &functions {
        let Some(file) = ours(file) else { continue };
        let (functions, sum) = files.entry(file).or_default();
        *functions = (functions.0 + u32::from(edges.0 > 0), functions.1 + 1);
        *sum = (sum.0 + edges.0, sum.1 + edges.1);
    }
    for (file, (functions, edges)) in files {
        println!(
            "{:>5} of {:>5} functions, {:>5} of {:>5} edges  {file}",
            functions.0, functions.1, edges.0, edges.1
        );
    }
    Ok(())
}

/// The path within the project, of a file that is the project's.
fn ours(file: &str) -> Option<&str> {
    let root = shell::root().to_str()?;
    let file = file.strip_prefix(root)?.trim_start_matches('/');
    // What the build script makes is in a folder with a name that changes.
    Some(match file.rsplit_once("/out/") {
        Some((_, generated)) => generated,
        None => file,
    })
}

/// Runs the corpus, and gives for each function its distance from the marker and its edges.
fn edges(folder: &Path, binary: &Path, target: &str) -> Result<Vec<(i64, Edges)>> {
    let mut command = Command::new(binary);
    command.args(["-runs=0", "-print_coverage=1"]).current_dir(folder);
    let corpora = [folder.join("corpus").join(target), folder.join("target/corpus").join(target)];
    command.args(corpora.iter().filter(|corpus| corpus.is_dir()));
    let output = command.output().with_context(|| format!("{target} cannot be run"))?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{target} fails on its corpus:\n{told}");
    let edges: Vec<_> = told.lines().filter_map(function).collect();
    ensure!(!edges.is_empty(), "{target} tells no coverage:\n{told}");
    Ok(edges)
}

/// A line such as `COVERED_FUNC: hits: 3 edges: 2/5 -1234 -1234:-1234`.
fn function(line: &str) -> Option<(i64, Edges)> {
    let words: Vec<&str> = line.split(' ').collect();
    let ["COVERED_FUNC:" | "UNCOVERED_FUNC:", "hits:", _, "edges:", edges, distance, ..] = words[..] else {
        return None;
    };
    let (reached, all) = edges.split_once('/')?;
    Some((distance.parse().ok()?, (reached.parse().ok()?, all.parse().ok()?)))
}

/// For each function, the file it is in and its name.
fn places(binary: &Path, functions: &[(i64, Edges)]) -> Result<Vec<(String, String)>> {
    let symbols = shell::output(Command::new("nm").arg(binary))?;
    let marker = symbols.lines().find_map(|line| {
        let address = line.strip_suffix(MARKER)?.split(' ').next()?;
        i64::from_str_radix(address, 16).ok()
    });
    let marker = marker.context("the binary has no marker")?;
    let mut command = Command::new("addr2line");
    command.args(["-C", "-f"]).arg("-e").arg(binary).stderr(Stdio::inherit());
    command.args(functions.iter().map(|(distance, _)| format!("{:#x}", marker + distance)));
    let told = shell::output(&mut command)?;
    let mut lines = told.lines();
    let place = || {
        let (name, place) = (lines.next()?, lines.next()?);
        let file = place.rsplit_once(':').map_or(place, |(file, _)| file);
        Some((file.to_owned(), name.to_owned()))
    };
    Ok(std::iter::from_fn(place).collect())
}
