//! Opens an image and compares what is found with what may be.

use std::collections::HashMap;

use memkv_server::store::*;

use super::disk::{Crash, Disks};
use super::history::World;
use super::model::{Found, Model, Session};
use super::{KEYS, NAMES, NAMESPACE, content};
use crate::rig::Stretch;

/// Checksums of bytes that were hashed before, by their region's content and place: most of an image is as in the one before.
#[derive(Default)]
pub struct Hashes(HashMap<(u64, usize, usize), Checksum>);

const HASHES_MAX: usize = 100_000;

impl Hashes {
    fn of(&mut self, bytes: &[u8], (region, at): (u64, usize)) -> Checksum {
        if self.0.len() > HASHES_MAX {
            self.0.clear();
        }
        *self.0.entry((region, at, bytes.len())).or_insert_with(|| Checksum::of_block(bytes))
    }
}

/// A store opened on what a crash left.
pub struct Opened {
    pub store: Store<Stretch>,
    pub disks: Disks,
    hashes: Hashes,
}

const READER: ClientId = ClientId(99);

impl Opened {
    pub fn open(mut disks: Disks, config: &Config, hashes: Hashes) -> Result<Self, String> {
        let (store, report) =
            Store::open(0, config.clone(), &mut disks).map_err(|error| format!("does not open: {error}"))?;
        if !report.problems.is_empty() || !report.absent.is_empty() {
            return Err(format!("devices are left out: {report:?}"));
        }
        let mut opened = Self { store, disks, hashes };
        opened.audit()?;
        opened.events_are_none()?;
        Ok(opened)
    }

    pub fn into_hashes(self) -> Hashes {
        self.hashes
    }

    pub fn into_world(self, model: Model, config: Config, seed: u64) -> (World, Hashes) {
        (World::opened(self.store, self.disks, model, config, seed), self.hashes)
    }

    fn audit(&self) -> Result<(), String> {
        self.store.audit().map_err(|error| format!("does not add up: {error}"))
    }

    fn events_are_none(&mut self) -> Result<(), String> {
        match self.store.poll_event() {
            None => Ok(()),
            Some(event) => Err(format!("answers {event:?} to nobody")),
        }
    }

    /// Everything that is stored, if it may be.
    pub fn inspect(&mut self, model: &Model, crash: Crash) -> Result<Found, String> {
        let mut found = Found::default();
        for key in 0..KEYS {
            let stored = self.value(model, key)?;
            model.keys[key].judge(stored, crash).map_err(|error| format!("key {key} {error}: {stored:?}"))?;
            found.keys.push(stored.map(|version| version as u32));
        }
        for name in 0..NAMES {
            let stored = self.manifest(model, name)?;
            let judged = model.names[name].judge(stored.map(|session| session.generation), crash);
            judged.map_err(|error| {
                format!("manifest {name} {error}: {stored:?}, known {:?}", model.names[name])
            })?;
            if let Some(session) = stored {
                self.chunks_are_there(session, &found)?;
            }
            found.names.push(stored.map(|session| session.generation));
        }
        for session in model.refs(crash) {
            self.chunks_are_there(session, &found)?;
            self.chunks_are_held(session)?;
        }
        let usage = self.store.usage();
        let values = found.keys.iter().flatten().count() as u64;
        if usage.values != values || usage.manifests < found.names.iter().flatten().count() as u64 {
            return Err(format!("{values} values were found, {usage:?}"));
        }
        Ok(found)
    }

    fn chunks_are_there(&self, session: &Session, found: &Found) -> Result<(), String> {
        let lacks = session.chunks.iter().find(|(key, version)| found.keys[*key] != Some(*version));
        match lacks {
            None => Ok(()),
            Some((key, _)) => Err(format!("{session:?} lacks key {key}: {:?}", found.keys[*key])),
        }
    }

    /// A chunk of a manifest cannot be deleted.
    fn chunks_are_held(&mut self, session: &Session) -> Result<(), String> {
        let Some((key, _)) = session.chunks.first() else { return Ok(()) };
        let name = content::key_name(*key);
        self.store.delete(0, READER, Ticket(0), Key::new(NAMESPACE, &name));
        match self.store.poll_event().map(|event| event.result) {
            Some(Err(StoreError::Referenced { .. })) => Ok(()),
            other => Err(format!("key {key} of {session:?} is not held: {other:?}")),
        }
    }

    /// The version stored under a key; its bytes were read.
    fn value(&mut self, model: &Model, key: usize) -> Result<Option<u64>, String> {
        let name = content::key_name(key);
        let Some(info) = self.store.exists(0, Key::new(NAMESPACE, &name)) else { return Ok(None) };
        if info.length != content::length(key) as u64 {
            return Err(format!("key {key} is {} bytes long", info.length));
        }
        let blocks = info.length.div_ceil(BLOCK_BYTES as u64) as u32;
        let plan = self.store.read(0, Key::new(NAMESPACE, &name), 0..blocks);
        let plan = plan.map_err(|error| format!("key {key}: {error}"))?;
        let sum = self.read(&plan).map_err(|corrupt| format!("key {key}: {corrupt}"))?;
        let asked = model.keys[key].asked.iter().rev();
        let version = asked.copied().find(|version| content::checksum(key, *version as u32) == sum);
        version.map(Some).ok_or_else(|| format!("key {key} is nothing it ever was"))
    }

    fn manifest<'m>(&mut self, model: &'m Model, name: usize) -> Result<Option<&'m Session>, String> {
        let label = [name as u8 + b'a'];
        let Ok((info, plan)) = self.store.get_manifest(0, READER, NAMESPACE, &label, 1) else {
            return Ok(None);
        };
        let session = model.sessions[name].get(&info.generation);
        let session = session.ok_or_else(|| format!("manifest {name} is {info:?}, which nobody put"))?;
        let sum = self.read(&plan).map_err(|corrupt| format!("body of manifest {name}: {corrupt}"))?;
        if info.length != session.body as u64 || sum != content::body_checksum(session.body) {
            return Err(format!("manifest {name} is {info:?} instead of {session:?}"));
        }
        if info.chunk_count as usize != session.chunks.len() {
            return Err(format!("manifest {name} has {} chunks instead of {session:?}", info.chunk_count));
        }
        Ok(Some(session))
    }

    /// The checksum of a plan's bytes, each record and block of it checked.
    fn read(&mut self, plan: &ReadPlan) -> Result<Checksum, Corrupt> {
        let mut found = Vec::new();
        for record in &plan.records {
            let medium = &self.disks.media[record.device as usize];
            let (head, head_name) = medium.peek(record.head_offset, record.head_bytes);
            let sums = record.check_head(head)?;
            for place in &record.blocks {
                let (bytes, (region, at)) = match place.in_head {
                    true => (head, head_name),
                    false => medium.peek(record.data_offset, record.data_bytes),
                };
                let bytes = bytes.get(place.at..place.at + place.length).ok_or(Corrupt::Header)?;
                let sum = self.hashes.of(bytes, (region, at + place.at));
                if sums.1.get((place.block - sums.0) as usize) != Some(&sum) {
                    return Err(Corrupt::Block { block: place.block });
                }
                found.push(sum);
            }
        }
        self.store.release(0, plan.pin, Verdict::Good);
        Ok(Checksum::of_blocks(&found))
    }
}
