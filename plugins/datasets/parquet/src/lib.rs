//! Labelled images in the Parquet layout of the Hugging Face hub: a column `image` or `img` of the struct `{bytes, path}`, where
//! `bytes` is a whole image file, and a column `label` of class indices; class names in the schema's metadata under the key
//! `huggingface`.

mod layout;
mod part;
mod shard;

use layout::Layout;
use parquet::data_type::ByteArray;
use part::Part;
use rayon::prelude::*;
use rqlab_images::{
    Augmentation, BadFiles, Crop, Flaw, Header, Look, Preparation, Size, Stamp, Survey, View, classes, splits,
    survey_in_groups, write,
};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::contracts::LeftOut;
use rqlab_sdk::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

config! {
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
        /// Where there is no split to measure on: the fraction of the training images of each class that becomes one, at least
        /// one where a class has two.
        test_fraction: Option<f32> = None, in 0.0..=0.9;
        /// The column of images; by default `image` or `img`.
        image_column: Option<String> = None;
        /// The column of labels; by default the first there is of `label`, `labels`, `fine_label`, `coarse_label`; without any
        /// of them images carry no label. An empty name says that there are no labels.
        label_column: Option<String> = None;
        /// Height and width in pixels, one number for both or `(height, width)`: an image is scaled to cover it, and cut to it.
        /// By default images stay as they are, and must all be of one size.
        size: Option<Size> = None, in 4..=4096;
        /// Which window is cut out.
        crop: Crop = Crop::Center;
        /// Whether training images are mirrored at random.
        flip: bool = false;
        /// 1 for grey, 3 for red, green and blue. By default 1 if all images are grey, else 3.
        channels: Option<usize> = None, in 1..=3;
        /// What transparent parts show: red, green and blue.
        background: [usize; 3] = [255, 255, 255], in 0..=255;
        /// What becomes of rows without an image that can be read, or without a label of the classes: `refuse` makes them an
        /// error, found by labels and headers in the plan; with `skip` every image is decoded once, and those that fail are left
        /// out and counted.
        bad_files: BadFiles = BadFiles::Refuse, local;
        /// Images of more millions of pixels are bad: a bound on memory.
        max_megapixels: usize = 128, in 1..=4096, local;
        /// Memory for the files' images, still compressed, in MiB. If they do not fit, row groups are read again
        /// whenever they are needed, which is slow in random order.
        cache_mib: usize = 1024, in 0..=1_048_576, local;
    }
}

/// The data set.
pub struct Parquet {
    config: ParquetConfig,
    preparation: Preparation,
    info: DatasetInfo,
    train: Part,
    test: Part,
}

impl Parquet {
    /// Opens the files: reads their metadata and labels, and what each image's file says of it.
    ///
    /// # Errors
    /// Files that are missing, are not Parquet, are empty, or lack a column; images and labels that cannot be used; images of
    /// several sizes where none is asked for; a split without images.
    pub fn new(config: ParquetConfig, cx: &DatasetContext) -> Result<Self> {
        if config.path.is_none() && (config.train.is_none() || config.test.is_none()) {
            return Err(ConfigError::field("path", "give a folder, or the files of both `train` and `test`").into());
        }
        if config.channels == Some(2) {
            return Err(ConfigError::field("channels", "images have 1 channel or 3").into());
        }
        let Opened { mut train, mut test, splits, notes, others } = Opened::new(&config, &cx.base)?;
        let classes = Classes::of(&train, &test);
        let mut preparation = Preparation {
            size: config.size,
            channels: 3,
            background: config.background.map(|channel| channel as u8),
            crop: config.crop,
            max_megapixels: config.max_megapixels,
        };
        let rows = Rows { train: &train, test: test.as_ref(), classes: &classes };
        let found = rows.survey(&config, &preparation, cx)?;
        let place = |index: usize| rows.place(index);
        let mut left_out = found.left_out(config.bad_files, "row", place)?;
        left_out.extend(others);
        let side = match config.size {
            Some(size) => size.sides(),
            None => found.one_size(place)?,
        };
        preparation.channels = found.channels(config.channels, preparation.background);
        let used = rows.used(&found)?;
        let first = train.rows;
        train.used = used.iter().copied().filter(|&(index, _)| index < first).map(|(index, _)| index).collect();
        train.labels = used.iter().filter(|&&(index, _)| index < first).map(|&(_, class)| class).collect();
        let test = match test.take() {
            Some(mut test) => {
                test.used =
                    used.iter().filter(|&&(index, _)| index >= first).map(|&(index, _)| index - first).collect();
                test.labels = used.iter().filter(|&&(index, _)| index >= first).map(|&(_, class)| class).collect();
                test
            }
            None => divided(&config, &cx.base, &mut train)?,
        };
        for (part, split) in [(&train, "training"), (&test, "test")] {
            if part.used.is_empty() {
                let place = part.shards[0].path.display();
                return Err(Error::Data(format!("{place}: no row of the {split} split can be used")));
            }
        }
        let info = DatasetInfo {
            image: [side[0], side[1], preparation.channels],
            train: train.used.len(),
            test: test.used.len(),
            digest: digest(&preparation, &classes.names, &found, [&train, &test]),
            summary: Summary {
                per_class: per_class(classes.names.len(), [&train, &test]),
                sizes: found.sizes(),
                left_out,
                splits,
                preparation: preparation.facts(&found),
                augmentation: augmentation(&config).facts(),
                notes,
            },
            classes: classes.names,
        };
        Ok(Self { config, preparation, info, train, test })
    }

    /// The part of a split, which must hold all of `indices`.
    fn present(&self, split: Split, indices: &[usize]) -> Result<&Part> {
        let part = match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        };
        match indices.iter().find(|&&index| index >= part.used.len()) {
            None => Ok(part),
            Some(beyond) => Err(Error::Data(format!(
                "image {beyond} of the {} split was asked for, which has {}",
                split.name(),
                part.used.len()
            ))),
        }
    }

    /// The images `indices`, of each what its view shows.
    fn images(&self, split: Split, indices: &[usize], views: &[View]) -> Result<Images> {
        let part = self.present(split, indices)?;
        let labels = self.labels(split, indices)?;
        let [height, width, channels] = self.info.image;
        let rows: Vec<usize> = indices.iter().map(|&index| part.used[index]).collect();
        let images = part.images(&rows)?;
        let mut pixels = vec![0.0; indices.len() * height * width * channels];
        let work = pixels.par_chunks_mut(height * width * channels).zip(rows.par_iter().zip(&images).zip(views));
        work.try_for_each(|(out, ((&row, bytes), &view))| {
            let bad = |flaw: Flaw| {
                Error::Data(format!("{}: {flaw}; `bad_files: skip` leaves such rows out", part.place(row, false)))
            };
            let picture = self.preparation.picture(bytes.data(), view.at).map_err(bad)?;
            if picture.size[0] < height || picture.size[1] < width {
                let message = format!("has another size than when the set was opened, {:?}", picture.size);
                return Err(Error::Data(format!("{}: {message}", part.place(row, false))));
            }
            write(&picture, [height, width], view, out);
            Ok(())
        })?;
        Ok(Images { pixels: Tensor::from_vec(pixels, &[indices.len(), height, width, channels])?, labels })
    }
}

/// The files, opened.
struct Opened {
    train: Part,
    /// None if it is to be made of the training images.
    test: Option<Part>,
    /// How the splits are told apart.
    splits: String,
    notes: Vec<String>,
    /// The files that are of no split.
    others: Option<LeftOut>,
}

impl Opened {
    fn new(config: &ParquetConfig, base: &Path) -> Result<Self> {
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
        match (&self.test, config.test_fraction) {
            (Some(_), _) => Ok(()),
            (None, Some(fraction)) => {
                self.splits = format!("{fraction} of each class of the training split for test, chosen by place");
                Ok(())
            }
            (None, None) => Err(passed_over.unwrap_or_else(|| layout.lacks_held_out())),
        }
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
    Part::open(files, config.image_column.as_deref(), config.label_column.as_deref(), config.cache_mib << 20)
}

/// Takes a share of the training images away for test: the files once more, with other rows.
fn divided(config: &ParquetConfig, base: &Path, train: &mut Part) -> Result<Part> {
    let mut test = open(config, &training_files(config, base)?)?;
    let keys: Vec<String> = train.used.iter().map(|&row| train.name(row)).collect();
    let labels = (0..keys.len()).map(|at| train.labels.get(at).copied().unwrap_or(0));
    let items = labels.zip(keys.iter().map(String::as_bytes));
    let chosen = splits::by_class(items, config.test_fraction.unwrap_or_default());
    let take = |wanted: bool| {
        let of = |at: usize| chosen[at] == wanted;
        let rows = train.used.iter().enumerate().filter(|(at, _)| of(*at)).map(|(_, &row)| row).collect();
        let labels = train.labels.iter().enumerate().filter(|(at, _)| of(*at)).map(|(_, &class)| class).collect();
        (rows, labels)
    };
    (test.used, test.labels) = take(true);
    (train.used, train.labels) = take(false);
    Ok(test)
}

/// The classes of all files.
struct Classes {
    /// Empty if there are no labels.
    names: Vec<String>,
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
}

/// All rows of both splits in one order, the training split's first.
struct Rows<'a> {
    train: &'a Part,
    test: Option<&'a Part>,
    classes: &'a Classes,
}

impl<'a> Rows<'a> {
    /// Which split a row is of, and its place in that.
    fn of(&self, index: usize) -> (&'a Part, usize, usize) {
        match self.test {
            Some(test) if index >= self.train.rows => (test, index - self.train.rows, 1),
            _ => (self.train, index, 0),
        }
    }

    fn class(&self, index: usize) -> Result<u32, Flaw> {
        let (part, row, split) = self.of(index);
        part.class(row, self.classes.names.len(), &self.classes.maps[split])
    }

    /// The file and row of an image, and the column that is wrong if one is.
    fn place(&self, index: usize) -> String {
        let (part, row, _) = self.of(index);
        part.place(row, self.class(index).is_err())
    }

    /// Looks at every row: its label, and its image's header; with `skip`, all of the image.
    fn survey(&self, config: &ParquetConfig, preparation: &Preparation, cx: &DatasetContext) -> Result<Survey> {
        let columns = (&config.image_column, &config.label_column);
        let settings = format!("parquet {:?} {} {columns:?}", config.bad_files, preparation.max_megapixels);
        let mut stamp = Stamp::new(&settings);
        let parts: Vec<&Part> = [Some(self.train), self.test].into_iter().flatten().collect();
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
        let missing = || Flaw { reason: "without an image", message: "no value".to_owned() };
        let bytes = image.ok_or_else(missing)?.data();
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
    fn used(&self, found: &Survey) -> Result<Vec<(usize, u32)>> {
        let bad: BTreeSet<usize> = found.bad.iter().map(|bad| bad.index).collect();
        let all = 0..self.train.rows + self.test.map_or(0, |test| test.rows);
        let class = |index: usize| {
            let class = self.class(index).map_err(|flaw| Error::Data(format!("{}: {flaw}", self.place(index))))?;
            Ok((index, class))
        };
        all.filter(|index| !bad.contains(index)).map(class).collect()
    }
}

fn augmentation(config: &ParquetConfig) -> Augmentation {
    Augmentation { flip: config.flip, random_window: config.crop == Crop::Random && config.size.is_some() }
}

/// Training and test images of each class.
fn per_class(classes: usize, splits: [&Part; 2]) -> Vec<[usize; 2]> {
    let mut counts = vec![[0; 2]; classes];
    for (split, part) in splits.into_iter().enumerate() {
        for &class in &part.labels {
            if let Some(counts) = counts.get_mut(class as usize) {
                counts[split] += 1;
            }
        }
    }
    counts
}

/// A digest of what determines pixels and labels: the images that are used, in their order, their classes, which are for test, and
/// how they are prepared. Where they lie does not matter.
fn digest(preparation: &Preparation, classes: &[String], found: &Survey, [train, test]: [&Part; 2]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("parquet {} {classes:?} {}", preparation.identity(), found.digest).as_bytes());
    hasher.update(&(train.used.len() as u64).to_le_bytes());
    for &row in &test.used {
        hasher.update(&(row as u64).to_le_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

impl Dataset for Parquet {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn batch(&self, split: Split, indices: &[usize], augment: Option<&Rng>) -> Result<Images> {
        self.images(split, indices, &augmentation(&self.config).draw(augment, indices.len()))
    }

    fn labels(&self, split: Split, indices: &[usize]) -> Result<Codes> {
        let part = self.present(split, indices)?;
        Ok(Codes::from_vec(indices.iter().map(|&index| part.labels[index]).collect(), &[indices.len()])?)
    }

    fn variants(&self) -> Option<usize> {
        Some(augmentation(&self.config).views().len())
    }

    fn variant(&self, split: Split, indices: &[usize], variant: usize) -> Result<Images> {
        let views = augmentation(&self.config).views();
        let view = views.get(variant).ok_or_else(|| {
            Error::Data(format!("variant {variant} of images was asked for, of which there are {}", views.len()))
        })?;
        self.images(split, indices, &vec![*view; indices.len()])
    }
}

declare_plugin! {
    dataset "parquet": ParquetConfig => Parquet::new;
}
