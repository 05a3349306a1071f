//! Staying awake, for a moment, for what is about to come.
//!
//! A thread that sleeps until its socket has something is back some ten microseconds after it has, in a virtual machine some fifty, on either
//! side of a round trip that takes twenty-five without that. So who has reason to expect something looks again and again for a while before it
//! sleeps. Between two looks the runtime's other tasks run, and all its sockets are looked at.
//!
//! What a wait took asleep says little of how long it would have taken awake: both sides' getting up is in it. So after a wait of up to
//! [`ASLEEP_WINDOWS`] windows the next is tried awake, for as long: whoever is awake when the other gets up answers at once, and from then
//! on waits are short. When [`TRIES`] in a row brought none that is, the next [`PAUSE`] are slept through.
//!
//! Invariants: a peer with other things to do costs one window, or a few in a hundred waits when these are little longer than a window; who is awake
//! gives way between two looks, and sleeps as soon as somebody else took that turn: on a busy processor, which
//! may be that of the peer, there is nothing to gain. Of all who share a [`Vigil`] one at a time is awake; where there is
//! a single processor nobody is.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use std::time::{Duration, Instant};

/// How long to stay awake unless somebody says otherwise: longer than a round trip on one host or in one rack, asleep, takes.
pub const SPIN_US_DEFAULT: u32 = 50;
/// The longest that may be asked for. Beyond it sleeping is no loss.
pub const SPIN_US_MAX: u32 = 1000;
/// A wait of so many windows, with two threads that get up in it, may be a short one when they are awake.
const ASLEEP_WINDOWS: u32 = 4;
/// So many waits in a row are tried.
const TRIES: u8 = 4;
/// So many are slept through after them.
const PAUSE: u8 = 96;
/// Who gives way for so long was not alone on its processor. Alone it takes well under a microsecond.
const TURN: Duration = Duration::from_micros(4);

/// What those share of whom one at a time may be awake.
#[derive(Clone, Debug)]
pub struct Vigil {
    window: Duration,
    taken: Arc<AtomicBool>,
}

impl Vigil {
    /// Each stays awake for so many microseconds, or four times as many when it tries; 0: nobody does.
    pub fn new(window_us: u32) -> Vigil {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let window_us = if processors > 1 { window_us.min(SPIN_US_MAX) } else { 0 };
        Vigil { window: Duration::from_micros(window_us.into()), taken: Arc::default() }
    }

    pub fn spin(&self) -> Spin {
        Spin {
            vigil: self.clone(),
            began: None,
            awake: false,
            tried: false,
            windows: 0,
            crowded: false,
            vain: 0,
            pause: 0,
        }
    }
}

/// Decides how the waits of one place are spent.
#[derive(Debug)]
pub struct Spin {
    vigil: Vigil,
    began: Option<Instant>,
    /// Whether the vigil is this one's now.
    awake: bool,
    /// Whether it was in this wait.
    tried: bool,
    /// For how many windows the next wait is worth being awake: one after a short wait, more to try, none otherwise.
    windows: u32,
    /// Whether the processor had something else to do since this wait began.
    crowded: bool,
    /// Waits in a row that were spent awake for nothing.
    vain: u8,
    /// Waits that are slept through before the next try.
    pause: u8,
}

impl Spin {
    /// A wait begins.
    pub fn begin(&mut self, now: Instant) {
        self.rest();
        (self.crowded, self.tried) = (false, false);
        self.began = Some(now);
    }

    /// Whether to look once more before sleeping. Who looks often [gives way](give_way) in between.
    pub fn goes_on(&mut self, now: Instant) -> bool {
        if self.crowded || !self.is_within(now, self.windows) {
            self.rest();
            return false;
        }
        self.awake = self.awake || !self.vigil.taken.swap(true, Ordering::Relaxed);
        self.tried |= self.awake;
        self.awake
    }

    /// It took so long until this thread had its processor again. Somebody else may want it: the one who is waited for, even.
    pub fn gave_way(&mut self, taken: Duration) {
        self.crowded |= taken >= TURN;
    }

    /// What was waited for is here.
    pub fn end(&mut self, now: Instant) {
        if self.began.is_none() {
            return;
        }
        if self.is_within(now, 1) {
            (self.windows, self.vain, self.pause) = (1, 0, 0);
        } else {
            self.vain += u8::from(self.tried && !self.crowded);
            if self.vain == TRIES {
                (self.vain, self.pause) = (0, PAUSE);
            }
            let tries = self.pause == 0 && self.is_within(now, ASLEEP_WINDOWS);
            self.windows = if tries { ASLEEP_WINDOWS } else { 0 };
            self.pause = self.pause.saturating_sub(1);
        }
        self.began = None;
        self.rest();
    }

    /// Leaves it to others to be awake.
    pub fn rest(&mut self) {
        if std::mem::take(&mut self.awake) {
            self.vigil.taken.store(false, Ordering::Relaxed);
        }
    }

    /// Whether this wait has taken less than so many windows.
    fn is_within(&self, now: Instant, windows: u32) -> bool {
        self.began.is_some_and(|began| now.saturating_duration_since(began) < self.vigil.window * windows)
    }

    /// Waits for a future, the first moments awake if `may`. Must be called inside a runtime.
    pub async fn wait_if<F: Future>(&mut self, may: bool, future: F) -> F::Output {
        if !may {
            return future.await;
        }
        let mut future = pin!(future);
        let mut has_looked = false;
        self.begin(Instant::now());
        let output = poll_fn(|context| {
            let polled = future.as_mut().poll(context);
            if polled.is_pending() && self.goes_on(Instant::now()) {
                // This runtime's own tasks come first: one of them may have the answer that the peer waits for.
                if has_looked {
                    self.gave_way(give_way());
                }
                has_looked = true;
                look_again(context);
            }
            polled
        })
        .await;
        self.end(Instant::now());
        output
    }
}

impl Drop for Spin {
    fn drop(&mut self) {
        self.rest();
    }
}

/// Gives others their turn at this thread's processor; tells how long that took.
pub fn give_way() -> Duration {
    let began = Instant::now();
    std::thread::yield_now();
    began.elapsed()
}

/// Has the task polled again once the runtime has looked at its other tasks and its sockets.
fn look_again(context: &mut Context<'_>) {
    // The first poll registers the task and is all that is needed.
    let _ = pin!(tokio::task::yield_now()).poll(context);
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    const WINDOW: Duration = Duration::from_micros(50);

    /// As with several processors, wherever the test runs.
    fn vigil() -> Vigil {
        Vigil { window: WINDOW, taken: Arc::default() }
    }

    /// Waits for so long, looking twice; tells whether it was awake at each look.
    fn waits(spin: &mut Spin, now: &mut Instant, wait: Duration) -> [bool; 2] {
        spin.begin(*now);
        let first = spin.goes_on(*now);
        *now += wait;
        let second = spin.goes_on(*now);
        spin.end(*now);
        [first, second]
    }

    #[test]
    fn a_wait_is_awake_after_a_short_one_and_for_the_window() {
        let (mut spin, mut now) = (vigil().spin(), Instant::now());
        let (short, long) = (WINDOW / 2, WINDOW * 20);
        assert_eq!(waits(&mut spin, &mut now, short), [false, false], "nothing is known yet");
        assert_eq!(waits(&mut spin, &mut now, short), [true, true]);
        assert_eq!(waits(&mut spin, &mut now, long), [true, false], "no longer than the window");
        assert_eq!(waits(&mut spin, &mut now, long), [false, false]);
        assert_eq!(waits(&mut spin, &mut now, short), [false, false]);
        assert_eq!(waits(&mut spin, &mut now, short), [true, true]);
    }

    /// As when both sides sleep, and are slow to get up.
    #[test]
    fn a_longer_wait_is_tried_awake_now_and_then() {
        let (mut spin, mut now) = (vigil().spin(), Instant::now());
        let slow = WINDOW * 3;
        assert_eq!(waits(&mut spin, &mut now, slow), [false, false], "nothing is known yet");
        for _ in 0..3 {
            for _ in 0..TRIES {
                assert_eq!(waits(&mut spin, &mut now, slow), [true, true]);
            }
            for _ in 0..PAUSE {
                assert_eq!(waits(&mut spin, &mut now, slow), [false, false]);
            }
        }
        // The peer tries, too.
        assert_eq!(waits(&mut spin, &mut now, WINDOW / 2), [true, true]);
        assert_eq!(waits(&mut spin, &mut now, WINDOW / 2), [true, true]);
        assert_eq!(waits(&mut spin, &mut now, slow), [true, false], "no longer than the window");
        for _ in 1..TRIES {
            assert_eq!(waits(&mut spin, &mut now, slow), [true, true]);
        }
        assert_eq!(waits(&mut spin, &mut now, slow), [false, false]);
        assert_eq!(waits(&mut spin, &mut now, WINDOW / 2), [false, false]);
        assert_eq!(
            waits(&mut spin, &mut now, WINDOW / 2),
            [true, true],
            "what was short says more than what was tried"
        );
    }

    #[test]
    fn one_at_a_time_is_awake() {
        let vigil = vigil();
        let (mut first, mut second, mut now) = (vigil.spin(), vigil.spin(), Instant::now());
        for spin in [&mut first, &mut second] {
            waits(spin, &mut now, WINDOW / 2);
            spin.begin(now);
        }
        assert!(first.goes_on(now) && !second.goes_on(now) && first.goes_on(now));
        first.end(now);
        assert!(second.goes_on(now), "the other is done");
        first.begin(now);
        assert!(!first.goes_on(now));
        drop(second);
        assert!(first.goes_on(now), "the other is gone");
        assert!(!first.goes_on(now + WINDOW));
        assert!(!vigil.taken.load(Ordering::Relaxed), "nobody is awake after the window");
    }

    #[test]
    fn without_a_window_nobody_is_awake() {
        let (mut spin, mut now) = (Vigil::new(0).spin(), Instant::now());
        for _ in 0..3 {
            assert_eq!(waits(&mut spin, &mut now, Duration::ZERO), [false, false]);
        }
    }

    #[test]
    fn who_had_to_wait_for_the_processor_sleeps() {
        let (mut spin, mut now) = (vigil().spin(), Instant::now());
        waits(&mut spin, &mut now, WINDOW / 2);
        spin.begin(now);
        assert!(spin.goes_on(now));
        spin.gave_way(TURN / 2);
        assert!(spin.goes_on(now));
        spin.gave_way(TURN);
        spin.gave_way(Duration::ZERO);
        assert!(!spin.goes_on(now));
        spin.end(now);
        assert_eq!(waits(&mut spin, &mut now, WINDOW / 2), [true, true], "the next wait is another matter");
    }

    /// What is there only once another task ran is found, without a timer or a socket to wake anybody.
    #[tokio::test]
    async fn other_tasks_run_between_two_looks() {
        let done = Arc::new(AtomicBool::new(false));
        let other = Arc::clone(&done);
        tokio::spawn(async move { other.store(true, Ordering::Relaxed) });
        poll_fn(|context| match done.load(Ordering::Relaxed) {
            true => Poll::Ready(()),
            false => {
                look_again(context);
                Poll::Pending
            }
        })
        .await;
    }
}
