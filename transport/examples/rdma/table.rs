//! What is measured, in which order, and how it is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use memkv_transport::rdma::Device;
use memkv_wire::checksum::BlockHasher;
use memkv_wire::mac::{BulkAlgorithm, BulkKey, Direction, Key, Schedule};

use crate::{Failure, apart, bare, own};

pub const ROUNDS: u32 = 1000;
pub const LARGE_SIZE_BYTES: usize = 1 << 20;
/// How often everything is measured.
const REPEATS: usize = 7;
/// What is read at once for MAC and checksum: it stays in cache for the second.
const STEP_SIZE_BYTES: usize = 64 << 10;

#[derive(Debug, Default)]
pub struct Options {
    pub json: bool,
    /// Only what has this in its name, and what that is compared with.
    pub only: String,
    /// Nothing that needs timers.
    pub no_timers: bool,
}

/// Who moves bytes: the far end moves them, from or to memory of the near one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Fetch,
    Put,
}

/// A bulk measurement.
#[derive(Clone, Copy, Debug)]
pub struct Bulk {
    pub way: Way,
    pub depth: usize,
    /// With MAC and checksum, made by one side and by the other.
    pub checked: bool,
}

/// Transfers that ended.
pub struct Moved {
    begun: Instant,
    pub count: usize,
}

impl Moved {
    pub const COUNT: usize = 96;

    pub fn begin() -> Moved {
        Moved { begun: Instant::now(), count: 0 }
    }

    pub fn is_done(&self) -> bool {
        self.count >= Moved::COUNT
    }

    /// MB/s.
    pub fn rate(&self) -> f64 {
        (self.count * LARGE_SIZE_BYTES) as f64 / self.begun.elapsed().as_secs_f64() / 1e6
    }
}

pub fn microseconds(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e6 / f64::from(ROUNDS)
}

/// Makes MAC and checksum of a payload.
pub fn look(key: &BulkKey, bytes: &[u8], checked: bool) {
    if !checked {
        return;
    }
    let (mut mac, mut sum) = (key.begin_region(), BlockHasher::new());
    for step in bytes.chunks(STEP_SIZE_BYTES) {
        mac.update(step);
        sum.update(step);
    }
    std::hint::black_box((mac.finish(), sum.finish()));
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
enum What {
    BareTasks,
    BareThreads,
    Stream,
    Frames,
    BareApart,
    FramesApart,
    BareBulk(Bulk),
    Bulk(Bulk),
    InFrames,
}

impl What {
    /// Whether it is set up as connections are.
    fn has_deadlines(self) -> bool {
        matches!(self, What::Frames | What::FramesApart | What::InFrames)
    }
}

struct Line {
    what: What,
    name: String,
    /// The lines of the verbs alone that it is held against: driven as it is and doing nothing with the bytes; and another.
    base: Option<usize>,
    peer: Option<usize>,
    found: Vec<f64>,
}

fn lines() -> Vec<Line> {
    let line =
        |what, name: &str, base, peer| Line { what, name: name.to_owned(), base, peer, found: Vec::new() };
    let mut lines = vec![
        line(What::BareTasks, "round trip, verbs alone, two tasks", None, None),
        line(What::BareThreads, "round trip, verbs alone, two threads that block", Some(0), None),
        line(What::Stream, "round trip, bytes over a queue pair", Some(0), Some(1)),
        line(What::Frames, "round trip, frames", Some(0), Some(1)),
        line(What::BareApart, "round trip, verbs alone, two processes that block", None, None),
        line(What::FramesApart, "round trip, frames between two processes", Some(4), None),
    ];
    for (way, verb) in [(Way::Fetch, "READ"), (Way::Put, "WRITE")] {
        for depth in [8, 16] {
            let at = lines.len();
            let bulk = |checked| Bulk { way, depth, checked };
            let name = |who: &str, what: &str| format!("1 MiB {verb}, {depth} at a time, {who}{what}");
            let with = ", MAC and checksum";
            lines.extend([
                line(What::BareBulk(bulk(false)), &name("verbs alone", ""), None, None),
                line(What::BareBulk(bulk(true)), &name("verbs alone", with), Some(at), None),
                line(What::Bulk(bulk(false)), &name("ours", ""), Some(at), None),
                line(What::Bulk(bulk(true)), &name("ours", with), Some(at), Some(at + 1)),
            ]);
        }
    }
    lines.push(line(What::InFrames, "1 MiB in frames, one at a time", Some(6), None));
    lines
}

async fn measure(what: What, device: &Arc<Device>, key: &BulkKey) -> Result<f64, Failure> {
    let sizes = own::frame_sizes()?;
    match what {
        What::BareTasks => bare::round_trip_of_tasks(device, sizes).await,
        What::BareThreads => bare::round_trip_of_threads(device, sizes).await,
        What::Stream => own::round_trip_of_bytes(device, sizes).await,
        What::Frames => own::round_trip_of_frames(device).await,
        What::BareApart => apart::round_trip_of_verbs(device, sizes),
        What::FramesApart => apart::round_trip_of_frames(device).await,
        What::BareBulk(bulk) => bare::moved(device, bulk, key).await,
        What::Bulk(bulk) => own::moved(device, bulk, key).await,
        What::InFrames => own::rate_of_frames(device).await,
    }
}

pub async fn run(device: &Arc<Device>, options: &Options) -> Result<(), Failure> {
    let schedule = Schedule::new(&Key::from_bytes([7; 32]), b"C", b"R", 1);
    let key = schedule.bulk_key(Direction::ClientToServer, BulkAlgorithm::preference()[0]);
    let mut lines = lines();
    let named =
        |line: &Line| line.name.contains(&options.only) && !(options.no_timers && line.what.has_deadlines());
    let wanted: Vec<bool> = lines.iter().map(named).collect();
    for _ in 0..REPEATS {
        for line in lines.iter_mut().zip(&wanted).filter_map(|(line, wanted)| wanted.then_some(line)) {
            line.found.push(measure(line.what, device, &key).await?);
        }
    }
    let (there, back) = own::frame_sizes()?;
    if options.json {
        println!("{}", json(&lines));
        return Ok(());
    }
    println!("messages of {there} and {back} bytes; medians of {REPEATS}, with the least and the most");
    println!("{:<62} {:>8} {:>8} {:>8}  of the verbs' first and second line", "", "median", "least", "most");
    for line in lines.iter().filter(|line| !line.found.is_empty()) {
        let [median, least, most] = spread(&line.found);
        let unit = if line.is_time() { "µs" } else { "MB/s" };
        let ratio = |to: Option<usize>| line.ratio(&lines, to).map_or(String::new(), |of| format!("{of:.2}"));
        let (base, peer) = (ratio(line.base), ratio(line.peer));
        println!("{:<57} {unit:>4} {median:>8.1} {least:>8.1} {most:>8.1}  {base} {peer}", line.name);
    }
    Ok(())
}

impl Line {
    fn is_time(&self) -> bool {
        self.name.starts_with("round trip")
    }

    fn ratio(&self, lines: &[Line], to: Option<usize>) -> Option<f64> {
        let other = &lines.get(to?)?.found;
        (!other.is_empty() && !self.found.is_empty()).then(|| spread(&self.found)[0] / spread(other)[0])
    }
}

fn json(lines: &[Line]) -> serde_json::Value {
    let lines = lines.iter().filter(|line| !line.found.is_empty()).map(|line| {
        serde_json::json!({
            "name": line.name,
            "unit": if line.is_time() { "microseconds" } else { "megabytes per second" },
            "median": spread(&line.found)[0],
            "all": line.found,
            "of_the_verbs_first_line": line.ratio(lines, line.base),
            "of_the_verbs_second_line": line.ratio(lines, line.peer),
        })
    });
    lines.collect()
}

/// Median, least and most.
fn spread(found: &[f64]) -> [f64; 3] {
    let mut sorted = found.to_vec();
    sorted.sort_by(f64::total_cmp);
    [sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1]]
}
