//! The same samples and reconstructions by published protocols.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::tensor::{Rng, Tensor};
use rqlab_tests::lab::{Lab, csv};
use rqlab_tests::parity::{Case, inception_tensors};
use std::collections::BTreeMap;
use std::path::Path;

/// Writes weights of Inception's shapes that are a formula's, and no published network's.
fn weights(lab: &Lab) {
    let case = Case::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("parity/fid_inception")).unwrap();
    let mut tensors = inception_tensors(&case).unwrap();
    let classes = Rng::new(0, "classes", 0).normal(1008 * 2048).into_iter().map(|x| 0.05 * x).collect();
    tensors.insert("fc.weight".to_owned(), Tensor::from_vec(classes, &[1008, 2048]).unwrap());
    tensors.insert("fc.bias".to_owned(), Tensor::from_vec(Rng::new(0, "bias", 0).normal(1008), &[1008]).unwrap());
    Checkpoint { tensors, ..Checkpoint::default() }.save(&lab.path("inception.safetensors")).unwrap();
}

/// The digest that a refusal of the file tells.
fn digest(lab: &Lab) -> String {
    let said = lab.run("plan tiny.ron --set evaluation.protocols=[adm]").unwrap();
    assert_ne!(said.code, Some(0));
    let after = said.err.split("has the SHA-256").nth(1).unwrap();
    after.chars().filter(|c| !c.is_whitespace() && *c != '│').take(64).collect()
}

#[test]
fn samples_are_measured_by_each_protocol_and_drawn_once() {
    let lab = Lab::new().unwrap();
    weights(&lab);
    let file = r#"classifier_steps: 5, inception: "inception.safetensors""#;
    lab.edit("classifier_steps: 5", file).unwrap();
    let digest = digest(&lab);
    let more = format!(r#"{file}, inception_digest: "{digest}", protocol_references: 8, sampling_seeds: [0, 1]"#);
    lab.edit("classifier_steps: 5", &more).unwrap();
    let sweep = "sweep tiny.ron --out o --name measured --jobs 1 --set quantizer.depth=1 --set prior=ar(width:16,heads:2) --set evaluation.images=8";
    assert_eq!(lab.run(sweep).unwrap().code, Some(0));
    let said = lab.run(&format!("{sweep} --set evaluation.protocols=[adm,rqvae]")).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    let drawn_again = said.err.lines().any(|line| line.contains(" generation ") || line.contains(" tokenizer "));
    assert!(!drawn_again, "adding a protocol draws and trains nothing: {}", said.err);

    let rows = csv(&lab.read("o/measured/results.csv").unwrap());
    let row: BTreeMap<&str, f64> =
        rows[0].iter().zip(&rows[1]).filter_map(|(name, cell)| Some((name.as_str(), cell.parse().ok()?))).collect();
    for measure in ["gfid_adm", "sfid_adm", "gkid_adm", "inception_score_adm", "precision_adm", "coverage_adm"] {
        let mean: &f64 = row.get(measure).unwrap_or_else(|| panic!("{measure}: {row:?}"));
        assert!(mean.is_finite(), "{measure}");
    }
    let stages = std::fs::read_dir(lab.path("runs/stages")).unwrap().flatten();
    let done = stages.filter_map(|stage| std::fs::read_to_string(stage.path().join("done.json")).ok());
    let drawn_twice = |text: &String| {
        let text: String = text.split_whitespace().collect();
        text.contains(r#""gfid""#) && text.contains(r#"{"draw":2}"#)
    };
    assert_eq!(done.filter(drawn_twice).count(), 2, "each draw has its reading by each protocol");
    for measure in ["gfid_rqvae", "inception_score_rqvae", "rfid_adm", "rfid_rqvae"] {
        assert!(row[measure].is_finite(), "{measure}");
    }
    assert!(!row.contains_key("precision_rqvae"), "it has no precision and recall");
    assert!(!row.contains_key("gfid_infinite_adm"), "ten samples are too few to be led on from");
    assert!((1.0..=1008.0).contains(&row["inception_score_adm"]));
    assert_ne!(row["gfid_adm"], row["gfid_rqvae"], "pictures are shown to the network in two ways");
    assert_eq!([row["protocol_samples_adm"], row["protocol_references_adm"]], [10.0, 8.0]);
    let page = lab.read("o/measured/index.html").unwrap();
    assert!(
        page.contains("<th scope=\"row\">protocols</th><td><div>lab, adm, rqvae</div></td>"),
        "the setup names them"
    );
    assert!(page.contains("10 of 50") && page.contains("What each protocol pins"), "the page tells of how many");
}
