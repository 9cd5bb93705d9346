//! Labelled images as files: one folder per class.

mod decode;
mod files;

use files::{Item, Listing};
use image::RgbImage;
use rayon::prelude::*;
use rqlab_sdk::choice;
use rqlab_sdk::prelude::*;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

choice! {
    /// Which square of a scaled image is used.
    pub enum Crop {
        /// The middle one.
        Center = "center",
        /// Any one in training, the middle one otherwise.
        Random = "random",
    }
}

config! {
    /// Labelled images as files: one folder per class, with JPEG, PNG or WebP files. Files of other names and hidden files
    /// are left out, symbolic links are followed.
    pub struct FolderConfig {
        /// Folder with the class folders; or with `train` and `test` (or `val`) that hold them. A relative path starts
        /// at the experiment file.
        path: String, local;
        /// Height and width in pixels: the shorter side is scaled to it, and a square is cut out. By default images stay
        /// as they are, and must all be of one size.
        size: Option<usize> = None, in 4..=4096;
        /// Without a `test` folder: the fraction of images that makes the test split. A file's name decides, so that
        /// adding files never moves another from one split to the other.
        test_fraction: f32 = 0.1, in 0.0..=0.9;
        /// How many classes, training images and test images the folder must hold. With it and `size`, an experiment
        /// can be planned on a machine that does not have the images.
        expect: Option<[usize; 3]> = None, local;
        /// Which square is cut out.
        crop: Crop = Crop::Center;
        /// Whether training images are mirrored at random.
        flip: bool = false;
        /// Memory for decoded and scaled training images in MiB; those that do not fit are decoded again each time. Test images,
        /// which a measurement goes through once, are not kept.
        cache_mib: usize = 512, in 0..=1_048_576, local;
    }
}

/// The data set.
pub struct Folder {
    config: FolderConfig,
    info: DatasetInfo,
    listing: Listing,
    /// Decoded training images.
    cache: Vec<OnceLock<RgbImage>>,
    /// How many more bytes the cache may take.
    room: AtomicUsize,
    absent: Option<String>,
}

/// What is seen of an image: where its window lies in the room that it has (down, right), and whether it is mirrored.
#[derive(Debug, Clone, Copy)]
struct View {
    at: [f32; 2],
    flip: bool,
}

impl Folder {
    /// Reads the names of the files, and decodes the first one if no size is given.
    ///
    /// # Errors
    /// A folder that is missing, or a class or split without images, or not as many of them as expected.
    pub fn new(config: FolderConfig, cx: &DatasetContext) -> Result<Self> {
        let root = cx.base.join(&config.path);
        if let (Some(expected), Some(size), false) = (config.expect, config.size, root.exists()) {
            return Ok(Self::promised(config, expected, size, &root));
        }
        let listing = Listing::read(&root, config.test_fraction)?;
        if let Some(expected) = config.expect {
            let found = [listing.classes.len(), listing.train.len(), listing.test.len()];
            if found != expected {
                let counts = |[classes, train, test]: [usize; 3]| {
                    format!("{classes} classes, {train} training and {test} test images")
                };
                let message =
                    format!("{}: {}, where `expect` asks for {}", root.display(), counts(found), counts(expected));
                return Err(Error::Data(message));
            }
        }
        let image = match config.size {
            Some(size) => [size, size, 3],
            None => {
                let first = decode::decode(&listing.train[0].path, None)?;
                [first.height() as usize, first.width() as usize, 3]
            }
        };
        let info = DatasetInfo {
            image,
            classes: listing.classes.clone(),
            train: listing.train.len(),
            test: listing.test.len(),
            digest: listing.digest(&format!("folder 1 {:?}", config.size), &root)?,
            summary: Summary {
                per_class: listing.per_class(),
                splits: listing.splits.clone(),
                augmentation: augmentation(&config),
                ..Summary::default()
            },
        };
        let cache = (0..info.train).map(|_| OnceLock::new()).collect();
        Ok(Self { room: AtomicUsize::new(config.cache_mib << 20), cache, listing, info, config, absent: None })
    }

    /// A set of which only the sizes are known.
    fn promised(config: FolderConfig, [classes, train, test]: [usize; 3], size: usize, root: &Path) -> Self {
        let info = DatasetInfo {
            image: [size, size, 3],
            classes: (0..classes).map(|class| class.to_string()).collect(),
            train,
            test,
            // Nothing is computed from it; two absent folders are not taken for one.
            digest: format!("absent: {}", root.display()),
            summary: Summary { splits: "as `expect` says".to_owned(), ..Summary::default() },
        };
        let absent = Some(format!("{}: there is no such folder", root.display()));
        Self { config, info, listing: Listing::default(), cache: Vec::new(), room: AtomicUsize::new(0), absent }
    }

    /// How many files in class folders were left out, because their names are not those of images.
    pub fn ignored(&self) -> usize {
        self.listing.ignored
    }

    fn items(&self, split: Split) -> &[Item] {
        match split {
            Split::Train => &self.listing.train,
            Split::Test => &self.listing.test,
        }
    }

    /// Runs `then` on the decoded image.
    fn with_image(&self, split: Split, index: usize, then: impl FnOnce(&RgbImage)) -> Result<()> {
        let slot = match split {
            Split::Train => self.cache.get(index),
            Split::Test => None,
        };
        if let Some(image) = slot.and_then(OnceLock::get) {
            then(image);
            return Ok(());
        }
        let path = &self.items(split)[index].path;
        let image = decode::decode(path, self.config.size)?;
        let [height, width, _] = self.info.image;
        let found = [image.height() as usize, image.width() as usize];
        if self.config.size.is_none() && found != [height, width] {
            return Err(Error::Data(format!(
                "{}: an image of {} x {} pixels (height x width), where {} is of {height} x {width}; give `size` to bring \
                 all to one",
                path.display(),
                found[0],
                found[1],
                self.listing.train[0].path.display(),
            )));
        }
        then(&image);
        let take = |room: usize| room.checked_sub(image.as_raw().len());
        if let Some(slot) = slot
            && self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
        {
            // If another thread was first, a little of the room is lost: harmless.
            let _ = slot.set(image);
        }
        Ok(())
    }

    /// What is seen of an image, each way that its augmentation has: the middle first, then the corners, then the mirror
    /// images of all.
    fn views(&self) -> Vec<View> {
        let corners: &[[f32; 2]] = match self.config.crop {
            Crop::Center => &[[0.5, 0.5]],
            Crop::Random => &[[0.5, 0.5], [0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]],
        };
        let flips: &[bool] = if self.config.flip { &[false, true] } else { &[false] };
        flips.iter().flat_map(|&flip| corners.iter().map(move |&at| View { at, flip })).collect()
    }

    /// The items of a split, which must hold all of `indices`.
    fn present(&self, split: Split, indices: &[usize]) -> Result<&[Item]> {
        if let Some(absent) = &self.absent {
            return Err(Error::Data(absent.clone()));
        }
        let items = self.items(split);
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
        let labels = self.labels(split, indices)?;
        let [height, width, channels] = self.info.image;
        let mut pixels = vec![0.0; indices.len() * height * width * channels];
        pixels.par_chunks_mut(height * width * channels).zip(indices).zip(views).try_for_each(
            |((out, &index), view)| {
                self.with_image(split, index, |image| {
                    decode::write(image, [height, width], view.at, view.flip, out);
                })
            },
        )?;
        Ok(Images { pixels: Tensor::from_vec(pixels, &[indices.len(), height, width, channels])?, labels })
    }
}

/// What is drawn anew whenever a training image is used.
fn augmentation(config: &FolderConfig) -> Vec<String> {
    let crop = (config.crop == Crop::Random).then(|| "a random window".to_owned());
    crop.into_iter().chain(config.flip.then(|| "mirrored at random".to_owned())).collect()
}

impl Dataset for Folder {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn absent(&self) -> Option<&str> {
        self.absent.as_deref()
    }

    fn batch(&self, split: Split, indices: &[usize], augment: Option<&Rng>) -> Result<Images> {
        let flips = match augment {
            Some(rng) if self.config.flip => rng.part("flip", 0).bits(indices.len()),
            _ => vec![0; indices.len()],
        };
        let corners = match augment {
            Some(rng) if self.config.crop == Crop::Random => rng.part("crop", 0).uniform(2 * indices.len()),
            _ => vec![0.5; 2 * indices.len()],
        };
        let views = flips.iter().zip(corners.as_chunks().0);
        self.images(split, indices, &views.map(|(flip, &at)| View { at, flip: flip >> 31 == 1 }).collect::<Vec<_>>())
    }

    fn labels(&self, split: Split, indices: &[usize]) -> Result<Codes> {
        let items = self.present(split, indices)?;
        Ok(Codes::from_vec(indices.iter().map(|&index| items[index].class).collect(), &[indices.len()])?)
    }

    fn variants(&self) -> Option<usize> {
        Some(self.views().len())
    }

    fn variant(&self, split: Split, indices: &[usize], variant: usize) -> Result<Images> {
        let views = self.views();
        let view = views.get(variant).ok_or_else(|| {
            Error::Data(format!("variant {variant} of images was asked for, of which there are {}", views.len()))
        })?;
        self.images(split, indices, &vec![*view; indices.len()])
    }
}

declare_plugin! {
    dataset "folder": FolderConfig => Folder::new;
}
