//! What priors start from where a tokenizer has several levels, and how a training whose orders change goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_tests::lab::Lab;
use std::fs;
use std::path::{Path, PathBuf};

fn experiment(components: &str, training: &str) -> String {
    format!(
        r#"(
    question: "Does it go on where it should?",
    data: dead_leaves(size: 16, train: 32, test: 16, classes: 2),
    {components},
    tokenizer_training: (steps: 2, batch: 8, warmup: 1),
    prior_training: (batch: 4, warmup: 1, images: 16, {training}),
    evaluation: (images: 8, samples: 6, speed: [], pictures: 2, classifier_steps: 2),
    seeds: [0],
)
"#
    )
}

/// Two levels, each with a prior.
const LEVELS: &str = "autoencoder: vqvae2(factors: [2, 2], width: 8, blocks: 1, residual_width: 4, code_channels: 4),
    quantizer: vq(codebook: 8),
    prior: pixelsnail(width: 8, heads: 2, blocks: 1, residual_blocks: 1, kernel: 3)";

/// One level, and an order that goes from random to raster in the middle of the training.
const ANNEALED: &str =
    "autoencoder: resnet(width: 8, multipliers: [1, 2, 2], groups: 4, mid_attention: false, latent: 8),
    quantizer: vq(codebook: 16),
    prior: ar(width: 16, heads: 2, layers: 1, block: rar, order: annealed, anneal: (0.25, 0.75))";

fn result(stage: &Path) -> Checkpoint {
    Checkpoint::load(&stage.join("result.safetensors")).unwrap()
}

#[test]
fn each_level_starts_from_a_file_of_its_own() {
    let lab = Lab::new().unwrap();
    let priors = |name: &str, training: &str| -> Vec<PathBuf> {
        lab.write(&format!("{name}.ron"), experiment(LEVELS, training)).unwrap();
        let said = lab.run(&format!("sweep {name}.ron --runs {name} --out o --jobs 1")).unwrap();
        assert_eq!(said.code, Some(0), "{}", said.err);
        let mut stages = lab.stages(name, "prior").unwrap();
        let level = |stage: &PathBuf| {
            let job: serde_json::Value = serde_json::from_slice(&fs::read(stage.join("job.json")).unwrap()).unwrap();
            job["stage"]["work"]["level"].as_u64()
        };
        stages.sort_by_key(level);
        assert_eq!(stages.iter().map(level).collect::<Vec<_>>(), [Some(0), Some(1)]);
        stages
    };
    let first = priors("first", "steps: 3");
    let files = first.iter().map(|stage| format!("{:?}", stage.display().to_string())).collect::<Vec<_>>();
    let kept = priors("kept", &format!("steps: 0, from: [{}]", files.join(", ")));
    for (first, kept) in first.iter().zip(&kept) {
        let (first, kept) = (result(first), result(kept));
        assert!(!first.tensors.is_empty());
        for (name, tensor) in &first.tensors {
            assert_eq!(kept.tensors[name].to_vec(), tensor.to_vec(), "{name}");
        }
    }
    for (list, part) in
        [(&files[..1], "there are 2 levels"), (&[files[1].clone(), files[0].clone()][..], "is no part of the model")]
    {
        lab.write("odd.ron", experiment(LEVELS, &format!("steps: 0, from: [{}]", list.join(", ")))).unwrap();
        let said = lab.run("plan odd.ron").unwrap();
        assert_eq!(said.code, Some(2), "{}", said.out);
        assert!(said.err.contains("from") && said.err.contains(part), "{}", said.err);
    }
}

/// Killed at each checkpoint that is met, before, while and after random orders give way: the share of images in random order
/// follows from the step alone.
#[test]
fn an_annealed_order_goes_on_where_it_was_killed() {
    let lab = Lab::new().unwrap();
    lab.write("annealed.ron", experiment(ANNEALED, "steps: 24, checkpoint: 1, log: 4")).unwrap();
    let said = lab.run("sweep annealed.ron --quiet --runs whole --out whole-out").unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    let mut kills = 0;
    loop {
        let known = |lab: &Lab| {
            let stages = lab.stages("killed", "prior").ok()?;
            fs::metadata(stages.first()?.join("state.safetensors")).and_then(|about| about.modified()).ok()
        };
        let before = known(&lab);
        let arguments = "sweep annealed.ron --quiet --runs killed --out killed-out";
        match lab.kill_when(arguments, |lab| known(lab).is_some_and(|now| Some(now) != before)).unwrap() {
            true => kills += 1,
            false => break,
        }
    }
    assert!(kills > 0, "no checkpoint was seen");
    let [whole, killed] = ["whole", "killed"].map(|runs| lab.stages(runs, "prior").unwrap().remove(0));
    assert_eq!(whole.file_name(), killed.file_name());
    let bytes = |stage: &Path| fs::read(stage.join("result.safetensors")).unwrap();
    assert!(bytes(&whole) == bytes(&killed), "another result after {kills} kills");
}
