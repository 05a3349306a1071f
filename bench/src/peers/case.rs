//! What is moved: values of one size, so many at a time, their bytes the same for everyone.

use std::time::Instant;

use anyhow::Result;

use super::process::own_cpu_seconds;

/// Values of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub name: &'static str,
    pub value_bytes: usize,
    /// Values under way at once.
    pub in_flight: usize,
    /// Values of one batched operation, where the peer has such.
    pub batch: usize,
    /// Values of the working set.
    pub count: usize,
}

const MIB: usize = 1 << 20;

pub const CASES: [Case; 4] = [
    Case { name: "4 KiB batched", value_bytes: 4096, in_flight: 256, batch: 64, count: 8192 },
    Case { name: "64 KiB x16", value_bytes: 64 << 10, in_flight: 16, batch: 1, count: 2048 },
    Case { name: "1 MiB x16", value_bytes: MIB, in_flight: 16, batch: 1, count: 128 },
    Case { name: "4 MiB x16", value_bytes: 4 * MIB, in_flight: 16, batch: 1, count: 32 },
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Write,
    Read,
}

impl Act {
    pub fn name(self) -> &'static str {
        match self {
            Act::Write => "write",
            Act::Read => "read",
        }
    }
}

/// Connections that carry bulk, of everyone who leaves the choice: as many as MemKV's client has by default.
pub const CONNECTIONS: usize = 2;

/// What was moved, and what it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    pub bytes: u64,
    pub seconds: f64,
    /// Of client and server.
    pub cpu_seconds: f64,
}

impl Sample {
    pub fn gb_per_s(&self) -> f64 {
        self.bytes as f64 / 1e9 / self.seconds
    }

    pub fn cpu_s_per_gb(&self) -> f64 {
        self.cpu_seconds / (self.bytes as f64 / 1e9)
    }

    pub fn add(&mut self, other: Sample) {
        self.bytes += other.bytes;
        self.seconds += other.seconds;
        self.cpu_seconds += other.cpu_seconds;
    }

    /// Runs what moves so many bytes; `servers` tells the processor time of the other side.
    pub fn of(bytes: u64, servers: impl Fn() -> f64, act: impl FnOnce() -> Result<()>) -> Result<Sample> {
        let (own, server, began) = (own_cpu_seconds(), servers(), Instant::now());
        act()?;
        let seconds = began.elapsed().as_secs_f64();
        Ok(Sample { bytes, seconds, cpu_seconds: own_cpu_seconds() - own + servers() - server })
    }
}

/// Someone who stores values.
pub trait Peer {
    fn name(&self) -> &'static str;

    /// Makes room for the values of a case, and writes them once.
    fn prepare(&mut self, case: &Case) -> Result<()>;

    /// Every value of the case once.
    fn pass(&mut self, case: &Case, act: Act) -> Result<Sample>;
}

/// Passes until they took so long.
pub fn measure(peer: &mut dyn Peer, case: &Case, act: Act, seconds: f64) -> Result<Sample> {
    let mut all = Sample::default();
    while all.seconds < seconds {
        all.add(peer.pass(case, act)?);
    }
    Ok(all)
}

/// Bytes that cannot be compressed (splitmix64).
pub fn noise(bytes: &mut [u8], seed: u64) {
    let mut state = seed;
    for word in bytes.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(z ^ z >> 31).to_le_bytes()[..word.len()]);
    }
}

/// The different values that everyone writes, over and over: 16 MiB of them.
pub fn contents(case: &Case) -> Vec<Vec<u8>> {
    let count = ((16 << 20) / case.value_bytes).clamp(1, 64);
    let content = |seed| {
        let mut bytes = vec![0; case.value_bytes];
        noise(&mut bytes, seed);
        bytes
    };
    (0..count as u64).map(content).collect()
}
