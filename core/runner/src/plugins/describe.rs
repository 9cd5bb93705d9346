//! A component in words: from the struct that parses its configuration.

use crate::plugins::{Provided, short_path};
use crate::spec::component::Slot;
use crate::spec::raw;
use crate::ui::Ui;
use rqlab_sdk::config::FieldDoc;

/// All there is to know about a component, for the terminal.
pub fn describe(provided: &Provided, ui: Ui) -> String {
    let component = &provided.component;
    let kind = component.build.kind();
    let description = (component.describe)();
    let mut out = vec![
        format!("{}  {}", ui.strong(component.name), ui.faint(kind.name())),
        indent(&description.doc, "  "),
        String::new(),
        ui.strong("Fields"),
    ];
    for field in &description.fields {
        out.push(format!("  {}: {}", ui.strong(field.name), value(field)));
        out.push(indent(&field.doc, "      "));
    }
    if description.fields.is_empty() {
        out.push("  none".to_owned());
    }
    let slot = Slot::ALL.into_iter().find(|slot| slot.kind() == Some(kind)).map_or("", Slot::name);
    out.push(String::new());
    out.push(ui.strong("In an experiment"));
    out.push(format!("  {slot}: {},", example(component.name, &description.fields)));
    out.push(String::new());
    out.push(ui.faint(&format!("from {} ({})", provided.origin.plugin, short_path(&provided.origin.path))));
    out.join("\n")
}

/// `integer in 1..=64, default 4`.
fn value(field: &FieldDoc) -> String {
    let mut text = field.kind.clone();
    if let Some(range) = field.range {
        text += &format!(" in {range}");
    }
    match &field.default {
        Some(default) => format!("{text}, default {}", spaced(default)),
        None => format!("{text}, required"),
    }
}

/// A call that works: the required fields, and the first few others at their defaults.
fn example(name: &str, fields: &[FieldDoc]) -> String {
    const SHOWN: usize = 3;
    let required = fields.iter().filter(|field| field.default.is_none());
    let others = fields.iter().filter(|field| field.default.as_deref().is_some_and(|default| default != "None"));
    let shown: Vec<String> = required
        .map(|field| format!("{}: {}", field.name, placeholder(&field.kind)))
        .chain(others.map(|field| format!("{}: {}", field.name, spaced(field.default.as_deref().unwrap_or_default()))))
        .take(SHOWN.max(fields.iter().filter(|f| f.default.is_none()).count()))
        .collect();
    if shown.is_empty() { name.to_owned() } else { format!("{name}({})", shown.join(", ")) }
}

fn placeholder(kind: &str) -> String {
    match kind {
        "integer" => "1".to_owned(),
        "number" => "1.0".to_owned(),
        "true | false" => "true".to_owned(),
        "text" => "\"..\"".to_owned(),
        choice => choice.split(" | ").next().unwrap_or_default().to_owned(),
    }
}

/// A default as one would write it; text keeps its quotes.
fn spaced(default: &str) -> String {
    if default.starts_with('"') { default.to_owned() } else { raw::display(default) }
}

fn indent(text: &str, by: &str) -> String {
    text.lines().map(|line| format!("{by}{line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// What a doc comment says first, short enough for a list.
pub fn summary(doc: &str) -> String {
    const LONGEST: usize = 90;
    let line = doc.split("\n\n").next().unwrap_or_default().lines().collect::<Vec<_>>().join(" ");
    let end = [". ", ": ", "; ", " (", ", "].map(|mark| match mark {
        // A comma ends what would be too long otherwise.
        ", " if line.len() <= LONGEST => None,
        _ => line.find(mark),
    });
    let end = end.into_iter().flatten().min().unwrap_or(line.len());
    line[..end].trim_end_matches('.').to_owned()
}
