//! How much of the project's code the corpora reach, file by file.
//!
//! What is counted are lines at which a block of code begins: where the code branches, or goes on after it did. One is reached
//! when an input of any target reaches a block that begins there; the check for an overflow, whose failing side only a bug would
//! reach, stands on the line of the sum itself and takes nothing away. libFuzzer tells the blocks by their addresses, `nm` and
//! `addr2line` (Debian: binutils) say where they stand. A function that was inlined counts in its own file. Code that no target
//! uses was left out by the linker, or is of a type that no target has: it is not counted.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::shell;

/// The symbol that addresses are counted from.
const MARKER: &str = "memkv_fuzz_marker";

/// A source file's lines at which a block begins, and whether it is reached.
type Lines = BTreeMap<u32, bool>;

/// A block, told by its distance from the marker, and whether it is reached.
type Block = (i64, bool);

/// Prints, for every file of the project, how many of its lines the targets' inputs reach; and, in files whose names begin
/// with `unreached`, the lines that none does.
pub fn print(folder: &Path, binaries: &Path, targets: &[String], unreached: Option<&str>) -> Result<()> {
    let mut files: BTreeMap<PathBuf, Lines> = BTreeMap::new();
    for target in targets {
        let binary = binaries.join(target);
        let blocks = blocks(folder, &binary, target)?;
        for ((file, line), reached) in places(&binary, &blocks)? {
            *files.entry(file).or_default().entry(line).or_default() |= reached;
        }
    }
    for (path, lines) in &files {
        let Some(name) = name(path) else { continue };
        let reached = lines.values().filter(|reached| **reached).count();
        println!("{reached:>5} of {:>5} lines  {name}", lines.len());
        if unreached.is_some_and(|start| name.starts_with(start)) {
            print_unreached(path, lines)?;
        }
    }
    Ok(())
}

fn print_unreached(path: &Path, lines: &Lines) -> Result<()> {
    let source = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let source: Vec<&str> = source.lines().collect();
    for (line, _) in lines.iter().filter(|(_, reached)| !**reached) {
        let text = source.get(*line as usize - 1).copied().unwrap_or_default();
        println!("{line:>9}: {}", text.trim());
    }
    Ok(())
}

/// What a file of the project is called here; none for other people's.
fn name(path: &Path) -> Option<String> {
    let name = path.strip_prefix(shell::root()).ok()?.to_str()?;
    // What the build script makes is in a folder with a name that changes.
    Some(match name.rsplit_once("/out/") {
        Some((_, generated)) => format!("gen/golden/{generated}"),
        None => name.to_owned(),
    })
}

/// Runs the corpus, committed and found, and tells of each block whether it was reached.
fn blocks(folder: &Path, binary: &Path, target: &str) -> Result<Vec<Block>> {
    let mut command = Command::new(binary);
    command.args(["-runs=0", "-print_full_coverage=1"]).current_dir(folder);
    let corpora = [folder.join("corpus").join(target), folder.join("target/corpus").join(target)];
    command.args(corpora.iter().filter(|corpus| corpus.is_dir()));
    let output = command.output().with_context(|| format!("{target} cannot be run"))?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{target} fails on its corpus:\n{told}");
    let blocks: Vec<Block> = told.lines().flat_map(function).collect();
    ensure!(!blocks.is_empty(), "{target} tells no coverage:\n{told}");
    Ok(blocks)
}

/// One half of what libFuzzer says of a function: `C -1234 -1200` is what was reached, `U ...` what was not.
fn function(line: &str) -> impl Iterator<Item = Block> {
    let reached = line.starts_with("C ");
    let distances = line.strip_prefix("C ").or_else(|| line.strip_prefix("U ")).unwrap_or_default();
    distances.split(' ').filter_map(move |distance| Some((distance.parse().ok()?, reached)))
}

/// Where each block stands: the innermost place in the project's code, if there is one.
fn places(binary: &Path, blocks: &[Block]) -> Result<Vec<((PathBuf, u32), bool)>> {
    let symbols = shell::output(Command::new("nm").arg(binary))?;
    let marker = symbols.lines().find_map(|line| {
        let address = line.strip_suffix(MARKER)?.split(' ').next()?;
        i64::from_str_radix(address, 16).ok()
    });
    let marker = marker.context("the binary has no marker")?;
    let mut addresses = tempfile::NamedTempFile::new()?;
    for (distance, _) in blocks {
        writeln!(addresses, "{:#x}", marker + distance)?;
    }
    let mut command = Command::new("addr2line");
    command.args(["--addresses", "--inlines", "--exe"]).arg(binary);
    let told = shell::output(command.stdin(Stdio::from(addresses.reopen()?)))?;
    // An address, then the place and, outwards, those that it was inlined into.
    let mut all = Vec::new();
    let mut of = blocks.iter();
    let mut reached = None;
    for line in told.lines() {
        if line.starts_with("0x") {
            reached = of.next().map(|(_, reached)| *reached);
        } else if let Some(block) = reached
            && let Some(place) = ours(line)
        {
            all.push((place, block));
            reached = None;
        }
    }
    Ok(all)
}

/// `/path/file.rs:12 (discriminator 3)`, in the project.
fn ours(line: &str) -> Option<(PathBuf, u32)> {
    let (file, line) = line.split(' ').next()?.rsplit_once(':')?;
    let file = PathBuf::from(file);
    let line = line.parse().ok().filter(|line| *line > 0)?;
    file.starts_with(shell::root()).then_some((file, line))
}
