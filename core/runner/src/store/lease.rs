//! Who works on a stage: a lease, which one process at a time holds.
//!
//! `RUNS/leases/ID` is a hard link to a file that was written before under a name of its own: it is made whole, or not at all where
//! another is there; on NFS, too. Its first line says who holds it, its second is a counter, which the holder raises every
//! [`BEAT`] and in its place, so that a full disk does not stop it.
//!
//! A lease is stale if its holder is gone. Where the observer's system knows the holder's processes, it asks the system. Else it is
//! stale if its counter stood still for [`SILENCE`](super::SILENCE) while the observer looked, by the observer's own monotonic
//! clock ([`Watch`](super::Watch)).
//!
//! Whoever breaks a stale lease moves it aside first, looks at what it has moved, and puts it back if that is another one. A holder
//! whose lease was broken all the same, because its machine slept, learns of it at its next beat, and ends.

use super::holder::{Holder, Process};
use rqlab_sdk::{Error, Result, files};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often a holder raises its counter.
pub const BEAT: Duration = Duration::from_secs(10);

/// Bytes of the first line, so that another holder's takes its place.
const LINE: usize = 512;
/// Digits of a token.
const TOKEN: usize = 32;
/// Digits of the counter.
const DIGITS: usize = 20;

/// A lease as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The stage.
    pub id: String,
    /// Who holds it; none if its file says nothing that is understood.
    pub holder: Option<Holder>,
    /// Its counter.
    pub(super) beat: u64,
}

impl Found {
    /// Whether its holder is gone, as this machine knows.
    pub fn is_left(&self) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.is_near() && !holder.is_there())
    }

    /// Who holds it, in words.
    pub fn who(&self) -> String {
        self.holder.as_ref().map_or_else(|| "somebody unknown".to_owned(), Holder::to_string)
    }
}

/// The leases of a store.
#[derive(Debug, Clone)]
pub struct Leases(PathBuf);

/// A lease that this process holds: given up when dropped.
#[derive(Debug)]
pub struct Lease {
    leases: Leases,
    id: String,
    token: String,
    file: File,
    beat: u64,
    handed_over: bool,
}

impl Leases {
    pub(super) fn of(root: &Path) -> Self {
        Self(root.join("leases"))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.0.join(id)
    }

    /// Takes the lease of a stage; none if somebody has it.
    ///
    /// # Errors
    /// [`Error::File`]: the folder cannot be written; [`Error::Data`]: it has no hard links.
    pub fn take(&self, id: &str, exclusive: bool) -> Result<Option<Lease>> {
        if self.find(id)?.is_some() {
            return Ok(None);
        }
        fs::create_dir_all(&self.0).map_err(Error::file(&self.0))?;
        let token = token();
        let own = self.0.join(format!(".{token}"));
        let write = || -> std::io::Result<File> {
            // At once, so that what a killed process leaves says whose it was.
            let text = line(&Holder::here(token.clone(), exclusive))? + &counter(0);
            let mut file = File::options().read(true).write(true).create_new(true).open(&own)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            Ok(file)
        };
        let written = write().map_err(Error::file(&own));
        let linked = written.and_then(|file| match fs::hard_link(&own, self.path(id)) {
            Ok(()) => Ok(Some(file)),
            // An answer of a server that was lost may have said that it was made.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(self.is_held(id, &token).then_some(file)),
            // Whoever removed the folder meanwhile, while this process slept, say, took the file along: the next look tells more.
            Err(error) if error.kind() == ErrorKind::NotFound && !own.exists() => Ok(None),
            Err(error) => Err(Error::Data(format!(
                "no lease can be made in {}: {error}; name a folder with --runs whose file system has hard links",
                self.0.display()
            ))),
        });
        // What stays is in nobody's way.
        let _ = fs::remove_file(&own);
        let lease = |file| Lease { leases: self.clone(), id: id.to_owned(), token, file, beat: 0, handed_over: false };
        linked.map(|file| file.map(lease))
    }

    /// As [`Leases::take`], where nobody watches over leases: one whose holder is gone, as this machine knows, is broken first.
    ///
    /// # Errors
    /// As for [`Leases::take`].
    pub fn take_from_gone(&self, id: &str, exclusive: bool) -> Result<Option<Lease>> {
        if let Some(found) = self.find(id)?
            && found.is_left()
        {
            self.break_stale(&found)?;
        }
        self.take(id, exclusive)
    }

    /// Takes over a lease that another process took for this one; none if it is another's by now.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn take_over(&self, id: &str, token: &str) -> Result<Option<Lease>> {
        let path = self.path(id);
        let Some(Found { holder: Some(mut holder), beat, .. }) = self.find(id)?.filter(|found| found.is_of(token))
        else {
            return Ok(None);
        };
        holder.processes.push(Process::this());
        let mut file = File::options().read(true).write(true).open(&path).map_err(Error::file(&path))?;
        let text = line(&holder).map_err(Error::file(&path))?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(Error::file(&path))?;
        let (leases, id, token) = (self.clone(), id.to_owned(), token.to_owned());
        let lease = Lease { leases, id, token, file, beat, handed_over: false };
        Ok(lease.is_held().then_some(lease))
    }

    /// The lease of a stage, if there is one.
    ///
    /// # Errors
    /// [`Error::File`]: it cannot be read.
    pub fn find(&self, id: &str) -> Result<Option<Found>> {
        read(&self.path(id), id)
    }

    /// All leases.
    ///
    /// # Errors
    /// [`Error::File`]: the folder cannot be read.
    pub fn all(&self) -> Result<Vec<Found>> {
        self.named(|name| !name.starts_with('.'))
    }

    /// What processes that took or broke a lease and were killed meanwhile have left; and those that do so now.
    ///
    /// # Errors
    /// As for [`Leases::all`].
    pub fn unfinished(&self) -> Result<Vec<Found>> {
        self.named(|name| name.len() == 1 + TOKEN && name.starts_with('.'))
    }

    fn named(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Found>> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::file(&self.0)(error)),
        };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let names = names.filter(|name| wanted(name));
        // One that was given up meanwhile is none.
        names.filter_map(|id| self.find(&id).transpose()).collect()
    }

    /// When the holder of a lease was last heard of, by the file system's clock. For people.
    pub fn heard(&self, id: &str) -> Option<SystemTime> {
        fs::metadata(self.path(id)).and_then(|about| about.modified()).ok()
    }

    /// Whether the lease of a stage is the one of this token.
    pub fn is_held(&self, id: &str, token: &str) -> bool {
        self.find(id).is_ok_and(|found| found.is_some_and(|found| found.is_of(token)))
    }

    /// Gives up a lease that is known by its token, if it is still there.
    pub fn release(&self, id: &str, token: &str) {
        if self.is_held(id, token) {
            // One that stays is broken by the next who looks.
            let _ = fs::remove_file(self.path(id));
        }
    }

    /// Breaks a lease that was found to be stale. Says whether it did: it does not if the lease has changed since.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn break_stale(&self, stale: &Found) -> Result<bool> {
        let (path, aside) = (self.path(&stale.id), self.0.join(format!(".{}", token())));
        if self.find(&stale.id)?.as_ref() != Some(stale) {
            return Ok(false);
        }
        match fs::rename(&path, &aside) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            moved => moved.map_err(Error::file(&path))?,
        }
        let is_it = read(&aside, &stale.id).is_ok_and(|moved| moved.as_ref() == Some(stale));
        if !is_it {
            // Should a third have taken it in between, the one that was moved learns of it at its next beat.
            let _ = fs::hard_link(&aside, &path);
        }
        if aside.is_dir() { fs::remove_dir_all(&aside) } else { fs::remove_file(&aside) }
            .map_err(Error::file(&aside))?;
        Ok(is_it)
    }
}

impl Lease {
    /// What another process takes it over by, with [`Leases::take_over`].
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Whether it is still this process's.
    pub fn is_held(&self) -> bool {
        self.leases.is_held(&self.id, &self.token)
    }

    /// Raises the counter. Says whether the lease is still this process's.
    pub fn beat(&mut self) -> bool {
        self.beat += 1;
        let text = counter(self.beat);
        let written = self.file.seek(SeekFrom::Start(LINE as u64)).and_then(|_| self.file.write_all(text.as_bytes()));
        // A beat that is not heard is one less; what counts is whether the lease is there.
        let _ = written.and_then(|()| self.file.sync_data());
        match self.leases.find(&self.id) {
            Ok(found) => found.is_some_and(|found| found.is_of(&self.token)),
            // Nobody can take what nobody can read.
            Err(_) => true,
        }
    }

    /// Leaves it to another process, which takes it over by its token.
    pub fn hand_over(mut self) -> String {
        self.handed_over = true;
        self.token.clone()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.handed_over {
            self.leases.release(&self.id, &self.token);
        }
    }
}

impl Found {
    fn is_of(&self, token: &str) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.token == token)
    }
}

/// The first line of a lease's file.
fn line(holder: &Holder) -> std::io::Result<String> {
    let text = serde_json::to_string(holder)?;
    Ok(format!("{text:width$}\n", width = LINE - 1))
}

fn counter(beat: u64) -> String {
    format!("{beat:0DIGITS$}\n")
}

fn read(path: &Path, id: &str) -> Result<Option<Found>> {
    let bytes = match files::read(path, (LINE + DIGITS + 1) as u64) {
        Ok(bytes) => bytes,
        Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        // Something else that has its name: nobody is known to hold it.
        Err(Error::File { source, .. })
            if matches!(source.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData) =>
        {
            return Ok(Some(Found { id: id.to_owned(), holder: None, beat: 0 }));
        }
        Err(error) => return Err(error),
    };
    let (line, rest) = bytes.split_at(bytes.len().min(LINE));
    let beat = std::str::from_utf8(rest).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    Ok(Some(Found { id: id.to_owned(), holder: serde_json::from_slice(line).ok(), beat }))
}

/// [`TOKEN`] digits that nobody else draws.
pub(super) fn token() -> String {
    let draw = |what: u32| RandomState::new().hash_one((what, std::process::id()));
    format!("{:016x}{:016x}", draw(0), draw(1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn leases() -> (tempfile::TempDir, Leases) {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::of(folder.path());
        (folder, leases)
    }

    /// A lease in the place of `id` whose holder is changed.
    fn with(leases: &Leases, id: &str, change: impl FnOnce(&mut Holder)) -> Found {
        drop(leases.take(id, false).unwrap().unwrap());
        let mut holder = Holder::here(token(), false);
        change(&mut holder);
        fs::write(leases.path(id), line(&holder).unwrap() + &counter(7)).unwrap();
        leases.find(id).unwrap().unwrap()
    }

    fn of_another_machine(holder: &mut Holder) {
        holder.host = "elsewhere".to_owned();
        holder.kernel = Some("another boot".to_owned());
    }

    #[test]
    fn of_many_that_want_a_lease_one_gets_it() {
        let (_folder, leases) = leases();
        let taken: Vec<Option<Lease>> = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..16).map(|_| scope.spawn(|| leases.take("a", false).unwrap())).collect();
            takers.into_iter().map(|taker| taker.join().unwrap()).collect()
        });
        assert_eq!(taken.iter().flatten().count(), 1);
        assert!(leases.take("b", false).unwrap().is_some());
        drop(taken);
        assert_eq!(leases.all().unwrap(), []);
        assert_eq!(fs::read_dir(&leases.0).unwrap().count(), 0, "nothing is left behind");
        assert!(leases.take("a", false).unwrap().is_some());
    }

    #[test]
    fn a_lease_that_is_handed_over_is_the_others() {
        let (_folder, leases) = leases();
        let token = leases.take("a", true).unwrap().unwrap().hand_over();
        let mut lease = leases.take_over("a", &token).unwrap().unwrap();
        assert!(lease.is_held() && lease.beat() && lease.beat());
        let found = leases.find("a").unwrap().unwrap();
        let holder = found.holder.clone().unwrap();
        assert_eq!((found.beat, holder.exclusive, holder.processes.len()), (2, true, 2));
        // Broken by another, it is no longer held, and cannot be given up for it.
        assert!(leases.break_stale(&found).unwrap());
        let other = leases.take("a", false).unwrap().unwrap();
        assert!(!lease.is_held() && !lease.beat());
        drop(lease);
        assert!(other.is_held());
        assert!(leases.take_over("a", &token).unwrap().is_none());
    }

    #[test]
    fn what_a_killed_taker_leaves_is_no_lease_and_can_be_broken() {
        let (_folder, leases) = leases();
        let left = with(&leases, &format!(".{}", token()), of_another_machine);
        assert_eq!((leases.all().unwrap(), leases.unfinished().unwrap()), (vec![], vec![left.clone()]));
        assert!(leases.break_stale(&left).unwrap());
        assert_eq!(fs::read_dir(&leases.0).unwrap().count(), 0);
    }

    #[test]
    fn what_changed_since_it_was_found_is_not_broken() {
        let (_folder, leases) = leases();
        let stale = with(&leases, "a", of_another_machine);
        let mut beaten = line(stale.holder.as_ref().unwrap()).unwrap();
        beaten.push_str(&counter(8));
        fs::write(leases.path("a"), beaten).unwrap();
        assert!(!leases.break_stale(&stale).unwrap());
        let stale = leases.find("a").unwrap().unwrap();
        assert!(leases.break_stale(&stale).unwrap() && !leases.break_stale(&stale).unwrap());
        assert_eq!(leases.find("a").unwrap(), None);
    }
}
