//! A trial written as the experiment file that is this trial alone.

use crate::job::Call;
use crate::plan::Resolved;
use crate::spec::document::Document;
use crate::spec::raw;
use crate::spec::source::{Piece, Source};
use rqlab_sdk::config::Config;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

pub(super) fn of_trial(document: &Document, resolved: &Resolved, seed: u64) -> String {
    let mut text = "(\n".to_owned();
    if !document.question.is_empty() {
        let _ = writeln!(text, "    question: {:?},", document.question);
    }
    let mut component = |slot: &str, call: &Call| {
        let _ = writeln!(text, "    {slot}: {}{},", call.name, lines(&call.config));
    };
    component("data", &resolved.data);
    component("autoencoder", &resolved.autoencoder);
    resolved.quantizers.iter().for_each(|call| component("quantizer", call));
    resolved.priors.iter().for_each(|call| component("prior", call));
    resolved.objectives.iter().for_each(|call| component("objective", call));
    let mut settings = |name: &str, config: Result<String, _>| {
        let config: Result<String, rqlab_sdk::config::ConfigError> = config;
        let _ = writeln!(text, "    {name}: {},", lines(&config.unwrap_or_default()));
    };
    settings("tokenizer_training", resolved.tokenizer_training.resolved());
    if !resolved.priors.is_empty() {
        settings("prior_training", resolved.prior_training.resolved());
    }
    settings("evaluation", resolved.evaluation.resolved());
    let _ = write!(text, "    seeds: [{seed}],\n)\n");
    text
}

/// `(a:1,b:2)` with a line for each field.
fn lines(config: &str) -> String {
    let source = Source { name: String::new(), text: config.to_owned(), dir: PathBuf::new(), is_argument: false };
    match raw::fields(&Piece::whole(&Arc::new(source))) {
        Ok(fields) if !fields.is_empty() => {
            let lines: Vec<String> =
                fields.iter().map(|f| format!("        {}: {},\n", f.key.text(), spaced(f.value.text()))).collect();
            format!("(\n{}    )", lines.concat())
        }
        _ => config.to_owned(),
    }
}

/// A space after each comma and colon outside text.
fn spaced(text: &str) -> String {
    let (mut out, mut at) = (String::new(), 0);
    while at < text.len() {
        let len = crate::spec::source::token(&text[at..]);
        let word = &text[at..at + len];
        out += word;
        if matches!(word, "," | ":") {
            out.push(' ');
        }
        at += len;
    }
    out
}
