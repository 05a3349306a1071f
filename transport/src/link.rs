//! A byte link between two ends in virtual time, for seeded simulations.
//!
//! Owns the bytes in flight both ways and the faults that befall them. Invariants: the same seed, options and calls give
//! the same results, bit for bit; without faults every byte arrives once, in order, no earlier than its delay; the bytes in
//! flight one way never exceed the window. No thread, no socket, no clock: `now` comes from whoever asks, and never goes back.
//!
//! Corruption and duplication do what TCP's checksum lets through about never: they are here because a receiver must
//! refuse such bytes all the same.

use std::collections::VecDeque;
use std::time::Duration;

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Client,
    Server,
}

impl End {
    /// The other one.
    pub fn peer(self) -> End {
        match self {
            End::Client => End::Server,
            End::Server => End::Client,
        }
    }
}

/// How a link behaves. Chances are per segment, in parts of a million.
#[derive(Clone, Copy, Debug)]
pub struct LinkOptions {
    pub delay_min: Duration,
    pub delay_max: Duration,
    /// A write is torn into segments of 1 to so many bytes.
    pub segment_size_bytes_max: usize,
    /// The bytes in flight one way; more are not accepted.
    pub window_size_bytes_max: usize,
    /// One bit of the segment flips.
    pub corrupt_ppm: u32,
    /// The segment arrives twice.
    pub duplicate_ppm: u32,
    /// The link breaks when the segment would arrive.
    pub cut_ppm: u32,
}

impl LinkOptions {
    /// A link that delays and tears, but delivers every byte.
    pub fn reliable() -> LinkOptions {
        LinkOptions {
            delay_min: Duration::from_micros(20),
            delay_max: Duration::from_millis(2),
            segment_size_bytes_max: 64 * 1024,
            window_size_bytes_max: 256 * 1024,
            corrupt_ppm: 0,
            duplicate_ppm: 0,
            cut_ppm: 0,
        }
    }
}

/// The link broke. What was still in flight is lost, both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the link was cut")]
pub struct Cut;

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// So many bytes were put into the space; at least one.
    Bytes(usize),
    /// Nothing has arrived yet.
    Nothing,
    /// The peer closed its direction and everything before arrived.
    Closed,
}

/// A duplex link.
#[derive(Debug)]
pub struct Link {
    random: Random,
    options: LinkOptions,
    to_server: Pipe,
    to_client: Pipe,
    cut_at: Option<Duration>,
}

#[derive(Debug, Default)]
struct Pipe {
    segments: VecDeque<Segment>,
    in_flight_size_bytes: usize,
    /// Nothing overtakes: a segment is due no earlier than the one before.
    last_due: Duration,
    /// When the reader learns that nothing more comes.
    closed_at: Option<Duration>,
}

#[derive(Debug)]
struct Segment {
    due: Duration,
    bytes: Vec<u8>,
    read_size_bytes: usize,
}

impl Link {
    pub fn new(seed: u64, options: LinkOptions) -> Link {
        assert!(options.delay_min <= options.delay_max);
        assert!(options.segment_size_bytes_max > 0 && options.window_size_bytes_max > 0);
        Link {
            random: Random(seed),
            options,
            to_server: Pipe::default(),
            to_client: Pipe::default(),
            cut_at: None,
        }
    }

    /// Takes bytes from this end, as many as the window has room for; tells how many.
    pub fn write(&mut self, end: End, now: Duration, bytes: &[u8]) -> Result<usize, Cut> {
        self.check(now)?;
        let room =
            self.options.window_size_bytes_max.saturating_sub(self.pipe(end.peer()).in_flight_size_bytes);
        let accepted = &bytes[..bytes.len().min(room)];
        let mut rest = accepted;
        while !rest.is_empty() {
            let size_bytes = 1 + self.random.below(rest.len().min(self.options.segment_size_bytes_max));
            let (segment, behind) = rest.split_at(size_bytes);
            self.send(end, now, segment.to_vec());
            rest = behind;
        }
        Ok(accepted.len())
    }

    /// Gives this end what has arrived, or a part of it.
    pub fn read(&mut self, end: End, now: Duration, space: &mut [u8]) -> Result<Arrival, Cut> {
        let chance = self.random.next();
        let pipe = self.pipe(end);
        let Some(front) = pipe.segments.front_mut().filter(|front| front.due <= now) else {
            let closed = pipe.segments.is_empty() && pipe.closed_at.is_some_and(|closed_at| closed_at <= now);
            self.check(now)?;
            return Ok(if closed { Arrival::Closed } else { Arrival::Nothing });
        };
        if space.is_empty() {
            return Ok(Arrival::Nothing);
        }
        let arrived = &front.bytes[front.read_size_bytes..];
        let most = arrived.len().min(space.len());
        // Half of the reads are cut short.
        let count = if chance.is_multiple_of(2) { most } else { 1 + chance as usize / 2 % most };
        space[..count].copy_from_slice(&arrived[..count]);
        front.read_size_bytes += count;
        pipe.in_flight_size_bytes -= count;
        if front.read_size_bytes == front.bytes.len() {
            pipe.segments.pop_front();
        }
        Ok(Arrival::Bytes(count))
    }

    /// Says that this end writes no more.
    pub fn close(&mut self, end: End, now: Duration) {
        let pipe = self.pipe(end.peer());
        let closed_at = pipe.last_due.max(now);
        pipe.closed_at.get_or_insert(closed_at);
    }

    /// Breaks the link now.
    pub fn cut(&mut self, now: Duration) {
        self.cut_at = Some(self.cut_at.map_or(now, |cut_at| cut_at.min(now)));
        self.drop_lost();
    }

    /// When a read of this end will next find something that is not there `now`, if nothing else happens.
    pub fn next_arrival(&self, end: End, now: Duration) -> Option<Duration> {
        let pipe = match end {
            End::Client => &self.to_client,
            End::Server => &self.to_server,
        };
        let front = pipe.segments.front().map(|front| front.due.max(now));
        front
            .or(pipe.closed_at.filter(|at| *at > now))
            .into_iter()
            .chain(self.cut_at.filter(|at| *at > now))
            .min()
    }

    fn send(&mut self, end: End, now: Duration, mut bytes: Vec<u8>) {
        let spread = (self.options.delay_max - self.options.delay_min).as_nanos() as usize;
        let delay = self.options.delay_min + Duration::from_nanos(self.random.below(spread + 1) as u64);
        let due = self.pipe(end.peer()).last_due.max(now + delay);
        if self.random.happens(self.options.cut_ppm) {
            self.cut_at = Some(self.cut_at.map_or(due, |cut_at| cut_at.min(due)));
        }
        if self.random.happens(self.options.corrupt_ppm) {
            let bit = self.random.below(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        let copies = if self.random.happens(self.options.duplicate_ppm) { 2 } else { 1 };
        let pipe = self.pipe(end.peer());
        pipe.last_due = due;
        for _ in 0..copies {
            pipe.in_flight_size_bytes += bytes.len();
            pipe.segments.push_back(Segment { due, bytes: bytes.clone(), read_size_bytes: 0 });
        }
        self.drop_lost();
    }

    /// Drops what would arrive after the link broke.
    fn drop_lost(&mut self) {
        let Some(cut_at) = self.cut_at else { return };
        for pipe in [&mut self.to_client, &mut self.to_server] {
            pipe.segments.retain(|segment| segment.due < cut_at);
            pipe.in_flight_size_bytes =
                pipe.segments.iter().map(|segment| segment.bytes.len() - segment.read_size_bytes).sum();
        }
    }

    fn check(&self, now: Duration) -> Result<(), Cut> {
        if self.cut_at.is_some_and(|cut_at| cut_at <= now) { Err(Cut) } else { Ok(()) }
    }

    /// The direction that this end reads.
    fn pipe(&mut self, reader: End) -> &mut Pipe {
        match reader {
            End::Client => &mut self.to_client,
            End::Server => &mut self.to_server,
        }
    }
}

/// SplitMix64: small, seedable with anything, the same everywhere.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to one below the bound. The bias of the remainder does not matter here.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn happens(&mut self, ppm: u32) -> bool {
        self.next() % 1_000_000 < u64::from(ppm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `bytes` from the client and collects what the server gets, until nothing more can happen.
    fn transfer(link: &mut Link, bytes: &[u8]) -> (Vec<u8>, Duration, Result<(), Cut>) {
        let (mut now, mut sent, mut received) = (Duration::ZERO, 0, Vec::new());
        let mut space = [0; 5000];
        loop {
            if sent < bytes.len() {
                match link.write(End::Client, now, &bytes[sent..]) {
                    Ok(count) => sent += count,
                    Err(cut) => return (received, now, Err(cut)),
                }
                if sent == bytes.len() {
                    link.close(End::Client, now);
                }
            }
            match link.read(End::Server, now, &mut space) {
                Ok(Arrival::Bytes(count)) => received.extend_from_slice(&space[..count]),
                Ok(Arrival::Closed) => return (received, now, Ok(())),
                Ok(Arrival::Nothing) => {
                    now = link.next_arrival(End::Server, now).expect("something is in flight")
                }
                Err(cut) => return (received, now, Err(cut)),
            }
        }
    }

    fn message() -> Vec<u8> {
        (0..600_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 16) as u8).collect()
    }

    #[test]
    fn a_reliable_link_delivers_every_byte_in_order_and_late() {
        for seed in 0..20 {
            let (received, now, end) = transfer(&mut Link::new(seed, LinkOptions::reliable()), &message());
            assert_eq!(end, Ok(()));
            assert!(received == message());
            assert!(now >= LinkOptions::reliable().delay_min);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let options = LinkOptions {
            corrupt_ppm: 100_000,
            duplicate_ppm: 50_000,
            cut_ppm: 1000,
            ..LinkOptions::reliable()
        };
        let run = |seed| transfer(&mut Link::new(seed, options), &message());
        for seed in 0..20 {
            assert!(run(seed) == run(seed));
            assert!(run(seed) != run(seed + 1));
        }
    }

    #[test]
    fn every_fault_happens() {
        let clean = LinkOptions::reliable();
        let run = |options| transfer(&mut Link::new(1, options), &message());
        let (corrupted, _, _) = run(LinkOptions { corrupt_ppm: 200_000, ..clean });
        assert_eq!(corrupted.len(), message().len());
        assert!(corrupted != message());
        let (duplicated, _, _) = run(LinkOptions { duplicate_ppm: 200_000, ..clean });
        assert!(duplicated.len() > message().len());
        let (cut, _, end) = run(LinkOptions { cut_ppm: 200_000, ..clean });
        assert_eq!(end, Err(Cut));
        assert!(message().starts_with(&cut) && cut.len() < message().len());
    }

    #[test]
    fn a_full_window_takes_nothing() {
        let options = LinkOptions { window_size_bytes_max: 10, ..LinkOptions::reliable() };
        let mut link = Link::new(1, options);
        let now = Duration::ZERO;
        assert_eq!(link.write(End::Server, now, &[1; 100]), Ok(10));
        assert_eq!(link.write(End::Server, now, &[1; 100]), Ok(0));
        let due = link.next_arrival(End::Client, now).unwrap();
        let Ok(Arrival::Bytes(count)) = link.read(End::Client, due, &mut [0; 100]) else { panic!("due") };
        assert_eq!(link.write(End::Server, due, &[1; 100]), Ok(count));
        assert_eq!(link.write(End::Client, now, &[1; 100]), Ok(10), "the other way has its own window");
    }

    #[test]
    fn a_cut_loses_what_is_in_flight() {
        let mut link = Link::new(1, LinkOptions::reliable());
        assert_eq!(link.write(End::Client, Duration::ZERO, b"lost"), Ok(4));
        link.cut(Duration::from_micros(1));
        let later = Duration::from_secs(1);
        assert_eq!(link.read(End::Server, later, &mut [0; 10]), Err(Cut));
        assert_eq!(link.write(End::Client, later, b"more"), Err(Cut));
    }
}
