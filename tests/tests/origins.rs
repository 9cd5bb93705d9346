//! Results say where they were computed, whoever renders them; and those of another version are named, not misread.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, Said};
use std::fs;

/// Lowers the instructions that the kernels use: the nearest thing to another machine.
const INSTRUCTIONS: &str = "RQLAB_CPU";

fn run(lab: &Lab, arguments: &str, instructions: Option<&str>) -> Said {
    let mut command = lab.command(arguments).unwrap();
    command.env_remove(INSTRUCTIONS).envs(instructions.map(|level| (INSTRUCTIONS, level)));
    let said = Said::from(command.output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    said
}

/// What a stage says of the instructions that it was computed with.
fn instructions(lab: &Lab, kind: &str) -> Vec<String> {
    let of = |stage: std::path::PathBuf| {
        let done: serde_json::Value = serde_json::from_slice(&fs::read(stage.join("done.json")).unwrap()).unwrap();
        done["environment"]["instructions"].as_str().unwrap().to_owned()
    };
    lab.stages("runs", kind).unwrap().into_iter().map(of).collect()
}

const BASELINE: &str = "baseline instructions";

#[test]
fn a_page_is_signed_by_what_computed_it_not_by_what_renders_it() {
    let lab = Lab::new().unwrap();
    run(&lab, "sweep tiny.ron --quiet --runs runs --out out --jobs 1", Some("baseline"));
    for kind in ["classifier", "tokenizer", "tokens", "prior", "reconstruction", "generation"] {
        assert!(instructions(&lab, kind).iter().all(|found| found == BASELINE), "{kind}");
    }
    run(&lab, "report tiny.ron --runs runs --out elsewhere", None);
    assert!(lab.read("elsewhere/tiny/index.html").unwrap().contains(BASELINE));
    // With fewer threads per job and other instructions nothing is done again: they are recorded, and in no name.
    let before = lab.stages("runs", "tokenizer").unwrap();
    run(&lab, "sweep tiny.ron --quiet --runs runs --out out --jobs 2", None);
    assert_eq!(lab.stages("runs", "tokenizer").unwrap(), before);
    assert!(instructions(&lab, "tokenizer").iter().all(|found| found == BASELINE));
}

#[test]
fn results_of_another_format_are_named_and_left_alone() {
    let lab = Lab::new().unwrap();
    let old = lab.path("runs/stages/0123");
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("job.json"), r#"{"id":"0123","stage":{"Tokenizer":{"seed":0}},"base":".","data_digest":"x"}"#)
        .unwrap();
    fs::write(old.join("done.json"), r#"{"measures":{"psnr":20.0},"timings":{},"curves":{},"seconds":1.0}"#).unwrap();
    fs::write(old.join("result.safetensors"), "weights").unwrap();
    let before = fs::read(old.join("done.json")).unwrap();
    for command in ["plan tiny.ron --runs runs", "sweep tiny.ron --runs runs --out out"] {
        let said = run(&lab, command, None);
        assert!(said.err.contains("1 stage of an older format"), "{command}: {}", said.err);
    }
    assert_eq!(fs::read(old.join("done.json")).unwrap(), before);
}
