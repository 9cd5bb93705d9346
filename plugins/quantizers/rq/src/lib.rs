//! Residual quantization (Lee et al., "Autoregressive image generation using residual quantization", CVPR 2022,
//! section 3.1), with the variants of vector-quantize-pytorch as switches.
//!
//! Shapes: latents `[.., C]`, usually `[B, h, w, C]`; codes `[.., D]`; depths count from 0.

mod config;
#[cfg(test)]
mod tests;

pub use config::{Commitment, RqConfig, StraightThrough, Update};

use rqlab_sdk::nn::{EmaCodebook, RestartDraw, SoftCodes, code_tokens, restart_candidates, rotate_to, soft_codes};
use rqlab_sdk::prelude::*;
use rqlab_sdk::tensor::ops::nearest::Search;
use rqlab_sdk::tensor::ops::residual::{partial_sums, residual_codes};

declare_plugin! {
    quantizer "rq": RqConfig => Rq::new;
}

/// A residual quantizer.
#[derive(Debug)]
pub struct Rq {
    config: RqConfig,
    latents: MapShape,
    sizes: Vec<usize>,
    books: Vec<EmaCodebook>,
    /// Whether the codebooks hold nothing: only a plan is being made.
    dry: bool,
}

/// Which codewords the depths chose, before any gradient is thought of.
#[derive(Debug, Clone)]
pub struct Assignments {
    /// The codes of each depth `[..]`.
    pub codes: Vec<Codes>,
    /// The codeword that each depth added `[.., C]`, as it was when it was looked up.
    pub codewords: Vec<Tensor>,
}

impl Rq {
    /// A quantizer with the codebooks `codebooks.0`, `codebooks.1`, ...; only the first if it is shared.
    ///
    /// # Errors
    /// Lists in the configuration that do not fit `depth` or `shared`.
    pub fn new(config: RqConfig, cx: &QuantizerContext) -> Result<Self> {
        let (sizes, rules) = (config.sizes()?, config.rules()?);
        let params = cx.params.scope("codebooks");
        let distinct = if config.shared { 1 } else { config.depth };
        let books = (0..distinct)
            .map(|d| EmaCodebook::new(&params.scope(d), sizes[d], cx.latents.channels, config.init, rules[d]))
            .collect::<Result<_>>()?;
        Ok(Self { config, latents: cx.latents, sizes, books, dry: cx.params.is_dry() })
    }

    fn book_index(&self, depth: usize) -> usize {
        if self.config.shared { 0 } else { depth }
    }

    fn book(&self, depth: usize) -> &EmaCodebook {
        &self.books[self.book_index(depth)]
    }

    /// Quantizes depth by depth in training. `found` is told each depth's residuals and codes; what it writes to the
    /// codebook is seen from the next depth on.
    fn assign(
        &self,
        latents: &Tensor,
        mut found: impl FnMut(usize, &Tensor, &Codes) -> Result<()>,
    ) -> Result<Assignments> {
        let mut residual = latents.detach();
        let mut assigned = Assignments { codes: Vec::new(), codewords: Vec::new() };
        for depth in 0..self.config.depth {
            let weight = self.book(depth).weight();
            let codes = self.book(depth).nearest(&residual)?;
            found(depth, &residual, &codes)?;
            let codeword = weight.embedding(&codes)?;
            if depth + 1 < self.config.depth {
                residual = residual.sub(&codeword)?;
            }
            assigned.codes.push(codes);
            assigned.codewords.push(codeword);
        }
        Ok(assigned)
    }

    /// One training step's codes and codebook updates. `candidates(depth, residuals, K)` gives what dead codes restart
    /// from, `[K, C]`; it is called only where there are any.
    ///
    /// # Errors
    /// Shapes that do not fit, and those of `candidates`.
    pub fn update(
        &mut self,
        latents: &Tensor,
        candidates: impl Fn(usize, &Tensor, usize) -> Result<Tensor>,
    ) -> Result<(Assignments, Vec<(&'static str, Tensor)>)> {
        let mut restarts = Tensor::scalar(0.0);
        let mut dead = vec![Tensor::scalar(0.0); self.books.len()];
        let mut settle = |depth: usize, residual: &Tensor| -> Result<()> {
            let book = self.book(depth);
            dead[self.book_index(depth)] = book.dead()?;
            if book.rule().restart {
                restarts = restarts.add(&book.restart(|| candidates(depth, residual, book.size()))?)?;
            }
            book.rewrite()
        };
        let assigned = match self.config.update {
            Update::PerDepth => self.assign(latents, |depth, residual, codes| {
                self.book(depth).accumulate(residual, codes)?;
                settle(depth, residual)
            })?,
            Update::PerStep => {
                let mut residuals = Vec::with_capacity(self.config.depth);
                let assigned = self.assign(latents, |depth, residual, codes| {
                    residuals.push(residual.clone());
                    self.book(depth).accumulate(residual, codes)
                })?;
                if self.config.shared {
                    settle(0, &Tensor::concat(&residuals.iter().collect::<Vec<_>>(), 0)?)?;
                } else {
                    residuals.iter().enumerate().try_for_each(|(depth, residual)| settle(depth, residual))?;
                }
                assigned
            }
        };
        let dead = dead.iter().try_fold(Tensor::scalar(0.0), |sum, dead| sum.add(dead))?;
        Ok((assigned, vec![("restarted_codes", restarts), ("dead_codes", dead)]))
    }

    /// The value, loss and gradients of assignments: commitment is `|x - sg(z_d)|²` for each partial sum `z_d`, averaged over
    /// elements.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn assemble(&self, latents: &Tensor, assigned: &Assignments) -> Result<Quantized> {
        let sums = partial_sums(latents, &assigned.codewords)?;
        let mut commitment = sums.total;
        if self.config.commitment == Commitment::Mean {
            commitment = commitment.mul_scalar(1.0 / assigned.codewords.len() as f32)?;
        }
        Ok(Quantized {
            latents: self.estimate(latents, assigned, &sums.sum)?,
            tokens: Tokens::Codes(Codes::stack(&assigned.codes)?),
            terms: vec![("commitment", commitment.detach())],
            loss: commitment.mul_scalar(self.config.beta)?,
            bits: None,
            residual_energy: sums.mse,
            events: Vec::new(),
        })
    }

    /// The quantized latents with the gradient of the chosen estimator.
    fn estimate(&self, latents: &Tensor, assigned: &Assignments, sum: &Tensor) -> Result<Tensor> {
        let pass = match self.config.straight_through {
            StraightThrough::Once => return Ok(latents.straight_through(sum)?),
            StraightThrough::PerDepth => |x: &Tensor, q: &Tensor| Ok(x.straight_through(q)?),
            StraightThrough::Rotation => rotate_to,
        };
        // The residual keeps its gradient to the latents; the codewords taken from it have none.
        let mut residual = latents.clone();
        let mut out: Option<Tensor> = None;
        for codeword in &assigned.codewords {
            let passed: Tensor = pass(&residual, codeword)?;
            out = Some(plus(out, &passed)?);
            residual = residual.sub(codeword)?;
        }
        Ok(out.unwrap_or_else(|| latents.clone()))
    }

    /// The codeword of each depth side by side: codes `[.., D]` to `[.., D, C]`.
    ///
    /// # Errors
    /// Codes out of range or not D of them.
    pub fn embed_by_depth(&self, codes: &Codes) -> Result<Tensor> {
        let rows = (0..self.config.depth).map(|depth| self.select(codes, depth)).collect::<Result<Vec<_>>>()?;
        let axis = codes.shape().len().saturating_sub(1);
        Ok(Tensor::stack(&rows.iter().collect::<Vec<_>>(), axis)?)
    }

    /// The codeword of one depth alone: codes `[.., D]` to `[.., C]`.
    ///
    /// # Errors
    /// Codes out of range, or no such depth.
    pub fn select(&self, codes: &Codes, depth: usize) -> Result<Tensor> {
        if depth >= self.config.depth || codes.last_dim() != self.config.depth {
            return Err(Error::Unsupported(format!(
                "depth index {depth} of codes {:?}, which should have depth {}",
                codes.shape(),
                self.config.depth
            )));
        }
        Ok(self.book(depth).weight().embedding(&codes.column(depth)?)?)
    }

    /// The distributions over codes at a temperature, along the nearest codes, or along codes drawn with `uniforms`: for each
    /// depth one number per position, in their order.
    ///
    /// # Errors
    /// A temperature not above 0, or shapes that do not fit.
    pub fn soft_codes_with(
        &self,
        latents: &Tensor,
        temperature: f32,
        uniforms: Option<&[Vec<f32>]>,
    ) -> Result<SoftCodes> {
        let mut residual = latents.detach();
        let (mut codes, mut targets) = (Vec::new(), Vec::new());
        for depth in 0..self.config.depth {
            let weight = self.book(depth).weight();
            let draws = uniforms.map(|all| all.get(depth).map_or(&[][..], Vec::as_slice));
            let (code, target) = soft_codes(&residual, &weight, temperature, draws)?;
            residual = residual.sub(&weight.embedding(&code)?)?;
            codes.push(code);
            targets.push(target);
        }
        Ok(SoftCodes { codes: Codes::stack(&codes)?, targets })
    }
}

impl Quantizer for Rq {
    fn level(&self) -> LevelInfo {
        let MapShape { height, width, channels } = self.latents;
        let tables = if self.dry { 0 } else { self.config.depth };
        let tables = (0..tables).map(|depth| self.book(depth).weight()).collect();
        let space = CodeSpace { sizes: self.sizes.clone(), tables, shared: self.config.shared };
        LevelInfo { height, width, channels, space: TokenSpace::Codes(space) }
    }

    fn quantize(&self, latents: &Tensor) -> Result<Quantized> {
        // The codebooks stay as they are, so each is prepared once.
        let searches = self.books.iter().map(EmaCodebook::search).collect::<Result<Vec<_>>>()?;
        let depths: Vec<&Search> = (0..self.config.depth).map(|depth| &searches[self.book_index(depth)]).collect();
        let all = residual_codes(latents, &depths)?;
        let mut assigned = Assignments { codes: Vec::new(), codewords: Vec::new() };
        for depth in 0..self.config.depth {
            let codes = all.column(depth)?;
            assigned.codewords.push(self.book(depth).weight().embedding(&codes)?);
            assigned.codes.push(codes);
        }
        self.assemble(latents, &assigned)
    }

    fn quantize_train(&mut self, latents: &Tensor, rng: &Rng) -> Result<Quantized> {
        let (assigned, events) = self.update(latents, |depth, residuals, size| {
            let channels = residuals.last_dim();
            let rng = rng.part("restart", depth as u64);
            let draw = RestartDraw::new(residuals.len() / channels.max(1), channels, size, &rng);
            restart_candidates(residuals, size, &draw)
        })?;
        Ok(Quantized { events, ..self.assemble(latents, &assigned)? })
    }

    fn tokens(&self, latents: &Tensor, request: &TokenRequest, rng: &Rng) -> Result<(Tokens, Targets)> {
        let positions = latents.len() / latents.last_dim().max(1);
        let nearest = || Ok(self.quantize(latents)?.tokens.codes()?.clone());
        code_tokens(request, rng, nearest, |temperature, draw| {
            let uniforms = draw.map(|rng| {
                let of_depth = |depth| rng.part("code", depth as u64).uniform(positions);
                (0..self.config.depth).map(of_depth).collect::<Vec<_>>()
            });
            self.soft_codes_with(latents, temperature, uniforms.as_deref())
        })
    }

    fn embed(&self, tokens: &Tokens, depth: Option<usize>) -> Result<Tensor> {
        let codes = tokens.codes()?;
        let mut sum = None;
        for d in 0..depth.unwrap_or(self.config.depth) {
            sum = Some(plus(sum, &self.select(codes, d)?)?);
        }
        sum.ok_or_else(|| Error::Unsupported("latents of depth 0 hold nothing; ask for depth 1 or more".to_owned()))
    }
}

/// `sum + term`, or `term` if there is no sum yet.
fn plus(sum: Option<Tensor>, term: &Tensor) -> Result<Tensor> {
    Ok(match sum {
        None => term.clone(),
        Some(sum) => sum.add(term)?,
    })
}
