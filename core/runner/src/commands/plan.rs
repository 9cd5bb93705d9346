//! `rqlab plan`: what would run.

use crate::cli::{ExperimentArgs, Global};
use crate::commands::{Failure, Outcome, open_to_plan, plan_json};
use crate::experiment::Diagnostic;
use crate::experiment::diagnostic::Severity;
use crate::plan::estimate::{Forecast, History};
use crate::plan::{Axis, DataSet, Model, Plan, augmentation, codebooks, disk, memory};
use crate::ranks::Ranks;
use crate::ui::{Ui, duration, thousands};
use comfy_table::{CellAlignment, Table, presets};
use rqlab_sdk::contracts::{LevelInfo, TokenSpace};
use std::collections::HashMap;
use std::path::Path;

pub(super) fn run(
    global: &Global,
    arguments: &ExperimentArgs,
    configs: bool,
    json: bool,
    ui: Ui,
) -> Result<Outcome, Failure> {
    let ranks = Ranks::asked(global.ranks)?;
    let (_plugins, plan) = open_to_plan(global, arguments, ui)?;
    ranks.divide(&plan.jobs)?;
    super::mention_another_format(&arguments.runs, ui);
    for absent in &plan.absent {
        let help =
            "a plan needs no more than what the experiment says of it; to run it, have it there, or set its path";
        ui.diagnostic(&Diagnostic { severity: Severity::Warning, ..absent.clone() }.help(help));
    }
    let history = History::read(&arguments.runs);
    for job in &plan.jobs {
        if let Some(found) = history.unusable(job) {
            ui.diagnostic(&Diagnostic::warning(format!("{}: {found}", job.stage.name())));
        }
    }
    if json {
        ui.line(plan_json::text(&plan, &history, &arguments.runs, ranks.count)?)?;
        return Ok(Outcome::Done);
    }
    let text = overview(&plan, &history, &arguments.runs, ranks.count, ui);
    ui.line(text)?;
    if configs {
        for trial in &plan.trials {
            ui.line(format!("\n// trial {}\n{}", &trial.id[..8], trial.config()?.trim_end()))?;
        }
    }
    Ok(Outcome::Done)
}

/// The plan as the user sees it, where so many ranks train together.
fn overview(plan: &Plan, history: &History, runs: &Path, ranks: usize, ui: Ui) -> String {
    let experiment = &plan.experiment;
    let mut parts = vec![format!("{}  {}", ui.strong(&experiment.name), experiment.question)];
    parts.extend(plan.data().into_iter().map(|data| data_set(data, ui)));
    parts.push(trials(plan, history, ui));
    let forecast = history.forecast(plan);
    parts.push(jobs(plan, history, &forecast, ui));
    parts.extend(augmentation::of_priors(plan));
    parts.extend(codebooks::of_trials(plan));
    parts.extend(memory::of_trials(plan, ranks));
    parts.extend(disk::sentence(disk::needed(plan, |job| history.is_done(job)), runs));
    parts.extend(plan.left_out.iter().cloned());
    parts.push(time(plan, history, &forecast, ui));
    parts.join("\n\n")
}

/// What a data set holds, and how it is used.
fn data_set(data: &DataSet, ui: Ui) -> String {
    let facts = data.facts().into_iter().map(|(what, fact)| format!("  {what}: {fact}"));
    let title = format!("{}: {}", ui.strong(&data.name), data.headline());
    std::iter::once(title).chain(facts).collect::<Vec<_>>().join("\n")
}

/// The most combinations that have a row each.
const LISTED: usize = 200;

/// A combination's values, its seeds, its model, and how many jobs it has, and how many of them are done.
type Row<'a> = (Vec<String>, Vec<u64>, &'a Model, usize, usize);

/// One row a combination: what differs, and what it costs.
fn trials(plan: &Plan, history: &History, ui: Ui) -> String {
    let axes: Vec<&Axis> = plan.experiment.axes.iter().filter(|axis| axis.values.len() > 1).collect();
    let with_prior = plan.models.values().any(|model| model.prior.is_some());
    let mut head: Vec<String> = axes.iter().map(|axis| axis.label.clone()).collect();
    head.extend(["seeds", "codes", "bits/image", "autoencoder", "quantizer"].map(str::to_owned));
    let with_buffers = plan.models.values().any(|model| model.buffers > 0);
    if with_buffers {
        head.push("buffers".to_owned());
    }
    if with_prior {
        head.push("prior".to_owned());
    }
    head.push("done".to_owned());
    let mut rows: Vec<Row<'_>> = Vec::new();
    let mut places: HashMap<Vec<String>, usize> = HashMap::new();
    for trial in &plan.trials {
        let Some(model) = plan.models.get(&trial.id) else { continue };
        let values: Vec<String> =
            axes.iter().map(|axis| trial.axes.get(&axis.path).cloned().unwrap_or_default()).collect();
        let done = trial.jobs.iter().filter(|id| plan.job(id).is_some_and(|job| history.is_done(job))).count();
        let total = trial.jobs.len();
        match places.get(&values).and_then(|&place| rows.get_mut(place)) {
            Some((_, seeds, _, all, all_done)) => {
                seeds.push(trial.seed);
                *all += total;
                *all_done += done;
            }
            None => {
                places.insert(values.clone(), rows.len());
                rows.push((values, vec![trial.seed], model, total, done));
            }
        }
    }
    let combinations = rows.len();
    let mut lines = Vec::new();
    for (values, seeds, model, total, done) in rows.into_iter().take(LISTED) {
        let mut row = values;
        row.push(listed(&seeds));
        row.push(tokens(model));
        row.push(model.nominal_bits().map_or("–".to_owned(), |bits| thousands(bits.round() as usize)));
        row.push(thousands(model.autoencoder));
        row.push(thousands(model.quantizer));
        if with_buffers {
            row.push(thousands(model.buffers));
        }
        if with_prior {
            row.push(model.prior.map_or("none".to_owned(), thousands));
        }
        row.push(format!("{done}/{total}"));
        lines.push(row);
    }
    let seeds = plan.experiment.seeds.len();
    let count = plan.trials.len();
    let title = format!(
        "{}: {}, {}",
        ui.strong(&plural(count, "trial")),
        plural(combinations, "combination"),
        plural(seeds, "seed")
    );
    let fixed: Vec<String> = plan
        .experiment
        .axes
        .iter()
        .filter(|axis| axis.values.len() == 1)
        .map(|axis| format!("{} = {}", axis.path, axis.values[0]))
        .collect();
    let fixed = if fixed.is_empty() { String::new() } else { format!("\nfixed: {}", fixed.join(", ")) };
    let more = match combinations.saturating_sub(LISTED) {
        0 => String::new(),
        more => format!("\n  and {}", plural(more, "more combination")),
    };
    format!("{title}{fixed}\n{}{more}", table(&head, lines, axes.len() + 2))
}

/// One row a stage: how many jobs there are, how many are done.
fn jobs(plan: &Plan, history: &History, forecast: &Forecast<'_>, ui: Ui) -> String {
    let mut lines = Vec::new();
    for name in crate::stages::names() {
        let of_stage: Vec<_> = plan.jobs.iter().filter(|job| job.stage.name() == name).collect();
        if of_stage.is_empty() {
            continue;
        }
        let cached = of_stage.iter().filter(|job| history.is_done(job)).count();
        let estimate = forecast.estimate(of_stage.iter().copied());
        let left = of_stage.len() - cached;
        let time = match (left, estimate.unknown) {
            (0, _) => String::new(),
            (_, 0) => duration(estimate.seconds),
            (left, unknown) if left == unknown => "unknown".to_owned(),
            _ => format!("more than {}", duration(estimate.seconds)),
        };
        lines.push(vec![name.to_owned(), of_stage.len().to_string(), cached.to_string(), left.to_string(), time]);
    }
    let head = ["stage", "jobs", "cached", "to do", "time"].map(str::to_owned);
    format!("{}, shared between trials\n{}", ui.strong(&plural(plan.jobs.len(), "job")), table(&head, lines, 1))
}

/// The sentence that says how long it takes.
fn time(plan: &Plan, history: &History, forecast: &Forecast<'_>, ui: Ui) -> String {
    let left = plan.jobs.iter().filter(|job| !history.is_done(job)).count();
    let estimate = forecast.estimate(&plan.jobs);
    if left == 0 {
        return format!("{}: the report can be written at once.", ui.strong("Nothing to do"));
    }
    let cached = plan.jobs.len() - left;
    let done = if cached == 0 { String::new() } else { format!(" ({cached} done already)") };
    let time = match estimate.unknown {
        0 => format!("about {} of work, one job at a time", duration(estimate.seconds)),
        unknown if unknown == left => "time unknown: nothing like it was run here before".to_owned(),
        unknown => {
            format!("about {} of work, and {} of unknown length", duration(estimate.seconds), plural(unknown, "job"))
        }
    };
    format!("{}{done}: {time}.", ui.strong(&format!("{} to do", plural(left, "job"))))
}

/// `8x8x4 of 1024`: positions by depth, and the sizes of the codebooks; `16x16 vectors of 8` without codes.
fn tokens(model: &Model) -> String {
    let level = |level: &LevelInfo| {
        let map = format!("{}x{}", level.height, level.width);
        match &level.space {
            TokenSpace::Vectors { channels } => format!("{map} vectors of {channels}"),
            TokenSpace::Codes(codes) => {
                let mut sizes: Vec<String> = codes.sizes.iter().map(usize::to_string).collect();
                sizes.dedup();
                format!("{map}x{} of {}", codes.depth(), sizes.join("/"))
            }
        }
    };
    model.levels.iter().map(level).collect::<Vec<_>>().join(" + ")
}

/// Seeds as one writes them; of many that follow each other the first and the last.
fn listed(seeds: &[u64]) -> String {
    const MANY: usize = 5;
    match seeds {
        [first, .., last]
            if seeds.len() > MANY && seeds.windows(2).all(|pair| pair[1].checked_sub(pair[0]) == Some(1)) =>
        {
            format!("{first} to {last}")
        }
        seeds if seeds.len() > 2 * MANY => format!("{} of them", thousands(seeds.len())),
        seeds => seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(","),
    }
}

fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{} {what}s", thousands(count)) }
}

/// Rows of text under a head; all columns but the first `left` are aligned to the right.
fn table(head: &[String], rows: Vec<Vec<String>>, left: usize) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if index == 0 { 2 } else { 0 }, 2));
        if index >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.to_string();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
