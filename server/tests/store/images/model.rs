//! What may be found after a crash, given what was asked and answered before it.
//!
//! Every key and name has a set of states that were ever asked for, and for each kind of crash a floor: what is older than the
//! floor must not come back, and with `must` the thing must be there. An acknowledged manifest or delete raises both floors
//! (with a lazy `sync` only the process's, until a `sync` is answered), an acknowledged value the process's alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use memkv_server::store::{Outcome, StoreError};

use super::disk::Crash;
use super::{KEYS, NAMES, REFS};

/// A manifest as its writer knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub generation: u64,
    /// Key and version of each chunk.
    pub chunks: Vec<(usize, u32)>,
    /// Bytes of its body.
    pub body: usize,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Put { key: usize, version: u32 },
    Delete { key: usize },
    Manifest { name: usize, session: Session },
    DeleteManifest { name: usize },
    Refs { name: usize, session: Session },
    DeleteRefs { name: usize, generation: u64 },
    Piece { allocation: usize },
    Sync,
    Stop,
}

/// Something the model must know, in the order of the log.
#[derive(Clone, Debug)]
pub enum Fact {
    Asked(u64, Asked),
    Ended(u64, Result<Outcome, StoreError>),
    /// Values that no manifest names were evicted; which ones is not told.
    ValuesEvicted,
    ManifestGone {
        name: usize,
    },
    /// A manifest that is not listed was evicted.
    RefsEvicted,
    /// The store was opened after a crash, and this was found.
    Opened(Crash, Found),
}

/// What an opened store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub keys: Vec<Option<u32>>,
    pub names: Vec<Option<u64>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floor {
    pub min: u64,
    pub must: bool,
}

/// The states of one key (by version) or name (by generation).
#[derive(Clone, Debug, Default)]
pub struct Track {
    pub asked: BTreeSet<u64>,
    power: Floor,
    process: Floor,
    /// Deletes on their way: absence is fine meanwhile.
    deleting: u32,
    /// How often it went, or may have.
    absences: u64,
    /// What was replaced may come back after a loss of power.
    lazy: bool,
    /// The state in memory as the client knows it.
    pub stored: Option<u64>,
}

impl Track {
    fn floor(&self, crash: Crash) -> Floor {
        match crash {
            Crash::Power => self.power,
            Crash::Process => self.process,
        }
    }

    /// Whether this may be found, or why not.
    pub fn judge(&self, found: Option<u64>, crash: Crash) -> Result<(), &'static str> {
        let floor = self.floor(crash);
        match found {
            None if floor.must && self.deleting == 0 => Err("is gone"),
            None => Ok(()),
            Some(_) if self.lazy && crash == Crash::Power => Ok(()),
            Some(state) if state < floor.min => Err("is one that was replaced or deleted"),
            Some(state) if !self.asked.contains(&state) => Err("is one that nobody put"),
            Some(_) => Ok(()),
        }
    }

    /// It is acknowledged; with `durable` it survives the loss of power.
    fn put(&mut self, state: u64, durable: bool) {
        let raise = |floor: &mut Floor| {
            if state >= floor.min {
                *floor = Floor { min: state, must: true };
            }
        };
        raise(&mut self.process);
        if durable {
            raise(&mut self.power);
        }
        self.stored = self.stored.max(Some(state));
    }

    /// Nothing below this state is there any more.
    fn deleted(&mut self, below: u64, durable: bool) {
        self.absences += 1;
        self.process = Floor { min: self.process.min.max(below), must: false };
        self.power.must = false;
        if durable {
            self.power.min = self.power.min.max(below);
        }
        self.stored = None;
    }

    /// It may be gone or not.
    fn evicted(&mut self) {
        self.absences += 1;
        self.power.must = false;
        self.process.must = false;
        self.stored = None;
    }

    pub fn is_deleted(&self, state: u64) -> bool {
        state < self.process.min
    }

    /// A state after all that ever were.
    pub fn next(&self) -> u64 {
        self.asked.last().map_or(0, |last| last + 1).max(self.process.min).max(self.power.min)
    }

    /// The latest state, unless it was deleted; then the next one.
    pub fn latest(&self) -> u64 {
        let last = self.asked.last().copied();
        last.filter(|last| *last >= self.process.min).unwrap_or_else(|| self.next())
    }

    fn opened(&mut self, crash: Crash, found: Option<u64>) {
        self.deleting = 0;
        self.stored = found;
        match (crash, found) {
            // What is read after a loss of power was on the media: it stays as it is.
            (Crash::Power, Some(state)) => {
                self.power = Floor { min: state, must: true };
                self.process = self.power;
                self.asked.retain(|asked| *asked == state);
            }
            (Crash::Power, None) => {
                let min = self.next();
                self.power = Floor { min, must: false };
                self.process = self.power;
                self.asked.clear();
            }
            (Crash::Process, Some(state)) => {
                self.process = Floor { min: state.max(self.process.min), must: true };
            }
            // It was on its way out, and is out.
            (Crash::Process, None) => {
                self.process.must = false;
                self.power.must = false;
            }
        }
    }
}

/// A floor of everything, as of the start of a sync.
#[derive(Clone, Debug)]
struct Snapshot(Vec<(Floor, u64)>);

#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Acknowledged manifests and deletes are durable later.
    pub lazy: bool,
    pub keys: Vec<Track>,
    pub names: Vec<Track>,
    pub sessions: Vec<BTreeMap<u64, Session>>,
    /// Manifests of role refs that must be there, by crash (power, process).
    refs: [Vec<BTreeMap<u64, Session>>; 2],
    pub refs_generation: Vec<u64>,
    asked: HashMap<u64, Asked>,
    snapshots: HashMap<u64, Snapshot>,
}

impl Model {
    pub fn new(lazy: bool) -> Self {
        Self {
            lazy,
            keys: vec![Track::default(); KEYS],
            names: vec![Track { lazy, ..Track::default() }; NAMES],
            sessions: vec![BTreeMap::new(); NAMES],
            refs: [vec![BTreeMap::new(); REFS], vec![BTreeMap::new(); REFS]],
            refs_generation: vec![0; REFS],
            asked: HashMap::new(),
            snapshots: HashMap::new(),
        }
    }

    /// The sessions of role refs that a crash must not take.
    pub fn refs(&self, crash: Crash) -> impl Iterator<Item = &Session> {
        self.refs[crash as usize].iter().flat_map(BTreeMap::values)
    }

    pub fn is_asked(&self, what: impl Fn(&Asked) -> bool) -> bool {
        self.asked.values().any(what)
    }

    pub fn asked(&self, ticket: u64) -> Option<&Asked> {
        self.asked.get(&ticket)
    }

    /// What is not answered yet.
    pub fn pending(&self) -> Vec<&Asked> {
        self.asked.values().collect()
    }

    pub fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    /// Whether an image made after this has to hold more than one made before.
    pub fn apply(&mut self, fact: &Fact) -> bool {
        match fact {
            Fact::Asked(ticket, asked) => self.ask(*ticket, asked),
            Fact::Ended(ticket, result) => {
                let asked = self.asked.remove(ticket).expect("a ticket is answered once");
                self.ended(*ticket, asked, result);
                return true;
            }
            Fact::ValuesEvicted => self.keys.iter_mut().for_each(Track::evicted_if_loose),
            Fact::ManifestGone { name } => self.names[*name].evicted(),
            Fact::RefsEvicted => self.refs.iter_mut().flatten().for_each(BTreeMap::clear),
            Fact::Opened(crash, found) => self.opened(*crash, found),
        }
        false
    }

    fn ask(&mut self, ticket: u64, asked: &Asked) {
        match asked {
            Asked::Put { key, version } => drop(self.keys[*key].asked.insert(u64::from(*version))),
            Asked::Delete { key } => self.keys[*key].deleting += 1,
            Asked::Manifest { name, session } => {
                let track = &mut self.names[*name];
                track.asked.insert(session.generation);
                // The removal of the one before may be durable before this one is.
                track.power.must &= !self.lazy;
                self.sessions[*name].insert(session.generation, session.clone());
            }
            Asked::DeleteManifest { name } => self.names[*name].deleting += 1,
            Asked::Refs { name, session } => self.refs_generation[*name] = session.generation,
            Asked::DeleteRefs { name, generation } => {
                // From here on they may be gone.
                self.refs.iter_mut().for_each(|refs| refs[*name].retain(|stored, _| stored > generation));
            }
            Asked::Sync => {
                let tracks = self.keys.iter().chain(&self.names);
                let floors = tracks.map(|track| (track.process, track.absences)).collect();
                self.snapshots.insert(ticket, Snapshot(floors));
            }
            Asked::Piece { .. } | Asked::Stop => {}
        }
        self.asked.insert(ticket, asked.clone());
    }

    fn ended(&mut self, ticket: u64, asked: Asked, result: &Result<Outcome, StoreError>) {
        let durable = !self.lazy;
        match (asked, result) {
            (Asked::Put { key, version }, Ok(Outcome::Stored { .. })) => {
                self.keys[key].put(u64::from(version), false);
            }
            (Asked::Delete { key }, result) => {
                let track = &mut self.keys[key];
                track.deleting -= 1;
                if matches!(result, Ok(Outcome::Deleted) | Err(StoreError::NotFound)) {
                    track.deleted(track.next(), durable);
                }
            }
            (Asked::Manifest { name, session }, Ok(Outcome::ManifestStored { .. })) => {
                self.names[name].put(session.generation, durable);
            }
            // It lost against one that is not durable yet.
            (Asked::Manifest { .. }, Err(StoreError::StaleGeneration { .. })) if self.lazy => {}
            (Asked::Manifest { name, session }, _) => {
                self.names[name].asked.remove(&session.generation);
            }
            (Asked::DeleteManifest { name }, result) => {
                let track = &mut self.names[name];
                track.deleting -= 1;
                if matches!(result, Ok(Outcome::ManifestDeleted { .. }) | Err(StoreError::NotFound)) {
                    track.deleted(track.next(), durable);
                }
            }
            (Asked::Refs { name, session }, Ok(Outcome::ManifestStored { .. })) => {
                let kinds = if durable { 0..2 } else { Crash::Process as usize..2 };
                for refs in &mut self.refs[kinds] {
                    refs[name].insert(session.generation, session.clone());
                }
            }
            (Asked::Sync, Ok(Outcome::Synced)) => self.synced(ticket),
            (Asked::Stop, Ok(Outcome::Stopped)) => self.stopped(),
            (
                Asked::Put { .. }
                | Asked::Refs { .. }
                | Asked::DeleteRefs { .. }
                | Asked::Piece { .. }
                | Asked::Sync
                | Asked::Stop,
                _,
            ) => {}
        }
    }

    /// What was acknowledged when the sync began survives the loss of power.
    fn synced(&mut self, ticket: u64) {
        let Some(Snapshot(floors)) = self.snapshots.remove(&ticket) else { return };
        for (track, (floor, absences)) in self.keys.iter_mut().chain(&mut self.names).zip(floors) {
            if floor.min < track.power.min {
                continue;
            }
            track.power.min = floor.min;
            let since = track.absences != absences || track.process != floor;
            let newer = track.asked.last().is_some_and(|last| *last > floor.min);
            track.power.must |= floor.must && !since && !newer && track.deleting == 0;
        }
    }

    /// Everything is durable.
    fn stopped(&mut self) {
        self.keys.iter_mut().chain(&mut self.names).for_each(|track| track.power = track.process);
        self.refs[Crash::Power as usize] = self.refs[Crash::Process as usize].clone();
    }

    fn opened(&mut self, crash: Crash, found: &Found) {
        self.asked.clear();
        self.snapshots.clear();
        if crash == Crash::Power {
            self.refs[Crash::Process as usize] = self.refs[Crash::Power as usize].clone();
        }
        for (track, found) in self.keys.iter_mut().zip(&found.keys) {
            track.opened(crash, found.map(u64::from));
        }
        for (track, found) in self.names.iter_mut().zip(&found.names) {
            track.opened(crash, *found);
        }
    }
}

impl Track {
    /// An eviction took some values; this may be one of them.
    fn evicted_if_loose(&mut self) {
        let stored = self.stored;
        self.evicted();
        // The client goes on as if it were there, and learns better.
        self.stored = stored;
    }
}
