//! How probable test images' tokens are.

use crate::stages::model::multiplied;
use crate::stages::{Context, Sampler, Tokenizer};
use rqlab_reports::{Index, Reading};
use rqlab_sdk::Result;
use rqlab_sdk::contracts::{Bound, Dataset, LevelInfo, Split, Targets, TokenBatch, Tokens};
use rqlab_sdk::metrics::CodeCounts;
use rqlab_sdk::tensor::{Rng, no_grad};
use std::f64::consts::LN_2;

/// What the test images' tokens showed.
pub(super) struct Test {
    /// Bits per image, in all and by level and depth.
    pub(super) readings: Vec<Reading>,
    /// How often each code occurs at each level and depth; none where some tokens are vectors.
    pub(super) counts: Option<Vec<CodeCounts>>,
}

/// Sums over test images of what one level's prior says.
struct Level {
    info: LevelInfo,
    at: Vec<Index>,
    /// Nats by depth; none once a batch had none.
    nats: Option<Vec<f64>>,
    /// The measure of the bound, and its nats; none once a batch had none, and where there is a likelihood.
    bound: Option<(&'static str, f64)>,
}

/// Encodes the test images `images`, a batch at a time, and asks each level's prior for their likelihood.
///
/// # Errors
/// Those of the plugins.
pub(super) fn measure(
    cx: &mut Context<'_>,
    dataset: &dyn Dataset,
    model: &Tokenizer,
    sampler: &Sampler,
    images: &[usize],
) -> Result<Test> {
    let infos = model.levels();
    let sizes = infos.iter().map(|info| info.code_space().map(|codes| codes.sizes.clone()));
    let sizes: Option<Vec<Vec<usize>>> = sizes.collect();
    let mut counts = sizes.map(|sizes| sizes.iter().map(|sizes| CodeCounts::new(sizes)).collect::<Result<Vec<_>, _>>());
    let mut counts = counts.take().transpose()?;
    let level = |(level, info)| Level { info, at: model.index(level), nats: Some(Vec::new()), bound: Some(("", 0.0)) };
    let mut levels: Vec<Level> = infos.into_iter().enumerate().map(level).collect();
    let mut batches = 0;
    cx.each_batch(dataset, (Split::Test, images), "likelihood", |first, batch| {
        let encoded = no_grad(|| model.encode(&batch.pixels))?;
        let mut above: Vec<Tokens> = Vec::new();
        let indices = &images[first..first + batch.labels.len()];
        let told = sampler.conditions().of_images(dataset, Split::Test, indices, &batch.labels)?;
        for (level, ((_, quantized), prior)) in encoded.iter().zip(sampler.levels()).enumerate() {
            if let (Some(counts), Tokens::Codes(codes)) = (&mut counts, &quantized.tokens) {
                counts[level].push(codes.as_slice())?;
            }
            let tokens = multiplied(&quantized.tokens, prior.scale)?;
            let condition = told.clone();
            let asked = TokenBatch { tokens: tokens.clone(), targets: Targets::Hard, condition, above: above.clone() };
            let nats = no_grad(|| prior.prior.likelihood(&asked))?;
            let of_bound = Rng::new(0, "bound", batches).part("level", level as u64);
            let bound = if nats.is_some() { None } else { no_grad(|| prior.prior.bound(&asked, &of_bound))? };
            levels[level].bound = levels[level].bound.zip(bound).map(|((_, sum), bound)| {
                let measure = match &bound {
                    Bound::Codes(_) => "prior_bound_bits",
                    Bound::Vectors(_) => "prior_vector_bound_bits",
                };
                (measure, sum + bound.nats().as_slice().iter().map(|&x| f64::from(x)).sum::<f64>())
            });
            match (nats, &mut levels[level].nats) {
                (Some(nats), Some(sums)) => {
                    sums.resize(nats.last_dim(), 0.0);
                    for row in nats.as_slice().chunks(nats.last_dim().max(1)) {
                        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
                    }
                }
                (_, sums) => *sums = None,
            }
            above.push(tokens);
        }
        batches += 1;
        Ok(())
    })?;
    let scales: Vec<f64> = sampler.levels().iter().map(|level| f64::from(level.scale)).collect();
    Ok(Test { readings: readings(&levels, &scales, images.len()), counts })
}

fn readings(levels: &[Level], scales: &[f64], images: usize) -> Vec<Reading> {
    let mut out = Vec::new();
    let mut total = Some(0.0);
    for (level, scale) in levels.iter().zip(scales) {
        let bits = |nats: f64| nats / images.max(1) as f64 / LN_2;
        out.extend(level.bound.map(|(measure, nats)| Reading::new(measure, level.at.clone(), bits(nats))));
        let bits: Option<Vec<f64>> = level.nats.as_ref().map(|all| all.iter().map(|&nats| bits(nats)).collect());
        let bits = bits.filter(|bits| !bits.is_empty());
        let Some(bits) = bits else {
            total = None;
            continue;
        };
        if level.info.code_space().is_some() {
            let depth = |(d, bits): (usize, &f64)| {
                Reading::new("prior_bits", level.at.iter().cloned().chain([Index::Depth(d + 1)]), *bits)
            };
            out.extend(bits.iter().enumerate().map(depth));
            total = total.map(|total: f64| total + bits.iter().sum::<f64>());
        } else {
            // Of the vectors x as the tokenizer makes them, not of s x, which the prior sees: p(x) = s^n p(s x) for n numbers.
            let numbers = level.info.token_shape(1).iter().product::<usize>() as f64;
            let density = bits.iter().sum::<f64>() - numbers * scale.log2();
            out.push(Reading::new("prior_density_bits", level.at.clone(), density));
            total = None;
        }
    }
    out.extend(total.filter(|_| !levels.is_empty()).map(|bits| Reading::new("prior_bits_per_image", [], bits)));
    out
}
