//! One split: its files as one sequence of rows, with the images' bytes kept in bounded memory.

use crate::shard::Shard;
use parquet::data_type::ByteArray;
use rayon::prelude::*;
use rqlab_sdk::{Error, Result};
use std::collections::BTreeMap;
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
type Rows = Arc<Vec<ByteArray>>;

/// Row groups in memory, with the time of their last use.
#[derive(Default)]
struct Cache {
    groups: BTreeMap<usize, (Rows, usize, u64)>,
    bytes: usize,
    clock: u64,
}

/// A split.
pub(crate) struct Part {
    shards: Vec<Shard>,
    groups: Vec<Group>,
    /// By row; empty if there are no labels.
    pub(crate) labels: Vec<u32>,
    /// Whether every label is -1, which is how the hub says that there are none.
    pub(crate) unlabelled: bool,
    pub(crate) rows: usize,
    cache: Mutex<Cache>,
    /// What the cache may hold.
    bound: usize,
}

impl Part {
    pub(crate) fn open(
        files: &[PathBuf],
        image_column: Option<&str>,
        label_column: Option<&str>,
        bound: usize,
    ) -> Result<Self> {
        let open = |file: &PathBuf| Shard::open(file, image_column, label_column);
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
        Ok(Self { shards, groups, labels: Vec::new(), unlabelled: false, rows, cache: Mutex::default(), bound })
    }

    /// The class names that the first file tells.
    pub(crate) fn names(&self) -> Option<Vec<String>> {
        self.shards.iter().find_map(|shard| shard.names.clone())
    }

    /// Reads the labels. With `classes`, every one must be below it.
    ///
    /// # Errors
    /// Labels that are none of the classes. If all are -1, [`Part::unlabelled`] says so, too.
    pub(crate) fn read_labels(&mut self, classes: Option<usize>) -> Result<()> {
        let classes = classes.unwrap_or(u32::MAX as usize);
        let read: Vec<Vec<i64>> = self.shards.iter().map(Shard::labels).collect::<Result<_>>()?;
        self.unlabelled =
            read.iter().any(|labels| !labels.is_empty()) && read.iter().flatten().all(|&label| label == -1);
        if self.unlabelled {
            return Err(self.shards[0].unlabelled_error());
        }
        for (shard, labels) in self.shards.iter().zip(read) {
            for (row, label) in labels.into_iter().enumerate() {
                let class = u32::try_from(label).ok().filter(|class| (*class as usize) < classes);
                self.labels.push(class.ok_or_else(|| shard.label_error(row, label, classes))?);
            }
        }
        Ok(())
    }

    /// The file of a row of the split, and the row in it.
    pub(crate) fn place(&self, row: usize) -> (&Shard, usize) {
        let group = &self.groups[self.group_of(row)];
        (&self.shards[group.shard], group.first + row - group.start)
    }

    /// The row group of a row: the last that starts at or before it and is not empty.
    fn group_of(&self, row: usize) -> usize {
        self.groups.partition_point(|group| group.start <= row) - 1
    }

    /// The bytes of the images at `rows`. Each row group that is not in memory is read once.
    pub(crate) fn images(&self, rows: &[usize]) -> Result<Vec<ByteArray>> {
        let mut wanted: BTreeMap<usize, Option<Rows>> = rows.iter().map(|&row| (self.group_of(row), None)).collect();
        {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            cache.clock += 1;
            let now = cache.clock;
            for (group, rows) in &mut wanted {
                if let Some((found, _, used)) = cache.groups.get_mut(group) {
                    *used = now;
                    *rows = Some(found.clone());
                }
            }
        }
        let read = wanted.into_par_iter().map(|(index, rows)| {
            if let Some(rows) = rows {
                return Ok((index, rows));
            }
            let group = &self.groups[index];
            let rows = Arc::new(self.shards[group.shard].images(group.index, group.first)?);
            self.keep(index, &rows);
            Ok((index, rows))
        });
        let read: BTreeMap<usize, Rows> = read.collect::<Result<_>>()?;
        let image = |&row: &usize| {
            let group = self.group_of(row);
            read.get(&group).and_then(|rows| rows.get(row - self.groups[group].start)).cloned().ok_or_else(|| {
                let (shard, row) = self.place(row);
                shard.error(row, "no such row in its row group")
            })
        };
        rows.iter().map(image).collect()
    }

    /// Keeps a row group in memory and lets go of those that were not used for longest.
    fn keep(&self, index: usize, rows: &Rows) {
        let size = rows.iter().map(ByteArray::len).sum::<usize>();
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
