//! Every quantizer with every prior, each trained for two steps; and what does not go together is refused in the plan.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::Lab;

/// Quantizers of codes, for latents of 8 x 8 x 8.
const CODES: &[&str] = &[
    "vq(codebook: 16)",
    "vq(codebook: 16, code_dim: 4, normalize: always, codebook_update: gradient, init: kmeans, dead_codes: anchored)",
    "rq(depth: 2, codebook: 16)",
    "rq(depth: 2, codebook: 16, shared: false, code_dim: 4, train_beam: 2, eval_beam: 2, quantizer_dropout: true)",
    "fsq(levels: [4, 4, 3], projection: true)",
    "lfq(bits: 8)",
    "bsq(bits: 8, entropy_group: 4)",
    "simvq(codebook: 16)",
    "ibq(codebook: 16)",
    "residual(of: fsq(levels: [4, 4, 3]), depth: 2, code_dim: 3, soft_clamp: 1.0)",
    "residual(of: lfq(bits: 8), depth: 2)",
    "residual(of: simvq(codebook: 16), depth: 2, shared: true)",
    "product(of: vq(codebook: 16), parts: 2)",
    "product(of: residual(of: vq(codebook: 16), depth: 2), parts: 2)",
    "multi_scale(of: vq(codebook: 16, codebook_update: gradient), scales: [1, 2, 4, 8])",
    "multi_scale(of: bsq(bits: 8, entropy_group: 4), scales: [1, 3, 8], losses: both)",
];

/// Priors of codes.
const PRIORS: &[&str] =
    &["ar(width: 16, heads: 2, layers: 1)", "rq_transformer(width: 16, heads: 2, body_layers: 1, head_layers: 1)"];

fn experiment(quantizers: &[&str], priors: &[&str]) -> String {
    format!(
        r#"// Everything with everything.
(
    question: "Does every quantizer train with every prior?",
    data: dead_leaves(size: 16, train: 32, test: 16, classes: 2),
    autoencoder: resnet(width: 8, multipliers: [1, 2], groups: 4, mid_attention: false, latent: 8),
    quantizer: {},
    prior: {},
    tokenizer_training: (steps: 2, batch: 8, lr: 1e-3, warmup: 1, log: 1),
    prior_training: (steps: 2, batch: 4, lr: 1e-3, warmup: 1, images: 8, log: 1),
    evaluation: (images: 8, samples: 6, speed: [], pictures: 2, classifier_steps: 2),
    axes: {{ "quantizer": [{}], "prior": [{}] }},
    seeds: [0],
)
"#,
        quantizers[0],
        priors[0],
        quantizers.join(", "),
        priors.join(", ")
    )
}

#[test]
fn every_quantizer_of_codes_trains_with_every_prior_of_codes() {
    let lab = Lab::new().unwrap();
    lab.write("all.ron", experiment(CODES, PRIORS)).unwrap();
    let said = lab.run("sweep all.ron --runs runs --out out").unwrap();
    assert_eq!(said.code, Some(0), "{}\n{}", said.out, said.err);
    assert_eq!(lab.stages("runs", "tokenizer").unwrap().len(), CODES.len());
    assert_eq!(lab.stages("runs", "prior").unwrap().len(), CODES.len() * PRIORS.len());
}

/// What a plan says of a quantizer with a prior.
fn refused(quantizer: &str, prior: &str) -> String {
    let lab = Lab::new().unwrap();
    lab.write("one.ron", experiment(&[quantizer], &[prior])).unwrap();
    let said = lab.run("plan one.ron").unwrap();
    assert_eq!(said.code, Some(2), "{quantizer} with {prior}\n{}", said.out);
    said.err
}

#[test]
fn what_does_not_go_together_is_refused_in_the_plan() {
    for prior in PRIORS {
        for quantizer in ["none", "kl"] {
            let said = refused(quantizer, prior);
            assert!(said.contains("codes") || said.contains("double_z"), "{quantizer} with {prior}: {said}");
        }
    }
    for (quantizer, reason) in [
        ("residual(of: none, depth: 2)", "`none` makes vectors"),
        ("product(of: vq, parts: 3)", "8 channels of the latents cannot be cut in 3 equal parts"),
        ("multi_scale(of: vq, scales: [1, 2, 4])", "the last scale must be the side of the latents, which are 8 x 8"),
        ("residual(of: multi_scale(of: vq, scales: [1, 8]), depth: 2)", "makes codes of several scales"),
        ("residual(of: vq(dead_codes: anchored), depth: 2)", "add `codebook_update: gradient`"),
        ("rq(train_beam: 2)", "add `update: per_step`"),
        ("lfq(bits: 9)", "9 channels, and the latents have 8"),
    ] {
        let said = refused(quantizer, PRIORS[0]);
        let words = |text: &str| {
            text.split(|c: char| c.is_whitespace() || c == '│')
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert!(words(&said).contains(reason), "{quantizer}: {said}");
    }
}
