//! Every quantizer of codes with every prior of codes: each pair trains, is measured and draws samples.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, csv};

/// Quantizers of all kinds of codes: in one and in several sub-tokens, as wide as latents and projected.
const QUANTIZERS: [&str; 8] = [
    "vq(codebook: 16)",
    "rq(depth: 2, codebook: 16)",
    "fsq(levels: [5, 4, 3], projection: true)",
    "fsq(levels: [3, 3, 3, 3, 2, 2, 2, 2], sub_tokens: [4, 4])",
    "lfq(bits: 6, sub_tokens: [2, 4], projection: true)",
    "bsq(bits: 8)",
    "simvq(codebook: 16, code_dim: 4)",
    "ibq(codebook: 16)",
];

/// Two steps of each tokenizer, and of both priors on its codes.
fn experiment() -> String {
    let quantizers = QUANTIZERS.join(", ");
    format!(
        r#"// Pairs.
(
    question: "Does every prior of codes take every quantizer's?",
    data: dead_leaves(size: 8, train: 16, test: 8, classes: 2),
    autoencoder: resnet(width: 4, multipliers: [1, 2], groups: 2, mid_attention: false, latent: 8),
    quantizer: vq,
    prior: ar(width: 8, heads: 2, layers: 1, embedding: codebook),
    tokenizer_training: (steps: 2, batch: 4),
    prior_training: (steps: 2, batch: 4, images: 8),
    evaluation: (images: 8, samples: 6, speed: [], pictures: 1, classifier_steps: 2),
    axes: {{
        "quantizer": [{quantizers}],
        "prior": [
            ar(width: 8, heads: 2, layers: 1, embedding: codebook),
            rq_transformer(width: 8, heads: 2, body_layers: 1, head_layers: 1, targets: soft, codes: stochastic),
        ],
    }},
    seeds: [0],
)
"#
    )
}

#[test]
fn every_prior_of_codes_takes_every_quantizers_codes() {
    let lab = Lab::new().unwrap();
    lab.write("pairs.ron", experiment()).unwrap();
    let said = lab.run("sweep pairs.ron --out o --jobs 2").unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    let rows = csv(&lab.read("o/pairs/results.csv").unwrap());
    let column = rows[0].iter().position(|name| name == "prior_bits_per_image").unwrap();
    assert_eq!(rows.len(), 1 + 2 * QUANTIZERS.len());
    for row in &rows[1..] {
        let bits: f64 = row[column].parse().unwrap();
        assert!(bits.is_finite() && bits > 0.0, "{row:?}");
    }
}
