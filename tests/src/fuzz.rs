//! Fuzzing in the tests: the files of a corpus, changed at random, are read one after another in a process of its own, whose
//! memory is bounded and whose time is watched.
//!
//! The n-th input follows from the corpus, the seed and n alone. The process notes n before it reads, so that whatever ends it (a
//! panic, a stack that overflows, memory beyond the bound, a loop without end) names its input, which is kept in a file then.
//! Once the cause is mended, that file goes into the corpus, whose files are the first inputs of every run.

use crate::faults::{Random, number};
use std::fs::{self, File};
use std::io::{Error, Read, Result};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Address space of the process that reads, in KiB. Some libraries ask for as much zeroed memory as a length in a file says, up
/// to 4 GiB, and touch none of it: that is no memory.
const ADDRESSES_KIB: u64 = 16 << 20;
/// Memory that it may touch, in KiB: libraries, threads, and more than any input of a few KiB may take.
const MEMORY_KIB: u64 = 1 << 20;
/// How many inputs are read between two looks at the memory that was touched.
const LOOK: u64 = 256;
/// No input takes so long, whatever else the machine does.
const PATIENCE: Duration = Duration::from_secs(120);
/// In the process that reads: where it notes how far it is.
const NOTES: &str = "RQLAB_FUZZ_NOTES";
/// What breaks numbers in texts.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1",
    "255",
    "65536",
    "4294967295",
    "9223372036854775807",
    "18446744073709551616",
    "1e999",
    "NaN",
    "0.5",
    "",
];

/// What is read, and what it is made of.
pub struct Corpus {
    name: &'static str,
    files: Vec<Vec<u8>>,
    words: Vec<&'static [u8]>,
}

impl Corpus {
    /// The files in `tests/corpora/NAME`, by their names.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn of(name: &'static str) -> Result<Self> {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpora")).join(name);
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_>>()?;
        paths.sort();
        Ok(Self { name, files: paths.iter().map(fs::read).collect::<Result<_>>()?, words: Vec::new() })
    }

    /// Its files.
    pub fn files(&self) -> &[Vec<u8>] {
        &self.files
    }

    /// With files that are made by the test itself.
    #[must_use]
    pub fn with(mut self, files: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.files.extend(files);
        self
    }

    /// With words that the format knows, between spaces.
    #[must_use]
    pub fn words(mut self, words: &'static str) -> Self {
        self.words = words.split_ascii_whitespace().map(str::as_bytes).collect();
        self
    }

    /// The n-th input: first the files as they are, then changed ones.
    fn input(&self, seed: u64, n: u64) -> Vec<u8> {
        if let Some(file) = self.files.get(n as usize) {
            return file.clone();
        }
        let mut random = Random::new(Random::new(seed ^ n.wrapping_mul(0x9e37_79b9)).draw());
        let mut bytes = self.file(&mut random).to_vec();
        let most = 1 << random.below(5);
        for _ in 0..1 + random.below(most) {
            self.change(&mut bytes, &mut random);
        }
        bytes
    }

    fn file(&self, random: &mut Random) -> &[u8] {
        &self.files[random.below(self.files.len())]
    }

    /// One change, of those that break readers: of bits, lengths, numbers, words, and whole parts.
    fn change(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        let at = random.below(bytes.len() + 1);
        let longest = 1 << random.below(10);
        let end = at + random.below(bytes.len() - at + 1).min(longest);
        match random.below(12) {
            0 | 1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << random.below(8)),
            2 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random.draw() as u8),
            3 | 4 => {
                let width = 1 << random.below(4);
                let number = match random.below(6) {
                    0 => bytes.len() as u64,
                    1 => u64::MAX - random.below(3) as u64,
                    2 => 1 << random.below(64),
                    3 => (1_u64 << random.below(64)).wrapping_sub(1),
                    _ => random.below(300) as u64,
                };
                let mut digits = number.to_le_bytes()[..width].to_vec();
                if random.below(2) == 0 {
                    digits.reverse();
                }
                bytes.iter_mut().skip(at).zip(digits).for_each(|(byte, digit)| *byte = digit);
            }
            5 => drop(bytes.drain(at..end)),
            6 => bytes.truncate(at),
            7 => {
                let part = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, part);
            }
            8 => {
                let other = self.file(random);
                let from = random.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            9 => {
                let part: Vec<u8> = (0..random.below(9)).map(|_| random.draw() as u8).collect();
                bytes.splice(at..at, part);
            }
            10 if !self.words.is_empty() => {
                let word = self.words[random.below(self.words.len())];
                bytes.splice(at..end.min(at + 8), word.iter().copied());
            }
            _ => {
                let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit).map(|found| at + found) else {
                    return;
                };
                let digits = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                bytes.splice(start..start + digits, NUMBERS[random.below(NUMBERS.len())].bytes());
            }
        }
    }

    /// Reads 10,000 inputs, or as many as `RQLAB_INPUTS` says, by the chance of `RQLAB_SEED`. To be called by a test, with whose
    /// name the process that reads is started.
    ///
    /// # Errors
    /// The input that ended the process, with its file.
    pub fn fuzz(&self, read: impl Fn(&[u8])) -> Result<()> {
        let (count, seed) = (number("RQLAB_INPUTS", 10_000), number("RQLAB_SEED", 0));
        match std::env::var_os(NOTES) {
            Some(notes) => {
                let notes = File::options().write(true).open(notes)?;
                for n in 0..count {
                    notes.write_all_at(&n.to_le_bytes(), 0)?;
                    read(&self.input(seed, n));
                    if n % LOOK == LOOK - 1 || n == count - 1 {
                        check_memory()?;
                    }
                }
                Ok(())
            }
            None => self.watch(count, seed),
        }
    }

    /// Starts the process that reads, and waits for its end.
    fn watch(&self, count: u64, seed: u64) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let notes = folder.path().join("notes");
        fs::write(&notes, [0; 8])?;
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let limited = format!("ulimit -v {ADDRESSES_KIB}; exec \"$0\" \"$@\"");
        let mut reader = Command::new("sh")
            .args(["-c", &limited])
            .arg(std::env::current_exe()?)
            .args(["--exact", &test, "--nocapture", "--test-threads", "1"])
            // What readers keep for later is not the user's affair.
            .env("XDG_CACHE_HOME", folder.path())
            .env("TMPDIR", folder.path())
            .env(NOTES, &notes)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("said"))?)
            .spawn()?;
        let how = wait(&mut reader, &File::open(&notes)?)?;
        let Some(how) = how else { return Ok(()) };
        let mut n = [0; 8];
        File::open(&notes)?.read_exact(&mut n)?;
        let n = u64::from_le_bytes(n);
        let kept = std::env::temp_dir().join(format!("rqlab-{}-{seed}-{n}", self.name));
        fs::write(&kept, self.input(seed, n))?;
        let said = fs::read_to_string(folder.path().join("said")).unwrap_or_default();
        let said: Vec<&str> = said.lines().rev().take(20).collect();
        let said: Vec<&str> = said.into_iter().rev().collect();
        Err(Error::other(format!(
            "reading input {n} of {count} by the seed {seed}, {}: {how}. It goes into tests/corpora/{} when that is mended.\n{}",
            kept.display(),
            self.name,
            said.join("\n")
        )))
    }
}

/// That this process has not touched more memory than it may.
fn check_memory() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    match peak {
        Some(peak) if peak > MEMORY_KIB => {
            Err(Error::other(format!("{} MiB of memory, of this input or one of the {LOOK} before it", peak >> 10)))
        }
        _ => Ok(()),
    }
}

/// Waits for a reader's end; says how that was, unless it was a good one.
fn wait(reader: &mut Child, notes: &File) -> Result<Option<String>> {
    let (mut last, mut since) = ([0xff; 8], Instant::now());
    loop {
        if let Some(status) = reader.try_wait()? {
            return Ok((!status.success()).then(|| status.to_string()));
        }
        let mut now = [0; 8];
        notes.read_exact_at(&mut now, 0)?;
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > PATIENCE {
            reader.kill()?;
            reader.wait()?;
            return Ok(Some(format!("not done after {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
    use super::*;

    fn corpus() -> Corpus {
        Corpus { name: "itself", files: vec![b"a number 17 in a text".to_vec(), vec![]], words: vec![b"word"] }
    }

    /// What a reader does wrong is found and named, whatever it is.
    fn assert_found(read: impl Fn(&[u8]), words: &str) {
        let found = corpus().fuzz(read);
        if std::env::var_os(NOTES).is_some() {
            found.unwrap();
        } else {
            let said = found.unwrap_err().to_string();
            assert!(said.contains(words) && said.contains("/rqlab-itself-"), "{said}");
            let kept = said.split(", ").nth(1).and_then(|rest| rest.split(": ").next()).unwrap();
            fs::remove_file(kept).unwrap();
        }
    }

    #[test]
    fn equal_numbers_give_equal_inputs() {
        let corpus = corpus();
        let inputs = |seed| (0..500).map(|n| corpus.input(seed, n)).collect::<Vec<_>>();
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        assert_eq!(inputs(1)[0], corpus.files[0]);
    }

    #[test]
    fn a_sound_reader_passes() {
        corpus().fuzz(|bytes| assert!(bytes.len() < 1 << 20)).unwrap();
    }

    #[test]
    fn a_panic_is_found() {
        assert_found(|bytes| assert!(!bytes.windows(4).any(|four| four == b"word"), "it has a word"), "it has a word");
    }

    #[test]
    fn memory_that_nobody_has_is_found() {
        let read = |bytes: &[u8]| {
            let asked = if bytes.len() > 30 { 1 << 42 } else { 1 };
            std::hint::black_box(Vec::<u8>::with_capacity(asked));
        };
        assert_found(read, "memory allocation of 4398046511104 bytes failed");
    }

    #[test]
    fn memory_that_is_touched_is_found() {
        let read = |bytes: &[u8]| drop(std::hint::black_box(vec![1_u8; if bytes.len() > 30 { 5 << 28 } else { 1 }]));
        assert_found(read, "MiB of memory, of this input or one of the 256 before it");
    }
}
