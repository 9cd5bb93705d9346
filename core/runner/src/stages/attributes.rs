//! Whether images show what their captions name: a classifier with a head for each attribute, and what it measures.

use super::classifier::{self, SEED, TEST, recipe};
use super::subset::{BATCH, test_images};
use super::training::batches::Order;
use super::training::{At, Task, train};
use super::{Context, Stage, as_json, open_dataset};
use crate::job::Call;
use crate::settings::Precision;
use crate::store::{Done, Store};
use rqlab_reports::{Index, Reading};
use rqlab_sdk::contracts::{Attribute, Dataset, Split};
use rqlab_sdk::networks::LabClassifier;
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Codes, Tensor, no_grad};
use rqlab_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::f64::consts::LN_2;

/// How much the frequencies count beside the classifier's probabilities: no single attribute takes more than log2 of its inverse.
const DOUBT: f64 = 0.01;

/// Trains the classifier of what a data set's captions name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrainAttributes {
    /// The data set.
    pub data: Call,
    /// Training steps.
    pub steps: u64,
    /// That of the evaluation.
    pub precision: Precision,
}

impl TrainAttributes {
    /// See [`Stage::name`].
    pub const NAME: &str = "attributes";
}

impl Stage for TrainAttributes {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn revision(&self) -> u32 {
        1
    }

    fn calls(&self) -> Vec<&Call> {
        vec![&self.data]
    }

    fn identity(&self) -> Result<Value> {
        Ok(json!({ "data": [self.data.name, self.data.trained], "steps": self.steps }))
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn work(&self) -> f64 {
        self.steps as f64 * classifier::BATCH as f64
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        let dataset = open_dataset(cx.plugins, &self.data, cx.job)?;
        let info = dataset.info();
        let params = Params::new(SEED);
        let mut net = AttributeNet::new(&params, info.image[2], &named(dataset.as_ref())?)?;
        let order = Order::new(SEED, info.train, classifier::BATCH);
        let batch = |at: At| {
            let (indices, rng) = (order.images(dataset.as_ref(), at)?, at.rng(SEED, "augment"));
            let pixels = dataset.batch(Split::Train, &indices, Some(&rng))?.pixels;
            Ok((pixels, dataset.attributes(Split::Train, &indices)?))
        };
        let trained = train(cx, &params, params.trained(), vec![], &recipe(self.steps), batch, &mut net)?;
        trained.save(|| params.state(), &cx.dir().result())?;
        let chosen = test_images(dataset.as_ref(), TEST)?;
        let real = net.of_test(cx, dataset.as_ref(), &chosen)?;
        let obedience = net.obedience(&real.seen, &net.frequencies(&real.named), &real.named);
        Ok(Done {
            readings: vec![Reading::new("attribute_accuracy", [], obedience.mean())],
            curves: trained.curves,
            seconds: trained.earlier,
            ..Done::default()
        })
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

/// What the captions of a data set name.
fn named(dataset: &dyn Dataset) -> Result<Vec<Attribute>> {
    let attributes = dataset.caption_info().map(|info| info.attributes.clone()).unwrap_or_default();
    match attributes.is_empty() {
        false => Ok(attributes),
        true => Err(Error::Data("the captions of this data set name no attributes".to_owned())),
    }
}

impl Task for AttributeNet {
    type Batch = (Tensor, Codes);

    fn loss(&mut self, _: At, (pixels, named): &Self::Batch) -> Result<Tensor> {
        let head = |(a, logits): (usize, Tensor)| Ok(logits.cross_entropy(&named.column(a)?)?.mean_all()?);
        let heads = self.heads(pixels)?.into_iter().enumerate().map(head).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&heads.iter().collect::<Vec<_>>(), 0)?.sum_all()?)
    }
}

/// The laboratory's classifier with a head for each attribute.
pub(super) struct AttributeNet {
    net: LabClassifier,
    names: Vec<String>,
    /// How many values each attribute has.
    sizes: Vec<usize>,
}

/// How well images obey their captions.
struct Obedience {
    /// For each attribute the share of images of which the named value is the most probable one.
    accuracy: Vec<f64>,
    /// The bits that an image tells of its caption, by how much the named values are more probable to the classifier than they are
    /// frequent.
    bits: f64,
}

impl Obedience {
    fn mean(&self) -> f64 {
        self.accuracy.iter().sum::<f64>() / self.accuracy.len().max(1) as f64
    }
}

/// Images as the classifier sees them: the probabilities of all values of all attributes, image by image.
#[derive(Default)]
pub(super) struct Seen(Vec<f32>);

impl Seen {
    /// Adds more images.
    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

/// Test images as they are seen, with what their captions name.
pub(super) struct RealImages {
    seen: Seen,
    named: Codes,
}

impl AttributeNet {
    fn new(params: &Params, channels: usize, attributes: &[Attribute]) -> Result<Self> {
        let sizes: Vec<usize> = attributes.iter().map(|attribute| attribute.values.len()).collect();
        let names = attributes.iter().map(|attribute| attribute.name.clone()).collect();
        Ok(Self { net: LabClassifier::new(params, channels, sizes.iter().sum())?, names, sizes })
    }

    /// The trained one of a finished stage.
    pub(super) fn load(store: &Store, id: &str, dataset: &dyn Dataset) -> Result<Self> {
        let params = Params::new(0);
        let net = Self::new(&params, dataset.info().image[2], &named(dataset)?)?;
        params.load(&store.stage(id).load_result()?.tensors)?;
        Ok(net)
    }

    /// Logits `[B, values]` of each attribute.
    fn heads(&self, images: &Tensor) -> Result<Vec<Tensor>> {
        let (_, logits) = self.net.forward(images)?;
        let mut from = 0;
        let head = |&size: &usize| {
            from += size;
            Ok(logits.slice(1, from - size..from)?)
        };
        self.sizes.iter().map(head).collect()
    }

    /// What is seen in images.
    pub(super) fn see(&self, images: &Tensor) -> Result<Seen> {
        let heads = no_grad(|| self.heads(images))?;
        let heads = heads.iter().map(|logits| Ok(logits.softmax()?)).collect::<Result<Vec<Tensor>>>()?;
        Ok(Seen(Tensor::concat(&heads.iter().collect::<Vec<_>>(), 1)?.to_vec()))
    }

    /// What is seen in test images.
    pub(super) fn of_test(&self, cx: &mut Context<'_>, dataset: &dyn Dataset, images: &[usize]) -> Result<RealImages> {
        let mut seen = Seen::default();
        for indices in images.chunks(BATCH) {
            seen.extend(self.see(&dataset.batch(Split::Test, indices, None)?.pixels)?);
            cx.reporter.step(
                seen.0.len() as u64,
                (images.len() * self.sizes.iter().sum::<usize>()) as u64,
                String::new,
            );
        }
        Ok(RealImages { seen, named: dataset.attributes(Split::Test, images)? })
    }

    /// How often each value is named, `[N, A]`, of all attributes one after the other; none never, so that all have a logarithm.
    fn frequencies(&self, named: &Codes) -> Vec<f64> {
        let mut counts: Vec<f64> = vec![1.0; self.sizes.iter().sum()];
        for row in named.as_slice().chunks(self.sizes.len().max(1)) {
            self.places(row).for_each(|place| counts[place] += 1.0);
        }
        let mut from = 0;
        for &size in &self.sizes {
            let sum: f64 = counts[from..from + size].iter().sum();
            counts[from..from + size].iter_mut().for_each(|count| *count /= sum);
            from += size;
        }
        counts
    }

    /// Where the values of an image stand among all.
    fn places<'a>(&'a self, row: &'a [u32]) -> impl Iterator<Item = usize> + 'a {
        let starts = self.sizes.iter().scan(0, |from, size| {
            *from += size;
            Some(*from - size)
        });
        starts.zip(row).map(|(from, value)| from + *value as usize)
    }

    /// How well images obey captions that name these values, `[N, A]`.
    fn obedience(&self, seen: &Seen, frequencies: &[f64], named: &Codes) -> Obedience {
        let values: usize = self.sizes.iter().sum();
        let (mut right, mut bits, mut images) = (vec![0.0; self.sizes.len()], 0.0, 0);
        for (seen, row) in seen.0.chunks(values.max(1)).zip(named.as_slice().chunks(self.sizes.len().max(1))) {
            let mut from = 0;
            for ((&size, place), right) in self.sizes.iter().zip(self.places(row)).zip(&mut right) {
                let most = seen[from..from + size].iter().fold(0.0f32, |most, p| most.max(*p));
                *right += f64::from(u8::from(seen[place] == most));
                let frequency = frequencies[place];
                bits += ((1.0 - DOUBT) * f64::from(seen[place]) + DOUBT * frequency).ln() - frequency.ln();
                from += size;
            }
            images += 1;
        }
        let images = f64::from(images.max(1));
        Obedience { accuracy: right.into_iter().map(|right| right / images).collect(), bits: bits / LN_2 / images }
    }

    /// The readings of measures whose names begin so: the mean accuracy, the bits, and the accuracy of each attribute.
    fn readings(&self, whose: &str, obedience: &Obedience) -> Vec<Reading> {
        let accuracy = format!("{whose}caption_accuracy");
        let of =
            |(name, value): (&String, &f64)| Reading::new(accuracy.as_str(), [Index::Attribute(name.clone())], *value);
        let whole = [
            Reading::new(accuracy.as_str(), [], obedience.mean()),
            Reading::new(format!("{whose}caption_bits"), [], obedience.bits),
        ];
        whole.into_iter().chain(self.names.iter().zip(&obedience.accuracy).map(of)).collect()
    }

    /// The measures of test images that have the captions `real` have: what samples cannot do better than.
    pub(super) fn of_real(&self, real: &RealImages) -> Vec<Reading> {
        self.readings("real_", &self.obedience(&real.seen, &self.frequencies(&real.named), &real.named))
    }

    /// The measures of samples whose captions name `named`, with the frequencies of `real`; and of the same under each other's
    /// captions, the next one's, which stand in a random order.
    pub(super) fn of_samples(&self, seen: &Seen, named: &Codes, real: &RealImages) -> Result<Vec<Reading>> {
        let frequencies = self.frequencies(&real.named);
        let mut turned = named.as_slice().to_vec();
        turned.rotate_left(self.sizes.len().min(named.len()));
        let turned = Codes::from_vec(turned, named.shape())?;
        let mut readings = self.readings("", &self.obedience(seen, &frequencies, named));
        readings.extend(self.readings("shuffled_", &self.obedience(seen, &frequencies, &turned)));
        Ok(readings)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn net() -> AttributeNet {
        let attribute = |count: usize| Attribute {
            name: format!("of {count}"),
            values: (0..count).map(|value| value.to_string()).collect(),
        };
        AttributeNet::new(&Params::new(0), 3, &[attribute(2), attribute(4)]).unwrap()
    }

    #[test]
    fn a_sure_image_tells_the_entropy_of_its_caption() {
        let net = net();
        // Eight images with all pairs of values once: 1 + 2 bits.
        let named: Vec<u32> = (0..8).flat_map(|i| [i % 2, i / 2]).collect();
        let named = Codes::from_vec(named, &[8, 2]).unwrap();
        let frequencies = net.frequencies(&named);
        assert_eq!(frequencies, [0.5, 0.5, 0.25, 0.25, 0.25, 0.25]);
        let sure = |row: &[u32]| -> Vec<f32> {
            let mut seen = vec![0.0; 6];
            net.places(row).for_each(|place| seen[place] = 1.0);
            seen
        };
        let seen = Seen(named.as_slice().chunks(2).flat_map(sure).collect());
        let sure = net.obedience(&seen, &frequencies, &named);
        assert_eq!(sure.accuracy, [1.0, 1.0]);
        assert!((sure.bits - 3.0).abs() < 0.03, "{}", sure.bits);
        // Who only knows the frequencies tells nothing.
        let guess = Seen(frequencies.iter().map(|&p| p as f32).cycle().take(48).collect());
        assert!(net.obedience(&guess, &frequencies, &named).bits.abs() < 1e-6);
        // And what is wrong costs no more than the doubt allows.
        let wrong = Codes::from_vec(
            named.as_slice().chunks(2).flat_map(|row| [1 - row[0], (row[1] + 1) % 4]).collect(),
            &[8, 2],
        );
        let wrong = net.obedience(&seen, &frequencies, &wrong.unwrap());
        assert_eq!(wrong.accuracy, [0.0, 0.0]);
        assert!((wrong.bits - 2.0 * DOUBT.log2()).abs() < 1e-6, "{}", wrong.bits);
    }

    #[test]
    fn samples_are_set_beside_others_captions() {
        let net = net();
        let named = Codes::from_vec(vec![0, 0, 1, 2], &[2, 2]).unwrap();
        let seen = || Seen(vec![1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
        let real = RealImages { seen: seen(), named: named.clone() };
        let readings = net.of_samples(&seen(), &named, &real).unwrap();
        let value = |measure: &str, at: &[Index]| {
            readings.iter().find(|reading| reading.quantity().is(measure, at)).map(|reading| reading.value)
        };
        assert_eq!([value("caption_accuracy", &[]), value("shuffled_caption_accuracy", &[])], [Some(1.0), Some(0.0)]);
        assert!(value("caption_bits", &[]) > Some(0.0) && value("shuffled_caption_bits", &[]) < Some(0.0));
        assert_eq!(net.of_real(&real)[0].value, 1.0);
        // Every second image shows the first attribute of its caption, and all of them show the second.
        let half = Codes::from_vec(vec![0, 0, 0, 2], &[2, 2]).unwrap();
        let readings = net.of_samples(&seen(), &half, &real).unwrap();
        let of = |name: &str| {
            let at = [Index::Attribute(name.to_owned())];
            readings.iter().find(|reading| reading.quantity().is("caption_accuracy", &at)).map(|reading| reading.value)
        };
        assert_eq!([of("of 2"), of("of 4")], [Some(0.5), Some(1.0)]);
    }
}
