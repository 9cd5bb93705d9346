//! Vectors on a grid: each channel takes a few evenly spaced values, so that a code is found without a search and its vector
//! without a codebook. What FSQ, LFQ and BSQ have in common.

use super::{Projection, SoftCodes, code_tokens, soft_codes};
use crate::config::ConfigError;
use crate::contracts::{CodeSpace, LevelInfo, MapShape, QuantizerContext, Targets, TokenRequest, TokenSpace, Tokens};
use crate::tensor::{Codes, Rng, Tensor};
use crate::{Error, Result};
use std::ops::Range;
use std::sync::OnceLock;

/// The most codes that one code is chosen among: each has a row in a table that priors may embed with.
const MOST: usize = 1 << 20;

/// The values of one channel: digit i stands for `first + i step`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GridAxis {
    /// How many values there are.
    pub levels: usize,
    /// The value of digit 0.
    pub first: f32,
    /// From one value to the next.
    pub step: f32,
}

impl GridAxis {
    /// The two values `-magnitude` and `magnitude`.
    pub fn bit(magnitude: f32) -> Self {
        Self { levels: 2, first: -magnitude, step: 2.0 * magnitude }
    }
}

crate::choice! {
    /// Which bit of a code the first channel is. Published codes differ, and stored codes mean nothing without it.
    pub enum BitOrder {
        /// The least significant: Open-MAGVIT2, MaskBit.
        LsbFirst = "lsb_first",
        /// The most significant: BSQ, vector-quantize-pytorch.
        MsbFirst = "msb_first",
    }
}

/// What the fields of a quantizer say of its grid.
#[derive(Debug, Clone)]
pub struct GridSettings<'a> {
    /// The values of each channel.
    pub axes: Vec<GridAxis>,
    /// Whether the first channel is the lowest or the highest digit of a code.
    pub order: BitOrder,
    /// Channels of each sub-token; `None` for one code per position.
    pub sub_tokens: Option<&'a [usize]>,
    /// Whether latents of any width are projected to the grid's.
    pub projection: bool,
    /// The field that fixes the number of channels, for complaints.
    pub field: &'a str,
}

/// A grid in c channels, whose points are the codes of D sub-tokens: each a number whose digits are those of its channels.
/// The vector of a code has zeros in the channels of other sub-tokens, so that those of a position sum to its point.
#[derive(Debug)]
pub struct GridCodes {
    latents: MapShape,
    projection: Projection,
    axes: Vec<GridAxis>,
    order: BitOrder,
    /// The channels of each sub-token.
    parts: Vec<Range<usize>>,
    sizes: Vec<usize>,
    tables: OnceLock<Vec<Tensor>>,
    /// Whether only a plan is being made.
    dry: bool,
}

impl GridCodes {
    /// The grid of a quantizer built in `cx`, with the parameters of its [`Projection`].
    ///
    /// # Errors
    /// Latents of another width without a projection, sub-tokens that do not share out the channels, a sub-token of too many
    /// codes.
    pub fn new(cx: &QuantizerContext, settings: GridSettings<'_>) -> Result<Self> {
        let GridSettings { axes, order, sub_tokens, projection, field } = settings;
        let channels = axes.len();
        let widths = sub_tokens.map_or_else(|| vec![channels], <[usize]>::to_vec);
        if widths.iter().sum::<usize>() != channels || widths.contains(&0) {
            let message = format!("sub-tokens of {widths:?} channels do not share out {channels} channels");
            return Err(ConfigError::field("sub_tokens", message).into());
        }
        let mut parts = Vec::with_capacity(widths.len());
        for width in widths {
            let start = parts.last().map_or(0, |part: &Range<usize>| part.end);
            parts.push(start..start + width);
        }
        let size = |part: &Range<usize>| {
            axes[part.clone()].iter().try_fold(1, |size: usize, axis| size.checked_mul(axis.levels))
        };
        let sizes = parts.iter().map(|part| size(part).filter(|size| *size <= MOST)).collect::<Option<Vec<_>>>();
        let Some(sizes) = sizes else {
            let bits: f64 = axes.iter().map(|axis| (axis.levels as f64).log2()).sum();
            let message = format!(
                "2^{} codes are more than one code can be chosen among, {MOST}; have a position hold several \
                 codes: `sub_tokens: [..]` with the channels of each, {channels} in all",
                (10.0 * bits).round() / 10.0
            );
            return Err(ConfigError::field(field, message).into());
        };
        let projection = Projection::fixed(&cx.params, cx.latents.channels, channels, projection, field)?;
        let dry = cx.params.is_dry();
        Ok(Self { latents: cx.latents, projection, axes, order, parts, sizes, tables: OnceLock::new(), dry })
    }

    /// Latents `[.., C]` to vectors `[.., c]`, and back.
    pub fn projection(&self) -> &Projection {
        &self.projection
    }

    /// The level of tokens, with the vectors of all codes as tables.
    pub fn level(&self) -> LevelInfo {
        let MapShape { height, width, channels } = self.latents;
        let tables = if self.dry { Ok(vec![]) } else { self.tables().and_then(|t| self.projection.tables(t)) };
        // There is no failure: the tables were made to fit.
        let tables = tables.unwrap_or_default();
        let space = CodeSpace { sizes: self.sizes.clone(), tables, shared: false };
        LevelInfo { height, width, channels, space: TokenSpace::Codes(space), scales: None }
    }

    /// The points `[.., c]` of digits `[.., c]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn points(&self, digits: &Tensor) -> Result<Tensor> {
        let (first, step) = (self.by_channel(|_, axis| axis.first)?, self.by_channel(|_, axis| axis.step)?);
        Ok(digits.mul(&step)?.add(&first)?)
    }

    /// The codes `[.., D]` of digits `[.., c]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn codes(&self, digits: &Tensor) -> Result<Codes> {
        let last = digits.rank().saturating_sub(1);
        let column = |(part, &size): (&Range<usize>, &usize)| -> Result<Codes> {
            let weights = self.place_values(part);
            let weights = self.by_channel(|channel, _| weights.get(channel).copied().unwrap_or(0.0))?;
            Ok(digits.mul(&weights)?.sum(&[last], false)?.to_codes(size)?)
        };
        Ok(Codes::stack(&self.parts.iter().zip(&self.sizes).map(column).collect::<Result<Vec<_>>>()?)?)
    }

    /// What the digit of each channel counts in the code of the sub-token `part`: 0 of others.
    fn place_values(&self, part: &Range<usize>) -> Vec<f32> {
        let mut values = vec![0.0; self.axes.len()];
        let mut value = 1;
        let mut count = |channel: usize| {
            values[channel] = value as f32;
            value *= self.axes[channel].levels;
        };
        match self.order {
            BitOrder::LsbFirst => part.clone().for_each(&mut count),
            BitOrder::MsbFirst => part.clone().rev().for_each(&mut count),
        }
        values
    }

    /// One number per channel, `[c]`.
    fn by_channel(&self, number: impl Fn(usize, &GridAxis) -> f32) -> Result<Tensor> {
        let numbers = self.axes.iter().enumerate().map(|(channel, axis)| number(channel, axis)).collect();
        Ok(Tensor::from_vec(numbers, &[self.axes.len()])?)
    }

    /// The vectors of the codes of each sub-token, `[K_d, c]`.
    ///
    /// # Errors
    /// A device that fails.
    pub fn tables(&self) -> Result<&[Tensor]> {
        if self.tables.get().is_none() {
            let made = self.parts.iter().zip(&self.sizes).map(|(part, &size)| self.table(part, size));
            // Of two that were made at once, one is dropped.
            let _ = self.tables.set(made.collect::<Result<_>>()?);
        }
        Ok(self.tables.get().map_or(&[], Vec::as_slice))
    }

    fn table(&self, part: &Range<usize>, size: usize) -> Result<Tensor> {
        let place_values = self.place_values(part);
        let mut vectors = vec![0.0; size * self.axes.len()];
        for (code, vector) in vectors.chunks_exact_mut(self.axes.len()).enumerate() {
            for channel in part.clone() {
                let GridAxis { levels, first, step } = self.axes[channel];
                vector[channel] = first + (code / place_values[channel] as usize % levels) as f32 * step;
            }
        }
        Ok(Tensor::from_vec(vectors, &[size, self.axes.len()])?)
    }

    /// The latents `[.., C]` of codes `[.., D]`, from their first `depth` sub-tokens, or all.
    ///
    /// # Errors
    /// Codes out of range or not D of them, no such depth.
    pub fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        let (codes, all) = (tokens.codes()?, self.sizes.len());
        let depth = depth.unwrap_or(all);
        if !(1..=all).contains(&depth) || codes.last_dim() != all {
            let message = format!("a position has {all} sub-tokens; asked for {depth} of codes {:?}", codes.shape());
            return Err(Error::Unsupported(message));
        }
        let tables = self.tables()?;
        let mut point = tables[0].embedding(&codes.column(0)?)?;
        for (d, table) in tables.iter().enumerate().take(depth).skip(1) {
            point = point.add(&table.embedding(&codes.column(d)?)?)?;
        }
        self.projection.project_out(&point)
    }

    /// Mean square of what is left of vectors `[.., c]` after the points `[.., c]` of their first d sub-tokens, for d from 1
    /// to D: `[D]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn residual_energy(&self, vectors: &Tensor, points: &Tensor) -> Result<Tensor> {
        let (vectors, points) = (vectors.detach(), points.detach());
        let energies = self.parts.iter().map(|part| {
            let taken = self.by_channel(|channel, _| if channel < part.end { 1.0 } else { 0.0 })?;
            Ok(vectors.mse(&points.mul(&taken)?)?)
        });
        Ok(Tensor::stack(&energies.collect::<Result<Vec<_>>>()?.iter().collect::<Vec<_>>(), 0)?)
    }

    /// The tokens and targets of a request for vectors `[.., c]`, whose own codes `nearest` gives. Distributions over codes
    /// are those of vector quantization, `softmax(-|v - e_k|² / T)` with distances in the channels of the sub-token.
    ///
    /// # Errors
    /// Those of [`code_tokens`] and [`soft_codes`].
    pub fn tokens(
        &self,
        vectors: &Tensor,
        request: &TokenRequest,
        rng: &Rng,
        nearest: impl FnOnce() -> Result<Codes>,
    ) -> Result<(Tokens, Targets)> {
        let positions = vectors.len() / vectors.last_dim().max(1);
        code_tokens(request, rng, nearest, |temperature, draw| {
            let (mut codes, mut targets) = (Vec::new(), Vec::new());
            for (d, table) in self.tables()?.iter().enumerate() {
                let uniforms = draw.map(|rng| rng.part("code", d as u64).uniform(positions));
                let (code, target) = soft_codes(vectors, table, temperature, uniforms.as_deref())?;
                codes.push(code);
                targets.push(target);
            }
            Ok(SoftCodes { codes: Codes::stack(&codes)?, targets })
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::contracts::Components;
    use crate::nn::testing::random;
    use crate::params::Params;

    fn grid(levels: &[usize], order: BitOrder, sub_tokens: Option<&[usize]>) -> Result<GridCodes> {
        let latents = MapShape { height: 1, width: 1, channels: levels.len() };
        let cx = QuantizerContext { latents, params: Params::new(1), components: Components::none() };
        let axes = levels.iter().map(|&levels| GridAxis { levels, first: -1.0, step: 0.5 }).collect();
        GridCodes::new(&cx, GridSettings { axes, order, sub_tokens, projection: false, field: "levels" })
    }

    fn digits(rows: &[&[u32]]) -> Tensor {
        Tensor::from_vec(rows.concat().iter().map(|&d| d as f32).collect(), &[rows.len(), rows[0].len()]).unwrap()
    }

    #[test]
    fn a_code_has_the_digits_of_its_channels() {
        let digits = digits(&[&[1, 0, 2], &[3, 1, 0]]);
        let code = |order, sub_tokens| grid(&[4, 2, 3], order, sub_tokens).unwrap().codes(&digits).unwrap();
        assert_eq!(code(BitOrder::LsbFirst, None).as_slice(), [1 + 2 * 8, 3 + 4]);
        assert_eq!(code(BitOrder::MsbFirst, None).as_slice(), [6 + 2, 3 * 6 + 3]);
        let two = code(BitOrder::LsbFirst, Some(&[1, 2]));
        assert_eq!((two.shape(), two.as_slice()), (&[2, 2][..], &[1, 4, 3, 1][..]));
    }

    #[test]
    fn codes_and_points_undo_each_other() {
        for order in [BitOrder::LsbFirst, BitOrder::MsbFirst] {
            for sub_tokens in [None, Some(&[2, 1][..])] {
                let grid = grid(&[4, 2, 3], order, sub_tokens).unwrap();
                let all: Vec<f32> = (0..24).flat_map(|i| [i % 4, i / 4 % 2, i / 8].map(|d| d as f32)).collect();
                let digits = Tensor::from_vec(all, &[24, 3]).unwrap();
                let (points, codes) = (grid.points(&digits).unwrap(), Tokens::Codes(grid.codes(&digits).unwrap()));
                assert_eq!(grid.embed(&codes, None).unwrap().to_vec(), points.to_vec());
                assert!(grid.embed(&codes, Some(0)).is_err());
                assert!(grid.embed(&codes, Some(grid.sizes.len() + 1)).is_err());
            }
        }
    }

    /// Without the second sub-token, its channels are zero.
    #[test]
    fn residual_energy_is_what_partial_points_leave() {
        let grid = grid(&[4, 2, 3], BitOrder::LsbFirst, Some(&[1, 2])).unwrap();
        let (x, digits) = (random(&[2, 3], 1), digits(&[&[1, 0, 2], &[3, 1, 0]]));
        let codes = Tokens::Codes(grid.codes(&digits).unwrap());
        let energy = grid.residual_energy(&x, &grid.points(&digits).unwrap()).unwrap();
        for (depth, energy) in (1..=2).zip(energy.to_vec()) {
            let wanted = grid.embed(&codes, Some(depth)).unwrap().mse(&x).unwrap().item().unwrap();
            assert!((energy - wanted).abs() < 1e-6, "{energy} {wanted}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let complaint =
            |levels: &[usize], sub_tokens| grid(levels, BitOrder::LsbFirst, sub_tokens).unwrap_err().to_string();
        assert!(complaint(&[2; 36], None).contains("2^36 codes"));
        assert!(complaint(&[2; 64], Some(&[32, 32])).contains("`sub_tokens: [..]`"));
        assert!(complaint(&[2; 6], Some(&[3, 2])).contains("do not share out 6 channels"));
        assert!(complaint(&[2; 6], Some(&[6, 0])).contains("do not share out"));
        assert_eq!(grid(&[2; 36], BitOrder::LsbFirst, Some(&[18, 18])).unwrap().sizes, [1 << 18; 2]);
    }
}
