//! Labelled images in tar files, in the layout of WebDataset.
//!
//! `names` finds the shards, `index` knows where in them the images lie, `samples` makes classes and splits of what was
//! found; images are then read at any place of any shard. `order` is for storage that is slow at that.

mod index;
mod names;
mod order;
mod samples;

use index::{Member, Wanted};
use rayon::prelude::*;
use rqlab_images::{Augmentation, BadFiles, Crop, Picture, Preparation, Size, View, write};
use rqlab_sdk::choice;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::prelude::*;
use samples::{Found, Item};
use std::ops::Range;
use std::path::PathBuf;

choice! {
    /// In which order shards are read in training.
    pub enum Read {
        /// Any image after any other.
        Random = "random",
        /// Shard after shard, each from its beginning to its end, through a shuffle buffer.
        Sequential = "sequential",
    }
}

config! {
    /// Labelled images in tar files, in the layout of WebDataset: members whose names are equal up to the first dot make a
    /// sample, `17.jpg` with its class in `17.cls`. Where the images lie is looked up once and kept; files must not be compressed.
    pub struct WebDatasetConfig {
        /// The shards with the training images: `"shards/{000..127}.tar"`. Lists `{a,b}` and globs `*.tar` do as well. A relative
        /// path starts at the experiment file.
        path: String, local;
        /// The shards with the test images, in the same way. By default a share of the images of `path` is held out.
        test: Option<String> = None, local;
        /// Without `test`: the fraction of the images of each class that makes the test split. A sample's name decides.
        test_fraction: f32 = 0.1, in 0.0..=0.9;
        /// Which member is the image, by its extension, where samples have several (`"input.jpg"`). By default the one that is
        /// an image by its name.
        image_member: Option<String> = None;
        /// Which member holds the class, as a number or a name, by its extension; by default `cls`, or `json` with
        /// `label_field`. An empty one says that there are no labels.
        label_member: Option<String> = None;
        /// The field of JSON members that is the class, as a number or a name; `"annotation.class"` is a field of a field.
        label_field: Option<String> = None;
        /// The names of the classes 0, 1, 2, … where labels are numbers.
        class_names: Option<Vec<String>> = None;
        /// Height and width in pixels, one number or `(height, width)`: images are scaled to cover it, and cut to it. By
        /// default images stay as they are, and must all be of one size.
        size: Option<Size> = None, in 4..=4096;
        /// 1 for grey, 3 for red, green and blue. By default 1 if all images are grey, else 3.
        channels: Option<usize> = None, in 1..=3;
        /// What transparent parts show: red, green and blue.
        background: [usize; 3] = [255, 255, 255], in 0..=255;
        /// Which window of a scaled image is used.
        crop: Crop = Crop::Center;
        /// Whether training images are mirrored at random.
        flip: bool = false;
        /// What becomes of samples that cannot be used, such as those without image or class, or of a shard that is cut short:
        /// `refuse` makes them an error, found by their headers in the plan; with `skip` every image is decoded once, and
        /// those that fail are left out and counted.
        bad_files: BadFiles = BadFiles::Refuse, local;
        /// Images of more millions of pixels cannot be used: a bound on memory.
        max_megapixels: usize = 128, in 1..=4096, local;
        /// How shards are read in training. `sequential` is for disks and networks that are slow in random order.
        read: Read = Read::Random;
        /// With `read: sequential`: of how many images that were read, one is drawn at a time.
        shuffle_buffer: usize = 10_000, in 1..=100_000_000;
    }
}

/// The data set.
pub struct WebDataset {
    config: WebDatasetConfig,
    info: DatasetInfo,
    preparation: Preparation,
    shards: Vec<PathBuf>,
    train: Vec<Item>,
    test: Vec<Item>,
}

impl WebDataset {
    /// Finds the shards, looks up where their images lie, and looks at the header of each.
    ///
    /// # Errors
    /// Shards that are missing, compressed or named twice; samples that cannot be used, if these are refused; images of several
    /// sizes without `size`; a split without images.
    pub fn new(config: WebDatasetConfig, cx: &DatasetContext) -> Result<Self> {
        let mut shards = names::shards(&cx.base, "path", &config.path)?;
        let train_shards = shards.len();
        if let Some(pattern) = &config.test {
            shards.extend(names::shards(&cx.base, "test", pattern)?);
            if let Some(both) = shards[train_shards..].iter().find(|shard| shards[..train_shards].contains(shard)) {
                let message =
                    format!("{} is also a shard of `path`: models would be measured on what they saw", both.display());
                return Err(ConfigError::field("test", message).into());
            }
        }
        if config.channels == Some(2) {
            return Err(ConfigError::field("channels", "images have 1 channel or 3").into());
        }
        let found = Found::new(&config, &shards, train_shards, cx)?;
        let Found { preparation, info, train, test } = found;
        Ok(Self { config, info, preparation, shards, train, test })
    }

    /// The images of a split, which must hold all of `indices`.
    fn present(&self, split: Split, indices: &[usize]) -> Result<&[Item]> {
        let items = match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        };
        match indices.iter().find(|&&index| index >= items.len()) {
            None => Ok(items),
            Some(beyond) => Err(Error::Data(format!(
                "image {beyond} of the {} split was asked for, which has {}",
                split.name(),
                items.len()
            ))),
        }
    }

    /// The images `indices`, of each what its view shows.
    fn images(&self, split: Split, indices: &[usize], views: &[View]) -> Result<Images> {
        let (items, labels) = (self.present(split, indices)?, self.labels(split, indices)?);
        let [height, width, channels] = self.info.image;
        let mut pixels = vec![0.0; indices.len() * height * width * channels];
        pixels.par_chunks_mut(height * width * channels).zip(indices.par_iter().zip(views)).try_for_each(
            |(out, (&index, view))| {
                let picture = self.picture(&items[index], *view)?;
                write(&picture, [height, width], *view, out);
                Ok::<_, Error>(())
            },
        )?;
        Ok(Images { pixels: Tensor::from_vec(pixels, &[indices.len(), height, width, channels])?, labels })
    }

    /// A decoded image, of which at least what `view` shows is there.
    fn picture(&self, item: &Item, view: View) -> Result<Picture> {
        let bytes = Member::open(&self.shards[item.shard], item.place).and_then(|mut member| member.all());
        bytes.and_then(|bytes| self.preparation.picture(&bytes, view.at)).map_err(|flaw| {
            let (shard, offset) = (self.shards[item.shard].display(), item.place.offset);
            Error::Data(format!(
                "{shard}: the image at byte {offset}: {flaw}; `bad_files: skip` leaves such samples out"
            ))
        })
    }

    /// Which training images each shard holds.
    fn ranges(&self) -> Vec<Range<usize>> {
        let chunks = self.train.chunk_by(|a, b| a.shard == b.shard);
        chunks
            .scan(0, |start, items| {
                let range = *start..*start + items.len();
                *start = range.end;
                Some(range)
            })
            .collect()
    }
}

impl WebDatasetConfig {
    /// Which members are looked for.
    fn wanted(&self) -> Wanted {
        let label = match (self.label_member.as_deref(), &self.label_field) {
            (Some(""), _) => None,
            (Some(member), _) => Some(member.trim_start_matches('.').to_lowercase()),
            (None, Some(_)) => Some("json".to_owned()),
            (None, None) => Some("cls".to_owned()),
        };
        let image = self.image_member.as_ref().map(|member| member.trim_start_matches('.').to_lowercase());
        Wanted { image, label, field: self.label_field.clone() }
    }

    /// What is drawn anew whenever a training image is used.
    fn augmentation(&self) -> Augmentation {
        Augmentation { flip: self.flip, random_window: self.crop == Crop::Random && self.size.is_some() }
    }

    /// Whether the configuration says where labels are, and does not leave it to what is found.
    fn expects_labels(&self) -> bool {
        self.label_member.as_ref().is_some_and(|member| !member.is_empty()) || self.label_field.is_some()
    }
}

impl Dataset for WebDataset {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn epoch_order(&self, rng: &Rng) -> Option<Vec<usize>> {
        match self.config.read {
            Read::Random => None,
            Read::Sequential => Some(order::sequential(&self.ranges(), self.config.shuffle_buffer, rng)),
        }
    }

    fn batch(&self, split: Split, indices: &[usize], augment: Option<&Rng>) -> Result<Images> {
        self.images(split, indices, &self.config.augmentation().draw(augment, indices.len()))
    }

    fn labels(&self, split: Split, indices: &[usize]) -> Result<Codes> {
        let items = self.present(split, indices)?;
        Ok(Codes::from_vec(indices.iter().map(|&index| items[index].class).collect(), &[indices.len()])?)
    }

    fn variants(&self) -> Option<usize> {
        Some(self.config.augmentation().views().len())
    }

    fn variant(&self, split: Split, indices: &[usize], variant: usize) -> Result<Images> {
        let views = self.config.augmentation().views();
        let view = views.get(variant).ok_or_else(|| {
            Error::Data(format!("variant {variant} of images was asked for, of which there are {}", views.len()))
        })?;
        self.images(split, indices, &vec![*view; indices.len()])
    }
}

declare_plugin! {
    dataset "webdataset": WebDatasetConfig => WebDataset::new;
}
