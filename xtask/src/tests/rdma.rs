//! The tests that need an RDMA device, each group in a guest of `tools/rdma` of its own.
//!
//! A guest has one processor, so as many guests run at a time as this machine has processors, up to [`GUESTS_MAX`], each kept on one.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use super::tally::{Skip, Tally};
use super::{Binary, Ended, Options, build, conclude, report, selection, succeeded, surround, watch};
use crate::shell;

/// Each may take what memory a guest has.
const GUESTS_MAX: usize = 2;

/// A package, one of its test targets, and what the names of its tests contain that need a device. The longest first.
struct Group(&'static str, &'static str, &'static str);

const GROUPS: &[Group] = &[
    Group("kv-store-memkv", "plugin", "rdma"),
    Group("memkv-conformance", "rdma", "the_plugin"),
    Group("memkv-server", "rdma", ""),
    Group("memkv-conformance", "rdma", "the_client"),
    Group("memkv-conformance", "rdma", "the_server"),
    Group("memkv-server", "operations", "over_rdma"),
    Group("kv-store-memkv", "llama", "rdma"),
    Group("memkv-transport", "rdma", ""),
    Group("memkv-bench", "cli", "rdma"),
];

/// Whether no test failed.
pub fn run(options: &Options) -> Result<bool> {
    let guest = shell::root().join("tools/rdma/guest");
    shell::run(Command::new(&guest).arg("--prepare"))?;
    // All of them, as for any other run: then nothing is built twice.
    let selection = selection(&[], options.release)?;
    shell::run(shell::cargo().arg("build").args(&selection))?;
    let binaries = build(&selection)?;
    build_llama(&binaries)?;
    let queue = Mutex::new(GROUPS.iter().collect::<VecDeque<_>>());
    let total = Mutex::new(Tally::default());
    let work = |processor: usize| -> Result<()> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(group) = next else { return Ok(()) };
            let (tally, ended) = group.run((&guest, processor), &binaries, options)?;
            // One at a time, or their lines would mix.
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            let Group(package, target, names) = group;
            print!("{package}::{target} {names} (rdma) ... ");
            total.add(report(tally, &ended, options));
        }
    };
    std::thread::scope(|scope| {
        let processors = processors()?.into_iter().take(GUESTS_MAX);
        let workers: Vec<_> = processors.map(|processor| scope.spawn(move || work(processor))).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(conclude(&total.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

impl Group {
    fn run(
        &self,
        (guest, processor): (&Path, usize),
        binaries: &[Binary],
        options: &Options,
    ) -> Result<(Tally, Ended)> {
        let Group(package, target, names) = self;
        let name = format!("{package}::{target}");
        let binary = binaries.iter().find(|binary| binary.name == name);
        let binary = binary.with_context(|| format!("there are no tests {name}"))?;
        let mut command = Command::new(guest);
        command.env("MEMKV_RDMA_PROCESSOR", processor.to_string()).arg(&binary.executable);
        surround(&mut command, binary);
        command.args(["--color", "never", "--show-output", names]);
        let ended = watch(command, options)?;
        let mut tally = Tally::of_binary(&name, &ended.output, succeeded(&ended));
        // A filter that matches nothing would be a group that cannot fail.
        if tally == Tally::default() {
            tally.failures.push(format!("{name}: no test has {names} in its name"));
        }
        let (promised, others): (Vec<Skip>, _) =
            tally.skips.drain(..).partition(|skip| skip.reason.starts_with("no RDMA device"));
        tally.skips = others;
        let promised = promised.into_iter().map(|skip| format!("{}: skipped: {}", skip.test, skip.reason));
        tally.failures.extend(promised);
        Ok((tally, ended))
    }
}

/// A guest has no network, so what the llama.cpp example is made of has to be there before.
fn build_llama(binaries: &[Binary]) -> Result<()> {
    let target = binaries.first().and_then(|binary| binary.executable.ancestors().nth(3));
    let directory = target.context("the tests are not where cargo puts them")?.join("llama");
    let script = shell::root().join("abi/examples/llama/build.sh");
    let status = Command::new("sh").arg(script).arg(directory).status()?;
    // 77: it cannot be made here, and the tests say so themselves.
    if !status.success() && status.code() != Some(77) {
        bail!("the llama.cpp example does not build: {status}");
    }
    Ok(())
}

/// The processors that this process may run on.
fn processors() -> Result<Vec<usize>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    parse(list.context("the kernel does not say which processors there are")?.trim())
}

/// `0-3,8`
fn parse(list: &str) -> Result<Vec<usize>> {
    let mut processors = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        processors.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(processors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(parse("0-2,8").unwrap(), [0, 1, 2, 8]);
        assert_eq!(parse("5").unwrap(), [5]);
        assert!(parse("").is_err() && parse("1-").is_err());
    }
}
