//! Labelled images in the Parquet layout of the Hugging Face hub: a column `image` or `img` of the struct `{bytes, path}`, where
//! `bytes` is a whole image file, and a column `label` of class indices; class names in the schema's metadata under the key
//! `huggingface`.
//!
//! `layout` finds the files of each split, `opened` chooses the splits, `part` and `shard` read them, `rows` makes one sequence of
//! both splits.

mod layout;
mod opened;
mod part;
mod rows;
mod shard;

use opened::Opened;
use rows::Rows;
use rqlab_images::{Contents, ImageFiles, ImageSet, Member, image_config, splits};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::prelude::*;
use shard::Columns;
use std::path::PathBuf;

image_config! {
    /// Images in the Parquet layout of the Hugging Face hub: a column of `{bytes, path}` with whole image files (JPEG, PNG, WebP,
    /// BMP, GIF, TIFF or PNM), and a column of class indices. Class names come from the files' own metadata, and classes of one
    /// name are one class, whichever file they stand in. Images are turned upright as their orientation tags say.
    pub struct ParquetConfig {
        /// Folder with `train-*.parquet` and `test-*.parquet` (or `validation-*`), in one file or several; or with folders
        /// `train` and `test` that hold the files (`train/0000.parquet`). They may lie in its folder `data`, or in that of a
        /// subset, such as `default`. A relative path starts at the experiment file.
        path: Option<String> = None, local;
        /// Which subset (in the hub's words also: configuration) is used, where `path` has a folder for each of several.
        subset: Option<String> = None, local;
        /// The files of the training split, where `path` does not find them; relative to `path` if that is given.
        train: Option<Vec<String>> = None, local;
        /// The files of the test split; the same. By default the first split there is of `test`, `validation` and their
        /// synonyms whose images are labelled: the hub's test splits often have -1 for every label.
        test: Option<Vec<String>> = None, local;
        /// Without a split to measure on: the fraction of the images of each class that makes the test split, at least one
        /// where a class has two. Places in the files decide. 0 asks for such a split.
        test_fraction: f32 = 0.1, in 0.0..=0.9;
        /// The column of images; by default `image` or `img`.
        image_column: Option<String> = None;
        /// The column of labels; by default the first there is of `label`, `labels`, `fine_label`, `coarse_label`; without any
        /// of them images carry no label. An empty name says that there are no labels.
        label_column: Option<String> = None;
        /// The column of captions, for priors that are told them.
        caption_column: Option<String> = None;
    }
}

/// The data set.
pub type Parquet = ImageSet<Files>;

/// The rows that are used.
pub struct Files {
    rows: Rows,
    used: Vec<usize>,
}

impl ImageFiles for Files {
    const UNIT: &'static str = "row";
    // Row groups are.
    const KEPT_DECODED: bool = false;
    type Shared = rows::Groups;
    type Bytes = parquet::data_type::ByteArray;

    fn shared(&self, images: &[usize]) -> Result<rows::Groups> {
        self.rows.groups(images.iter().map(|&image| self.used[image]))
    }

    fn bytes(&self, image: usize, shared: &rows::Groups) -> Result<Self::Bytes, rqlab_images::Flaw> {
        self.rows.image(self.used[image], shared)
    }

    fn place(&self, image: usize) -> String {
        self.rows.place(self.used[image])
    }
}

/// Opens the files: reads their metadata and labels, and what each image's file says of it.
///
/// # Errors
/// Files that are missing, are not Parquet, are empty, or lack a column; images and labels that cannot be used; images of
/// several sizes where none is asked for; a split without images; other numbers than are expected.
pub fn open(config: ParquetConfig, cx: &DatasetContext) -> Result<Parquet> {
    if config.path.is_none() && (config.train.is_none() || config.test.is_none()) {
        return Err(ConfigError::field("path", "give a folder, or the files of both `train` and `test`").into());
    }
    let settings = config.settings();
    settings.check()?;
    let place = config.place(cx);
    if !place.exists()
        && let Some(promised) =
            ImageSet::promised(&settings, &place.display().to_string(), config.caption_column.is_some())
    {
        return Ok(promised);
    }
    let Opened { train, test, splits, mut notes, others } = Opened::new(&config, &cx.base)?;
    let divided = test.is_none();
    let rows = Rows::new(train, test);
    notes.extend(rows.notes());
    let found = rows.survey(&config, &settings.preparation(), cx)?;
    let settled = settings.settled(&found, Files::UNIT, |row| rows.place(row))?;
    let used = rows.used(&found)?;
    let for_test: Vec<bool> = if divided {
        let names: Vec<String> = used.iter().map(|&(row, _)| rows.name(row)).collect();
        let named = used.iter().zip(&names).map(|(&(_, class), name)| (class, name.as_bytes()));
        splits::by_class(named, config.test_fraction)
    } else {
        used.iter().map(|&(row, _)| rows.is_of_test(row)).collect()
    };
    let contents = Contents {
        plugin: "parquet",
        place: place.display().to_string(),
        classes: rows.classes.names.clone(),
        members: used.iter().zip(for_test).map(|(&(_, class), test)| Member { class, test }).collect(),
        captions: match config.caption_column {
            Some(_) => Some(used.iter().map(|&(row, _)| rows.caption(row)).collect::<Result<_>>()?),
            None => None,
        },
        splits,
        remedy: if divided { "; change `test_fraction`" } else { "" },
        left_out: others.into_iter().collect(),
        notes,
    };
    let files = Files { rows, used: used.into_iter().map(|(row, _)| row).collect() };
    ImageSet::new(settings, &found, settled, contents, files)
}

impl ParquetConfig {
    /// The columns that it names.
    fn columns(&self) -> Columns<'_> {
        Columns {
            image: self.image_column.as_deref(),
            label: self.label_column.as_deref(),
            caption: self.caption_column.as_deref(),
        }
    }

    /// Where the set lies: its folder, or the first of its files.
    fn place(&self, cx: &DatasetContext) -> PathBuf {
        let first = self.train.iter().flatten().next();
        let path = self.path.as_ref().or(first).map_or("", String::as_str);
        cx.base.join(path)
    }
}

declare_plugin! {
    dataset "parquet": ParquetConfig => open;
}
