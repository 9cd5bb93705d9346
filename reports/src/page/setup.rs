//! The setup at the head of the page: what all trials have in common, and by which axis the rest differs.

use maud::{Markup, html};

use super::parts::with_code;
use crate::format;
use crate::measure::{Quantity, TEST_IMAGES};
use crate::results::Trial;
use crate::study::{Configuration, Study, named};
use crate::warnings::listed;

/// A line of the table: what it is about, and what is so.
struct Row {
    name: String,
    text: Vec<String>,
}

/// The table; nothing if no trial says what it was set to.
pub(super) fn setup(study: &Study<'_>) -> Markup {
    let mut rows: Vec<Row> = names(study).into_iter().map(|name| fact(study, name)).collect();
    if rows.is_empty() {
        return html! {};
    }
    rows.push(Row { name: "seeds".to_owned(), text: vec![seeds(study)] });
    rows.extend(accuracy(study));
    rows.extend(test_images(study));
    rows.extend(precision(study));
    rows.extend(left_out(study));
    html! {
        section.setup aria-labelledby="h-setup" {
            h2 #h-setup { "Setup" }
            div.scroll {
                table.setup {
                    tbody {
                        @for row in &rows {
                            tr { th scope="row" { (row.name) } td { @for line in &row.text { div { (with_code(line)) } } } }
                        }
                    }
                }
            }
        }
    }
}

/// The names of all facts, in the order of the trials.
fn names<'a>(study: &'a Study<'_>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for fact in study.results.trials.iter().flat_map(|trial| &trial.setup) {
        if !names.contains(&fact.name.as_str()) {
            names.push(&fact.name);
        }
    }
    names
}

/// A fact: once where all agree, else by the axis that decides it, else by configuration.
fn fact(study: &Study<'_>, name: &str) -> Row {
    let text = |configuration: &Configuration<'_>| {
        let facts = configuration.trials.iter().flat_map(|trial| &trial.setup);
        facts.filter(|fact| fact.name == name).map(|fact| fact.text.clone()).next()
    };
    let texts: Vec<Option<String>> = study.configurations.iter().map(text).collect();
    let mut distinct: Vec<&Option<String>> = Vec::new();
    for text in &texts {
        if !distinct.contains(&text) {
            distinct.push(text);
        }
    }
    let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    if let [one] = distinct[..] {
        return Row { name: name.to_owned(), text: vec![shown(one)] };
    }
    // What some have and others do not, such as a prior.
    let mut told = distinct.iter().filter_map(|text| text.as_deref());
    if let (Some(one), None) = (told.next(), told.next()) {
        let with = study.configurations.iter().zip(&texts).filter(|(_, text)| text.is_some());
        let with: Vec<String> = with.map(|(configuration, _)| configuration.label.clone()).collect();
        let all = study.configurations.len();
        let text = format!("{one} (in {} of {all} configurations: {})", with.len(), listed(&with));
        return Row { name: name.to_owned(), text: vec![text] };
    }
    // The axis of which each value goes with one text.
    let decides = |axis: &&usize| {
        let pairs = || study.configurations.iter().map(|c| c.key[**axis]).zip(&texts);
        pairs().all(|(value, text)| pairs().all(|(other, another)| value != other || text == another))
    };
    let axis = study.varied.iter().find(decides);
    let who = |text: &Option<String>| {
        let with = || study.configurations.iter().zip(&texts).filter(|(_, other)| *other == text).map(|(c, _)| c);
        let mut names: Vec<String> = Vec::new();
        for configuration in with() {
            let name = match axis {
                Some(&axis) => match configuration.key[axis] {
                    Some(value) => named(&study.results.axes[axis], value),
                    None => format!("without {}", study.results.axes[axis].title()),
                },
                None => configuration.label.clone(),
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        listed(&names)
    };
    Row {
        name: name.to_owned(),
        text: distinct.into_iter().map(|text| format!("{}: {}", who(text), shown(text))).collect(),
    }
}

/// `0, 1, 2`; where configurations differ, how many each has.
fn seeds(study: &Study<'_>) -> String {
    let of = |configuration: &Configuration<'_>| -> Vec<u64> {
        configuration.trials.iter().filter_map(|trial| trial.seed).collect()
    };
    let mut all: Vec<u64> = study.configurations.iter().flat_map(of).collect();
    all.sort_unstable();
    all.dedup();
    let words: Vec<String> = all.iter().map(u64::to_string).collect();
    let each = study.configurations.iter().all(|configuration| of(configuration).len() == all.len());
    format!(
        "{}{}",
        words.join(", "),
        if each || all.is_empty() { "" } else { ", not all of them in each configuration" }
    )
}

/// How far the features can be trusted that distances are taken on.
fn accuracy(study: &Study<'_>) -> Option<Row> {
    let of = Quantity::plain("classifier_accuracy");
    let mut found: Vec<f64> = study.results.done().filter_map(|trial| trial.value(&of)).collect();
    found.sort_by(f64::total_cmp);
    found.dedup();
    let (low, high) = (*found.first()?, *found.last()?);
    let percent = |share: f64| format!("{}%", format::significant(100.0 * share, 3));
    let text = match found.len() {
        1 => format!("right on {} of the test images", percent(low)),
        several => format!("{several} of them, right on {} to {} of their test images", percent(low), percent(high)),
    };
    Some(Row { name: "feature classifier".to_owned(), text: vec![text] })
}

/// By what the measured test images are known again: where it is the same, measures compare image by image.
fn test_images(study: &Study<'_>) -> Option<Row> {
    let mut digests: Vec<&str> =
        study.results.done().filter_map(|trial| trial.parts.get(TEST_IMAGES)).map(String::as_str).collect();
    digests.sort_unstable();
    digests.dedup();
    let shown: Vec<&str> = digests.into_iter().map(format::digest).collect();
    (!shown.is_empty()).then(|| Row { name: "digest of the test images".to_owned(), text: vec![shown.join(", ")] })
}

/// How products were computed.
fn precision(study: &Study<'_>) -> Option<Row> {
    let origins = study.results.done().flat_map(|trial| &trial.origins);
    let mut found: Vec<&str> =
        origins.map(|origin| origin.environment.precision.as_str()).filter(|text| !text.is_empty()).collect();
    found.sort_unstable();
    found.dedup();
    (!found.is_empty()).then(|| Row { name: "numbers multiplied in".to_owned(), text: vec![found.join(", ")] })
}

/// What no trial could measure, with the reason and how many trials lack it.
fn left_out(study: &Study<'_>) -> Option<Row> {
    let mut found: Vec<(&str, &str, usize)> = Vec::new();
    for left in study.results.trials.iter().flat_map(|trial: &Trial| &trial.left_out) {
        match found.iter_mut().find(|(measures, reason, _)| (*measures, *reason) == (&left.measures, &left.reason)) {
            Some((_, _, count)) => *count += 1,
            None => found.push((&left.measures, &left.reason, 1)),
        }
    }
    let all = study.results.trials.len();
    let line = |(measures, reason, count): &(&str, &str, usize)| match *count {
        count if count == all => format!("{measures}: {reason}"),
        count => format!("{measures}, in {count} of {all} trials: {reason}"),
    };
    (!found.is_empty()).then(|| Row { name: "left out".to_owned(), text: found.iter().map(line).collect() })
}
