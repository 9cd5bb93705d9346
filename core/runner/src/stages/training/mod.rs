//! The training loop that tokenizers, priors and classifiers share: recorded forward pass, backward pass, clipping,
//! optimizer, weight average, curves, checkpoints; for one player or several, in parts of a batch, and on several ranks.

pub(crate) mod batches;
mod losses;
pub(crate) mod means;
pub(crate) mod objectives;
pub(crate) mod start;
pub(crate) mod together;

use super::Context;
use crate::jobs::Training;
use crate::provenance::arithmetic;
use crate::settings::{self, PriorTraining, TokenizerTraining};
use batches::prefetch;
use losses::{Losses, Taken};
use rqlab_reports::{Curve, Quantity, Reading};
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::optim::{Adam, AdamSettings, Schedule, StepGradients, WeightAverage};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::ranks::{Communicator, share};
use rqlab_sdk::tensor::{Rng, Share, Tensor, Var};
use rqlab_sdk::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

/// How to train.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub(super) steps: u64,
    /// Images of a step, over all ranks.
    pub(super) batch: usize,
    /// Parts that a rank's share of them is cut into.
    pub(super) parts: usize,
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
                steps: s.steps, batch: s.batch, parts: s.gradient_accumulation, lr: s.lr, warmup: s.warmup, schedule: s.schedule, final_lr_ratio: s.final_lr_ratio,
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

/// Which images of which step.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub(super) step: u64,
    pub(super) share: Share,
}

impl At {
    /// Random numbers for them.
    pub(super) fn rng(self, seed: u64, purpose: &str) -> Rng {
        Rng::new(seed, purpose, self.step).of_share(self.share)
    }
}

/// What takes a step of its own in each round: the model first, then the critics.
struct Player {
    /// What experiment files call it; empty for the model.
    name: String,
    /// Put before the names of its optimizer's state in checkpoints; empty for the model.
    prefix: String,
    optimizer: Adam,
    gradients: StepGradients,
    schedule: Schedule,
    max_grad_norm: Option<f32>,
}

impl Player {
    fn new(
        [name, prefix]: [String; 2],
        parameters: Vec<(String, Var)>,
        recipe: &Recipe,
        ranks: &Rc<dyn Communicator>,
    ) -> Result<Self> {
        let settings = AdamSettings {
            betas: recipe.betas.map(f64::from),
            weight_decay: f64::from(recipe.weight_decay),
            ..AdamSettings::default()
        };
        let optimizer = Adam::new(parameters, settings)?;
        let gradients = StepGradients::new(optimizer.parameters(), ranks.clone(), recipe.parts);
        let (schedule, max_grad_norm) = (recipe.schedule(), recipe.max_grad_norm);
        Ok(Self { name, prefix, optimizer, gradients, schedule, max_grad_norm })
    }

    /// Takes a step with the gradients of all its parts, if any part had a loss.
    fn step(&mut self, step: u64) -> Result<Option<Taken>> {
        let Some((loss, gradients)) = self.gradients.finish()? else { return Ok(None) };
        let lr = self.schedule.lr(step);
        let norm = self.optimizer.step_with(gradients, lr, self.max_grad_norm)?;
        Ok(Some(Taken { step, lr, loss, norm }))
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
    /// What a part of a step works on; made ahead on another thread.
    type Batch: Send;

    /// The loss of a batch (rank 0), recorded on the tape. What is worth a curve is kept for [`Task::observe`], unread.
    fn loss(&mut self, at: At, batch: &Self::Batch) -> Result<Tensor>;

    /// The loss of a critic on the batch of the last call of [`Task::loss`]; `None` if it rests at this step.
    fn critic(&mut self, critic: usize, at: At, batch: &Self::Batch) -> Result<Option<Tensor>> {
        let _ = (critic, at, batch);
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

    /// Adds what [`Task::pending`] gave, before a checkpoint or on another rank, to what was gathered.
    ///
    /// # Errors
    /// A value that it did not give.
    fn absorb(&mut self, pending: Value) -> Result<()> {
        let _ = pending;
        Ok(())
    }

    /// Forgets what was gathered.
    fn forget(&mut self) {}
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
    /// Whether this rank writes them.
    leads: bool,
}

/// Trains a model's `parameters` and its critics', from the last checkpoint if there is one. `params` holds all that a
/// checkpoint must: parameters and buffers of all players.
pub(super) fn train<T: Task>(
    cx: &mut Context<'_>,
    params: &Params,
    parameters: Vec<(String, Var)>,
    critics: Vec<Critic>,
    recipe: &Recipe,
    batch: impl Fn(At) -> Result<T::Batch> + Sync,
    task: &mut T,
) -> Result<Trained> {
    let stage = cx.job.stage.name();
    let (ranks, parts) = (cx.ranks.clone(), recipe.parts);
    let (own, leads) = (share(ranks.as_ref()), ranks.rank() == 0);
    together::divides(recipe.batch, own.of, parts)?;
    let mut average = recipe.ema_decay.map(|decay| WeightAverage::new(parameters.clone(), decay)).transpose()?;
    let mut model = Player::new([String::new(), String::new()], parameters, recipe, &ranks)?;
    model.optimizer = model.optimizer.without_decay(|name, shape| !task.decays(name, shape));
    let player = |critic: Critic| {
        let names = [critic.name, format!("{}.", critic.scope)];
        Player::new(names, critic.parameters, &critic.recipe, &ranks)
    };
    let mut critics = critics.into_iter().map(player).collect::<Result<Vec<_>>>()?;
    let mut curves: Vec<Curve> = Vec::new();
    let (mut first, mut earlier) = (0, 0.0);
    let mut computed_by = BTreeSet::from([arithmetic(own.of)]);
    let mut losses = Losses::default();
    if let Some(state) = together::last_checkpoint(cx)? {
        params.load(&state.tensors)?;
        model.load(&state.tensors)?;
        critics.iter_mut().try_for_each(|critic| critic.load(&state.tensors))?;
        if let Some(average) = &mut average {
            average.load(&state.tensors)?;
        }
        first = number(&state, "step")?;
        earlier = number(&state, "seconds")?;
        computed_by.append(&mut read(&state, "computed_by")?);
        cx.reporter.begun_by(computed_by.clone());
        curves = read(&state, "curves")?;
        let (of_losses, of_task) = read(&state, "pending")?;
        losses.resume(of_losses);
        // What was gathered before lies with the first rank.
        if leads {
            task.absorb(of_task)?;
        }
    }
    if own.of > 1 {
        let facts = [("parameters", together::digest(&params.state())), ("checkpoints", first.to_string())];
        together::agree(ranks.as_ref(), &facts)?;
    }

    let started = Instant::now();
    let training = Training::begin();
    cx.reporter.resume(first);
    cx.reporter.step(first, recipe.steps, String::new);
    let part_of = |i: u64| {
        let part = (i % parts as u64) as usize;
        (part, At { step: i / parts as u64, share: own.part(part, parts) })
    };
    let of_all = first * parts as u64..recipe.steps * parts as u64;
    prefetch(
        of_all,
        |i| batch(part_of(i).1),
        |i, batch| {
            let (part, at) = part_of(i);
            model.gradients.add(part, || task.loss(at, &batch).map(Some))?;
            for (c, critic) in critics.iter_mut().enumerate() {
                critic.gradients.add(part, || task.critic(c, at, &batch))?;
            }
            if part + 1 < parts {
                return Ok(());
            }
            let mut loss = None;
            if let Some(taken) = model.step(at.step)? {
                loss = Some(taken.loss.clone());
                losses.add(taken, || task.not_finite())?;
            }
            if let Some(average) = &mut average {
                average.update()?;
            }
            for critic in &mut critics {
                if let Some(taken) = critic.step(at.step)? {
                    losses.watch(&critic.name, taken)?;
                }
            }

            let done = at.step + 1;
            let loss = || loss.and_then(|loss| loss.item().ok()).unwrap_or(f32::NAN);
            cx.reporter.step(done, recipe.steps, || format!("loss {:.4}", loss()));
            let is_point = done % recipe.log == 0 || done == recipe.steps;
            let ends_early = together::is_any(ranks.as_ref(), training.is_asked_to_end())? && done < recipe.steps;
            let is_kept = (done % recipe.checkpoint == 0 || ends_early) && done < recipe.steps;
            if is_point || is_kept {
                together::pool(ranks.as_ref(), task)?;
            }
            if is_point {
                let mut points = losses.take()?;
                if leads {
                    points.extend(task.observe()?);
                }
                cx.reporter.points(done, &points);
                points.into_iter().for_each(|point| extend(&mut curves, stage, done, point));
            }
            if is_kept && leads {
                let mut tensors = params.state();
                tensors.extend(model.state());
                critics.iter().for_each(|critic| tensors.extend(critic.state()));
                tensors.extend(average.iter().flat_map(WeightAverage::state));
                let metadata = BTreeMap::from([
                    ("step".to_owned(), done.to_string()),
                    ("seconds".to_owned(), (earlier + started.elapsed().as_secs_f64()).to_string()),
                    ("computed_by".to_owned(), written(&computed_by)?),
                    ("curves".to_owned(), written(&curves)?),
                    // What the next point of the curves is a mean of, so that a resumed run has the same ones.
                    ("pending".to_owned(), written(&(losses.pending()?, task.pending()?))?),
                ]);
                cx.keep_checkpoint(Checkpoint { tensors, metadata, ..Checkpoint::default() })?;
            }
            if ends_early {
                training.ask_to_end();
                return Err(Error::Unsupported(format!(
                    "asked to end: a checkpoint is kept of step {done} of {}",
                    recipe.steps
                )));
            }
            Ok(())
        },
    )?;
    Ok(Trained { curves, earlier, seconds: earlier + started.elapsed().as_secs_f64(), average, leads })
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
    /// Writes the weights that are to be evaluated: the average, if one was kept. `state` reads what is to be written. All ranks
    /// have the same, and the first writes them.
    pub(super) fn save(&self, state: impl Fn() -> BTreeMap<String, Tensor>, path: &Path) -> Result<()> {
        if !self.leads {
            return Ok(());
        }
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
