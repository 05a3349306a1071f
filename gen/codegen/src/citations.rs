//! Where the project's sources cite requirements: a comment `//= MKV-AREA-n`, or `//= MKV-AREA-n test`, alone on
//! its line (`#=` in Python).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, io};

use crate::Error;

const ENDINGS: &[&str] = &["rs", "c", "cc", "cpp", "h", "hpp", "py"];
/// Folders that hold no source of ours.
const SKIPPED: &[&str] = &["target", "node_modules", "golden"];

/// Which files cite which requirement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Citations {
    code: BTreeMap<String, BTreeSet<String>>,
    tests: BTreeMap<String, BTreeSet<String>>,
    /// Citations that are neither of the two forms: file, line and text.
    pub malformed: Vec<String>,
}

impl Citations {
    pub fn collect(root: &Path) -> Result<Citations, Error> {
        let mut citations = Citations::default();
        citations.folder(root, "").map_err(|source| Error::File { path: root.to_owned(), source })?;
        Ok(citations)
    }

    fn folder(&mut self, folder: &Path, name: &str) -> io::Result<()> {
        let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let Ok(file_name) = entry.file_name().into_string() else { continue };
            let path = if name.is_empty() { file_name.clone() } else { format!("{name}/{file_name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() && !file_name.starts_with('.') && !SKIPPED.contains(&file_name.as_str()) {
                self.folder(&entry.path(), &path)?;
            } else if kind.is_file() && ENDINGS.iter().any(|ending| has_ending(&file_name, ending)) {
                self.source(&path, &String::from_utf8_lossy(&fs::read(entry.path())?));
            }
        }
        Ok(())
    }

    /// Takes in the text of one file.
    pub fn source(&mut self, path: &str, text: &str) {
        for (line, text) in text.lines().enumerate() {
            let text = text.trim_start();
            let Some(cited) = text.strip_prefix("//= ").or_else(|| text.strip_prefix("#= ")) else {
                continue;
            };
            let (id, places) = match cited.trim_end().split_once(' ') {
                None => (cited.trim_end(), &mut self.code),
                Some((id, "test")) => (id, &mut self.tests),
                Some(_) => ("", &mut self.code),
            };
            if crate::requirement::well_formed(id) {
                places.entry(id.to_owned()).or_default().insert(path.to_owned());
            } else {
                self.malformed.push(format!("{path}:{}: {text}", line + 1));
            }
        }
    }

    pub fn in_code(&self, id: &str) -> bool {
        self.code.contains_key(id)
    }

    pub fn in_tests(&self, id: &str) -> bool {
        self.tests.contains_key(id)
    }

    /// Every ID cited anywhere, with the files.
    pub fn all(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (id, files) in self.code.iter().chain(&self.tests) {
            all.entry(id).or_default().extend(files.iter().map(String::as_str));
        }
        all
    }

    /// For the reference page.
    pub(crate) fn places(&self, id: &str, tests: bool) -> String {
        let places = if tests { &self.tests } else { &self.code };
        match places.get(id) {
            None => "no file".to_owned(),
            Some(files) => files.iter().map(|file| format!("`{file}`")).collect::<Vec<_>>().join(", "),
        }
    }
}

fn has_ending(name: &str, ending: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, found)| found == ending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_count_and_others_are_reported() {
        let mut citations = Citations::default();
        citations.source("a.rs", "    //= MKV-ONE-1\nlet text = \"//= MKV-TWO-2\";\n");
        citations.source("b.py", "#= MKV-ONE-1 test\n//= MKV-ONE\n//= MKV-ONE-1 and more\n");
        assert!(citations.in_code("MKV-ONE-1") && citations.in_tests("MKV-ONE-1"));
        assert_eq!(citations.all().keys().copied().collect::<Vec<_>>(), ["MKV-ONE-1"]);
        assert_eq!(citations.malformed, ["b.py:2: //= MKV-ONE", "b.py:3: //= MKV-ONE-1 and more"]);
        assert_eq!(citations.places("MKV-ONE-1", true), "`b.py`");
    }
}
