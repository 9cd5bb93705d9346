//! What a data set promises.

use super::{Check, broken, close, ensure, settle};
use crate::contracts::{Dataset, Images, Split, Summary};
use crate::tensor::{Rng, Tensor};

/// Up to this many images of a split have their labels counted.
const COUNTED: usize = 1000;

/// Checks a data set that has at least two images in each split:
/// - it says what it holds, and batches have the promised shapes, pixels in [-1, 1], and labels of its classes;
/// - its summary agrees with its images: counts by class, sizes, how splits are made;
/// - an index gives the same pixels wherever in a batch it stands, and none is given beyond the last;
/// - its labels are those of its batches, and its variants begin with the image itself;
/// - captions, if it has some, and what they name belong to their image, and as many are missing as it says;
/// - augmentation follows its stream and the position in the batch;
/// - an epoch's own order, if it has one, holds every training image once and follows its stream.
///
/// # Panics
/// If a promise does not hold; the message names all that do not.
#[track_caller]
pub fn dataset<D: Dataset + ?Sized>(data: &D) {
    settle("dataset", &promises(data));
}

fn promises<D: Dataset + ?Sized>(data: &D) -> Vec<(&'static str, String)> {
    let mut found = broken([("description", description(data))]);
    if found.is_empty() {
        found = broken(
            [Split::Train, Split::Test]
                .into_iter()
                .flat_map(|split| {
                    [
                        ("batches", batches(data, split)),
                        ("indices", indices(data, split)),
                        ("labels", labels(data, split)),
                        ("captions", captions(data, split)),
                    ]
                })
                .chain([
                    ("summary", summary(data)),
                    ("variants", variants(data)),
                    ("augmentation", augmentation(data)),
                    ("order", order(data)),
                ]),
        );
    }
    found
}

fn description<D: Dataset + ?Sized>(data: &D) -> Check {
    let info = data.info();
    ensure(data.absent().is_none(), || format!("its images are not there: {}", data.absent().unwrap_or_default()))?;
    ensure(info.image.iter().all(|&side| side > 0), || format!("images of {:?}", info.image))?;
    ensure(info.train >= 2 && info.test >= 2, || {
        format!("{} training and {} test images: the test needs two of each", info.train, info.test)
    })?;
    ensure(!info.digest.is_empty(), || "without a digest, two data sets cannot be told apart".to_owned())
}

/// What is told of the images is what is there.
fn summary<D: Dataset + ?Sized>(data: &D) -> Check {
    let info = data.info();
    let Summary { per_class, sizes, left_out, splits, .. } = &info.summary;
    ensure(per_class.len() == info.classes.len(), || {
        format!("it counts the images of {} classes and has {}", per_class.len(), info.classes.len())
    })?;
    for (at, split) in [Split::Train, Split::Test].into_iter().enumerate().filter(|_| !per_class.is_empty()) {
        let sum: usize = per_class.iter().map(|counts| counts[at]).sum();
        ensure(sum == info.len(split), || {
            format!("its classes have {sum} {} images, and the split {}", split.name(), info.len(split))
        })?;
        let some: Vec<usize> = (0..info.len(split).min(COUNTED)).collect();
        let mut counts = vec![0; per_class.len()];
        for &label in data.labels(split, &some)?.as_slice() {
            // A label beyond the classes is told of by `batches`.
            if let Some(count) = counts.get_mut(label as usize) {
                *count += 1;
            }
        }
        let all = some.len() == info.len(split);
        let sound =
            |class: usize| counts[class] == per_class[class][at] || !all && counts[class] < per_class[class][at];
        let wrong = (0..counts.len()).find(|&class| !sound(class));
        ensure(wrong.is_none(), || {
            format!("it counts {per_class:?} images by class, and the {} split has {counts:?}", split.name())
        })?;
    }
    let ranges = sizes.iter().flat_map(|sizes| [sizes.height, sizes.width]);
    let sound = ranges.into_iter().all(|[least, most]| 0 < least && least <= most);
    ensure(sound, || format!("its images have the sizes {sizes:?}"))?;
    let empty = left_out.iter().find(|out| out.count == 0 || out.unit.is_empty() || out.reason.is_empty());
    ensure(empty.is_none(), || format!("it leaves out nothing, or for no reason: {empty:?}"))?;
    ensure(!splits.is_empty(), || "it does not say how its splits are made".to_owned())
}

/// Three images: the second, the first, and the second again.
fn three<D: Dataset + ?Sized>(data: &D, split: Split, augment: Option<&Rng>) -> crate::Result<Images> {
    data.batch(split, &[1, 0, 1], augment)
}

fn batches<D: Dataset + ?Sized>(data: &D, split: Split) -> Check {
    let info = data.info();
    let Images { pixels, labels } = three(data, split, None)?;
    let [height, width, channels] = info.image;
    ensure(pixels.shape() == [3, height, width, channels], || {
        format!("three {} images of {:?} have shape {:?}", split.name(), info.image, pixels.shape())
    })?;
    let range = pixels.as_slice().iter().all(|x| (-1.0..=1.0).contains(x));
    ensure(range, || format!("pixels of the {} split lie outside [-1, 1]", split.name()))?;
    ensure(labels.shape() == [3], || format!("three labels have shape {:?}", labels.shape()))?;
    let classes = info.classes.len().max(1) as u32;
    let beyond = labels.as_slice().iter().find(|&&label| label >= classes);
    ensure(beyond.is_none(), || format!("the label {beyond:?} of {classes} classes"))?;
    let last = data.batch(split, &[info.len(split) - 1], None)?;
    ensure(last.pixels.len() == height * width * channels, || "the last image has another size".to_owned())
}

/// The n-th image of a batch.
fn image(pixels: &Tensor, n: usize) -> Check<Tensor> {
    Ok(pixels.slice(0, n..n + 1)?)
}

fn indices<D: Dataset + ?Sized>(data: &D, split: Split) -> Check {
    let batch = three(data, split, None)?;
    close("an image that a batch holds twice", &image(&batch.pixels, 2)?, &image(&batch.pixels, 0)?, 0.0)?;
    let alone = data.batch(split, &[0], None)?;
    close("an image alone", &alone.pixels, &image(&batch.pixels, 1)?, 0.0)?;
    ensure(alone.labels.as_slice()[0] == batch.labels.as_slice()[1], || "an image alone has another label".to_owned())?;
    let beyond = data.batch(split, &[data.info().len(split)], None);
    ensure(beyond.is_err(), || format!("the {} split gives an image beyond its last", split.name()))
}

fn labels<D: Dataset + ?Sized>(data: &D, split: Split) -> Check {
    let (alone, batch) = (data.labels(split, &[1, 0, 1])?, three(data, split, None)?.labels);
    ensure(alone.shape() == [3] && alone.as_slice() == batch.as_slice(), || {
        format!("labels {:?} of images whose batch has {:?}", alone.as_slice(), batch.as_slice())
    })
}

fn captions<D: Dataset + ?Sized>(data: &D, split: Split) -> Check {
    let Some(info) = data.caption_info() else { return Ok(()) };
    let count = data.info().len(split);
    let (first, three) = (data.captions(split, &[0])?, data.captions(split, &[1, 0, 1])?);
    ensure(three.len() == 3 && three[0] == three[2] && first == three[1..2], || {
        format!("captions {three:?} of three images, and {first:?} of the second of them")
    })?;
    ensure(data.captions(split, &[count]).is_err(), || "it has a caption beyond its last image".to_owned())?;
    let some: Vec<usize> = (0..count.min(COUNTED)).collect();
    let missing = data.captions(split, &some)?.iter().filter(|caption| caption.is_empty()).count();
    ensure(missing == info.missing(split) || some.len() < count && missing < info.missing(split), || {
        format!("{missing} of {count} {} images have no caption, and it says {}", split.name(), info.missing(split))
    })?;
    let (attributes, of) = (data.attributes(split, &[1, 0, 1])?, info.attributes.len());
    ensure(attributes.shape() == [3, of], || format!("{of} attributes of three images: {:?}", attributes.shape()))?;
    let beyond = attributes.as_slice().iter().zip(info.attributes.iter().cycle());
    let beyond = beyond.into_iter().find(|(value, attribute)| **value as usize >= attribute.values.len());
    ensure(beyond.is_none(), || format!("a value that its attribute has not: {beyond:?}"))?;
    ensure(attributes.as_slice()[..of] == attributes.as_slice()[2 * of..], || {
        "an image that is asked for twice has other attributes".to_owned()
    })
}

fn variants<D: Dataset + ?Sized>(data: &D) -> Check {
    let count = data.variants().unwrap_or(1);
    ensure(count > 0, || "an image has no variant, not even itself".to_owned())?;
    let plain = three(data, Split::Train, None)?;
    for variant in 0..count {
        let made = data.variant(Split::Train, &[1, 0, 1], variant)?;
        let range = made.pixels.as_slice().iter().all(|x| (-1.0..=1.0).contains(x));
        ensure(range, || format!("pixels of variant {variant} lie outside [-1, 1]"))?;
        ensure(made.labels.as_slice() == plain.labels.as_slice(), || format!("variant {variant} has other labels"))?;
        if variant == 0 {
            close("the first variant", &made.pixels, &plain.pixels, 0.0)?;
        }
    }
    let beyond = data.variant(Split::Train, &[0], count);
    ensure(beyond.is_err(), || format!("a variant beyond the last of {count} is given"))
}

fn augmentation<D: Dataset + ?Sized>(data: &D) -> Check {
    for step in 0..8 {
        let rng = Rng::new(7, "augment", step);
        let batch = three(data, Split::Train, Some(&rng))?;
        let range = batch.pixels.as_slice().iter().all(|x| (-1.0..=1.0).contains(x));
        ensure(range, || "augmented pixels lie outside [-1, 1]".to_owned())?;
        let again = three(data, Split::Train, Some(&rng))?;
        close("an equal stream's augmentation", &again.pixels, &batch.pixels, 0.0)?;
        let other = data.batch(Split::Train, &[1, 1], Some(&rng))?;
        close("an image beside another one", &image(&other.pixels, 0)?, &image(&batch.pixels, 0)?, 0.0)?;
    }
    Ok(())
}

fn order<D: Dataset + ?Sized>(data: &D) -> Check {
    for epoch in 0..3 {
        let rng = Rng::new(7, "order", epoch);
        let Some(order) = data.epoch_order(&rng) else { return Ok(()) };
        let mut sorted = order.clone();
        sorted.sort_unstable();
        ensure(sorted.into_iter().eq(0..data.info().train), || {
            format!("the order of epoch {epoch} does not hold each of the {} training images once", data.info().train)
        })?;
        ensure(data.epoch_order(&rng) == Some(order), || "an equal stream gives another order".to_owned())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::contracts::{Attribute, CaptionInfo, DatasetInfo};
    use crate::tensor::Codes;
    use crate::{Error, Result};
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Flaw {
        None,
        /// No digest.
        Nameless,
        /// Pixels in [0, 255].
        Bytes,
        /// A class with other counts than it says.
        Counts,
        /// A label too many.
        Label,
        /// Labels that are told apart from the images are others.
        OtherLabels,
        /// Pixels follow from the position in the batch.
        ByPosition,
        /// Any index is served.
        Endless,
        /// Augmentation from a generator of its own.
        OwnRandomness,
        /// An epoch that leaves an image out.
        ShortEpoch,
        /// A caption that it says is missing.
        Caption,
    }

    struct Noise {
        info: DatasetInfo,
        captions: CaptionInfo,
        flaw: Flaw,
        calls: AtomicU64,
    }

    impl Noise {
        fn new(flaw: Flaw) -> Self {
            let digest = if flaw == Flaw::Nameless { String::new() } else { "noise 1".to_owned() };
            let classes = vec!["even".to_owned(), "odd".to_owned()];
            let odd = if flaw == Flaw::Counts { 1 } else { 2 };
            let summary = Summary {
                per_class: vec![[5 - odd, 1], [odd, 1]],
                splits: "5 and 2 images".to_owned(),
                ..Summary::default()
            };
            let info = DatasetInfo { image: [4, 3, 1], classes: classes.clone(), train: 5, test: 2, digest, summary };
            let values = classes.clone();
            let attributes = vec![Attribute { name: "parity".to_owned(), values }];
            let captions = CaptionInfo { missing: [usize::from(flaw == Flaw::Caption), 0], attributes };
            Self { info, captions, flaw, calls: AtomicU64::new(0) }
        }
    }

    impl Dataset for Noise {
        fn info(&self) -> &DatasetInfo {
            &self.info
        }

        fn epoch_order(&self, rng: &Rng) -> Option<Vec<usize>> {
            let count = self.info.train - usize::from(self.flaw == Flaw::ShortEpoch);
            Some(rng.permutation(count))
        }

        fn batch(&self, split: Split, indices: &[usize], augment: Option<&Rng>) -> Result<Images> {
            let call = self.calls.fetch_add(1, Ordering::Relaxed);
            let mut pixels = Vec::new();
            for (position, &index) in indices.iter().enumerate() {
                if index >= self.info.len(split) && self.flaw != Flaw::Endless {
                    return Err(Error::Data(format!("there is no image {index}")));
                }
                let key = if self.flaw == Flaw::ByPosition { position } else { index };
                let scale = if self.flaw == Flaw::Bytes { 255.0 } else { 1.0 };
                let mut image = Rng::new(1, split.name(), key as u64).uniform(12);
                if let Some(rng) = augment {
                    let own = Rng::new(call, "own", 0);
                    let rng = if self.flaw == Flaw::OwnRandomness { &own } else { rng };
                    if rng.part("flip", position as u64).uniform(1)[0] < 0.5 {
                        image.reverse();
                    }
                }
                pixels.extend(image.into_iter().map(|x| scale * x));
            }
            let label = |&index: &usize| index as u32 % 2 + 2 * u32::from(self.flaw == Flaw::Label);
            Ok(Images {
                pixels: Tensor::from_vec(pixels, &[indices.len(), 4, 3, 1])?,
                labels: Codes::from_vec(indices.iter().map(label).collect(), &[indices.len()])?,
            })
        }

        fn caption_info(&self) -> Option<&CaptionInfo> {
            Some(&self.captions)
        }

        fn captions(&self, split: Split, indices: &[usize]) -> Result<Vec<String>> {
            let labels = self.labels(split, indices)?;
            Ok(labels
                .as_slice()
                .iter()
                .map(|&label| format!("noise, {}", self.info.classes[label as usize % 2]))
                .collect())
        }

        fn attributes(&self, split: Split, indices: &[usize]) -> Result<Codes> {
            Ok(self.labels(split, indices)?.reshape(&[indices.len(), 1])?)
        }

        fn labels(&self, split: Split, indices: &[usize]) -> Result<Codes> {
            match self.flaw {
                Flaw::OtherLabels => Ok(Codes::from_vec(vec![0; indices.len()], &[indices.len()])?),
                _ => Ok(self.batch(split, indices, None)?.labels),
            }
        }
    }

    #[test]
    fn a_sound_data_set_passes() {
        dataset(&Noise::new(Flaw::None));
    }

    #[test]
    fn every_flaw_is_found() {
        for (flaw, promise) in [
            (Flaw::Nameless, "description"),
            (Flaw::Bytes, "batches"),
            (Flaw::Counts, "summary"),
            (Flaw::Label, "batches"),
            (Flaw::OtherLabels, "labels"),
            (Flaw::ByPosition, "indices"),
            (Flaw::Endless, "indices"),
            (Flaw::OwnRandomness, "augmentation"),
            (Flaw::ShortEpoch, "order"),
            (Flaw::Caption, "captions"),
        ] {
            let found = promises(&Noise::new(flaw));
            assert!(found.iter().any(|(name, _)| *name == promise), "{flaw:?}: {found:?}");
        }
    }
}
