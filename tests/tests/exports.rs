//! What is trained here is exported to a published system only if that system's files can hold it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_tests::lab::{Lab, Said};

/// Trains a tokenizer for a step.
fn trained(lab: &Lab, name: &str, autoencoder: &str, quantizer: &str) {
    let text = format!(
        "(question: \"x?\", data: dead_leaves(size: 16, train: 16, test: 16, classes: 2), autoencoder: {autoencoder}, quantizer: \
         {quantizer}, tokenizer_training: (steps: 1, batch: 4, warmup: 0), evaluation: (images: 16, samples: 10, speed: [], \
         pictures: 2, classifier_steps: 1))"
    );
    lab.write(&format!("{name}.ron"), text).unwrap();
    let said = lab.run(&format!("sweep {name}.ron --quiet --runs runs --out out")).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
}

fn export(lab: &Lab, name: &str, system: &str) -> Said {
    lab.run(&format!("export {name}.ron --runs runs --system {system} -o {system}.safetensors")).unwrap()
}

const RESNET: &str = "resnet(width: 8, multipliers: [1, 2], groups: 4, latent: 8)";

#[test]
fn a_system_is_given_what_it_is_made_of_and_nothing_else() {
    let lab = Lab::new().unwrap();
    trained(&lab, "vq", RESNET, "vq(codebook: 8)");
    trained(&lab, "rq", RESNET, "rq(depth: 2, codebook: 8)");
    trained(&lab, "vit", "vit(patch: 4, width: 16, layers: 1, heads: 2)", "vq(codebook: 8)");
    for (name, system, refusal) in [
        ("vq", "diffusers_kl", "is made of `resnet` and `kl`, and this of `resnet` and `vq`"),
        ("vq", "titok", "is made of `vit` and `vq`, and this of `resnet` and `vq`"),
        ("rq", "taming_vqgan", "is made of `resnet` and `vq`, and this of `resnet` and `rq`"),
        ("vit", "llamagen_vq", "is made of `resnet` and `vq`, and this of `vit` and `vq`"),
    ] {
        let said = export(&lab, name, system);
        assert!(said.code == Some(2) && said.err.contains(refusal), "{name} as {system}: {}", said.err);
        assert!(!lab.path(&format!("{system}.safetensors")).exists());
    }
    for (name, system) in [("vq", "taming_vqgan"), ("vq", "llamagen_vq"), ("vq", "diffusers_vq"), ("rq", "rqvae")] {
        let said = export(&lab, name, system);
        assert!(said.code == Some(0) && said.err.contains("groups:4"), "{name} as {system}: {}", said.err);
    }
    // The codes that averages made are the table of the published files, which hold no averages.
    let exported = Checkpoint::load(&lab.path("taming_vqgan.safetensors")).unwrap().tensors;
    assert_eq!(exported["quantize.embedding.weight"].shape(), [8, 8]);
    assert_eq!(exported.keys().filter(|name| name.starts_with("quantize.")).count(), 1);
}

/// Published encoders read pixels.
#[test]
fn patches_are_not_exported() {
    let lab = Lab::new().unwrap();
    trained(&lab, "patches", &RESNET.replace("(width", "(patch: 2, width"), "vq(codebook: 8)");
    let said = export(&lab, "patches", "taming_vqgan");
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("reads patches, 12 numbers for images of 3 channels"), "{}", said.err);
}
