//! `memkv drive check`: reads a store that no server uses, each drive by a thread of its own.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::target::Found;
use super::{Args, DriveError};
use crate::io::{Absent, Device, Devices};
use crate::probe::{ReadOnly, Sharing, is_in_use};
use crate::store::check::{Check, Findings, Problem, Summary};
use crate::store::{Config, ExtentPlan};

/// Problems told in words; JSON has them all.
const TOLD_MAX: usize = 100;

/// Whether all holds.
pub fn run(args: &Args) -> Result<bool, DriveError> {
    let found = args.target.find()?;
    let mut devices = open(&found)?;
    let config = Config { server_id: found.id.map(|id| id.0), ..Config::default() };
    let check = Check::open(config, &mut devices)?;
    let bar = progress(u64::from(check.extents()));
    let findings = read(&check, &devices, &found.drives, &bar)?;
    bar.finish_and_clear();
    let summary = check.finish(findings);
    if args.json {
        writeln!(io::stdout(), "{:#}", json_of(&summary, &found.drives))?;
    } else {
        io::stdout().write_all(in_words(&summary, &found.drives).as_bytes())?;
    }
    Ok(summary.problems.is_empty())
}

/// For this process alone: what a server writes meanwhile would look like damage.
fn open(found: &Found) -> Result<Devices, DriveError> {
    let mut devices: Vec<Arc<dyn Device>> = Vec::with_capacity(found.drives.len());
    for path in &found.drives {
        match ReadOnly::open(path, Sharing::Nobody) {
            Ok(drive) => devices.push(Arc::new(drive)),
            Err(error) if is_in_use(&error) => return Err(DriveError::InUse { path: path.clone() }),
            // One that is gone is a finding, as it is for a server.
            Err(error) => devices.push(Arc::new(Absent(error.into()))),
        }
    }
    Ok(Devices::new(devices))
}

fn progress(extents: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(extents);
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} extents, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Reads and verifies every extent in which something lives.
fn read(
    check: &Check,
    devices: &Devices,
    paths: &[PathBuf],
    bar: &ProgressBar,
) -> Result<Vec<Findings>, DriveError> {
    let ranges = check.extents_by_device();
    std::thread::scope(|scope| {
        let mut readers = Vec::with_capacity(ranges.len());
        for (slot, range) in ranges {
            let read = move || -> Vec<Findings> {
                let found = range.filter_map(|extent| {
                    bar.inc(1);
                    check.plan(extent).map(|plan| read_extent(check, devices, &plan))
                });
                found.flatten().collect()
            };
            readers.push((slot, scope.spawn(read)));
        }
        let mut findings = Vec::new();
        for (slot, reader) in readers {
            let path = || paths.get(slot as usize).cloned().unwrap_or_default();
            findings.extend(reader.join().map_err(|_| DriveError::Reader { path: path() })?);
        }
        Ok(findings)
    })
}

fn read_extent(check: &Check, devices: &Devices, plan: &ExtentPlan) -> Vec<Findings> {
    let mut bytes = vec![0; plan.length];
    let result = devices.device(plan.device).and_then(|device| device.read(plan.offset, &mut bytes));
    match result {
        Ok(()) => vec![check.verify(plan, &bytes)],
        Err(error) if plan.records() <= 1 => vec![check.unreadable(plan, error)],
        Err(_) => plan.split().iter().flat_map(|part| read_extent(check, devices, part)).collect(),
    }
}

fn name(problem: &Problem, paths: &[PathBuf]) -> Option<String> {
    let path: &Path = paths.get(usize::from(problem.device()?))?;
    Some(path.display().to_string())
}

fn in_words(summary: &Summary, paths: &[PathBuf]) -> String {
    let mut text = String::new();
    for problem in summary.problems.iter().take(TOLD_MAX) {
        let place = name(problem, paths).map(|name| format!("{name}: ")).unwrap_or_default();
        text += &format!("{place}{problem}\n");
    }
    let untold = summary.problems.len().saturating_sub(TOLD_MAX);
    if untold > 0 {
        text += &format!("and {untold} more: --json has them all\n");
    }
    let opening = &summary.opening;
    text += &format!(
        "{} values and {} manifests in {} extents, {} records verified\n",
        opening.values, opening.manifests, summary.extents, summary.records
    );
    if !opening.clean {
        text += &format!(
            "the store was not closed in good order: {} records and {} manifests were cut off and count for nothing\n",
            opening.torn_records, opening.manifests_dropped
        );
    }
    text + &match summary.problems.len() {
        0 => "all holds\n".to_owned(),
        1 => "1 problem\n".to_owned(),
        count => format!("{count} problems\n"),
    }
}

fn json_of(summary: &Summary, paths: &[PathBuf]) -> Value {
    let problem =
        |problem: &Problem| json!({ "drive": name(problem, paths), "problem": problem.to_string() });
    let opening = &summary.opening;
    json!({
        "holds": summary.problems.is_empty(),
        "clean": opening.clean,
        "values": opening.values,
        "manifests": opening.manifests,
        "extents": summary.extents,
        "records": summary.records,
        "bytes": summary.bytes,
        "torn_records": opening.torn_records,
        "manifests_dropped": opening.manifests_dropped,
        "problems": summary.problems.iter().map(problem).collect::<Vec<_>>(),
    })
}
