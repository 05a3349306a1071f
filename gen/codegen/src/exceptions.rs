//! `schema/exceptions.toml`: the requirements that this implementation does not meet, each with its reason.
//!
//! The file is a list of `[[exception]]` tables with an `id` and a `reason`, both basic strings on one line; more
//! of TOML is not read, and anything else is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::Error;

pub const FILE: &str = "schema/exceptions.toml";

/// The reason for each exempt requirement.
pub fn load(root: &Path) -> Result<BTreeMap<String, String>, Error> {
    let path = root.join(FILE);
    let text = fs::read_to_string(&path).map_err(|source| Error::File { path, source })?;
    parse(&text)
}

fn parse(text: &str) -> Result<BTreeMap<String, String>, Error> {
    let mut exceptions = BTreeMap::new();
    let mut open: Option<(Option<String>, Option<String>)> = None;
    for (number, line) in text.lines().chain(["[[exception]]"]).enumerate() {
        let refused = || Error::Exceptions { line: number + 1 };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == "[[exception]]" {
            if let Some((id, reason)) = open.replace((None, None)) {
                let (id, reason) = id.zip(reason).ok_or_else(refused)?;
                let known = exceptions.insert(id, reason).is_some();
                if known {
                    return Err(refused());
                }
            }
            continue;
        }
        let (key, value) = line.split_once(" = ").ok_or_else(refused)?;
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or_else(refused)?;
        let fields = open.as_mut().ok_or_else(refused)?;
        let field = match key {
            "id" => &mut fields.0,
            "reason" => &mut fields.1,
            _ => return Err(refused()),
        };
        if value.is_empty() || value.contains(['"', '\\']) || field.replace(value.to_owned()).is_some() {
            return Err(refused());
        }
    }
    Ok(exceptions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_need_an_id_and_a_reason() {
        let text = "# why\n[[exception]]\nid = \"MKV-A-1\"\nreason = \"later\"\n";
        assert_eq!(parse(text).unwrap(), BTreeMap::from([("MKV-A-1".to_owned(), "later".to_owned())]));
        for broken in [
            "id = \"MKV-A-1\"\n",
            "[[exception]]\nid = \"MKV-A-1\"\n",
            "[[exception]]\nid = \"MKV-A-1\"\nreason = \"\"\n",
            "[[exception]]\nid = \"MKV-A-1\"\nreason = later\n",
            "[[exception]]\nid = \"MKV-A-1\"\nreason = \"a\"\nreason = \"b\"\n",
            "[[other]]\n",
            &text.repeat(2),
        ] {
            assert!(matches!(parse(broken), Err(Error::Exceptions { .. })), "{broken}");
        }
    }
}
