//! Where the files of each split lie. The hub has several layouts: `train-00000-of-00002.parquet`, the same in a folder
//! `data`, `train/0000.parquet`, and each of them once more in a folder per subset (`default/train/0000.parquet`).

use rqlab_images::splits::{Word, leading_word, word};
use rqlab_sdk::{Error, Result};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};

/// How the hub marks a split of which it converted the beginning alone.
const PARTIAL: &str = "partial-";

/// The splits of one folder, with their files in order of the names.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    folder: PathBuf,
    splits: BTreeMap<Word, Vec<PathBuf>>,
    /// Parquet files that are used for no split.
    pub(crate) others: Vec<PathBuf>,
}

impl Layout {
    /// Looks into `folder`; where it holds no splits, into its folders, each of which is a subset. `subset` names one.
    ///
    /// # Errors
    /// No splits; several subsets and none named; one that is not there; a split that lacks a file of its number.
    pub(crate) fn find(folder: &Path, subset: Option<&str>) -> Result<Self> {
        if let Some(subset) = subset {
            let layout = Self::of(&folder.join(subset))?;
            return if layout.splits.is_empty() { Err(layout.nothing()) } else { Ok(layout) };
        }
        let here = Self::of(folder)?;
        if !here.splits.is_empty() {
            return Ok(here);
        }
        let (_, folders) = entries(folder)?;
        let mut subsets = Vec::new();
        for inner in folders {
            let layout = Self::of(&inner)?;
            if !layout.splits.is_empty() {
                subsets.push(layout);
            }
        }
        if subsets.len() > 1 {
            let names: Vec<String> = subsets.iter().map(|subset| format!("`{}`", name(&subset.folder))).collect();
            return Err(Error::Data(format!(
                "{}: it holds {} subsets: {}. Choose one with `subset`, such as `subset: \"{}\"`",
                folder.display(),
                names.len(),
                names.join(", "),
                name(&subsets[0].folder)
            )));
        }
        subsets.pop().ok_or_else(|| here.nothing())
    }

    /// The files of the training split.
    pub(crate) fn train(&self) -> Result<&[PathBuf]> {
        self.splits.get(&Word::Train).map(Vec::as_slice).ok_or_else(|| self.lacks(&["train"]))
    }

    /// The splits that are never trained on, the most usual first: what each is called, and its files.
    pub(crate) fn held_out(&self) -> impl Iterator<Item = (&'static str, &[PathBuf])> {
        let held_out = self.splits.iter().filter(|(word, _)| **word != Word::Train);
        held_out.map(|(word, files)| (word.name(), files.as_slice()))
    }

    /// That there is no such split.
    pub(crate) fn lacks_held_out(&self) -> Error {
        self.lacks(&["test", "validation"])
    }

    /// The splits of a folder, from the names in it and in its folder `data`. Where a split lies in two places, the first
    /// counts.
    fn of(folder: &Path) -> Result<Self> {
        let mut layout = Self { folder: folder.to_owned(), ..Self::default() };
        let inner = folder.join("data");
        let places = [folder, &inner];
        for place in places.into_iter().filter(|place| *place == folder || place.is_dir()) {
            let (files, folders) = entries(place)?;
            let mut found: BTreeMap<Word, Vec<PathBuf>> = BTreeMap::new();
            for file in files {
                match file.file_stem().and_then(|stem| leading_word(unmarked(&stem.to_string_lossy()))) {
                    Some(split) => found.entry(split).or_default().push(file),
                    None => layout.others.push(file),
                }
            }
            layout.add(found)?;
            for folder in folders {
                if let Some(split) = word(unmarked(&name(&folder))) {
                    layout.add(BTreeMap::from([(split, entries(&folder)?.0)]))?;
                }
            }
        }
        Ok(layout)
    }

    /// Takes the splits of one place that were not found before.
    fn add(&mut self, found: BTreeMap<Word, Vec<PathBuf>>) -> Result<()> {
        for (split, files) in found.into_iter().filter(|(_, files)| !files.is_empty()) {
            match self.splits.entry(split) {
                Entry::Occupied(_) => self.others.extend(files),
                Entry::Vacant(place) => {
                    whole(&files)?;
                    place.insert(files);
                }
            }
        }
        Ok(())
    }

    /// That none of these splits is there.
    fn lacks(&self, splits: &[&str]) -> Error {
        let patterns: Vec<String> = splits.iter().map(|split| format!("{split}-*.parquet")).collect();
        let mut there: Vec<String> = self.splits.values().flatten().map(|file| file.display().to_string()).collect();
        there.extend(self.others.iter().map(|file| file.display().to_string()));
        let there = if there.is_empty() {
            "there is no Parquet file at all".to_owned()
        } else {
            format!("found {}; name the files with `{}`", there.join(", "), splits[0])
        };
        let folder = format!("{}/*.parquet", splits[0]);
        Error::Data(format!("{}: there is no {} or {folder}; {there}", self.folder.display(), patterns.join(" or ")))
    }

    fn nothing(&self) -> Error {
        self.lacks(&["train"])
    }
}

/// A name without the hub's mark.
fn unmarked(name: &str) -> &str {
    let mark = name.get(..PARTIAL.len()).filter(|mark| mark.eq_ignore_ascii_case(PARTIAL));
    mark.map_or(name, |mark| &name[mark.len()..])
}

/// That files which number themselves, `train-00001-of-00004` or `0003`, are all there, each once.
fn whole(files: &[PathBuf]) -> Result<()> {
    let stems: Vec<String> =
        files.iter().map(|file| file.file_stem().unwrap_or_default().to_string_lossy().into_owned()).collect();
    let mut counts: Vec<usize> = stems.iter().filter_map(|stem| Some(number(stem)?.1)).collect();
    counts.dedup();
    let numbers: Vec<usize> = stems.iter().filter_map(|stem| Some(number(stem)?.0)).collect();
    let wrong = match counts[..] {
        [] => None,
        [count] => {
            // Names such as 0003 do not tell how many there are.
            let count = if count == 0 { numbers.iter().max().map_or(0, |most| most + 1) } else { count };
            let times = |number: usize| numbers.iter().filter(|&&other| other == number).count();
            let wrong = (0..count).find(|&number| times(number) != 1);
            wrong.map(|number| match times(number) {
                0 => format!("file {number} of the {count} numbered files is missing"),
                times => format!("file {number} of the {count} numbered files is there {times} times"),
            })
        }
        _ => Some(format!("its files are numbered as parts of {counts:?} files: several versions of the data")),
    };
    match (wrong, files.first()) {
        (Some(wrong), Some(first)) => Err(Error::Data(format!(
            "{}: {wrong}; fetch the data anew, or name the files that are to be used with `train` and `test`",
            first.display()
        ))),
        _ => Ok(()),
    }
}

/// Which part of how many a file is: (1, 4) of `train-00001-of-00004` or `train-00001-of-00004-7a3c`, (3, 0) of `0003`.
fn number(stem: &str) -> Option<(usize, usize)> {
    match stem.rsplit_once("-of-") {
        Some((before, after)) => {
            let (number, count) = (before.rsplit('-').next()?, after.split('-').next()?);
            Some((number.parse().ok()?, count.parse().ok().filter(|&count| count > 0)?))
        }
        None if stem.len() == 4 => Some((stem.parse().ok()?, 0)),
        None => None,
    }
}

/// The Parquet files and the folders in a folder, each in order of names; without hidden ones.
fn entries(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(Error::file(folder))? {
        let path = entry.map_err(Error::file(folder))?.path();
        if name(&path).starts_with('.') {
            continue;
        }
        if path.is_dir() {
            folders.push(path);
        } else if path.extension().is_some_and(|extension| extension == "parquet") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    folders.sort();
    Ok((files, folders))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
