//! Labelled images as files: one folder per class.

mod names;
mod tree;

pub use tree::Layout;

use rayon::prelude::*;
use rqlab_images::{
    BadFiles, Contents, FileSource, Flaw, Header, ImageFiles, ImageSet, Look, Member, Preparation, Source, Stamp,
    Survey, caption, image_config, splits, survey,
};
use rqlab_sdk::prelude::*;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use tree::{Item, Reading, Tree};

/// Up to this many bytes, files are hashed whole; of larger sets, names, sizes and times of change.
const WHOLE: u64 = 1 << 30;

image_config! {
    /// Images as files: one folder per class, or images without classes. JPEG, PNG, WebP, BMP, GIF, TIFF and PNM are read, and
    /// turned upright as their orientation tags say. Hidden files are passed over, symbolic links are followed; what else is
    /// left out is counted in the plan.
    pub struct FolderConfig {
        /// Folder with the class folders, or with images; or with folders for the splits that hold these: `train` or `training`,
        /// and `test`, `testing`, `eval`, `evaluation`, `holdout`, `validation`, `valid`, `val` or `dev`, in any case; of several
        /// the first in this order is used. A relative path starts at the experiment file.
        path: String, local;
        /// What the folders in `path` are, where their names do not tell.
        layout: Layout = Layout::Auto, local;
        /// Whether images in folders within class folders are read, too.
        nested: bool = false, local;
        /// The folder of test images, where several could be.
        test: Option<String> = None, local;
        /// Without a folder of test images: the fraction of the images of each class that makes the test split, at least one
        /// where a class has two. The files' names decide, so that adding one moves at most one other.
        test_fraction: f32 = 0.1, in 0.0..=0.9;
        /// Whether images have captions, for priors that are told them: the text of `17.txt` is that of `17.jpg` beside it.
        captions: bool = false;
    }
}

/// The data set.
pub type Folder = ImageSet<Files>;

/// The files that are used.
pub struct Files(Vec<PathBuf>);

impl ImageFiles for Files {
    const UNIT: &'static str = "file";
    type Shared = ();
    type Bytes = Vec<u8>;

    fn shared(&self, _: &[usize]) -> Result<()> {
        Ok(())
    }

    fn bytes(&self, image: usize, (): &()) -> Result<Vec<u8>, Flaw> {
        fs::read(&self.0[image]).map_err(|e| Flaw::unreadable(&e))
    }

    fn place(&self, image: usize) -> String {
        self.0[image].display().to_string()
    }
}

/// Reads the names of the files, and what each says of its image.
///
/// # Errors
/// A folder that is missing or has no images; images that cannot be used, or are of several sizes where none is asked for;
/// a split without images; other numbers than are expected.
pub fn open(config: FolderConfig, cx: &DatasetContext) -> Result<Folder> {
    let settings = config.settings();
    settings.check()?;
    let root = cx.base.join(&config.path);
    if !root.exists()
        && let Some(promised) = ImageSet::promised(&settings, &root.display().to_string(), config.captions)
    {
        return Ok(promised);
    }
    let how = Reading { layout: config.layout, nested: config.nested, test: config.test.as_deref() };
    let mut tree = Tree::read(&root, how)?;
    let found = look(&tree.items, &root, &settings.preparation(), config.bad_files, cx)?;
    let settled = settings.settled(&found, Files::UNIT, |index| tree.items[index].path.display().to_string())?;
    tree.drop_bad(&found.bad);
    let captions = if config.captions { Some(captions(&mut tree)?) } else { None };
    let (members, splits) = split(&tree, &root, config.test_fraction);
    let contents = Contents {
        plugin: "folder",
        place: root.display().to_string(),
        left_out: tree.left_out(),
        classes: tree.classes,
        members,
        captions,
        splits,
        remedy: match tree.splits {
            Some(_) => "",
            None if config.test_fraction == 0.0 => "; change `test_fraction`",
            None => "; no class has two images to divide",
        },
        notes: tree.notes,
    };
    let files = Files(tree.items.into_iter().map(|item| item.path).collect());
    ImageSet::new(settings, &found, settled, contents, files)
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

/// The texts beside the images, empty ones where there is none.
fn captions(tree: &mut Tree) -> Result<Vec<String>> {
    let one = |item: &Item| {
        let path = item.path.with_extension("txt");
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
            read => read.map_err(Error::file(&path))?,
        };
        caption(&bytes).map_err(|wrong| Error::Data(format!("{}: the caption {wrong}", path.display())))
    };
    let captions = tree.items.par_iter().map(one).collect::<Result<Vec<_>>>()?;
    tree.used(".txt", captions.iter().filter(|caption| !caption.is_empty()).count());
    Ok(captions)
}

/// The place of a file in the folder, as bytes.
fn name<'a>(path: &'a Path, root: &Path) -> &'a [u8] {
    path.strip_prefix(root).unwrap_or(path).as_os_str().as_encoded_bytes()
}

/// Which images are for test, and how they were told apart.
fn split(tree: &Tree, root: &Path, fraction: f32) -> (Vec<Member>, String) {
    let (test, how): (Vec<bool>, _) = match &tree.splits {
        Some([training, testing]) => {
            (tree.items.iter().map(|item| item.test).collect(), format!("the folders `{training}` and `{testing}`"))
        }
        None => {
            let of = if tree.classes.is_empty() { "the images" } else { "each class" };
            let named = tree.items.iter().map(|item| (item.class, name(&item.path, root)));
            (splits::by_class(named, fraction), format!("{fraction} of {of} for test, chosen by name"))
        }
    };
    (tree.items.iter().zip(test).map(|(item, test)| Member { class: item.class, test }).collect(), how)
}

declare_plugin! {
    dataset "folder": FolderConfig => open;
}
