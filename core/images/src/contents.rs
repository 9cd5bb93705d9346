//! From what was found to what a data set is.

use crate::config::Settled;
use crate::{Settings, Survey};
use rqlab_sdk::contracts::{DatasetInfo, LeftOut, Split, Summary};
use rqlab_sdk::{Error, Result};

/// An image that is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its class; 0 where images carry no label.
    pub class: u32,
    /// Whether it is for test.
    pub test: bool,
}

/// What a plugin found in its files, beside what a look at the images tells.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// The plugin's name, which is part of the digest.
    pub plugin: &'static str,
    /// Where the set lies, for messages.
    pub place: String,
    /// The names of the classes; empty if images carry no label.
    pub classes: Vec<String>,
    /// The images that can be used, in the order in which they were looked at.
    pub members: Vec<Member>,
    /// Their captions, empty ones of those that have none; none where captions are not asked for.
    pub captions: Option<Vec<String>>,
    /// How the splits are made: [`Summary::splits`].
    pub splits: String,
    /// What helps where a split has no image: "; change `test_fraction`".
    pub remedy: &'static str,
    /// What is left out and was not looked at.
    pub left_out: Vec<LeftOut>,
    /// What else a user should know.
    pub notes: Vec<String>,
}

impl Contents {
    /// What the set is.
    ///
    /// # Errors
    /// No images, or none for a split; other numbers than are expected.
    pub(crate) fn info(self, settings: &Settings, found: &Survey, settled: &Settled) -> Result<DatasetInfo> {
        if self.members.is_empty() {
            return Err(Error::Data(format!("{}: there is no image that can be used", self.place)));
        }
        let test = self.members.iter().filter(|member| member.test).count();
        let train = self.members.len() - test;
        for (count, split) in [(train, "training"), (test, "test")] {
            if count == 0 {
                return Err(Error::Data(format!("{}: no image for the {split} split{}", self.place, self.remedy)));
            }
        }
        let mut per_class = vec![[0; 2]; self.classes.len()];
        for member in &self.members {
            if let Some(counts) = per_class.get_mut(member.class as usize) {
                counts[usize::from(member.test)] += 1;
            }
        }
        let digest = self.digest(found, settled);
        let mut notes = self.notes;
        if let Some(captions) = &self.captions {
            let given = captions.iter().filter(|caption| !caption.is_empty()).count();
            notes.push(format!("{given} of {} images have a caption", captions.len()));
        }
        let info = DatasetInfo {
            image: settled.image,
            classes: self.classes,
            train,
            test,
            digest,
            summary: Summary {
                per_class,
                sizes: found.sizes(),
                left_out: self.left_out.into_iter().chain(settled.left_out.iter().cloned()).collect(),
                splits: self.splits,
                preparation: settled.preparation.facts(found),
                augmentation: settings.augmentation().facts(),
                notes,
            },
        };
        expected(settings, &info, &self.place)?;
        Ok(info)
    }

    /// A digest of what determines pixels, labels and captions: the images that are used, in their order, their classes and
    /// captions, which are for test, and how they are prepared.
    fn digest(&self, found: &Survey, settled: &Settled) -> String {
        let mut hasher = blake3::Hasher::new();
        let identity = settled.preparation.identity();
        hasher.update(format!("{} {identity} {:?} {}", self.plugin, self.classes, found.digest).as_bytes());
        for member in &self.members {
            hasher.update(&member.class.to_le_bytes()).update(&[u8::from(member.test)]);
        }
        for caption in self.captions.iter().flatten() {
            hasher.update(&(caption.len() as u64).to_le_bytes()).update(caption.as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// What is known of a set that is not on this machine: what `expect` and `size` promise, if both are given.
pub(crate) fn promised(settings: &Settings, place: &str) -> Option<DatasetInfo> {
    let ([classes, train, test], size) = (settings.expect?, settings.size?);
    let preparation = settings.preparation();
    Some(DatasetInfo {
        image: [size.height, size.width, preparation.channels],
        classes: (0..classes).map(|class| class.to_string()).collect(),
        train,
        test,
        // Nothing is computed from it; two absent sets are not taken for one.
        digest: format!("absent: {place}"),
        summary: Summary {
            splits: "as `expect` says".to_owned(),
            preparation: preparation.facts(&Survey::default()),
            augmentation: settings.augmentation().facts(),
            ..Summary::default()
        },
    })
}

/// Other numbers than `expect` asks for are an error.
fn expected(settings: &Settings, info: &DatasetInfo, place: &str) -> Result<()> {
    let found = [info.classes.len(), info.train, info.test];
    let Some(expected) = settings.expect.filter(|expected| *expected != found) else { return Ok(()) };
    let counts = |[classes, train, test]: [usize; 3]| {
        let plural = if classes == 1 { "class" } else { "classes" };
        format!("{classes} {plural}, {train} training and {test} test images")
    };
    let left_out: usize = info.summary.left_out.iter().map(|out| out.count).sum();
    let left_out = if left_out == 0 { String::new() } else { format!(" ({left_out} left out)") };
    Err(Error::Data(format!("{place}: {}{left_out}, where `expect` asks for {}", counts(found), counts(expected))))
}

/// The images of each split, as places among the members.
pub(crate) fn by_split(members: &[Member]) -> [Vec<usize>; 2] {
    [Split::Train, Split::Test].map(|split| {
        let wanted = split == Split::Test;
        (0..members.len()).filter(|&index| members[index].test == wanted).collect()
    })
}
