//! What `rqlab plugins new` makes: for every kind of component a plugin outside the workspace that builds, passes its own
//! tests, and works beside the others in a sweep.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rqlab_tests::lab::{Lab, Said};

/// `rqlab` as an author has it in a shell: with nothing of the cargo that runs this test.
fn rqlab(lab: &Lab, arguments: &str) -> Said {
    let mut command = lab.command(arguments).unwrap();
    // A plugin that is built must not land beside this build's own.
    Said::from(command.env_remove("CARGO_TARGET_DIR").output().unwrap())
}

fn ok(lab: &Lab, arguments: &str) -> Said {
    let said = rqlab(lab, arguments);
    assert_eq!(said.code, Some(0), "rqlab {arguments}\n{}\n{}", said.out, said.err);
    said
}

/// The kinds that there are, from what is said of one that is not.
fn kinds(lab: &Lab) -> Vec<String> {
    let said = rqlab(lab, "plugins new toy --kind nonsense");
    let (_, list) = said.err.split_once("[possible values: ").unwrap();
    let kinds: Vec<String> = list.split(']').next().unwrap().split(", ").map(str::to_owned).collect();
    assert!(kinds.contains(&"quantizer".to_owned()), "{kinds:?}");
    kinds
}

#[test]
fn every_template_builds_passes_its_tests_and_works() {
    let lab = Lab::new().unwrap();
    let mut experiment = "(\n    question: \"Do the templates work?\",\n".to_owned();
    let kinds = kinds(&lab);
    for kind in &kinds {
        let made = ok(&lab, &format!("plugins new toy_{kind} --kind {kind}"));
        assert!(made.out.contains(&format!("made toy_{kind}")), "{}", made.out);
        let built = ok(&lab, &format!("plugins build toy_{kind} --out plugins --test"));
        // A template without a test proves nothing; a warning of the compiler would be the first thing an author sees.
        assert!(built.out.contains("test result: ok. ") && !built.out.contains(" 0 passed;"), "{}", built.out);
        assert!(!built.err.contains("warning"), "{}", built.err);
        let slot = if kind == "dataset" { "data" } else { kind };
        experiment += &format!("    {slot}: toy_{kind},\n");
    }
    experiment += "    tokenizer_training: (steps: 4, batch: 4, warmup: 1),
    prior_training: (steps: 4, batch: 4, warmup: 1, images: 16),
    evaluation: (images: 16, samples: 8, speed: [], pictures: 2, classifier_steps: 2),
)\n";
    lab.write("toys.ron", experiment).unwrap();

    let list = ok(&lab, "--plugins plugins plugins list");
    for kind in &kinds {
        let row = [kind.clone(), format!("toy_{kind}")];
        let is_row = |line: &str| line.split_whitespace().take(2).eq(row.iter().map(String::as_str));
        assert!(list.out.lines().any(is_row), "{}", list.out);
        let described = ok(&lab, &format!("--plugins plugins plugins describe toy_{kind}"));
        assert!(
            described.out.contains(&format!("toy_{kind}")) && described.out.contains("default"),
            "{}",
            described.out
        );
    }
    let said = ok(&lab, "--plugins plugins sweep toys.ron --runs runs --out out");
    assert!(said.err.contains("1 of 1 trials done"), "{}", said.err);
    assert!(lab.read("out/toys/results.csv").unwrap().contains(",done,"));
}
