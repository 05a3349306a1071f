//! What may be true of the store, from what the client was told.
//!
//! Owns the possible states of every name, and the chunks that must be there. Operations on one name follow one another;
//! one whose outcome is not known leaves two possibilities. Generations rise with versions, so that a late attempt never
//! undoes a later version; only after a delete may a late one come back.

use std::collections::{BTreeMap, BTreeSet};

use crate::content::{ChunkId, Version};

pub type Name = u8;

#[derive(Debug, Default)]
pub struct Model {
    names: BTreeMap<Name, Possible>,
    /// Written and acknowledged, and nothing happened since that may remove them; by the number of the acknowledgement.
    chunks: BTreeMap<ChunkId, u64>,
    acknowledgements: u64,
}

/// The states that a name may be in. `None` is absent.
#[derive(Debug)]
struct Possible {
    states: BTreeSet<Option<Version>>,
    /// Puts whose outcome is unknown and that may still happen.
    late: BTreeSet<Version>,
}

impl Default for Possible {
    fn default() -> Possible {
        Possible { states: BTreeSet::from([None]), late: BTreeSet::new() }
    }
}

impl Model {
    pub fn put_acknowledged(&mut self, name: Name, version: Version) {
        let possible = self.names.entry(name).or_default();
        possible.states = BTreeSet::from([Some(version)]);
        possible.late.retain(|late| *late > version);
    }

    pub fn put_unknown(&mut self, name: Name, version: Version) {
        let possible = self.names.entry(name).or_default();
        possible.states.insert(Some(version));
        possible.late.insert(version);
    }

    pub fn delete_acknowledged(&mut self, name: Name) {
        let possible = self.names.entry(name).or_default();
        possible.states = possible.late.iter().copied().map(Some).chain([None]).collect();
    }

    pub fn delete_unknown(&mut self, name: Name) {
        self.names.entry(name).or_default().states.insert(None);
    }

    /// The server died, and every request with it: what did not happen will not.
    pub fn server_died(&mut self) {
        self.names.values_mut().for_each(|possible| possible.late.clear());
    }

    /// The client saw this state. An error says what it should have been.
    pub fn seen(&mut self, name: Name, state: Option<Version>) -> Result<(), String> {
        let possible = self.names.entry(name).or_default();
        if !possible.states.contains(&state) {
            return Err(format!("name {name} is {state:?}, but may only be {:?}", possible.states));
        }
        // A late put of an earlier version is refused; after a delete nothing is left to be compared with.
        possible.late.retain(|late| state.is_none_or(|version| *late > version));
        possible.states = possible.late.iter().copied().map(Some).chain([state]).collect();
        Ok(())
    }

    /// Whether nobody but the one who asks may change the name.
    pub fn is_settled(&self, name: Name) -> bool {
        self.names.get(&name).is_none_or(|possible| possible.late.is_empty())
    }

    pub fn names(&self) -> Vec<Name> {
        self.names.keys().copied().collect()
    }

    pub fn chunk_acknowledged(&mut self, chunk: ChunkId) {
        self.acknowledgements += 1;
        self.chunks.entry(chunk).or_insert(self.acknowledgements);
    }

    pub fn chunk_may_be_gone(&mut self, chunk: ChunkId) {
        self.chunks.remove(&chunk);
    }

    pub fn power_lost(&mut self) {
        self.chunks.clear();
    }

    /// The chunks that must be there now. A read that begins now finds each of them, if it is in this list, with the
    /// same number, when the read ends.
    pub fn must_be_there(&self) -> BTreeMap<ChunkId, u64> {
        self.chunks.clone()
    }

    pub fn must_have_been_there(&self, since: &BTreeMap<ChunkId, u64>, chunk: ChunkId) -> bool {
        self.chunks.get(&chunk).is_some_and(|number| since.get(&chunk) == Some(number))
    }
}
