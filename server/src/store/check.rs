//! Checking a whole store that nobody uses: superblocks, journals, every live record, and whether the books add up.
//!
//! Writes nothing. The caller reads: first [`Check::open`] over `Disks`, then each extent's plan, in any order and by any number
//! of threads, then [`Check::finish`].
//!
//! Not found: a damaged frame that is the last of its journal looks like the journal's end, as after a loss of power.
//! What it said is found by its effects, if any: records that are not where the journal says, or manifests without their chunks.

use super::*;
use crate::store::format::Record;

type NoBytes = &'static [u8];

pub struct Check {
    store: Store<NoBytes>,
    report: OpenReport,
    problems: Vec<Problem>,
    /// Of all devices.
    extents: u32,
}

/// What one extent's bytes tell.
#[derive(Debug, Default)]
pub struct Findings {
    records: u64,
    bytes: u64,
    problems: Vec<Problem>,
    /// Block checksums of parts of striped values.
    parts: Vec<(EntryId, u32, Vec<Checksum>)>,
}

/// Something that should not be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("is left out: {problem}")]
    LeftOut { device: u16, problem: DeviceProblem },
    #[error("device {index} of the store is not there")]
    Absent { index: u16 },
    #[error("the journal breaks off at extent {extent}, offset {offset}, and goes on behind it")]
    JournalBroken { device: u16, extent: u32, offset: usize },
    #[error("the store was closed in good order, and {records} records of open extents do not hold")]
    Torn { records: u64 },
    #[error("the store was closed in good order, and {manifests} manifests are not whole")]
    ManifestsDropped { manifests: u64 },
    #[error("extent {extent}, offset {offset}: {wrong}; {what}")]
    Record { device: u16, extent: u32, offset: u32, wrong: Wrong, what: Named },
    #[error("extent {extent}, offset {offset}: the blocks hold and the whole does not; {what}")]
    Whole { device: u16, extent: u32, offset: u32, what: Named },
    #[error("extent {extent}, offset {offset}: the digest is not that of the key; {what}")]
    Digest { device: u16, extent: u32, offset: u32, what: Named },
    #[error("the books do not add up: {0}")]
    Books(#[from] AuditError),
}

impl Problem {
    /// The slot of the device it is on.
    pub fn device(&self) -> Option<u16> {
        match self {
            Problem::LeftOut { device, .. }
            | Problem::JournalBroken { device, .. }
            | Problem::Record { device, .. }
            | Problem::Whole { device, .. }
            | Problem::Digest { device, .. } => Some(*device),
            Problem::Absent { .. }
            | Problem::Torn { .. }
            | Problem::ManifestsDropped { .. }
            | Problem::Books(_) => None,
        }
    }
}

/// A value or a manifest, as far as it can still be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub manifest: bool,
    pub namespace: Vec<u8>,
    /// `None` when the record does not tell any more.
    pub key: Option<Vec<u8>>,
    /// Manifests that are lost with it.
    pub manifests: u32,
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.manifest { "manifest" } else { "value" };
        let namespace = self.namespace.escape_ascii();
        match &self.key {
            Some(key) => write!(f, "{what} `{}` of namespace `{namespace}`", key.escape_ascii())?,
            None => write!(f, "a {what} of namespace `{namespace}`")?,
        }
        if self.manifests > 0 {
            write!(f, ", which {} manifests name", self.manifests)?;
        }
        Ok(())
    }
}

/// What a check saw.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub opening: OpenReport,
    pub extents: u64,
    pub records: u64,
    /// Of values and manifests.
    pub bytes: u64,
    pub problems: Vec<Problem>,
}

impl Check {
    pub fn open(config: Config, disks: &mut dyn Disks) -> Result<Check, OpenError> {
        let (store, report) = Store::<NoBytes>::load(0, config, disks)?;
        let mut problems = Vec::new();
        let left_out = report.problems.iter().map(|(device, problem)| (*device, *problem));
        problems.extend(left_out.map(|(device, problem)| Problem::LeftOut { device, problem }));
        problems.extend(report.absent.iter().map(|index| Problem::Absent { index: *index }));
        if report.clean && report.torn_records > 0 {
            problems.push(Problem::Torn { records: report.torn_records });
        }
        if report.clean && report.manifests_dropped > 0 {
            problems.push(Problem::ManifestsDropped { manifests: report.manifests_dropped });
        }
        for device in store.devices.iter().filter(|device| !device.failed) {
            problems.extend(journal_broken(device, &store.secrets, disks));
        }
        let extents = store.devices.iter().map(|device| device.extents.len() as u32).sum();
        Ok(Check { store, report, problems, extents })
    }

    /// Extents of the whole store; those in which nothing lives have no plan.
    pub fn extents(&self) -> u32 {
        self.extents
    }

    /// The same, by the slots of their devices.
    pub fn extents_by_device(&self) -> Vec<(u16, std::ops::Range<u32>)> {
        let range = |device: &Device| (device.slot, device.base..device.base + device.extents.len() as u32);
        self.store.devices.iter().map(range).collect()
    }

    pub fn plan(&self, extent: u32) -> Option<ExtentPlan> {
        let (device, local) = self.store.locate(extent);
        if self.store.devices[device].failed { None } else { self.store.extent_plan(device, local) }
    }

    /// Verifies the bytes of a plan.
    pub fn verify(&self, plan: &ExtentPlan, bytes: &[u8]) -> Findings {
        let mut findings = Findings { bytes: bytes.len() as u64, ..Findings::default() };
        let damage = plan.verify_each(bytes, |expected, record| {
            findings.records += 1;
            if !self.digest_holds(expected.id, &record) {
                let what = self.named(expected.id, Some(record.key.to_vec()));
                let (device, offset) = (plan.device, expected.offset);
                let extent = self.store.locate(plan.extent()).1;
                findings.problems.push(Problem::Digest { device, extent, offset, what });
            }
            if record.part_count > 1 {
                findings.parts.push((expected.id, expected.part, record.block_checksums.into_vec()));
            }
        });
        findings.problems.extend(damage.into_iter().map(|damage| self.problem(damage)));
        findings
    }

    /// What is to be said when a plan's bytes cannot be read.
    pub fn unreadable(&self, plan: &ExtentPlan, error: IoError) -> Findings {
        let problems = plan.unreadable(error).into_iter().map(|damage| self.problem(damage)).collect();
        Findings { problems, ..Findings::default() }
    }

    pub fn finish(self, findings: Vec<Findings>) -> Summary {
        let mut summary = Summary { opening: self.report.clone(), ..Summary::default() };
        summary.problems.extend(self.problems.iter().cloned());
        let mut parts: HashMap<EntryId, BTreeMap<u32, Vec<Checksum>>> = HashMap::new();
        for found in findings {
            summary.extents += 1;
            summary.records += found.records;
            summary.bytes += found.bytes;
            summary.problems.extend(found.problems);
            for (id, part, checksums) in found.parts {
                parts.entry(id).or_default().insert(part, checksums);
            }
        }
        let wholes = parts.into_iter().filter_map(|(id, parts)| self.whole(id, &parts));
        summary.problems.extend(wholes);
        summary.problems.extend(self.store.audit().err().map(Problem::Books));
        summary
    }

    /// Whether a striped value's parts make up the value. One of which a part is missing was told of already.
    fn whole(&self, id: EntryId, parts: &BTreeMap<u32, Vec<Checksum>>) -> Option<Problem> {
        let view = self.store.catalog.view(id);
        let places = self.store.catalog.places(id).len();
        if parts.len() < places || Checksum::of_blocks(parts.values().flatten()) == view.checksum {
            return None;
        }
        let (device, extent) = self.store.locate(view.place.extent);
        let device = self.store.devices[device].slot;
        Some(Problem::Whole { device, extent, offset: view.place.offset, what: self.named(id, None) })
    }

    fn digest_holds(&self, id: EntryId, record: &Record) -> bool {
        let refs_generation = match self.store.manifests.meta(id) {
            Some(meta) => meta.refs_generation(),
            None => None,
        };
        let digest = self.store.secrets.digest(record.kind, &record.namespace, &record.key, refs_generation);
        digest == record.digest
    }

    fn problem(&self, damage: Damage) -> Problem {
        let id = self.store.catalog.find(&damage.digest);
        let name = damage.name.map(|name| name.key);
        let what = match id {
            Some(id) => self.named(id, name),
            None => Named { manifest: false, namespace: Vec::new(), key: name, manifests: 0 },
        };
        let (_, extent) = self.store.locate(damage.extent);
        Problem::Record { device: damage.device, extent, offset: damage.offset, wrong: damage.wrong, what }
    }

    fn named(&self, id: EntryId, key: Option<Vec<u8>>) -> Named {
        let view = self.store.catalog.view(id);
        let namespace = self.store.namespaces.names[view.namespace as usize].name.clone();
        Named { manifest: view.manifest, namespace, key, manifests: view.refs }
    }
}

/// A frame of the journal's present chain behind the one that could not be read.
fn journal_broken(device: &Device, secrets: &Secrets, disks: &mut dyn Disks) -> Option<Problem> {
    let (extent, at) = device.journal.tail();
    if !device.geometry.persistent || extent as usize >= device.extents.len() {
        return None;
    }
    // One that cannot be read at all failed the replay, too.
    let bytes = disks.read(device.slot, device.offset(extent, 0), device.extent_bytes).ok()?;
    let later = (at..bytes.len()).step_by(SECTOR_BYTES);
    let goes_on = later.skip(1).any(|at| device.journal.is_later_frame(&bytes[at..], secrets));
    goes_on.then_some(Problem::JournalBroken { device: device.slot, extent, offset: at })
}
