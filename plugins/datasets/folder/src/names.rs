//! Names in folders, and the way from folder to folder.

use rqlab_images::has_image_ending;
use rqlab_sdk::{Error, Result};
use std::fs::{self, FileType};
use std::path::{Path, PathBuf};

/// What a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    BrokenLink,
    Other,
}

/// A name in a folder.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) is_folder: bool,
    pub(crate) kind: Kind,
}

impl Entry {
    pub(crate) fn is_image(&self) -> bool {
        self.kind == Kind::File && has_image_ending(&self.path)
    }
}

/// What a folder holds, in order of names, without hidden entries. Symbolic links stand for what they point to.
pub(crate) fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::file(folder))? {
        let entry = entry.map_err(Error::file(folder))?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let own = entry.file_type().map_err(Error::file(&path))?;
        // Nothing else is asked of a file that is no link.
        let kind = if own.is_symlink() { fs::metadata(&path).ok().map(|it| it.file_type()) } else { Some(own) };
        let is_folder = kind.as_ref().is_some_and(FileType::is_dir);
        let kind = match kind {
            None => Kind::BrokenLink,
            Some(kind) if kind.is_file() => Kind::File,
            Some(_) => Kind::Other,
        };
        found.push(Entry { path, is_folder, kind });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// A way into a folder: links may lead in circles, and a way never comes back to where it was.
#[derive(Debug)]
pub(crate) struct Walk {
    folder: PathBuf,
    /// The folders on the way without links in their paths, from the first to this one.
    real: Vec<PathBuf>,
}

impl Walk {
    /// That begins in `folder`.
    pub(crate) fn at(folder: &Path) -> Self {
        let real = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        Self { folder: folder.to_owned(), real: vec![real] }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// On into a folder in this one; none where that leads back, to a folder on the way or one that holds it.
    pub(crate) fn down(&self, entry: &Entry) -> Option<Self> {
        let real = fs::canonicalize(&entry.path).unwrap_or_else(|_| entry.path.clone());
        if self.real.iter().any(|on_the_way| on_the_way.starts_with(&real)) {
            return None;
        }
        let real = self.real.iter().cloned().chain([real]).collect();
        Some(Self { folder: entry.path.clone(), real })
    }

    /// The files here and further on that are images by their names. A folder that cannot be read has none.
    pub(crate) fn images(&self) -> Vec<PathBuf> {
        let mut images = Vec::new();
        for entry in entries(&self.folder).unwrap_or_default() {
            if entry.is_image() {
                images.push(entry.path);
            } else if entry.is_folder
                && let Some(within) = self.down(&entry)
            {
                images.extend(within.images());
            }
        }
        images
    }
}

/// The name of a folder that is a class or a split: it stands in plans, reports and settings.
pub(crate) fn name(folder: &Path) -> Result<String> {
    let name = folder.file_name().unwrap_or_default();
    name.to_str().map(str::to_owned).ok_or_else(|| {
        Error::Data(format!(
            "{}: the name of this folder is not UTF-8, as a class's must be; rename it",
            folder.display()
        ))
    })
}
