//! What a stage said while it ran.

use super::StageDir;
use rqlab_sdk::files;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// Bytes at the end of a log that are looked at.
const LOG_END: u64 = 1 << 16;

impl StageDir {
    /// What the stage said while it ran.
    pub fn log(&self) -> PathBuf {
        self.file("log.txt")
    }

    /// How long the log is, in bytes.
    pub fn log_length(&self) -> u64 {
        files::open(&self.log()).map_or(0, |(_, length)| length)
    }

    /// The last `lines` lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = self.log_from(0);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The last lines, at most so `many`, of what the log says after its first `from` bytes, but for what Rust adds to a panic
    /// (a note, and the functions that were called, where the user asks for them), and for lines without a word.
    pub fn last_words(&self, from: u64, many: usize) -> Vec<String> {
        let text = self.log_from(from);
        let lines = text.lines().map(str::trim);
        let is_call = |line: &str| {
            line.starts_with("at ") || line.split_once(": ").is_some_and(|(number, _)| number.parse::<u32>().is_ok())
        };
        let is_added = |line: &str| line.starts_with("note: ") || line == "stack backtrace:" || is_call(line);
        let lines: Vec<&str> = lines.filter(|line| line.contains(char::is_alphanumeric) && !is_added(line)).collect();
        lines[lines.len().saturating_sub(many)..].iter().map(|&line| line.to_owned()).collect()
    }

    /// What the log says after its first `from` bytes, or the end of it. What cannot be read is not there.
    fn log_from(&self, from: u64) -> String {
        let Ok((mut file, length)) = files::open(&self.log()) else { return String::new() };
        let mut bytes = Vec::new();
        let start = from.max(length.saturating_sub(LOG_END));
        let _ = file.seek(SeekFrom::Start(start)).and_then(|_| file.take(LOG_END).read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
