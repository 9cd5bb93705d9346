//! Token maps of several scales.

use crate::contracts::Tokens;
use crate::tensor::Tensor;
use crate::{Error, Result};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// What the tokens of the first scales say of those after them.
type Next = dyn Fn(&Tokens, Range<usize>) -> Result<Vec<Tensor>> + Send + Sync;

/// The maps of a level whose tokens are of several: from coarse to fine, each in raster order, one after another. The map
/// of such a level is one row of all of them; a prior that goes from position to position needs to know no more, one that
/// goes from scale to scale (Tian et al., "Visual autoregressive modeling", NeurIPS 2024) asks here.
#[derive(Clone)]
pub struct Scales {
    sizes: Vec<[usize; 2]>,
    next: Option<Arc<Next>>,
}

impl Scales {
    /// Maps of `sizes`, height and width, coarse to fine, of a quantizer that holds nothing: only a plan is being made.
    pub fn planned(sizes: Vec<[usize; 2]>) -> Self {
        Self { sizes, next: None }
    }

    /// Maps of `sizes`, height and width, coarse to fine. `next(tokens, scales)` makes of the tokens `[B, 1, T, D]` of at
    /// least the scales before the last of `scales`, for each n of these, the latents `[B, h_n, w_n, C]` that the first n
    /// stand for, in the size of the scale after them.
    pub fn new(
        sizes: Vec<[usize; 2]>,
        next: impl Fn(&Tokens, Range<usize>) -> Result<Vec<Tensor>> + Send + Sync + 'static,
    ) -> Self {
        Self { sizes, next: Some(Arc::new(next)) }
    }

    /// Height and width of each map.
    pub fn sizes(&self) -> &[[usize; 2]] {
        &self.sizes
    }

    /// Where the tokens of a scale lie in the row of all; an empty range where there is no such scale.
    pub fn positions(&self, scale: usize) -> Range<usize> {
        let area = |[height, width]: &[usize; 2]| height * width;
        let start = self.sizes.iter().take(scale).map(area).sum();
        start..start + self.sizes.get(scale).map_or(0, area)
    }

    /// What a prior sees of the scales before each of `scales`, counted from 0: the latents that their tokens stand for,
    /// resized to that scale, `[B, h, w, C]`. Tokens `[B, 1, T, D]` may be those before the last of them alone, or more.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for the first scale, for one that is not there, and in a plan; tokens that do not fit.
    pub fn before(&self, tokens: &Tokens, scales: Range<usize>) -> Result<Vec<Tensor>> {
        if scales.start == 0 || scales.end > self.sizes.len() {
            let message = format!("there is nothing to see before scales {scales:?} of {}", self.sizes.len());
            return Err(Error::Unsupported(message));
        }
        match &self.next {
            Some(next) => next(tokens, scales),
            None => Err(Error::Unsupported("a plan holds no tokens of any scale".to_owned())),
        }
    }
}

impl fmt::Debug for Scales {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scales({:?})", self.sizes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::tensor::Codes;

    #[test]
    fn scales_lie_one_after_another() {
        let scales = Scales::planned(vec![[1, 1], [2, 3], [4, 4]]);
        assert_eq!((scales.positions(0), scales.positions(1), scales.positions(2)), (0..1, 1..7, 7..23));
        assert!(scales.positions(3).is_empty());
    }

    #[test]
    fn nothing_lies_before_the_first_scale() {
        let sizes = vec![[1, 1], [2, 2]];
        let full = |scale: usize| Tensor::full(scale as f32, &[1, 2, 2, 1]);
        let known = Scales::new(sizes.clone(), move |_, scales| Ok(scales.map(full).collect()));
        let tokens = Tokens::Codes(Codes::from_vec(vec![0], &[1, 1, 1, 1]).unwrap());
        assert_eq!(known.before(&tokens, 1..2).unwrap()[0].to_vec(), [1.0; 4]);
        assert!(known.before(&tokens, 0..1).is_err() && known.before(&tokens, 1..3).is_err());
        assert!(Scales::planned(sizes).before(&tokens, 1..2).is_err());
    }
}
