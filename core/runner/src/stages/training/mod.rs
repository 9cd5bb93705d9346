//! The training loop that tokenizers, priors and classifiers share: recorded forward pass, backward pass, clipping,
//! optimizer, weight average, curves, checkpoints; for one player or several.

pub(crate) mod batches;
mod losses;
pub(crate) mod means;
pub(crate) mod objectives;
pub(crate) mod start;

use super::Context;
use crate::jobs::Training;
use crate::settings::{self, PriorTraining, TokenizerTraining};
use batches::prefetch;
use losses::{Losses, Taken};
use rqlab_reports::{Curve, Quantity, Reading};
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::optim::{Adam, AdamSettings, GradientNorm, Schedule, WeightAverage};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Tape, Tensor, Var};
use rqlab_sdk::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
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
    pub(super) final_lr_ratio: f32,
    pub(super) betas: [f32; 2],
    pub(super) weight_decay: f32,
    pub(super) max_grad_norm: Option<f32>,
    pub(super) ema_decay: Option<f32>,
    pub(super) checkpoint: u64,
    pub(super) log: u64,
}

macro_rules! recipe_from {
    ($($Settings:ty),+) => { $(impl From<&$Settings> for Recipe {
        fn from(s: &$Settings) -> Self {
            Self {
                steps: s.steps, lr: s.lr, warmup: s.warmup, schedule: s.schedule, final_lr_ratio: s.final_lr_ratio,
                betas: s.betas, weight_decay: s.weight_decay, max_grad_norm: s.max_grad_norm, ema_decay: s.ema_decay,
                checkpoint: s.checkpoint, log: s.log,
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
            settings::Schedule::Cosine => {
                Schedule::cosine(lr, self.warmup, self.steps, lr * f64::from(self.final_lr_ratio))
            }
        }
    }
}

/// What takes a step of its own in each round: the model first, then the critics.
struct Player {
    /// What experiment files call it; empty for the model.
    name: String,
    /// Put before the names of its optimizer's state in checkpoints; empty for the model.
    prefix: String,
    optimizer: Adam,
    schedule: Schedule,
    max_grad_norm: Option<f32>,
}

impl Player {
    fn new(name: String, prefix: String, parameters: Vec<(String, Var)>, recipe: &Recipe) -> Result<Self> {
        let settings = AdamSettings {
            betas: recipe.betas.map(f64::from),
            weight_decay: f64::from(recipe.weight_decay),
            ..AdamSettings::default()
        };
        let optimizer = Adam::new(parameters, settings)?;
        Ok(Self { name, prefix, optimizer, schedule: recipe.schedule(), max_grad_norm: recipe.max_grad_norm })
    }

    /// Sends the gradient of a loss back and takes a step with it.
    fn step(&mut self, tape: Tape, loss: &Tensor, step: u64) -> Result<(f64, GradientNorm)> {
        let mut gradients = tape.backward(loss)?;
        let lr = self.schedule.lr(step);
        Ok((lr, self.optimizer.step(&mut gradients, lr, self.max_grad_norm)?))
    }

    fn state(&self) -> impl Iterator<Item = (String, Tensor)> + '_ {
        self.optimizer.state().into_iter().map(|(name, value)| (format!("{}{name}", self.prefix), value))
    }

    fn load(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        if self.prefix.is_empty() {
            return self.optimizer.load(state);
        }
        let own =
            state.iter().filter_map(|(name, value)| Some((name.strip_prefix(&self.prefix)?.to_owned(), value.clone())));
        self.optimizer.load(&own.collect())
    }
}

/// What is trained.
pub(super) trait Task {
    /// What a step works on; made ahead on another thread.
    type Batch: Send;

    /// The loss of a batch (rank 0), recorded on the tape. What is worth a curve is kept for [`Task::observe`], unread.
    fn loss(&mut self, step: u64, batch: &Self::Batch) -> Result<Tensor>;

    /// The loss of a critic on the batch of the last call of [`Task::loss`]; `None` if it rests at this step.
    fn critic(&mut self, critic: usize, step: u64, batch: &Self::Batch) -> Result<Option<Tensor>> {
        let _ = (critic, step, batch);
        Ok(None)
    }

    /// Whether weight decay moves a parameter of the model.
    fn decays(&self, name: &str, shape: &[usize]) -> bool {
        let _ = (name, shape);
        true
    }

    /// Points for the curves beside the loss, gathered over the steps since the last call.
    ///
    /// # Errors
    /// Codes that cannot be counted.
    fn observe(&mut self) -> Result<Vec<Reading>> {
        Ok(Vec::new())
    }

    /// What in the last loss was no finite number, by name.
    fn not_finite(&self) -> Vec<String> {
        Vec::new()
    }

    /// What was gathered since the last call of [`Task::observe`], as a checkpoint keeps it.
    ///
    /// # Errors
    /// As for [`Task::observe`]; a value that JSON cannot hold.
    fn pending(&mut self) -> Result<Value> {
        Ok(Value::Null)
    }

    /// Goes on from what [`Task::pending`] gave.
    ///
    /// # Errors
    /// A value that it did not give.
    fn resume(&mut self, pending: Value) -> Result<()> {
        let _ = pending;
        Ok(())
    }
}

/// The parameters of a critic, and how they are trained.
pub(super) struct Critic {
    /// What experiment files call it.
    pub(super) name: String,
    /// Where its parameters stand, such as `objective.1`.
    pub(super) scope: String,
    pub(super) parameters: Vec<(String, Var)>,
    pub(super) recipe: Recipe,
}

/// What training leaves, beside the parameters themselves.
pub(super) struct Trained {
    pub(super) curves: Vec<Curve>,
    /// Seconds of earlier processes; this one's are counted by the worker.
    pub(super) earlier: f64,
    /// Seconds of all of them.
    pub(super) seconds: f64,
    average: Option<WeightAverage>,
}

/// Trains a model's `parameters` and its critics', from the last checkpoint if there is one. `params` holds all that a
/// checkpoint must: parameters and buffers of all players.
pub(super) fn train<T: Task>(
    cx: &mut Context<'_>,
    params: &Params,
    parameters: Vec<(String, Var)>,
    critics: Vec<Critic>,
    recipe: &Recipe,
    batch: impl Fn(u64) -> Result<T::Batch> + Sync,
    task: &mut T,
) -> Result<Trained> {
    let stage = cx.job.stage.name();
    let mut average = recipe.ema_decay.map(|decay| WeightAverage::new(parameters.clone(), decay)).transpose()?;
    let mut model = Player::new(String::new(), String::new(), parameters, recipe)?;
    model.optimizer = model.optimizer.without_decay(|name, shape| !task.decays(name, shape));
    let player =
        |critic: Critic| Player::new(critic.name, format!("{}.", critic.scope), critic.parameters, &critic.recipe);
    let mut critics = critics.into_iter().map(player).collect::<Result<Vec<_>>>()?;
    let mut curves: Vec<Curve> = Vec::new();
    let (mut first, mut earlier) = (0, 0.0);
    let mut losses = Losses::default();
    if let Some(state) = cx.last_checkpoint()? {
        params.load(&state.tensors)?;
        model.load(&state.tensors)?;
        critics.iter_mut().try_for_each(|critic| critic.load(&state.tensors))?;
        if let Some(average) = &mut average {
            average.load(&state.tensors)?;
        }
        first = number(&state, "step")?;
        earlier = number(&state, "seconds")?;
        curves = read(&state, "curves")?;
        let (of_losses, of_task) = read(&state, "pending")?;
        losses.resume(of_losses);
        task.resume(of_task)?;
    }

    let started = Instant::now();
    let training = Training::begin();
    cx.reporter.resume(first);
    cx.reporter.step(first, recipe.steps, String::new);
    prefetch(first..recipe.steps, batch, |step, batch| {
        let tape = Tape::start()?;
        let loss = task.loss(step, &batch)?;
        let (lr, norm) = model.step(tape, &loss, step)?;
        let loss = loss.detach();
        losses.add(Taken { step, lr, loss: loss.clone(), norm }, || task.not_finite())?;
        if let Some(average) = &mut average {
            average.update()?;
        }
        for (i, critic) in critics.iter_mut().enumerate() {
            let tape = Tape::start()?;
            if let Some(loss) = task.critic(i, step, &batch)? {
                let (lr, norm) = critic.step(tape, &loss, step)?;
                losses.watch(&critic.name, Taken { step, lr, loss: loss.detach(), norm })?;
            }
        }

        let done = step + 1;
        cx.reporter.step(done, recipe.steps, || format!("loss {:.4}", loss.item().unwrap_or(f32::NAN)));
        if done % recipe.log == 0 || done == recipe.steps {
            let points: Vec<Reading> = losses.take()?.into_iter().chain(task.observe()?).collect();
            cx.reporter.points(done, &points);
            points.into_iter().for_each(|point| extend(&mut curves, stage, done, point));
        }
        let ends_early = training.is_asked_to_end() && done < recipe.steps;
        if (done % recipe.checkpoint == 0 || ends_early) && done < recipe.steps {
            let mut tensors = params.state();
            tensors.extend(model.state());
            critics.iter().for_each(|critic| tensors.extend(critic.state()));
            tensors.extend(average.iter().flat_map(WeightAverage::state));
            let metadata = BTreeMap::from([
                ("step".to_owned(), done.to_string()),
                ("seconds".to_owned(), (earlier + started.elapsed().as_secs_f64()).to_string()),
                ("curves".to_owned(), written(&curves)?),
                // What the next point of the curves is a mean of, so that a resumed run has the same ones.
                ("pending".to_owned(), written(&(losses.pending()?, task.pending()?))?),
            ]);
            cx.keep_checkpoint(Checkpoint { tensors, metadata, ..Checkpoint::default() })?;
        }
        if ends_early {
            return Err(Error::Unsupported(format!(
                "asked to end: a checkpoint is kept of step {done} of {}",
                recipe.steps
            )));
        }
        Ok(())
    })?;
    Ok(Trained { curves, earlier, seconds: earlier + started.elapsed().as_secs_f64(), average })
}

/// Adds a point to the curve that it belongs to.
fn extend(curves: &mut Vec<Curve>, stage: &str, step: u64, point: Reading) {
    let Quantity { measure, at } = point.quantity();
    match curves.iter_mut().find(|curve| curve.measure == measure && curve.at == at) {
        Some(curve) => {
            curve.steps.push(step);
            curve.values.push(point.value);
        }
        None => {
            curves.push(Curve { stage: stage.to_owned(), measure, at, steps: vec![step], values: vec![point.value] })
        }
    }
}

impl Trained {
    /// Writes the weights that are to be evaluated: the average, if one was kept. `state` reads what is to be written.
    pub(super) fn save(&self, state: impl Fn() -> BTreeMap<String, Tensor>, path: &Path) -> Result<()> {
        let save = || Checkpoint { tensors: state(), ..Checkpoint::default() }.save(path);
        match &self.average {
            Some(average) => average.with(save),
            None => save(),
        }
    }
}

fn written(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Checkpoint(format!("a checkpoint cannot be written: {e}")))
}

fn read<T: DeserializeOwned>(state: &Checkpoint, name: &str) -> Result<T> {
    let text = state.metadata.get(name).ok_or_else(|| lacks(name))?;
    serde_json::from_str(text).map_err(|e| Error::Checkpoint(format!("the checkpoint's {name} are damaged: {e}")))
}

fn number<N: std::str::FromStr>(state: &Checkpoint, name: &str) -> Result<N> {
    state.metadata.get(name).and_then(|text| text.parse().ok()).ok_or_else(|| lacks(name))
}

fn lacks(name: &str) -> Error {
    Error::Checkpoint(format!("the checkpoint has no `{name}`; delete it to start this stage over"))
}
