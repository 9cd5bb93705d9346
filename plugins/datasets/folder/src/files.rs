//! Which files a folder holds, of which class and split, and their digest.

use rqlab_sdk::{Error, Result};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Up to this many bytes, files are hashed whole; of larger sets, names, sizes and times of change.
const WHOLE: u64 = 1 << 30;

/// An image file.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) path: PathBuf,
    pub(crate) class: u32,
}

/// What a folder holds.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) classes: Vec<String>,
    pub(crate) train: Vec<Item>,
    pub(crate) test: Vec<Item>,
    /// Files in class folders that are no images by their names.
    pub(crate) ignored: usize,
    /// How the splits were made.
    pub(crate) splits: String,
}

impl Listing {
    /// Reads the names under `root`. Where it has a folder `train`, test images come from its folder `test` or `val`;
    /// else, the fraction `test_fraction` of all images makes the test split, chosen by their names.
    pub(crate) fn read(root: &Path, test_fraction: f32) -> Result<Self> {
        let (train, own_test) = (root.join("train"), ["test", "val", "validation"].map(|name| root.join(name)));
        let train = if train.is_dir() { train } else { root.to_owned() };
        let own_test = own_test.iter().find(|test| train != root && test.is_dir());
        let mut listing = Self::default();
        for folder in entries(&train)?.into_iter().filter(|path| path.is_dir()) {
            listing.classes.push(name(&folder));
            let items = listing.images(&folder, listing.classes.len() - 1)?;
            listing.train.extend(items);
        }
        if listing.classes.is_empty() {
            return Err(Error::Data(format!("{}: has no folders; every class needs one", train.display())));
        }
        if let Some(test) = own_test {
            listing.splits = format!("the folders `{}` and `{}`", name(&train), name(test));
            for folder in entries(test)?.into_iter().filter(|path| path.is_dir()) {
                let Some(class) = listing.classes.iter().position(|class| *class == name(&folder)) else {
                    return Err(Error::Data(format!(
                        "{}: this class is not among those of {}: {}",
                        folder.display(),
                        train.display(),
                        listing.classes.join(", ")
                    )));
                };
                let items = listing.images(&folder, class)?;
                listing.test.extend(items);
            }
        } else {
            listing.splits = format!("{test_fraction} of the images for test, chosen by their names");
            let chosen = |item: &Item| {
                let hash =
                    blake3::hash(item.path.strip_prefix(&train).unwrap_or(&item.path).as_os_str().as_encoded_bytes());
                let word = u32::from_le_bytes([hash.as_bytes()[0], hash.as_bytes()[1], hash.as_bytes()[2], 0]);
                (word as f32) < test_fraction * (1 << 24) as f32
            };
            (listing.test, listing.train) = std::mem::take(&mut listing.train).into_iter().partition(chosen);
        }
        for (items, split) in [(&listing.train, "training"), (&listing.test, "test")] {
            if items.is_empty() {
                let hint = if own_test.is_none() { "; change `test_fraction`" } else { "" };
                return Err(Error::Data(format!("{}: no image for the {split} split{hint}", root.display())));
            }
        }
        Ok(listing)
    }

    /// Training and test images of each class.
    pub(crate) fn per_class(&self) -> Vec<[usize; 2]> {
        let mut counts = vec![[0; 2]; self.classes.len()];
        for (split, items) in [&self.train, &self.test].into_iter().enumerate() {
            items.iter().for_each(|item| counts[item.class as usize][split] += 1);
        }
        counts
    }

    /// The images in a class's folder, which must have some.
    fn images(&mut self, folder: &Path, class: usize) -> Result<Vec<Item>> {
        let files = entries(folder)?.into_iter().filter(|path| path.is_file());
        let (images, others): (Vec<_>, Vec<_>) = files.partition(|path| is_image(path));
        self.ignored += others.len();
        if images.is_empty() {
            let others = if others.is_empty() { String::new() } else { format!(" among its {} files", others.len()) };
            return Err(Error::Data(format!("{}: no .jpg, .jpeg, .png or .webp{others}", folder.display())));
        }
        Ok(images.into_iter().map(|path| Item { path, class: class as u32 }).collect())
    }

    /// A digest of `settings` and of the files' places under `root`, splits, sizes and contents.
    pub(crate) fn digest(&self, settings: &str, root: &Path) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(settings.as_bytes());
        let all = || self.train.iter().map(|item| (0, item)).chain(self.test.iter().map(|item| (1, item)));
        let mut total = 0;
        for (_, item) in all() {
            total += fs::metadata(&item.path).map_err(Error::file(&item.path))?.len();
        }
        for (split, Item { path, .. }) in all() {
            let mut file = File::open(path).map_err(Error::file(path))?;
            let metadata = file.metadata().map_err(Error::file(path))?;
            let name = path.strip_prefix(root).unwrap_or(path).as_os_str().as_encoded_bytes();
            hasher.update(&[split]).update(&(name.len() as u64).to_le_bytes()).update(name);
            hasher.update(&metadata.len().to_le_bytes());
            if total > WHOLE {
                let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                hasher.update(&modified.map_or(0, |time| time.as_nanos()).to_le_bytes());
            } else {
                let mut bytes = Vec::with_capacity(metadata.len() as usize);
                file.read_to_end(&mut bytes).map_err(Error::file(path))?;
                hasher.update(&bytes);
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// What a folder holds, in order of names, without hidden entries. Symbolic links stand for what they point to.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::file(folder))? {
        let path = entry.map_err(Error::file(folder))?.path();
        if !name(&path).starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ["jpg", "jpeg", "png", "webp"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}
