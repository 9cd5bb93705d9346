//! What tests of faults share: chance that can be repeated, processes to kill, and what two runs of one sweep must have in
//! common.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// A number from the environment, such as how many faults are tried.
pub fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Numbers that look random, the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The series of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// One below `limit`, or 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.draw() % limit.max(1) as u64) as usize
    }
}

/// Processes whose command line names `text`, on Linux.
pub fn processes(text: &str) -> Vec<u32> {
    let names = |line: Vec<u8>| line.windows(text.len()).any(|window| window == text.as_bytes());
    let named = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(names);
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(named).collect()
}

/// Sends a signal to processes, of which some may have ended by themselves.
pub fn signal(name: &str, processes: &[u32]) {
    let list: Vec<String> = processes.iter().map(u32::to_string).collect();
    let _ = Command::new("sh").args(["-c", &format!("kill -s {name} {} 2>&-", list.join(" "))]).status();
}

/// Waits until no process names `text`. However long that takes here: one that stays would be waited for, and the test would
/// not end.
pub fn wait_till_all_are_gone(text: &str) {
    while !processes(text).is_empty() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The leases that a folder of runs still has. A process that is killed between making the file of a lease and its first word
/// leaves an empty one, of which nobody knows whose it is: it goes once a sweep has seen it for two minutes, and does not count.
///
/// # Errors
/// Those of the file system.
pub fn leases(runs: &Path) -> Result<Vec<PathBuf>> {
    let folder = runs.join("leases");
    let mut found = files(&folder)?;
    found.retain(|name| fs::metadata(folder.join(name)).is_ok_and(|about| about.len() > 0));
    Ok(found)
}

/// All plain files under a folder, by their paths in it.
///
/// # Errors
/// Those of the file system.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                walk(&path, root, found)?;
            } else {
                found.push(path.strip_prefix(root).unwrap_or(&path).to_owned());
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found)?;
    found.sort();
    Ok(found)
}

/// What can be seen of work from outside: every file of a folder, its size and time of change.
pub fn traces(folder: &Path) -> Vec<(PathBuf, u64, Option<SystemTime>)> {
    // A file may go while it is looked for.
    let trace = |file: PathBuf| {
        let about = fs::metadata(folder.join(&file)).ok()?;
        Some((file, about.len(), about.modified().ok()))
    };
    files(folder).unwrap_or_default().into_iter().filter_map(trace).collect()
}

/// What a finished stage has, but for what it says of the machine: two runs of one sweep have the same.
#[derive(Debug, PartialEq)]
pub struct Finished {
    /// What it measured.
    pub measures: Value,
    /// How its training went.
    pub curves: Value,
    /// What it wrote of that while it trained; empty of one that trains nothing.
    pub events: Vec<u8>,
    /// All other files that it left, by name: weights, tokens, pictures. Of logs the name alone.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Every finished stage of a folder of runs by its id.
///
/// # Errors
/// Those of the file system, and a stage that is not done.
pub fn finished(runs: &Path) -> Result<BTreeMap<String, Finished>> {
    let mut stages = BTreeMap::new();
    for entry in fs::read_dir(runs.join("stages"))? {
        let stage = entry?.path();
        let mut kept = BTreeMap::new();
        for file in files(&stage)? {
            let name = file.to_string_lossy().into_owned();
            // What was set aside may be anything.
            if !name.contains(".damaged") {
                let bytes = if name == "log.txt" { Vec::new() } else { fs::read(stage.join(&file))? };
                kept.insert(name, bytes);
            }
        }
        let done: Value = serde_json::from_slice(&kept.remove("done.json").unwrap_or_default())?;
        let (measures, curves) = (done["readings"].clone(), done["curves"].clone());
        let events = kept.remove("events.jsonl").unwrap_or_default();
        let id = stage.file_name().unwrap_or_default().to_string_lossy().into_owned();
        stages.insert(id, Finished { measures, curves, events, files: kept });
    }
    Ok(stages)
}

/// In what two folders of finished runs differ; none if their results are equal, bit for bit, and neither has a file that the
/// other has not.
///
/// # Errors
/// As for [`finished`].
pub fn difference(ours: &Path, whole: &Path) -> Result<Option<String>> {
    let (ours, whole) = (finished(ours)?, finished(whole)?);
    if !ours.keys().eq(whole.keys()) {
        return Ok(Some(format!("stages {:?} and {:?}", ours.keys(), whole.keys())));
    }
    Ok(ours.iter().find_map(|(id, ours)| {
        let whole = &whole[id];
        if (&ours.measures, &ours.curves) != (&whole.measures, &whole.curves) {
            return Some(format!("stage {id}: {} {}\n{} {}", ours.measures, ours.curves, whole.measures, whole.curves));
        }
        if ours.events != whole.events {
            return Some(format!("stage {id}: events.jsonl"));
        }
        if !ours.files.keys().eq(whole.files.keys()) {
            return Some(format!("stage {id}: files {:?} and {:?}", ours.files.keys(), whole.files.keys()));
        }
        let other = ours.files.iter().find(|(name, bytes)| whole.files[*name] != **bytes);
        other.map(|(name, _)| format!("stage {id}: {name}"))
    }))
}
