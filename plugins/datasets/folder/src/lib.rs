//! Labelled images as files: one folder per class.

mod tree;

pub use tree::Layout;

use rayon::prelude::*;
use rqlab_images::{
    Augmentation, BadFiles, Crop, FileSource, Flaw, Header, Look, Picture, Preparation, Size, Source, Stamp, Survey,
    View, splits, survey, write,
};
use rqlab_sdk::config::ConfigError;
use rqlab_sdk::prelude::*;
use std::fs::{self, Metadata};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;
use tree::{Item, Reading, Tree};

/// Up to this many bytes, files are hashed whole; of larger sets, names, sizes and times of change.
const WHOLE: u64 = 1 << 30;

config! {
    /// Images as files: one folder per class, or images without classes. JPEG, PNG, WebP, BMP, GIF, TIFF and PNM are read, and
    /// turned upright as their orientation tags say. Hidden files are passed over, symbolic links are followed; what else is
    /// left out is counted in the plan.
    pub struct FolderConfig {
        /// Folder with the class folders, or with images; or with folders for the splits that hold these: `train` or `training`,
        /// and `test`, `testing`, `eval`, `evaluation`, `holdout`, `validation`, `valid`, `val` or `dev`, in any case; of several
        /// the first in this order is used. A relative path starts at the experiment file.
        path: String, local;
        /// Height and width in pixels, one number for both or `(height, width)`: an image is scaled to cover it, and cut to it.
        /// By default images stay as they are, and must all be of one size.
        size: Option<Size> = None, in 4..=4096;
        /// Without a folder of test images: the fraction of the images of each class that makes the test split, at least one
        /// where a class has two. The files' names decide, so that adding one moves at most one other.
        test_fraction: f32 = 0.1, in 0.0..=0.9;
        /// How many classes, training images and test images there must be, without those that are left out. With it and `size`,
        /// an experiment can be planned on a machine that does not have the images.
        expect: Option<[usize; 3]> = None, local;
        /// Which window is cut out.
        crop: Crop = Crop::Center;
        /// Whether training images are mirrored at random.
        flip: bool = false;
        /// 1 for grey, 3 for red, green and blue. By default 1 if all images are grey, else 3.
        channels: Option<usize> = None, in 1..=3;
        /// What transparent parts show: red, green and blue.
        background: [usize; 3] = [255, 255, 255], in 0..=255;
        /// What becomes of images that cannot be read: `refuse` makes them an error, found by their headers in the plan; with
        /// `skip` every image is decoded once, and those that fail are left out and counted.
        bad_files: BadFiles = BadFiles::Refuse, local;
        /// What the folders in `path` are, where their names do not tell.
        layout: Layout = Layout::Auto, local;
        /// The folder of test images, where several could be.
        test: Option<String> = None, local;
        /// Whether images in folders within class folders are read, too.
        nested: bool = false, local;
        /// Images of more millions of pixels are bad files: a bound on memory.
        max_megapixels: usize = 128, in 1..=4096, local;
        /// Memory for decoded and scaled training images in MiB; those that do not fit are decoded again each time. Test images,
        /// which a measurement goes through once, are not kept.
        cache_mib: usize = 512, in 0..=1_048_576, local;
    }
}

/// The data set.
pub struct Folder {
    config: FolderConfig,
    preparation: Preparation,
    info: DatasetInfo,
    train: Vec<Item>,
    test: Vec<Item>,
    /// Decoded training images.
    cache: Vec<OnceLock<Picture>>,
    /// How many more bytes the cache may take.
    room: AtomicUsize,
    absent: Option<String>,
}

impl Folder {
    /// Reads the names of the files, and what each says of its image.
    ///
    /// # Errors
    /// A folder that is missing or has no images; images that cannot be used, or are of several sizes where none is asked for;
    /// a split without images; other numbers than are expected.
    pub fn new(config: FolderConfig, cx: &DatasetContext) -> Result<Self> {
        if config.channels == Some(2) {
            return Err(ConfigError::field("channels", "images have 1 channel or 3").into());
        }
        let root = cx.base.join(&config.path);
        if let (Some(expected), Some(size), false) = (config.expect, config.size, root.exists()) {
            return Ok(Self::promised(config, expected, size, &root));
        }
        let how = Reading { layout: config.layout, nested: config.nested, test: config.test.as_deref() };
        let mut tree = Tree::read(&root, how)?;
        let mut preparation = preparation(&config);
        let found = look(&tree.items, &root, &preparation, config.bad_files, cx)?;
        let place = |index: usize| tree.items[index].path.display().to_string();
        let bad = found.left_out(config.bad_files, "file", place)?;
        let side = match config.size {
            Some(size) => size.sides(),
            None => found.one_size(place)?,
        };
        preparation.channels = found.channels(config.channels, preparation.background);
        tree.drop_bad(&found.bad);
        let (train, test, how_split) = split(&tree, &root, config.test_fraction)?;
        let info = DatasetInfo {
            image: [side[0], side[1], preparation.channels],
            classes: tree.classes.clone(),
            train: train.len(),
            test: test.len(),
            digest: digest(&preparation, &found, &tree.classes, &test, &root),
            summary: Summary {
                per_class: per_class(tree.classes.len(), [&train, &test]),
                sizes: found.sizes(),
                left_out: tree.left_out(bad),
                splits: how_split,
                preparation: preparation.facts(&found),
                augmentation: augmentation(&config).facts(),
                notes: tree.notes.clone(),
            },
        };
        expected(&config, &info, &root)?;
        let cache = (0..info.train).map(|_| OnceLock::new()).collect();
        let room = AtomicUsize::new(config.cache_mib << 20);
        Ok(Self { config, preparation, info, train, test, cache, room, absent: None })
    }

    /// A set of which only the sizes are known.
    fn promised(config: FolderConfig, [classes, train, test]: [usize; 3], size: Size, root: &Path) -> Self {
        let preparation = preparation(&config);
        let info = DatasetInfo {
            image: [size.height, size.width, preparation.channels],
            classes: (0..classes).map(|class| class.to_string()).collect(),
            train,
            test,
            // Nothing is computed from it; two absent folders are not taken for one.
            digest: format!("absent: {}", root.display()),
            summary: Summary {
                splits: "as `expect` says".to_owned(),
                preparation: preparation.facts(&Survey::default()),
                augmentation: augmentation(&config).facts(),
                ..Summary::default()
            },
        };
        let absent = Some(format!("{}: there is no such folder", root.display()));
        let (train, test, cache, room) = (vec![], vec![], vec![], AtomicUsize::new(0));
        Self { config, preparation, info, train, test, cache, room, absent }
    }

    fn items(&self, split: Split) -> &[Item] {
        match split {
            Split::Train => &self.train,
            Split::Test => &self.test,
        }
    }

    /// Runs `then` on the decoded image, of which at least what `view` shows is there.
    fn with_image(&self, split: Split, index: usize, view: View, then: impl FnOnce(&Picture)) -> Result<()> {
        let slot = match split {
            Split::Train => self.cache.get(index),
            Split::Test => None,
        };
        if let Some(picture) = slot.and_then(OnceLock::get) {
            then(picture);
            return Ok(());
        }
        let path = &self.items(split)[index].path;
        let bytes = fs::read(path).map_err(Error::file(path))?;
        let bad =
            |flaw: Flaw| Error::Data(format!("{}: {flaw}; `bad_files: skip` leaves such files out", path.display()));
        let picture = self.preparation.picture(&bytes, view.at).map_err(bad)?;
        let [height, width, _] = self.info.image;
        if picture.size[0] < height
            || picture.size[1] < width
            || self.config.size.is_none() && picture.size != [height, width]
        {
            let [h, w] = picture.size;
            let message = format!("{}: has {h} x {w} pixels now, and had {height} x {width}", path.display());
            return Err(Error::Data(message));
        }
        then(&picture);
        let take = |room: usize| room.checked_sub(picture.bytes.len());
        if let Some(slot) = slot
            && picture.any_window
            && self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
        {
            // If another thread was first, a little of the room is lost: harmless.
            let _ = slot.set(picture);
        }
        Ok(())
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
            |((out, &index), &view)| {
                self.with_image(split, index, view, |picture| write(picture, [height, width], view, out))
            },
        )?;
        Ok(Images { pixels: Tensor::from_vec(pixels, &[indices.len(), height, width, channels])?, labels })
    }
}

fn preparation(config: &FolderConfig) -> Preparation {
    Preparation {
        size: config.size,
        channels: config.channels.unwrap_or(3),
        background: config.background.map(|channel| channel as u8),
        crop: config.crop,
        max_megapixels: config.max_megapixels,
    }
}

fn augmentation(config: &FolderConfig) -> Augmentation {
    Augmentation { flip: config.flip, random_window: config.crop == Crop::Random && config.size.is_some() }
}

/// Looks at every image: its header; with `skip`, all of it.
fn look(
    items: &[Item],
    root: &Path,
    preparation: &Preparation,
    policy: BadFiles,
    cx: &DatasetContext,
) -> Result<Survey> {
    let files = items.par_iter().map(|item| fs::metadata(&item.path).map_err(Error::file(&item.path)));
    let files: Vec<Metadata> = files.collect::<Result<_>>()?;
    let hashed_whole = files.iter().map(Metadata::len).sum::<u64>() <= WHOLE;
    let mut stamp = Stamp::new(&format!("folder {policy:?} {} {}", preparation.max_megapixels, root.display()));
    for (item, file) in items.iter().zip(&files) {
        stamp.add(name(&item.path, root), file);
    }
    let one = |index: usize| -> Result<Look, Flaw> {
        let (path, file) = (&items[index].path, &files[index]);
        let unreadable = |e: std::io::Error| Flaw::unreadable(&e);
        let (header, content) = if hashed_whole || policy == BadFiles::Skip {
            let bytes = fs::read(path).map_err(unreadable)?;
            let header = match policy {
                BadFiles::Refuse => header(&mut &*bytes, preparation)?,
                BadFiles::Skip => preparation.verified(&bytes)?,
            };
            (header, hashed_whole.then(|| blake3::hash(&bytes)))
        } else {
            (header(&mut FileSource::open(path).map_err(unreadable)?, preparation)?, None)
        };
        let mut hasher = blake3::Hasher::new();
        let name = name(path, root);
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(&file.len().to_le_bytes());
        match content {
            Some(content) => hasher.update(content.as_bytes()),
            None => {
                let modified = file.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                hasher.update(&modified.map_or(0, |time| time.as_nanos()).to_le_bytes())
            }
        };
        Ok(Look { header, digest: *hasher.finalize().as_bytes() })
    };
    Ok(survey(&stamp, items.len(), &cx.progress, one))
}

fn header(source: &mut impl Source, preparation: &Preparation) -> Result<Header, Flaw> {
    let header = Header::read(source)?;
    preparation.check(&header)?;
    Ok(header)
}

/// The place of a file in the folder, as bytes.
fn name<'a>(path: &'a Path, root: &Path) -> &'a [u8] {
    path.strip_prefix(root).unwrap_or(path).as_os_str().as_encoded_bytes()
}

/// Training images, test images, and how they were told apart.
///
/// # Errors
/// A split without images.
fn split(tree: &Tree, root: &Path, fraction: f32) -> Result<(Vec<Item>, Vec<Item>, String)> {
    let (test, train): (Vec<(Item, bool)>, Vec<_>);
    let how = match &tree.splits {
        Some([training, testing]) => {
            (test, train) = tree.items.iter().map(|item| (item.clone(), item.test)).partition(|(_, test)| *test);
            format!("the folders `{training}` and `{testing}`")
        }
        None => {
            let keys = tree.items.iter().map(|item| (item.class, name(&item.path, root)));
            let chosen = splits::by_class(keys, fraction);
            (test, train) = tree.items.iter().cloned().zip(chosen).partition(|(_, test)| *test);
            let of = if tree.classes.is_empty() { "the images" } else { "each class" };
            format!("{fraction} of {of} for test, chosen by name")
        }
    };
    let items = |chosen: Vec<(Item, bool)>| chosen.into_iter().map(|(item, _)| item).collect::<Vec<_>>();
    let (train, test) = (items(train), items(test));
    for (items, split) in [(&train, "training"), (&test, "test")] {
        if items.is_empty() {
            let hint = match tree.splits {
                Some(_) => "",
                None if fraction == 0.0 => "; change `test_fraction`",
                None => "; no class has two images to divide",
            };
            return Err(Error::Data(format!("{}: no image for the {split} split{hint}", root.display())));
        }
    }
    Ok((train, test, how))
}

/// Training and test images of each class.
fn per_class(classes: usize, splits: [&[Item]; 2]) -> Vec<[usize; 2]> {
    let mut counts = vec![[0; 2]; classes];
    for (split, items) in splits.into_iter().enumerate() {
        for item in items {
            if let Some(counts) = counts.get_mut(item.class as usize) {
                counts[split] += 1;
            }
        }
    }
    counts
}

/// A digest of what determines pixels and labels: the files that are used, the classes, which are for test, and how they are
/// prepared.
fn digest(preparation: &Preparation, found: &Survey, classes: &[String], test: &[Item], root: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("folder {} {classes:?} {}", preparation.identity(), found.digest).as_bytes());
    for item in test {
        let name = name(&item.path, root);
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
    }
    hasher.finalize().to_hex().to_string()
}

/// Other numbers than `expect` asks for are an error.
fn expected(config: &FolderConfig, info: &DatasetInfo, root: &Path) -> Result<()> {
    let found = [info.classes.len(), info.train, info.test];
    let Some(expected) = config.expect.filter(|expected| *expected != found) else { return Ok(()) };
    let counts = |[classes, train, test]: [usize; 3]| {
        let plural = if classes == 1 { "class" } else { "classes" };
        format!("{classes} {plural}, {train} training and {test} test images")
    };
    let left_out: usize = info.summary.left_out.iter().map(|out| out.count).sum();
    let left_out = if left_out == 0 { String::new() } else { format!(" ({left_out} files left out)") };
    let place = root.display();
    Err(Error::Data(format!("{place}: {}{left_out}, where `expect` asks for {}", counts(found), counts(expected))))
}

impl Dataset for Folder {
    fn info(&self) -> &DatasetInfo {
        &self.info
    }

    fn absent(&self) -> Option<&str> {
        self.absent.as_deref()
    }

    fn batch(&self, split: Split, indices: &[usize], augment: Option<&Rng>) -> Result<Images> {
        self.images(split, indices, &augmentation(&self.config).draw(augment, indices.len()))
    }

    fn labels(&self, split: Split, indices: &[usize]) -> Result<Codes> {
        let items = self.present(split, indices)?;
        Ok(Codes::from_vec(indices.iter().map(|&index| items[index].class).collect(), &[indices.len()])?)
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
    dataset "folder": FolderConfig => Folder::new;
}
