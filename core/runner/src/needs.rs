//! How many images a measure needs. Where there are fewer, that one is left out with its reason, and the others are taken.

use rqlab_reports::measure;

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
    lacking(measure, images, samples).is_none()
}

/// Measures that so many test images and samples are too few for, by label, each with the reason; without samples, of reconstructions
/// alone.
pub fn left_out(images: usize, samples: Option<usize>) -> Vec<(String, String)> {
    let asked = NEEDS.iter().filter(|(_, [_, of_samples])| samples.is_some() || *of_samples == 0);
    // Perturbed codes and published scores are measured where they are asked for.
    let taken = asked.filter(|(name, _)| !matches!(*name, "perturbed_frechet" | "inception_score"));
    taken.filter_map(|(name, _)| Some((measure(name).label, lacking(name, images, samples.unwrap_or(0))?))).collect()
}

/// What a measure lacks of real images or samples, in words.
pub fn lacking(measure: &str, images: usize, samples: usize) -> Option<String> {
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
        assert!(left_out(1000, Some(500)).is_empty());
        let [four, three] = [4, 3].map(|images| left_out(images, Some(500)));
        let labels = |out: &[(String, String)]| out.iter().map(|(label, _)| label.clone()).collect::<Vec<_>>();
        let known = |names: &[&str]| names.iter().map(|name| measure(name).label).collect::<Vec<_>>();
        assert_eq!(labels(&four), known(&["density", "coverage", "near_training", "near_training_pixels"]));
        assert_eq!(four[0].1, "it needs 6 real images, and there are 4");
        assert_eq!(labels(&three)[..2], known(&["precision", "recall"]));
        assert_eq!(left_out(1000, Some(10))[0].1, "it needs 20 samples, and there are 10");
        assert_eq!(labels(&left_out(1, None)), known(&["recon_frechet", "recon_kernel"]));
        assert!(enough("precision", 4, 4) && !enough("precision", 4, 3) && enough("psnr", 0, 0));
    }
}
