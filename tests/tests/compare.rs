//! Two reports side by side on the command line, and what a build server makes of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, Said};

fn sweep(lab: &Lab, arguments: &str) {
    let said = lab.run(&format!("sweep tiny.ron --quiet {arguments}")).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
}

fn compare(lab: &Lab, arguments: &str) -> Said {
    lab.run(&format!("compare {arguments}")).unwrap()
}

#[test]
fn equal_sweeps_have_not_moved_and_changed_ones_have() {
    let lab = Lab::new().unwrap();
    sweep(&lab, "--runs one --out a");
    sweep(&lab, "--runs two --out b");
    // Timings differ, of one seed: nothing is known of them. All else is equal to the bit.
    let same = compare(&lab, "a/tiny b/tiny/index.html");
    assert_eq!(same.code, Some(0), "{}{}", same.out, same.err);
    assert!(same.out.contains("4 configurations in common") && same.out.contains("0 numbers moved"), "{}", same.out);

    sweep(&lab, "--runs one --out a --name longer --set tokenizer_training.steps=60");
    let changed = compare(&lab, "a/tiny a/longer");
    assert_eq!(changed.code, Some(1), "{}{}", changed.out, changed.err);
    assert!(changed.out.contains("tokenizer_training.steps (20 → 60)"), "{}", changed.out);
    assert!(changed.out.contains("beyond the margin"), "{}", changed.out);
    // Codes of another tokenizer are no yardstick for bits.
    assert!(changed.out.contains("within one tokenizer only"), "{}", changed.out);

    let json = compare(&lab, "a/tiny a/longer --json");
    let told: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.code, &told["common"]), (Some(1), &4.into()));
    assert_eq!(told["settings"][0]["path"], "tokenizer_training.steps");
    let all = compare(&lab, "a/tiny a/longer --all");
    assert!(all.out.lines().count() > changed.out.lines().count());
}

#[test]
fn what_cannot_be_compared_is_told_apart_from_what_moved() {
    let lab = Lab::new().unwrap();
    sweep(&lab, "--out a --name one --set quantizer.depth=1");
    sweep(&lab, "--out a --name two --set quantizer.depth=2");
    let unrelated = compare(&lab, "a/one a/two");
    assert_eq!(unrelated.code, Some(2), "{}", unrelated.out);
    assert!(unrelated.err.contains("have no configuration in common"), "{}", unrelated.err);

    let nowhere = compare(&lab, "a/one a/three");
    assert_eq!(nowhere.code, Some(2));
    assert!(nowhere.err.contains("there is no report a/three"), "{}", nowhere.err);

    std::fs::remove_file(lab.path("a/two/results.json")).unwrap();
    let older = compare(&lab, "a/one a/two");
    assert_eq!(older.code, Some(2));
    assert!(older.err.contains("a/two has no results.json") && older.err.contains("rqlab report"), "{}", older.err);
}
