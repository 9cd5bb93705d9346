//! The tensors of a published network, taken one by one by name and shape.

use crate::checkpoint::Checkpoint;
use crate::tensor::{Rng, Tensor};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Tensors by their published names. A network takes those that it has, and [`Weights::finish`] asks whether any is left:
/// a file of another network is found by what it lacks, by shapes, or by what it has more.
#[derive(Debug, Clone)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
    source: String,
    /// Whether what is not there is drawn.
    drawn: bool,
}

impl Weights {
    /// Tensors, and where they are from, for messages.
    pub fn new(tensors: BTreeMap<String, Tensor>, source: impl Into<String>) -> Self {
        Self { tensors, source: source.into(), drawn: false }
    }

    /// Tensors, and beside them whatever a network asks for, drawn at random: for timing. Matrices and kernels keep the size of
    /// what they are applied to on the mean; all else is 1.
    pub fn drawn(tensors: BTreeMap<String, Tensor>) -> Self {
        Self { drawn: true, ..Self::new(tensors, "drawn weights") }
    }

    /// The tensors of a safetensors file.
    ///
    /// # Errors
    /// Those of [`Checkpoint::load`].
    pub fn load(path: &Path) -> Result<Self> {
        Ok(Self::new(Checkpoint::load(path)?.tensors, path.display().to_string()))
    }

    /// Whether there is a tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of the tensor `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        self.tensors.get(name).map(Tensor::shape).ok_or_else(|| self.wrong(format!("there is no `{name}`")))
    }

    /// Takes the tensor `name` of shape `shape`.
    ///
    /// # Errors
    /// There is none of that name and shape; numbers that are not finite.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        if self.drawn && !self.has(name) {
            return draw(name, shape);
        }
        let found = self.shape(name)?;
        if found != shape {
            return Err(self.wrong(format!("`{name}` is {found:?}, not {shape:?}")));
        }
        let tensor = self.tensors.remove(name).ok_or_else(|| self.wrong(format!("there is no `{name}`")))?;
        if tensor.as_slice().iter().any(|number| !number.is_finite()) {
            let message = format!("{}: `{name}` holds numbers that are not finite: the file is damaged", self.source);
            return Err(Error::Checkpoint(message));
        }
        Ok(tensor)
    }

    /// Takes the weight of shape `[O, I, h, w]` of the convolution `conv`, which has no bias, and the batch norm `norm` after it,
    /// and makes one convolution of both: its weight and its bias. The norm goes by its running statistics.
    ///
    /// # Errors
    /// Those of [`Weights::take`]; a negative variance.
    pub(super) fn folded(&mut self, conv: &str, norm: &str, shape: [usize; 4], eps: f64) -> Result<[Tensor; 2]> {
        let weight = self.take(&format!("{conv}.weight"), &shape)?;
        let outputs = shape[0];
        let mut part = |part: &str| -> Result<Vec<f64>> {
            let values = self.take(&format!("{norm}.{part}"), &[outputs])?;
            Ok(values.to_vec().into_iter().map(f64::from).collect())
        };
        let (gain, shift) = (part("weight")?, part("bias")?);
        let (mean, variance) = (part("running_mean")?, part("running_var")?);
        if variance.iter().any(|&variance| variance < 0.0) {
            let message = format!("{}: `{norm}.running_var` is negative: the file is damaged", self.source);
            return Err(Error::Checkpoint(message));
        }
        let scale: Vec<f64> =
            gain.iter().zip(&variance).map(|(gain, variance)| gain / (variance + eps).sqrt()).collect();
        let bias = (0..outputs).map(|o| (shift[o] - mean[o] * scale[o]) as f32).collect();
        let of_one: usize = shape[1..].iter().product();
        let folded = weight.to_vec().into_iter().enumerate().map(|(i, x)| (f64::from(x) * scale[i / of_one]) as f32);
        Ok([Tensor::from_vec(folded.collect(), &shape)?, Tensor::from_vec(bias, &[outputs])?])
    }

    /// Leaves out what a network of this kind may have and has no use for.
    pub fn leave_out(&mut self, unused: impl Fn(&str) -> bool) {
        self.tensors.retain(|name, _| !unused(name));
    }

    /// Checks that all tensors were taken.
    ///
    /// # Errors
    /// One is left.
    pub fn finish(self) -> Result<()> {
        match self.tensors.keys().next() {
            Some(name) => Err(self.wrong(format!("`{name}` is no part of it ({} such tensors)", self.tensors.len()))),
            None => Ok(()),
        }
    }

    fn wrong(&self, what: String) -> Error {
        let message = format!("{} holds another network: {what}; docs/weights.md tells how to convert it", self.source);
        Error::Checkpoint(message)
    }
}

fn draw(name: &str, shape: &[usize]) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    if shape.len() < 2 {
        return Ok(Tensor::from_vec(vec![1.0; count], shape)?);
    }
    let scale = (2.0 * shape[0] as f32 / count.max(1) as f32).sqrt();
    let numbers = Rng::new(0, name, 0).normal(count).into_iter().map(|x| x * scale);
    Ok(Tensor::from_vec(numbers.collect(), shape)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::networks::{Dinov2, Inception, Lpips, Resnet50};
    use std::fs;

    fn zeros(tensors: &[(&str, &[usize])]) -> Weights {
        let tensors = tensors.iter().map(|(name, shape)| ((*name).to_owned(), Tensor::zeros(shape)));
        Weights::new(tensors.collect(), "net.safetensors")
    }

    /// Of every network, what it says of these tensors.
    fn said(tensors: &[(&str, &[usize])]) -> [String; 4] {
        let said = [
            Inception::new(zeros(tensors)).map(drop),
            Dinov2::published(zeros(tensors)).map(drop),
            Lpips::new(zeros(tensors)).map(drop),
            Resnet50::new(zeros(tensors)).map(drop),
        ];
        said.map(|answer| answer.unwrap_err().to_string())
    }

    #[test]
    fn another_network_is_told_by_what_it_lacks_and_by_its_shapes() {
        let first = "Conv2d_1a_3x3.conv.weight";
        for error in said(&[("encoder.weight", &[4, 4])]) {
            assert!(error.contains("net.safetensors holds another network: there is no `"), "{error}");
            assert!(error.contains("docs/weights.md"), "{error}");
        }
        let [inception, dinov2, lpips, resnet50] = said(&[
            (first, &[32, 3, 5, 5]),
            ("norm.weight", &[128]),
            ("patch_embed.proj.weight", &[64, 3, 14, 14]),
            ("features.0.weight", &[64, 1, 3, 3]),
            ("conv1.weight", &[64, 3, 3, 3]),
        ]);
        assert!(inception.contains("is [32, 3, 5, 5], not [32, 3, 3, 3]"), "{inception}");
        assert!(dinov2.contains("is [64, 3, 14, 14], not [128, 3, 14, 14]"), "{dinov2}");
        assert!(lpips.contains("is [64, 1, 3, 3], not [64, 3, 3, 3]"), "{lpips}");
        assert!(resnet50.contains("is [64, 3, 3, 3], not [64, 3, 7, 7]"), "{resnet50}");
        let left = zeros(&[("more", &[1])]).finish().unwrap_err().to_string();
        assert!(left.contains("`more` is no part of it"), "{left}");
    }

    #[test]
    fn drawn_weights_are_finite_and_fit() {
        let lpips = Lpips::new(Weights::drawn(BTreeMap::new())).unwrap();
        let images = Tensor::full(0.5, &[1, 16, 16, 3]);
        let distance = lpips.distance(&images, &images.mul_scalar(-1.0).unwrap()).unwrap();
        // Of either sign: drawn heads have weights below zero, trained ones have none.
        assert!(distance.as_slice()[0].is_finite() && distance.as_slice()[0] != 0.0);
    }

    #[test]
    fn numbers_that_are_not_finite_are_named() {
        for bad in [f32::NAN, f32::INFINITY] {
            let tensor = Tensor::from_vec(vec![1.0, bad], &[2]).unwrap();
            let mut weights = Weights::new([("bias".to_owned(), tensor)].into(), "net.safetensors");
            let error = weights.take("bias", &[2]).unwrap_err().to_string();
            assert!(error.contains("net.safetensors: `bias` holds numbers that are not finite"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_damaged_or_no_safetensors_file_is_named() {
        let path = std::env::temp_dir().join(format!("rqlab-weights-{}.safetensors", std::process::id()));
        let tensors = [("a".to_owned(), Tensor::zeros(&[3, 5]))].into();
        Checkpoint { tensors, ..Checkpoint::default() }.save(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        assert!(Weights::load(&path).unwrap().take("a", &[3, 5]).is_ok());
        let header = |length: u64, text: &str| [&length.to_le_bytes()[..], text.as_bytes()].concat();
        let entry = |dtype: &str, shape: &str, end: u64| {
            let text = format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{end}]}}}}"#);
            [header(text.len() as u64, &text), vec![0; 8]].concat()
        };
        let hostile = [
            whole[..whole.len() - 1].to_vec(),
            whole[..whole.len() / 2].to_vec(),
            whole[..5].to_vec(),
            [&whole[..], b"more"].concat(),
            vec![],
            b"PK\x03\x04 an archive of PyTorch's".to_vec(),
            header(u64::MAX, "{}"),
            header(1 << 26, "{}"),
            header(2, "[]"),
            header(3, "{\"a"),
            entry("F64", "[1]", 8),
            entry("F32", "[3]", 8),
            entry("F32", "[18446744073709551615,18446744073709551615]", 8),
        ];
        for bytes in hostile {
            fs::write(&path, &bytes).unwrap();
            let error = Weights::load(&path).unwrap_err().to_string();
            assert!(error.contains("rqlab-weights-") && !error.contains('\n'), "{error}");
        }
        fs::remove_file(&path).unwrap();
    }
}
