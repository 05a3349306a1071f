//! Runs the cases of a suite, each in a child process, and judges what comes out.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::case::{Entry, Outcome, Stop};
use crate::child;
use crate::known::KnownFailures;
use crate::report::{CaseReport, FORMAT, Report, Totals, Verdict};
use crate::ticket::{Errand, Target, Ticket};

/// How to run a suite.
pub struct Options {
    pub seed: u64,
    /// Part of every name that is stored.
    pub run: String,
    /// A case that takes longer hangs.
    pub deadline: Duration,
    /// So many cases at the same time.
    pub jobs: usize,
    pub strict: bool,
    pub known: KnownFailures,
}

/// Runs `cases`, tells each as it ends, and reports them in their own order.
pub fn run(
    target: &Target,
    cases: &[Entry],
    options: &Options,
    tell: &(dyn Fn(&CaseReport) + Sync),
) -> Report {
    let (alone, together): (Vec<Entry>, Vec<Entry>) = cases.iter().partition(|case| case.alone);
    let mut reports = run_together(target, &together, options, tell);
    reports.extend(alone.iter().map(|case| {
        let report = run_case(target, case, options);
        tell(&report);
        report
    }));
    reports.sort_by_key(|report| cases.iter().position(|case| case.id == report.id));
    let totals = Totals::of(&reports);
    Report {
        format: FORMAT,
        suite: target.suite(),
        version: env!("CARGO_PKG_VERSION"),
        target: target.describe(),
        seed: options.seed,
        run: options.run.clone(),
        strict: options.strict,
        conforms: totals.conforms(options.strict),
        cases: reports,
        totals,
    }
}

fn run_together(
    target: &Target,
    cases: &[Entry],
    options: &Options,
    tell: &(dyn Fn(&CaseReport) + Sync),
) -> Vec<CaseReport> {
    let (next, reports) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, cases.len().max(1)) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = run_case(target, case, options);
                    let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
                    tell(&report);
                    reports.push(report);
                }
            });
        }
    });
    reports.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn run_case(target: &Target, case: &Entry, options: &Options) -> CaseReport {
    let started = Instant::now();
    let (outcome, output) = outcome(target, case, options);
    let known = options.known.reason(case.id);
    let (verdict, message) = match (outcome, known) {
        (Ok(()), None) => (Verdict::Passed, None),
        (Ok(()), Some(_)) => (Verdict::UnexpectedPass, None),
        (Err(Stop::Failed(why)), None) => (Verdict::Failed, Some(why)),
        (Err(Stop::Failed(why)), Some(_)) => (Verdict::KnownFailure, Some(why)),
        (Err(Stop::Skipped(why)), _) => (Verdict::Skipped, Some(why)),
    };
    CaseReport {
        id: case.id,
        level: case.level,
        requirements: case.requires,
        title: case.title,
        verdict,
        message,
        known: known.map(str::to_owned),
        output: (verdict == Verdict::Failed && !output.is_empty()).then_some(output),
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

fn outcome(target: &Target, case: &Entry, options: &Options) -> (Outcome, String) {
    let ticket = Ticket {
        target: target.clone(),
        seed: options.seed,
        run: options.run.clone(),
        case: case.id.to_owned(),
        errand: Errand::Case,
    };
    let deadline = Instant::now() + options.deadline;
    match child::start(&ticket).and_then(|child| child.finish(deadline)) {
        Ok(ended) => (ended.outcome(options.deadline), ended.output),
        Err(error) => (Err(Stop::Failed(format!("the case cannot be run: {error}"))), String::new()),
    }
}
