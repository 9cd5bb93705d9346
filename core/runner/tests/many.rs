//! Experiments of very many trials: planned by looking each thing up, and refused by multiplying.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Lab, experiment, plan_of};
use std::collections::HashSet;

fn numbers(range: std::ops::Range<u64>) -> String {
    range.map(|number| number.to_string()).collect::<Vec<_>>().join(", ")
}

fn complaint_about(more: &str) -> String {
    let lab = Lab::new();
    lab.complaints(&lab.write("x.ron", experiment(more)), &[])
}

#[test]
fn twenty_thousand_trials_are_planned() {
    // A scan of a list for each of them would be hundreds of millions of comparisons of ids.
    let steps = numbers(1..5001);
    let plan =
        plan_of(&format!("prior: guess, axes: {{ \"tokenizer_training.steps\": [{steps}] }}, seeds: [0, 1, 2, 3]"));
    assert_eq!(plan.trials.len(), 20_000);
    // Classifier and the two descriptions of images are shared; tokenizer, its measures, tokens, prior and its measures are not.
    assert_eq!(plan.jobs.len(), 3 + 5 * 20_000);
    let ids: HashSet<&str> = plan.jobs.iter().map(|job| job.id.as_str()).collect();
    assert_eq!(ids.len(), plan.jobs.len());
    assert!(plan.jobs.iter().all(|job| plan.job(&job.id).is_some_and(|found| found.id == job.id)));
    // What trials have in common is there once.
    let (first, last) = (&plan.trials[0], &plan.trials[19_999]);
    assert!(std::sync::Arc::ptr_eq(&plan.models[&first.id].data.info, &plan.models[&last.id].data.info));
}

#[test]
fn more_trials_than_can_be_planned_are_refused_before_they_are_listed() {
    // A grid of 10^60 combinations: a list of them would not fit into any memory.
    let axes = ["quantizer.codebook", "quantizer.depth", "evaluation.images", "evaluation.samples", "prior.width"];
    let training = ["steps", "batch", "warmup", "lr", "weight_decay", "log", "checkpoint"];
    let training = training.map(|field| format!("tokenizer_training.{field}"));
    let values = numbers(1..100_001);
    let all = axes.iter().map(|&axis| axis.to_owned()).chain(training);
    let axes = |count: usize| {
        let axes: Vec<String> = all.clone().take(count).map(|axis| format!("\"{axis}\": [{values}]")).collect();
        axes.join(", ")
    };
    let said = complaint_about(&format!("prior: guess, axes: {{ {} }}", axes(2)));
    assert!(said.contains("at most 100,000 trials, and this one has 10,000,000,000"), "{said}");
    let said = complaint_about(&format!("prior: guess, axes: {{ {} }}", axes(5)));
    assert!(said.contains("more than can be counted") && said.contains("100000 values"), "{said}");
    // Seeds count; so do zips and cases.
    let said = complaint_about(&format!("axes: {{ {} }}, seeds: [0, 1]", axes(1)));
    assert!(said.contains("this one has 200,000: combinations 100,000, seeds 2"), "{said}");
    let said = complaint_about(&format!("sweep: [zip({{ {} }})], seeds: [0, 1]", axes(1)));
    assert!(said.contains("this one has 200,000"), "{said}");
    let cases: Vec<String> = (0..34_000).map(|case| format!("\"{case}\": {{ \"quantizer.depth\": {case} }}")).collect();
    let said = complaint_about(&format!("sweep: [cases({{ {} }})], seeds: [0, 1, 2]", cases.join(", ")));
    assert!(said.contains("this one has 102,000") && said.contains("34000 cases"), "{said}");
    let lab = Lab::new();
    let path = lab.write("x.ron", experiment(""));
    let seeds: Vec<u64> = (0..100_001).collect();
    let said = lab.plan(&path, &[], Some(&seeds)).unwrap_err().to_string();
    assert!(said.contains("combinations 1, seeds 100,001"), "{said}");
    // An axis that the command line pins does not multiply.
    let path = lab.write("y.ron", experiment(&format!("axes: {{ {} }}", axes(2))));
    let said = lab.plan(&path, &["quantizer.depth=1", "quantizer.codebook=4"], None);
    assert_eq!(said.unwrap().trials.len(), 1);
}

#[test]
fn many_complaints_are_gathered_and_some_are_shown() {
    let fields: Vec<String> = (0..20_000).map(|field| format!("field{field}: 1")).collect();
    let said = complaint_about(&format!("quantizer: deep({})", fields.join(", ")));
    assert!(said.contains("has no field `field0`") && said.contains("19970 more complaints"), "{said}");
    assert!(said.len() < 1 << 20, "{} bytes", said.len());
    // A mistake far down in a long file is shown with its own line.
    let said = complaint_about(&format!("{} quantizer: dep()", "\n".repeat(1 << 20)));
    assert!(said.contains("dep()") && said.len() < 4096, "{} bytes", said.len());
}
