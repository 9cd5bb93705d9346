//! Mistakes that a parser speaks of in its own terms, said in the user's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Lab, experiment};

#[test]
fn settings_that_are_no_fields_are_told_what_they_must_be() {
    let lab = Lab::new();
    let path = lab.write("x.ron", experiment("prior: guess"));
    for value in ["nearest", "3", "[steps]", "\"(steps: 3)\"", "{}", "tokenizer(steps: 3)"] {
        for slot in ["tokenizer_training", "prior_training", "evaluation"] {
            let said = lab.complaints(&path, &[&format!("{slot}={value}")]);
            let expected = "error: expected named fields in parentheses, `(name: value, ..)`, found";
            assert!(said.starts_with(expected) && said.contains("<command line>"), "{said}");
        }
    }
    let said = lab.complaints(&lab.write("y.ron", "data: grey"), &[]);
    assert!(said.starts_with("error: expected named fields in parentheses") && said.contains("y.ron:1:1"), "{said}");
}

#[test]
fn comments_around_a_value_of_the_command_line_are_no_part_of_it() {
    let lab = Lab::new();
    let path = lab.write("x.ron", experiment(""));
    let ids =
        |set: &str| lab.plan(&path, &[set], None).unwrap_or_else(|said| unreachable!("{said}")).trials[0].id.clone();
    let plain = ids("tokenizer_training.batch=3");
    for set in [
        "tokenizer_training.batch=3 // as in the paper",
        "tokenizer_training.batch = /* three */ 3",
        "tokenizer_training.batch=3/* a /* nested */ one */ ",
        "/* batch */ tokenizer_training.batch=3",
        "tokenizer_training=(batch: 3, /* all */) // that",
    ] {
        assert_eq!(ids(set), plain, "{set}");
    }
    let said = lab.complaints(&path, &["tokenizer_training.batch=// three"]);
    assert!(said.contains("gives no value"), "{said}");
    let said = lab.complaints(&path, &["tokenizer_training.batch=3 4 // why"]);
    assert!(said.contains("must be an integer") && said.contains("<command line>"), "{said}");
}

#[test]
fn a_mark_of_byte_order_is_no_part_of_a_text() {
    let lab = Lab::new();
    let marked = lab.write("x.ron", format!("\u{feff}{}", experiment("")));
    assert_eq!(lab.complaints(&marked, &[]), "");
    lab.write("base.ron", format!("\u{feff}{}", experiment("")));
    let based = lab.write("based.ron", "\u{feff}(base: \"base.ron\", quantizer: deep(depht: 2))");
    let said = lab.complaints(&based, &[]);
    assert!(said.contains("has no field `depht`") && said.contains("based.ron:1:36"), "{said}");
}

#[test]
fn brackets_that_are_nested_too_deep_are_told_of() {
    let lab = Lab::new();
    for (open, close) in [("[", "]"), ("(", ")"), ("{ \"a\": ", "}"), ("Some(", ")"), ("rq(of: ", ")")] {
        let value = format!("{}1{}", open.repeat(400), close.repeat(400));
        for more in
            [format!("evaluation: (images: {value})"), format!("quantizer: {value}"), format!("exclude: {value}")]
        {
            let said = lab.complaints(&lab.write("x.ron", experiment(&more)), &[]);
            assert!(said.starts_with("error: ") && said.contains("--> x.ron:"), "{said}");
            assert!(!said.contains("recursion") && !said.contains("serde"), "{said}");
        }
    }
    let deep = format!("quantizer: deep(depth: {}1{})", "[".repeat(400), "]".repeat(400));
    let said = lab.complaints(&lab.write("x.ron", experiment(&deep)), &[]);
    assert!(said.contains("nested too deep") && said.contains("= help: no setting"), "{said}");
}

#[test]
fn errors_come_before_the_warnings_that_may_follow_from_them() {
    let lab = Lab::new();
    let more = "axes: { \"quantizer.depth\": [1, two] }, exclude: [{ \"quantizer.depth\": 2 }]";
    let said = lab.complaints(&lab.write("x.ron", experiment(more)), &[]);
    let (error, warning) = (said.find("error: `depth` of `deep`"), said.find("warning: no combination"));
    assert!(error.is_some() && warning.is_some() && error < warning, "{said}");
}
