//! Measures how well a tokenizer decodes codes that are nearly right: what it meets when a prior errs.

use super::features::{Described, FeatureNet};
use super::subset::test_images;
use super::{Context, DescribeReference, Stage, Tokenizer, as_json, load_tokenizer};
use crate::id::Id;
use crate::needs::enough;
use crate::settings::{Evaluation, Precision};
use crate::shared::Shared;
use crate::store::Done;
use rqlab_reports::Reading;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::config::Scope;
use rqlab_sdk::contracts::{Quantizer, Split, Tokens};
use rqlab_sdk::tensor::{Codes, Rng, no_grad};
use rqlab_sdk::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Measures images decoded from perturbed codes (pFID's way: Qiu et al. 2025, "Image Tokenizer Needs Post-Training"): each code
/// of a test image becomes, with some probability, one of the codes nearest to it, itself among them, all equally likely.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MeasurePerturbation {
    /// The tokenizer's job.
    pub tokenizer: Id,
    /// The jobs of the classifier and of its reference.
    pub features: [Id; 2],
    /// What is measured; settings that do not count here are at their defaults.
    pub evaluation: Shared<Evaluation>,
}

impl MeasurePerturbation {
    /// See [`Stage::name`].
    pub const NAME: &str = "perturbation";
}

impl Stage for MeasurePerturbation {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn revision(&self) -> u32 {
        1
    }

    fn needs(&self) -> Vec<&str> {
        std::iter::once(&self.tokenizer).chain(&self.features).map(|id| &**id).collect()
    }

    fn identity(&self) -> Result<Value> {
        Ok(json!(self.evaluation.identity(Scope::Sampling)?))
    }

    fn precision(&self) -> Precision {
        self.evaluation.precision
    }

    fn work(&self) -> f64 {
        (self.evaluation.images * self.evaluation.perturbation.len()) as f64
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        let (dataset, model) = load_tokenizer(cx.plugins, cx.store, &self.tokenizer)?;
        let info = dataset.info();
        let [classifier, reference] = &self.features;
        let net = FeatureNet::load(cx.store, classifier, info.image[2], info.classes.len())?;
        let real = DescribeReference::load(&cx.store.stage(reference))?;
        let shares = &self.evaluation.perturbation;
        let mut neighbours: Vec<Neighbours<'_>> = model
            .quantizers
            .iter()
            .map(|quantizer| Neighbours::new(quantizer.as_ref(), self.evaluation.perturbation_neighbours))
            .collect::<Result<_>>()?;
        let mut described: Vec<Described> = shares.iter().map(|_| Described::new(info.classes.len())).collect();
        let chosen = test_images(dataset.as_ref(), self.evaluation.images)?;
        let perturbed = (chosen.len() as f32 * self.evaluation.perturbation_images) as usize;
        cx.each_batch(dataset.as_ref(), (Split::Test, &chosen), "", |first, images| {
            let encoded = no_grad(|| model.encode(&images.pixels))?;
            for (&share, described) in shares.iter().zip(&mut described) {
                let rng = Rng::new(0, "perturbation", first as u64).part("share", u64::from(share.to_bits()));
                let tokens = encoded.iter().zip(&mut neighbours).enumerate().map(|(level, ((_, quantized), near))| {
                    near.perturb(
                        &quantized.tokens,
                        perturbed.saturating_sub(first),
                        share,
                        &rng.part("level", level as u64),
                    )
                });
                let tokens = tokens.collect::<Result<Vec<_>>>()?;
                described.extend(&net.describe(&decoded(&model, &tokens)?)?);
            }
            Ok(())
        })?;
        let mut readings = Vec::new();
        if enough("perturbed_frechet", real.images(), 0) {
            let distances = described.iter().map(|seen| seen.frechet(&real)).collect::<Result<Vec<f64>>>()?;
            let mean = distances.iter().sum::<f64>() / distances.len().max(1) as f64;
            readings.push(Reading::new("perturbed_frechet", [], mean));
        }
        // Nothing but the reading is worth keeping.
        Checkpoint::default().save(&cx.dir().result())?;
        Ok(Done { readings, ..Done::default() })
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

fn decoded(model: &Tokenizer, tokens: &[Tokens]) -> Result<rqlab_sdk::tensor::Tensor> {
    no_grad(|| Ok(model.decode(tokens, None)?.clamp(-1.0, 1.0)?))
}

/// The codes of a level, and those nearest to each. The list of a code is made when it is first met.
struct Neighbours<'a> {
    quantizer: &'a dyn Quantizer,
    /// The codes' vectors by depth, row-major `[K, C]`, up to a constant that all of a depth have in common.
    vectors: Vec<Vec<f32>>,
    channels: usize,
    /// How many codes are near.
    count: usize,
    known: HashMap<(usize, u32), Vec<u32>>,
}

impl<'a> Neighbours<'a> {
    fn new(quantizer: &'a dyn Quantizer, count: usize) -> Result<Self> {
        let level = quantizer.level();
        let Some(space) = level.code_space() else {
            return Err(Error::Unsupported("the tokens are vectors, and have no nearest codes".to_owned()));
        };
        let (positions, depths) = (level.positions(), level.depth());
        let mut vectors = Vec::with_capacity(depths);
        let mut channels = 0;
        for (depth, &size) in space.sizes.iter().enumerate() {
            // Maps whose positions hold the codes of this depth in turn, and the first code at all other depths.
            let maps = size.div_ceil(positions);
            let mut codes = vec![0; maps * positions * depths];
            for (code, position) in codes.chunks_mut(depths).enumerate() {
                position[depth] = code.min(size - 1) as u32;
            }
            let codes = Tokens::Codes(Codes::from_vec(codes, &level.token_shape(maps))?);
            let latents = no_grad(|| quantizer.embed(&codes, None))?;
            channels = latents.last_dim();
            vectors.push(latents.as_slice()[..size * channels].to_vec());
        }
        Ok(Self { quantizer, vectors, channels, count, known: HashMap::new() })
    }

    /// The nearest codes of one at a depth, itself first.
    fn of(&mut self, depth: usize, code: u32) -> &[u32] {
        let (vectors, channels, count) = (&self.vectors[depth], self.channels, self.count);
        self.known.entry((depth, code)).or_insert_with(|| {
            let own = &vectors[code as usize * channels..][..channels];
            let distance = |other: &[f32]| own.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
            let mut codes: Vec<(f32, u32)> = vectors.chunks(channels.max(1)).map(distance).zip(0..).collect();
            // Equal vectors do not push a code out of its own list.
            codes[code as usize].0 = -1.0;
            let by_distance = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
            if count < codes.len() {
                codes.select_nth_unstable_by(count, by_distance);
                codes.truncate(count);
            }
            codes.sort_unstable_by(by_distance);
            codes.into_iter().map(|(_, code)| code).collect()
        })
    }

    /// The tokens with a share of the codes of the first `images` images replaced.
    fn perturb(&mut self, tokens: &Tokens, images: usize, share: f32, rng: &Rng) -> Result<Tokens> {
        let codes = tokens.codes()?;
        let reach = images.saturating_mul(codes.len() / tokens.images().max(1));
        let depths = self.quantizer.level().depth().max(1);
        let chosen = rng.part("chosen", 0).uniform(codes.len());
        let drawn = rng.part("drawn", 0).uniform(codes.len());
        let perturbed = codes.as_slice().iter().enumerate().map(|(i, &code)| {
            if i >= reach || chosen[i] >= share {
                return code;
            }
            let near = self.of(i % depths, code);
            near[((drawn[i] * near.len() as f32) as usize).min(near.len() - 1)]
        });
        Ok(Tokens::Codes(Codes::from_vec(perturbed.collect(), codes.shape())?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use rqlab_sdk::contracts::{CodeSpace, LevelInfo, Quantized, TokenSpace};
    use rqlab_sdk::tensor::Tensor;

    /// Codes on a line: code k of depth d lies at 10^d times k.
    struct Line;

    impl Quantizer for Line {
        fn level(&self) -> LevelInfo {
            let codes = CodeSpace { sizes: vec![5, 3], tables: vec![], shared: false };
            LevelInfo { height: 2, width: 1, channels: 1, space: TokenSpace::Codes(codes), scales: None }
        }

        fn quantize(&self, _: &Tensor) -> Result<Quantized> {
            Err(Error::Unsupported("nothing is encoded here".to_owned()))
        }

        fn embed(&self, tokens: &Tokens, _: Option<usize>) -> Result<Tensor> {
            let codes = tokens.codes()?;
            let at = |stack: &[u32]| stack[0] as f32 + 10.0 * stack[1] as f32;
            Ok(Tensor::from_vec(codes.as_slice().chunks(2).map(at).collect(), &[codes.shape()[0], 2, 1, 1])?)
        }
    }

    #[test]
    fn the_nearest_codes_of_each_depth_are_found_in_order() {
        let mut near = Neighbours::new(&Line, 3).unwrap();
        assert_eq!(near.of(0, 0), [0, 1, 2]);
        assert_eq!(near.of(0, 2), [2, 1, 3]);
        assert_eq!(near.of(0, 4), [4, 3, 2]);
        assert_eq!(near.of(1, 2), [2, 1, 0]);
        // More than there are codes: all of them.
        assert_eq!(Neighbours::new(&Line, 100).unwrap().of(1, 0), [0, 1, 2]);
    }

    #[test]
    fn a_share_of_the_codes_becomes_one_of_the_nearest() {
        let codes = Codes::from_vec([2, 1].repeat(4000), &[2000, 2, 1, 2]).unwrap();
        let tokens = Tokens::Codes(codes.clone());
        let mut near = Neighbours::new(&Line, 2).unwrap();
        let perturbed = |near: &mut Neighbours<'_>, share| {
            near.perturb(&tokens, 2000, share, &Rng::new(0, "test", 0)).unwrap().codes().unwrap().as_slice().to_vec()
        };
        assert_eq!(perturbed(&mut near, 0.0), codes.as_slice());
        let half = perturbed(&mut near, 0.5);
        // Of the half that is drawn anew, half keeps its code: 1000 of 4000 change at each depth, give or take 27.
        for (depth, own, other) in [(0, 2, 1), (1, 1, 0)] {
            let found: Vec<u32> = half.iter().skip(depth).step_by(2).copied().collect();
            let changed = found.iter().filter(|&&code| code == other).count();
            assert!(found.iter().all(|&code| code == own || code == other));
            assert!((880..1120).contains(&changed), "{changed}");
        }
    }
}
