//! Trains a prior on the tokens of a frozen tokenizer.

use super::model::{build_prior, condition_space, multiplied};
use super::token_file::{TokenFile, labels};
use super::training::batches::Order;
use super::training::means::LateMean;
use super::training::{Recipe, Task, train};
use super::{Context, EncodeTokens, Stage, Tokenizer, as_json, from_json, load_tokenizer};
use crate::job::Call;
use crate::settings::{Precision, PriorTraining};
use crate::store::Done;
use rqlab_reports::{Index, Reading};
use rqlab_sdk::config::{Config, Scope};
use rqlab_sdk::contracts::{
    Condition, ConditionSpace, LevelInfo, Mode, Prior, Targets, TokenBatch, TokenRequest, Tokens, code_rows,
};
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Codes, Rng, Tensor, no_grad};
use rqlab_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Trains the prior of one level, given the tokens of those above.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrainPrior {
    /// The tokenizer's job.
    pub tokenizer: String,
    /// The job that encoded the images.
    pub tokens: String,
    /// The level, from 0.
    pub level: usize,
    /// The prior.
    pub prior: Call,
    /// How.
    pub training: PriorTraining,
    /// Of initial values, batches and draws.
    pub seed: u64,
    /// Whether it is the lab's own probe of the tokenizer, not the experiment's prior.
    #[serde(default)]
    pub probe: bool,
}

impl TrainPrior {
    /// See [`Stage::name`].
    pub const NAME: &str = "prior";
    /// Its name as a probe.
    pub const PROBE: &str = "probe prior";
}

impl Stage for TrainPrior {
    fn name(&self) -> &'static str {
        if self.probe { Self::PROBE } else { Self::NAME }
    }

    fn revision(&self) -> u32 {
        1
    }

    fn needs(&self) -> Vec<&str> {
        vec![&self.tokenizer, &self.tokens]
    }

    fn calls(&self) -> Vec<&Call> {
        vec![&self.prior]
    }

    fn identity(&self) -> Result<Value> {
        Ok(json!({
            "level": self.level,
            "prior": [self.prior.name, self.prior.trained],
            "training": self.training.identity(Scope::Training)?,
            "seed": self.seed,
        }))
    }

    fn precision(&self) -> Precision {
        self.training.precision
    }

    fn work(&self) -> f64 {
        self.training.steps as f64 * self.training.batch as f64
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        let (dataset, model) = load_tokenizer(cx.plugins, cx.store, &self.tokenizer)?;
        let classes = dataset.info().classes.len();
        let params = Params::new(self.seed);
        let levels = model.levels();
        let prior = build_prior(cx.plugins, self, levels.clone(), classes, &params)?;
        let feed = Feed::open(cx, self, &levels, prior.wants())?;
        let at = model.index(self.level);
        let order = Order::new(self.seed, feed.labels.len(), self.training.batch);
        let mut task = Training { stage: self, model, prior, classes, feed, terms: BTreeMap::new(), at: at.clone() };
        let files = task.feed.files.clone();
        let batch = |step| {
            let rows = order.at(step);
            let kept = files.iter().map(|file| file.rows(&rows)).collect::<Result<Vec<_>>>()?;
            Ok(Rows { rows, kept })
        };
        let trained = train(cx, &params, params.trained(), vec![], &Recipe::from(&self.training), batch, &mut task)?;
        trained.save(|| params.state(), &cx.dir().result())?;
        Ok(Done {
            readings: vec![Reading::new("prior_parameters", at.clone(), params.count() as f64)],
            timings: vec![Reading::new("prior_seconds", at.clone(), trained.seconds)],
            // The curves of several levels stand beside each other.
            curves: trained.curves.into_iter().map(|curve| curve_at(curve, &at)).collect(),
            seconds: trained.earlier,
            ..Done::default()
        })
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

/// A curve with the index of its level, if it has none yet.
fn curve_at(mut curve: rqlab_reports::Curve, level: &[Index]) -> rqlab_reports::Curve {
    let missing: Vec<Index> = level.iter().filter(|index| !curve.at.contains(index)).copied().collect();
    curve.at.splice(0..0, missing);
    curve
}

/// What a prior is fed from: files of tokens or latents, of its own level and those above.
struct Feed {
    wants: TokenRequest,
    /// Whether the files hold latents, of which tokens are made at each step.
    latents: bool,
    /// One per level, its own last.
    files: std::sync::Arc<Vec<TokenFile>>,
    scales: Vec<f32>,
    labels: Codes,
}

impl Feed {
    fn open(cx: &Context<'_>, stage: &TrainPrior, infos: &[LevelInfo], wants: TokenRequest) -> Result<Self> {
        let dir = cx.store.stage(&stage.tokens);
        let levels = 0..=stage.level;
        let files = levels
            .clone()
            .zip(infos)
            .map(|(level, info)| EncodeTokens::open(&dir, level, info))
            .collect::<Result<Vec<_>>>()?;
        let scales = levels.map(|level| EncodeTokens::scale(&dir, level)).collect::<Result<_>>()?;
        let labels = labels(&dir)?;
        if let Some(file) = files.iter().find(|file| file.images() != labels.len()) {
            let message = format!("{} labels and tokens of {} images", labels.len(), file.images());
            return Err(Error::Checkpoint(format!("{}: {message}; delete it", dir.file("").display())));
        }
        let job = dir.job()?;
        let latents = job.stage.is::<EncodeTokens>().is_some_and(|stage| stage.latents);
        if !latents && wants != TokenRequest::default() {
            let message =
                "the prior wants tokens that are made anew at each step, and only tokens were kept; plan again";
            return Err(Error::Checkpoint(message.to_owned()));
        }
        Ok(Self { wants, latents, files: std::sync::Arc::new(files), scales, labels })
    }
}

/// The images of a step, and what the files hold of them.
struct Rows {
    rows: Vec<usize>,
    kept: Vec<Tokens>,
}

struct Training<'a> {
    stage: &'a TrainPrior,
    model: Tokenizer,
    prior: Box<dyn Prior>,
    classes: usize,
    feed: Feed,
    terms: BTreeMap<String, LateMean>,
    at: Vec<Index>,
}

impl Task for Training<'_> {
    type Batch = Rows;

    fn loss(&mut self, step: u64, rows: &Rows) -> Result<Tensor> {
        let rng = Rng::new(self.stage.seed, "prior", step);
        let batch = no_grad(|| self.batch(rows, &rng))?;
        let loss = self.prior.loss(&batch, &Mode::Train(rng))?;
        for (name, value) in &loss.terms {
            self.terms.entry((*name).to_owned()).or_default().add(value);
        }
        Ok(loss.loss)
    }

    fn observe(&mut self) -> Result<Vec<Reading>> {
        Ok(self.terms.iter_mut().flat_map(|(name, mean)| mean.take(name, &self.at)).collect())
    }

    fn pending(&mut self) -> Result<Value> {
        let terms: BTreeMap<&str, &LateMean> =
            self.terms.iter_mut().map(|(name, mean)| (name.as_str(), mean.pending())).collect();
        as_json(&terms)
    }

    fn resume(&mut self, pending: Value) -> Result<()> {
        self.terms = from_json(pending)?;
        Ok(())
    }
}

impl Training<'_> {
    /// What the prior is fed: the tokens that were kept, or tokens and targets made anew from the latents that were.
    fn batch(&self, rows: &Rows, rng: &Rng) -> Result<TokenBatch> {
        let own = self.stage.level;
        let made = |level: usize, request: &TokenRequest| -> Result<(Tokens, Targets)> {
            let kept = &rows.kept[level];
            let (tokens, targets) = match self.feed.latents {
                false => (kept.clone(), Targets::Hard),
                true => {
                    self.model.quantizers[level].tokens(kept.vectors()?, request, &rng.part("codes", level as u64))?
                }
            };
            Ok((multiplied(&tokens, self.feed.scales[level])?, targets))
        };
        let (tokens, targets) = made(own, &self.feed.wants)?;
        let above = (0..own).map(|level| Ok(made(level, &TokenRequest::default())?.0)).collect::<Result<_>>()?;
        let labels = code_rows(&self.feed.labels, &rows.rows)?;
        let space = condition_space(self.classes);
        let condition = Condition::of_labels(space, &labels)?;
        let dropout = if space == ConditionSpace::None { 0.0 } else { self.stage.training.condition_dropout };
        Ok(TokenBatch { tokens, targets, condition: condition.dropped(dropout, &rng.part("condition", 0))?, above })
    }
}
