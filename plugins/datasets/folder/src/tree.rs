//! What lies in a folder: which files are images, of which class, and of which split where folders say so.

use crate::names::{Entry, Kind, Walk, entries, name};
use rqlab_images::splits::{Word, word};
use rqlab_images::{Bad, has_image_ending};
use rqlab_sdk::contracts::LeftOut;
use rqlab_sdk::{Error, Result, choice};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

choice! {
    /// What the folders in a data set's folder are.
    pub enum Layout {
        /// Splits, if their names say so; else classes.
        Auto = "auto",
        /// Splits: `train`, and `test` or another of its words.
        Splits = "splits",
        /// Classes, whatever their names are.
        Classes = "classes",
    }
}

/// Why a link is not followed.
const CIRCLE: &str = "links to folders that they lie in";

/// How a tree is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) layout: Layout,
    /// Whether images in folders within class folders count.
    pub(crate) nested: bool,
    /// The folder of test images, if it was named.
    pub(crate) test: Option<&'a str>,
}

/// An image file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) path: PathBuf,
    pub(crate) class: u32,
    /// Whether it lies in a folder of test images.
    pub(crate) test: bool,
}

/// What a folder holds.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// In order of their names; empty if there are none.
    pub(crate) classes: Vec<String>,
    /// In order of their places.
    pub(crate) items: Vec<Item>,
    /// The folders of the splits, where test images have one of their own.
    pub(crate) splits: Option<[String; 2]>,
    pub(crate) notes: Vec<String>,
    out: BTreeMap<String, (usize, PathBuf)>,
}

impl Tree {
    /// Reads the names under `root`.
    ///
    /// # Errors
    /// A folder that cannot be read, or has no images; names that leave open what is meant.
    pub(crate) fn read(root: &Path, how: Reading<'_>) -> Result<Self> {
        let mut tree = Self::default();
        let (train, tests) = tree.split_folders(root, how)?;
        let training = tree.part(&train, how.nested)?;
        if training.is_empty() {
            return Err(tree.no_images(&train, how.nested));
        }
        let labelled = training.is_labelled();
        let testing = tree.chosen(&tests, labelled, how)?;
        let mut names: BTreeSet<String> = training.classes.keys().cloned().collect();
        if let Some((_, testing)) = &testing {
            same_spelling(&names, testing)?;
            names.extend(testing.classes.keys().cloned());
        }
        tree.classes = names.into_iter().collect();
        if let Some((folder, testing)) = testing {
            tree.splits = Some([name(&train)?, name(&folder)?]);
            tree.add(testing, true);
        }
        tree.add(training, false);
        tree.items.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    /// The files that are not used, by reason.
    pub(crate) fn left_out(&self) -> Vec<LeftOut> {
        let left_out = |(reason, (count, example)): (&String, &(usize, PathBuf))| LeftOut {
            unit: "file".to_owned(),
            reason: reason.clone(),
            count: *count,
            example: example.display().to_string(),
        };
        self.out.iter().map(left_out).collect()
    }

    /// So many of the files that were left out for this reason are used after all.
    pub(crate) fn used(&mut self, reason: &str, count: usize) {
        if let Some((left, _)) = self.out.get_mut(reason) {
            *left = left.saturating_sub(count);
        }
        self.out.retain(|_, (left, _)| *left > 0);
    }

    /// Lets go of the images that cannot be used.
    pub(crate) fn drop_bad(&mut self, bad: &[Bad]) {
        let bad: BTreeSet<usize> = bad.iter().map(|bad| bad.index).collect();
        let mut index = 0..;
        self.items.retain(|_| index.next().is_some_and(|index| !bad.contains(&index)));
    }

    /// The folder of training images, and those that may be of test images, the best first. Where `root` holds no splits, it is
    /// the only one.
    fn split_folders(&mut self, root: &Path, how: Reading<'_>) -> Result<(PathBuf, Vec<PathBuf>)> {
        let (mut training, mut tests, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries(root)?.into_iter().filter(|entry| entry.is_folder) {
            let name = name(&entry.path)?;
            match word(&name) {
                _ if how.test == Some(name.as_str()) => tests.push((0, name, entry.path)),
                Some(Word::Train) => training.push((name.len(), name, entry.path)),
                Some(Word::Test(rank)) => tests.push((rank + 1, name, entry.path)),
                None => others.push((name, entry.path)),
            }
        }
        if let Some(asked) = how.test
            && tests.first().is_none_or(|_| !tests.iter().any(|(_, name, _)| name == asked))
        {
            return Err(Error::Data(format!("{}: has no folder `{asked}`, which `test` names", root.display())));
        }
        training.sort();
        tests.sort();
        others.retain(|(_, path)| how.layout != Layout::Classes && !Walk::at(path).images().is_empty());
        let listed = |names: Vec<&str>| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let beside = listed(others.iter().map(|(name, _)| name.as_str()).collect());
        let words = listed(tests.iter().map(|(_, name, _)| name.as_str()).collect());
        let splits = match how.layout {
            Layout::Classes => false,
            Layout::Splits => true,
            Layout::Auto => !training.is_empty() && (!tests.is_empty() || others.is_empty()),
        };
        if !splits {
            if how.layout == Layout::Auto && training.is_empty() && others.is_empty() && !tests.is_empty() {
                return Err(Error::Data(format!(
                    "{}: holds {words} and no folder of training images; name one `train`, or say `layout: classes` if these \
                     are classes",
                    root.display()
                )));
            }
            let of_splits = training.iter().map(|(_, name, _)| name).chain(tests.iter().map(|(_, name, _)| name));
            let of_splits = listed(of_splits.map(String::as_str).collect());
            if !of_splits.is_empty() && how.layout == Layout::Auto {
                self.notes.push(format!(
                    "{of_splits} read as a class, with {beside} beside it; `layout: splits` reads folders as splits"
                ));
            }
            return Ok((root.to_owned(), vec![]));
        }
        let Some((_, used, train)) = training.first().cloned() else {
            return Err(Error::Data(format!(
                "{}: has no folder `train`, which `layout: splits` asks for",
                root.display()
            )));
        };
        for (_, name, path) in &training[1..] {
            self.not_used(name, path, &format!("training images come from `{used}`"));
        }
        for (name, path) in &others {
            self.not_used(name, path, "it lies beside the splits");
        }
        for entry in entries(root)?.iter().filter(|entry| !entry.is_folder && has_image_ending(&entry.path)) {
            self.out("outside the folders of the splits", &entry.path, 1);
        }
        Ok((train, tests.into_iter().map(|(_, _, path)| path).collect()))
    }

    /// Of the folders of test images the first that has class folders if the training images have, and none if not.
    fn chosen(&mut self, tests: &[PathBuf], labelled: bool, how: Reading<'_>) -> Result<Option<(PathBuf, Part)>> {
        let mut chosen: Option<(PathBuf, Part)> = None;
        for folder in tests {
            let name = name(folder)?;
            if let Some((used, _)) = &chosen {
                let used = used.file_name().unwrap_or_default().to_string_lossy().into_owned();
                self.not_used(&name, folder, &format!("test images come from `{used}`; `test` names another"));
                continue;
            }
            // What is left out of a folder that is not used is that folder.
            let out = self.out.clone();
            let part = self.part(folder, how.nested)?;
            if !part.is_empty() && part.is_labelled() == labelled {
                chosen = Some((folder.clone(), part));
                continue;
            }
            self.out = out;
            let why = match (part.is_empty(), labelled) {
                (true, _) => "it holds no images",
                (false, true) => "it has no class folders, as the training images have",
                (false, false) => "it has class folders, and the training images have none",
            };
            if how.test == Some(name.as_str()) {
                return Err(Error::Data(format!("{}: cannot be the test images: {why}", folder.display())));
            }
            self.not_used(&name, folder, why);
        }
        Ok(chosen)
    }

    /// What a split's folder holds: class folders with images; or, if there is none, images.
    fn part(&mut self, folder: &Path, nested: bool) -> Result<Part> {
        let mut part = Part::default();
        let (folders, files): (Vec<_>, Vec<_>) = entries(folder)?.into_iter().partition(|entry| entry.is_folder);
        let here = Walk::at(folder);
        for class in &folders {
            let Some(within) = here.down(class) else {
                self.out(CIRCLE, &class.path, 1);
                continue;
            };
            let images = self.images(&within, nested)?;
            if !images.is_empty() {
                part.classes.insert(name(&class.path)?, images);
            } else if !part.empty_classes.contains(&class.path) {
                part.empty_classes.push(class.path.clone());
            }
        }
        let (images, others): (Vec<_>, Vec<_>) = files.into_iter().partition(Entry::is_image);
        if part.is_labelled() {
            for class in &part.empty_classes {
                self.notes.push(format!("{} holds no image of its own and is no class", class.display()));
            }
            images.iter().for_each(|image| self.out("outside the class folders", &image.path, 1));
        } else {
            others.iter().for_each(|other| self.out_by_name(other));
            part.unlabelled = images.into_iter().map(|image| image.path).collect();
        }
        Ok(part)
    }

    /// The images of a class.
    fn images(&mut self, here: &Walk, nested: bool) -> Result<Vec<PathBuf>> {
        let mut images = Vec::new();
        for entry in entries(here.folder())? {
            if entry.is_folder {
                match here.down(&entry) {
                    None => self.out(CIRCLE, &entry.path, 1),
                    Some(within) if nested => images.extend(self.images(&within, nested)?),
                    Some(within) => self.out_all("in folders within class folders", &within),
                }
            } else if entry.is_image() {
                images.push(entry.path);
            } else {
                self.out_by_name(&entry);
            }
        }
        Ok(images)
    }

    fn add(&mut self, part: Part, test: bool) {
        let items = part.unlabelled.into_iter().map(|path| Item { path, class: 0, test });
        self.items.extend(items);
        for (name, paths) in part.classes {
            let class = self.classes.partition_point(|known| *known < name) as u32;
            self.items.extend(paths.into_iter().map(|path| Item { path, class, test }));
        }
    }

    fn not_used(&mut self, name: &str, folder: &Path, why: &str) {
        self.notes.push(format!("the folder `{name}` is not used: {why}"));
        self.out_all("in folders that are not used", &Walk::at(folder));
    }

    fn out(&mut self, reason: &str, example: &Path, count: usize) {
        self.out.entry(reason.to_owned()).or_insert_with(|| (0, example.to_owned())).0 += count;
    }

    /// Leaves out all images in a folder.
    fn out_all(&mut self, reason: &str, folder: &Walk) {
        let images = folder.images();
        if let Some(first) = images.first() {
            self.out(reason, first, images.len());
        }
    }

    fn out_by_name(&mut self, entry: &Entry) {
        let ending = entry.path.extension().map(|ending| format!(".{}", ending.to_string_lossy().to_lowercase()));
        let reason = match entry.kind {
            Kind::File => ending.unwrap_or_else(|| "without an ending".to_owned()),
            Kind::BrokenLink => "broken links".to_owned(),
            Kind::Other => "no plain files".to_owned(),
        };
        self.out(&reason, &entry.path, 1);
    }

    fn no_images(&self, folder: &Path, nested: bool) -> Error {
        let within = self.out.get("in folders within class folders").filter(|_| !nested);
        let reasons: Vec<String> = self.out.iter().map(|(reason, (count, _))| format!("{count} {reason}")).collect();
        Error::Data(match within {
            Some((count, example)) => format!(
                "{}: its class folders hold no images of their own; {count} lie in folders within, such as {}: `nested: true` \
                 reads these",
                folder.display(),
                example.display()
            ),
            None if entries(folder).is_ok_and(|all| all.is_empty()) => {
                format!(
                    "{}: has no folders; every class needs one, and images without classes lie here",
                    folder.display()
                )
            }
            None if reasons.is_empty() => format!("{}: holds no images", folder.display()),
            None => format!("{}: holds no images; what is there: {}", folder.display(), reasons.join(", ")),
        })
    }
}

/// What a split's folder holds.
#[derive(Debug, Default)]
struct Part {
    classes: BTreeMap<String, Vec<PathBuf>>,
    unlabelled: Vec<PathBuf>,
    empty_classes: Vec<PathBuf>,
}

impl Part {
    fn is_labelled(&self) -> bool {
        !self.classes.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.classes.is_empty() && self.unlabelled.is_empty()
    }
}

/// Classes of test images that are spelled otherwise in training are a mistake, and no classes without training images.
fn same_spelling(training: &BTreeSet<String>, testing: &Part) -> Result<()> {
    for (name, paths) in &testing.classes {
        let other = training.iter().find(|known| *known != name && known.to_lowercase() == name.to_lowercase());
        if let Some(other) = other.filter(|_| !training.contains(name)) {
            let place = paths[0].parent().unwrap_or(&paths[0]).display();
            return Err(Error::Data(format!(
                "{place}: the class `{name}` is spelled `{other}` among the training images; name both folders alike"
            )));
        }
    }
    Ok(())
}
