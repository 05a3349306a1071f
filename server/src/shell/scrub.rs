//! Scrubbing: one thread that rereads what is stored at a bounded rate, pass after pass.
//!
//! A pass goes extent by extent: the service pins one, the thread reads and verifies it outside the lock, the service takes back
//! what was found. Where it came to is kept in the data directory, so that a pass outlives the process; what is lost of
//! that is only that some is read twice.
//!
//! In file mode the drive is read past the page cache where the file system lets one: what is in memory says nothing of what is on
//! the drive, and a pass does not push out of memory what is used.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use memkv_transport::buf::BufMut;
use serde::{Deserialize, Serialize};

use super::Shell;
use crate::config;
use crate::control::{self, Pass};
use crate::store::{Damage, ExtentPlan, IoError, ScrubCursor};

/// Read at a time, so that the rate is kept smooth.
const PIECE_BYTES: usize = 1 << 20;
/// How often the thread looks whether a pass is due.
const LOOK: Duration = Duration::from_secs(60);
/// How often a pass writes down how far it is.
const NOTE: Duration = Duration::from_secs(30);
const FILE: &str = "scrub.json";

pub struct Scrubber {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    shell: Arc<Shell>,
    settings: config::Scrub,
    /// Where progress is kept.
    file: Option<PathBuf>,
    /// Of file mode, by slot: shards opened so that reading goes to the drive.
    past_the_cache: Vec<Option<File>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    wanted: Wanted,
    running: bool,
    pass: Option<Pass>,
    cursor: ScrubCursor,
    next_unix_s: u64,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Wanted {
    #[default]
    WhenDue,
    Start,
    Stop,
    Close,
}

/// The file's contents.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Progress {
    next_unix_s: u64,
    pass: Option<Pass>,
    /// Of the pass, if it has not ended.
    device: u16,
    extent: u32,
}

fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Scrubber {
    /// `names`: the shards of file mode, by slot; none for other modes.
    pub fn start(
        shell: Arc<Shell>,
        settings: config::Scrub,
        directory: Option<PathBuf>,
        shards: &[String],
    ) -> std::io::Result<Scrubber> {
        let file = directory.map(|directory| directory.join(FILE));
        let next_unix_s = now_unix_s() + settings.every_s;
        let mut state = State { next_unix_s, ..State::default() };
        let kept = file.as_ref().and_then(|file| fs::read_to_string(file).ok());
        if let Some(progress) = kept.and_then(|text| serde_json::from_str::<Progress>(&text).ok()) {
            // The interval may have become shorter.
            state.next_unix_s = progress.next_unix_s.min(next_unix_s);
            state.pass = progress.pass;
            state.cursor = ScrubCursor { device: progress.device, extent: progress.extent };
            if let Some(pass) = state.pass.as_mut().filter(|pass| pass.ended_unix_s.is_none()) {
                match settings.periodic {
                    true => state.wanted = Wanted::Start,
                    false => pass.ended_unix_s = Some(now_unix_s()),
                }
            }
        }
        let past_the_cache = shards.iter().map(|shard| open_past_the_cache(shard)).collect();
        let shared = Arc::new(Shared {
            shell,
            settings,
            file,
            past_the_cache,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("scrub".into()).spawn(move || for_thread.run())?;
        Ok(Scrubber { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Begins a pass, if none is under way.
    pub fn begin(&self) {
        self.shared.want(Wanted::Start);
    }

    /// Ends a pass where it is; the next one begins anew.
    pub fn end(&self) {
        self.shared.want(Wanted::Stop);
    }

    /// Ends the thread. A pass under way goes on when the server is started again.
    pub fn close(&self) {
        self.shared.want(Wanted::Close);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the scrub thread failed");
        }
    }

    pub fn status(&self) -> control::Scrub {
        let state = self.shared.lock();
        let running = state.running || state.wanted == Wanted::Start;
        let next_unix_s = self.shared.settings.periodic.then_some(state.next_unix_s);
        control::Scrub { running, pass: state.pass, next_unix_s }
    }
}

#[cfg(target_os = "linux")]
fn open_past_the_cache(shard: &str) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().read(true).custom_flags(libc::O_DIRECT).open(shard).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_past_the_cache(_: &str) -> Option<File> {
    None
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, wanted: Wanted) {
        let mut state = self.lock();
        match (state.wanted, wanted) {
            (Wanted::Close, _) => {}
            (_, Wanted::Start) if state.running => {}
            (_, wanted) => state.wanted = wanted,
        }
        self.changed.notify_all();
    }

    fn run(&self) {
        loop {
            let mut state = self.lock();
            match state.wanted {
                Wanted::Close => return,
                Wanted::Stop => state.wanted = Wanted::WhenDue,
                Wanted::Start => self.begin(state),
                Wanted::WhenDue if self.settings.periodic && now_unix_s() >= state.next_unix_s => {
                    self.begin(state)
                }
                Wanted::WhenDue => {
                    drop(self.changed.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner));
                }
            }
        }
    }

    /// A pass from its beginning, or from where an earlier process left it, to its end.
    fn begin(&self, mut state: MutexGuard<'_, State>) {
        let number = state.pass.map_or(1, |pass| pass.number + 1);
        let left_off = state.pass.filter(|pass| pass.ended_unix_s.is_none());
        if left_off.is_none() {
            state.cursor = ScrubCursor::default();
        }
        let extents_expected = self.shell.with_service(|service, _| service.store().scrub_extents());
        let fresh = Pass { number, started_unix_s: now_unix_s(), extents_expected, ..Pass::default() };
        let pass = left_off.unwrap_or(fresh);
        (state.wanted, state.running, state.pass) = (Wanted::WhenDue, true, Some(pass));
        state.next_unix_s = pass.started_unix_s + self.settings.every_s;
        drop(state);
        tracing::info!(pass = pass.number, rate = %self.settings.rate, "a scrub goes through what is stored");
        let complete = self.pass();
        let mut state = self.lock();
        state.running = false;
        let closing = state.wanted == Wanted::Close;
        if let Some(pass) = &mut state.pass {
            if !closing {
                (pass.ended_unix_s, pass.complete) = (Some(now_unix_s()), complete);
            }
            let Pass { number, bytes, records, damaged, .. } = *pass;
            tracing::info!(pass = number, complete, bytes, records, damaged, "a scrub ended");
        }
        self.note(&state);
    }

    /// Whether it came to its end.
    fn pass(&self) -> bool {
        let (begun, mut read, mut noted) = (Instant::now(), 0, Instant::now());
        let mut cursor = self.lock().cursor;
        loop {
            let Some(plan) = self.shell.with_service(|service, _| service.scrub_next(&mut cursor)) else {
                return true;
            };
            let damage = self.verify(&plan, begun, &mut read);
            let stopped = damage.is_none();
            let damage = damage.unwrap_or_default();
            for damage in &damage {
                let drive = self.shell.drives.name(damage.device);
                let wrong = damage.wrong;
                tracing::warn!(drive, %wrong, "a record does not hold; its value is a miss");
            }
            self.shell.with_service(|service, now_ms| service.scrub_done(now_ms, &plan, &damage));
            if stopped {
                return false;
            }
            let mut state = self.lock();
            state.cursor = cursor;
            if let Some(pass) = &mut state.pass {
                pass.extents += 1;
                pass.bytes += plan.length as u64;
                pass.records += plan.records() as u64;
                pass.damaged += damage.len() as u64;
            }
            if noted.elapsed() >= NOTE {
                noted = Instant::now();
                self.note(&state);
            }
        }
    }

    /// Reads a plan and verifies it. What does not hold is read once more: it is the drive that is doubted, not this read.
    /// `None`: the pass is to end first.
    fn verify(&self, plan: &ExtentPlan, begun: Instant, read: &mut u64) -> Option<Vec<Damage>> {
        let first = self.verify_once(plan, begun, read)?;
        if first.is_empty() {
            return Some(first);
        }
        let second = self.verify_once(plan, begun, read)?;
        Some(second.into_iter().filter(|damage| first.contains(damage)).collect())
    }

    fn verify_once(&self, plan: &ExtentPlan, begun: Instant, read: &mut u64) -> Option<Vec<Damage>> {
        let Ok(mut bytes) = BufMut::unpooled(plan.length) else { return Some(Vec::new()) };
        match self.read(plan, &mut bytes, begun, read)? {
            Ok(()) => return Some(plan.verify(&bytes)),
            Err(error) if plan.records() == 1 => return Some(plan.unreadable(error)),
            Err(_) => {}
        }
        // Something among them cannot be read: one by one, to lose no more than that.
        let mut damage = Vec::new();
        for part in plan.split() {
            damage.extend(self.verify_once(&part, begun, read)?);
        }
        Some(damage)
    }

    /// Reads a plan's bytes, no faster than the rate. `None`: the pass is to end first.
    fn read(
        &self,
        plan: &ExtentPlan,
        into: &mut [u8],
        begun: Instant,
        read: &mut u64,
    ) -> Option<Result<(), IoError>> {
        let mut offset = plan.offset;
        for piece in into.chunks_mut(PIECE_BYTES) {
            if !self.wait_for_rate(begun, *read) {
                return None;
            }
            if let Err(error) = self.read_piece(plan.device, offset, piece) {
                return Some(Err(error));
            }
            offset += piece.len() as u64;
            *read += piece.len() as u64;
        }
        Some(Ok(()))
    }

    fn read_piece(&self, slot: u16, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        #[cfg(unix)]
        if let Some(Some(file)) = self.past_the_cache.get(slot as usize) {
            use std::os::unix::fs::FileExt;
            if file.read_exact_at(into, offset).is_ok() {
                return Ok(());
            }
        }
        self.shell.drives.read(slot, offset, into)
    }

    /// False: the pass is to end.
    fn wait_for_rate(&self, begun: Instant, read: u64) -> bool {
        let due = Duration::from_secs_f64(read as f64 / self.settings.rate.bytes() as f64);
        let mut state = self.lock();
        loop {
            if matches!(state.wanted, Wanted::Stop | Wanted::Close) {
                return false;
            }
            let Some(left) = due.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else {
                return true;
            };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Writes down how far the pass is. That it cannot be written costs a repetition after the next start.
    fn note(&self, state: &State) {
        let Some(file) = &self.file else { return };
        let ScrubCursor { device, extent } = state.cursor;
        let progress = Progress { next_unix_s: state.next_unix_s, pass: state.pass, device, extent };
        let aside = file.with_extension("json.new");
        let written = serde_json::to_string(&progress)
            .map_err(std::io::Error::from)
            .and_then(|text| fs::write(&aside, text))
            .and_then(|()| fs::rename(&aside, file));
        if let Err(error) = written {
            tracing::warn!(%error, file = %file.display(), "the progress of scrubbing cannot be kept");
        }
    }
}
