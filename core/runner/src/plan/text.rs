//! A trial written as the experiment file that is this trial alone.

use crate::experiment::Slot;
use crate::experiment::raw;
use crate::experiment::source::{Piece, Source};
use crate::job::{Call, Trial};
use crate::plan::components::Resolved;
use rqlab_sdk::Result;
use rqlab_sdk::config::Config;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

impl Trial {
    /// The experiment file that plans this trial and no other, with all defaults written out.
    ///
    /// # Errors
    /// A value that cannot be written as text.
    pub fn config(&self) -> Result<String> {
        of_trial(&self.resolved, self.seed)
    }

    /// Every resolved setting by its path, such as `quantizer.depth`; `quantizer` itself is the component's name. Of a list
    /// with several components the paths count from 1: `quantizer[2].depth`.
    ///
    /// # Errors
    /// A value that cannot be written as text.
    pub fn settings(&self) -> Result<BTreeMap<String, String>> {
        settings(&self.resolved)
    }
}

fn of_trial(resolved: &Resolved, seed: u64) -> Result<String> {
    let mut text = "(\n".to_owned();
    if !resolved.question.is_empty() {
        let _ = writeln!(text, "    question: {:?},", resolved.question);
    }
    let mut slot = |slot: Slot, calls: &[Call]| {
        let _ = match calls {
            [] => Ok(()),
            [one] => writeln!(text, "    {slot}: {}{},", one.name, lines(&one.config, 4)),
            calls => {
                let item = |call: &Call| format!("        {}{},\n", call.name, lines(&call.config, 8));
                writeln!(text, "    {slot}: [\n{}    ],", calls.iter().map(item).collect::<String>())
            }
        };
    };
    slot(Slot::Data, std::slice::from_ref(&resolved.data));
    slot(Slot::Autoencoder, std::slice::from_ref(&resolved.autoencoder));
    slot(Slot::Quantizer, &resolved.quantizers);
    slot(Slot::Prior, &resolved.priors);
    slot(Slot::Objective, &resolved.objectives);
    let mut settings = |slot: Slot, config: String| {
        let _ = writeln!(text, "    {slot}: {},", lines(&config, 4));
    };
    settings(Slot::TokenizerTraining, resolved.tokenizer_training.resolved()?);
    if !resolved.priors.is_empty() {
        settings(Slot::PriorTraining, resolved.prior_training.resolved()?);
    }
    settings(Slot::Evaluation, resolved.evaluation.all.resolved()?);
    let _ = write!(text, "    seeds: [{seed}],\n)\n");
    Ok(text)
}

fn settings(resolved: &Resolved) -> Result<BTreeMap<String, String>> {
    let mut settings = BTreeMap::new();
    let mut add = |path: &str, config: &str| {
        let source = Source { name: String::new(), text: config.to_owned(), dir: PathBuf::new(), is_argument: false };
        for field in raw::fields(&Piece::whole(&Arc::new(source))).unwrap_or_default() {
            settings.insert(format!("{path}.{}", field.key.text()), spaced(field.value.text()));
        }
    };
    add("tokenizer_training", &resolved.tokenizer_training.resolved()?);
    if !resolved.priors.is_empty() {
        add("prior_training", &resolved.prior_training.resolved()?);
    }
    add("evaluation", &resolved.evaluation.all.resolved()?);
    let slots = [
        (Slot::Data, std::slice::from_ref(&resolved.data)),
        (Slot::Autoencoder, std::slice::from_ref(&resolved.autoencoder)),
        (Slot::Quantizer, &resolved.quantizers[..]),
        (Slot::Prior, &resolved.priors),
        (Slot::Objective, &resolved.objectives),
    ];
    let path = |slot: Slot, place: usize, calls: &[Call]| match calls {
        [_] => slot.to_string(),
        _ => format!("{slot}[{}]", place + 1),
    };
    for (slot, calls) in slots {
        for (place, call) in calls.iter().enumerate() {
            add(&path(slot, place, calls), &call.config);
        }
    }
    for (slot, calls) in slots {
        for (place, call) in calls.iter().enumerate() {
            settings.insert(path(slot, place, calls), call.name.clone());
        }
    }
    Ok(settings)
}

/// `(a:1,b:2)` with a line for each field, behind a name that stands `margin` columns in.
fn lines(config: &str, margin: usize) -> String {
    let source = Source { name: String::new(), text: config.to_owned(), dir: PathBuf::new(), is_argument: false };
    match raw::fields(&Piece::whole(&Arc::new(source))) {
        Ok(fields) if !fields.is_empty() => {
            let lines: Vec<String> = fields
                .iter()
                .map(|f| format!("{:margin$}    {}: {},\n", "", f.key.text(), spaced(f.value.text())))
                .collect();
            format!("(\n{}{:margin$})", lines.concat(), "")
        }
        _ => config.to_owned(),
    }
}

/// A space after each comma and colon outside text.
fn spaced(text: &str) -> String {
    let (mut out, mut at) = (String::new(), 0);
    while at < text.len() {
        let len = crate::experiment::source::token(&text[at..]);
        let word = &text[at..at + len];
        out += word;
        if matches!(word, "," | ":") {
            out.push(' ');
        }
        at += len;
    }
    out
}
