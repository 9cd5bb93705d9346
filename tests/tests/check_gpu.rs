//! `rqlab check-gpu` where there is no GPU: it says why, and what it had shown is on the disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "a test that cannot run says so")]

use rqlab_sdk::tensor::Device;
use rqlab_tests::lab::Lab;

#[test]
fn where_no_gpu_answers_it_says_why() {
    if Device::Cuda(0).open().is_ok() {
        println!("skipped: there is a GPU");
        return;
    }
    let lab = Lab::new().unwrap();
    let said = lab.run("check-gpu --out shown --limit 60").unwrap();
    assert_eq!(said.code, Some(2), "{}", said.err);
    assert!(said.err.contains("no GPU can be checked: cuda:0: "), "{}", said.err);
    let line: serde_json::Value = serde_json::from_str(&lab.read("shown/results.jsonl").unwrap()).unwrap();
    assert!(line["step"] == "device" && line["end"] == "failed", "{line}");
    assert!(lab.read("shown/table.md").unwrap().contains("| device | FAILED |"));
    assert!(lab.read("shown/device.log").unwrap().contains("FAIL"));

    let said = lab.run("check-gpu --device cpu --out shown").unwrap();
    assert!(said.code == Some(2) && said.err.contains("needs a GPU"), "{}", said.err);
    let said = lab.run("check-gpu --list").unwrap();
    let places =
        ["operations", "sweep-tf32", "host-reads", "memory", "ar_train_base-bf16"].map(|step| said.out.find(step));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{}", said.out);

    // What it trains can be trained.
    let experiment = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/bench/src/check_gpu/steps.ron");
    let said = lab.run(&format!("plan {experiment}")).unwrap();
    assert_eq!(said.code, Some(0), "{}", said.err);
}
