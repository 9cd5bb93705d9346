//! The training loop that tokenizers, priors and classifiers share: recorded forward pass, backward pass, clipping,
//! optimizer, weight average, curves, checkpoints.

use super::Context;
use super::data::prefetch;
use super::means::{Mean, UNREAD};
use crate::settings::{self, PriorTraining, TokenizerTraining};
use crate::store::Curve;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::optim::{Adam, AdamSettings, GradientNorm, Schedule, WeightAverage};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Device, Tape, Tensor};
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

    /// The loss of a batch (rank 0), recorded on the tape. What is worth a curve is kept for [`Task::observe`], unread.
    fn loss(&mut self, step: u64, batch: Self::Batch) -> Result<Tensor>;

    /// Points for the curves, gathered over the steps since the last call.
    ///
    /// # Errors
    /// Codes that cannot be counted.
    fn observe(&mut self) -> Result<Vec<(String, f64)>>;
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
    reporter.resume(first)?;
    reporter.step(first, recipe.steps, String::new);
    let mut losses = Losses::default();
    prefetch(first..recipe.steps, batch, |step, batch| {
        let tape = Tape::start()?;
        let loss = task.loss(step, batch)?;
        let mut gradients = tape.backward(&loss)?;
        let (loss, lr) = (loss.detach(), schedule.lr(step));
        let norm = optimizer.step(&mut gradients, lr, recipe.clip)?;
        losses.add(Taken { step, lr, loss: loss.clone(), norm })?;
        if let Some(average) = &mut average {
            average.update()?;
        }

        let done = step + 1;
        reporter.step(done, recipe.steps, || format!("loss {:.4}", loss.item().unwrap_or(f32::NAN)));
        if done % recipe.log == 0 || done == recipe.steps {
            let points: Vec<(String, f64)> = losses.take()?.into_iter().chain(task.observe()?).collect();
            reporter.points(done, &points)?;
            for (name, value) in points {
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

/// A step that was taken, with numbers that a GPU may still have to compute.
struct Taken {
    step: u64,
    lr: f64,
    loss: Tensor,
    norm: GradientNorm,
}

/// What the curves of every training say, and whether it goes well. On a GPU the host is steps ahead; to look at every loss
/// at once would make it wait for each.
#[derive(Default)]
struct Losses {
    unread: Vec<Taken>,
    loss: Mean,
    /// The learning rate and the norm of the gradients at the last step that was read.
    last: Option<(f64, f64)>,
}

impl Losses {
    /// # Errors
    /// [`Error::Diverged`] where this or an earlier step went wrong: at once on the CPU, within [`UNREAD`] steps on a GPU,
    /// where nothing was changed by a step whose gradients were not finite.
    fn add(&mut self, taken: Taken) -> Result<()> {
        let there = taken.loss.device() == Device::Cpu;
        self.unread.push(taken);
        if there || self.unread.len() >= UNREAD { self.read() } else { Ok(()) }
    }

    fn read(&mut self) -> Result<()> {
        for Taken { step, lr, loss, norm } in self.unread.drain(..) {
            let value = loss.item()?;
            if !value.is_finite() {
                return Err(Error::Diverged(format!(
                    "the loss is {value} at step {step}, with the learning rate {lr}; \
                     lower `lr`, lengthen `warmup` or set `clip`"
                )));
            }
            self.loss.add(f64::from(value));
            self.last = Some((lr, norm.read()?));
        }
        Ok(())
    }

    /// The points of the curves, over the steps since the last call.
    ///
    /// # Errors
    /// As for [`Losses::add`].
    fn take(&mut self) -> Result<Vec<(String, f64)>> {
        self.read()?;
        let loss = self.loss.take().map(|loss| ("loss", loss));
        let last = self.last.take().map(|(lr, norm)| [("learning_rate", lr), ("gradient_norm", norm)]);
        let points = loss.into_iter().chain(last.into_iter().flatten());
        Ok(points.map(|(name, value)| (name.to_owned(), value)).collect())
    }
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
