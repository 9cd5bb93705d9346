//! The directory of one stage.

use super::done::{Done, Failed};
use super::seal::{FileSeal, Sealed};
use super::standing::{Damage, SetAside, Standing};
use super::{FORMAT, LONGEST_JSON, json, read_json, write_json};
use crate::identity;
use crate::job::Job;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::files::{self, write_atomically};
use rqlab_sdk::{Error, Result};
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The files of a result, by their extensions: numbers.
const RESULTS: [&str; 2] = ["safetensors", "tokens"];
const STATE: &str = "state.safetensors";
/// What the name of a file that was set aside goes on with.
const DAMAGED: &str = ".damaged";

/// The directory of one stage.
#[derive(Debug, Clone)]
pub struct StageDir {
    id: String,
    path: PathBuf,
}

impl StageDir {
    pub(super) fn new(stages: &Path, id: &str) -> Self {
        Self { id: id.to_owned(), path: stages.join(id) }
    }

    /// The directory itself.
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// A file of the stage.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The last checkpoint of unfinished training.
    pub fn state(&self) -> PathBuf {
        self.file(STATE)
    }

    /// Weights, codes or pictures: where a stage writes them. [`StageDir::load_result`] reads them.
    pub fn result(&self) -> PathBuf {
        self.file("result.safetensors")
    }

    /// The points of its curves, as training takes them.
    pub fn events(&self) -> PathBuf {
        self.file("events.jsonl")
    }

    /// How it stands with the stage, by `done.json` and by the lengths of the files that it names.
    ///
    /// # Errors
    /// [`Error::File`]: something is there and cannot be read.
    pub fn standing(&self) -> Result<Standing> {
        self.look(|_, _| Ok(None))
    }

    /// How it stands with the stage, by all bytes of its result. Takes a second for one or two GB.
    ///
    /// # Errors
    /// As for [`StageDir::standing`].
    pub fn verified(&self) -> Result<Standing> {
        self.look(Self::check)
    }

    /// Its measures, if it is complete.
    ///
    /// # Errors
    /// As for [`StageDir::standing`]; [`Error::Checkpoint`] if it is damaged.
    pub fn done(&self) -> Result<Option<Done>> {
        match self.standing()? {
            Standing::Done(done) => Ok(Some(*done)),
            Standing::Unfinished => Ok(None),
            Standing::Damaged(damage) => Err(damage.into()),
        }
    }

    /// The result of a complete stage, if it is what was written.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is damaged or not there.
    pub fn load_result(&self) -> Result<Checkpoint> {
        let path = self.sound("result.safetensors")?;
        Checkpoint::load(&path)
    }

    /// A file of a complete stage's result, if it is what was written.
    ///
    /// # Errors
    /// As for [`StageDir::load_result`].
    pub fn sound(&self, name: &str) -> Result<PathBuf> {
        let path = self.file(name);
        let mut found = false;
        let standing = self.look(|seal, path| {
            let is_wanted = path.ends_with(name);
            found |= is_wanted;
            if is_wanted { Self::check(seal, path) } else { Ok(None) }
        })?;
        match standing {
            Standing::Done(_) if found => Ok(path),
            Standing::Damaged(damage) => Err(damage.into()),
            Standing::Done(_) | Standing::Unfinished => {
                let message = format!("{} is not there, or was not finished; `rqlab sweep` makes it", path.display());
                Err(Error::Checkpoint(message))
            }
        }
    }

    /// What is wrong with a file, by its digest.
    fn check(seal: &FileSeal, path: &Path) -> Result<Option<String>> {
        let is_same = FileSeal::of(path)? == *seal;
        Ok((!is_same).then(|| "its contents are not those that were written".to_owned()))
    }

    /// How it stands with the stage; `check` may find more that is wrong with a file than its length.
    fn look(&self, mut check: impl FnMut(&FileSeal, &Path) -> Result<Option<String>>) -> Result<Standing> {
        let path = self.file("done.json");
        let damaged = |path: PathBuf, found: String| Ok(Standing::Damaged(Damage { path, found }));
        let bytes = match files::read(&path, LONGEST_JSON) {
            Ok(bytes) => bytes,
            Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(Standing::Unfinished),
            Err(Error::File { source, .. }) if is_no_such_file(&source) => return damaged(path, source.to_string()),
            Err(error) => return Err(error),
        };
        let sealed = match Sealed::read(&bytes) {
            Ok(sealed) if sealed.stage == self.id => sealed,
            Ok(sealed) => return damaged(path, format!("it belongs to the stage {}", sealed.stage)),
            Err(found) => return damaged(path, found),
        };
        for (name, seal) in &sealed.files {
            let file = self.file(name);
            let found = match files::open(&file) {
                Ok((_, length)) if length != seal.length => {
                    Some(format!("it has {length} bytes, and {} were written", seal.length))
                }
                Ok(_) => check(seal, &file)?,
                Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
                    return Ok(Standing::Unfinished);
                }
                Err(Error::File { source, .. }) if is_no_such_file(&source) => Some(source.to_string()),
                Err(error) => return Err(error),
            };
            if let Some(found) = found {
                return damaged(file, found);
            }
        }
        Ok(Standing::Done(Box::new(sealed.done)))
    }

    /// Gives a damaged file another name, beside its own, under which it stays; the stage is not complete then.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn set_aside(&self, damage: Damage) -> Result<SetAside> {
        let aside = self.rename_aside(damage)?;
        self.remove("done.json")?;
        Ok(aside)
    }

    fn rename_aside(&self, damage: Damage) -> Result<SetAside> {
        let name = damage.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let numbers = std::iter::once(String::new()).chain((2..).map(|n: usize| format!("-{n}")));
        let free = |to: &PathBuf| fs::symlink_metadata(to).is_err();
        let to = numbers.map(|number| self.file(&format!("{name}{DAMAGED}{number}"))).find(free);
        let to = to.unwrap_or_else(|| self.file(&format!("{name}{DAMAGED}")));
        fs::rename(&damage.path, &to).map_err(Error::file(&damage.path))?;
        Ok(SetAside { damage, to })
    }

    /// Why it failed, if it did.
    pub fn failed(&self) -> Option<Failed> {
        read_json(&self.file("failed.json")).ok()
    }

    /// When it was noted that it failed, by the file system's clock: what tells one failure from another.
    pub fn failed_at(&self) -> Option<SystemTime> {
        fs::metadata(self.file("failed.json")).and_then(|about| about.modified()).ok()
    }

    /// Forgets that it failed, by who holds the stage's lease: it is to be tried again.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn forget_failure(&self) -> Result<()> {
        self.remove("failed.json")
    }

    /// Makes the directory ready for a worker, by who holds the stage's lease: sets aside what stands in the place of a file and is
    /// none, forgets an earlier end and what was half-written then, and writes what is to be done.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Data`] for a description that cannot be read back.
    pub fn prepare(&self, job: &Job) -> Result<Vec<SetAside>> {
        fs::create_dir_all(&self.path).map_err(Error::file(&self.path))?;
        self.remove_half_written();
        let mut aside = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(Error::file(&self.path))?.flatten() {
            let path = entry.path();
            match files::open(&path) {
                Err(Error::File { source, .. })
                    if is_no_such_file(&source) && !entry.file_name().to_string_lossy().contains(DAMAGED) =>
                {
                    aside.push(self.set_aside(Damage { path, found: source.to_string() })?);
                }
                _ => {}
            }
        }
        self.remove("done.json")?;
        self.remove("failed.json")?;
        self.describe(job)?;
        Ok(aside)
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.file(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(path)(error)),
            _ => Ok(()),
        }
    }

    /// Writes what is to be done.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Data`] if it could not be read back, as with an infinity, which JSON does not have.
    pub fn describe(&self, job: &Job) -> Result<()> {
        let path = self.file("job.json");
        let text = json(&path, job)?;
        match serde_json::from_slice::<Job>(&text) {
            Ok(read) if read == *job => write_atomically(&path, |file| file.write_all(&text)),
            _ => Err(Error::Data(format!(
                "{} cannot hold this {}: one of its settings is no finite number",
                path.display(),
                job.stage.name()
            ))),
        }
    }

    /// Whether its description is that of a job, to the byte.
    pub fn describes(&self, job: &Job) -> bool {
        let path = self.file("job.json");
        json(&path, job).is_ok_and(|text| files::read(&path, text.len() as u64).is_ok_and(|written| written == text))
    }

    /// Writes the description of a complete stage again: it may be damaged, or the experiment may have moved. What stands in its
    /// place and is no file is set aside.
    ///
    /// # Errors
    /// As for [`StageDir::describe`].
    pub fn describe_again(&self, job: &Job) -> Result<Option<SetAside>> {
        let path = self.file("job.json");
        let aside = match files::open(&path) {
            Err(Error::File { source, .. }) if is_no_such_file(&source) => {
                Some(self.rename_aside(Damage { path, found: source.to_string() })?)
            }
            _ => None,
        };
        self.describe(job).map(|()| aside)
    }

    /// What is to be done here.
    ///
    /// # Errors
    /// [`Error::File`], or [`Error::Data`] for a file that is damaged or describes another stage.
    pub fn job(&self) -> Result<Job> {
        let path = self.file("job.json");
        let job: Job = read_json(&path)?;
        if job.format == FORMAT && job.id == *self.id && identity::of_stage(&*job.stage, &job.data_digest)? == *self.id
        {
            return Ok(job);
        }
        let message = format!("{} describes another stage; `rqlab sweep` writes it again", path.display());
        Err(Error::Data(message))
    }

    /// Marks the stage complete, sealed with what its files are now, and drops its checkpoint.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn finish(&self, done: Done) -> Result<()> {
        let mut seals = BTreeMap::new();
        for entry in fs::read_dir(&self.path).map_err(Error::file(&self.path))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let end = name.rsplit('.').next().unwrap_or_default();
            if RESULTS.contains(&end) && name != STATE {
                seals.insert(name, FileSeal::of(&entry.path())?);
            }
        }
        let path = self.file("done.json");
        let bytes = Sealed::new(&self.id, seals, done).bytes(&path)?;
        write_atomically(&path, |file| file.write_all(&bytes))?;
        self.drop_state()
    }

    /// Drops the checkpoint of a stage that is complete: who was killed when it had just finished it has left one.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn drop_state(&self) -> Result<()> {
        self.remove(STATE)
    }

    /// Copies a complete stage of another store, by who holds this one's lease. `done.json` comes last, when all else is on disk.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Checkpoint`] if the copy is not what was written.
    pub fn take_over(&self, from: &Self) -> Result<()> {
        fs::create_dir_all(&self.path).map_err(Error::file(&self.path))?;
        self.remove("done.json")?;
        self.remove("failed.json")?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&from.path).map_err(Error::file(&from.path))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "done.json" && !name.contains(DAMAGED) && entry.path().is_file() {
                names.push(name);
            }
        }
        names.push("done.json".to_owned());
        for name in names {
            let (mut source, _) = files::open(&from.file(&name))?;
            write_atomically(&self.file(&name), |file| std::io::copy(&mut source, file).map(drop))?;
        }
        match self.verified()? {
            Standing::Done(_) => Ok(()),
            Standing::Damaged(damage) => Err(damage.into()),
            Standing::Unfinished => {
                Err(Error::Checkpoint(format!("{} could not be copied whole", from.path.display())))
            }
        }
    }

    /// Changes what a complete stage says of itself, in one step, and renews its seal, by who holds its lease. The files of its
    /// result stay as they are.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Checkpoint`] if it is not complete, or damaged.
    pub fn amend(&self, amend: impl FnOnce(&mut Done)) -> Result<()> {
        let path = self.file("done.json");
        let damaged = |found: String| Error::from(Damage { path: path.clone(), found });
        let mut sealed = Sealed::read(&files::read(&path, LONGEST_JSON)?).map_err(damaged)?;
        if sealed.stage != self.id {
            return Err(damaged(format!("it belongs to the stage {}", sealed.stage)));
        }
        amend(&mut sealed.done);
        let bytes = Sealed::new(&self.id, sealed.files, sealed.done).bytes(&path)?;
        write_atomically(&path, |file| file.write_all(&bytes))
    }

    /// Notes why the stage could not be done.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn fail(&self, error: &str) -> Result<()> {
        write_json(&self.file("failed.json"), &Failed { error: error.to_owned(), untried: false })
    }

    /// Notes why a stage that this one needs could not be done, so that this one is not tried.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn leave_untried(&self, cause: &str) -> Result<()> {
        let error = format!("not tried, since a stage that it needs failed: {cause}");
        write_json(&self.file("failed.json"), &Failed { error, untried: true })
    }

    /// Removes what a process that was ended had not written to its end, by who holds the stage's lease.
    pub fn remove_half_written(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|end| end == "partial") {
                // What stays is in nobody's way, and goes with the next run.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Whether something that is no file of ours has its name: a directory, a FIFO, a device; a file beyond all bounds.
fn is_no_such_file(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData)
}
