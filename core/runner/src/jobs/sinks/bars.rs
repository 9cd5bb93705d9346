//! Bars on a terminal: one for all jobs with the time left, and one per running job.

use super::{Event, Owners, Sink, failed, waits, warned};
use crate::id::Id;
use crate::job::Job;
use crate::jobs::{Outcome, Progress, weight};
use crate::ui::{counted, visible};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::time::Duration;

/// Bars on standard error.
pub struct Bars {
    bars: MultiProgress,
    overall: ProgressBar,
    running: BTreeMap<Id, Running>,
    owners: Owners,
}

struct Running {
    bar: ProgressBar,
    weight: u64,
    counted: u64,
}

impl Bars {
    /// Bars that say whose each job is.
    pub fn of(owners: Owners) -> Self {
        Self {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            overall: ProgressBar::hidden(),
            running: BTreeMap::new(),
            owners,
        }
    }
}

impl Sink for Bars {
    fn event(&mut self, event: &Event<'_>) {
        match *event {
            Event::Planned { waiting, .. } if !waiting.is_empty() => self.plan(waiting),
            Event::Started { job, .. } => self.start(job),
            Event::Progress { job, progress } => self.progress(job, progress),
            Event::Warned { job, warning } => self.say(&warned(job, warning, &self.owners)),
            Event::Waiting { others } => self.say(&waits(others)),
            Event::Interrupted { job, .. } => {
                let lacking = self.clear(job);
                self.overall.dec(weight(job) - lacking);
            }
            Event::Ended { job, outcome, .. } => self.end(job, outcome),
            Event::Finished { .. } => self.finish(),
            Event::Planned { .. } => {}
        }
    }
}

impl Bars {
    fn plan(&mut self, waiting: &[&Job]) {
        self.overall = self.bars.add(ProgressBar::new(waiting.iter().map(|job| weight(job)).sum()));
        self.overall.set_style(style("{prefix:14} {wide_bar} {percent:>3}%  {elapsed_precise}  about {eta} left"));
        self.overall.set_prefix(counted(waiting.len(), "job"));
        self.overall.enable_steady_tick(Duration::from_secs(1));
    }

    fn start(&mut self, job: &Job) {
        let bar = self.bars.add(ProgressBar::new(1));
        bar.set_style(style("  {prefix:.dim} {bar:30} {pos:>6}/{len:6} {msg:.dim}"));
        bar.set_prefix(format!("{:12} {}", job.stage.name(), self.owners.name(job)));
        self.running.insert(job.id.clone(), Running { bar, weight: weight(job), counted: 0 });
    }

    fn progress(&mut self, job: &Job, progress: &Progress) {
        let Some(running) = self.running.get_mut(&job.id) else { return };
        running.bar.set_length(progress.total);
        running.bar.set_position(progress.done);
        running.bar.set_message(progress.note.clone());
        let counted = running.weight * progress.done.min(progress.total) / progress.total.max(1);
        self.overall.inc(counted.saturating_sub(running.counted));
        running.counted = running.counted.max(counted);
    }

    /// Takes the bar of a job away. Returns how much of the job's weight the overall bar lacks.
    fn clear(&mut self, job: &Job) -> u64 {
        let Some(running) = self.running.remove(&job.id) else { return weight(job) };
        running.bar.finish_and_clear();
        running.weight.saturating_sub(running.counted)
    }

    fn end(&mut self, job: &Job, outcome: &Outcome) {
        let lacking = self.clear(job);
        self.overall.inc(lacking);
        if let Outcome::Failed(error) = outcome {
            self.say(&failed(job, error, &self.owners));
        }
    }

    /// Prints a line above the bars.
    fn say(&self, line: &str) {
        // A terminal that is gone has no reader.
        let _ = self.bars.println(visible(line));
    }

    fn finish(&mut self) {
        for running in std::mem::take(&mut self.running).into_values() {
            running.bar.finish_and_clear();
        }
        self.overall.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
}
