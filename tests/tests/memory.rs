//! Memory of an evaluation does not grow with the number of images.

#![cfg(target_os = "linux")] // Elsewhere a worker does not know what memory it has held.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::Lab;
use std::fs;

/// Images of 128 x 128 pixels take 48 KiB each as bytes, and four times that as numbers: 1600 more of them would take 75 MiB if
/// they were held anywhere.
const EXPERIMENT: &str = "(
    question: \"What does an evaluation hold?\",
    data: dead_leaves(size: 128, train: 64, test: 1700, classes: 4),
    autoencoder: resnet(patch: 16, width: 8, multipliers: [1], groups: 4, mid_attention: false, latent: 8),
    quantizer: rq(depth: 2, codebook: 16),
    prior: rq_transformer(width: 16, heads: 2, body_layers: 1, head_layers: 1),
    tokenizer_training: (steps: 4, batch: 4, warmup: 1),
    prior_training: (steps: 4, batch: 4, warmup: 1, images: 16),
    evaluation: (images: 100, samples: 20, speed: [], pictures: 2, classifier_steps: 5),
)
";

/// The most memory in MiB that the stage of a kind has held.
fn peak(lab: &Lab, runs: &str, kind: &str) -> f64 {
    let stages = lab.stages(runs, kind).unwrap();
    let done: serde_json::Value = serde_json::from_slice(&fs::read(stages[0].join("done.json")).unwrap()).unwrap();
    let timings = done["timings"].as_array().unwrap();
    timings.iter().find(|reading| reading["measure"] == "peak_memory_mib").unwrap()["value"].as_f64().unwrap()
}

#[test]
fn seventeen_times_the_images_take_the_same_memory() {
    let lab = Lab::new().unwrap();
    lab.write("few.ron", EXPERIMENT).unwrap();
    lab.write("many.ron", EXPERIMENT.replace("images: 100, samples: 20", "images: 1700, samples: 340")).unwrap();
    for name in ["few", "many"] {
        let said = lab.run(&format!("sweep {name}.ron --quiet --runs {name} --out {name}-out")).unwrap();
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
    for kind in ["reference", "reconstruction", "generation"] {
        let (few, many) = (peak(&lab, "few", kind), peak(&lab, "many", kind));
        assert!((many - few).abs() < 50.0, "{kind}: {few:.0} MiB for 100 images, {many:.0} MiB for 1700");
    }
}
