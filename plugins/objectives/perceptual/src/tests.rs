#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use rqlab_sdk::networks::Weights;
use rqlab_sdk::tensor::{Tape, no_grad};
use std::collections::BTreeMap;

const IMAGE: MapShape = MapShape { height: 16, width: 17, channels: 3 };

fn classifier() -> LabClassifier {
    LabClassifier::new(&Params::new(3), IMAGE.channels, 4).unwrap()
}

fn lab(cx: &ObjectiveContext) -> Result<Perceptual> {
    let network = Some(Network::Classifier(classifier()));
    Perceptual::new(PerceptualConfig::parse("perceptual")?, &ObjectiveContext { network, ..cx.clone() })
}

fn complaint(text: &str, image: MapShape) -> String {
    let config = PerceptualConfig::parse(text).unwrap();
    Perceptual::new(config, &ObjectiveContext::new(image, Params::dry())).unwrap_err().to_string()
}

#[test]
fn the_laboratorys_features_keep_the_contract() {
    rqlab_sdk::testing::objective(IMAGE, lab);
}

#[test]
fn equal_images_have_no_distance_and_brightness_counts_less_than_structure() {
    let mut objective = lab(&ObjectiveContext::new(IMAGE, Params::new(0))).unwrap();
    let shape = [2, IMAGE.height, IMAGE.width, IMAGE.channels];
    let images = Tensor::from_vec(Rng::new(1, "images", 0).uniform(shape.iter().product()), &shape).unwrap();
    let rng = Rng::new(0, "objective", 0);
    let mut distance = |output: &Tensor| {
        let asked = Reconstruction { images: &images, output, step: 0, rng: &rng };
        objective.loss(&asked).unwrap().loss.item().unwrap()
    };
    assert_eq!(distance(&images), 0.0);
    let other = Tensor::from_vec(Rng::new(2, "images", 0).uniform(images.len()), &shape).unwrap();
    let (dimmed, another) = (distance(&images.mul_scalar(0.9).unwrap()), distance(&other));
    assert!(0.0 < dimmed && dimmed < another && another <= 4.0, "{dimmed} {another}");
}

#[test]
fn the_classifier_is_asked_for_and_stays_as_it_is() {
    let dry =
        Perceptual::new(PerceptualConfig::parse("perceptual").unwrap(), &ObjectiveContext::new(IMAGE, Params::dry()));
    assert_eq!(dry.unwrap().network(), Some(NetworkRequest::Classifier));
    let net = classifier();
    let network = Some(Network::Classifier(net.clone()));
    let cx = ObjectiveContext { network, ..ObjectiveContext::new(IMAGE, Params::new(0)) };
    let mut objective = Perceptual::new(PerceptualConfig::parse("perceptual").unwrap(), &cx).unwrap();
    let shape = [1, IMAGE.height, IMAGE.width, IMAGE.channels];
    let (images, output) = (Tensor::zeros(&shape), Tensor::full(0.5, &shape).leaf());
    let rng = Rng::new(0, "objective", 0);
    let tape = Tape::start().unwrap();
    let loss = objective.loss(&Reconstruction { images: &images, output: &output, step: 0, rng: &rng }).unwrap().loss;
    let mut gradients = tape.backward(&loss).unwrap();
    assert!(gradients.take(&output).is_some());
    assert!(net.parameters().iter().all(|var| gradients.take(&var.get()).is_none()));
    assert_eq!(cx.params.entries().len(), 0);
}

/// Weights of the right shapes for LPIPS.
fn vgg() -> Weights {
    const CHANNELS: [usize; 13] = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512];
    const PLACES: [usize; 13] = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28];
    let (mut tensors, mut inputs) = (BTreeMap::new(), 3);
    for (outputs, place) in CHANNELS.into_iter().zip(PLACES) {
        let weights = Rng::new(place as u64, "vgg", 0).normal(outputs * inputs * 9);
        let scale = (2.0 / (9 * inputs) as f32).sqrt();
        let weights = Tensor::from_vec(weights, &[outputs, inputs, 3, 3]).unwrap().mul_scalar(scale).unwrap();
        tensors.insert(format!("features.{place}.weight"), weights);
        tensors.insert(format!("features.{place}.bias"), Tensor::zeros(&[outputs]));
        inputs = outputs;
    }
    for (i, channels) in [64, 128, 256, 512, 512].into_iter().enumerate() {
        tensors.insert(format!("lin{i}.model.1.weight"), Tensor::full(0.1, &[1, channels, 1, 1]));
    }
    Weights::new(tensors, "the test")
}

/// It is the measure itself, and the mean over images of it.
#[test]
fn lpips_is_lpips() {
    let config =
        PerceptualConfig::parse("perceptual(features: lpips, weights: \"vgg.safetensors\", digest: \"00\")").unwrap();
    let cx = ObjectiveContext::new(IMAGE, Params::new(0));
    let dry = Perceptual::new(config.clone(), &cx).unwrap();
    let wanted = NetworkRequest::Weights { path: "vgg.safetensors".to_owned(), digest: "00".to_owned() };
    assert_eq!(dry.network(), Some(wanted));
    let mut objective =
        Perceptual::new(config, &ObjectiveContext { network: Some(Network::Weights(vgg())), ..cx }).unwrap();
    let shape = [2, IMAGE.height, IMAGE.width, 3];
    let picture = |seed| Tensor::from_vec(Rng::new(seed, "images", 0).uniform(2 * 16 * 17 * 3), &shape).unwrap();
    let (images, output) = (picture(1), picture(2));
    let rng = Rng::new(0, "objective", 0);
    let found = objective.loss(&Reconstruction { images: &images, output: &output, step: 0, rng: &rng }).unwrap();
    let lpips = Lpips::new(vgg()).unwrap();
    let wanted = no_grad(|| lpips.distance(&output, &images)).unwrap().mean_all().unwrap().item().unwrap();
    assert!((found.loss.item().unwrap() - wanted).abs() < 1e-6 && wanted > 0.0);
}

#[test]
fn what_is_missing_or_does_not_fit_is_said_before_any_work() {
    assert!(complaint("perceptual(features: lpips)", IMAGE).contains("`weights`"));
    assert!(complaint("perceptual(features: lpips, weights: \"a\")", IMAGE).contains("SHA-256"));
    assert!(complaint("perceptual(weights: \"a\")", IMAGE).contains("features: lpips"));
    assert!(complaint("perceptual(digest: \"a\")", IMAGE).contains("`digest`"));
    let given = "perceptual(features: lpips, weights: \"a\", digest: \"b\")";
    assert!(complaint(given, MapShape { channels: 1, ..IMAGE }).contains("3 channels"));
    assert!(complaint(given, MapShape { height: 8, ..IMAGE }).contains("8 x 17"));
}
