//! The links of the world, by number. A link lives until both ends dropped it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use memkv_transport::link::{End, Link, LinkOptions};

use crate::random::Random;

#[derive(Debug)]
pub struct Links {
    links: BTreeMap<usize, Link>,
    count: usize,
    random: Random,
    pub options: LinkOptions,
}

impl Links {
    pub fn new(options: LinkOptions, random: Random) -> Links {
        Links { links: BTreeMap::new(), count: 0, random, options }
    }

    pub fn open(&mut self) -> usize {
        let id = self.count;
        self.count += 1;
        self.links.insert(id, Link::new(self.random.next(), self.options));
        id
    }

    pub fn get_mut(&mut self, id: usize) -> Option<&mut Link> {
        self.links.get_mut(&id)
    }

    /// Breaks a link; both ends find out when they look.
    pub fn cut(&mut self, id: usize, now: Duration) {
        if let Some(link) = self.links.get_mut(&id) {
            link.cut(now);
        }
    }

    pub fn cut_all(&mut self, now: Duration) {
        self.links.values_mut().for_each(|link| link.cut(now));
    }

    /// A link that is open, chosen by a number.
    pub fn choose(&self, number: u64) -> Option<usize> {
        let count = self.links.len() as u64;
        self.links.keys().nth(number.checked_rem(count)? as usize).copied()
    }

    /// Nobody holds it any more.
    pub fn forget(&mut self, id: usize) {
        self.links.remove(&id);
    }

    pub fn next_arrival(&self, now: Duration) -> Option<Duration> {
        let ends = [End::Client, End::Server];
        self.links.values().flat_map(|link| ends.map(|end| link.next_arrival(end, now))).flatten().min()
    }
}

/// Writes from the front; how many bytes the link took. `None`: it is cut.
pub fn write_from(link: &mut Link, end: End, now: Duration, bytes: &mut VecDeque<u8>) -> Option<usize> {
    if bytes.is_empty() {
        return Some(0);
    }
    let count = link.write(end, now, bytes.make_contiguous()).ok()?;
    bytes.drain(..count);
    Some(count)
}
