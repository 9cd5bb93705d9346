//! Finished work is found, taken over from another folder, and deleted when nothing needs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::Lab;
use serde_json::Value;
use std::fs;

/// A folder with the experiment in `experiments/`, swept.
fn swept() -> Lab {
    let lab = Lab::new().unwrap();
    fs::create_dir(lab.path("experiments")).unwrap();
    fs::rename(lab.path("tiny.ron"), lab.path("experiments/tiny.ron")).unwrap();
    let said = lab.run("sweep tiny --quiet").unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    lab
}

fn plan(lab: &Lab) -> Value {
    serde_json::from_str(&lab.run("plan tiny --json").unwrap().out).unwrap()
}

fn stages(lab: &Lab, runs: &str) -> usize {
    fs::read_dir(lab.path(runs).join("stages")).unwrap().count()
}

/// How many jobs were begun in a folder of runs.
fn begun(lab: &Lab, runs: &str) -> usize {
    let events = lab.read(&format!("{runs}/events.jsonl")).unwrap();
    events.lines().filter(|line| line.contains("\"event\":\"started\"")).count()
}

#[test]
fn a_plan_for_programs_names_trials_jobs_and_what_they_need() {
    let lab = swept();
    let plan = plan(&lab);
    let jobs = plan["jobs"].as_array().unwrap();
    assert_eq!((plan["trials"].as_array().unwrap().len(), jobs.len()), (4, stages(&lab, "runs")));
    let known: Vec<&Value> = jobs.iter().map(|job| &job["id"]).collect();
    for job in jobs {
        assert!(job["is_done"] == true && job["seconds"].as_f64().unwrap() > 0.0, "{job}");
        assert!(lab.path(job["folder"].as_str().unwrap()).join("done.json").is_file());
        assert!(job["needs"].as_array().unwrap().iter().all(|id| known.contains(&id)));
    }
    assert!(plan["memory_bytes"].as_u64().unwrap() > 100_000 && plan["disk_bytes"] == 0);
    let anew = lab.run("plan tiny --json --runs elsewhere").unwrap().out;
    let anew: Value = serde_json::from_str(&anew).unwrap();
    // Weights of two tokenizers alone.
    assert!(anew["disk_bytes"].as_u64().unwrap() > 2 * 4 * 42_000, "{}", anew["disk_bytes"]);
}

#[test]
fn a_trial_is_found_by_the_first_digits_of_its_id_or_of_a_stages() {
    let lab = swept();
    let plan = plan(&lab);
    let trial = &plan["trials"][0];
    let said = lab.run(&format!("where {}", &trial["id"].as_str().unwrap()[..8])).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(
        said.out.contains(trial["name"].as_str().unwrap()) && said.out.contains("experiments/tiny.ron"),
        "{}",
        said.out
    );
    assert!(said.out.contains("reports/out/tiny/index.html"), "{}", said.out);
    for id in trial["jobs"].as_array().unwrap() {
        assert!(said.out.contains(&format!("runs/stages/{}", id.as_str().unwrap())), "{}", said.out);
    }
    // The classifier is of all trials.
    let classifier = plan["jobs"].as_array().unwrap().iter().find(|job| job["stage"] == "classifier").unwrap();
    let said = lab.run(&format!("where {}", &classifier["id"].as_str().unwrap()[..8])).unwrap();
    assert_eq!(said.out.matches("classifier ").count(), 4, "{}", said.out);
    let said = lab.run("where zzzz").unwrap();
    assert!(said.code == Some(2) && said.err.contains("no trial or stage begins with `zzzz`"), "{}", said.err);
    assert!(said.err.contains("--experiments") && said.err.contains("--out"), "{}", said.err);
}

#[test]
fn what_another_folder_has_is_taken_over_but_for_what_is_damaged() {
    let lab = swept();
    let all = stages(&lab, "runs");
    let damaged = lab.stages("runs", "generation").unwrap()[0].join("result.safetensors");
    let bytes = fs::read(&damaged).unwrap();
    fs::write(&damaged, &bytes[..bytes.len() / 2]).unwrap();
    let said = lab.run("merge runs --runs here").unwrap();
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.out.contains(&format!("{} stages taken over", all - 1)), "{}", said.out);
    assert!(said.err.contains("is damaged") && said.err.contains("result.safetensors"), "{}", said.err);
    fs::write(&damaged, bytes).unwrap();
    let said = lab.run("merge runs --runs here").unwrap();
    let expected = format!("1 stage taken over, {} were here", all - 1);
    assert!(said.code == Some(0) && said.out.contains(&expected), "{}", said.out);
    let said = lab.run("sweep tiny --runs here --out here-out").unwrap();
    assert!(said.code == Some(0) && said.err.contains("4 of 4 trials done"), "{}", said.err);
    assert_eq!(begun(&lab, "here"), 0);
    for (other, word) in
        [("nowhere", "there is no folder nowhere"), ("experiments", "it has no stages/"), ("here", "the folder itself")]
    {
        let said = lab.run(&format!("merge {other} --runs here")).unwrap();
        assert!(said.code == Some(2) && said.err.contains(word), "{}", said.err);
    }
}

#[test]
fn only_what_no_experiment_and_no_report_needs_is_deleted_and_only_when_agreed() {
    let lab = swept();
    let all = stages(&lab, "runs");
    assert_eq!(lab.run("sweep tiny --quiet --set quantizer.codebook=8").unwrap().code, Some(0));
    let both = stages(&lab, "runs");
    assert!(both > all);
    // The report of the other codebook keeps its stages.
    assert!(lab.run("gc --yes").unwrap().out.contains("every stage is needed"));
    let report =
        fs::read_dir(lab.path("reports/out")).unwrap().flatten().find(|entry| entry.file_name() != "tiny").unwrap();
    fs::remove_dir_all(report.path()).unwrap();
    let said = lab.run("gc").unwrap();
    let expected = format!("{} stages that no experiment under experiments needs", both - all);
    assert!(said.code == Some(2) && said.err.contains(&expected) && said.err.contains("`--yes`"), "{}", said.err);
    assert!(lab.run("gc --dry-run").unwrap().out.contains("nothing was deleted"));
    assert_eq!(stages(&lab, "runs"), both);
    // Where it is not known what an experiment needs, nothing is deleted.
    lab.write("experiments/broken.ron", "(question: \"?\", data: no_such_data())").unwrap();
    let said = lab.run("gc --yes").unwrap();
    assert!(
        said.code == Some(2) && said.err.contains("nothing is deleted: what experiments/broken.ron needs"),
        "{}",
        said.err
    );
    fs::remove_file(lab.path("experiments/broken.ron")).unwrap();
    // One whose images are elsewhere needs nothing of what was made of those that are here.
    let tiny = lab.read("experiments/tiny.ron").unwrap();
    let (before, after) = tiny.split_once("data: dead_leaves(size: 16, train: 64, test: 32, classes: 4)").unwrap();
    lab.write("experiments/elsewhere.ron", format!("{before}data: parquet(path: \"none-such\"){after}")).unwrap();
    let said = lab.run("gc --yes").unwrap();
    assert!(said.err.contains("data are not here of experiments/elsewhere.ron"), "{}", said.err);
    assert!(said.code == Some(0) && said.out.contains(&format!("{} stages deleted", both - all)), "{}", said.out);
    assert_eq!(stages(&lab, "runs"), all);
    let before = begun(&lab, "runs");
    assert!(lab.run("sweep tiny").unwrap().err.contains("4 of 4 trials done"));
    assert_eq!(begun(&lab, "runs"), before);
    // An empty folder of experiments is a mistake, not an order.
    fs::create_dir(lab.path("empty")).unwrap();
    assert_eq!(lab.run("gc empty --yes").unwrap().code, Some(2));
    assert_eq!(stages(&lab, "runs"), all);
}
