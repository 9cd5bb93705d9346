//! Labelled images in the Parquet layout of the Hugging Face hub: a column `image` or `img` of the struct
//! `{bytes, path}`, where `bytes` is a whole JPEG, PNG or WebP file, and a column `label` of class indices; class names
//! in the schema's metadata under the key `huggingface`.

mod decode;
mod files;
mod layout;
mod part;
mod shard;

use decode::decode;
use layout::Layout;
use part::Part;
use rayon::prelude::*;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::prelude::*;
use std::path::PathBuf;

config! {
    /// Labelled images in the Parquet layout of the Hugging Face hub: a column of `{bytes, path}` with whole JPEG, PNG or
    /// WebP files, and a column of class indices. Class names come from the files' own metadata.
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
        /// The column of images; by default `image` or `img`.
        image_column: Option<String> = None;
        /// The column of labels; by default the first there is of `label`, `labels`, `fine_label`, `coarse_label`. An
        /// empty name says that there are no labels.
        label_column: Option<String> = None;
        /// Height and width in pixels: the shorter side is scaled to it and the middle square kept. By default images
        /// stay as they are, and must all be of one size.
        size: Option<usize> = None, in 4..=4096;
        /// Whether training images are mirrored at random.
        flip: bool = false;
        /// Memory for the files' images, still compressed, in MiB. If they do not fit, row groups are read again
        /// whenever they are needed, which is slow in random order.
        cache_mib: usize = 1024, in 0..=1_048_576, local;
    }
}

/// The data set.
pub struct Parquet {
    config: ParquetConfig,
    info: DatasetInfo,
    train: Part,
    test: Part,
}

impl Parquet {
    /// Opens the files: reads their metadata and labels, and decodes the first image.
    ///
    /// # Errors
    /// Files that are missing, are not Parquet, are empty, or lack a column; labels that are none of the classes.
    pub fn new(config: ParquetConfig, cx: &DatasetContext) -> Result<Self> {
        if config.path.is_none() && (config.train.is_none() || config.test.is_none()) {
            return Err(ConfigError::field("path", "give a folder, or the files of both `train` and `test`").into());
        }
        let folder = config.path.as_ref().map_or_else(|| cx.base.clone(), |path| cx.base.join(path));
        let named = |files: &[String]| files.iter().map(|file| folder.join(file)).collect::<Vec<PathBuf>>();
        let layout = || Layout::find(&folder, config.subset.as_deref());
        // Training takes turns with testing: each may use the memory.
        let bound = config.cache_mib << 20;
        let open = |files: &[PathBuf]| {
            Part::open(files, config.image_column.as_deref(), config.label_column.as_deref(), bound)
        };
        let train_files = match &config.train {
            Some(files) => named(files),
            None => layout()?.train()?.to_vec(),
        };
        let mut train = open(&train_files)?;
        let names = train.names();
        train.read_labels(names.as_ref().map(Vec::len))?;
        let count = names.as_ref().map_or_else(|| train.labels.iter().max().map_or(0, |&m| m as usize + 1), Vec::len);
        let labelled = Some(count).filter(|_| !train.labels.is_empty());
        let (test_files, test) = match &config.test {
            Some(files) => {
                let files = named(files);
                let mut test = open(&files)?;
                test.read_labels(labelled)?;
                (files, test)
            }
            None => held_out(&layout()?, labelled, open)?,
        };
        let classes = names.unwrap_or_else(|| (0..count).map(|class| class.to_string()).collect());
        let image = match config.size {
            Some(size) => [size, size, 3],
            None => {
                let (shard, row) = train.place(0);
                let bytes = train.images(&[0])?;
                let first = decode(bytes[0].data(), None).map_err(|e| shard.error(row, e))?;
                [first.height() as usize, first.width() as usize, 3]
            }
        };
        let settings = format!("parquet 1 {:?} {:?} {:?}", config.image_column, config.label_column, config.size);
        let digest = files::digest(&settings, [&train_files, &test_files])?;
        let mut per_class = vec![[0; 2]; classes.len()];
        for (split, part) in [&train, &test].into_iter().enumerate() {
            part.labels.iter().for_each(|&class| per_class[class as usize][split] += 1);
        }
        let summary = Summary {
            per_class,
            splits: "by the names of the files".to_owned(),
            augmentation: config.flip.then(|| "mirrored at random".to_owned()).into_iter().collect(),
            ..Summary::default()
        };
        let info = DatasetInfo { image, classes, train: train.rows, test: test.rows, digest, summary };
        Ok(Self { config, info, train, test })
    }

/// The first split to measure on whose images are labelled, with its files.
fn held_out(
    layout: &Layout,
    classes: Option<usize>,
    open: impl Fn(&[PathBuf]) -> Result<Part>,
) -> Result<(Vec<PathBuf>, Part)> {
    let mut splits = layout.held_out().peekable();
    while let Some((_, files)) = splits.next() {
        let mut test = open(files)?;
        match test.read_labels(classes) {
            Err(_) if test.unlabelled && splits.peek().is_some() => {}
            read => return read.map(|()| (files.to_vec(), test)),
        }
    }
    Err(layout.lacks_held_out())
}

impl Dataset for Parquet {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn batch(&self, split: Split, indices: &[usize], augment: Option<&Rng>) -> Result<Images> {
        let part = match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        };
        match indices.iter().find(|&&index| index >= part.rows) {
            None => Ok(part),
            Some(beyond) => Err(Error::Data(format!(
                "image {beyond} of the {} split was asked for, which has {}",
                split.name(),
                part.rows
            ))),
        }
    }

    /// The images `indices`, mirrored where `flips` says so.
    fn images(&self, split: Split, indices: &[usize], flips: &[bool]) -> Result<Images> {
        let part = self.present(split, indices)?;
        let labels = self.labels(split, indices)?;
        let [height, width, channels] = self.info.image;
        let images = part.images(indices)?;
        let mut pixels = vec![0.0; indices.len() * height * width * channels];
        let work = pixels.par_chunks_mut(height * width * channels).zip(indices.par_iter().zip(&images).zip(flips));
        work.try_for_each(|(out, ((&index, bytes), flip))| {
            let fail = |message: String| {
                let (shard, row) = part.place(index);
                shard.error(row, message)
            };
            let image = decode(bytes.data(), self.config.size).map_err(|e| fail(format!("the image is damaged: {e}")))?;
            if (image.height() as usize, image.width() as usize) != (height, width) {
                return Err(fail(format!(
                    "an image of {} x {} pixels (height x width), where the first is of {height} x {width}; give `size` \
                     to bring all to one",
                    image.height(),
                    image.width()
                )));
            }
            decode::write(&image, *flip, out);
            Ok(())
        })?;
        Ok(Images { pixels: Tensor::from_vec(pixels, &[indices.len(), height, width, channels])?, labels })
    }
}

impl Dataset for Parquet {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn batch(&self, split: Split, indices: &[usize], augment: Option<&Rng>) -> Result<Images> {
        let flips = match augment {
            Some(rng) if self.config.flip => rng.part("flip", 0).bits(indices.len()),
            _ => vec![0; indices.len()],
        };
        self.images(split, indices, &flips.iter().map(|flip| flip >> 31 == 1).collect::<Vec<_>>())
    }

    fn labels(&self, split: Split, indices: &[usize]) -> Result<Codes> {
        let part = self.present(split, indices)?;
        let labels = indices.iter().map(|&index| part.labels.get(index).copied().unwrap_or(0)).collect();
        Ok(Codes::from_vec(labels, &[indices.len()])?)
    }

    fn variants(&self) -> Option<usize> {
        Some(if self.config.flip { 2 } else { 1 })
    }

    fn variant(&self, split: Split, indices: &[usize], variant: usize) -> Result<Images> {
        let flip = match (variant, self.config.flip) {
            (0, _) => false,
            (1, true) => true,
            _ => return Err(Error::Data(format!("variant {variant} of images was asked for, which there is not"))),
        };
        self.images(split, indices, &vec![flip; indices.len()])
    }
}

declare_plugin! {
    dataset "parquet": ParquetConfig => Parquet::new;
}
