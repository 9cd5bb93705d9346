//! The one place that draws codes: order of draws, randomness, guidance.

use crate::contracts::{Condition, ConditionSpace, Guidance, LevelInfo, SampleRequest, Tokens};
use crate::tensor::ops::sampling::sample;
use crate::tensor::{Codes, Rng, Tensor, no_grad};
use crate::{Error, Result};

/// A model that predicts codes one at a time: positions in raster order or in another, at each the depths in order.
pub trait CodeSteps {
    /// What it keeps from code to code.
    type State;

    /// The level that it models.
    fn level(&self) -> &LevelInfo;

    /// The conditions that it reads: where there are none, nothing can be guided.
    fn condition(&self) -> ConditionSpace;

    /// The positions of the map in the order in which they are predicted; `None` for raster order.
    fn order(&self) -> Option<&[u32]> {
        None
    }

    /// Starts `condition.images()` images. With `cache`, what was computed of past codes is kept; without, all of it is
    /// computed anew for each code.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn begin(&self, condition: &Condition, above: &[Tokens], cache: bool) -> Result<Self::State>;

    /// Logits `[B, .., K_d]` (K_d of them per image) of the next code of each image, given the one before, `[B]`; `None` at
    /// the first.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn next(&self, state: &mut Self::State, last: Option<&Codes>) -> Result<Tensor>;
}

/// Whether a prior that reads `condition` samples with guidance: every image then has a twin without its condition.
///
/// # Errors
/// [`Error::Unsupported`] for guidance that is not a number, or of a prior without conditions.
pub fn is_guided(guidance: &Guidance, condition: ConditionSpace) -> Result<bool> {
    if !guidance.is_on() {
        return Ok(false);
    }
    if !guidance.scale.is_finite() {
        return Err(Error::Unsupported(format!("the guidance scale must be a number, found {}", guidance.scale)));
    }
    if condition == ConditionSpace::None {
        let message = "an unconditional prior has nothing to be guided by: leave the guidance scale at 1, or train the prior \
                       with a condition";
        return Err(Error::Unsupported(message.to_owned()));
    }
    Ok(true)
}

/// Draws the codes `[B, h, w, D]` that a request asks for.
///
/// With guidance every image is computed twice, with and without its condition, and draws from the mixed logits (see
/// [`Guidance`]). The schedule's progress is the share of positions that are known, so that all depths of one share a scale: t /
/// T at position t of T, as published for RAR. Code n of an image is drawn with the n-th stream of `rng`, whatever the guidance.
///
/// # Errors
/// Those of the model; guidance that is not a number, or of a prior without conditions.
pub fn sample_codes<P: CodeSteps>(prior: &P, request: &SampleRequest, rng: &Rng) -> Result<Tokens> {
    let level = prior.level();
    let (images, depth, positions) = (request.images(), level.depth(), level.positions());
    let wanted = level.token_shape(images);
    if images == 0 {
        return Ok(Tokens::Codes(Codes::from_vec(Vec::new(), &wanted)?));
    }
    let guided = is_guided(&request.guidance, prior.condition())?;
    let codes = no_grad(|| -> Result<Codes> {
        let mut state = if guided {
            let twice: Vec<usize> = (0..images).flat_map(|image| [image, image]).collect();
            let above = request.above.iter().map(|level| level.rows(&twice)).collect::<Result<Vec<_>>>()?;
            prior.begin(&request.condition.paired()?, &above, request.cache)?
        } else {
            prior.begin(&request.condition, &request.above, request.cache)?
        };
        let mut drawn: Vec<Codes> = Vec::with_capacity(positions * depth);
        let mut last: Option<Codes> = None;
        for n in 0..positions * depth {
            let logits = prior.next(&mut state, last.as_ref())?;
            let size = logits.last_dim();
            let logits = if guided {
                let scale = request.guidance.at_progress((n / depth) as f32 / positions as f32);
                Guidance::mix(&logits.reshape(&[images, 2, size])?, scale)?
            } else {
                logits.reshape(&[images, size])?
            };
            let uniforms = rng.part("code", n as u64).uniform(images);
            let codes = sample(&logits, &request.draw_at(n % depth), &uniforms)?.reshape(&[images])?;
            // Where a GPU drew them they stay there, and nothing waits for it.
            last = Some(if guided {
                Codes::stack(&[codes.clone(), codes.clone()])?.reshape(&[2 * images])?
            } else {
                codes.clone()
            });
            drawn.push(codes);
        }
        Ok(Codes::stack(&in_raster_order(drawn, prior.order(), depth))?.reshape(&wanted)?)
    })?;
    Ok(Tokens::Codes(codes))
}

/// Codes of D depths in raster order, given them in the order of prediction.
fn in_raster_order(drawn: Vec<Codes>, order: Option<&[u32]>, depth: usize) -> Vec<Codes> {
    let Some(order) = order else { return drawn };
    let mut placed: Vec<(usize, Codes)> = drawn
        .into_iter()
        .enumerate()
        .map(|(n, codes)| (order.get(n / depth).map_or(n, |&position| position as usize * depth + n % depth), codes))
        .collect();
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, codes)| codes).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::contracts::{CodeSpace, GuidanceSchedule, TokenSpace};

    /// Logits that depend on nothing but whether the condition is there: code 0 with it, code 1 without.
    struct Toy(LevelInfo);

    impl CodeSteps for Toy {
        type State = Condition;

        fn level(&self) -> &LevelInfo {
            &self.0
        }

        fn condition(&self) -> ConditionSpace {
            ConditionSpace::Classes(1)
        }

        fn begin(&self, condition: &Condition, _: &[Tokens], _: bool) -> Result<Condition> {
            Ok(condition.clone())
        }

        fn next(&self, condition: &mut Condition, last: Option<&Codes>) -> Result<Tensor> {
            assert!(last.is_none_or(|codes| codes.len() == condition.images()));
            let row = |&present: &u32| if present == 1 { [1.0, 0.0, 0.0] } else { [0.0, 1.0, 0.0] };
            let data = condition.present.as_slice().iter().flat_map(row).collect();
            Ok(Tensor::from_vec(data, &[condition.images(), 1, 3])?)
        }
    }

    /// Codes of two depths for a row of `positions`, 10,000 in all of each position.
    fn drawn(guidance: Guidance, positions: usize) -> Vec<u32> {
        let space = TokenSpace::Codes(CodeSpace { sizes: vec![3; 2], tables: vec![], shared: false });
        let toy = Toy(LevelInfo { height: 1, width: positions, channels: 1, space, scales: None });
        let labels = Codes::from_vec(vec![0; 5000], &[5000]).unwrap();
        let request = SampleRequest { guidance, ..SampleRequest::new(Condition::classes(labels).unwrap()) };
        let tokens = sample_codes(&toy, &request, &Rng::new(0, "toy", 0)).unwrap();
        assert_eq!(tokens.shape(), [5000, 1, positions, 2]);
        tokens.codes().unwrap().as_slice().to_vec()
    }

    /// Whether 10,000 codes come as often as from `u + s (c - u)` of the toy's logits: s for code 0, 1 - s for code 1, 0 for
    /// code 2.
    fn assert_guided(codes: &[u32], scale: f32) {
        let weights = [scale, 1.0 - scale, 0.0].map(f32::exp);
        for (k, weight) in weights.into_iter().enumerate() {
            let share = codes.iter().filter(|&&code| code as usize == k).count() as f32 / 1e4;
            let p = weight / weights.iter().sum::<f32>();
            // Five standard errors of a share among 10,000.
            assert!((share - p).abs() < 5.0 * (p * (1.0 - p) / 1e4).sqrt(), "scale {scale}: {share} of {p}");
        }
    }

    #[test]
    fn guided_codes_come_from_the_mixed_logits() {
        for scale in [0.0, 1.0, 3.0] {
            assert_guided(&drawn(Guidance { scale, schedule: GuidanceSchedule::Constant }, 1), scale);
        }
    }

    /// As published for RAR: position t of T has the progress t / T, and no position has 1.
    #[test]
    fn the_scale_follows_the_share_of_known_positions() {
        let codes = drawn(Guidance { scale: 5.0, schedule: GuidanceSchedule::Linear }, 4);
        for (position, scale) in [1.0, 2.0, 3.0, 4.0].into_iter().enumerate() {
            let of_position = codes.chunks(2).skip(position).step_by(4).flatten().copied().collect::<Vec<_>>();
            assert_guided(&of_position, scale);
        }
    }

    #[test]
    fn an_unconditional_prior_is_not_guided() {
        struct Unconditional(LevelInfo);

        impl CodeSteps for Unconditional {
            type State = ();

            fn level(&self) -> &LevelInfo {
                &self.0
            }

            fn condition(&self) -> ConditionSpace {
                ConditionSpace::None
            }

            fn begin(&self, _: &Condition, _: &[Tokens], _: bool) -> Result<()> {
                Ok(())
            }

            fn next(&self, _: &mut (), last: Option<&Codes>) -> Result<Tensor> {
                Ok(Tensor::zeros(&[last.map_or(2, Codes::len), 3]))
            }
        }

        let space = CodeSpace { sizes: vec![3], tables: vec![], shared: false };
        let toy = Unconditional(LevelInfo {
            height: 1,
            width: 2,
            channels: 1,
            space: TokenSpace::Codes(space),
            scales: None,
        });
        let plain = SampleRequest::new(Condition::none(2).unwrap());
        assert!(sample_codes(&toy, &plain, &Rng::new(0, "toy", 0)).is_ok());
        for scale in [2.0, f32::NAN] {
            let guidance = Guidance { scale, schedule: GuidanceSchedule::Constant };
            assert!(sample_codes(&toy, &SampleRequest { guidance, ..plain.clone() }, &Rng::new(0, "toy", 0)).is_err());
        }
    }
}
