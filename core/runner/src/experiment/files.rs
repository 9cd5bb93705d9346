//! Experiments as files: by which names they are found, and what they are based on.

use crate::experiment::diagnostic::{Diagnostic, Invalid, nearest, suggestion};
use crate::experiment::raw::{self, Entry};
use crate::experiment::source::{Piece, Source};
use crate::home::{at_home, bundle};
use rqlab_sdk::{Error, files};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

/// Longest experiment that is read, in bytes: hundreds of times the longest that somebody wrote.
const LONGEST: u64 = 4 << 20;

/// The most files that may be based on each other in a row.
const LONGEST_CHAIN: usize = 100;

/// Where an experiment is looked for by its stem: at home, then among those that came with this program.
fn directories() -> Vec<PathBuf> {
    let mut folders = vec![at_home("experiments")];
    // A bundle may be its own home, by a path from here.
    let is_home = |came: &PathBuf| fs::canonicalize(&folders[0]).ok() == fs::canonicalize(came).ok();
    let came_along = bundle().map(|bundle| bundle.join("experiments")).filter(|came| !is_home(came));
    folders.extend(came_along);
    folders
}

/// The file of an experiment that is named by a path, or by its stem under `experiments/`.
pub fn find(name: &str) -> Result<PathBuf, Diagnostic> {
    let path = PathBuf::from(name);
    // A FIFO is as good, such as a shell makes of `<(..)`.
    if path.exists() && !path.is_dir() {
        return Ok(path);
    }
    let directories = directories();
    let named: Vec<PathBuf> = directories.iter().map(|folder| folder.join(format!("{name}.ron"))).collect();
    let found = named.iter().find(|file| file.is_file());
    if path.is_dir() && found.is_none() {
        return Err(Diagnostic::error(format!("{name} is a directory: name an experiment's file or its stem")));
    }
    let looks_like_path = path.extension().is_some_and(|e| e == "ron") || path.is_absolute();
    if let Some(found) = found.filter(|_| !looks_like_path) {
        return Ok(found.clone());
    }
    let mut stems: Vec<String> = directories.iter().flat_map(|folder| stems(folder)).collect();
    stems.sort();
    stems.dedup();
    if looks_like_path {
        let error = Diagnostic::error(format!("{name}: there is no such file"));
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        return Err(match nearest(&stem, stems.iter().map(String::as_str)) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error,
        });
    }
    let mut error = Diagnostic::error(format!("there is no experiment `{name}`"));
    error.help = suggestion(name, "experiments here", stems.iter().map(String::as_str));
    if Path::new(&format!("{name}.ron")).is_file() {
        error.help.insert(0, format!("did you mean `{name}.ron`?"));
    }
    let here = env::current_dir().unwrap_or_default();
    let looked_for = named.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" and ");
    Err(error.help(format!("looked for {looked_for} in {}", here.display())))
}

/// The files of all experiments under a directory.
pub fn experiments_under(dir: &Path) -> Vec<PathBuf> {
    stems(dir).into_iter().map(|stem| dir.join(format!("{stem}.ron"))).collect()
}

/// The experiments under a directory: their paths without extension.
fn stems(dir: &Path) -> Vec<String> {
    fn collect(dir: &Path, prefix: &str, stems: &mut Vec<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() {
                collect(&path, &format!("{prefix}{name}/"), stems);
            } else if let Some(stem) = name.strip_suffix(".ron") {
                stems.push(format!("{prefix}{stem}"));
            }
        }
    }
    let mut found = Vec::new();
    collect(dir, "", &mut found);
    found.sort();
    found
}

/// The fields of a file and of the files that it is based on: its own come first in precedence.
pub(super) fn layers(
    path: &Path,
    chain: &mut Vec<PathBuf>,
    named: Option<&Piece>,
) -> Result<(Vec<Entry>, Arc<Source>), Invalid> {
    let shown = path.display().to_string();
    // What another file names must be a file; what the user does may be a FIFO.
    let read = if named.is_some() { files::read(path, LONGEST) } else { files::read_given(path, LONGEST) };
    let text = read.map_err(|error| {
        let message = match &error {
            Error::File { source, .. } if source.kind() == ErrorKind::NotFound => {
                format!("{shown}: there is no such file")
            }
            error => error.to_string(),
        };
        let error = Diagnostic::error(message);
        let help = "`base` names a file that is there to be read again, relative to the file that it stands in";
        named.map_or(error.clone(), |piece| error.at(piece, "").help(help))
    })?;
    let text = String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Diagnostic::error(format!("{shown}: byte {at} is not UTF-8: an experiment is a text file"))
    })?;
    // Some editors begin a text with the mark of its byte order, which no one sees.
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    let canonical = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let dir = path.parent().unwrap_or(Path::new("")).to_owned();
    let source = Arc::new(Source { name: shown, text, dir, is_argument: false });
    if chain.contains(&canonical) {
        let files: Vec<String> = chain.iter().chain([&canonical]).map(|p| p.display().to_string()).collect();
        let error = Diagnostic::error("an experiment cannot be based on itself").help(files.join("\n   -> "));
        return Err(named.map_or(error.clone(), |piece| error.at(piece, "")).into());
    }
    if chain.len() >= LONGEST_CHAIN {
        let message = format!("more than {LONGEST_CHAIN} files are based on each other");
        let error =
            Diagnostic::error(message).help("write what they have in common into one file, and base the others on it");
        return Err(named.map_or(error.clone(), |piece| error.at(piece, "")).into());
    }
    chain.push(canonical);
    let mut entries = raw::fields(&Piece::whole(&source)).map_err(Invalid::from)?;
    if let Some(index) = entries.iter().position(|entry| entry.key.text() == "base") {
        let base = entries.remove(index).value;
        let name: String = raw::typed(&base, "a file in quotes")?;
        let below = layers(&source.dir.join(name), chain, Some(&base))?;
        // `axes` and `sweep` are one field under two names.
        let family = |key: &str| if key == "axes" { "sweep".to_owned() } else { key.to_owned() };
        let own: Vec<String> = entries.iter().map(|entry| family(entry.key.text())).collect();
        let kept: Vec<Entry> = below.0.into_iter().filter(|e| !own.contains(&family(e.key.text()))).collect();
        entries.splice(0..0, kept);
    }
    Ok((entries, source))
}

/// The comment lines that a file begins with, without their slashes.
pub(super) fn header(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| line.starts_with("//"));
    let lines: Vec<&str> = lines.map(|line| line.trim_start_matches('/').trim()).collect();
    lines.join("\n").trim().to_owned()
}
