//! What a person sees while jobs run: bars with the time left on a terminal, a line a job elsewhere, or nothing.

use super::{Outcome, Step};
use crate::job::{Job, Stage};
use crate::ui::counted;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::Instant;

/// How far the jobs of a sweep are.
pub struct Progress {
    bars: MultiProgress,
    overall: ProgressBar,
    running: BTreeMap<String, Running>,
    lines: bool,
    done: usize,
    jobs: usize,
}

struct Running {
    bar: ProgressBar,
    weight: u64,
    counted: u64,
    since: Instant,
}

impl Progress {
    /// Bars on a terminal, lines elsewhere, nothing if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if quiet || !terminal { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        Self {
            bars: MultiProgress::with_draw_target(target),
            overall: ProgressBar::hidden(),
            running: BTreeMap::new(),
            lines: !quiet && !terminal,
            done: 0,
            jobs: 0,
        }
    }

    pub(super) fn start(&mut self, all: &[Job], waiting: &[&Job]) {
        self.jobs = waiting.len();
        let cached = all.len() - waiting.len();
        if waiting.is_empty() {
            return;
        }
        let total = waiting.iter().map(|job| weight(job)).sum();
        self.overall = self.bars.add(ProgressBar::new(total));
        self.overall.set_style(style("{prefix:14} {wide_bar} {percent:>3}%  {elapsed_precise}  about {eta} left"));
        self.overall.set_prefix(counted(self.jobs, "job"));
        self.overall.enable_steady_tick(std::time::Duration::from_secs(1));
        if self.lines && cached > 0 {
            self.say(&format!("{cached} of {} jobs were done before", all.len()));
        }
    }

    pub(super) fn begin(&mut self, job: &Job) {
        let bar = self.bars.add(ProgressBar::new(1));
        bar.set_style(style("  {prefix:12.dim} {bar:30} {pos:>6}/{len:6} {msg:.dim}"));
        bar.set_prefix(job.stage.name());
        self.running.insert(job.id.clone(), Running { bar, weight: weight(job), counted: 0, since: Instant::now() });
    }

    pub(super) fn step(&mut self, id: &str, step: &Step) {
        if let Some(running) = self.running.get_mut(id) {
            running.bar.set_length(step.total);
            running.bar.set_position(step.done);
            running.bar.set_message(step.note.clone());
            let counted = running.weight * step.done.min(step.total) / step.total.max(1);
            self.overall.inc(counted.saturating_sub(running.counted));
            running.counted = running.counted.max(counted);
        }
    }

    pub(super) fn end(&mut self, job: &Job, outcome: &Outcome) {
        let Some(running) = self.running.remove(&job.id) else { return };
        running.bar.finish_and_clear();
        self.overall.inc(running.weight.saturating_sub(running.counted));
        self.done += 1;
        let short = job.id.get(..8).unwrap_or(&job.id);
        let name = job.stage.name();
        match outcome {
            Outcome::Failed(error) => {
                let line = format!("failed  {name} {short}: {error}");
                if self.lines {
                    self.say(&line)
                } else {
                    let _ = self.bars.println(line);
                }
            }
            _ if self.lines => {
                self.say(&format!(
                    "{}/{} {name} {short} {:.1} s",
                    self.done,
                    self.jobs,
                    running.since.elapsed().as_secs_f64()
                ));
            }
            _ => {}
        }
    }

    pub(super) fn finish(&mut self) {
        for running in std::mem::take(&mut self.running).into_values() {
            running.bar.finish_and_clear();
        }
        self.overall.finish_and_clear();
    }

    #[allow(clippy::print_stderr, reason = "this is where the runner speaks")]
    fn say(&self, line: &str) {
        eprintln!("{line}");
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
}

/// Rough relative cost of a job, for the overall bar alone.
fn weight(job: &Job) -> u64 {
    match &job.stage {
        Stage::Tokenizer { training, .. } => training.steps.max(1) * training.batch as u64,
        Stage::Prior { training, .. } => training.steps.max(1) * training.batch as u64,
        Stage::Classifier { steps, .. } => steps * 16,
        Stage::Reconstruction { evaluation, .. } => evaluation.images as u64,
        Stage::Generation { evaluation, .. } => 8 * evaluation.samples as u64,
        Stage::Codes { images, .. } => images.unwrap_or(4096) as u64,
    }
}
