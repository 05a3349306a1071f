//! Requirement IDs in doc comments: `[MKV-AREA-n] text`. The text of one ends where the next begins, or at an
//! empty line or a table.

use crate::model::{Place, Requirement};

pub fn split(place: &Place, doc: &str) -> Vec<Requirement> {
    let mut found = Vec::new();
    for paragraph in doc.split("\n\n") {
        let mut rest = paragraph;
        while let Some(start) = rest.find("[MKV-") {
            let Some(length) = rest[start..].find(']') else { break };
            let id = rest[start + 1..start + length].to_owned();
            rest = &rest[start + length + 1..];
            let end = rest.find("[MKV-").unwrap_or(rest.len());
            let text = rest[..end].split_whitespace().collect::<Vec<_>>().join(" ");
            found.push(Requirement { id, text, place: place.clone() });
        }
    }
    found
}

/// Orders IDs by area, then by number.
pub fn order(id: &str) -> (String, u32) {
    let (area, number) = id.rsplit_once('-').unwrap_or((id, ""));
    (area.to_owned(), number.parse().unwrap_or(u32::MAX))
}

/// `MKV-AREA-n`, nothing else.
pub fn well_formed(id: &str) -> bool {
    let parts: Vec<&str> = id.split('-').collect();
    let [project, area, number] = parts[..] else { return false };
    project == "MKV"
        && !area.is_empty()
        && area.bytes().all(|byte| byte.is_ascii_uppercase())
        && !number.is_empty()
        && !number.starts_with('0')
        && number.bytes().all(|byte| byte.is_ascii_digit())
}
