//! A stage's own code counts for its results, but not for its id: a person decides whether a change of it changes results,
//! and raises `Stage::revision` if so. This test asks for the decision.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The sources that a stage's results depend on, in `core/runner/src/stages/`.
const SOURCES: [(&str, &[&str]); 14] = [
    (
        "classifier",
        &[
            "classifier.rs",
            "features.rs",
            "subset.rs",
            "training/batches.rs",
            "training/losses.rs",
            "training/means.rs",
            "training/mod.rs",
        ],
    ),
    ("attributes", &["attributes.rs", "subset.rs", "training/batches.rs", "training/means.rs", "training/mod.rs"]),
    ("captions", &["captions.rs", "subset.rs", "token_file.rs"]),
    ("reference", &["features.rs", "reference.rs", "subset.rs", "training/batches.rs"]),
    ("training_images", &["features.rs", "subset.rs", "token_file.rs", "training/batches.rs", "training_images.rs"]),
    (
        "tokenizer",
        &[
            "model.rs",
            "tokenizer.rs",
            "training/batches.rs",
            "training/losses.rs",
            "training/means.rs",
            "training/mod.rs",
            "training/objectives.rs",
            "training/start.rs",
            "training/together.rs",
        ],
    ),
    ("tokens", &["model.rs", "subset.rs", "token_file.rs", "tokens.rs", "training/batches.rs"]),
    (
        "prior",
        &[
            "captions.rs",
            "conditions.rs",
            "model.rs",
            "prior/feed.rs",
            "prior/mod.rs",
            "prior/validation.rs",
            "subset.rs",
            "token_file.rs",
            "tokens.rs",
            "training/batches.rs",
            "training/losses.rs",
            "training/means.rs",
            "training/mod.rs",
            "training/start.rs",
            "training/together.rs",
        ],
    ),
    (
        "reconstruction",
        &[
            "code_norms.rs",
            "distances.rs",
            "features.rs",
            "model.rs",
            "per_image.rs",
            "reconstruction.rs",
            "reference.rs",
            "subset.rs",
            "training/batches.rs",
            "training/means.rs",
        ],
    ),
    (
        "perturbation",
        &["features.rs", "model.rs", "perturbation.rs", "reference.rs", "subset.rs", "training/batches.rs"],
    ),
    (
        "protocol",
        &["distances.rs", "model.rs", "protocol/look.rs", "protocol/mod.rs", "subset.rs", "training/means.rs"],
    ),
    ("protocol/reference", &["protocol/look.rs", "protocol/reference.rs", "protocol/rules.rs", "subset.rs"]),
    (
        "protocol/samples",
        &[
            "distances.rs",
            "generation/mod.rs",
            "generation/samples.rs",
            "model.rs",
            "protocol/look.rs",
            "protocol/reference.rs",
            "protocol/rules.rs",
            "protocol/samples.rs",
            "token_file.rs",
        ],
    ),
    (
        "generation",
        &[
            "attributes.rs",
            "captions.rs",
            "conditions.rs",
            "distances.rs",
            "features.rs",
            "generation/again.rs",
            "generation/copies.rs",
            "generation/how.rs",
            "generation/labels.rs",
            "generation/likelihood.rs",
            "generation/mod.rs",
            "generation/samples.rs",
            "generation/speed.rs",
            "generation/tuning.rs",
            "model.rs",
            "prior/mod.rs",
            "reference.rs",
            "subset.rs",
            "token_file.rs",
            "tokens.rs",
            "training/batches.rs",
            "training_images.rs",
        ],
    ),
];

/// What was decided last: a line per stage with its revision and the digest of its sources.
const DECIDED: &str = "tests/revisions.txt";

/// The code of a file: neither comments nor white space nor tests, a change of which changes no result.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

fn digest(stages: &Path, files: &[&str]) -> String {
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let text = fs::read_to_string(stages.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        hasher.update(file.as_bytes()).update(b"\n").update(code(&text).as_bytes()).update(b"\n");
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// The revision that a stage's file states.
fn revision(stages: &Path, stage: &str) -> u32 {
    let own = |file: &str| fs::read_to_string(stages.join(file)).ok();
    let text = own(&format!("{stage}.rs")).or_else(|| own(&format!("{stage}/mod.rs"))).unwrap();
    let body = text.split("fn revision(&self) -> u32 {").nth(1).unwrap_or_else(|| panic!("{stage} states no revision"));
    body.split('}').next().unwrap().trim().parse().unwrap_or_else(|_| panic!("the revision of {stage} is no number"))
}

#[test]
fn a_change_of_a_stages_code_asks_whether_its_results_change() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let stages = home.join("src/stages");
    let line =
        |(stage, files): &(&str, &[&str])| format!("{stage} {} {}", revision(&stages, stage), digest(&stages, files));
    let now: Vec<String> = SOURCES.iter().map(line).collect();
    let decided = fs::read_to_string(home.join(DECIDED)).unwrap_or_default();
    let decided: Vec<&str> = decided.lines().collect();
    let changed: Vec<&String> = now.iter().filter(|line| !decided.contains(&line.as_str())).collect();
    assert!(
        changed.is_empty(),
        "the code of these stages has changed since it was last decided on:\n  {}\n\
         If their results change for equal input, raise `revision()` in the stage's file first. Then put these lines into \
         core/runner/{DECIDED}:\n{}",
        changed.iter().map(|line| line.split(' ').next().unwrap_or_default()).collect::<Vec<_>>().join(", "),
        now.join("\n")
    );
}

/// Every file of the stages stands in the list of some stage: a new one is not forgotten.
#[test]
fn every_source_of_a_stage_is_watched() {
    fn files(dir: &Path, under: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let name = format!("{under}{}", entry.file_name().to_string_lossy());
            match entry.path().is_dir() {
                true => files(&entry.path(), &format!("{name}/"), found),
                false => found.push(name),
            }
        }
    }
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stages"), "", &mut found);
    let watched: BTreeMap<&str, ()> =
        SOURCES.iter().flat_map(|(_, files)| files.iter().map(|file| (*file, ()))).collect();
    // The module itself only lists the stages.
    let forgotten: Vec<_> =
        found.iter().filter(|file| *file != "mod.rs" && !watched.contains_key(file.as_str())).collect();
    assert!(forgotten.is_empty(), "watched by no stage: {forgotten:?}");
}

#[test]
fn comments_and_tests_are_no_code() {
    assert_eq!(code("// why\nfn a() {\n    b()\n}\n#[cfg(test)]\nmod tests {}"), code("fn a() { b() }"));
    assert_ne!(code("fn a() { b() }"), code("fn a() { c() }"));
}
