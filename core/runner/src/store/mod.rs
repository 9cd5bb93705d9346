//! Where work is kept: one directory a stage, named by its id. Any number of processes work in it, on one machine or several.
//!
//! ```text
//! runs/
//!   events.jsonl             what happened while processes worked here
//!   leases/<id>              who works on a stage: `lease`
//!   stages/<id>/job.json     what is to be done
//!              /log.txt      what it said while it ran
//!              /events.jsonl points of its curves, as it took them
//!              /state.safetensors   the last checkpoint of unfinished training
//!              /result.safetensors  weights, codes or pictures
//!              /done.json    measures, and the seal of the result; its presence means that the stage is complete
//!              /failed.json  why it could not be done
//!              /NAME.damaged what was found in the place of NAME, and was not what had been written
//! ```
//!
//! Every file but logs and events, which grow by lines, is written to a temporary name, synced and renamed: a reader sees
//! the old file, the new one, or none.
//!
//! Nothing is believed because it parses. `done.json` is sealed (`seal`): it holds its own digest, the stage's id, and the
//! length and digest of every file of the result. Seal, id and lengths are checked whenever a stage is looked at, the
//! files' digests when a sweep takes a stage as done and when a result is loaded. What is damaged is set aside and made
//! again; only what is not there counts as not done, and what cannot be read is an error.

mod done;
mod holder;
mod lease;
mod log;
mod seal;
mod stage;
mod standing;
mod watch;

pub use done::{Done, Failed, Remeasured};
pub use holder::{Holder, Process};
pub use lease::{BEAT, Found, Lease, Leases};
pub use stage::StageDir;
pub use standing::{Damage, SetAside, Standing};
pub use watch::{SILENCE, Watch};

use rqlab_sdk::files::{self, write_atomically};
use rqlab_sdk::{Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Format of job descriptions and of what stages leave. Stages of another format are neither read nor replaced: their ids
/// differ, so that they lie beside the new ones until somebody deletes them.
pub const FORMAT: u32 = 3;

/// Longest file of JSON that is read, in bytes: curves of a million points take a tenth of it.
const LONGEST_JSON: u64 = 1 << 30;

/// A folder of stages.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store in `root`, which is made if it is missing.
    ///
    /// # Errors
    /// [`Error::Data`] if it cannot be made.
    pub fn open(root: &Path) -> Result<Self> {
        let stages = root.join("stages");
        fs::create_dir_all(&stages).map_err(|e| {
            Error::Data(format!("no work can be kept in {}: {e}; name another folder with --runs", root.display()))
        })?;
        Ok(Self { root: root.to_owned() })
    }

    /// The store in `root`, which may be missing: to read what is there.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Who works here.
    pub fn leases(&self) -> Leases {
        Leases::of(&self.root)
    }

    /// The ids of all stages that have a directory.
    pub fn ids(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.join("stages")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// How many stages of another format lie here.
    pub fn of_another_format(&self) -> usize {
        #[derive(Deserialize)]
        struct Written {
            #[serde(default)]
            format: u32,
        }
        let format = |id: &String| read_json::<Written>(&self.stage(id).file("job.json")).ok().map(|job| job.format);
        self.ids().iter().filter_map(format).filter(|&format| format != FORMAT).count()
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a stage.
    pub fn stage(&self, id: &str) -> StageDir {
        StageDir::new(&self.root.join("stages"), id)
    }
}

/// Writes a value as JSON, atomically.
///
/// # Errors
/// [`Error::File`].
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = json(path, value)?;
    write_atomically(path, |file| file.write_all(&text))
}

/// A value as the JSON of the file at `path`.
///
/// # Errors
/// [`Error::File`] if JSON cannot hold it.
pub fn json<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::File { path: path.to_owned(), source: std::io::Error::other(e) })?;
    text.push(b'\n');
    Ok(text)
}

/// Whether files can be made in a directory, or in the nearest one above it that exists.
///
/// # Errors
/// Why not.
pub fn writable(dir: &Path) -> std::io::Result<()> {
    let absolute = std::path::absolute(dir)?;
    let there = absolute.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let probe = there.join(format!(".rqlab-probe-{}", std::process::id()));
    fs::write(&probe, b"probe")?;
    fs::remove_file(&probe)
}

/// Reads a value from JSON.
///
/// # Errors
/// [`Error::File`] if it cannot be read, [`Error::Data`] if it is damaged.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = files::read(path, LONGEST_JSON)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Data(format!("{}: {e}; delete it to start over", path.display())))
}
