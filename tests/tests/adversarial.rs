//! Tokenizers trained on features and against a discriminator.

#![cfg(target_os = "linux")] // Workers are found in /proc.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::tensor::Tensor;
use rqlab_tests::lab::Lab;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;

const TINY: &str = r#"(
    question: "Do all losses go together?",
    data: dead_leaves(size: 16, train: 64, test: 32, classes: 4),
    autoencoder: resnet(width: 8, multipliers: [1, 2], groups: 4, mid_attention: false, latent: 8),
    quantizer: rq(depth: 2, codebook: 16),
    objective: OBJECTIVE,
    tokenizer_training: (steps: 20, batch: 4, lr: 1e-3, warmup: 2, checkpoint: 2, log: 2),
    evaluation: (images: 16, speed: [], pictures: 2, classifier_steps: 5),
)
"#;

fn write(lab: &Lab, name: &str, objective: &str) {
    lab.write(&format!("{name}.ron"), TINY.replace("OBJECTIVE", objective)).unwrap();
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_killed_run_with_all_losses_equals_an_unbroken_one() {
    let lab = Lab::new().unwrap();
    let objective =
        "[l1(), perceptual(weight: 0.5), patch_gan(n_layers: 1, width: 4, start: 3, lecam: 0.1, r1: 1.0, r1_every: 4)]";
    write(&lab, "whole", objective);
    write(&lab, "killed", objective);
    let said = lab.run("sweep whole.ron --quiet --runs whole-runs --out whole-out").unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    let stage = |runs: &str| lab.stages(runs, "tokenizer").unwrap().remove(0);
    let whole = stage("whole-runs");
    let done = json(&whole.join("done.json"));
    let curves = done["curves"].to_string();
    for term in [
        "l1",
        "lab_distance",
        "generator_loss",
        "critic_loss",
        "real_logits",
        "fake_logits",
        "patch_gan_weight",
        "lecam",
        "r1",
    ] {
        assert!(curves.contains(&format!("\"{term}\"")), "no {term} among the curves {curves}");
    }
    // The same again, killed at its first checkpoint and at each later one that is met.
    let mut kills = 0;
    loop {
        let known = |lab: &Lab| {
            let stages = lab.stages("killed-runs", "tokenizer").ok()?;
            fs::metadata(stages.first()?.join("state.safetensors")).and_then(|about| about.modified()).ok()
        };
        let before = known(&lab);
        let arguments = "sweep killed.ron --quiet --runs killed-runs --out killed-out";
        match lab.kill_when(arguments, |lab| known(lab).is_some_and(|now| Some(now) != before)).unwrap() {
            true => kills += 1,
            false => break,
        }
    }
    assert!(kills > 0, "no checkpoint was seen");
    let again = stage("killed-runs");
    assert_eq!(whole.file_name(), again.file_name());
    assert!(fs::read(whole.join("result.safetensors")).unwrap() == fs::read(again.join("result.safetensors")).unwrap());
    let killed = json(&again.join("done.json"));
    assert_eq!((&done["readings"], &done["curves"]), (&killed["readings"], &killed["curves"]));
}

/// What an objective measures with is trained first, and counts for the tokenizer; a discriminator larger than its image and
/// weights that are not there are refused before any work.
#[test]
fn the_plan_knows_what_objectives_need() {
    let lab = Lab::new().unwrap();
    write(&lab, "lab", "[mse(), perceptual()]");
    let said = lab.run("sweep lab.ron --quiet --runs runs --out out").unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    let tokenizer = lab.stages("runs", "tokenizer").unwrap().remove(0);
    let classifier = lab.stages("runs", "classifier").unwrap().remove(0);
    let job = fs::read_to_string(tokenizer.join("job.json")).unwrap();
    let id = classifier.file_name().unwrap().to_string_lossy().into_owned();
    assert!(job.contains(&id), "the tokenizer does not name the classifier {id}: {job}");

    let refused = |name: &str, objective: &str, wanted: &[&str]| {
        write(&lab, name, objective);
        let said = lab.run(&format!("plan {name}.ron")).unwrap();
        assert_eq!(said.code, Some(2), "{}", said.err);
        for wanted in wanted {
            assert!(said.err.contains(wanted), "no {wanted} in {}", said.err);
        }
    };
    let digest = "00".repeat(32);
    let lpips = |digest: &str| {
        format!("[mse(), perceptual(features: lpips, weights: \"vgg.safetensors\", digest: \"{digest}\")]")
    };
    // A plan is made without the file, which it names; nothing is begun without it.
    write(&lab, "absent", &lpips(&digest));
    for (command, code) in [("plan absent.ron", 0), ("sweep absent.ron --quiet --runs none --out none", 2)] {
        let said = lab.run(command).unwrap();
        assert_eq!(said.code, Some(code), "{}", said.err);
        for wanted in ["vgg.safetensors is not there", "absent.ron:6", "docs/weights.md"] {
            assert!(said.err.contains(wanted), "no {wanted} in {}", said.err);
        }
    }
    assert!(!lab.path("none").exists());
    lab.write("vgg.safetensors", "another file").unwrap();
    refused("another", &lpips(&digest), &["SHA-256", "docs/weights.md"]);
    // Of the digest that is asked for, and another network or cut off.
    let tensors = [("features.0.weight".to_owned(), Tensor::zeros(&[64, 1, 3, 3]))].into();
    Checkpoint { tensors, ..Checkpoint::default() }.save(&lab.path("vgg.safetensors")).unwrap();
    let sha256 = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let bytes = fs::read(lab.path("vgg.safetensors")).unwrap();
    refused("other", &lpips(&sha256(&bytes)), &["holds another network", "[64, 1, 3, 3]", "other.ron:6"]);
    lab.write("vgg.safetensors", &bytes[..bytes.len() - 4]).unwrap();
    refused("cut", &lpips(&sha256(&bytes[..bytes.len() - 4])), &["vgg.safetensors", "cut.ron:6"]);
    refused("unnamed", "perceptual(features: lpips)", &["weights", "docs/weights.md"]);
    refused("large", "[mse(), patch_gan(n_layers: 4)]", &["n_layers: 2", "larger than images of 16 x 16"]);
    let blurred = "[mse(), patch_gan(discriminator: blur_patch, n_layers: 6, width: 32)]";
    refused("larger", blurred, &["n_layers: 4", "larger than images of 16 x 16"]);
}
