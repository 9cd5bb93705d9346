//! Labelled images in tar files, in the layout of WebDataset.
//!
//! `names` finds the shards, `index` knows where in them the images lie, `samples` makes classes and splits of what was
//! found; images are then read at any place of any shard. `order` is for storage that is slow at that.

mod index;
mod names;
mod order;
mod samples;

use index::{Member, Place, Wanted};
use names::Shards;
use rqlab_images::{Flaw, ImageFiles, ImageSet, image_config};
use rqlab_sdk::choice;
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::prelude::*;
use samples::Found;
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

image_config! {
    /// Labelled images in tar files, in the layout of WebDataset: members whose names are equal up to the first dot make a
    /// sample, `17.jpg` with its class in `17.cls`. Images are JPEG, PNG, WebP, BMP, GIF, TIFF or PNM, and turned upright as
    /// their orientation tags say. Where they lie is looked up once and kept; tar files must not be compressed.
    pub struct WebDatasetConfig {
        /// The shards with the training images: `"shards/{000..127}.tar"`. Lists `{a,b}` and globs `*.tar` do as well. A relative
        /// path starts at the experiment file.
        path: String, local;
        /// The shards with the test images, in the same way. By default a share of the images of `path` is held out.
        test: Option<String> = None, local;
        /// Without `test`: the fraction of the images of each class that makes the test split, at least one where a class has
        /// two. The samples' names decide, so that adding one moves at most one other.
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
        /// Whether images have captions, for priors that are told them: the text of the member `17.txt` is that of `17.jpg`.
        captions: bool = false;
        /// How shards are read in training. `sequential` is for disks and networks that are slow in random order.
        read: Read = Read::Random;
        /// With `read: sequential`: of how many images that were read, one is drawn at a time.
        shuffle_buffer: usize = 10_000, in 1..=100_000_000;
    }
}

/// The data set.
pub type WebDataset = ImageSet<Files>;

/// Where the images that are used lie.
pub struct Files {
    shards: Vec<PathBuf>,
    /// The shard of each image, and its place in that.
    places: Vec<(usize, Place)>,
    /// With shards in sequence: through how large a shuffle buffer.
    buffer: Option<usize>,
}

impl ImageFiles for Files {
    const UNIT: &'static str = "sample";
    type Shared = ();
    type Bytes = Vec<u8>;

    fn shared(&self, _: &[usize]) -> Result<()> {
        Ok(())
    }

    fn bytes(&self, image: usize, (): &()) -> Result<Vec<u8>, Flaw> {
        let (shard, place) = self.places[image];
        Member::open(&self.shards[shard], place)?.all()
    }

    fn place(&self, image: usize) -> String {
        let (shard, place) = self.places[image];
        format!("{}: the image at byte {}", self.shards[shard].display(), place.offset)
    }

    fn epoch_order(&self, train: &[usize], rng: &Rng) -> Option<Vec<usize>> {
        let shards = train.chunk_by(|&a, &b| self.places[a].0 == self.places[b].0).map(<[usize]>::len);
        Some(order::sequential(&order::ranges(shards), self.buffer?, rng))
    }
}

/// Finds the shards, looks up where their images lie, and looks at the header of each.
///
/// # Errors
/// Shards that are missing, compressed or named twice; samples that cannot be used, if these are refused; images of several
/// sizes without `size`; a split without images; other numbers than are expected.
pub fn open(config: WebDatasetConfig, cx: &DatasetContext) -> Result<WebDataset> {
    let settings = config.settings();
    settings.check()?;
    let train = Shards::named(&cx.base, "path", &config.path)?;
    if train.are_absent()
        && let Some(promised) = ImageSet::promised(&settings, &train.first(), config.captions)
    {
        return Ok(promised);
    }
    let mut shards = train.present()?;
    let train_shards = shards.len();
    if let Some(pattern) = &config.test {
        shards.extend(Shards::named(&cx.base, "test", pattern)?.present()?);
        if let Some(both) = shards[train_shards..].iter().find(|shard| shards[..train_shards].contains(shard)) {
            let message =
                format!("{} is also a shard of `path`: models would be measured on what they saw", both.display());
            return Err(ConfigError::field("test", message).into());
        }
    }
    let Found { survey, settled, contents, places } = Found::new(&config, &settings, &shards, train_shards, cx)?;
    let buffer = (config.read == Read::Sequential).then_some(config.shuffle_buffer);
    ImageSet::new(settings, &survey, settled, contents, Files { shards, places, buffer })
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
        let caption = self.captions.then(|| "txt".to_owned());
        Wanted { image, label, field: self.label_field.clone(), caption }
    }

    /// Whether the configuration says where labels are, and does not leave it to what is found.
    fn expects_labels(&self) -> bool {
        self.label_member.as_ref().is_some_and(|member| !member.is_empty()) || self.label_field.is_some()
    }
}

declare_plugin! {
    dataset "webdataset": WebDatasetConfig => open;
}
