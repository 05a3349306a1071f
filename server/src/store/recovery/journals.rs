//! What the journals say is there.
//!
//! Values in one part go to the catalogue's loader; manifests, parts of striped values and values whose digest several records have
//! are kept aside by extent, for others to decide. What a journal says is believed: its frames are checked, and its extents' records
//! are not looked at.

use super::*;
use crate::store::catalog::{Loader, NewEntry};
use crate::store::format::Kind;
use crate::store::journal::{Entry, Listed};

/// A record that is not in the catalogue, or not yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aside {
    pub listed: Listed,
    /// The store's number of it.
    pub namespace: u16,
    pub place: Place,
}

impl Aside {
    /// Whether it is a value in one part.
    pub fn is_simple(&self) -> bool {
        self.listed.kind == Kind::Value as u8 && self.listed.part_count == 1 && self.listed.length > 0
    }

    /// Its age is for others to say.
    pub fn entry<'p>(&self, places: &'p [Place]) -> NewEntry<'p> {
        NewEntry {
            digest: self.listed.digest,
            checksum: Checksum(self.listed.checksum),
            length: self.listed.length,
            namespace: self.namespace,
            manifest: self.listed.kind == Kind::Manifest as u8,
            tick: 0,
            places,
        }
    }

    pub fn of(view: &View) -> Self {
        let listed = Listed {
            digest: view.digest,
            checksum: view.checksum.0,
            offset: view.place.offset,
            length: view.length as u32,
            part: 0,
            part_count: 1,
            namespace: view.namespace,
            kind: Kind::Value as u8,
            packed: Shape::value(view.length).packed(),
        };
        Self { listed, namespace: view.namespace, place: view.place }
    }
}

/// Records kept aside, by extent.
#[derive(Default)]
pub(super) struct Asides(Map<u32, Vec<Aside>>);

impl Asides {
    pub fn put(&mut self, record: Aside) {
        let aside = self.0.entry(record.place.extent).or_default();
        if aside.iter().all(|other| other.place != record.place) {
            aside.push(record);
        }
    }

    pub fn remove(&mut self, place: Place) {
        if let Some(aside) = self.0.get_mut(&place.extent) {
            aside.retain(|record| record.place != place);
        }
    }

    pub fn forget(&mut self, extent: u32) {
        self.0.remove(&extent);
    }

    pub fn take(&mut self) -> impl Iterator<Item = Aside> {
        std::mem::take(&mut self.0).into_values().flatten()
    }
}

/// What was read of the journals so far.
pub(super) struct Journals<'a, B> {
    store: &'a mut Store<B>,
    report: &'a mut OpenReport,
    loader: Loader,
    aside: Asides,
    /// Dead records of extents that were not sealed.
    dead: HashSet<Place>,
    /// The store's numbers of the namespaces that the present journal numbers.
    namespaces: Vec<Option<u16>>,
}

impl<'a, B: AsRef<[u8]> + Clone> Journals<'a, B> {
    pub fn new(store: &'a mut Store<B>, report: &'a mut OpenReport) -> Self {
        let extents = store.devices.iter().map(|device| device.extents.len() as u32).sum();
        let (loader, aside) = (Loader::new(extents), Asides::default());
        Self { store, report, loader, aside, dead: HashSet::new(), namespaces: Vec::new() }
    }

    /// Reads a device's journal to its end.
    pub fn read(&mut self, device: usize, disks: &mut dyn Disks) -> Result<(), IoError> {
        self.namespaces.clear();
        if !self.store.devices[device].geometry.persistent {
            return Ok(());
        }
        let mut ahead: Option<(u32, ReadResult)> = None;
        loop {
            let (extent, at) = self.store.devices[device].journal.tail();
            let Some(request) = self.request(device, extent) else { break };
            let bytes = match ahead.take() {
                Some((expected, result)) if expected == extent => result?,
                Some(_) | None => disks.read(request.slot, request.offset, request.length)?,
            };
            // Where the chain goes on can be seen before its frames are checked: the next extent is read meanwhile.
            let expected = self.store.devices[device].journal.extent_after(&bytes[at..]);
            match expected.and_then(|next| Some((next, self.request(device, next)?))) {
                Some((next, request)) => {
                    let result = disks.read_while(request, &mut || self.frames(device, &bytes));
                    ahead = Some((next, result));
                }
                None => self.frames(device, &bytes),
            }
            if self.store.devices[device].journal.tail().0 == extent {
                break;
            }
        }
        let numbers = self.namespaces.iter().enumerate();
        let same = numbers.filter_map(|(file, number)| number.filter(|number| usize::from(*number) == file));
        let same = same.collect();
        let target = &mut self.store.devices[device];
        target.journal.know_namespaces(same);
        for extent in target.journal.extents.clone() {
            target.extents[extent as usize].state = ExtentState::Journal;
        }
        Ok(())
    }

    /// The catalogue, of values whose digest no other record has, and what else there is.
    pub fn finish(mut self) -> (Catalog, Asides, HashSet<Place>) {
        let (catalog, contested) = self.loader.finish();
        contested.iter().for_each(|view| self.aside.put(Aside::of(view)));
        (catalog, self.aside, self.dead)
    }

    fn request(&self, device: usize, extent: u32) -> Option<ReadRequest> {
        let target = &self.store.devices[device];
        let inside = (extent as usize) < target.extents.len();
        inside.then(|| ReadRequest {
            slot: target.slot,
            offset: target.offset(extent, 0),
            length: target.extent_bytes,
        })
    }

    /// The frames at the chain's end in these bytes of its last extent.
    fn frames(&mut self, device: usize, bytes: &[u8]) {
        let secrets = self.store.secrets;
        let (extent, mut at) = self.store.devices[device].journal.tail();
        while let Some(frame) = self.store.devices[device].journal.replay(&bytes[at..], &secrets) {
            self.report.journal_frames += 1;
            frame.entries.into_iter().for_each(|entry| self.entry(device, entry));
            let (tail, offset) = self.store.devices[device].journal.tail();
            if tail != extent {
                break;
            }
            at = offset;
        }
    }

    fn entry(&mut self, device: usize, entry: Entry) {
        let base = self.store.devices[device].base;
        let count = self.store.devices[device].extents.len() as u32;
        let inside = |extent: u32| extent < count;
        match entry {
            Entry::Namespace { id, name } => {
                if let Ok(number) = self.store.namespaces.intern(&name, &self.store.config) {
                    let numbers = self.namespaces.len().max(usize::from(id) + 1);
                    self.namespaces.resize(numbers, None);
                    self.namespaces[usize::from(id)] = Some(number);
                }
            }
            Entry::Opened { extent, seq } if inside(extent) => {
                self.clear(base + extent);
                let state = &mut self.store.devices[device].extents[extent as usize];
                state.state = ExtentState::Open;
                state.seq = seq;
            }
            Entry::Sealed { extent, .. } if inside(extent) => {
                self.store.devices[device].extents[extent as usize].state = ExtentState::Sealed;
            }
            Entry::Freed { extent, .. } if inside(extent) => {
                self.clear(base + extent);
                self.store.devices[device].extents[extent as usize].state = ExtentState::Free;
            }
            Entry::Removed { extent, offset, .. } if inside(extent) => {
                self.remove(device, Place { extent: base + extent, offset });
            }
            Entry::Records { extent, records, .. } if inside(extent) => {
                records.into_iter().for_each(|listed| self.list(base + extent, listed));
            }
            Entry::Opened { .. }
            | Entry::Sealed { .. }
            | Entry::Freed { .. }
            | Entry::Removed { .. }
            | Entry::Records { .. } => {}
        }
    }

    /// Nothing lives in this extent.
    fn clear(&mut self, extent: u32) {
        self.loader.clear(extent);
        self.aside.forget(extent);
        self.dead.retain(|place| place.extent != extent);
    }

    fn remove(&mut self, device: usize, place: Place) {
        self.loader.remove(place);
        self.aside.remove(place);
        let (_, local) = self.store.locate(place.extent);
        if self.store.devices[device].state(local) == ExtentState::Open {
            self.dead.insert(place);
        }
    }

    fn list(&mut self, extent: u32, listed: Listed) {
        let Some(namespace) = self.namespaces.get(usize::from(listed.namespace)).copied().flatten() else {
            return;
        };
        let place = Place { extent, offset: listed.offset };
        let record = Aside { listed, namespace, place };
        match record.is_simple() {
            true => self.loader.add(record.entry(&[place])),
            false => self.aside.put(record),
        }
    }
}
