//! What tells before any prior is trained how well a tokenizer's codes will do: images of perturbed codes, and a small prior that
//! is the same for all tokenizers.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, csv};
use std::collections::BTreeMap;

/// The numbers of the first trial, by column.
fn swept(lab: &Lab, evaluation: &str) -> BTreeMap<String, f64> {
    lab.edit("classifier_steps: 5", &format!("classifier_steps: 5, {evaluation}")).unwrap();
    let said =
        lab.run("sweep tiny.ron --out o --name measured --jobs 2 --set prior=None --set quantizer.depth=2").unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    let rows = csv(&lab.read("o/measured/results.csv").unwrap());
    rows[0].iter().zip(&rows[1]).filter_map(|(column, cell)| Some((column.clone(), cell.parse().ok()?))).collect()
}

#[test]
fn codes_that_stay_as_they_are_are_reconstructions_and_others_are_farther() {
    let lab = Lab::new().unwrap();
    let none = swept(&lab, "perturbation: [0.0]");
    let itself = swept(&lab, "perturbation: [1.0], perturbation_neighbours: 1");
    let any = swept(&lab, "perturbation: [1.0], perturbation_neighbours: 16");
    let nobody = swept(&lab, "perturbation: [1.0], perturbation_images: 0.0");
    let some = swept(&lab, "perturbation: [1.0], perturbation_neighbours: 16, perturbation_images: 0.5");
    assert_eq!(nobody["perturbed_frechet"], nobody["recon_frechet"], "no image was perturbed");
    assert_ne!(some["perturbed_frechet"], any["perturbed_frechet"], "half of the images are as they were");
    assert_eq!(none["perturbed_frechet"], none["recon_frechet"], "no code was perturbed");
    assert_eq!(itself["perturbed_frechet"], itself["recon_frechet"], "a code's nearest is itself");
    assert_ne!(any["perturbed_frechet"], any["recon_frechet"], "every code was drawn anew");
}

#[test]
fn the_probe_is_a_prior_apart() {
    let lab = Lab::new().unwrap();
    let row = swept(&lab, "probe_steps: 5");
    assert!(row["probe_frechet"] >= 0.0);
    // 8 x 8 positions of two codes of 16: 512 bits, about what a prior that has hardly begun takes.
    assert!((450.0..550.0).contains(&row["probe_bits_per_image"]), "{row:?}");
    assert!(!row.contains_key("prior_bits_per_image"), "the experiment has no prior");
    assert!(!row.contains_key("sample_frechet"), "the experiment has no prior");
    let refused = lab.run("sample tiny.ron --set prior=None --set quantizer.depth=2 -o x.png").unwrap();
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert!(refused.err.contains("has no prior"), "the probe is not to be sampled: {}", refused.err);
}

#[test]
fn what_predicts_makes_nothing_else_anew() {
    let lab = Lab::new().unwrap();
    assert_eq!(lab.run("sweep tiny.ron --out o --jobs 2").unwrap().code, Some(0));
    lab.edit("classifier_steps: 5", "classifier_steps: 5, perturbation: [0.5], probe_steps: 5").unwrap();
    let plan = lab.run("plan tiny.ron").unwrap();
    assert_eq!(plan.code, Some(0), "{}", plan.err);
    for stage in ["classifier", "reference", "tokenizer", "prior", "reconstruction", "generation"] {
        let line = plan.out.lines().find(|line| line.trim_start().starts_with(&format!("{stage} "))).unwrap();
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells[1], cells[2], "{stage} would run again: {}", plan.out);
    }
}
