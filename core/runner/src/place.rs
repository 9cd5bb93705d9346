//! Where an experiment's report lies: a folder of its own for each experiment file, and for each change of its settings.

use crate::plan::Experiment;
use crate::store::{read_json, write_json};
use rqlab_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Says in a report's folder whose it is.
const RECORD: &str = "experiment.json";

/// Whose report a folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The experiment's file.
    #[serde(with = "crate::any_path")]
    experiment: PathBuf,
    /// What the command line changed in it.
    changed: Vec<String>,
}

/// A report's folder, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The folder.
    pub folder: PathBuf,
    /// The experiment's file.
    pub experiment: PathBuf,
    /// What the command line changed in it.
    pub changed: Vec<String>,
}

/// The reports in `out` whose experiment's file is there.
pub fn recorded(out: &Path) -> Vec<Recorded> {
    let folders = fs::read_dir(out).into_iter().flatten().flatten().map(|entry| entry.path());
    let recorded = folders.filter_map(|folder| {
        let Record { experiment, changed } = read_json(&folder.join(RECORD)).ok()?;
        Some(Recorded { folder, experiment, changed })
    });
    recorded.filter(|report| report.experiment.is_file()).collect()
}

/// A folder for a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The folder.
    pub folder: PathBuf,
    /// Its name, by which the report goes.
    pub name: String,
    /// Why it is not the folder of the experiment's name, where that is another file's.
    pub word: Option<String>,
    record: Record,
}

impl Place {
    /// The folder in `out` for an experiment's report: that of its name; with settings changed, that of its name and a digest of
    /// the changes; where another experiment's file has either, one with a digest of the file's path.
    ///
    /// # Errors
    /// A `name` that is another report's.
    pub fn of(experiment: &Experiment, out: &Path, name: Option<&str>) -> Result<Self> {
        let file = fs::canonicalize(&experiment.path).or_else(|_| std::path::absolute(&experiment.path));
        let experiment_file = file.unwrap_or_else(|_| experiment.path.clone());
        let mut changed = experiment.changed.clone();
        changed.sort();
        let record = Record { experiment: experiment_file, changed };
        let at = |name: String, word| Self { folder: out.join(&name), name, word, record: record.clone() };
        if let Some(name) = name {
            let place = at(name.to_owned(), None);
            let own = name == experiment.name && !record.changed.is_empty();
            let whose = place.another().map(|other| format!("the report of {}", other.display()));
            return match whose.or_else(|| own.then(|| "the report of the file's own settings".to_owned())) {
                Some(whose) => {
                    Err(Error::Data(format!("{} is for {whose}: give another --name", place.folder.display())))
                }
                None => Ok(place),
            };
        }
        let usual = match record.changed.as_slice() {
            [] => experiment.name.clone(),
            changed => format!("{}+{}", experiment.name, digest(changed.join("\n").as_bytes())),
        };
        let place = at(usual.clone(), None);
        Ok(match place.another() {
            None => place,
            Some(other) => {
                let word = format!("{} holds the report of {}", place.folder.display(), other.display());
                let text = format!("{}\n{}", record.experiment.display(), record.changed.join("\n"));
                at(format!("{}+{}", experiment.name, digest(text.as_bytes())), Some(word))
            }
        })
    }

    /// Takes the folder, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be written, or another experiment took it meanwhile.
    pub fn take(&self) -> Result<()> {
        let cannot = |e: &dyn std::fmt::Display| {
            Error::Data(format!(
                "no report can be written to {}: {e}; name another folder with --out",
                self.folder.display()
            ))
        };
        fs::create_dir_all(&self.folder).map_err(|e| cannot(&e))?;
        match self.another() {
            Some(other) => Err(cannot(&format!("it holds the report of {}", other.display()))),
            None if self.recorded().as_ref() == Some(&self.record) => Ok(()),
            None => write_json(&self.folder.join(RECORD), &self.record).map_err(|e| cannot(&e)),
        }
    }

    /// The same place for a report in which every trial failed, beside one with results.
    pub fn for_failures(&self) -> Self {
        let name = format!("{}-failed", self.name);
        Self { folder: self.folder.with_file_name(&name), name, ..self.clone() }
    }

    fn recorded(&self) -> Option<Record> {
        read_json(&self.folder.join(RECORD)).ok()
    }

    /// Another experiment's file, if the folder holds its report. A file that is gone has no claim: it was moved, or is no more.
    fn another(&self) -> Option<PathBuf> {
        let other = self.recorded()?.experiment;
        (other != self.record.experiment && other.is_file()).then_some(other)
    }
}

/// Eight digits that tell texts apart.
fn digest(text: &[u8]) -> String {
    blake3::hash(text).to_hex().chars().take(8).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn experiment(path: &Path, changed: &[&str]) -> Experiment {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "()").unwrap();
        Experiment {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            path: path.to_owned(),
            changed: changed.iter().map(|&change| change.to_owned()).collect(),
            ..Experiment::default()
        }
    }

    #[test]
    fn another_setting_has_another_place_and_the_same_setting_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (file, out) = (dir.path().join("t.ron"), dir.path().join("out"));
        let place = |changed: &[&str]| Place::of(&experiment(&file, changed), &out, None).unwrap();
        assert_eq!(place(&[]).folder, out.join("t"));
        let deep = place(&["quantizer.depth=2", "seeds=3"]);
        assert!(deep.name.starts_with("t+") && deep.name.len() == 10, "{}", deep.name);
        assert_eq!(deep.folder, place(&["seeds=3", "quantizer.depth=2"]).folder);
        assert_ne!(deep.folder, place(&["quantizer.depth=3", "seeds=3"]).folder);
        // Who names the place may; but not that of the file's own settings.
        let named = |changed: &[&str], name| Place::of(&experiment(&file, changed), &out, Some(name));
        assert_eq!(named(&["seeds=3"], "mine").unwrap().folder, out.join("mine"));
        assert!(named(&["seeds=3"], "t").unwrap_err().to_string().contains("own settings"));
        assert_eq!(named(&[], "t").unwrap().folder, out.join("t"));
    }

    #[test]
    fn files_of_one_name_do_not_take_each_others_place() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let (x, y) = (experiment(&dir.path().join("x/t.ron"), &[]), experiment(&dir.path().join("y/t.ron"), &[]));
        let first = Place::of(&x, &out, None).unwrap();
        first.take().unwrap();
        let second = Place::of(&y, &out, None).unwrap();
        assert!(second.name.starts_with("t+") && second.word.as_ref().unwrap().contains("x/t.ron"), "{second:?}");
        second.take().unwrap();
        // Both stay where they are, whoever comes first.
        assert_eq!(Place::of(&y, &out, None).unwrap(), second);
        assert_eq!(Place::of(&x, &out, None).unwrap(), first);
        assert!(Place::of(&y, &out, Some("t")).unwrap_err().to_string().contains("x/t.ron"));
        // A file that was moved takes its place along.
        fs::rename(dir.path().join("x"), dir.path().join("z")).unwrap();
        let moved = Experiment { path: dir.path().join("z/t.ron"), ..x };
        assert_eq!(Place::of(&moved, &out, None).unwrap().folder, first.folder);
    }
}
