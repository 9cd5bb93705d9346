//! Priors of vectors made ready: training and sampling by diffusion.

use crate::Prepared;
use crate::models::{codes, component, normal};
use crate::workloads::{CLASSES, VectorPriorSizes};
use rqlab::plugins::Plugins;
use rqlab_sdk::Result;
use rqlab_sdk::contracts::{
    Components, Condition, ConditionSpace, Guidance, GuidanceSchedule, LevelInfo, Mode, Prior, PriorContext,
    SampleRequest, Targets, TokenBatch, TokenSpace, Tokens,
};
use rqlab_sdk::optim::{Adam, AdamSettings, WeightAverage};
use rqlab_sdk::params::Params;
use rqlab_sdk::plugin::Kind;
use rqlab_sdk::tensor::{Rng, Tape, no_grad};

/// Rows and columns of the map.
const SIDE: usize = 8;
/// Numbers per vector.
const CHANNELS: usize = 16;
/// The share of images that lose their class in training.
const CONDITION_DROPOUT: f32 = 0.1;

/// A prior with fresh parameters.
fn prior(sizes: &VectorPriorSizes, plugins: &Plugins) -> Result<(Box<dyn Prior>, Params)> {
    let VectorPriorSizes { causal, width, layers } = sizes;
    let preset = if *causal { "ar_diffloss" } else { "mar_diffloss" };
    let config = format!(
        "(preset: {preset}, width: {width}, heads: 8, encoder_layers: {layers}, decoder_layers: {layers}, buffer: 16, masked: 0.875, \
         head_width: 256, head_layers: 3, noise_draws: 4, noise_schedule: cosine, \
         sampling_steps: 25, iterations: 16)"
    );
    let params = Params::new(0);
    let space = TokenSpace::Vectors { channels: CHANNELS };
    let context = PriorContext {
        levels: vec![LevelInfo { height: SIDE, width: SIDE, channels: CHANNELS, space, scales: None }],
        level: 0,
        condition: ConditionSpace::Classes(CLASSES),
        null_condition: !causal,
        params: params.scope("prior"),
        components: Components::none(),
    };
    Ok((plugins.prior(&component(plugins, Kind::Prior, "mar", config)?, &context)?, params))
}

/// One step: loss, gradients clipped to a norm of 3, AdamW, and the average of the weights.
pub(crate) fn step(sizes: &VectorPriorSizes, batch: usize, plugins: &Plugins) -> Result<Prepared> {
    let (prior, params) = prior(sizes, plugins)?;
    let settings = AdamSettings { betas: [0.9, 0.95], weight_decay: 0.02, ..AdamSettings::default() };
    let mut optimizer = Adam::new(params.trained(), settings)?.without_decay(|name, shape| !prior.decays(name, shape));
    let mut average = WeightAverage::new(params.trained(), 0.9999)?;
    let tokens = Tokens::Vectors(normal(&[batch, SIDE, SIDE, CHANNELS], "vectors")?);
    let labels = Condition::classes(codes(&[batch], CLASSES, "labels")?)?;
    let mut step = 0;
    Ok(Prepared::new(Some(params.count()), move || {
        let rng = Rng::new(0, "step", step);
        step += 1;
        let condition = labels.dropped(CONDITION_DROPOUT, &rng.part("condition", 0))?;
        let batch = TokenBatch { tokens: tokens.clone(), targets: Targets::Hard, condition, above: vec![] };
        let tape = Tape::start()?;
        let loss = prior.loss(&batch, &Mode::Train(rng))?.loss;
        let mut gradients = tape.backward(&loss)?;
        optimizer.step(&mut gradients, 1e-4, Some(3.0))?;
        average.update()
    }))
}

/// Whole maps; a masked prior is guided, more and more as it goes.
pub(crate) fn sample(sizes: &VectorPriorSizes, batch: usize, plugins: &Plugins) -> Result<Prepared> {
    let (prior, params) = prior(sizes, plugins)?;
    let scale = if sizes.causal { 1.0 } else { 2.0 };
    let request = SampleRequest {
        guidance: Guidance { scale, schedule: GuidanceSchedule::Linear },
        ..SampleRequest::new(Condition::classes(codes(&[batch], CLASSES, "labels")?)?)
    };
    let mut step = 0;
    Ok(Prepared::new(Some(params.count()), move || {
        step += 1;
        no_grad(|| prior.sample(&request, &Rng::new(0, "samples", step))).map(drop)
    }))
}
