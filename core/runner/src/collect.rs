//! From stages to the one value that a report is made of.

use crate::job::{Job, Stage, Trial};
use crate::plan::{self, NOT_APPLICABLE, Plan};
use crate::store::{Done, Store};
use rqlab_reports::{
    Axis, CodeMap, Comparison, Curve, Example, Image, Index, Provenance, Quantity, Reading, Results, Sample, Status,
    Value,
};
use rqlab_sdk::Result;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::tensor::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

/// Lines of a failed trial's log that the report shows.
const LOG_LINES: usize = 20;

/// Gathers what is known of every trial of a plan, finished or not.
///
/// A trial that is missing or failed is a result, too; one whose pictures are damaged counts as failed.
pub fn collect(plan: &Plan, store: &Store, provenance: Vec<Provenance>) -> Results {
    let jobs: BTreeMap<&str, &Job> = plan.jobs.iter().map(|job| (job.id.as_str(), job)).collect();
    let experiment = &plan.experiment;
    let trials = plan.trials.iter().map(|trial| gather(plan, trial, &jobs, store)).collect();
    Results {
        name: experiment.name.clone(),
        question: experiment.question.clone(),
        description: experiment.header.clone(),
        command: command_line("sweep", plan, None),
        created: None,
        provenance,
        rendered: None,
        axes: experiment
            .axes
            .iter()
            .map(|axis| Axis {
                path: axis.path.clone(),
                label: String::new(),
                values: axis.values.iter().map(|text| value(text)).collect(),
            })
            .collect(),
        headline: rqlab_reports::quantity(&experiment.headline).ok(),
        comparisons: experiment.comparisons.iter().map(comparison).collect(),
        trials,
        definitions: Vec::new(),
    }
}

/// The command that does the whole experiment, or one of its trials, again.
fn command_line(command: &str, plan: &Plan, trial: Option<&Trial>) -> String {
    let mut line = format!("rqlab {command} {}", shown(&plan.experiment.path));
    for set in &plan.experiment.overrides {
        line.push_str(&format!(" --set '{set}'"));
    }
    if let Some(trial) = trial {
        line.push_str(&format!(" --trial {}", short(&trial.id)));
    }
    line
}

fn comparison(asked: &plan::Comparison) -> Comparison {
    Comparison {
        metric: rqlab_reports::quantity(&asked.metric).ok(),
        axis: asked.along.clone(),
        from: value(&asked.from),
        to: value(&asked.to),
        fixed: asked.at.iter().map(|(path, text)| (path.clone(), value(text))).collect(),
    }
}

/// The digits of an id that are shown.
pub fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// A value of an axis, as the report orders and shows it.
pub fn value(text: &str) -> Value {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Value::Number(number),
        _ => Value::Text(text.to_owned()),
    }
}

fn gather(plan: &Plan, trial: &Trial, jobs: &BTreeMap<&str, &Job>, store: &Store) -> rqlab_reports::Trial {
    let mut out = rqlab_reports::Trial {
        id: short(&trial.id).to_owned(),
        name: name(trial),
        axes: applicable(trial).map(|(path, text)| (path.clone(), value(text))).collect(),
        seed: Some(trial.seed),
        status: Status::Done,
        command: command_line("run", plan, Some(trial)),
        config: trial.config.clone(),
        ..Default::default()
    };
    let classes = plan.models.get(&trial.id).map_or(&[][..], |model| &model.classes);
    for job in trial.jobs.iter().filter_map(|id| jobs.get(id.as_str())) {
        out.parts.insert("dataset".to_owned(), job.data_digest.clone());
        out.parts.insert(job.stage.name().to_owned(), job.id.clone());
        let dir = store.stage(&job.id);
        if let Some(done) = dir.done() {
            take_measures(&mut out, job, &done);
            if let Err(error) = take_pictures(&mut out, job, store, classes) {
                out.error.get_or_insert(format!("{}: {error}", job.stage.name()));
                out.status = Status::Failed;
            }
        } else if let Some(failed) = dir.failed() {
            if out.status != Status::Failed {
                out.error = Some(format!("{}: {}", job.stage.name(), failed.error));
                out.log_tail = dir.log_tail(LOG_LINES);
            }
            out.status = Status::Failed;
        } else if out.status == Status::Done {
            out.status = Status::Missing;
        }
    }
    out
}

/// The axes that mean something to a trial.
fn applicable(trial: &Trial) -> impl Iterator<Item = (&String, &String)> {
    trial.axes.iter().filter(|(_, text)| *text != NOT_APPLICABLE)
}

/// What a trial is, by its axes: `depth=4 codebook=256`.
pub fn name(trial: &Trial) -> String {
    applicable(trial).map(|(path, text)| format!("{}={text}", leaf(path))).collect::<Vec<_>>().join(" ")
}

/// A path as a person would type it from here.
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

/// The last part of an axis' path.
fn leaf(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

fn take_measures(out: &mut rqlab_reports::Trial, job: &Job, done: &Done) {
    // The classifier belongs to the data set: its curves and costs are no trial's.
    if let Stage::Classifier { .. } = job.stage {
        if let Some(accuracy) = done.measures.get("classifier_accuracy") {
            out.readings.push(reading("classifier_accuracy", *accuracy));
        }
        return;
    }
    let finite = |values: &BTreeMap<String, f64>| -> Vec<(String, f64)> {
        values.iter().filter(|(_, v)| v.is_finite()).map(|(name, v)| (name.clone(), *v)).collect()
    };
    for (name, value) in finite(&done.measures).into_iter().chain(finite(&done.timings)) {
        let together = match name.as_str() {
            "peak_memory_mib" => {
                fold(out, &name, value, f64::max);
                continue;
            }
            "tokenizer_parameters" | "prior_parameters" => Some("parameters"),
            "tokenizer_seconds" | "prior_seconds" => Some("train_seconds"),
            _ => None,
        };
        if let Some(sum) = together {
            fold(out, sum, value, |a, b| a + b);
        }
        out.readings.push(reading(&name, value));
    }
    if matches!(job.stage, Stage::Reconstruction { .. } | Stage::Generation { .. }) {
        fold(out, "evaluation_seconds", done.seconds, |a, b| a + b);
    }
    out.curves.extend(done.curves.iter().map(|(name, curve)| {
        let Quantity { measure, at } = spelled(name);
        let (stage, steps, values) = (job.stage.name().to_owned(), curve.steps.clone(), curve.values.clone());
        Curve { stage, measure, at, steps, values }
    }));
}

/// Joins a value to what earlier stages left of a measure.
fn fold(out: &mut rqlab_reports::Trial, name: &str, value: f64, join: impl Fn(f64, f64) -> f64) {
    match out.readings.iter_mut().find(|reading| reading.measure == name) {
        Some(reading) => reading.value = join(reading.value, value),
        None => out.readings.push(reading(name, value)),
    }
}

fn reading(name: &str, value: f64) -> Reading {
    let Quantity { measure, at } = spelled(name);
    Reading { measure, at, value }
}

/// The quantity that a stage's plain name stands for.
fn spelled(name: &str) -> Quantity {
    let numbered = || {
        let (measure, depth) = name.rsplit_once('_')?;
        Some(Quantity::new(measure, [Index::Depth(depth.parse().ok()?)]))
    };
    rqlab_reports::quantity(name).ok().or_else(numbered).unwrap_or_else(|| Quantity::plain(name))
}

/// A class by its name; numbers, which data sets without names use, get a word before them.
fn class(classes: &[String], index: u32) -> String {
    match classes.get(index as usize) {
        Some(name) if name.parse::<f64>().is_err() => name.clone(),
        _ => format!("class {index}"),
    }
}

fn take_pictures(out: &mut rqlab_reports::Trial, job: &Job, store: &Store, classes: &[String]) -> Result<()> {
    match &job.stage {
        Stage::Reconstruction { .. } => {
            let kept = Checkpoint::load(&store.stage(&job.id).result())?;
            let Some(originals) = kept.tensors.get("originals") else { return Ok(()) };
            let depths: Vec<&Tensor> = (1..).map_while(|d| kept.tensors.get(&format!("reconstructions_{d}"))).collect();
            let labels = kept.codes.get("labels");
            for n in 0..originals.shape()[0] {
                let label = labels.and_then(|labels| labels.as_slice().get(n));
                let of = label.map_or(String::new(), |&label| format!(", {}", class(classes, label)));
                out.examples.push(Example {
                    label: format!("test {n}{of}"),
                    original: image(originals, n)?,
                    reconstructions: depths.iter().map(|images| image(images, n)).collect::<Result<_>>()?,
                    codes: kept
                        .codes
                        .get("codes")
                        .into_iter()
                        .map(|codes| {
                            let [_, height, width, depth] = codes.shape() else { return CodeMap::default() };
                            let size = height * width * depth;
                            let codes = codes.as_slice()[n * size..(n + 1) * size].to_vec();
                            CodeMap { height: *height, width: *width, depth: *depth, codes }
                        })
                        .collect(),
                });
            }
        }
        Stage::Generation { .. } => {
            let kept = Checkpoint::load(&store.stage(&job.id).result())?;
            let Some(samples) = kept.tensors.get("samples") else { return Ok(()) };
            let labels = kept.codes.get("labels").map(|l| l.as_slice().to_vec()).unwrap_or_default();
            for n in 0..samples.shape()[0] {
                let label = labels.get(n).map_or(String::new(), |&label| class(classes, label));
                out.samples.push(Sample { label, image: image(samples, n)? });
            }
        }
        _ => {}
    }
    Ok(())
}

/// Image `n` of a batch `[N, H, W, C]` in [-1, 1], as 8-bit RGB (grey is spread over the channels).
fn image(batch: &Tensor, n: usize) -> Result<Image> {
    let [_, height, width, channels] = batch.dims::<4>("picture")?;
    let size = height * width * channels;
    let pixels = &batch.as_slice()[n * size..(n + 1) * size];
    let byte = |x: f32| ((x.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8;
    let rgb = pixels
        .chunks(channels.max(1))
        .flat_map(|pixel| [0, 1, 2].map(|c| byte(pixel[if channels >= 3 { c } else { 0 }])))
        .collect();
    Image::new(width as u32, height as u32, rgb).map_err(|e| rqlab_sdk::Error::Data(format!("picture: {e}")))
}
