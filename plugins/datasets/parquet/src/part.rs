//! One split: its files as one sequence of rows, with the images' bytes kept in bounded memory.

use crate::shard::{Columns, Shard};
use parquet::data_type::ByteArray;
use rayon::prelude::*;
use rqlab_images::{Flaw, caption};
use rqlab_sdk::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// A row group: which it is, and where its rows lie.
struct Group {
    shard: usize,
    index: usize,
    /// Its first row in the file.
    first: usize,
    /// Its first row in the split.
    start: usize,
}

/// The bytes of the images of a row group.
pub(crate) type GroupRows = Arc<Vec<Option<ByteArray>>>;

/// Row groups in memory, with the time of their last use.
#[derive(Default)]
struct Cache {
    groups: BTreeMap<usize, (GroupRows, usize, u64)>,
    bytes: usize,
    clock: u64,
}

/// A split.
pub(crate) struct Part {
    pub(crate) shards: Vec<Shard>,
    groups: Vec<Group>,
    /// How many rows its files have.
    pub(crate) rows: usize,
    /// The label of each row as its file gives it; empty if there are no labels.
    given: Vec<Option<i64>>,
    /// The caption of each row; empty if no column of captions is named.
    captions: Vec<Option<ByteArray>>,
    cache: Mutex<Cache>,
    /// What the cache may hold.
    bound: usize,
}

impl Part {
    /// Opens files and reads their labels.
    ///
    /// # Errors
    /// Files that are missing, are not Parquet, or lack a column; files of which only some have labels; no rows.
    pub(crate) fn open(files: &[PathBuf], columns: &Columns<'_>, bound: usize) -> Result<Self> {
        let open = |file: &PathBuf| Shard::open(file, columns);
        let shards: Vec<Shard> = files.iter().map(open).collect::<Result<_>>()?;
        let mut groups = Vec::new();
        let mut rows = 0;
        for (shard, file) in shards.iter().enumerate() {
            let mut first = 0;
            for (index, &count) in file.groups.iter().enumerate() {
                groups.push(Group { shard, index, first, start: rows });
                first += count;
                rows += count;
            }
        }
        if rows == 0 {
            let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            return Err(Error::Data(format!("{}: no rows", names.join(", "))));
        }
        if let Some(without) = shards.iter().find(|shard| !shard.has_labels())
            && let Some(with) = shards.iter().find(|shard| shard.has_labels())
        {
            return Err(Error::Data(format!(
                "{}: has no column of labels, and {} has one; name it with `label_column`, or leave all labels out with \
                 `label_column: \"\"`",
                without.path.display(),
                with.path.display()
            )));
        }
        let given: Vec<Vec<Option<i64>>> = shards.iter().map(Shard::labels).collect::<Result<_>>()?;
        let given = given.into_iter().flatten().collect();
        let captions: Vec<_> = shards.iter().map(Shard::captions).collect::<Result<_>>()?;
        let captions = captions.into_iter().flatten().collect();
        Ok(Self { shards, groups, rows, given, captions, cache: Mutex::default(), bound })
    }

    /// Whether its files have a column of labels.
    pub(crate) fn has_labels(&self) -> bool {
        !self.given.is_empty()
    }

    /// Whether it has a column of labels and every one is -1, which is how the hub says that there are none.
    pub(crate) fn is_unlabelled(&self) -> bool {
        self.has_labels() && self.given.iter().all(|label| *label == Some(-1))
    }

    /// The largest label there is.
    pub(crate) fn largest_label(&self) -> Option<usize> {
        self.given.iter().flatten().filter_map(|&label| usize::try_from(label).ok()).max()
    }

    /// The class of a row, of `classes`. `maps` says for each file which class of all each label is; without, they are equal.
    pub(crate) fn class(&self, row: usize, classes: usize, maps: &[Option<Vec<u32>>]) -> Result<u32, Flaw> {
        let Some(given) = self.given.get(row) else { return Ok(0) };
        let shard = self.groups[self.group_of(row)].shard;
        let without = || Flaw { reason: "without a label", message: "no value".to_owned() };
        let label = given.ok_or_else(without)?;
        let class = usize::try_from(label).ok().and_then(|label| match &maps[shard] {
            Some(map) => map.get(label).copied(),
            None => (label < classes).then_some(label as u32),
        });
        class.ok_or_else(|| match label {
            -1 => Flaw {
                reason: "without a label",
                message: "label -1 is no class; it marks a row without a label".to_owned(),
            },
            _ => {
                let known = maps[shard].as_ref().map_or(classes, Vec::len);
                let last = known.saturating_sub(1);
                let message = format!("label {label} is none of the {known} classes 0 to {last}");
                Flaw { reason: "of no class", message }
            }
        })
    }

    /// The caption of a row; empty where it has none.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn caption(&self, row: usize) -> Result<String, String> {
        self.captions.get(row).and_then(Option::as_ref).map_or(Ok(String::new()), |bytes| caption(bytes.data()))
    }

    /// How many row groups there are.
    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The rows of a row group.
    pub(crate) fn rows_of(&self, group: usize) -> Range<usize> {
        let start = self.groups[group].start;
        start..self.groups.get(group + 1).map_or(self.rows, |next| next.start)
    }

    /// The bytes of the images of a row group, which are not kept.
    pub(crate) fn read(&self, group: usize) -> Result<Vec<Option<ByteArray>>> {
        let Group { shard, index, .. } = self.groups[group];
        self.shards[shard].images(index)
    }

    /// Where the image of a row of the split lies, or its label: "train.parquet: row 3, column `image.bytes`".
    pub(crate) fn place(&self, row: usize, label: bool) -> String {
        let group = &self.groups[self.group_of(row)];
        self.shards[group.shard].place(group.first + row - group.start, label)
    }

    /// The name of a row of the split: that of its file, and its number in it.
    pub(crate) fn name(&self, row: usize) -> String {
        let group = &self.groups[self.group_of(row)];
        let file = self.shards[group.shard].path.file_name().unwrap_or_default().to_string_lossy();
        format!("{file} {}", group.first + row - group.start)
    }

    /// The row group of a row: the last that starts at or before it and is not empty.
    pub(crate) fn group_of(&self, row: usize) -> usize {
        self.groups.partition_point(|group| group.start <= row) - 1
    }

    /// The row groups `wanted`. Each that is not in memory is read, and kept as long as there is room.
    ///
    /// # Errors
    /// Those that cannot be read.
    pub(crate) fn held(&self, wanted: BTreeSet<usize>) -> Result<BTreeMap<usize, GroupRows>> {
        let mut held: BTreeMap<usize, Option<GroupRows>> = wanted.into_iter().map(|group| (group, None)).collect();
        {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.clock += 1;
            let now = cache.clock;
            for (group, rows) in &mut held {
                if let Some((found, _, used)) = cache.groups.get_mut(group) {
                    *used = now;
                    *rows = Some(found.clone());
                }
            }
        }
        let read = held.into_par_iter().map(|(group, rows)| {
            if let Some(rows) = rows {
                return Ok((group, rows));
            }
            let rows = Arc::new(self.read(group)?);
            self.keep(group, &rows);
            Ok((group, rows))
        });
        read.collect()
    }

    /// Keeps a row group in memory and lets go of those that were not used for longest.
    fn keep(&self, index: usize, rows: &GroupRows) {
        let size = rows.iter().flatten().map(ByteArray::len).sum::<usize>();
        if size > self.bound {
            return;
        }
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let now = cache.clock;
        if cache.groups.insert(index, (rows.clone(), size, now)).is_none() {
            cache.bytes += size;
        }
        while cache.bytes > self.bound {
            let oldest =
                cache.groups.iter().filter(|(group, _)| **group != index).min_by_key(|(_, (_, _, used))| *used);
            let Some(oldest) = oldest.map(|(group, _)| *group) else { break };
            if let Some((_, size, _)) = cache.groups.remove(&oldest) {
                cache.bytes -= size;
            }
        }
    }
}
