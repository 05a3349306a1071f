//! The store's devices as the server runs them: under their names, with what went wrong on each.
//!
//! Every error is counted. Errors of one drive are logged at their first, second, fourth, eighth ... occurrence, so that a
//! dying drive cannot fill the log.

use std::sync::atomic::{AtomicU64, Ordering};

use memkv_transport::buf::Buf;

use crate::io::Devices;
use crate::store::{Command, Done, IoError, Op};

pub struct Drives {
    devices: Devices,
    drives: Vec<Drive>,
    /// Work on them never blocks.
    at_once: bool,
    /// Threads for work that blocks.
    threads: usize,
    /// How many of them may be slow alone.
    apart: usize,
}

struct Drive {
    name: String,
    read_errors: AtomicU64,
    write_errors: AtomicU64,
}

/// Errors since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DriveErrors {
    pub read: u64,
    /// Of writes, flushes and discards.
    pub write: u64,
}

impl Drives {
    /// Names in the order of the devices' slots.
    pub fn new(devices: Devices, names: Vec<String>, at_once: bool, threads: usize) -> Drives {
        let unused = |name| Drive { name, read_errors: AtomicU64::new(0), write_errors: AtomicU64::new(0) };
        let drives = names.into_iter().map(unused).collect();
        Drives { devices, drives, at_once, threads: threads.max(1), apart: 1 }
    }

    /// Each is hardware of its own, and may be slow while the others are not. Files of one file system are not.
    pub fn each_apart(self) -> Drives {
        Drives { apart: self.drives.len(), ..self }
    }

    pub fn apart(&self) -> usize {
        self.apart
    }

    pub fn at_once(&self) -> bool {
        self.at_once
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    /// A store's command, run to its end.
    pub fn execute(&self, command: &Command<Buf>) -> Result<Done, IoError> {
        let result = match &command.op {
            Op::Write { offset, segments } => self
                .devices
                .device(command.device)
                .and_then(|device| device.write_segments(*offset, segments))
                .map(|()| Done::Ok),
            Op::Read { .. } | Op::Flush | Op::Discard { .. } => self.devices.execute(command),
        };
        if let Err(error) = result {
            let reads = matches!(command.op, Op::Read { .. });
            self.failed(command.device, reads, error);
        }
        result
    }

    /// Fills the buffer.
    pub fn read(&self, slot: u16, offset: u64, into: &mut [u8]) -> Result<(), IoError> {
        let result = self.devices.device(slot).and_then(|device| device.read(offset, into));
        if let Err(error) = result {
            self.failed(slot, true, error);
        }
        result
    }

    /// The bytes themselves, where the device has them in memory.
    pub fn lend(&self, slot: u16, offset: u64, length: usize) -> Option<Buf> {
        self.devices.device(slot).ok()?.lend(offset, length)
    }

    pub fn kept_bytes_max(&self) -> usize {
        self.devices.kept_bytes_max()
    }

    pub fn name(&self, slot: u16) -> &str {
        self.drives.get(slot as usize).map_or("?", |drive| &drive.name)
    }

    pub fn errors(&self, slot: u16) -> DriveErrors {
        let Some(drive) = self.drives.get(slot as usize) else { return DriveErrors::default() };
        DriveErrors {
            read: drive.read_errors.load(Ordering::Relaxed),
            write: drive.write_errors.load(Ordering::Relaxed),
        }
    }

    fn failed(&self, slot: u16, reads: bool, error: IoError) {
        let Some(drive) = self.drives.get(slot as usize) else { return };
        let counter = if reads { &drive.read_errors } else { &drive.write_errors };
        let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            let what = if reads { "read" } else { "write" };
            tracing::warn!(drive = %drive.name, %error, errors = count, "a drive failed a {what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::io::{Absent, Device};

    #[test]
    fn errors_are_counted_by_drive_and_kind() {
        let devices: Vec<Arc<dyn Device>> =
            vec![Arc::new(Absent(IoError::Gone)), Arc::new(Absent(IoError::PermissionDenied))];
        let drives = Drives::new(Devices::new(devices), vec!["a".into(), "b".into()], false, 0);
        assert_eq!(drives.threads(), 1);
        for _ in 0..3 {
            assert_eq!(drives.read(1, 0, &mut [0; 8]), Err(IoError::PermissionDenied));
        }
        let flush = Command { id: crate::store::CommandId(1), device: 0, op: Op::Flush };
        assert!(matches!(drives.execute(&flush), Err(IoError::Gone)));
        assert_eq!(drives.errors(0), DriveErrors { read: 0, write: 1 });
        assert_eq!(drives.errors(1), DriveErrors { read: 3, write: 0 });
        assert_eq!((drives.name(0), drives.name(9)), ("a", "?"));
        assert_eq!(drives.read(9, 0, &mut []), Err(IoError::Gone));
    }
}
