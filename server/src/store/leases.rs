//! Leases: who may count on which value staying, and until when.
//!
//! A lease belongs to one client and one entry; taking it again only moves its end. Each client holds at most
//! `leases_per_client_max`, all of them at most `leases_max`: a peer chooses its client's number, and may choose many. The
//! owner of the entries tells when an entry is gone, so that no lease outlives it.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::Map;
use super::catalog::EntryId;
use super::types::{ClientId, Limit, StoreError};

#[derive(Default)]
pub struct Leases {
    until: Map<(EntryId, ClientId), u64>,
    holders: Map<EntryId, SmallVec<[ClientId; 1]>>,
    by_client: Map<ClientId, u32>,
    ends: BTreeSet<(u64, EntryId, ClientId)>,
    per_client_max: u32,
    max: usize,
}

impl Leases {
    pub fn new(per_client_max: u32, max: usize) -> Self {
        Self { per_client_max, max, ..Self::default() }
    }

    /// Leases an entry until then, or longer when it is already.
    pub fn take(&mut self, client: ClientId, entry: EntryId, until_ms: u64) -> Result<(), StoreError> {
        if let Some(until) = self.until.get_mut(&(entry, client)) {
            if *until < until_ms {
                self.ends.remove(&(*until, entry, client));
                self.ends.insert((until_ms, entry, client));
                *until = until_ms;
            }
            return Ok(());
        }
        let held = self.by_client.get(&client).copied().unwrap_or(0);
        if held >= self.per_client_max || self.until.len() >= self.max {
            return Err(StoreError::TooMany { what: Limit::Leases });
        }
        self.by_client.insert(client, held + 1);
        self.until.insert((entry, client), until_ms);
        self.holders.entry(entry).or_default().push(client);
        self.ends.insert((until_ms, entry, client));
        Ok(())
    }

    /// Leases all of these, or none that was not leased before: what is refused takes nobody's place.
    pub fn take_all(
        &mut self,
        client: ClientId,
        entries: impl Iterator<Item = EntryId>,
        until_ms: u64,
    ) -> Result<(), StoreError> {
        let mut taken = Vec::new();
        for entry in entries {
            let before = self.until.len();
            if let Err(error) = self.take(client, entry, until_ms) {
                taken.into_iter().for_each(|entry| self.drop_one(until_ms, entry, client));
                return Err(error);
            }
            if self.until.len() > before {
                taken.push(entry);
            }
        }
        Ok(())
    }

    pub fn is_leased(&self, entry: EntryId) -> bool {
        self.holders.contains_key(&entry)
    }

    /// When the last lease that is not this client's ends.
    pub fn held_by_others(&self, entry: EntryId, client: ClientId) -> Option<u64> {
        let holders = self.holders.get(&entry)?;
        holders.iter().filter(|holder| **holder != client).map(|holder| self.until[&(entry, *holder)]).max()
    }

    pub fn expire(&mut self, now_ms: u64) {
        while let Some(&(until, entry, client)) = self.ends.first() {
            if until > now_ms {
                return;
            }
            self.drop_one(until, entry, client);
        }
    }

    /// The entry is gone.
    pub fn forget(&mut self, entry: EntryId) {
        for client in self.holders.remove(&entry).unwrap_or_default() {
            let until = self.until[&(entry, client)];
            self.drop_one(until, entry, client);
        }
    }

    pub fn next_end(&self) -> Option<u64> {
        self.ends.first().map(|(until, ..)| *until)
    }

    /// What is leased.
    pub fn entries(&self) -> impl Iterator<Item = EntryId> + '_ {
        self.holders.keys().copied()
    }

    pub fn len(&self) -> usize {
        self.until.len()
    }

    fn drop_one(&mut self, until: u64, entry: EntryId, client: ClientId) {
        self.ends.remove(&(until, entry, client));
        self.until.remove(&(entry, client));
        if let Some(holders) = self.holders.get_mut(&entry) {
            holders.retain(|holder| *holder != client);
            if holders.is_empty() {
                self.holders.remove(&entry);
            }
        }
        if let Some(held) = self.by_client.get_mut(&client) {
            *held -= 1;
            if *held == 0 {
                self.by_client.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_end_are_counted_by_client_and_die_with_their_entry() {
        let mut leases = Leases::new(2, 100);
        let (a, b) = (ClientId(1), ClientId(2));
        leases.take(a, EntryId(1), 10).unwrap();
        leases.take(a, EntryId(2), 20).unwrap();
        assert_eq!(leases.take(a, EntryId(3), 20), Err(StoreError::TooMany { what: Limit::Leases }));
        leases.take(a, EntryId(1), 30).unwrap();
        leases.take(b, EntryId(1), 15).unwrap();
        assert_eq!(leases.held_by_others(EntryId(1), b), Some(30));
        leases.expire(20);
        assert_eq!(leases.held_by_others(EntryId(1), a), None);
        assert!(leases.is_leased(EntryId(1)) && !leases.is_leased(EntryId(2)));
        leases.forget(EntryId(1));
        assert_eq!((leases.len(), leases.next_end()), (0, None));
        leases.take(a, EntryId(3), 40).unwrap();
        leases.take(a, EntryId(4), 40).unwrap();
    }

    #[test]
    fn all_clients_together_hold_no_more_than_the_store_allows() {
        let mut leases = Leases::new(3, 4);
        let refused = Err(StoreError::TooMany { what: Limit::Leases });
        let entries = |range: std::ops::Range<u32>| range.map(EntryId);
        leases.take_all(ClientId(1), entries(0..3), 10).unwrap();
        assert_eq!(leases.take_all(ClientId(2), entries(0..2), 10), refused);
        assert_eq!((leases.len(), leases.by_client.len()), (3, 1), "a refused client holds none");
        leases.take(ClientId(2), EntryId(0), 20).unwrap();
        assert_eq!(leases.take(ClientId(3), EntryId(0), 20), refused);
        assert_eq!(leases.by_client.len(), 2, "nothing is remembered of whom was refused");
        // What is leased already may be leased for longer.
        leases.take_all(ClientId(1), entries(0..3), 30).unwrap();
        leases.expire(20);
        assert_eq!(leases.take_all(ClientId(3), [EntryId(5), EntryId(5)].into_iter(), 30), Ok(()));
        assert_eq!(leases.len(), 4);
    }
}
