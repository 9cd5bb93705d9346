//! The rows of both splits in one order, the training split's first, and their classes.

use crate::ParquetConfig;
use crate::part::{GroupRows, Part};
use parquet::data_type::ByteArray;
use rqlab_images::{BadFiles, Flaw, Header, Look, Preparation, Stamp, Survey, classes, survey_in_groups};
use rqlab_sdk::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// The classes of all files.
pub(crate) struct Classes {
    /// Empty if there are no labels.
    pub(crate) names: Vec<String>,
    /// For each file of the training split, and of the test split, which class of all each of its labels is; none for a file that
    /// tells no names.
    maps: [Vec<Option<Vec<u32>>>; 2],
}

impl Classes {
    fn of(train: &Part, test: &Option<Part>) -> Self {
        let shards = || train.shards.iter().chain(test.iter().flat_map(|test| &test.shards));
        let lists: Vec<Vec<String>> = shards().filter_map(|shard| shard.names.clone()).collect();
        let (mut names, maps) = classes::joined(&lists);
        if names.is_empty() {
            let count = train.largest_label().map_or(0, |largest| largest + 1);
            names = (0..count).map(|class| class.to_string()).collect();
        }
        let mut maps = maps.into_iter();
        let mut each: Vec<Option<Vec<u32>>> =
            shards().map(|shard| shard.names.as_ref().and_then(|_| maps.next())).collect();
        let of_test = each.split_off(train.shards.len());
        Self { names, maps: [each, of_test] }
    }

    /// What is odd about the names.
    fn notes(&self, train: &Part, test: &Option<Part>) -> Vec<String> {
        let mut notes = Vec::new();
        let shards =
            || train.shards.iter().chain(test.iter().flat_map(|test| &test.shards)).filter(|it| it.has_labels());
        let unnamed: Vec<_> = shards().filter(|shard| shard.names.is_none()).collect();
        if let [first, ..] = unnamed[..]
            && shards().count() > unnamed.len()
        {
            notes.push(format!(
                "{} of {} files tell no names of classes, such as {}: their labels are taken to count {}, …",
                unnamed.len(),
                shards().count(),
                first.path.display(),
                self.names.iter().take(2).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            ));
        }
        if let Some([one, other]) = classes::look_alike(&self.names) {
            notes.push(format!("the classes `{one}` and `{other}` differ in case alone"));
        }
        let twice = |names: &Vec<String>| names.len() > names.iter().collect::<BTreeSet<_>>().len();
        if let Some(shard) = shards().find(|shard| shard.names.as_ref().is_some_and(twice)) {
            notes.push(format!("{} gives several classes one name: they are one class", shard.path.display()));
        }
        notes
    }
}

/// The row groups of each split that hold some rows, by their places in it.
pub(crate) type Groups = [BTreeMap<usize, GroupRows>; 2];

/// All rows of both splits in one order, the training split's first.
pub(crate) struct Rows {
    train: Part,
    /// None if it is to be made of the training images.
    test: Option<Part>,
    pub(crate) classes: Classes,
}

impl Rows {
    pub(crate) fn new(train: Part, test: Option<Part>) -> Self {
        let classes = Classes::of(&train, &test);
        Self { train, test, classes }
    }

    /// Which split a row is of, and its place in that.
    fn of(&self, index: usize) -> (&Part, usize, usize) {
        match &self.test {
            Some(test) if index >= self.train.rows => (test, index - self.train.rows, 1),
            _ => (&self.train, index, 0),
        }
    }

    /// What a user should know of the classes.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.classes.notes(&self.train, &self.test)
    }

    /// Whether a row lies in a file of the test split.
    pub(crate) fn is_of_test(&self, index: usize) -> bool {
        index >= self.train.rows
    }

    /// The name of a row: that of its file, and its number in it.
    pub(crate) fn name(&self, index: usize) -> String {
        let (part, row, _) = self.of(index);
        part.name(row)
    }

    /// The row groups that hold `rows`.
    ///
    /// # Errors
    /// Those that cannot be read.
    pub(crate) fn groups(&self, rows: impl Iterator<Item = usize>) -> Result<Groups> {
        let mut wanted = [BTreeSet::new(), BTreeSet::new()];
        for index in rows {
            let (part, row, split) = self.of(index);
            wanted[split].insert(part.group_of(row));
        }
        let [train, test] = wanted;
        let test = self.test.as_ref().map(|part| part.held(test)).transpose()?;
        Ok([self.train.held(train)?, test.unwrap_or_default()])
    }

    /// The bytes of the image of a row, which one of the groups holds.
    ///
    /// # Errors
    /// A row without an image.
    pub(crate) fn image(&self, index: usize, groups: &Groups) -> Result<ByteArray, Flaw> {
        let (part, row, split) = self.of(index);
        let group = part.group_of(row);
        let rows = groups[split].get(&group);
        rows.and_then(|rows| rows.get(row - part.rows_of(group).start)?.clone()).ok_or_else(without_an_image)
    }

    fn class(&self, index: usize) -> Result<u32, Flaw> {
        let (part, row, split) = self.of(index);
        part.class(row, self.classes.names.len(), &self.classes.maps[split])
    }

    /// The caption of a row; empty where it has none.
    ///
    /// # Errors
    /// A caption that is no text.
    pub(crate) fn caption(&self, index: usize) -> Result<String> {
        let (part, row, _) = self.of(index);
        part.caption(row).map_err(|wrong| Error::Data(format!("{}: the caption {wrong}", part.name(row))))
    }

    /// The file and row of an image, and the column that is wrong if one is.
    pub(crate) fn place(&self, index: usize) -> String {
        let (part, row, _) = self.of(index);
        part.place(row, self.class(index).is_err())
    }

    /// Looks at every row: its label, and its image's header; with `skip`, all of the image.
    pub(crate) fn survey(
        &self,
        config: &ParquetConfig,
        preparation: &Preparation,
        cx: &DatasetContext,
    ) -> Result<Survey> {
        let columns = (&config.image_column, &config.label_column);
        let settings = format!("parquet {:?} {} {columns:?}", config.bad_files, preparation.max_megapixels);
        let mut stamp = Stamp::new(&settings);
        let parts: Vec<&Part> = [Some(&self.train), self.test.as_ref()].into_iter().flatten().collect();
        for shard in parts.iter().flat_map(|part| &part.shards) {
            let file = fs::metadata(&shard.path).map_err(Error::file(&shard.path))?;
            stamp.add(shard.path.as_os_str().as_encoded_bytes(), &file);
        }
        let groups: Vec<(usize, usize)> = parts
            .iter()
            .enumerate()
            .flat_map(|(split, part)| (0..part.groups()).map(move |group| (split, group)))
            .collect();
        let sizes: Vec<usize> = groups.iter().map(|&(split, group)| parts[split].rows_of(group).len()).collect();
        let look = |n: usize| {
            let (split, group) = groups[n];
            let rows = parts[split].rows_of(group);
            let first = if split == 1 { self.train.rows } else { 0 };
            match parts[split].read(group) {
                Ok(images) => {
                    let images = rows.zip(&images);
                    images
                        .map(|(row, image)| self.look(first + row, image.as_ref(), config.bad_files, preparation))
                        .collect()
                }
                Err(error) => vec![Err(Flaw { reason: "damaged", message: error.to_string() }); rows.len()],
            }
        };
        Ok(survey_in_groups(&stamp, &sizes, &cx.progress, look))
    }

    fn look(
        &self,
        index: usize,
        image: Option<&ByteArray>,
        policy: BadFiles,
        preparation: &Preparation,
    ) -> Result<Look, Flaw> {
        let class = self.class(index)?;
        let bytes = image.ok_or_else(without_an_image)?.data();
        let header = match policy {
            BadFiles::Skip => preparation.verified(bytes)?,
            BadFiles::Refuse => {
                let header = Header::read(&mut &*bytes)?;
                preparation.check(&header)?;
                header
            }
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&class.to_le_bytes()).update(bytes);
        Ok(Look { header, digest: *hasher.finalize().as_bytes() })
    }

    /// The rows that can be used, and their classes.
    pub(crate) fn used(&self, found: &Survey) -> Result<Vec<(usize, u32)>> {
        let bad: BTreeSet<usize> = found.bad.iter().map(|bad| bad.index).collect();
        let all = 0..self.train.rows + self.test.as_ref().map_or(0, |test| test.rows);
        let class = |index: usize| {
            let class = self.class(index).map_err(|flaw| Error::Data(format!("{}: {flaw}", self.place(index))))?;
            Ok((index, class))
        };
        all.filter(|index| !bad.contains(index)).map(class).collect()
    }
}

fn without_an_image() -> Flaw {
    Flaw { reason: "without an image", message: "no value".to_owned() }
}
