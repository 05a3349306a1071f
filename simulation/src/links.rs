//! The lines of the world, by number: a link, who holds its ends, and what was sealed for it.
//!
//! A line lives until both ends let go of it. It remembers each sealed frame, so that a frame that a receiver gives out and that is
//! not the next one sealed is seen at once. A line may be meddled with: whole frames are repeated, dropped, or sent again
//! much later, as nobody without the keys can do better. A receiver has to notice every time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use memkv_transport::link::{Arrival, Cut, End, Link, LinkOptions};
use xxhash_rust::xxh3::Xxh3;

use crate::random::Random;

/// One in so many frames is meddled with, on lines that are.
const MEDDLED_WITH: u64 = 60;

#[derive(Debug)]
pub struct Links {
    lines: BTreeMap<usize, Line>,
    count: usize,
    random: Random,
    pub options: LinkOptions,
    /// Whether somebody meddles with frames.
    pub meddled: bool,
}

#[derive(Debug)]
pub struct Line {
    link: Link,
    server: usize,
    seat: usize,
    meddled: bool,
    random: Random,
    /// By sender: the frames that the other end has not taken yet.
    sealed: [VecDeque<u64>; 2],
    /// The first frame each end sent, to be sent again.
    first: [Vec<u8>; 2],
    released: [bool; 2],
}

fn index(end: End) -> usize {
    match end {
        End::Client => 0,
        End::Server => 1,
    }
}

impl Links {
    pub fn new(options: LinkOptions, random: Random) -> Links {
        Links { lines: BTreeMap::new(), count: 0, random, options, meddled: false }
    }

    /// A line between a seat and a server.
    pub fn open(&mut self, seat: usize, server: usize) -> usize {
        let id = self.count;
        self.count += 1;
        let line = Line {
            link: Link::new(self.random.next(), self.options),
            server,
            seat,
            meddled: self.meddled,
            random: self.random.fork(),
            sealed: Default::default(),
            first: Default::default(),
            released: [false; 2],
        };
        self.lines.insert(id, line);
        id
    }

    pub fn get_mut(&mut self, id: usize) -> Option<&mut Line> {
        self.lines.get_mut(&id)
    }

    /// One end is done with a line; the other finds out when it looks.
    pub fn release(&mut self, id: usize, end: End, now: Duration) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.link.cut(now);
            line.released[index(end)] = true;
            if line.released == [true; 2] {
                self.lines.remove(&id);
            }
        }
    }

    /// Breaks a line; both ends find out when they look.
    pub fn cut(&mut self, id: usize, now: Duration) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.link.cut(now);
        }
    }

    pub fn cut_all(&mut self, now: Duration) {
        self.lines.values_mut().for_each(|line| line.link.cut(now));
    }

    /// A process died: its ends are let go.
    pub fn release_all(&mut self, end: End, of: usize, now: Duration) {
        let whose = |line: &Line| if end == End::Server { line.server } else { line.seat };
        let ids: Vec<usize> =
            self.lines.iter().filter(|(_, line)| whose(line) == of).map(|(id, _)| *id).collect();
        ids.into_iter().for_each(|id| self.release(id, end, now));
    }

    /// A line, chosen by a number.
    pub fn choose(&self, number: u64) -> Option<usize> {
        let count = self.lines.len() as u64;
        self.lines.keys().nth(number.checked_rem(count)? as usize).copied()
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// When something arrives next at an end that looks. A server does not look before the time `looks` tells.
    pub fn next_arrival(&self, now: Duration, looks: impl Fn(usize) -> Duration) -> Option<Duration> {
        let ends = [End::Client, End::Server];
        let arrivals = |line: &Line| {
            let waiting = ends.into_iter().filter(|end| !line.released[index(*end)]);
            let arrival = |end| {
                let arrival = line.link.next_arrival(end, now);
                arrival.map(|at| if end == End::Server { at.max(looks(line.server)) } else { at })
            };
            waiting.filter_map(arrival).min()
        };
        self.lines.values().filter_map(arrivals).min()
    }
}

impl Line {
    pub fn read(&mut self, end: End, now: Duration, space: &mut [u8]) -> Result<Arrival, Cut> {
        self.link.read(end, now, space)
    }

    /// Writes from the front; how many bytes the link took. `None`: it is cut.
    pub fn write_from(&mut self, end: End, now: Duration, bytes: &mut VecDeque<u8>) -> Option<usize> {
        if bytes.is_empty() {
            return Some(0);
        }
        let count = self.link.write(end, now, bytes.as_slices().0).ok()?;
        bytes.drain(..count);
        Some(count)
    }

    /// A frame was sealed: what of it is to be written.
    pub fn sealed<'a>(
        &mut self,
        end: End,
        frame: u64,
        slices: impl Iterator<Item = &'a [u8]>,
        unsent: &mut VecDeque<u8>,
    ) {
        self.sealed[index(end)].push_back(frame);
        if !self.meddled {
            return slices.for_each(|slice| unsent.extend(slice));
        }
        let bytes: Vec<u8> = slices.flatten().copied().collect();
        if self.first[index(end)].is_empty() {
            self.first[index(end)] = bytes.clone();
        }
        match self.random.below(3 * MEDDLED_WITH) {
            0 => {}
            1 => {
                unsent.extend(&bytes);
                unsent.extend(&bytes);
            }
            2 => {
                unsent.extend(&self.first[index(end)]);
                unsent.extend(&bytes);
            }
            _ => unsent.extend(&bytes),
        }
    }

    /// A receiver gave out a frame. False: it is not the next one that the other end sealed.
    pub fn received(&mut self, end: End, frame: u64) -> bool {
        self.sealed[index(end.peer())].pop_front() == Some(frame)
    }
}

/// What tells one frame from another.
pub fn fingerprint<'a>(
    request_id: u32,
    last: bool,
    control: &[u8],
    payload: impl IntoIterator<Item = &'a [u8]>,
) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&request_id.to_le_bytes());
    hasher.update(&[u8::from(last)]);
    hasher.update(control);
    payload.into_iter().for_each(|part| hasher.update(part));
    hasher.digest()
}
