//! From the shards' indices to a data set: which samples can be used, their classes, and their splits.

use crate::index::{Fault, Index, Member, Place, Reason, Sample};
use crate::{Files, Read, WebDatasetConfig};
use rayon::prelude::*;
use rqlab_images::{
    BadFiles, Contents, Flaw, Header, ImageFiles, Look, Preparation, Settings, Settled, Stamp, Survey, splits, survey,
};
use rqlab_sdk::contracts::LeftOut;
use rqlab_sdk::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::UNIX_EPOCH;

/// Up to this many bytes of shards, images are hashed whole; of more, their places in shards of a name, size and time of change.
const WHOLE: u64 = 1 << 30;
/// Extensions that captions go by.
const CAPTIONS: [&str; 3] = [".txt", ".text", ".caption"];

/// What the shards hold, and what is made of it.
pub(crate) struct Found {
    pub(crate) survey: Survey,
    pub(crate) settled: Settled,
    pub(crate) contents: Contents,
    /// The shard of each image that can be used, and its place in that.
    pub(crate) places: Vec<(usize, Place)>,
}

/// A sample and the shard that it lies in.
struct Candidate<'a> {
    shard: usize,
    sample: &'a Sample,
}

impl Found {
    /// Of `shards`, the first `train_shards` are for training.
    pub(crate) fn new(
        config: &WebDatasetConfig,
        settings: &Settings,
        shards: &[PathBuf],
        train_shards: usize,
        cx: &DatasetContext,
    ) -> Result<Self> {
        let metadata: Vec<Metadata> =
            shards.iter().map(|path| path.metadata().map_err(Error::file(path))).collect::<Result<_>>()?;
        let mut indices = read(config, shards, cx)?;
        let labelled = settle_labels(config, &mut indices);
        let candidates: Vec<Candidate<'_>> = indices
            .iter()
            .enumerate()
            .flat_map(|(shard, index)| index.samples.iter().map(move |sample| Candidate { shard, sample }))
            .collect();
        let survey = look(config, shards, &metadata, &candidates, &settings.preparation(), cx);
        let settled = settings.settled(&survey, Files::UNIT, |index| candidates[index].place(shards))?;

        let bad: BTreeSet<usize> = survey.bad.iter().map(|bad| bad.index).collect();
        let good: Vec<(&Candidate<'_>, Place, &str)> = (0..)
            .zip(&candidates)
            .filter(|(index, _)| !bad.contains(index))
            .filter_map(|(_, candidate)| {
                let (place, label) = candidate.sample.found.as_ref().ok()?;
                Some((candidate, *place, label.as_deref().unwrap_or_default()))
            })
            .collect();
        let classes = match (labelled, &config.class_names) {
            (false, _) => Vec::new(),
            (true, Some(names)) => names.clone(),
            (true, None) => distinct(good.iter().map(|(_, _, label)| *label)),
        };
        let known: BTreeMap<String, u32> = match &config.class_names {
            Some(names) => (0..names.len() as u32).map(|class| (class.to_string(), class)).collect(),
            None => classes.iter().cloned().zip(0..).collect(),
        };
        let class = |label: &str| known.get(label).copied().unwrap_or(0);
        let for_test = match config.test {
            Some(_) => good.iter().map(|(candidate, ..)| candidate.shard >= train_shards).collect(),
            None => {
                let names: Vec<String> = good.iter().map(|(candidate, ..)| candidate.name(shards)).collect();
                let named = good.iter().zip(&names).map(|((.., label), name)| (class(label), name.as_bytes()));
                splits::by_class(named, config.test_fraction)
            }
        };
        let member = |((.., label), test): (&(_, _, &str), bool)| rqlab_images::Member { class: class(label), test };
        let contents = Contents {
            plugin: "webdataset",
            place: config.path.clone(),
            members: good.iter().zip(for_test).map(member).collect(),
            captions: config.captions.then(|| good.iter().map(|(one, ..)| one.sample.caption.clone()).collect()),
            classes,
            splits: splits_made(config, labelled, shards.len(), train_shards),
            remedy: if config.test.is_none() { "; change `test_fraction`, or name shards with `test`" } else { "" },
            left_out: unused(&indices),
            notes: notes(config, labelled),
        };
        let places = good.iter().map(|(candidate, place, _)| (candidate.shard, *place)).collect();
        Ok(Self { survey, settled, contents, places })
    }
}

impl Candidate<'_> {
    /// The sample in a message.
    fn place(&self, shards: &[PathBuf]) -> String {
        let shard = shards[self.shard].display();
        if self.sample.key.is_empty() { shard.to_string() } else { format!("{shard}: sample `{}`", self.sample.key) }
    }

    /// What the sample is called, wherever its shard lies.
    fn name(&self, shards: &[PathBuf]) -> String {
        format!("{}/{}", file_name(&shards[self.shard]), self.sample.key)
    }
}

fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// The indices of all shards.
fn read(config: &WebDatasetConfig, shards: &[PathBuf], cx: &DatasetContext) -> Result<Vec<Index>> {
    let (wanted, done) = (config.wanted(), AtomicUsize::new(0));
    let index = |shard: &PathBuf| {
        let index = Index::of(shard, &wanted);
        cx.progress.tell("looking up the images in shards", done.fetch_add(1, Ordering::Relaxed) + 1, shards.len());
        index
    };
    shards.par_iter().map(index).collect()
}

/// Whether images are labelled. If they are, samples without a class, or of a class without a name, cannot be used.
fn settle_labels(config: &WebDatasetConfig, indices: &mut [Index]) -> bool {
    let wanted = config.wanted();
    let Some(member) = wanted.label else { return false };
    let labels = indices.iter().flat_map(|index| &index.samples).map(|sample| &sample.found);
    let any = labels.into_iter().any(|found| match found {
        Ok((_, label)) => label.is_some(),
        Err(fault) => fault.reason == Reason::NoClass,
    });
    if !any && !config.expects_labels() {
        return false;
    }
    for sample in indices.iter_mut().flat_map(|index| &mut index.samples) {
        let fault = match &sample.found {
            Ok((_, None)) => format!("it has no member `.{member}`, which holds the class of others"),
            Ok((_, Some(label))) => match &config.class_names {
                Some(names) if label.parse::<usize>().map_or(true, |class| class >= names.len()) => {
                    format!("its class is {label}, and `class_names` has {} names", names.len())
                }
                _ => continue,
            },
            Err(_) => continue,
        };
        sample.found = Err(Fault { reason: Reason::NoClass, message: fault });
    }
    true
}

/// Looks at the header of every image; with `skip`, at all of it.
fn look(
    config: &WebDatasetConfig,
    shards: &[PathBuf],
    metadata: &[Metadata],
    candidates: &[Candidate<'_>],
    preparation: &Preparation,
    cx: &DatasetContext,
) -> Survey {
    let settings =
        (config.wanted(), config.expects_labels(), &config.class_names, config.bad_files, config.max_megapixels);
    let mut stamp = Stamp::new(&format!("webdataset {settings:?}"));
    shards.iter().zip(metadata).for_each(|(path, file)| stamp.add(path.as_os_str().as_encoded_bytes(), file));
    let whole = metadata.iter().map(Metadata::len).sum::<u64>() <= WHOLE;
    survey(&stamp, candidates.len(), &cx.progress, |index| {
        let Candidate { shard, sample } = &candidates[index];
        let (place, _) = sample.found.as_ref().map_err(Flaw::from)?;
        let mut member = Member::open(&shards[*shard], *place)?;
        let header = match config.bad_files {
            BadFiles::Refuse => Header::read(&mut member)?,
            BadFiles::Skip => preparation.verified(&member.all()?)?,
        };
        preparation.check(&header)?;
        let digest = if whole {
            blake3::hash(&member.all()?)
        } else {
            let file = &metadata[*shard];
            let modified = file.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            blake3::hash(format!("{} {} {modified:?} {place:?}", file_name(&shards[*shard]), file.len()).as_bytes())
        };
        Ok(Look { header, digest: digest.into() })
    })
}

/// Labels, each once: numbers by their size, names by the alphabet.
fn distinct<'a>(labels: impl Iterator<Item = &'a str>) -> Vec<String> {
    let names: BTreeSet<&str> = labels.collect();
    let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    if names.iter().all(|name| name.parse::<u64>().is_ok()) {
        names.sort_by_key(|name| name.parse::<u64>().unwrap_or(0));
    }
    names
}

/// The members that are not used, by extension.
fn unused(indices: &[Index]) -> Vec<LeftOut> {
    let mut all: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for (what, (count, example)) in indices.iter().flat_map(|index| &index.unused) {
        all.entry(what).or_insert((0, example)).0 += count;
    }
    let left_out = |(what, (count, example)): (&str, (usize, &str))| LeftOut {
        unit: "member".to_owned(),
        reason: if CAPTIONS.contains(&what) { format!("{what}, captions not used") } else { what.to_owned() },
        count,
        example: example.to_owned(),
    };
    all.into_iter().map(left_out).collect()
}

fn splits_made(config: &WebDatasetConfig, labelled: bool, shards: usize, train_shards: usize) -> String {
    let counted = |count: usize| if count == 1 { "1 shard".to_owned() } else { format!("{count} shards") };
    match &config.test {
        Some(_) => format!("{} of `path` and {} of `test`", counted(train_shards), counted(shards - train_shards)),
        None => {
            let of = if labelled { "each class" } else { "the images" };
            format!("{} of {of} for test, chosen by name", config.test_fraction)
        }
    }
}

fn notes(config: &WebDatasetConfig, labelled: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if !labelled && config.label_member.as_deref() != Some("") {
        notes.push(
            "no sample has a member `.cls`: images carry no class; `label_field` names a field of `.json` members"
                .to_owned(),
        );
    }
    if config.read == Read::Sequential {
        notes
            .push(format!("shards are read in sequence, through a shuffle buffer of {} images", config.shuffle_buffer));
    }
    notes
}
