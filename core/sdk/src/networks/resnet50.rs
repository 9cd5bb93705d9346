//! ResNet-50 (He et al., "Deep residual learning for image recognition", CVPR 2016), as torchvision has it, whose logits MaskBit
//! compares images by. It has gradients in the images.

use super::Weights;
use crate::Result;
use crate::resize::{Resize, Sampling};
use crate::tensor::Tensor;
use crate::tensor::ops::conv::Conv2d as Strides;

/// Pixels of a side of the pictures that the network sees.
const SIDE: usize = 224;
/// What images in [0, 1] are shifted and divided by.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];
/// What the batch norms add to the variance.
const EPS: f64 = 1e-5;
/// Blocks of each stage, and channels inside of them: a block has four times as many at its end.
const BLOCKS: [usize; 4] = [3, 4, 6, 3];
const WIDTHS: [usize; 4] = [64, 128, 256, 512];
const CLASSES: usize = 1000;

/// A convolution with its batch norm folded in.
#[derive(Debug)]
struct Conv {
    weight: Tensor,
    bias: Tensor,
    how: Strides,
}

impl Conv {
    /// A kernel of `side` x `side` in the middle of its zeros.
    fn new(
        weights: &mut Weights,
        conv: &str,
        norm: &str,
        [inputs, outputs, side]: [usize; 3],
        stride: usize,
    ) -> Result<Self> {
        let [weight, bias] = weights.folded(conv, norm, [outputs, inputs, side, side], EPS)?;
        Ok(Self { weight, bias, how: Strides::new(stride, [side / 2; 4]) })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.conv2d(&self.weight, Some(&self.bias), self.how)?)
    }
}

/// `relu(shortcut(x) + conv1x1(relu(conv3x3(relu(conv1x1(x))))))`, the 3x3 convolution with the block's stride.
#[derive(Debug)]
struct Bottleneck {
    convs: [Conv; 3],
    /// None for what the block reads.
    shortcut: Option<Conv>,
}

impl Bottleneck {
    fn new(weights: &mut Weights, name: &str, inputs: usize, width: usize, stride: usize) -> Result<Self> {
        let mut conv = |n: usize, sizes: [usize; 3], stride: usize| {
            Conv::new(weights, &format!("{name}.conv{n}"), &format!("{name}.bn{n}"), sizes, stride)
        };
        let convs =
            [conv(1, [inputs, width, 1], 1)?, conv(2, [width, width, 3], stride)?, conv(3, [width, 4 * width, 1], 1)?];
        let shortcut = || {
            let [conv, norm] = [0, 1].map(|n| format!("{name}.downsample.{n}"));
            Conv::new(weights, &conv, &norm, [inputs, 4 * width, 1], stride)
        };
        Ok(Self { convs, shortcut: (inputs != 4 * width).then(shortcut).transpose()? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [first, middle, last] = &self.convs;
        let added = last.forward(&middle.forward(&first.forward(x)?.relu()?)?.relu()?)?;
        let kept = self.shortcut.as_ref().map_or_else(|| Ok(x.clone()), |conv| conv.forward(x))?;
        Ok(kept.add(&added)?.relu()?)
    }
}

/// The network.
#[derive(Debug)]
pub struct Resnet50 {
    stem: Conv,
    blocks: Vec<Bottleneck>,
    /// Weight and bias of the last layer.
    classes: [Tensor; 2],
}

impl Resnet50 {
    /// From torchvision's tensors: `conv1.weight`, `bn1.*`, `layer1.0.conv1.weight`, .., `fc.weight`, `fc.bias`.
    ///
    /// # Errors
    /// Tensors that are missing, have another shape, or are no part of it.
    pub fn new(mut weights: Weights) -> Result<Self> {
        let stem = Conv::new(&mut weights, "conv1", "bn1", [3, 64, 7], 2)?;
        let (mut blocks, mut inputs) = (Vec::new(), 64);
        for (stage, (&count, &width)) in BLOCKS.iter().zip(&WIDTHS).enumerate() {
            for block in 0..count {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let name = format!("layer{}.{block}", stage + 1);
                blocks.push(Bottleneck::new(&mut weights, &name, inputs, width, stride)?);
                inputs = 4 * width;
            }
        }
        let classes = [weights.take("fc.weight", &[CLASSES, inputs])?, weights.take("fc.bias", &[CLASSES])?];
        weights.finish()?;
        Ok(Self { stem, blocks, classes })
    }

    /// The logits `[B, 1000]` of images `[B, H, W, 3]` in [-1, 1], brought to 224 x 224 pixels.
    ///
    /// # Errors
    /// Images that are not of three channels.
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let seen = Resize::to([SIDE; 2], Sampling::SMOOTH_LINEAR).differentiable(images)?;
        // (x + 1) / 2, less the mean, over the deviation.
        let [scale, shift] = [DEVIATION.map(|d| 0.5 / d), [0, 1, 2].map(|c| (0.5 - MEAN[c]) / DEVIATION[c])];
        let channels = |numbers: [f32; 3]| Tensor::from_vec(numbers.to_vec(), &[3]);
        let seen = seen.mul(&channels(scale)?)?.add(&channels(shift)?)?;
        let map = self.stem.forward(&seen)?.relu()?.max_pool(3, 2, 1)?;
        let map = self.blocks.iter().try_fold(map, |map, block| block.forward(&map))?;
        let [weight, bias] = &self.classes;
        Ok(map.mean(&[1, 2], false)?.linear(weight, Some(bias))?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tensor::Tape;
    use std::collections::BTreeMap;

    /// Numbers in (-1, 1) by a hash of a name and their places, from 1.
    fn hashed(name: &str, count: usize) -> impl Iterator<Item = f64> {
        let seed = name.bytes().fold(0x811c_9dc5_u32, |h, byte| (h ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        (1..=count as u32).map(move |i| {
            let mut h = i.wrapping_add(seed.wrapping_mul(2_654_435_769));
            h = (h ^ h >> 16).wrapping_mul(0x85EB_CA6B);
            h = (h ^ h >> 13).wrapping_mul(0xC2B2_AE35);
            (f64::from(h ^ h >> 16) + 0.5) / f64::from(1_u32 << 31) - 1.0
        })
    }

    /// The published tensors by a formula of their names and shapes.
    fn by_formula() -> Weights {
        let mut tensors = BTreeMap::new();
        let mut add = |name: String, shape: &[usize]| {
            let of_one: usize = shape[1..].iter().product();
            let number = |v: f64| match name.rsplit_once('.') {
                _ if shape.len() > 1 => v * 2.4 / (of_one as f64).sqrt(),
                Some((_, "bias")) => 0.2 * v,
                Some((_, "running_mean")) => 0.1 * v,
                Some((_, "running_var")) => 1.0 + 0.3 * v,
                _ if name.contains(".bn3.") => 0.3 + 0.25 * v,
                _ => 1.0 + 0.25 * v,
            };
            let numbers = hashed(&name, shape.iter().product()).map(|v| number(v) as f32).collect();
            tensors.insert(name, Tensor::from_vec(numbers, shape).unwrap());
        };
        let mut conv = |conv: String, norm: String, [inputs, outputs, side]: [usize; 3]| {
            add(format!("{conv}.weight"), &[outputs, inputs, side, side]);
            for part in ["weight", "bias", "running_mean", "running_var"] {
                add(format!("{norm}.{part}"), &[outputs]);
            }
        };
        conv("conv1".to_owned(), "bn1".to_owned(), [3, 64, 7]);
        let mut inputs = 64;
        for (stage, (&count, &width)) in BLOCKS.iter().zip(&WIDTHS).enumerate() {
            for block in 0..count {
                let name = |part: &str| format!("layer{}.{block}.{part}", stage + 1);
                for (n, sizes) in [[inputs, width, 1], [width, width, 3], [width, 4 * width, 1]].into_iter().enumerate()
                {
                    conv(name(&format!("conv{}", n + 1)), name(&format!("bn{}", n + 1)), sizes);
                }
                if block == 0 {
                    conv(name("downsample.0"), name("downsample.1"), [inputs, 4 * width, 1]);
                }
                inputs = 4 * width;
            }
        }
        add("fc.weight".to_owned(), &[CLASSES, inputs]);
        add("fc.bias".to_owned(), &[CLASSES]);
        Weights::new(tensors, "the test")
    }

    /// What torchvision's network computes in f64 of the same weights and images, resized by `interpolate(mode = "bilinear",
    /// antialias = True)`: logits, and the gradient of their mean square.
    #[test]
    fn it_is_torchvisions() {
        let net = Resnet50::new(by_formula()).unwrap();
        let shape = [2, 40, 36, 3];
        let numbers = hashed("images", shape.iter().product()).map(|v| v as f32).collect();
        let images = Tensor::from_vec(numbers, &shape).unwrap().leaf();
        let tape = Tape::start().unwrap();
        let logits = net.logits(&images).unwrap();
        let gradient = tape.backward(&logits.square().unwrap().mean_all().unwrap()).unwrap().take(&images).unwrap();
        let near = |got: &[f32], wanted: &[f64], most: f64| {
            assert!(got.iter().zip(wanted).all(|(got, wanted)| (f64::from(*got) - wanted).abs() < most), "{got:?}");
        };
        // The largest logit is 16.6, the largest gradient 0.112.
        let (logits, gradient) = (logits.as_slice(), gradient.as_slice());
        near(logits, &[-0.557_557, 7.154_288, -0.108_910, 3.450_083], 2e-4);
        near(&logits[CLASSES..], &[-0.462_925, 7.094_304, 0.113_256, 3.389_649], 2e-4);
        near(gradient, &[0.058_618_7, 0.111_905_9, 0.074_657_8], 1e-5);
        near(&gradient[((40 + 20) * 36 + 17) * 3..], &[-0.018_652_3, 0.016_404_9, 0.006_906_4], 1e-5);
    }
}
