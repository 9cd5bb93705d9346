//! The plugins of this process: found, checked, loaded, and asked for components by name.

pub mod build;
mod linked;
mod loader;
mod make;
pub mod new;
mod probe;

use crate::experiment::Diagnostic;
use crate::experiment::diagnostic::suggestion;
pub use loader::{NotLoadable, Search, inspect};
pub(crate) use make::{panic_text, quietly};
use rqlab_sdk::contracts::Progress;
use rqlab_sdk::plugin::{Component, Kind};
use rqlab_sdk::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How many refused files are told of where a component is missing.
const SHOWN: usize = 3;

/// Where a component comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The plugin's package.
    pub plugin: String,
    /// Its file.
    pub path: PathBuf,
    /// Digest of the file and of the SDK: what results that it made are named by.
    pub digest: String,
}

/// A component and where it comes from.
#[derive(Clone)]
pub struct Provided {
    /// The component.
    pub component: Component,
    /// Its plugin.
    pub origin: Arc<Origin>,
}

/// A file that is a plugin, or was named as one, and was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The file.
    pub path: PathBuf,
    /// The plugin's package, if the file says.
    pub plugin: Option<String>,
    /// Why.
    pub reason: String,
}

/// All components that experiments can name.
#[derive(Clone, Default)]
pub struct Plugins {
    provided: Vec<Provided>,
    refused: Vec<Refused>,
    searched: Vec<PathBuf>,
    progress: Progress,
}

impl Plugins {
    /// Finds and loads the plugins of a search. A plugin that cannot be loaded is kept in [`Plugins::refused`]; it is an
    /// error only once an experiment asks for what it would provide.
    ///
    /// # Errors
    /// A directory that was named and is not there.
    pub fn load(search: &Search) -> Result<Self, Diagnostic> {
        loader::load(search)
    }

    /// Has someone told how far the opening of data sets is.
    pub fn tell(&mut self, progress: Progress) {
        self.progress = progress;
    }

    /// Who is told how far the opening of data sets is.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Loads a plugin and forgets it: for a process that is to show whether it survives that.
    ///
    /// # Errors
    /// Why it cannot be loaded.
    pub fn try_out(path: &Path) -> Result<(), Diagnostic> {
        loader::try_out(path).map_err(|reason| Diagnostic::error(format!("{}: {reason}", path.display())))
    }

    /// Adds a component.
    pub fn add(&mut self, component: Component, origin: &Arc<Origin>) {
        self.provided.push(Provided { component, origin: origin.clone() });
    }

    /// The components, by kind and name.
    pub fn provided(&self) -> Vec<&Provided> {
        let mut all: Vec<&Provided> = self.provided.iter().collect();
        all.sort_by_key(|p| (p.component.build.kind(), p.component.name));
        all
    }

    /// The plugins that were not loaded.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Where was looked.
    pub fn searched(&self) -> &[PathBuf] {
        &self.searched
    }

    /// The names of all components of a kind.
    pub fn names(&self, kind: Kind) -> Vec<&'static str> {
        let mut names: Vec<_> =
            self.provided.iter().map(|p| &p.component).filter(|c| c.build.kind() == kind).map(|c| c.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The component of that kind and name.
    ///
    /// # Errors
    /// A complaint (without a place) if no plugin provides it, or more than one.
    pub fn find(&self, kind: Kind, name: &str) -> Result<&Provided, Diagnostic> {
        let fits = |p: &&Provided| p.component.build.kind() == kind && p.component.name == name;
        let all: Vec<&Provided> = self.provided.iter().filter(fits).collect();
        match all[..] {
            [one] => Ok(one),
            [] => Err(self.missing(kind, name)),
            _ => {
                let error = Diagnostic::error(format!("the {kind} `{name}` is provided by more than one plugin"));
                let files = all.iter().map(|p| format!("{} ({})", p.origin.plugin, p.origin.path.display()));
                let error = files.fold(error, Diagnostic::help);
                Err(error.help("remove one of them, or give one of the components another name"))
            }
        }
    }

    /// That there is a plugin at all.
    ///
    /// # Errors
    /// A complaint (without a place) if none was found, or all were refused.
    pub fn any(&self) -> Result<(), Diagnostic> {
        if !self.provided.is_empty() {
            return Ok(());
        }
        let message =
            if self.refused.is_empty() { "there are no plugins" } else { "all plugins that were found are refused" };
        Err(self
            .with_files(Diagnostic::error(message), "")
            .help("build all anew, with `just build`, or name their folder with --plugins"))
    }

    fn missing(&self, kind: Kind, name: &str) -> Diagnostic {
        let mut error = Diagnostic::error(format!("no plugin provides the {kind} `{name}`"));
        if let Some(other) = self.provided.iter().find(|p| p.component.name == name) {
            error = error.help(format!("there is a {} of that name", other.component.build.kind()));
        }
        error.help.extend(suggestion(name, &format!("{kind}s"), self.names(kind)));
        self.with_files(error, name)
    }

    /// Where plugins were looked for, and which were refused: first those that are called like `name`.
    fn with_files(&self, mut error: Diagnostic, name: &str) -> Diagnostic {
        let searched: Vec<String> = self.searched.iter().map(|dir| dir.display().to_string()).collect();
        error = error.help(format!("searched: {}", searched.join(", ")));
        // What a refused file would provide cannot be asked.
        let simple = |text: &str| text.replace('-', "_");
        let is_other = |refused: &&Refused| {
            let file = refused.path.file_name().unwrap_or_default().to_string_lossy();
            !simple(refused.plugin.as_deref().unwrap_or(&file)).contains(&simple(name))
        };
        let mut refused: Vec<&Refused> = self.refused.iter().collect();
        refused.sort_by_key(is_other);
        for Refused { path, reason, .. } in refused.iter().take(SHOWN) {
            error = error.help(format!("{} was refused: {reason}", path.display()));
        }
        match refused.len().saturating_sub(SHOWN) {
            0 => error,
            more => error.help(format!("{more} more were refused; `rqlab plugins list` says why")),
        }
    }

    /// The component that a planned job calls, from the very plugin that it was planned with.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it is gone, or if its plugin has changed since.
    pub fn planned(&self, kind: Kind, name: &str, digests: &BTreeMap<String, String>) -> Result<&Provided> {
        let found = self.find(kind, name).map_err(|error| Error::Unsupported(error.render(false)))?;
        if digests.get(&key(kind, name)) != Some(&found.origin.digest) {
            return Err(Error::Unsupported(format!(
                "the plugin of the {kind} `{name}` ({}) has changed since this job was planned; plan again",
                found.origin.path.display()
            )));
        }
        Ok(found)
    }
}

/// A component's name in the plugins that a call uses.
pub fn key(kind: Kind, name: &str) -> String {
    format!("{kind} {name}")
}

/// A path as short as it can be said from here.
pub fn short_path(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(path).display().to_string()
}
