//! What a measure needs: labels, and how many images. Where they are not there, that one is left out with its reason, and the
//! others are taken.

use rqlab_reports::{Comparable, Quantity, measure};

/// What data without classes do not have, and why.
const ON_FEATURES: [&str; 2] = [
    "distances on features, precision, recall, density, coverage, inception-style score",
    "features are those of a classifier, which needs labelled images of two classes or more",
];

/// What samples of captions that name nothing do not have, and why.
const ON_ATTRIBUTES: [&str; 2] = [
    "how well samples obey their captions",
    "it is a classifier's answer, and this data set does not list what its captions name",
];

/// That samples are drawn for captions which name nothing that could be looked for.
pub fn unobeyed() -> (String, String) {
    ON_ATTRIBUTES.map(str::to_owned).into()
}

/// What a measure needs: real images that it compares with, and samples, in that order.
const NEEDS: [(&str, [usize; 2]); 15] = [
    // A covariance, and pairs within a set.
    ("recon_frechet", [2, 0]),
    ("recon_kernel", [2, 0]),
    ("perturbed_frechet", [2, 0]),
    ("sample_frechet", [2, 2]),
    ("shuffled_frechet", [2, 2]),
    ("sample_kernel", [2, 2]),
    // Fifteen sizes from a tenth of the samples on, the smallest of which needs a covariance.
    ("sample_frechet_infinite", [2, 20]),
    // More rows than neighbours: 3, and 5.
    ("precision", [4, 4]),
    ("recall", [4, 4]),
    ("density", [6, 6]),
    ("coverage", [6, 6]),
    // As many as there are splits.
    ("inception_style", [0, 5]),
    ("inception_score", [0, 2]),
    // A twentieth of the test images is at least one.
    ("near_training", [20, 1]),
    ("near_training_pixels", [20, 1]),
];

/// Whether there are enough images for a measure: real ones that it compares with, and samples.
pub fn enough(measure: &str, images: usize, samples: usize) -> bool {
    too_few(measure, images, samples).is_none()
}

/// Measures that so many classes, test images and samples are too few for, by label, each with the reason; without samples, of
/// reconstructions alone.
pub fn left_out(classes: usize, images: usize, samples: Option<usize>) -> Vec<(String, String)> {
    let has = |name: &str| classes >= 2 || measure(name).comparable != Comparable::Features;
    let on_features = (classes < 2).then(|| ON_FEATURES.map(str::to_owned).into());
    let asked = NEEDS.iter().filter(|(_, [_, of_samples])| samples.is_some() || *of_samples == 0);
    // Perturbed codes and published scores are measured where they are asked for.
    let taken = asked.filter(|(name, _)| !matches!(*name, "perturbed_frechet" | "inception_score"));
    let lacking = |name: &str| Some((measure(name).label, too_few(name, images, samples.unwrap_or(0))?));
    on_features.into_iter().chain(taken.filter(|(name, _)| has(name)).filter_map(|(name, _)| lacking(name))).collect()
}

/// What a measure lacks of classes, real images or samples, in words.
pub fn lacking(of: &Quantity, classes: usize, images: usize, samples: usize) -> Option<String> {
    let on_features = of.measure().comparable == Comparable::Features && of.protocol().is_none();
    if on_features && classes < 2 { Some(ON_FEATURES[1].to_owned()) } else { too_few(&of.measure, images, samples) }
}

fn too_few(measure: &str, images: usize, samples: usize) -> Option<String> {
    let (_, [of_images, of_samples]) = NEEDS.iter().find(|(name, _)| *name == measure)?;
    let lacks = |needed: usize, found: usize, what: &str| {
        (found < needed).then(|| format!("it needs {needed} {what}, and there are {found}"))
    };
    lacks(*of_images, images, "real images").or_else(|| lacks(*of_samples, samples, "samples"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_measures_that_lack_images_are_left_out() {
        assert!(left_out(2, 1000, Some(500)).is_empty());
        let [four, three] = [4, 3].map(|images| left_out(2, images, Some(500)));
        let labels = |out: &[(String, String)]| out.iter().map(|(label, _)| label.clone()).collect::<Vec<_>>();
        let known = |names: &[&str]| names.iter().map(|name| measure(name).label).collect::<Vec<_>>();
        assert_eq!(labels(&four), known(&["density", "coverage", "near_training", "near_training_pixels"]));
        assert_eq!(four[0].1, "it needs 6 real images, and there are 4");
        assert_eq!(labels(&three)[..2], known(&["precision", "recall"]));
        assert_eq!(left_out(2, 1000, Some(10))[0].1, "it needs 20 samples, and there are 10");
        assert_eq!(labels(&left_out(2, 1, None)), known(&["recon_frechet", "recon_kernel"]));
        // Without classes, pixels are what is left of likeness to training images.
        let unlabelled = labels(&left_out(0, 3, Some(500)));
        assert_eq!(unlabelled[1..], known(&["near_training_pixels"]));
        assert!(unlabelled[0].contains("density"), "{unlabelled:?}");
        let lacking = |name: &str, classes| lacking(&Quantity::plain(name), classes, 1000, 500);
        assert!(lacking("density", 1).is_some_and(|reason| reason.contains("labelled")));
        assert_eq!([lacking("density", 2), lacking("psnr", 0)], [None, None]);
        assert!(enough("precision", 4, 4) && !enough("precision", 4, 3) && enough("psnr", 0, 0));
    }
}
