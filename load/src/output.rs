//! What every measurement is told about its output, and the progress bar.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub struct Output {
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Draw a chart, too.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
}

/// On standard error, and only if that is a terminal.
pub fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} [{elapsed} of about {duration}]");
    let bar = ProgressBar::new(steps as u64);
    // The template is one that is read: what is not shown for its sake would be the bar alone.
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
