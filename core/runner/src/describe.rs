//! What may be written in an experiment, in words: components and settings from the structs that parse them.

mod sections;

use crate::experiment::{Slot, raw};
use crate::plan::catalog::of_settings;
use crate::plugins::{Plugins, Provided, short_path};
use crate::ui::Ui;
use rqlab_reports::{COMMON, Pins, Protocol};
use rqlab_sdk::config::{Description, FieldDoc, Mark, ValueKind};
pub use sections::{SECTIONS, Section};

/// The name that protocols are told under.
pub const PROTOCOLS: &str = "protocols";

/// All there is to know about a component.
pub fn component(provided: &Provided, ui: Ui) -> String {
    let component = &provided.component;
    let kind = component.build.kind();
    let description = (component.describe)();
    let mut out = vec![format!("{}  {}", ui.strong(component.name), ui.faint(kind.name()))];
    out.extend(fields(&description, ui));
    out.push(String::new());
    out.push(ui.strong("In an experiment"));
    out.push(format!("  {}: {},", Slot::of(kind), example(component.name, &description.fields)));
    out.push(String::new());
    out.push(ui.faint(&format!("from {} ({})", provided.origin.plugin, short_path(&provided.origin.path))));
    out.join("\n")
}

/// All there is to know about a slot: its settings, or the components that it takes.
pub fn slot(slot: Slot, plugins: &Plugins, ui: Ui) -> String {
    let Some(kind) = slot.kind() else {
        let description = of_settings(slot).unwrap_or_else(|| Description { doc: String::new(), fields: vec![] });
        let mut out = vec![format!("{}  {}", ui.strong(slot.name()), ui.faint("settings"))];
        out.extend(fields(&description, ui));
        out.push(String::new());
        out.push(ui.strong("In an experiment"));
        out.push(format!("  {slot}: {},", example("", &description.fields)));
        return out.join("\n");
    };
    let takes = match (slot, slot.takes_list()) {
        (Slot::Objective, _) => "one objective, or a list of them: their weighted losses are added".to_owned(),
        (_, true) => format!("one {kind} for all levels of the autoencoder, or a list with one per level"),
        _ => format!("one {kind}"),
    };
    let mut out = vec![format!("{}  {takes}", ui.strong(slot.name()))];
    out.extend(slot.default().map(|default| format!("  default {default}")));
    if slot == Slot::Prior {
        out.push("  default None: no prior is trained".to_owned());
    }
    out.push(String::new());
    out.push(ui.strong("Components"));
    let all = plugins.provided();
    let of_kind: Vec<_> = all.iter().filter(|provided| provided.component.build.kind() == kind).collect();
    let width = of_kind.iter().map(|provided| provided.component.name.len()).max().unwrap_or(0);
    for provided in &of_kind {
        let name = format!("{:width$}", provided.component.name);
        out.push(format!("  {}  {}", ui.strong(&name), summary(&(provided.component.describe)().doc)));
    }
    if of_kind.is_empty() {
        out.push("  none; `rqlab plugins list` says where plugins are looked for".to_owned());
    }
    out.push(String::new());
    out.push(ui.faint("`rqlab describe NAME` tells the fields of one"));
    out.join("\n")
}

/// What there is to describe: the fields of an experiment file, and the components by the slots that take them.
pub fn overview(plugins: &Plugins, ui: Ui) -> String {
    let of_kind = |slot: Slot| {
        let all = plugins.provided().into_iter();
        let names = all.filter(|provided| Some(provided.component.build.kind()) == slot.kind());
        names.map(|provided| provided.component.name).collect::<Vec<_>>().join(", ")
    };
    let mut lines: Vec<(&str, String)> = Vec::new();
    for slot in Slot::ALL {
        lines.push((slot.name(), if slot.kind().is_some() { of_kind(slot) } else { "settings".to_owned() }));
    }
    lines.extend(SECTIONS.iter().map(|section| (section.name, section.summary.to_owned())));
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = vec![ui.strong("The fields of an experiment file, and the components that they take")];
    out.extend(lines.iter().map(|(name, text)| format!("  {}  {text}", ui.strong(&format!("{name:width$}")))));
    out.push(String::new());
    out.push(format!("{}  what each protocol of the evaluation pins", ui.strong(PROTOCOLS)));
    out.push(String::new());
    out.push(ui.faint("`rqlab describe NAME` tells of a field or a component"));
    out.join("\n")
}

/// What each protocol of the evaluation pins, and what none does.
pub fn protocols(ui: Ui) -> String {
    let mut out = vec![format!("{}  {}", ui.strong(PROTOCOLS), ui.faint("evaluation.protocols"))];
    let published = Protocol::ALL.map(|protocol| (protocol.name(), protocol.pins()));
    for (name, pins) in std::iter::once(("lab", Pins::LAB)).chain(published) {
        out.push(String::new());
        out.push(ui.strong(name));
        out.extend(pins.aspects().map(|(aspect, text)| format!("  {aspect}: {text}")));
    }
    out.push(String::new());
    out.push(ui.strong("All of them"));
    out.extend(COMMON.map(|line| format!("  {line}")));
    out.join("\n")
}

/// What it is, and every field with its kind, range, default, mark and meaning.
fn fields(description: &Description, ui: Ui) -> Vec<String> {
    let mut out = vec![indent(&description.doc, "  "), String::new(), ui.strong("Fields")];
    for field in &description.fields {
        out.push(format!("  {}: {}", ui.strong(field.name), value(field)));
        out.push(indent(&field.doc, "      "));
        out.extend(field.mark.map(|mark| format!("      ({}: {})", mark.name(), mark.meaning())));
    }
    if description.fields.is_empty() {
        out.push("  none".to_owned());
    }
    out
}

/// `integer in 1..=64, default 4`.
fn value(field: &FieldDoc) -> String {
    let mut text = match field.kind.holds() {
        Some(kind) if matches!(field.kind.required(), ValueKind::List(_)) => format!("list of {kind}s"),
        Some(kind) => kind.to_string(),
        None => field.kind.to_string(),
    };
    if field.kind.holds().is_some() && field.kind.is_optional() {
        text += " | None";
    }
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
    let (required, others): (Vec<_>, Vec<_>) = fields.iter().partition(|field| field.default.is_none());
    let count = required.len();
    let required = required.into_iter().map(|field| format!("{}: {}", field.name, placeholder(&field.kind)));
    let others = others.into_iter().filter(|field| field.mark != Some(Mark::Local)).filter_map(|field| {
        let default = field.default.as_deref().filter(|default| *default != "None")?;
        Some(format!("{}: {}", field.name, spaced(default)))
    });
    let shown: Vec<String> = required.chain(others).take(SHOWN.max(count)).collect();
    if shown.is_empty() && !name.is_empty() { name.to_owned() } else { format!("{name}({})", shown.join(", ")) }
}

fn placeholder(kind: &ValueKind) -> String {
    match kind {
        ValueKind::Integer => "1".to_owned(),
        ValueKind::Number => "1.0".to_owned(),
        ValueKind::Bool => "true".to_owned(),
        ValueKind::Text => "\"..\"".to_owned(),
        ValueKind::Choice(words) => words.first().copied().unwrap_or_default().to_owned(),
        ValueKind::Call(_) => "name(..)".to_owned(),
        ValueKind::Optional(_) => "None".to_owned(),
        ValueKind::List(inner) => format!("[{}]", placeholder(inner)),
        ValueKind::Either(kinds) => kinds.first().map(placeholder).unwrap_or_default(),
        ValueKind::Tuple(items) => format!("({})", items.iter().map(placeholder).collect::<Vec<_>>().join(", ")),
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
