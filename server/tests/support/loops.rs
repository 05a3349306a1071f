//! Loop devices over sparse files: real block devices for tests that may have some.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Loop {
    pub path: PathBuf,
    /// The file under it.
    pub file: PathBuf,
    /// The kernel detaches the device when its last user is gone: this one goes with the test, however that ends.
    _user: File,
}

impl Loop {
    pub fn attach(directory: &Path, name: &str, mib: u64) -> Result<Loop, String> {
        let file = directory.join(name);
        let made = File::create(&file).and_then(|made| made.set_len(mib << 20));
        made.map_err(|error| error.to_string())?;
        let path = losetup(&["--find", "--show", &file.to_string_lossy()])?;
        let path = PathBuf::from(path.trim());
        let user = File::options().read(true).write(true).open(&path);
        // In use, it is only marked to be detached.
        losetup(&["--detach", &path.to_string_lossy()])?;
        Ok(Loop { path, file, _user: user.map_err(|error| error.to_string())? })
    }

    pub fn text(&self) -> &str {
        self.path.to_str().unwrap()
    }
}

fn losetup(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("losetup").args(arguments).output();
    let output = output.map_err(|error| format!("losetup cannot be run: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("losetup was refused: {}", said.trim().replace('\n', " ")))
    }
}

/// Several; `None`, and the test counts as skipped, where there can be none.
pub fn loops(test: &str, directory: &Path, count: usize, mib: u64) -> Option<Vec<Loop>> {
    let attach = |n| Loop::attach(directory, &format!("{test}-{n}.img"), mib);
    match (0..count).map(attach).collect() {
        Ok(loops) => Some(loops),
        Err(reason) => {
            println!("MEMKV-SKIP {test} {reason}");
            None
        }
    }
}
