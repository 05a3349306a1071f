//! The generated files that are committed, and how they are kept fresh.
//!
//! Only what changed is written, and what changed is returned: a test that gets anything back fails, and its next
//! run passes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use crate::citations::Citations;
use crate::model::Model;
use crate::{Error, emit, exceptions, load};

pub const REQUEST: &str = "schema/memkv.cgr";
pub const GOLDEN: &str = "gen/golden";
pub const PAGES: &str = "docs/reference";
pub const CONFORMANCE: &str = "conformance";

/// The files of the specification, in the order in which they are compiled.
const SCHEMAS: &[&str] = &["spec.capnp", "types.capnp", "session.capnp", "ops.capnp", "manifest.capnp"];

/// Writes all generated files anew, the request too when there is a `capnp` tool. Returns what changed.
pub fn regenerate(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut changed: Vec<PathBuf> = refresh_request(root)?.unwrap_or_default();
    changed.extend(refresh_golden(root)?);
    changed.extend(refresh_pages(root)?);
    changed.extend(refresh_conformance(root)?);
    Ok(changed)
}

/// The committed request, loaded and checked.
pub fn committed(root: &Path) -> Result<Model, Error> {
    let path = root.join(REQUEST);
    let request = fs::read(&path).map_err(|source| Error::File { path, source })?;
    load(&request)
}

/// Compiles the schema again. `None` when there is no `capnp` tool. Two versions of the tool write different bytes
/// for the same schema, so what counts is what the request says.
pub fn refresh_request(root: &Path) -> Result<Option<Vec<PathBuf>>, Error> {
    let Some(request) = compile(root)? else { return Ok(None) };
    let model = load(&request)?;
    if committed(root).is_ok_and(|committed| committed == model) {
        return Ok(Some(Vec::new()));
    }
    Ok(Some(refresh(root, [(PathBuf::from(REQUEST), request)])?))
}

fn compile(root: &Path) -> Result<Option<Vec<u8>>, Error> {
    let schema = root.join("schema");
    let output = Command::new("capnp").args(["compile", "-o-"]).args(SCHEMAS).current_dir(&schema).output();
    match output {
        Ok(output) if output.status.success() => Ok(Some(output.stdout)),
        Ok(output) => {
            Err(Error::Schema { messages: String::from_utf8_lossy(&output.stderr).trim_end().to_owned() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: schema, source }),
    }
}

pub fn refresh_golden(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let outputs = emit::rust(&committed(root)?);
    let files =
        outputs.into_iter().map(|output| (Path::new(GOLDEN).join(output.name), output.text.into_bytes()));
    refresh(root, files)
}

pub fn refresh_pages(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let pages = emit::pages(&committed(root)?, &Citations::collect(root)?, &exceptions::load(root)?);
    let files = pages.into_iter().map(|(name, text)| (Path::new(PAGES).join(name), text.into_bytes()));
    refresh(root, files)
}

/// Vectors and the C header, for those who test peers.
pub fn refresh_conformance(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let outputs = emit::conformance(&committed(root)?);
    let files = outputs
        .into_iter()
        .map(|output| (Path::new(CONFORMANCE).join(output.name), output.text.into_bytes()));
    refresh(root, files)
}

fn refresh(root: &Path, files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>) -> Result<Vec<PathBuf>, Error> {
    let mut changed = Vec::new();
    for (name, bytes) in files {
        let path = root.join(&name);
        if fs::read(&path).is_ok_and(|current| current == bytes) {
            continue;
        }
        let folder = path.parent().unwrap_or(root);
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, bytes))
            .map_err(|source| Error::File { path: path.clone(), source })?;
        changed.push(name);
    }
    Ok(changed)
}
