//! What may be true of one server's store, from what its clients did and were told.
//!
//! A name is a register that several clients read and write at once. Owned here: every state it may be in, and every operation
//! on it that may still take effect. A state is what the name shows and which of the operations under way have taken effect; an
//! acknowledged operation must have, an answer must have been true at some moment while it was asked for, and what the store shows
//! between two steps must be one of the states. An operation that ended without an answer may take effect later, any number of
//! times, until the server dies. Generations rise with versions, so that a put never undoes a later version; after a
//! delete nothing is left to be compared with.
//!
//! Chunks follow from their numbers, so what matters is whether they must be there: from an acknowledged write, as long as nothing that
//! may remove them happens.
//!
//! What a server's death leaves: a removal that nobody was told of may be undone.

use std::collections::{BTreeMap, BTreeSet};

use crate::content::{ChunkId, Version};

pub type Name = u8;

/// How far the store's memory is to be trusted in this world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// The disks lie: nothing but that every byte is right.
    Bytes,
    /// The disks fail: anything may be gone, but nothing deleted comes back, and no older version.
    Losing,
    /// The disks are small: what nobody leases may be gone.
    Evicting,
    /// Everything that was acknowledged is there.
    Full,
}

/// Names an operation on a name while it is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub name: Name,
    bit: u32,
}

#[derive(Debug)]
pub struct Model {
    trust: Trust,
    lease_ms: u64,
    names: BTreeMap<Name, Register>,
    chunks: BTreeMap<ChunkId, Held>,
    /// Deletes under way, by chunk; some that ended without an answer may still happen.
    deleting: BTreeMap<ChunkId, u32>,
    deleted_late: BTreeSet<ChunkId>,
    /// When a delete of a chunk last began or ended.
    deleted: BTreeMap<ChunkId, u64>,
    events: u64,
    /// How often the server died, and how often of that with the power.
    deaths: u32,
    power_losses: u32,
}

/// A moment, as the model remembers it.
#[derive(Clone, Copy, Debug)]
pub struct Since {
    ms: u64,
    deaths: u32,
    power_losses: u32,
    event: u64,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    /// Of the acknowledgement.
    number: u64,
    leased_until_ms: u64,
}

#[derive(Debug)]
struct Register {
    states: BTreeSet<State>,
    under_way: BTreeMap<u32, UnderWay>,
    late_puts: BTreeSet<Version>,
    late_delete: bool,
    /// Versions that were removed, by whom, and when at the latest; nobody was told, so a crash may bring them back.
    removed: BTreeMap<(Version, u32), u64>,
}

/// `value`: what the name shows, `None` if it is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    value: Option<Version>,
    /// A bit for each operation under way that has taken effect.
    done: u32,
}

#[derive(Debug)]
struct UnderWay {
    effect: Effect,
    began: u64,
    /// Everything the name may have shown since.
    shown: BTreeSet<Option<Version>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Put(Version),
    Delete,
    Get,
}

/// Removed by an eviction, or by an operation that nobody waits for any more.
const NOBODY: u32 = u32::MAX;

impl Default for Register {
    fn default() -> Register {
        Register {
            states: BTreeSet::from([State { value: None, done: 0 }]),
            under_way: BTreeMap::new(),
            late_puts: BTreeSet::new(),
            late_delete: false,
            removed: BTreeMap::new(),
        }
    }
}

impl Model {
    pub fn new(trust: Trust, lease_ms: u64) -> Model {
        Model {
            trust,
            lease_ms,
            names: BTreeMap::new(),
            chunks: BTreeMap::new(),
            deleting: BTreeMap::new(),
            deleted_late: BTreeSet::new(),
            deleted: BTreeMap::new(),
            events: 0,
            deaths: 0,
            power_losses: 0,
        }
    }

    pub fn trust(&self) -> Trust {
        self.trust
    }

    // ------------------------------------------------------------ names

    pub fn put_begins(&mut self, name: Name, version: Version) -> Tag {
        self.begin(name, Effect::Put(version))
    }

    pub fn delete_begins(&mut self, name: Name) -> Tag {
        self.begin(name, Effect::Delete)
    }

    pub fn get_begins(&mut self, name: Name) -> Tag {
        self.begin(name, Effect::Get)
    }

    fn begin(&mut self, name: Name, effect: Effect) -> Tag {
        self.events += 1;
        let register = self.names.entry(name).or_default();
        let bit = (0..31).find(|bit| !register.under_way.contains_key(bit));
        let bit = bit.expect("the world bounds what is under way");
        let shown = register.states.iter().map(|state| state.value).collect();
        register.under_way.insert(bit, UnderWay { effect, began: self.events, shown });
        Tag { name, bit }
    }

    /// The put or delete was acknowledged.
    pub fn acknowledged(&mut self, tag: Tag) -> Result<(), String> {
        self.explore(tag.name);
        let trust = self.trust;
        let Some(register) = self.names.get_mut(&tag.name) else { return Ok(()) };
        let Some(ended) = register.under_way.get(&tag.bit) else { return Ok(()) };
        let (effect, began) = (ended.effect, ended.began);
        if trust > Trust::Bytes {
            let before = register.states.clone();
            register.states.retain(|state| state.done & 1 << tag.bit != 0);
            if register.states.is_empty() {
                return Err(format!(
                    "name {}: {effect:?} was acknowledged, but cannot have happened; it may be {before:?}",
                    tag.name
                ));
            }
            // Whoever was told of a removal, or came after it, was told that it stays.
            register.removed.retain(|(_, by), at| *by != tag.bit && *at > began);
        }
        register.end(tag.bit);
        Ok(())
    }

    /// A put was refused: a later version is there.
    pub fn was_stale(&mut self, tag: Tag, version: Version) -> Result<(), String> {
        self.explore(tag.name);
        let shown = self.shown(tag);
        let newer = shown.iter().flatten().any(|shown| *shown > version);
        self.unknown(tag);
        if newer || self.trust == Trust::Bytes {
            return Ok(());
        }
        Err(format!(
            "name {}: version {version} was refused as stale, but it may only be {shown:?}",
            tag.name
        ))
    }

    /// It ended without an answer, or with one that says nothing: what it asked for may happen, now or later.
    pub fn unknown(&mut self, tag: Tag) {
        self.explore(tag.name);
        let Some(register) = self.names.get_mut(&tag.name) else { return };
        match register.under_way.get(&tag.bit).map(|ended| ended.effect) {
            Some(Effect::Put(version)) => {
                register.late_puts.insert(version);
            }
            Some(Effect::Delete) => register.late_delete = true,
            Some(Effect::Get) | None => {}
        }
        register.end(tag.bit);
    }

    /// An answer to a get. It goes on; [`Model::unknown`] ends it.
    pub fn got(&mut self, tag: Tag, value: Option<Version>) -> Result<(), String> {
        self.explore(tag.name);
        let shown = self.shown(tag);
        if shown.contains(&value) || self.trust == Trust::Bytes {
            return Ok(());
        }
        Err(format!("name {} is {value:?}, but may only have been {shown:?}", tag.name))
    }

    /// Everything the name may have shown since the operation began.
    pub fn shown(&mut self, tag: Tag) -> BTreeSet<Option<Version>> {
        self.explore(tag.name);
        let under_way = self.names.get(&tag.name).and_then(|register| register.under_way.get(&tag.bit));
        under_way.map(|under_way| under_way.shown.clone()).unwrap_or_default()
    }

    /// What the store shows at this moment.
    pub fn shows(&mut self, name: Name, value: Option<Version>) -> Result<(), String> {
        if self.trust == Trust::Bytes {
            return Ok(());
        }
        let Some(register) = self.names.get(&name) else {
            return match value {
                None => Ok(()),
                Some(version) => Err(format!("name {name} is {version}, and nobody ever put it")),
            };
        };
        if register.states.iter().all(|state| state.value == value) && register.under_way.is_empty() {
            return Ok(());
        }
        self.explore(name);
        let Some(register) = self.names.get_mut(&name) else { return Ok(()) };
        let before = register.states.clone();
        register.states.retain(|state| state.value == value);
        if register.states.is_empty() {
            return Err(format!("name {name} shows {value:?}, but may only be {before:?}"));
        }
        Ok(())
    }

    /// Adds every state that can be reached from the present ones.
    fn explore(&mut self, name: Name) {
        self.events += 1;
        let number = self.events;
        let evicting = self.trust < Trust::Full;
        let losing = self.trust < Trust::Evicting;
        let Some(register) = self.names.get_mut(&name) else { return };
        let mut fresh: Vec<State> = register.states.iter().copied().collect();
        while let Some(state) = fresh.pop() {
            for (next, remover) in register.reachable(state, evicting) {
                // What replaced it may be lost, too, before anybody was told that it is gone.
                let removed =
                    state.value.filter(|_| next.value.is_none() || losing && next.value != state.value);
                if let Some(version) = removed {
                    register.removed.insert((version, remover), number);
                }
                if register.states.insert(next) {
                    fresh.push(next);
                }
            }
        }
        let values: BTreeSet<_> = register.states.iter().map(|state| state.value).collect();
        for under_way in register.under_way.values_mut() {
            under_way.shown.extend(&values);
        }
    }

    pub fn names(&self) -> Vec<Name> {
        self.names.keys().copied().collect()
    }

    // ------------------------------------------------------------ the server's death

    /// The server died, and every request with it: what did not happen will not, but its clients try again.
    pub fn server_died(&mut self, power: bool) {
        self.deaths += 1;
        for name in self.names() {
            self.explore(name);
            if let Some(register) = self.names.get_mut(&name) {
                register.server_died();
            }
        }
        self.deleted_late.clear();
        // Leases die with the process.
        self.chunks.values_mut().for_each(|held| held.leased_until_ms = 0);
        if power {
            self.power_losses += 1;
            self.chunks.clear();
        }
    }

    // ------------------------------------------------------------ chunks

    pub fn since(&self, now_ms: u64) -> Since {
        Since { ms: now_ms, deaths: self.deaths, power_losses: self.power_losses, event: self.events }
    }

    /// A write that began then was acknowledged: the value is there, and leased. A delete may have come between, or
    /// the server lost power while the answer was on its way.
    pub fn chunk_acknowledged(&mut self, chunk: ChunkId, since: Since) {
        if !self.untouched_since(chunk, since) || since.power_losses != self.power_losses {
            return;
        }
        self.events += 1;
        let leased_until_ms = self.leased_until(since);
        let held = Held { number: self.events, leased_until_ms: 0 };
        let held = self.chunks.entry(chunk).or_insert(held);
        held.leased_until_ms = held.leased_until_ms.max(leased_until_ms);
    }

    pub fn chunk_delete_begins(&mut self, chunk: ChunkId) {
        self.chunks.remove(&chunk);
        *self.deleting.entry(chunk).or_default() += 1;
        self.events += 1;
        self.deleted.insert(chunk, self.events);
    }

    pub fn chunk_delete_ends(&mut self, chunk: ChunkId, known: bool) {
        self.chunks.remove(&chunk);
        if let Some(count) = self.deleting.get_mut(&chunk) {
            *count -= 1;
            if *count == 0 {
                self.deleting.remove(&chunk);
            }
        }
        self.events += 1;
        self.deleted.insert(chunk, self.events);
        if !known {
            self.deleted_late.insert(chunk);
        }
    }

    /// Whether nobody has asked to delete the chunk since.
    fn untouched_since(&self, chunk: ChunkId, since: Since) -> bool {
        let may_happen = self.deleting.contains_key(&chunk) || self.deleted_late.contains(&chunk);
        !may_happen && self.deleted.get(&chunk).is_none_or(|deleted| *deleted <= since.event)
    }

    /// When a lease ends that was taken since then, at the earliest; 0: it may be gone already, for it dies with the server.
    fn leased_until(&self, since: Since) -> u64 {
        if since.deaths == self.deaths { since.ms + self.lease_ms } else { 0 }
    }

    /// Whether a chunk that was leased since then is still. Its client's own delete ends the lease, which may have come right
    /// behind it: the answer that tells of the lease may be read from a disk, and come after that of the delete.
    pub fn still_leased(&self, chunk: ChunkId, since: Since, now_ms: u64) -> bool {
        self.leased_until(since) > now_ms && self.untouched_since(chunk, since)
    }

    /// The chunks that must be there now. One that is in this list when something begins and again, with the same number, when it
    /// ends, was there all the time.
    pub fn must_be_there(&self, now_ms: u64) -> BTreeMap<ChunkId, u64> {
        let must = |held: &Held| match self.trust {
            Trust::Full => true,
            Trust::Evicting => held.leased_until_ms > now_ms,
            Trust::Bytes | Trust::Losing => false,
        };
        self.chunks.iter().filter(|(_, held)| must(held)).map(|(chunk, held)| (*chunk, held.number)).collect()
    }
}

impl Register {
    /// The states one effect away, and who is to blame if the name is absent there.
    fn reachable(&self, state: State, evicting: bool) -> Vec<(State, u32)> {
        let mut next = Vec::new();
        let put = |version: Version, done: u32| {
            let value = state.value.max(Some(version));
            // Refused as stale: it has not taken effect.
            (value == Some(version)).then_some((State { value, done: state.done | done }, NOBODY))
        };
        let gone = |done: u32, by: u32| (State { value: None, done: state.done | done }, by);
        for (bit, under_way) in &self.under_way {
            match under_way.effect {
                Effect::Put(version) => next.extend(put(version, 1 << bit)),
                Effect::Delete => next.push(gone(1 << bit, *bit)),
                Effect::Get => {}
            }
        }
        next.extend(self.late_puts.iter().filter_map(|version| put(*version, 0)));
        if self.late_delete || evicting {
            next.push(gone(0, NOBODY));
        }
        next
    }

    fn end(&mut self, bit: u32) {
        self.under_way.remove(&bit);
        let states = std::mem::take(&mut self.states).into_iter();
        self.states = states.map(|state| State { done: state.done & !(1 << bit), ..state }).collect();
        let removed = std::mem::take(&mut self.removed).into_iter();
        self.removed = removed.map(|((v, by), at)| ((v, if by == bit { NOBODY } else { by }), at)).collect();
    }

    fn server_died(&mut self) {
        let is_delete = |under_way: &UnderWay| under_way.effect == Effect::Delete;
        let deletes: u32 =
            self.under_way.iter().filter(|(_, it)| is_delete(it)).map(|(bit, _)| 1 << bit).sum();
        let mut undone = BTreeSet::new();
        for state in &self.states {
            for (version, _) in self.removed.keys().filter(|(version, _)| Some(*version) > state.value) {
                undone.insert(State { value: Some(*version), done: state.done & !deletes });
            }
        }
        self.states.extend(undone);
        self.removed.clear();
        self.late_puts.clear();
        self.late_delete = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_must_have_been_true_while_it_was_asked_for() {
        let mut model = Model::new(Trust::Full, 0);
        let first = model.put_begins(1, 10);
        let get = model.get_begins(1);
        model.got(get, None).unwrap();
        model.got(get, Some(10)).unwrap();
        model.acknowledged(first).unwrap();
        let later = model.get_begins(1);
        assert!(model.got(later, None).is_err());
        // The earlier one still may have looked before the put.
        model.got(get, None).unwrap();
        assert!(model.got(get, Some(11)).is_err());
    }

    #[test]
    fn what_ended_without_an_answer_may_happen_later_but_not_after_the_server_died() {
        let mut model = Model::new(Trust::Full, 0);
        let put = model.put_begins(1, 10);
        model.unknown(put);
        let delete = model.delete_begins(1);
        model.acknowledged(delete).unwrap();
        model.shows(1, None).unwrap();
        model.shows(1, Some(10)).unwrap();
        let delete = model.delete_begins(1);
        model.shows(1, None).unwrap();
        model.acknowledged(delete).unwrap();
        model.shows(1, None).unwrap();
        model.server_died(true);
        assert!(model.shows(1, None).is_ok());
        let get = model.get_begins(1);
        assert!(model.got(get, Some(10)).is_err());
    }

    #[test]
    fn only_an_acknowledged_delete_survives_a_crash() {
        for acknowledged in [false, true] {
            let mut model = Model::new(Trust::Full, 0);
            let put = model.put_begins(1, 10);
            model.acknowledged(put).unwrap();
            let delete = model.delete_begins(1);
            model.shows(1, None).unwrap();
            if acknowledged {
                model.acknowledged(delete).unwrap();
            }
            model.server_died(false);
            assert_eq!(model.shows(1, Some(10)).is_err(), acknowledged);
        }
    }

    #[test]
    fn no_version_goes_back_and_no_refusal_is_without_a_reason() {
        let mut model = Model::new(Trust::Full, 0);
        let newer = model.put_begins(1, 20);
        model.acknowledged(newer).unwrap();
        let older = model.put_begins(1, 10);
        assert!(model.acknowledged(older).is_err());
        let mut model = Model::new(Trust::Full, 0);
        let refused = model.put_begins(1, 10);
        assert!(model.was_stale(refused, 10).is_err());
    }

    #[test]
    fn a_full_disk_may_take_what_is_not_leased() {
        let mut model = Model::new(Trust::Evicting, 100);
        let put = model.put_begins(1, 10);
        model.acknowledged(put).unwrap();
        model.shows(1, None).unwrap();
        let since = model.since(1000);
        model.chunk_acknowledged(7, since);
        assert!(model.must_be_there(1099).contains_key(&7));
        assert!(!model.must_be_there(1100).contains_key(&7));
    }

    #[test]
    fn a_delete_may_come_between_a_write_and_its_acknowledgement() {
        let mut model = Model::new(Trust::Full, 0);
        let since = model.since(0);
        model.chunk_delete_begins(7);
        model.chunk_delete_ends(7, true);
        model.chunk_acknowledged(7, since);
        assert!(model.must_be_there(0).is_empty());
        model.chunk_acknowledged(7, model.since(0));
        assert!(model.must_be_there(0).contains_key(&7));
    }

    #[test]
    fn an_acknowledgement_may_outlive_what_it_is_of() {
        for power in [false, true] {
            let mut model = Model::new(Trust::Full, 0);
            let since = model.since(0);
            model.server_died(power);
            model.chunk_acknowledged(7, since);
            assert_eq!(model.must_be_there(0).is_empty(), power);
        }
    }

    #[test]
    fn a_lease_ends_with_a_delete_that_was_asked_for_after_it() {
        let mut model = Model::new(Trust::Full, 100);
        let since = model.since(0);
        assert!(model.still_leased(7, since, 99));
        assert!(!model.still_leased(7, since, 100));
        model.chunk_delete_begins(7);
        model.chunk_delete_ends(7, true);
        assert!(!model.still_leased(7, since, 99));
        assert!(model.still_leased(7, model.since(0), 99));
    }
}
