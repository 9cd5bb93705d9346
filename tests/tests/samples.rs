//! What is measured of samples.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, csv};
use std::collections::BTreeMap;

/// The numbers of the only trial, by column.
fn numbers(lab: &Lab, settings: &str) -> BTreeMap<String, f64> {
    let said = lab.run(&format!("sweep one.ron --out o --name measured --jobs 2 {settings}")).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    let rows = csv(&lab.read("o/measured/results.csv").unwrap());
    rows[0].iter().zip(&rows[1]).filter_map(|(column, cell)| Some((column.clone(), cell.parse().ok()?))).collect()
}

/// One trial whose prior can learn its few training images by heart.
fn lab(images: usize, steps: usize) -> Lab {
    let lab = Lab::new().unwrap();
    let text = format!(
        r#"(
    question: "Does the prior repeat what it learnt from?",
    data: dead_leaves(size: 16, train: 400, test: 64, classes: 2),
    autoencoder: resnet(width: 8, multipliers: [1], groups: 4, mid_attention: false, latent: 8, patch: 4),
    quantizer: rq(depth: 2, codebook: 32),
    prior: ar(width: 32, heads: 2, layers: 1),
    tokenizer_training: (steps: 150, batch: 8, lr: 3e-3, warmup: 5),
    prior_training: (steps: {steps}, batch: 8, lr: 5e-3, warmup: 5, images: {images}, validation: 0),
    evaluation: (images: 60, samples: 40, speed: [], pictures: 1, classifier_steps: 60),
)
"#
    );
    lab.write("one.ron", text).unwrap();
    lab
}

#[test]
fn a_prior_that_knows_one_image_repeats_it() {
    let row = numbers(&lab(1, 200), "");
    assert!(row["near_training"] > 0.8, "{row:?}");
    assert!(row["near_training_pixels"] > 0.8, "{row:?}");
}

#[test]
fn a_prior_that_learnt_nothing_repeats_nothing() {
    let row = numbers(&lab(400, 0), "");
    assert!(row["near_training"] < 0.3, "{row:?}");
    for share in ["precision", "recall", "coverage"] {
        assert!((0.0..=1.0).contains(&row[share]), "{row:?}");
    }
    assert!(row["density"] >= 0.0 && row["sample_frechet_infinite"].is_finite(), "{row:?}");
    assert!(row["sample_kernel"] > 0.0, "samples of no training differ from images: {row:?}");
}

#[test]
fn a_measure_that_lacks_images_is_left_out_alone() {
    let lab = lab(10, 2);
    let row = numbers(&lab, "--set evaluation.samples=5 --set evaluation.images=8");
    for taken in ["sample_frechet", "sample_kernel", "precision", "recall", "inception_style", "recon_kernel"] {
        assert!(row.contains_key(taken), "{taken}: {row:?}");
    }
    for left_out in ["sample_frechet_infinite", "density", "coverage", "near_training", "near_training_pixels"] {
        assert!(!row.contains_key(left_out), "{left_out}: {row:?}");
    }
    let page = lab.read("o/measured/index.html").unwrap();
    assert!(page.contains("it needs 6 samples, and there are 5") && page.contains("it needs 20 real images"), "{page}");
}

/// What was drawn for each value of an axis, told by its Fréchet distances; of one prior, trained once.
fn drawn_along(axis: &str, prior: &str) -> Vec<f64> {
    let lab = lab(100, 60);
    let text = lab.read("one.ron").unwrap();
    let text = text
        .replace("ar(width: 32, heads: 2, layers: 1)", prior)
        .replace("\n)", &format!("\n    axes: {{ {axis} }},\n)"));
    lab.write("one.ron", text.replace("validation: 0", "validation: 0, condition_dropout: 0.1")).unwrap();
    let plan = lab.run("plan one.ron").unwrap().out;
    let jobs = plan.lines().find_map(|line| line.trim().strip_prefix("prior ")).unwrap();
    assert_eq!(jobs.split_whitespace().next(), Some("1"), "one training for all values:\n{plan}");
    let said = lab.run("sweep one.ron --out o --name measured").unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    let rows = csv(&lab.read("o/measured/results.csv").unwrap());
    let column = rows[0].iter().position(|name| name == "sample_frechet").unwrap();
    rows[1..].iter().map(|row| row[column].parse().unwrap()).collect()
}

/// Sampling's own settings, of the evaluation and of priors, are axes that train nothing; each value draws other samples.
#[test]
fn choices_of_sampling_draw_anew_and_train_nothing() {
    let masked = "maskgit(width: 32, heads: 2, layers: 1)";
    let diffused = "mar(width: 32, heads: 2, encoder_layers: 1, decoder_layers: 1, head_width: 16, head_layers: 1)";
    for (axis, prior) in [
        (r#""evaluation.guidance": [1, 3]"#, "ar(width: 32, heads: 2, layers: 1)"),
        (r#""evaluation.temperature": [1, 0.5]"#, "ar(width: 32, heads: 2, layers: 1)"),
        (r#""evaluation.top_k": [2, 20], "evaluation.top_p": [0.5, 1]"#, "ar(width: 32, heads: 2, layers: 1)"),
        (r#""prior.iterations": [2, 4], "prior.noise": [0, 9]"#, masked),
        (r#""prior.iterations": [2, 8], "prior.sampling_steps": [2, 10]"#, diffused),
    ] {
        let mut distances = drawn_along(axis, prior);
        let values = 2usize.pow(axis.matches('[').count() as u32);
        assert_eq!(distances.len(), values, "{axis}: {distances:?}");
        distances.sort_by(f64::total_cmp);
        distances.dedup();
        assert_eq!(distances.len(), values, "{axis}: equal samples among {distances:?}");
    }
}
