//! The training loop that tokenizers, priors and classifiers share: recorded forward pass, backward pass, clipping,
//! optimizer, weight average, curves, checkpoints.

use super::Context;
use super::data::prefetch;
use crate::settings::{self, PriorTraining, TokenizerTraining};
use crate::store::Curve;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::optim::{Adam, AdamSettings, Schedule, WeightAverage};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Tape, Tensor};
use rqlab_sdk::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// How to train.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub(super) steps: u64,
    pub(super) lr: f32,
    pub(super) warmup: u64,
    pub(super) schedule: settings::Schedule,
    pub(super) final_lr: f32,
    pub(super) betas: [f32; 2],
    pub(super) weight_decay: f32,
    pub(super) clip: Option<f32>,
    pub(super) average: Option<f32>,
    pub(super) checkpoint: u64,
    pub(super) log: u64,
}

macro_rules! recipe_from {
    ($($Settings:ty),+) => { $(impl From<&$Settings> for Recipe {
        fn from(s: &$Settings) -> Self {
            Self {
                steps: s.steps, lr: s.lr, warmup: s.warmup, schedule: s.schedule, final_lr: s.final_lr, betas: s.betas,
                weight_decay: s.weight_decay, clip: s.clip, average: s.average, checkpoint: s.checkpoint, log: s.log,
            }
        }
    })+ };
}
recipe_from!(TokenizerTraining, PriorTraining);

impl Recipe {
    fn schedule(&self) -> Schedule {
        let lr = f64::from(self.lr);
        match self.schedule {
            settings::Schedule::Constant => Schedule::constant(lr, self.warmup),
            settings::Schedule::Cosine => Schedule::cosine(lr, self.warmup, self.steps, lr * f64::from(self.final_lr)),
        }
    }
}

/// What is trained.
pub(super) trait Task {
    /// What a step works on; made ahead on another thread.
    type Batch: Send;

    /// The loss of a batch (rank 0), recorded on the tape. What is worth a curve is kept for [`Task::observe`].
    fn loss(&mut self, step: u64, batch: Self::Batch) -> Result<Tensor>;

    /// Points for the curves, gathered over the steps since the last call.
    fn observe(&mut self) -> Vec<(String, f64)>;
}

/// What training leaves, beside the parameters themselves.
pub(super) struct Trained {
    pub(super) curves: BTreeMap<String, Curve>,
    /// Seconds of earlier processes; this one's are counted by the worker.
    pub(super) earlier: f64,
    /// Seconds of all of them.
    pub(super) seconds: f64,
    average: Option<WeightAverage>,
}

/// Trains the parameters in `params`, from the last checkpoint if there is one.
pub(super) fn train<T: Task>(
    cx: &mut Context<'_>,
    params: &Params,
    recipe: &Recipe,
    batch: impl Fn(u64) -> Result<T::Batch> + Sync,
    task: &mut T,
) -> Result<Trained> {
    let state_file = cx.dir().state();
    let settings = AdamSettings {
        betas: recipe.betas.map(f64::from),
        weight_decay: f64::from(recipe.weight_decay),
        ..AdamSettings::default()
    };
    let mut optimizer = Adam::new(params.trained(), settings)?;
    let mut average = recipe.average.map(|decay| WeightAverage::new(params.trained(), decay)).transpose()?;
    let schedule = recipe.schedule();
    let mut curves: BTreeMap<String, Curve> = BTreeMap::new();
    let (mut first, mut earlier) = (0, 0.0);
    if state_file.exists() {
        let state = Checkpoint::load(&state_file)?;
        params.load(&state.tensors)?;
        optimizer.load(&state.tensors)?;
        if let Some(average) = &mut average {
            average.load(&state.tensors)?;
        }
        first = number(&state, "step")?;
        earlier = number(&state, "seconds")?;
        curves = state.metadata.get("curves").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    }

    let started = Instant::now();
    let reporter = &mut *cx.reporter;
    reporter.step(first, recipe.steps, String::new);
    let mut window = Mean::default();
    prefetch(first..recipe.steps, batch, |step, batch| {
        let tape = Tape::start()?;
        let loss = task.loss(step, batch)?;
        // On a GPU the host would otherwise wait for the forward pass before it asks for the backward pass.
        let mut gradients = tape.backward(&loss)?;
        let value = loss.item()?;
        if !value.is_finite() {
            return Err(Error::Diverged(format!(
                "the loss is {value} at step {step}, with the learning rate {}; lower `lr`, lengthen `warmup` or set `clip`",
                schedule.lr(step)
            )));
        }
        drop(loss);
        window.add(f64::from(value));
        let lr = schedule.lr(step);
        let norm = optimizer.step(&mut gradients, lr, recipe.clip)?;
        if let Some(average) = &mut average {
            average.update()?;
        }

        let done = step + 1;
        reporter.step(done, recipe.steps, || format!("loss {value:.4}"));
        if done % recipe.log == 0 || done == recipe.steps {
            let loss = window.take().map(|loss| ("loss".to_owned(), loss));
            let own = [("learning_rate".to_owned(), lr), ("gradient_norm".to_owned(), norm)];
            for (name, value) in loss.into_iter().chain(own).chain(task.observe()) {
                let curve = curves.entry(name).or_default();
                curve.steps.push(done);
                curve.values.push(value);
            }
            // Checkpoints stand where the curves have just been written, so that a resumed run has the same ones.
            let due = done / recipe.checkpoint > done.saturating_sub(recipe.log) / recipe.checkpoint;
            if due && done < recipe.steps {
                let mut tensors = params.state();
                tensors.extend(optimizer.state());
                tensors.extend(average.iter().flat_map(WeightAverage::state));
                let metadata = BTreeMap::from([
                    ("step".to_owned(), done.to_string()),
                    ("seconds".to_owned(), (earlier + started.elapsed().as_secs_f64()).to_string()),
                    ("curves".to_owned(), serde_json::to_string(&curves).unwrap_or_default()),
                ]);
                Checkpoint { tensors, metadata, ..Checkpoint::default() }.save(&state_file)?;
            }
        }
        Ok(())
    })?;
    Ok(Trained { curves, earlier, seconds: earlier + started.elapsed().as_secs_f64(), average })
}

impl Trained {
    /// Writes the weights that are to be evaluated: the average, if one was kept.
    pub(super) fn save(&self, params: &Params, path: &Path) -> Result<()> {
        let save = || Checkpoint { tensors: params.state(), ..Checkpoint::default() }.save(path);
        match &self.average {
            Some(average) => average.with(save),
            None => save(),
        }
    }
}

fn number<N: std::str::FromStr>(state: &Checkpoint, name: &str) -> Result<N> {
    state
        .metadata
        .get(name)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Error::Checkpoint(format!("the checkpoint has no `{name}`; delete it to start this stage over")))
}

/// A running mean.
#[derive(Default)]
pub(super) struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    pub(super) fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1;
    }

    /// The mean of what was added, if anything was, and a fresh start.
    pub(super) fn take(&mut self) -> Option<f64> {
        let mean = (self.count > 0).then(|| self.sum / self.count as f64);
        *self = Self::default();
        mean
    }
}
