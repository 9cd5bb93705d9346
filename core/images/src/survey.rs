//! A look at every image of a set, before any of them is needed.

use crate::{BadFiles, Flaw, Header, cache};
use image::metadata::Orientation;
use rayon::prelude::*;
use rqlab_sdk::contracts::{LeftOut, Progress, Sizes};
use rqlab_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::Metadata;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often progress is told.
const STEP: usize = 256;
/// Files that changed so lately may change again within the resolution of their time stamps.
const SETTLED: Duration = Duration::from_secs(2);

/// What a look at one image gives.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// What its file says of it.
    pub header: Header,
    /// A digest of what it is: its bytes, or what stands for them.
    pub digest: [u8; 32],
}

/// An image that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bad {
    /// Which it is.
    pub index: usize,
    /// Why, in a word or two.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
}

/// What a look at all images found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// The images that cannot be used, in order.
    pub bad: Vec<Bad>,
    /// The sizes of the others, the most frequent first: height and width, how many have it, and the first that does. At most a
    /// hundred of them.
    pub sizes: Vec<([usize; 2], usize, usize)>,
    /// The smallest and the largest heights and widths.
    pub range: Option<[[usize; 2]; 2]>,
    /// How many have shades of grey alone.
    pub grey: usize,
    /// How many may have transparent parts.
    pub transparent: usize,
    /// How many have to be turned to stand upright.
    pub turned: usize,
    /// How many are the first of several pictures in a file.
    pub several: usize,
    /// How many can be used.
    pub count: usize,
    /// A digest of those that can be used.
    pub digest: String,
}

impl Survey {
    /// How many images can be used.
    pub fn images(&self) -> usize {
        self.count
    }

    /// The smallest and the largest sides.
    pub fn sizes(&self) -> Option<Sizes> {
        self.range.map(|[height, width]| Sizes { height, width })
    }

    /// The one size that all images have, which they must where none is asked for.
    ///
    /// # Errors
    /// Images of several sizes; the message names one of each, by `place`.
    pub fn one_size(&self, place: impl Fn(usize) -> String) -> Result<[usize; 2]> {
        match self.sizes.as_slice() {
            [] => Err(Error::Data("there is no image that can be used".to_owned())),
            [(size, ..)] => Ok(*size),
            [(size, count, _), .., (other, _, odd)] => Err(Error::Data(format!(
                "{}: an image of {} x {} pixels (height x width), where {count} of {} are of {} x {}; give `size` to bring \
                 all to one",
                place(*odd),
                other[0],
                other[1],
                self.images(),
                size[0],
                size[1],
            ))),
        }
    }

    /// How many channels images get: as many as are asked for; else one if all are grey, three if not.
    pub fn channels(&self, asked: Option<usize>, background: [u8; 3]) -> usize {
        let [red, green, blue] = background;
        let all_grey = self.grey == self.images() && (self.transparent == 0 || red == green && green == blue);
        asked.unwrap_or(if all_grey { 1 } else { 3 })
    }

    /// What is left out, by reason, each of which is a `unit`; or an error that names the first, as `policy` asks for.
    ///
    /// # Errors
    /// Images that cannot be used, if these are refused.
    pub fn left_out(&self, policy: BadFiles, unit: &str, place: impl Fn(usize) -> String) -> Result<Vec<LeftOut>> {
        if policy == BadFiles::Refuse
            && let Some(first) = self.bad.first()
        {
            let more = match self.bad.len() - 1 {
                0 => String::new(),
                more => format!(" ({more} more cannot be used)"),
            };
            let (place, message) = (place(first.index), &first.message);
            return Err(Error::Data(format!("{place}: {message}{more}; `bad_files: skip` leaves such {unit}s out")));
        }
        let mut reasons: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for bad in &self.bad {
            reasons.entry(&bad.reason).or_insert((0, bad.index)).0 += 1;
        }
        let left_out = |(reason, (count, first)): (&str, (usize, usize))| LeftOut {
            unit: unit.to_owned(),
            reason: reason.to_owned(),
            count,
            example: place(first),
        };
        Ok(reasons.into_iter().map(left_out).collect())
    }
}

/// What tells whether files are as they were: a digest of their names, sizes and times of change, and whether these are old
/// enough to be relied on.
#[derive(Debug, Clone)]
pub struct Stamp {
    hasher: blake3::Hasher,
    settled: bool,
    now: SystemTime,
}

impl Stamp {
    /// Of a look at files that follows `settings`.
    pub fn new(settings: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("survey {} {settings}\n", crate::VERSION).as_bytes());
        Self { hasher, settled: true, now: SystemTime::now() }
    }

    /// The name of what is kept under it.
    pub(crate) fn key(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// Whether the files' times of change are old enough to be relied on.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled
    }

    /// Adds a file.
    pub fn add(&mut self, name: &[u8], file: &Metadata) {
        let modified = file.modified().unwrap_or(UNIX_EPOCH);
        self.settled &= self.now.duration_since(modified).is_ok_and(|age| age > SETTLED);
        self.hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(&file.len().to_le_bytes());
        let nanoseconds = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        self.hasher.update(&nanoseconds.to_le_bytes());
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            for number in [file.ctime(), file.ctime_nsec(), file.ino() as i64] {
                self.hasher.update(&number.to_le_bytes());
            }
        }
    }
}

/// Looks at `count` images, in parallel, with `look`; or takes what was found when the files had the same stamp.
pub fn survey(
    stamp: &Stamp,
    count: usize,
    progress: &Progress,
    look: impl Fn(usize) -> Result<Look, Flaw> + Sync,
) -> Survey {
    survey_in_groups(stamp, &vec![1; count], progress, |index| vec![look(index)])
}

/// As [`survey()`], of images that are read in groups: `look` gives those of a group, of which there are `sizes`.
pub fn survey_in_groups(
    stamp: &Stamp,
    sizes: &[usize],
    progress: &Progress,
    look: impl Fn(usize) -> Vec<Result<Look, Flaw>> + Sync,
) -> Survey {
    let Ok(found) = cache::kept(stamp, || {
        let (done, all) = (AtomicUsize::new(0), sizes.iter().sum());
        let counted = |group: usize| {
            let looks = look(group);
            let before = done.fetch_add(sizes[group], Ordering::Relaxed);
            let now = before + sizes[group];
            if before / STEP != now / STEP || now == all {
                progress.tell("looking at the images", now, all);
            }
            looks
        };
        Ok::<_, Infallible>(summarized((0..sizes.len()).into_par_iter().flat_map_iter(counted).collect()))
    });
    found
}

fn summarized(looks: Vec<Result<Look, Flaw>>) -> Survey {
    const LISTED: usize = 100;
    let mut found = Survey::default();
    let mut sizes: BTreeMap<[usize; 2], (usize, usize)> = BTreeMap::new();
    let mut hasher = blake3::Hasher::new();
    let mut range: Option<Sizes> = None;
    for (index, look) in looks.into_iter().enumerate() {
        let Look { header, digest } = match look {
            Ok(look) => look,
            Err(Flaw { reason, message }) => {
                found.bad.push(Bad { index, reason: reason.to_owned(), message });
                continue;
            }
        };
        sizes.entry(header.size()).or_insert((0, index)).0 += 1;
        let size = Sizes::of(header.size());
        range = Some(range.map_or(size, |range| range.with(size)));
        found.count += 1;
        found.grey += usize::from(header.grey);
        found.transparent += usize::from(header.alpha);
        found.turned += usize::from(header.orientation != Orientation::NoTransforms);
        found.several += usize::from(header.several);
        hasher.update(&digest);
    }
    found.sizes = sizes.into_iter().map(|(size, (count, first))| (size, count, first)).collect();
    found.sizes.sort_by_key(|&(_, count, first)| (std::cmp::Reverse(count), first));
    // The rarest is what a complaint names.
    if found.sizes.len() > LISTED {
        found.sizes.drain(LISTED - 1..found.sizes.len() - 1);
    }
    found.range = range.map(|sizes| [sizes.height, sizes.width]);
    found.digest = hasher.finalize().to_hex().to_string();
    found
}
