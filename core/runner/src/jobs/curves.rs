//! The curves of a stage while it trains: `events.jsonl` in the stage's directory.
//!
//! The worker appends a line of JSON for every step at which points are taken:
//!
//! ```json
//! {"event":"points","step":40,"points":[{"measure":"loss","value":0.0713},{"measure":"usage","at":[{"depth":1}],"value":0.88}]}
//! ```
//!
//! A measure that is taken several times says `at` which level or depth. Values that are no finite numbers are left out. Steps
//! ascend. Training that goes on from a checkpoint first takes back what was written after it, so that no step is there
//! twice; then the file is shorter than it was, and who follows it reads it anew. A last line without its end is still being
//! written. When the stage is done, its `done.json` has the same curves.

use crate::store::StageDir;
use rqlab_reports::Reading;
use rqlab_sdk::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

/// Longest file of points that is read, in bytes.
const LONGEST: u64 = 1 << 30;

/// The points of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename = "points")]
pub struct Points {
    /// The optimizer step, counted from 1.
    pub step: u64,
    /// What was read.
    pub points: Vec<Reading>,
}

/// The file that a stage's worker writes.
#[derive(Debug)]
pub(super) struct Writer(PathBuf);

impl Writer {
    pub(super) fn of(stage: &StageDir) -> Self {
        Self(stage.events())
    }

    /// Takes back all points after `step`.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(super) fn take_back(&self, step: u64) -> Result<()> {
        let text = match files::read(&self.0, LONGEST) {
            Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(()),
            text => text?,
        };
        let kept: usize =
            lines(&text).take_while(|(_, points)| points.step <= step).map(|(line, _)| line.len() + 1).sum();
        if kept == text.len() {
            return Ok(());
        }
        let file = File::options().write(true).open(&self.0).map_err(Error::file(&self.0))?;
        file.set_len(kept as u64).map_err(Error::file(&self.0))
    }

    /// Appends the points of a step.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(super) fn append(&self, step: u64, readings: &[Reading]) -> Result<()> {
        let points = readings.iter().filter(|reading| reading.value.is_finite()).cloned().collect();
        let points = Points { step, points };
        let line = serde_json::to_string(&points).map_err(|e| Error::Data(format!("{}: {e}", self.0.display())))?;
        let append = || {
            let mut file = File::options().create(true).append(true).open(&self.0)?;
            let before = file.metadata()?.len();
            // One write, so that a kill leaves whole lines; on a full disk, half of one is taken back.
            file.write_all(format!("{line}\n").as_bytes()).inspect_err(|_| {
                let _ = file.set_len(before);
            })
        };
        append().map_err(Error::file(&self.0))
    }
}

/// The points that a stage has taken so far, by ascending steps; empty of one that has taken none.
pub fn read(stage: &StageDir) -> Vec<Points> {
    let text = files::read(&stage.events(), LONGEST).unwrap_or_default();
    lines(&text).map(|(_, points)| points).collect()
}

/// The whole lines of a file up to the first that is none of ours, with what they say.
fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], Points)> {
    let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(&[][..], |end| &text[..end]);
    whole.split(|&byte| byte == b'\n').map_while(|line| Some((line, serde_json::from_slice(line).ok()?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::store::Store;
    use rqlab_reports::Index;
    use std::fs;

    /// A stage with points at the steps 20, 40 and 60.
    fn stage(folder: &tempfile::TempDir) -> (StageDir, Writer) {
        let stage = Store::open(folder.path()).unwrap().stage("x");
        fs::create_dir_all(stage.file("")).unwrap();
        let writer = Writer::of(&stage);
        for step in [20, 40, 60] {
            let usage = Reading::new("usage", [Index::Depth(2)], 1.0 / step as f64);
            writer.append(step, &[usage, Reading::new("loss", [], f64::NAN)]).unwrap();
        }
        (stage, writer)
    }

    fn steps(stage: &StageDir) -> Vec<u64> {
        read(stage).iter().map(|points| points.step).collect()
    }

    #[test]
    fn what_is_appended_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let (stage, _) = stage(&folder);
        let usage = Reading::new("usage", [Index::Depth(2)], 1.0 / 40.0);
        assert_eq!(read(&stage)[1], Points { step: 40, points: vec![usage] });
        assert_eq!(steps(&stage), [20, 40, 60]);
    }

    #[test]
    fn points_after_a_checkpoint_are_taken_back_and_a_line_without_its_end_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let (stage, writer) = stage(&folder);
        fs::OpenOptions::new().append(true).open(stage.events()).unwrap().write_all(b"{\"event\":\"poi").unwrap();
        assert_eq!(steps(&stage), [20, 40, 60]);
        writer.take_back(45).unwrap();
        writer.append(60, &[]).unwrap();
        assert_eq!(steps(&stage), [20, 40, 60]);
        assert_eq!(read(&stage)[2].points, []);
        writer.take_back(0).unwrap();
        assert_eq!(fs::read(stage.events()).unwrap(), b"");
    }
}
