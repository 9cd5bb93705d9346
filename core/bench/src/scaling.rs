//! How cost grows with sizes: each curve varies one of them.

use crate::compare::{digits, markdown};
use crate::workloads::{ar_base, rq_base, rq_small, tokenizer_small};
use crate::{Children, Family, Machine, PriorSizes, Row, Sampling, TokenizerSizes, Workload};
use rqlab::ui::counted;
use rqlab_reports::{Line, Panel};
use rqlab_sdk::files::write_atomically;
use rqlab_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Study {
    /// On what.
    pub machine: Machine,
    /// Charts.
    pub charts: Vec<Chart>,
}

/// Curves over one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// The picture that it is part of.
    pub figure: String,
    /// What it shows.
    pub title: String,
    /// The size that varies.
    pub x: String,
    /// What is read from the measurements.
    pub quantity: Quantity,
    /// Curves.
    pub curves: Vec<Curve>,
}

/// What a chart shows of its measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quantity {
    /// Milliseconds per call.
    Call,
    /// Milliseconds per unit: per image, per vector.
    Unit,
    /// The most memory, in MiB.
    Memory,
}

/// Measurements that differ in one size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// Its name.
    pub name: String,
    /// The size, and what was measured.
    pub points: Vec<(usize, Row)>,
}

/// Curves to be measured.
struct ChartPlan {
    figure: &'static str,
    title: &'static str,
    x: &'static str,
    quantity: Quantity,
    curves: Vec<CurvePlan>,
}

/// A curve to be measured.
#[derive(Clone)]
struct CurvePlan {
    name: String,
    threads: usize,
    /// The workload at each size.
    sizes: Vec<(usize, Workload)>,
}

/// A curve over sizes.
fn curve(name: &str, threads: usize, sizes: &[usize], workload: impl Fn(usize) -> Workload) -> CurvePlan {
    CurvePlan { name: name.to_owned(), threads, sizes: sizes.iter().map(|&size| (size, workload(size))).collect() }
}

/// The same workload with one thread and with all.
fn with_threads(threads: usize, sizes: &[usize], workload: impl Fn(usize) -> Workload) -> Vec<CurvePlan> {
    let one = curve("1 thread", 1, sizes, &workload);
    if threads == 1 { vec![one] } else { vec![one, curve(&format!("{threads} threads"), threads, sizes, &workload)] }
}

/// All charts. The models are those of the workloads; where curves would take long, the small ones.
fn plan(threads: usize) -> Vec<ChartPlan> {
    [training(threads), encoding(threads), sampling(threads), sweeping(threads)].into_iter().flatten().collect()
}

fn training(threads: usize) -> Vec<ChartPlan> {
    let tokenizer =
        |width, batch| Workload::TokenizerStep { tokenizer: TokenizerSizes { width, ..tokenizer_small() }, batch };
    let rq = |side, depth| Workload::PriorStep { prior: PriorSizes { side, depth, ..rq_small() }, batch: 8 };
    let ar = |side, depth| Workload::PriorStep { prior: flat(PriorSizes { side, depth, ..rq_small() }, 6), batch: 8 };
    let side = |positions: usize| positions.isqrt();
    let (batches, positions, depths) = ([4, 16, 64], [16, 64, 256], [1, 2, 4, 8]);
    let by_batch = with_threads(threads, &batches, |batch| tokenizer(32, batch));
    let by_positions = vec![
        curve("RQ-Transformer, D 4", threads, &positions, |t| rq(side(t), 4)),
        curve("AR over the same 4 T codes", threads, &positions, |t| ar(side(t), 4)),
    ];
    let plan = |title, x, quantity, curves| ChartPlan { figure: "training", title, x, quantity, curves };
    vec![
        plan("Tokenizer step, by batch", "images a step", Quantity::Call, by_batch.clone()),
        plan(
            "Tokenizer step of 16 images, by width",
            "channels of the finest level",
            Quantity::Call,
            with_threads(threads, &[16, 32, 64], |width| tokenizer(width, 16)),
        ),
        plan("Prior step of 8 maps, by positions", "positions T", Quantity::Call, by_positions.clone()),
        plan(
            "Prior step of 8 maps of 8x8, by depth",
            "depth D",
            Quantity::Call,
            vec![
                curve("RQ-Transformer", threads, &depths, |depth| rq(8, depth)),
                curve("AR over the same 64 D codes", threads, &depths, |depth| ar(8, depth)),
            ],
        ),
        plan("Memory of a tokenizer step", "images a step", Quantity::Memory, by_batch[..1].to_vec()),
        plan("Memory of a prior step", "positions T", Quantity::Memory, by_positions),
    ]
}

fn encoding(threads: usize) -> Vec<ChartPlan> {
    let encode = |vectors, codebook, depth| Workload::Encode { vectors, channels: 64, codebook, depth };
    let (vectors, codebooks) = ([1024, 4096, 16384, 65536], [256, 1024, 4096, 16384]);
    let by_vectors = with_threads(threads, &vectors, |n| encode(n, 1024, 4));
    let by_codebook = with_threads(threads, &codebooks, |k| encode(16384, k, 4));
    let plan = |title, x, quantity, curves| ChartPlan { figure: "encoding", title, x, quantity, curves };
    vec![
        plan("Residual codes, by vectors (K 1024, D 4)", "vectors N", Quantity::Call, by_vectors.clone()),
        plan("By codebook (N 16384, D 4)", "codes K", Quantity::Call, by_codebook.clone()),
        plan(
            "By depth (N 16384, K 1024)",
            "depth D",
            Quantity::Call,
            with_threads(threads, &[1, 2, 4, 8, 16], |depth| encode(16384, 1024, depth)),
        ),
        plan("Memory, by vectors (K 1024, D 4)", "vectors N", Quantity::Memory, by_vectors[..1].to_vec()),
        plan("Memory, by codebook (N 16384, D 4)", "codes K", Quantity::Memory, by_codebook[..1].to_vec()),
    ]
}

fn sampling(threads: usize) -> Vec<ChartPlan> {
    let sample = |prior: PriorSizes, batch, cache| Workload::Sample { prior, batch, cache };
    let rq = |side| PriorSizes { side, ..rq_base() };
    let ar = |side| flat(rq(side), 8);
    let (batches, sides) = ([1, 4, 16, 64], [2, 4, 8]);
    let positions: Vec<usize> = sides.iter().map(|side| side * side).collect();
    let by_positions = |name: &str, model: &dyn Fn(usize) -> PriorSizes, cache| {
        curve(name, threads, &positions, |positions| sample(model(positions.isqrt()), 1, cache))
    };
    let on_threads = |name: &str, threads, model: &dyn Fn(usize) -> PriorSizes| {
        curve(name, threads, &batches[..3], |batch| sample(model(8), batch, true))
    };
    let by_batch = vec![
        curve("RQ-Transformer, 8x8x4", threads, &batches, |batch| sample(rq(8), batch, true)),
        curve("AR, 8x8x4 flattened", threads, &batches, |batch| sample(ar(8), batch, true)),
        curve("AR, 16x16", threads, &batches, |batch| sample(ar_base(), batch, true)),
    ];
    let by_threads = [("RQ-Transformer", &rq as &dyn Fn(usize) -> PriorSizes), ("AR", &ar)]
        .into_iter()
        .flat_map(|(name, model)| {
            let counts = if threads == 1 { vec![1] } else { vec![1, threads] };
            counts.into_iter().map(move |threads| (name, threads, model))
        })
        .map(|(name, threads, model)| on_threads(&format!("{name}, {}", counted(threads, "thread")), threads, model))
        .collect();
    let plan = |title, x, quantity, curves| ChartPlan { figure: "sampling", title, x, quantity, curves };
    vec![
        plan("An image's codes, by batch", "images at a time", Quantity::Unit, by_batch.clone()),
        plan(
            "With and without cache, one image",
            "positions T, 4 codes each",
            Quantity::Unit,
            vec![
                by_positions("RQ-Transformer", &rq, true),
                by_positions("RQ-Transformer without cache", &rq, false),
                by_positions("AR", &ar, true),
                by_positions("AR without cache", &ar, false),
            ],
        ),
        plan("Threads", "images at a time", Quantity::Unit, by_threads),
        plan("Memory", "images at a time", Quantity::Memory, by_batch),
    ]
}

fn sweeping(threads: usize) -> Vec<ChartPlan> {
    let by_trials = |name, apart| curve(name, threads, &[1, 2, 4], |trials| Workload::Sweep { trials, apart });
    vec![ChartPlan {
        figure: "sweeps",
        title: "Trials that share a tokenizer",
        x: "trials",
        quantity: Quantity::Call,
        curves: vec![by_trials("one sweep", false), by_trials("a run each", true)],
    }]
}

/// The flat transformer of as many blocks over the same codes.
fn flat(prior: PriorSizes, layers: usize) -> PriorSizes {
    PriorSizes { family: Family::Ar { layers }, ..prior }
}

/// Measures all charts on this machine; equal workloads are measured once. `say` hears of each point.
///
/// # Errors
/// A process that fails, and those of `say`.
pub fn run<E: From<Error>>(
    children: &Children,
    machine: Machine,
    mut say: impl FnMut(String) -> Result<(), E>,
) -> Result<Study, E> {
    let mut known: Vec<(Workload, usize, Row)> = Vec::new();
    let mut charts = Vec::new();
    for plan in plan(machine.threads) {
        let mut curves = Vec::new();
        for CurvePlan { name, threads, sizes } in plan.curves {
            let mut points = Vec::new();
            for (size, workload) in sizes {
                let row = match known.iter().find(|(other, with, _)| *other == workload && *with == threads) {
                    Some((_, _, row)) => row.clone(),
                    None => {
                        let sampling = match workload {
                            Workload::Sweep { .. } => Sampling::once(),
                            _ => Sampling::brief(),
                        };
                        let row = children.measure(&name, &workload, sampling, threads)?;
                        known.push((workload, threads, row.clone()));
                        row
                    }
                };
                let ms = digits(row.median_ms);
                // Unknown of workloads that other processes do.
                let memory = if row.peak_rss_mib > 0.0 { digits(row.peak_rss_mib) + " MiB" } else { String::new() };
                say(format!("{:44} {name:30} {size:>6}  {ms:>8} ms  {memory:>10}", plan.title))?;
                points.push((size, row));
            }
            curves.push(Curve { name, points });
        }
        let (figure, title, x) = (plan.figure.to_owned(), plan.title.to_owned(), plan.x.to_owned());
        charts.push(Chart { figure, title, x, quantity: plan.quantity, curves });
    }
    Ok(Study { machine, charts })
}

impl Quantity {
    fn label(self) -> &'static str {
        match self {
            Self::Call => "ms a call",
            Self::Unit => "ms an image",
            Self::Memory => "peak memory, MiB",
        }
    }

    fn of(self, row: &Row) -> f64 {
        match self {
            Self::Call => row.median_ms,
            Self::Unit => row.ms_per_unit,
            Self::Memory => row.peak_rss_mib,
        }
    }
}

/// The pictures, by name, in the order of their charts.
fn figures(study: &Study) -> Vec<&str> {
    let mut names: Vec<&str> = study.charts.iter().map(|chart| chart.figure.as_str()).collect();
    names.dedup();
    names
}

/// Draws each picture into `folder`, as `NAME.svg`; returns the files.
///
/// # Errors
/// A folder that cannot be written.
pub fn draw(study: &Study, folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
    let mut written = Vec::new();
    for name in figures(study) {
        let charts = study.charts.iter().filter(|chart| chart.figure == name);
        let panels: Vec<Panel> = charts.map(panel).collect();
        let svg = rqlab_reports::figure(&panels).map_err(|e| Error::Data(e.to_string()))?;
        let path = folder.join(name).with_extension("svg");
        write_atomically(&path, |file| file.write_all(svg.as_bytes()))?;
        written.push(path);
    }
    Ok(written)
}

fn panel(chart: &Chart) -> Panel {
    let line = |curve: &Curve| Line {
        name: curve.name.clone(),
        points: curve.points.iter().map(|(size, row)| (*size as f64, chart.quantity.of(row))).collect(),
    };
    Panel {
        title: chart.title.clone(),
        x: chart.x.clone(),
        y: chart.quantity.label().to_owned(),
        lines: chart.curves.iter().map(line).collect(),
    }
}

/// The numbers of all charts as markdown. Where the curves of a chart are of the same sizes, each after the first also
/// says how many times the first it is.
pub fn tables(study: &Study) -> String {
    let mut text = format!("{}\n", study.machine.sentence());
    for name in figures(study) {
        let title = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
        text.push_str(&format!("\n### {title}\n\n![How cost grows: {name}](performance/{name}.svg)\n"));
        text.push_str("\n<details><summary>Numbers</summary>\n");
        for chart in study.charts.iter().filter(|chart| chart.figure == name) {
            text.push_str(&format!("\n{}; {}\n\n{}", chart.title, chart.quantity.label(), chart_table(chart)));
        }
        text.push_str("\n</details>\n");
    }
    text
}

fn chart_table(chart: &Chart) -> String {
    let mut columns = vec![chart.x.as_str()];
    columns.extend(chart.curves.iter().map(|curve| curve.name.as_str()));
    let Some(first) = chart.curves.first() else { return String::new() };
    let row = |index: usize| {
        let base = chart.quantity.of(&first.points[index].1);
        let mut cells = vec![first.points[index].0.to_string()];
        for (place, curve) in chart.curves.iter().enumerate() {
            cells.push(match curve.points.get(index).map(|(_, row)| chart.quantity.of(row)) {
                None => String::new(),
                Some(value) if place == 0 => digits(value),
                Some(value) => format!("{} ({:.2} x)", digits(value), value / base),
            });
        }
        cells
    };
    markdown(&columns, &(0..first.points.len()).map(row).collect::<Vec<_>>())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn study() -> Study {
        let row = |ms: f64| Row { median_ms: ms, ms_per_unit: ms, peak_rss_mib: 10.0 * ms, ..Row::default() };
        let measured = |plan: ChartPlan| {
            let curves = plan.curves.into_iter().map(|CurvePlan { name, threads, sizes }| {
                let points = sizes.into_iter().map(|(size, _)| (size, row((size * threads) as f64)));
                Curve { name, points: points.collect() }
            });
            Chart {
                figure: plan.figure.to_owned(),
                title: plan.title.to_owned(),
                x: plan.x.to_owned(),
                quantity: plan.quantity,
                curves: curves.collect(),
            }
        };
        Study { machine: Machine::default(), charts: plan(2).into_iter().map(measured).collect() }
    }

    #[test]
    fn every_size_is_named_and_varies() {
        for plan in plan(2) {
            for CurvePlan { name, threads, sizes } in &plan.curves {
                assert!(sizes.len() > 1 && *threads <= 2, "{name}");
                assert!(sizes.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1), "{name}");
            }
        }
        assert!(plan(1).iter().flat_map(|plan| &plan.curves).all(|curve| curve.threads == 1));
    }

    #[test]
    fn charts_become_pictures_and_tables() {
        let folder = tempfile::tempdir().unwrap();
        let files = draw(&study(), &folder.path().join("new")).unwrap();
        let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["training.svg", "encoding.svg", "sampling.svg", "sweeps.svg"]);
        let text = tables(&study());
        assert!(text.contains("| images a step | 1 thread | 2 threads |"), "{text}");
        assert!(text.contains("| 16 | 16.0 | 32.0 (2.00 x) |"), "{text}");
    }
}
