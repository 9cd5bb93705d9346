//! Experiments: whatever stands in a file or on the command line is planned or refused, with places that are in the text;
//! and what is written in other words means the same.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use common::{Lab, experiment, properties};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rqlab::experiment::raw::display;
use rqlab::experiment::{Diagnostic, Invalid, read};
use rqlab::plan::Plan;
use std::collections::{BTreeMap, BTreeSet};

/// An experiment on the toys that uses the whole language.
const WHOLE: &str = r#"// A header.
(
    question: "Does \"depth\" help? ü",
    data: grey(size: 16, classes: 2),
    autoencoder: half(width: 8), /* the /* smallest */ */
    quantizer: deep(depth: 4, codebook: 1_024, beta: 2.5e-1),
    prior: guess(width: 8),
    tokenizer_training: (steps: 10),
    evaluation: (images: 4, speed: [1, 2]),
    sweep: [
        grid({ "quantizer.depth": [1, 2], "quantizer.shared": [true, false] }),
        zip({ "quantizer.codebook": [64, 256], "prior.width": [16, 32] }),
        cases({ "small": { "autoencoder.width": 16 }, "r#large": { "autoencoder.width": 32 } }),
    ],
    exclude: [{ "quantizer.depth": 1, "quantizer.shared": false }],
    when: [(at: { "case": "small" }, set: { "prior": None })],
    seeds: [0, 1],
    report: (
        headline: "psnr",
        compare: [(metric: "psnr", along: "quantizer.depth", from: 1, to: 2, at: { "quantizer.shared": true })],
    ),
)
"#;

/// What experiments are made of, and what breaks them.
fn vocabulary() -> Vec<&'static str> {
    const WORDS: &str = r###"( ) [ ] { } , : . = " ' \ r#" "# // /* */ () 0 1 -1 2.5 1e999 99999999999999999999 0x1f 1_0
        question base data autoencoder quantizer prior tokenizer_training evaluation axes sweep exclude when seeds report objective
        headline compare metric along from to at set grid zip cases case grey half deep flat guess depth codebook width
        "quantizer.depth" "psnr" "x.ron" true None Some inf NaN #![enable(implicit_some)] \u{e9}"###;
    let characters = ["\n", "\r\n", " ", "\t", "\0", "\u{feff}", "\u{e9}", "\u{1f600}"];
    WORDS.split_whitespace().chain(characters).collect()
}

/// What may stand between two tokens.
const BETWEEN: &[&str] =
    &["", "", " ", "\n", "\t  ", "\r\n", "// \" ( /*\n", "/* ) \" */", "/* /* nested */ // */ ", "/*ü*/"];

/// Every place of a complaint lies in its text, and the complaint can be shown.
fn check_places(diagnostic: &Diagnostic) {
    for (piece, _) in diagnostic.at.iter().chain(&diagnostic.also) {
        let (text, range) = (&piece.source.text, &piece.range);
        assert!(range.start <= range.end && range.end <= text.len(), "{diagnostic:?}");
        assert!(text.is_char_boundary(range.start) && text.is_char_boundary(range.end), "{diagnostic:?}");
        let (place, before) = (piece.place(), &text[..range.start]);
        assert_eq!(place.line, before.split('\n').count());
        assert_eq!(place.column, before.rsplit('\n').next().unwrap().chars().count() + 1);
    }
    assert!(!diagnostic.message.is_empty());
    assert!(diagnostic.render(false).starts_with("error: ") || diagnostic.render(false).starts_with("warning: "));
    assert!(diagnostic.render(true).len() > diagnostic.message.len());
}

/// Plans an experiment; what is said of it must be sound.
fn check(text: &str, set: &[&str]) -> Option<Plan> {
    let lab = Lab::new();
    let path = lab.write("x.ron", text);
    match lab.plan(&path, set, None) {
        Ok(plan) => {
            plan.warnings.iter().for_each(check_places);
            assert!(!plan.trials.is_empty());
            Some(plan)
        }
        Err(Invalid(complaints)) => {
            assert!(!complaints.is_empty());
            complaints.iter().for_each(check_places);
            None
        }
    }
}

/// The trials by their ids: each one's configuration, and the values of its axes.
fn trials(plan: &Plan) -> BTreeMap<&str, (String, &BTreeMap<String, String>)> {
    plan.trials.iter().map(|trial| (trial.id.as_str(), (trial.config().unwrap(), &*trial.axes))).collect()
}

/// The tokens of a text that has no comments but the header.
fn tokens(text: &str) -> Vec<&str> {
    use rqlab::experiment::source::{token, trivia};
    let (mut tokens, mut at) = (Vec::new(), trivia(text));
    while at < text.len() {
        let length = token(&text[at..]);
        tokens.push(&text[at..at + length]);
        at += length;
        at += trivia(&text[at..]);
    }
    tokens
}

/// Tokens with something between them.
fn joined<T: AsRef<str>>(tokens: &[T], between: &[&str]) -> String {
    let pairs = tokens.iter().zip(between.iter().cycle());
    pairs.map(|(token, between)| format!("{}{between}", token.as_ref())).collect()
}

/// Text with pieces replaced, inserted and taken out.
fn edited(text: &str, edits: &[(Index, usize, &str)]) -> String {
    let mut text = text.to_owned();
    for (at, removed, inserted) in edits {
        let boundaries: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
        let start = at.index(boundaries.len());
        let end = (start + removed).min(boundaries.len() - 1);
        text.replace_range(boundaries[start]..boundaries[end], inserted);
    }
    text
}

fn between() -> impl Strategy<Value = Vec<&'static str>> {
    vec(select(BETWEEN), 1..40)
}

/// A value's tokens, of any kind that experiments have.
fn value() -> impl Strategy<Value = Vec<String>> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("a number", |x| x.is_finite()).prop_map(|x| format!("{x:?}")),
        "[a-z][a-z0-9_]{0,8}",
    ];
    let leaf = leaf.prop_map(|text| vec![text]);
    leaf.prop_recursive(4, 24, 4, |inner| {
        let separated = |open: &str, items: Vec<Vec<String>>, close: &str| {
            let mut tokens = vec![open.to_owned()];
            for item in items {
                tokens.extend(item);
                tokens.push(",".to_owned());
            }
            tokens.push(close.to_owned());
            tokens
        };
        let field =
            ("[a-z]{1,4}", inner.clone()).prop_map(|(name, value)| [vec![name, ":".to_owned()], value].concat());
        prop_oneof![
            vec(inner, 0..4).prop_map(move |items| separated("[", items, "]")),
            ("[a-z]{1,4}", vec(field, 0..4))
                .prop_map(move |(name, fields)| { [vec![name], separated("(", fields, ")")].concat() }),
        ]
    })
}

proptest! {
    #![proptest_config(properties())]

    #[test]
    fn any_text_is_planned_or_refused(text in any::<String>(), lines in "(?s).{0,80}") {
        check(&text, &[]);
        check(&lines, &[]);
        check(&experiment(&lines), &[]);
    }

    #[test]
    fn any_tokens_are_planned_or_refused(tokens in vec(select(vocabulary()), 0..60), between in between()) {
        check(&tokens.concat(), &[]);
        check(&joined(&tokens, &between), &[]);
        check(&experiment(&format!("prior: guess, {}", tokens.concat())), &[]);
    }

    #[test]
    fn an_experiment_with_mistakes_is_planned_or_refused(
        edits in vec((any::<Index>(), 0..4usize, select(vocabulary())), 1..6),
    ) {
        check(&edited(WHOLE, &edits), &[]);
    }

    #[test]
    fn any_argument_is_taken_or_refused(
        argument in any::<String>(),
        path in prop_oneof![
            "(data|autoencoder|quantizer|prior|evaluation|case|seeds|[a-z]{1,9})([.][a-z0-9_.]{0,9})?",
            vec(select(vocabulary()), 0..4).prop_map(|tokens| tokens.concat()),
        ],
        value in vec(select(vocabulary()), 0..8),
    ) {
        check(WHOLE, &[&argument]);
        check(WHOLE, &[&format!("{path}={}", value.concat()), &argument]);
    }

    /// Paths are taken by their words, and are told by them.
    #[test]
    fn a_path_is_what_was_written(path in "(data|quantizer|prior|evaluation|[a-z]{1,9})([.][a-z0-9_.]{0,9})?") {
        let lab = Lab::new();
        let file = lab.write("x.ron", WHOLE);
        match read(&file, &[format!(" {path} = 1")], None) {
            Ok((document, _)) => prop_assert_eq!(document.overrides[0].path.text(), path),
            Err(Invalid(complaints)) => {
                complaints.iter().for_each(check_places);
                prop_assert!(complaints.iter().any(|complaint| complaint.render(false).contains(&path)));
            }
        }
    }

    #[test]
    fn brackets_of_any_depth_are_planned_or_refused(
        open in select(vec!["(", "[", "{", "Some(", "deep(depth:", "{\"a\":", "/*", "r#", "\""]),
        depth in prop_oneof![9 => 1..300usize, 1 => 300..10_000usize],
        closed in any::<bool>(),
    ) {
        let close = if closed { ")".repeat(depth) } else { String::new() };
        let nest = format!("{}1{close}", open.repeat(depth));
        check(&nest, &[]);
        check(&experiment(&format!("quantizer: {nest}")), &[]);
        check(&experiment(&format!("seeds: {nest}, axes: {{ \"quantizer.depth\": [{nest}] }}")), &[]);
        check(WHOLE, &[&format!("quantizer.depth={nest}")]);
    }

    #[test]
    fn comments_and_lines_mean_nothing(between in between()) {
        let plain = check(WHOLE, &[]).unwrap();
        let other = check(&joined(&tokens(WHOLE), &between), &[]).unwrap();
        prop_assert_eq!(trials(&other), trials(&plain));
    }

    #[test]
    fn a_complaint_points_at_the_word(between in between()) {
        let wrong = WHOLE.replace("codebook: 1_024", "codebok: 1_024");
        let lab = Lab::new();
        let path = lab.write("x.ron", joined(&tokens(&wrong), &between));
        let Err(Invalid(complaints)) = lab.plan(&path, &[], None) else { panic!("a field `codebok`") };
        let (piece, _) = complaints[0].at.as_ref().unwrap();
        prop_assert_eq!(piece.text(), "codebok");
    }

    #[test]
    fn a_value_is_shown_in_one_way(tokens in value(), one in between(), other in between()) {

        let shown = display(&joined(&tokens, &one));
        prop_assert_eq!(&display(&joined(&tokens, &other)), &shown);
        prop_assert_eq!(&display(&shown), &shown);
    }

    #[test]
    fn whole_numbers_are_shown_to_the_last_digit(number in any::<u64>()) {

        prop_assert_eq!(display(&number.to_string()), number.to_string());
        prop_assert_eq!(display(&format!("[-{number}]")), format!("[-{number}]"));
    }

    /// A trial's configuration is an experiment of its own, with the same question and the same result.
    #[test]
    fn a_trial_written_out_is_the_same_trial(
        question in any::<String>(),
        depths in btree_set(1..=64usize, 1..4),
        codebooks in btree_set(2..1usize << 30, 1..3),
        beta in prop_oneof![0f32..10.0, any::<f32>().prop_filter("a weight", |x| x.is_finite() && *x >= 0.0)],
        seed in any::<u64>(),
    ) {
        let question = ron::to_string(&question).unwrap();
        let list = |values: &BTreeSet<usize>| format!("{:?}", values.iter().collect::<Vec<_>>());
        let axes = format!("\"quantizer.depth\": {}, \"quantizer.codebook\": {}", list(&depths), list(&codebooks));
        let fields = "prior: guess, quantizer: deep(beta: ";
        let text = format!("question: {question}, {fields}{beta:?}), seeds: [{seed}], axes: {{ {axes} }}");
        let plan = check(&experiment(&text), &[]).unwrap();
        prop_assert_eq!(plan.trials.len(), depths.len() * codebooks.len());
        for trial in &plan.trials {
            let again = check(&trial.config().unwrap(), &[]).unwrap();
            prop_assert!(trials(&again).keys().eq([&trial.id.as_str()]));
            prop_assert_eq!(&again.experiment.question, &plan.experiment.question);
        }
    }
}
