//! Quantizers that hold others: how these are built, and what becomes of all that they say.

use crate::config::{ConfigError, QuantizerCall};
use crate::contracts::{MapShape, Quantized, Quantizer, QuantizerContext};
use crate::params::Params;
use crate::tensor::{Codes, Tensor};
use crate::{Error, Result};

crate::choice! {
    /// How the losses of the quantizers that one holds become one.
    pub enum Losses {
        /// Their mean.
        Mean = "mean",
        /// Their sum (vector-quantize-pytorch).
        Sum = "sum",
    }
}

/// The quantizers of codes that one holds: as many as asked for, or one that serves for all.
pub struct Held {
    quantizers: Vec<Box<dyn Quantizer>>,
    count: usize,
    /// Codes per position of each.
    depth: usize,
}

impl Held {
    /// `count` quantizers of `latents`, each with parameters of its own under `of.0`, `of.1`, ..; or one under `of`, if
    /// it is `shared` or the only one.
    ///
    /// # Errors
    /// Those of the quantizers; one whose tokens are vectors, or of several scales.
    pub fn new(
        of: &QuantizerCall,
        count: usize,
        shared: bool,
        latents: MapShape,
        cx: &QuantizerContext,
    ) -> Result<Self> {
        let build = |params: Params| {
            let context = QuantizerContext { latents, params, components: cx.components.clone() };
            cx.components.quantizer(&of.0, &context)
        };
        let own = cx.params.scope("of");
        let quantizers = if shared || count == 1 {
            vec![build(own)?]
        } else {
            (0..count).map(|n| build(own.scope(n))).collect::<Result<_>>()?
        };
        let level = quantizers[0].level();
        let refuse = |what: &str| Err(ConfigError::field("of", format!("`{}` {what}", of.0.name)).into());
        if level.code_space().is_none() {
            return refuse("makes vectors, and this holds quantizers of codes");
        }
        if level.scales.is_some() {
            return refuse(
                "makes codes of several scales, which only the outermost quantizer can; let it hold this one",
            );
        }
        Ok(Self { quantizers, count, depth: level.depth() })
    }

    /// How many there seem to be.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether one serves for all.
    pub fn is_shared(&self) -> bool {
        self.quantizers.len() < self.count
    }

    /// Quantizer `n`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if there are fewer.
    pub fn get(&self, n: usize) -> Result<&dyn Quantizer> {
        let index = if self.is_shared() { 0 } else { n };
        self.quantizers.get(index).map(|quantizer| &**quantizer).ok_or_else(|| missing(n, self.count))
    }

    /// Quantizer `n`, to be trained.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if there are fewer.
    pub fn get_mut(&mut self, n: usize) -> Result<&mut dyn Quantizer> {
        let index = if self.is_shared() { 0 } else { n };
        match self.quantizers.get_mut(index) {
            Some(quantizer) => Ok(&mut **quantizer),
            None => Err(missing(n, self.count)),
        }
    }

    /// Codes per position of each.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The codes `[.., d]` of quantizer `n` among those of all, `[.., D]`: its own first `depth` ones.
    ///
    /// # Errors
    /// Codes of another depth.
    pub fn codes_of(&self, n: usize, depth: usize, all: &Codes) -> Result<Codes> {
        let own = self.depth();
        if all.last_dim() != own * self.count {
            return Err(Error::Unsupported(format!("codes {:?} should have depth {}", all.shape(), own * self.count)));
        }
        let columns = (n * own..n * own + depth).map(|column| all.column(column)).collect::<Result<Vec<_>, _>>()?;
        Ok(Codes::stack(&columns)?)
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({} for {})", self.quantizers.len(), self.count)
    }
}

fn missing(n: usize, count: usize) -> Error {
    Error::Unsupported(format!("there is no quantizer {} among {count}", n + 1))
}

/// Codes `[.., d]` of several quantizers side by side: `[.., D]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn side_by_side(codes: &[Codes]) -> Result<Codes> {
    let mut columns = Vec::new();
    for codes in codes {
        for column in 0..codes.last_dim() {
            columns.push(codes.column(column)?);
        }
    }
    Ok(Codes::stack(&columns)?)
}

/// What quantizers said beside latents and tokens, put together.
#[derive(Debug, Default)]
pub struct Gathered {
    losses: Vec<Tensor>,
    /// By name: the sum, and how many there were.
    terms: Vec<(&'static str, Tensor, usize)>,
    events: Vec<(&'static str, Tensor, usize)>,
}

fn add(to: &mut Vec<(&'static str, Tensor, usize)>, from: &[(&'static str, Tensor)]) -> Result<()> {
    for (name, value) in from {
        match to.iter_mut().find(|(known, ..)| known == name) {
            Some((_, sum, count)) => (*sum, *count) = (sum.add(value)?, *count + 1),
            None => to.push((name, value.clone(), 1)),
        }
    }
    Ok(())
}

impl Gathered {
    /// Takes in what one said.
    ///
    /// # Errors
    /// Numbers that are of no rank 0.
    pub fn add(&mut self, said: &Quantized) -> Result<()> {
        self.losses.push(said.loss.clone());
        add(&mut self.terms, &said.terms)?;
        add(&mut self.events, &said.events)
    }

    /// One loss of all.
    ///
    /// # Errors
    /// None where all were of rank 0.
    pub fn loss(&self, losses: Losses) -> Result<Tensor> {
        let zero = Tensor::scalar(0.0);
        let sum = self.losses.iter().try_fold(zero, |sum, loss| sum.add(loss))?;
        let count = self.losses.len().max(1) as f32;
        Ok(if losses == Losses::Mean { sum.mul_scalar(1.0 / count)? } else { sum })
    }

    /// The mean of each term.
    ///
    /// # Errors
    /// None where all were of rank 0.
    pub fn terms(&self) -> Result<Vec<(&'static str, Tensor)>> {
        self.terms.iter().map(|(name, sum, count)| Ok((*name, sum.mul_scalar(1.0 / *count as f32)?))).collect()
    }

    /// The sum of each event.
    pub fn events(self) -> Vec<(&'static str, Tensor)> {
        self.events.into_iter().map(|(name, sum, _)| (name, sum)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::contracts::{Components, Tokens};
    use crate::testing::toys::ToyQuantizers;

    fn held(of: &str, count: usize, shared: bool) -> (Result<Held>, Params) {
        let params = Params::new(1);
        let latents = MapShape { height: 1, width: 2, channels: 3 };
        let cx = QuantizerContext { latents, params: params.clone(), components: Components::new(ToyQuantizers) };
        (Held::new(&QuantizerCall::new(of), count, shared, latents, &cx), params)
    }

    #[test]
    fn one_serves_for_all_or_each_has_its_own() {
        for (shared, names) in [(true, vec!["of.codebook"]), (false, vec!["of.0.codebook", "of.1.codebook"])] {
            let (held, params) = held("toy_codes", 2, shared);
            assert_eq!(params.state().into_keys().collect::<Vec<_>>(), names);
            assert!(held.as_ref().unwrap().get(1).is_ok());
            assert_eq!(held.unwrap().get(2).is_ok(), shared);
        }
    }

    #[test]
    fn vectors_cannot_be_held() {
        let refused = held("toy_noise", 2, false).0.unwrap_err().to_string();
        assert!(refused.contains("`toy_noise` makes vectors"), "{refused}");
    }

    #[test]
    fn codes_go_side_by_side_and_back() {
        let (held, _) = held("toy_codes", 2, false);
        let held = held.unwrap();
        let codes = |data: &[u32]| Codes::from_vec(data.to_vec(), &[2, 1]).unwrap();
        let all = side_by_side(&[codes(&[1, 2]), codes(&[3, 4])]).unwrap();
        assert_eq!(all.as_slice(), [1, 3, 2, 4]);
        assert_eq!(held.codes_of(1, 1, &all).unwrap(), codes(&[3, 4]));
        assert!(held.codes_of(1, 1, &codes(&[1, 2])).is_err());
    }

    #[test]
    fn terms_are_means_and_events_are_sums() {
        let said = |loss: f32, events: Vec<(&'static str, Tensor)>| Quantized {
            latents: Tensor::zeros(&[1]),
            tokens: Tokens::Vectors(Tensor::zeros(&[1])),
            loss: Tensor::scalar(loss),
            terms: vec![("commitment", Tensor::scalar(2.0 * loss))],
            bits: None,
            residual_energy: Tensor::zeros(&[0]),
            events,
        };
        let mut gathered = Gathered::default();
        gathered.add(&said(1.0, vec![("dead_codes", Tensor::scalar(3.0))])).unwrap();
        gathered.add(&said(2.0, vec![("dead_codes", Tensor::scalar(4.0))])).unwrap();
        assert_eq!(gathered.loss(Losses::Mean).unwrap().item().unwrap(), 1.5);
        assert_eq!(gathered.loss(Losses::Sum).unwrap().item().unwrap(), 3.0);
        let one = |named: Vec<(&'static str, Tensor)>| (named[0].0, named[0].1.item().unwrap());
        assert_eq!(one(gathered.terms().unwrap()), ("commitment", 3.0));
        assert_eq!(one(gathered.events()), ("dead_codes", 7.0));
    }
}
