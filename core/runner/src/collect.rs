//! From stages to the one value that a report is made of.

use crate::experiment::header::Header;
use crate::job::{Job, Trial};
use crate::jobs::{Outcome, Outcomes};
use crate::plan::{self, NOT_APPLICABLE, Plan};
use crate::provenance::changed_last;
use crate::repeat::Repeat;
use crate::setup;
use crate::stages::{MeasurePrior, MeasureTokenizer, TrainClassifier, TrainPrior};
use crate::store::{Done, Standing, Store};
use rqlab_reports::{
    Axis, Comparison, Environment, Fact, FileNote, Origin, Provenance, Reading, Results, Status, Value,
};
use rqlab_sdk::Error;
use std::collections::BTreeMap;
use std::path::Path;

/// The measure that tells how strongly samples were guided, and all that do.
const GUIDANCE: &str = "guidance";
const GUIDED: [&str; 2] = [GUIDANCE, "tuned_guidance"];
/// Measures of what samples there are.
const SAMPLED: [&str; 2] = ["sample_frechet", "images_per_second"];

/// Lines of a failed trial's log that the report shows.
const LOG_LINES: usize = 20;

/// What is known of a plan's trials.
#[derive(Debug, Clone)]
pub struct Collected {
    /// All of it.
    pub results: Results,
    /// Whether some result that is in the store could not be used: it is damaged, or cannot be read.
    pub unusable: bool,
}

/// Gathers what is known of every trial of a plan, finished or not; of jobs that were just run, by their outcomes.
///
/// A trial that is missing or failed is a result, too; one whose results are damaged or cannot be read counts as failed.
pub fn collect(
    plan: &Plan,
    store: &Store,
    outcomes: &Outcomes,
    provenance: Vec<Provenance>,
    rendered: Environment,
    repeat: &Repeat,
) -> Collected {
    let jobs: BTreeMap<&str, &Job> = plan.jobs.iter().map(|job| (job.id.as_str(), job)).collect();
    let experiment = &plan.experiment;
    let (mut trials, unusable): (Vec<_>, Vec<bool>) =
        plan.trials.iter().map(|trial| gather(plan, trial, &jobs, store, outcomes)).unzip();
    unguided(&mut trials);
    let repeat = repeat.clone().as_computed(trials.iter());
    for trial in &mut trials {
        trial.command = repeat.trial(&trial.id);
    }
    let results = Results {
        name: experiment.name.clone(),
        question: experiment.question.clone(),
        file: file_note(experiment),
        changed: experiment.changed.clone(),
        command: repeat.sweep(),
        folder: std::env::current_dir().ok().map(|folder| folder.display().to_string()),
        created: None,
        provenance,
        rendered: Some(rendered),
        case_paths: experiment.case_paths.clone(),
        axes: experiment
            .axes
            .iter()
            .map(|axis| Axis {
                path: axis.path.clone(),
                label: axis.label.clone(),
                values: in_order(&experiment.axes, axis, &experiment.comparisons),
            })
            .collect(),
        headline: rqlab_reports::quantity(&experiment.headline).ok(),
        judged_also: experiment.judged_also.iter().filter_map(|name| rqlab_reports::quantity(name).ok()).collect(),
        comparisons: experiment.comparisons.iter().map(|asked| comparison(&experiment.axes, asked)).collect(),
        trials,
        definitions: Vec::new(),
    };
    Collected { results, unusable: unusable.contains(&true) }
}

/// Adds a guidance scale of 1 to trials whose samples were not guided, where those of others were: stages tell only what they did.
fn unguided(trials: &mut [rqlab_reports::Trial]) {
    let has = |trial: &rqlab_reports::Trial, measure: &str| trial.readings.iter().any(|one| one.measure == measure);
    if !trials.iter().any(|trial| has(trial, GUIDANCE)) {
        return;
    }
    for trial in trials {
        if SAMPLED.iter().any(|measure| has(trial, measure)) && !GUIDED.iter().any(|measure| has(trial, measure)) {
            trial.readings.push(Reading::new(GUIDANCE, [], 1.0));
        }
    }
}

/// What the experiment's file says of itself; its finding is dated by when the file was last changed, unless it has a date.
fn file_note(experiment: &plan::Experiment) -> FileNote {
    let Header { about, finding, date } = Header::parse(&experiment.header);
    let dated = || changed_last(&experiment.path).map(|day| format!("the file is of {day}"));
    let date = finding.as_ref().and_then(|_| date.or_else(dated));
    FileNote { path: shown(&experiment.path), about, finding, date }
}

fn comparison(axes: &[plan::Axis], asked: &plan::Comparison) -> Comparison {
    Comparison {
        metric: rqlab_reports::quantity(&asked.metric).ok(),
        axis: asked.along.clone(),
        from: value(axes, &asked.along, &asked.from),
        to: value(axes, &asked.along, &asked.to),
        fixed: asked.at.iter().map(|(path, text)| (path.clone(), value(axes, path, text))).collect(),
    }
}

/// The values of an axis, in the order to show: numbers by size; of two others, the one that comparisons start from comes first, so
/// that figures go the way of the verdicts; else as they are written.
fn in_order(axes: &[plan::Axis], axis: &plan::Axis, comparisons: &[plan::Comparison]) -> Vec<Value> {
    let mut values: Vec<Value> = axis.values.iter().map(|text| value(axes, &axis.path, text)).collect();
    if values.iter().all(|value| value.number().is_some()) {
        values.sort_by(Value::order);
        return values;
    }
    let mut along = comparisons.iter().filter(|comparison| comparison.along == axis.path).peekable();
    let backwards = |comparison: &plan::Comparison| Some(&comparison.to) == axis.values.first();
    if values.len() == 2 && along.peek().is_some() && along.all(backwards) {
        values.reverse();
    }
    values
}

/// The digits of an id that are shown.
pub fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// A value of an axis, as the report orders and shows it. What only looks like a number, as the folder `01` does, is text; so is
/// every value of an axis two of whose texts are the same number.
fn value(axes: &[plan::Axis], path: &str, text: &str) -> Value {
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && !padded(text));
    let texts = axes.iter().find(|axis| axis.path == path).map_or(&[][..], |axis| &axis.values);
    let clash = |a: f64| texts.iter().any(|other| other != text && other.parse::<f64>().is_ok_and(|b| a == b));
    match number(text) {
        Some(number) if !clash(number) && texts.iter().all(|other| !padded(other)) => Value::Number(number),
        _ => Value::Text(text.to_owned()),
    }
}

/// Whether a text has digits that no number is written with: `01`, `+1`.
fn padded(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.starts_with('+') || (digits.starts_with('0') && digits[1..].starts_with(|c: char| c.is_ascii_digit()))
}

/// A trial, and whether some result of it that is in the store could not be used.
fn gather(
    plan: &Plan,
    trial: &Trial,
    jobs: &BTreeMap<&str, &Job>,
    store: &Store,
    outcomes: &Outcomes,
) -> (rqlab_reports::Trial, bool) {
    let mut unusable = false;
    let mut out = rqlab_reports::Trial {
        id: short(&trial.id).to_owned(),
        name: plan.experiment.name_of(trial),
        axes: applicable(trial).map(|(path, text)| (path.clone(), value(&plan.experiment.axes, path, text))).collect(),
        seed: Some(trial.seed),
        status: Status::Done,
        // Planning wrote all of it once before.
        config: trial.config().unwrap_or_default(),
        configuration: trial.configuration.to_string(),
        settings: trial.settings().unwrap_or_default(),
        ..Default::default()
    };
    setup::tell(plan, trial, jobs, &mut out);
    let classes = plan.models.get(&trial.id).map_or(&[][..], |model| &model.data.info.classes);
    for job in trial.jobs.iter().filter_map(|id| jobs.get(id.as_str())) {
        out.parts.insert("dataset".to_owned(), job.data_digest.to_string());
        out.parts.insert(job.stage.name().to_owned(), job.id.to_string());
        let dir = store.stage(&job.id);
        let outcome = outcomes.get(&*job.id).and_then(Outcome::error).map(str::to_owned);
        let error = match dir.standing() {
            Ok(Standing::Done(done)) => {
                take(&mut out, job, &done);
                let error = job.stage.report(&dir, classes, &mut out).err();
                unusable |= error.is_some();
                error.map(|error| error.to_string())
            }
            Ok(Standing::Unfinished) => match outcome.or_else(|| dir.failed().map(|failed| failed.error)) {
                Some(error) => Some(error),
                None if out.status == Status::Failed => continue,
                None => {
                    out.status = Status::Missing;
                    continue;
                }
            },
            Ok(Standing::Damaged(damage)) => {
                unusable = true;
                Some(Error::from(damage).to_string())
            }
            Err(error) => {
                unusable = true;
                Some(error.to_string())
            }
        };
        let Some(error) = error else { continue };
        if out.status != Status::Failed {
            out.error = Some(format!("{}: {error}", job.stage.name()));
            out.log_tail = dir.log_tail(LOG_LINES);
        }
        out.status = Status::Failed;
    }
    (out, unusable)
}

/// The axes that mean something to a trial.
fn applicable(trial: &Trial) -> impl Iterator<Item = (&String, &String)> {
    trial.axes.iter().filter(|(_, text)| *text != NOT_APPLICABLE)
}

/// A path as a person would type it from here.
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

/// Adds what a finished stage measured, its curves and its origin.
fn take(out: &mut rqlab_reports::Trial, job: &Job, done: &Done) {
    let stage = job.stage.name();
    let origin = |environment| Origin { stage: stage.to_owned(), environment };
    out.origins.extend(done.environment.clone().map(origin));
    if let Some(again) = &done.remeasured {
        out.origins.push(Origin { stage: rqlab_reports::SPEED.to_owned(), environment: again.environment.clone() });
        let day = again.when.split('T').next().unwrap_or_default();
        out.setup.push(Fact::new("speeds", format!("timed again on {day}")));
    }
    // The classifier belongs to the data set: its curves and costs are no trial's.
    if job.stage.is::<TrainClassifier>().is_some() {
        out.readings.extend(done.readings.iter().cloned());
        return;
    }
    if stage == TrainPrior::PROBE || stage == MeasurePrior::PROBE {
        probed(out, done);
        return;
    }
    for reading in done.readings.iter().chain(&done.timings).filter(|reading| reading.value.is_finite()) {
        let together = match reading.measure.as_str() {
            "peak_memory_mib" => {
                fold(out, &reading.measure, reading.value, f64::max);
                continue;
            }
            "tokenizer_parameters" | "prior_parameters" => Some("parameters"),
            "tokenizer_seconds" | "prior_seconds" => Some("train_seconds"),
            _ => None,
        };
        if let Some(sum) = together {
            fold(out, sum, reading.value, |a, b| a + b);
        }
        out.readings.push(reading.clone());
    }
    let measures = job.stage.is::<MeasureTokenizer>().is_some() || job.stage.is::<MeasurePrior>().is_some();
    if measures {
        fold(out, "evaluation_seconds", done.seconds, |a, b| a + b);
    }
    out.curves.extend(done.curves.iter().cloned());
}

/// Joins a value to what earlier stages left of a measure.
fn fold(out: &mut rqlab_reports::Trial, name: &str, value: f64, join: impl Fn(f64, f64) -> f64) {
    match out.readings.iter_mut().find(|reading| reading.measure == name && reading.at.is_empty()) {
        Some(reading) => reading.value = join(reading.value, value),
        None => out.readings.push(Reading::new(name, [], value)),
    }
}

/// Adds what the lab's probe of a tokenizer showed, under names of its own: it is not the experiment's prior.
fn probed(out: &mut rqlab_reports::Trial, done: &Done) {
    for (measure, name) in [("prior_bits_per_image", "probe_bits_per_image"), ("sample_frechet", "probe_frechet")] {
        let found = done.readings.iter().find(|reading| reading.measure == measure && reading.at.is_empty());
        out.readings.extend(found.map(|reading| Reading::new(name, [], reading.value)));
    }
    let of_probe = |curve: &rqlab_reports::Curve| rqlab_reports::Curve { stage: "probe".to_owned(), ..curve.clone() };
    out.curves.extend(done.curves.iter().map(of_probe));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_looks_like_a_number_is_text() {
        let axis = |path: &str, values: &[&str]| plan::Axis {
            path: path.to_owned(),
            label: String::new(),
            values: values.iter().map(|&text| text.to_owned()).collect(),
        };
        let axes = [
            axis("data.path", &["1", "01"]),
            axis("a", &["1", "2e-3"]),
            axis("b", &["1", "1.0"]),
            axis("c", &["1", "+1"]),
        ];
        assert_eq!(
            [value(&axes, "data.path", "1"), value(&axes, "data.path", "01")],
            [Value::from("1"), Value::from("01")]
        );
        assert_eq!([value(&axes, "a", "1"), value(&axes, "a", "2e-3")], [Value::Number(1.0), Value::Number(0.002)]);
        assert_eq!([value(&axes, "b", "1"), value(&axes, "b", "1.0")], [Value::from("1"), Value::from("1.0")]);
        assert_eq!(value(&axes, "c", "1"), Value::from("1"));
        assert_eq!(value(&axes, "elsewhere", "0.5"), Value::Number(0.5));
    }

    #[test]
    fn values_stand_by_size_or_the_way_of_the_verdicts() {
        let axis = |values: &[&str]| plan::Axis {
            path: "x".to_owned(),
            label: "x".to_owned(),
            values: values.iter().map(|&value| value.to_owned()).collect(),
        };
        let along = |from: &str, to: &str| plan::Comparison {
            metric: "psnr".to_owned(),
            along: "x".to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            at: BTreeMap::new(),
        };
        let shown = |values: &[&str], comparisons: &[plan::Comparison]| {
            let axis = axis(values);
            in_order(std::slice::from_ref(&axis), &axis, comparisons)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(&["32", "128", "4096", "64"], &[]), ["32", "64", "128", "4096"]);
        assert_eq!(shown(&["true", "false"], &[]), ["true", "false"]);
        assert_eq!(shown(&["true", "false"], &[along("false", "true")]), ["false", "true"]);
        assert_eq!(shown(&["true", "false"], &[along("false", "true"), along("true", "false")]), ["true", "false"]);
        assert_eq!(shown(&["b", "a", "c"], &[along("a", "b")]), ["b", "a", "c"]);
    }

    #[test]
    fn where_some_samples_are_guided_the_others_are_told_not_to_be() {
        let trial = |readings: &[(&str, f64)]| rqlab_reports::Trial {
            readings: readings.iter().map(|(measure, value)| Reading::new(*measure, [], *value)).collect(),
            ..Default::default()
        };
        let scales = |mut trials: Vec<rqlab_reports::Trial>| {
            unguided(&mut trials);
            let scale = |trial: &rqlab_reports::Trial| {
                trial.readings.iter().find(|one| one.measure == GUIDANCE).map(|one| one.value)
            };
            trials.iter().map(scale).collect::<Vec<_>>()
        };
        let (plain, guided) = ([("sample_frechet", 7.0)], [("sample_frechet", 6.0), (GUIDANCE, 2.0)]);
        let (tuned, missing) = ([("sample_frechet", 5.0), ("tuned_guidance", 1.0)], []);
        assert_eq!(scales(vec![trial(&plain), trial(&guided)]), [Some(1.0), Some(2.0)]);
        assert_eq!(scales(vec![trial(&tuned), trial(&guided), trial(&missing)]), [None, Some(2.0), None]);
        assert_eq!(scales(vec![trial(&plain), trial(&plain)]), [None, None]);
    }
}
