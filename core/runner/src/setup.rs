//! What a trial was set to, for the table at the head of the report and for its warnings.

use crate::job::{Call, Job, Trial};
use crate::needs::{left_out, unobeyed};
use crate::plan::{Model, Plan};
use crate::settings::{Conditioning, Evaluation, GuidanceShape, Labels, PriorTraining, Schedule, TokenizerTraining};
use crate::stages::{
    self, EncodeTokens, MeasureByProtocol, MeasurePrior, MeasureTokenizer, TrainClassifier, TrainPrior, TrainTokenizer,
};
use crate::ui::{counted, thousands};
use crate::weights::FilesByLevel;
use rqlab_reports::{CodeSizes, Fact, LABELS, LeftOut};
use rqlab_sdk::contracts::{LevelInfo, TokenSpace};
use std::collections::BTreeMap;

/// Adds to a trial of the report what it was set to, and which measures it cannot have.
pub(crate) fn tell(plan: &Plan, trial: &Trial, jobs: &BTreeMap<&str, &Job>, out: &mut rqlab_reports::Trial) {
    let Some(model) = plan.models.get(&trial.id) else { return };
    let (mut images, mut drawn) = (0, None);
    let jobs = || trial.jobs.iter().filter_map(|id| jobs.get(id.as_str()));
    let mut facts = data(model);
    facts.extend(tokens(&model.levels));
    for job in jobs() {
        if let Some(stage) = job.stage.is::<TrainClassifier>() {
            facts.push(Fact::new("classifier's training", counted(stage.steps as usize, "step")));
        } else if let Some(stage) = job.stage.is::<TrainTokenizer>() {
            out.sizes.steps = stage.training.from.is_none().then_some(stage.training.steps);
            let quantizers = if stage.quantizers.is_empty() { "none".to_owned() } else { names(&stage.quantizers) };
            facts.push(Fact::new(
                "tokenizer",
                format!("{} with {quantizers}, trained for {}", stage.autoencoder.name, names(&stage.objectives)),
            ));
            facts.push(Fact::new("tokenizer's training", of_tokenizer(&stage.training)));
        } else if let Some(stage) = job.stage.is::<MeasureTokenizer>() {
            images = stage.evaluation.images.min(model.data.info.test);
            facts.push(measured(&stage.evaluation, model, out));
            let published = jobs().filter_map(|job| job.stage.is::<MeasureByProtocol>());
            let names = std::iter::once("lab").chain(published.map(|stage| stage.protocol.name()));
            facts.push(Fact::new("protocols", names.collect::<Vec<_>>().join(", ")));
        } else if let Some(stage) = job.stage.is::<TrainPrior>().filter(|stage| stage.level == 0) {
            if stage.probe {
                let steps = counted(stage.training.steps as usize, "step");
                facts.push(Fact::new("probe prior", format!("{}, {steps}", stage.prior.name)));
            } else {
                let encoded = jobs().find(|job| job.id == stage.tokens).and_then(|job| job.stage.is::<EncodeTokens>());
                let images = encoded.map(|tokens| format!(", on {}", counted(tokens.images, "training image")));
                let prior = format!("{}{}", stage.prior.name, images.unwrap_or_default());
                facts.push(Fact::new("prior", prior));
                facts.push(Fact::new("prior's training", of_prior(&stage.training)));
            }
        } else if let Some(stage) = job.stage.is::<MeasurePrior>().filter(|stage| !stage.probe) {
            drawn = Some(stage.evaluation.samples);
            facts.push(Fact::new("samples", samples(&stage.evaluation)));
            let told = jobs().filter_map(|job| job.stage.is::<TrainPrior>()).find(|prior| !prior.probe);
            facts.extend(conditions(&stage.evaluation, model, told.map(|prior| prior.training.condition)));
            let [k, wide] = [stages::NEIGHBOURS, stages::DENSITY_NEIGHBOURS];
            let manifold = format!("{k} nearest neighbours; of density and coverage {wide}");
            facts.extend(stage.features.is_some().then(|| Fact::new("precision and recall", manifold)));
        }
    }
    out.setup = facts;
    out.sizes.classes = Some(model.data.info.classes.len());
    out.sizes.levels = model.levels.iter().filter_map(code_sizes).collect();
    let unobeyed = (model.text.is_some() && model.attributes == 0).then(unobeyed);
    let left_out = left_out(model.data.info.classes.len(), images, drawn).into_iter().chain(unobeyed);
    out.left_out.extend(left_out.map(|(measures, reason)| LeftOut { measures, reason }));
}

/// The data set in a line, and what there is to know of it.
fn data(model: &Model) -> Vec<Fact> {
    let line = Fact::new("data", format!("{}: {}", model.data.name, model.data.headline()));
    let facts = model.data.facts().into_iter().map(|(what, fact)| Fact::new(format!("data: {what}"), fact));
    std::iter::once(line).chain(facts).collect()
}

fn names(calls: &[Call]) -> String {
    calls.iter().map(|call| call.name.as_str()).collect::<Vec<_>>().join(" + ")
}

/// What an image becomes: a fact for each thing that axes vary apart, level by level.
fn tokens(levels: &[LevelInfo]) -> Vec<Fact> {
    let fact = |name: &str, of: &dyn Fn(&LevelInfo) -> Option<String>| {
        let texts: Vec<String> = levels.iter().filter_map(of).collect();
        (!texts.is_empty()).then(|| Fact::new(name, texts.join("; ")))
    };
    let sizes = |level: &LevelInfo| {
        let mut sizes: Vec<String> = level.code_space()?.sizes.iter().map(|&size| thousands(size)).collect();
        sizes.dedup();
        Some(sizes.join("/"))
    };
    let books = |level: &LevelInfo| {
        let codes = level.code_space()?;
        let words = match (codes.depth(), codes.shared) {
            (0 | 1, _) => "one",
            (_, true) => "one for all depths",
            (_, false) => "one for each depth",
        };
        Some(words.to_owned())
    };
    let facts = [
        fact("token map", &|level| {
            let vectors = match level.space {
                TokenSpace::Vectors { channels } => format!(" vectors of {channels}"),
                TokenSpace::Codes(_) => String::new(),
            };
            Some(format!("{} x {}{vectors}", level.height, level.width))
        }),
        fact("codes per position", &|level| Some(level.code_space()?.depth().to_string())),
        fact("codes in a codebook", &sizes),
        fact("codebooks", &books),
    ];
    facts.into_iter().flatten().collect()
}

fn code_sizes(level: &LevelInfo) -> Option<CodeSizes> {
    let codes = level.code_space()?;
    Some(CodeSizes { positions: level.height * level.width, codebooks: codes.sizes.clone(), shared: codes.shared })
}

fn of_tokenizer(training: &TokenizerTraining) -> String {
    let TokenizerTraining { steps, batch, weight_decay, lr, warmup, schedule, ema_decay, .. } = *training;
    let mut parts = recipe(steps, batch, weight_decay, rate(lr, warmup, schedule), ema_decay);
    let late = training.quantize_after as usize;
    parts.extend((late > 0).then(|| format!("quantized after {}", counted(late, "step"))));
    parts.extend(start(training.from.as_deref().into_iter(), &training.freeze));
    parts.join(", ")
}

fn of_prior(training: &PriorTraining) -> String {
    let PriorTraining { steps, batch, weight_decay, lr, warmup, schedule, ema_decay, .. } = *training;
    let mut parts = recipe(steps, batch, weight_decay, rate(lr, warmup, schedule), ema_decay);
    parts.extend(match training.condition {
        Conditioning::Class => None,
        Conditioning::None => Some("told nothing of images".to_owned()),
        Conditioning::Text => Some(format!("told captions of up to {}", counted(training.text_length, "token"))),
    });
    let dropout = training.condition_dropout;
    parts.extend((dropout > 0.0).then(|| format!("conditions left out at {dropout}")));
    parts.extend(start(training.from.iter().flat_map(FilesByLevel::files), &training.freeze));
    parts.join(", ")
}

/// Which weights a training began with, if not the seed's, and which it left as they were.
fn start<'a>(from: impl Iterator<Item = &'a str>, freeze: &[String]) -> Vec<String> {
    let files: Vec<&str> = from.collect();
    let from = (!files.is_empty()).then(|| format!("started from {}", files.join(", ")));
    let frozen = (!freeze.is_empty()).then(|| format!("without {}", freeze.join(", ")));
    from.into_iter().chain(frozen).collect()
}

/// What the training of tokenizers and priors has in common.
fn recipe(steps: u64, batch: usize, weight_decay: f32, rate: String, ema_decay: Option<f32>) -> Vec<String> {
    let work = format!("{} of {}", counted(steps as usize, "step"), counted(batch, "image"));
    let mut parts = vec![work, optimizer(weight_decay), rate];
    parts.extend(ema_decay.map(|decay| format!("weights averaged at {decay}")));
    parts
}

fn optimizer(weight_decay: f32) -> String {
    if weight_decay > 0.0 { format!("AdamW (weight decay {weight_decay})") } else { "Adam".to_owned() }
}

fn rate(lr: f32, warmup: u64, schedule: Schedule) -> String {
    let then = match schedule {
        Schedule::Constant => "constant",
        Schedule::Cosine => "cosine",
    };
    let warmup = if warmup > 0 { format!(" after a warm-up of {warmup}") } else { String::new() };
    format!("learning rate {lr}, {then}{warmup}")
}

fn measured(evaluation: &Evaluation, model: &Model, out: &mut rqlab_reports::Trial) -> Fact {
    let info = &model.data.info;
    let images = evaluation.images.min(info.test);
    out.sizes.measured_images = Some(images);
    out.sizes.test_images = Some(info.test);
    out.sizes.test_by_class = info.summary.per_class.iter().map(|[_, test]| *test).collect();
    Fact::new("measured on", format!("{} of {}", thousands(images), counted(info.test, "test image")))
}

/// What samples are drawn of: classes, or captions, where a prior is told any.
fn conditions(evaluation: &Evaluation, model: &Model, told: Option<Conditioning>) -> Option<Fact> {
    match told {
        Some(Conditioning::None) => None,
        Some(Conditioning::Text) => {
            let classes = match &evaluation.labels {
                Labels::Data => String::new(),
                Labels::Uniform => ", all classes equally often".to_owned(),
                Labels::Class(name) => format!(", of `{name}` alone"),
            };
            Some(Fact::new("captions of samples", format!("those of the measured test images in turn{classes}")))
        }
        Some(Conditioning::Class) | None => labels(evaluation, model).map(|labels| Fact::new(LABELS, labels)),
    }
}

/// Which classes samples are drawn of.
fn labels(evaluation: &Evaluation, model: &Model) -> Option<String> {
    (!model.data.info.classes.is_empty()).then(|| match &evaluation.labels {
        Labels::Data => "as often as the measured test images have them".to_owned(),
        Labels::Uniform => "all equally often".to_owned(),
        Labels::Class(name) => format!("`{name}` alone"),
    })
}

/// `300, temperature 1, sampling seed 0`, and what else bends the distribution that is drawn from.
fn samples(evaluation: &Evaluation) -> String {
    let seeds: Vec<String> = evaluation.sampling_seeds.iter().map(u64::to_string).collect();
    let each = if seeds.len() > 1 { " by each" } else { "" };
    let mut parts =
        vec![format!("{}{each}", thousands(evaluation.samples)), format!("temperature {}", evaluation.temperature)];
    parts.extend(evaluation.top_k.map(|k| format!("the {k} most probable codes")));
    parts.extend(evaluation.top_p.map(|p| format!("the smallest set of codes with probability {p}")));
    let tuned: Vec<String> = evaluation.tune_guidance.iter().map(f32::to_string).collect();
    parts.push(match evaluation.guidance {
        _ if !tuned.is_empty() => {
            format!(
                "the best guidance of {} by half of the measured test images, compared with the other half",
                tuned.join(", ")
            )
        }
        1.0 => "no guidance".to_owned(),
        scale if evaluation.guidance_schedule == GuidanceShape::Constant => format!("guidance {scale}"),
        scale => format!("guidance of up to {scale}, by a schedule"),
    });
    parts.push(format!("sampling {} {}", if seeds.len() > 1 { "seeds" } else { "seed" }, seeds.join(", ")));
    parts.join(", ")
}
