//! Latents to vectors of the width that codes have, and back.

use super::Linear;
use crate::Result;
use crate::config::ConfigError;
use crate::params::Params;
use crate::tensor::{Tensor, Var};

/// A linear map from latents `[.., C]` to vectors `[.., c]` in which codes are chosen, and one back; or neither, where codes
/// are as wide as latents. Parameters, as vector-quantize-pytorch has them: `project_in` and `project_out`, each with
/// `weight` and `bias`.
///
/// A quantizer whose settings fix c asks for it by `projection: true` ([`Projection::fixed`]), one with any c by
/// `code_dim: c` ([`Projection::new`]).
#[derive(Debug, Clone)]
pub struct Projection {
    code_dim: usize,
    maps: Option<(Linear, Linear)>,
}

impl Projection {
    /// Maps to `code_dim` and back, if one is given; else none.
    ///
    /// # Errors
    /// Names that are taken.
    pub fn new(params: &Params, channels: usize, code_dim: Option<usize>) -> Result<Self> {
        let Some(code_dim) = code_dim else { return Ok(Self { code_dim: channels, maps: None }) };
        let into = Linear::new(&params.scope("project_in"), channels, code_dim, true)?;
        let back = Linear::new(&params.scope("project_out"), code_dim, channels, true)?;
        Ok(Self { code_dim, maps: Some((into, back)) })
    }

    /// Maps to the width `code_dim` that the settings of a quantizer fix, if its field `projection` is `asked` for. `field`
    /// is the setting that fixes it.
    ///
    /// # Errors
    /// Latents of another width without a projection; names that are taken.
    pub fn fixed(params: &Params, channels: usize, code_dim: usize, asked: bool, field: &str) -> Result<Self> {
        if !asked && channels != code_dim {
            let message = format!(
                "codes have {code_dim} channels, and the latents have {channels}; set `code_channels: {code_dim}` in \
                 the autoencoder, or `projection: true` here"
            );
            return Err(ConfigError::field(field, message).into());
        }
        Self::new(params, channels, asked.then_some(code_dim))
    }

    /// The width of codes, c.
    pub fn code_dim(&self) -> usize {
        self.code_dim
    }

    /// Latents `[.., C]` to vectors `[.., c]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn project_in(&self, latents: &Tensor) -> Result<Tensor> {
        self.maps.as_ref().map_or_else(|| Ok(latents.clone()), |(into, _)| into.forward(latents))
    }

    /// Vectors `[.., c]` to latents `[.., C]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn project_out(&self, vectors: &Tensor) -> Result<Tensor> {
        self.maps.as_ref().map_or_else(|| Ok(vectors.clone()), |(_, back)| back.forward(vectors))
    }

    /// Codebooks `[K_d, c]` whose vectors are summed, as codebooks `[K_d, C]` of latents: the first has the bias.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn tables(&self, tables: &[Tensor]) -> Result<Vec<Tensor>> {
        let Some((_, back)) = &self.maps else { return Ok(tables.iter().map(Tensor::detach).collect()) };
        let (weight, bias) = (back.weight.get(), back.bias.as_ref().map(Var::get));
        let bias = |d| if d == 0 { bias.as_ref() } else { None };
        tables.iter().enumerate().map(|(d, table)| Ok(table.linear(&weight, bias(d))?.detach())).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::nn::testing::{every_parameter_learns, random};

    #[test]
    fn latents_go_to_the_width_of_codes_and_back() {
        let params = Params::new(0);
        let projection = Projection::new(&params, 12, Some(3)).unwrap();
        assert_eq!((projection.code_dim(), params.count()), (3, 3 * 13 + 12 * 4));
        let shape = every_parameter_learns(&params, &[2, 5, 12], |x| {
            let vectors = projection.project_in(x)?;
            assert_eq!(vectors.shape(), [2, 5, 3]);
            projection.project_out(&vectors)
        });
        assert_eq!(shape, [2, 5, 12]);
    }

    #[test]
    fn projected_tables_sum_to_the_projected_sum() {
        let projection = Projection::new(&Params::new(0), 6, Some(2)).unwrap();
        let (a, b) = (random(&[4, 2], 1), random(&[4, 2], 2));
        let tables = projection.tables(&[a.clone(), b.clone()]).unwrap();
        let wanted = projection.project_out(&a.add(&b).unwrap()).unwrap();
        assert!(tables[0].add(&tables[1]).unwrap().mse(&wanted).unwrap().item().unwrap() < 1e-12);
        assert!(tables.iter().all(|table| !table.wants_grad()));
    }

    #[test]
    fn without_one_latents_stay_as_they_are() {
        let (params, x) = (Params::new(0), random(&[4, 6], 1));
        for projection in
            [Projection::new(&params, 6, None).unwrap(), Projection::fixed(&params, 6, 6, false, "bits").unwrap()]
        {
            assert_eq!(projection.project_in(&x).unwrap().to_vec(), x.to_vec());
            assert_eq!(projection.project_out(&x).unwrap().to_vec(), x.to_vec());
        }
        assert_eq!(params.count(), 0);
    }

    #[test]
    fn a_width_that_does_not_fit_is_refused_with_both_remedies() {
        let refused = Projection::fixed(&Params::dry(), 64, 18, false, "bits").unwrap_err().to_string();
        for part in ["`bits`", "18", "64", "`code_channels: 18`", "`projection: true`"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        assert_eq!(Projection::fixed(&Params::dry(), 64, 18, true, "bits").unwrap().code_dim(), 18);
    }
}
