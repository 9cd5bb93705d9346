//! Which files are for training and which for test, opened.

use crate::ParquetConfig;
use crate::layout::Layout;
use crate::part::Part;
use crate::shard;
use rqlab_sdk::contracts::LeftOut;
use rqlab_sdk::{Error, Result};
use std::path::{Path, PathBuf};

/// The files, opened.
pub(crate) struct Opened {
    pub(crate) train: Part,
    /// None if it is to be made of the training images.
    pub(crate) test: Option<Part>,
    /// How the splits are told apart.
    pub(crate) splits: String,
    pub(crate) notes: Vec<String>,
    /// The files that are of no split.
    pub(crate) others: Option<LeftOut>,
}

impl Opened {
    /// # Errors
    /// Files that are missing, are not Parquet or lack a column; splits of which only one has labels; no split to measure on.
    pub(crate) fn new(config: &ParquetConfig, base: &Path) -> Result<Self> {
        let folder = folder(config, base);
        let named = |files: &[String]| files.iter().map(|file| folder.join(file)).collect::<Vec<PathBuf>>();
        let layout = || Layout::find(&folder, config.subset.as_deref());
        let train = open(config, &training_files(config, base)?)?;
        if train.is_unlabelled() {
            return Err(train.shards[0].unlabelled_error());
        }
        let mut opened = Self { train, test: None, splits: String::new(), notes: Vec::new(), others: None };
        if let Some(files) = &config.test {
            opened.splits = "the files that `test` names, and the others".to_owned();
            let test = open(config, &named(files))?;
            if test.is_unlabelled() && opened.train.has_labels() {
                return Err(test.shards[0].unlabelled_error());
            }
            opened.test = Some(test);
        } else {
            opened.choose(config, &layout()?)?;
        }
        if !opened.train.has_labels() && config.label_column.is_none() {
            let names = shard::LABELS.map(|name| format!("`{name}`")).join(", ");
            opened.notes.push(format!("no column is called {names}: `label_column` names another"));
        }
        if let Some(test) = &opened.test
            && test.has_labels() != opened.train.has_labels()
        {
            let (with, without) = if test.has_labels() { (test, &opened.train) } else { (&opened.train, test) };
            return Err(Error::Data(format!(
                "{}: has no column of labels, and {} has one; name it with `label_column`, or leave all labels out with \
                 `label_column: \"\"`",
                without.shards[0].path.display(),
                with.shards[0].path.display()
            )));
        }
        Ok(opened)
    }

    /// Takes the first split to measure on whose images are labelled.
    fn choose(&mut self, config: &ParquetConfig, layout: &Layout) -> Result<()> {
        let mut passed_over = None;
        self.others = layout.others.first().filter(|_| config.train.is_none()).map(|first| LeftOut {
            unit: "file".to_owned(),
            reason: "of no split".to_owned(),
            count: layout.others.len(),
            example: first.display().to_string(),
        });
        for (name, files) in layout.held_out() {
            if self.test.is_some() {
                self.notes.push(format!("the split `{name}` is not used: {}; `test` names files", self.splits));
                continue;
            }
            let part = open(config, files)?;
            if part.is_unlabelled() && self.train.has_labels() {
                self.notes.push(format!("the split `{name}` is not used: every label in it is -1"));
                passed_over.get_or_insert(part.shards[0].unlabelled_error());
                continue;
            }
            self.splits = format!("test images come from the split `{name}`");
            self.test = Some(part);
        }
        if self.test.is_none() {
            if config.test_fraction == 0.0 {
                return Err(passed_over.unwrap_or_else(|| layout.lacks_held_out()));
            }
            let of = if self.train.has_labels() { "each class of the training split" } else { "the training split" };
            self.splits = format!("{} of {of} for test, chosen by place", config.test_fraction);
        }
        Ok(())
    }
}

fn folder(config: &ParquetConfig, base: &Path) -> PathBuf {
    config.path.as_ref().map_or_else(|| base.to_owned(), |path| base.join(path))
}

fn training_files(config: &ParquetConfig, base: &Path) -> Result<Vec<PathBuf>> {
    let folder = folder(config, base);
    match &config.train {
        Some(files) => Ok(files.iter().map(|file| folder.join(file)).collect()),
        None => Ok(Layout::find(&folder, config.subset.as_deref())?.train()?.to_vec()),
    }
}

fn open(config: &ParquetConfig, files: &[PathBuf]) -> Result<Part> {
    // Training takes turns with testing: each may use the memory.
    Part::open(files, &config.columns(), config.cache_mib << 20)
}
