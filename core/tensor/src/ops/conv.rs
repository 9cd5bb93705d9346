//! Convolution of feature maps `[B, H, W, C]`.

use super::on_cpu;
use crate::cpu::conv::weight;
use crate::cpu::conv::winograd::Winograd;
use crate::cpu::conv::{self, Geometry};
use crate::cpu::gemm;
use crate::cpu::{Output, buffer};
#[cfg(feature = "cuda")]
use crate::cuda::conv as cuda;
use crate::tape::{GradKey, record};
use crate::{Error, Result, Tensor};

/// Stride and padding of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    /// Pixels between two positions of the kernel.
    pub stride: usize,
    /// Rows and columns of zeros around the input: top, bottom, left, right.
    pub padding: [usize; 4],
    /// Taps of the kernel, row by row, that count; the weight counts as 0 at the others. All if none are named.
    pub seen: Option<usize>,
}

impl Conv2d {
    /// Stride 1 and `kernel / 2` zeros on every side: an odd kernel keeps the size.
    pub const fn same(kernel: usize) -> Self {
        Self::new(1, [kernel / 2; 4])
    }

    /// Any stride and padding (top, bottom, left, right).
    pub const fn new(stride: usize, padding: [usize; 4]) -> Self {
        Self { stride, padding, seen: None }
    }

    /// A masked convolution of an odd kernel, which keeps the size: each position sees the `kernel - 1` rows above it and, in
    /// its own row, the `kernel / 2` positions to its left (van den Oord et al., "Pixel recurrent neural networks", 2016).
    pub const fn causal(kernel: usize) -> Self {
        let seen = Some(kernel * (kernel - 1) + kernel / 2);
        Self { stride: 1, padding: [kernel - 1, 0, kernel / 2, kernel / 2], seen }
    }
}

/// What is convolved.
#[derive(Debug, Clone, Copy)]
enum Method {
    /// A map.
    Map(Geometry),
    /// A map that is doubled first.
    Doubled(Winograd),
}

impl Method {
    fn forward<'a>(&self, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: Output<'a>) -> &'a mut [f32] {
        match self {
            Self::Map(g) => conv::forward(g, x, w, bias, y),
            Self::Doubled(winograd) => winograd.forward(x, w, bias, y),
        }
    }

    fn backward_data<'a>(&self, dy: &[f32], w: &[f32], dx: Output<'a>) -> &'a mut [f32] {
        match self {
            Self::Map(g) => conv::backward_data(g, dy, w, dx),
            Self::Doubled(winograd) => winograd.backward_data(dy, w, dx),
        }
    }

    /// The gradient of the weight, and into `db` that of the bias.
    fn backward_weight<'a>(&self, x: &[f32], dy: &[f32], dw: Output<'a>, db: Option<&mut [f32]>) -> &'a mut [f32] {
        match self {
            Self::Map(g) => weight::backward(g, x, dy, dw, db),
            Self::Doubled(winograd) => winograd.backward_weight(x, dy, dw, db),
        }
    }

    /// Shape of the output.
    fn shape(&self) -> [usize; 4] {
        match self {
            Self::Map(g) => [g.batch, g.output[0], g.output[1], g.outputs],
            Self::Doubled(winograd) => winograd.shape(),
        }
    }
}

/// Convolves operands that fit, and records the way back.
fn convolution(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, method: Method) -> Result<Tensor> {
    let shape = method.shape();
    let data = buffer(shape.iter().product(), |y| {
        method.forward(x.as_slice(), weight.as_slice(), bias.map(Tensor::as_slice), y)
    });
    let (x_key, w_key, b_key) = (x.tracked(), weight.tracked(), bias.and_then(Tensor::tracked));
    let key = (x_key.is_some() || w_key.is_some() || b_key.is_some()).then(GradKey::new);
    if let Some(key) = &key {
        let (x_len, w_len, outputs) = (x.len(), weight.len(), shape[3]);
        let (x, w) = (w_key.as_ref().map(|_| x.detach()), x_key.as_ref().map(|_| weight.detach()));
        record(key, move |dy, flow| {
            if let (Some(key), Some(w)) = (&x_key, &w) {
                flow.with(key, x_len, |dx| method.backward_data(&dy, w.as_slice(), dx))?;
            }
            let mut db = b_key.as_ref().map(|_| vec![0.0; outputs]);
            if let (Some(key), Some(x)) = (&w_key, &x) {
                flow.with(key, w_len, |dw| method.backward_weight(x.as_slice(), &dy, dw, db.as_deref_mut()))?;
            } else if let Some(db) = &mut db {
                gemm::column_sums(&dy, db);
            }
            if let (Some(key), Some(db)) = (&b_key, db) {
                flow.add(key, db)?;
            }
            Ok(())
        });
    }
    Ok(Tensor::output(data, &shape, key))
}

impl Tensor {
    /// Cross-correlation, as "convolution" is understood in the field: `self` `[B, H, W, I]` with weight
    /// `[O, I, kh, kw]` and bias `[O]` gives `[B, H2, W2, O]`, `H2 = (H + top + bottom - kh) / stride + 1`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, the stride is 0 or the kernel exceeds the padded input.
    pub fn conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, how: Conv2d) -> Result<Tensor> {
        super::common_device("conv2d", [self, weight].into_iter().chain(bias))?;
        let [batch, height, width, inputs] = self.dims("conv2d")?;
        let [outputs, weight_inputs, kernel_h, kernel_w] = weight.dims("conv2d")?;
        let [top, bottom, left, right] = how.padding;
        let fits = inputs == weight_inputs
            && bias.is_none_or(|b| b.shape() == [outputs])
            && how.stride > 0
            && how.seen.is_none_or(|seen| (1..=kernel_h * kernel_w).contains(&seen))
            && (1..=height + top + bottom).contains(&kernel_h)
            && (1..=width + left + right).contains(&kernel_w);
        if !fits {
            return Err(Error::shape(
                "conv2d",
                format!(
                    "input {:?}, weight {:?} and bias {:?} do not fit with {how:?}",
                    self.shape(),
                    weight.shape(),
                    bias.map(Tensor::shape)
                ),
            ));
        }
        let geometry = Geometry {
            batch,
            inputs,
            outputs,
            input: [height, width],
            output: [
                (height + top + bottom - kernel_h) / how.stride + 1,
                (width + left + right - kernel_w) / how.stride + 1,
            ],
            kernel: [kernel_h, kernel_w],
            seen: how.seen.unwrap_or(kernel_h * kernel_w),
            stride: how.stride,
            before: [top, left],
        };
        #[cfg(feature = "cuda")]
        if geometry.seen < geometry.taps() && self.device() != crate::Device::Cpu {
            let mask = (0..geometry.taps()).map(|tap| if tap < geometry.seen { 1.0 } else { 0.0 }).collect();
            let mask = Tensor::from_vec(mask, &[1, 1, kernel_h, kernel_w])?.to_device(self.device())?;
            return self.conv2d(&weight.mul(&mask)?, bias, Conv2d { seen: None, ..how });
        }
        #[cfg(feature = "cuda")]
        if geometry.is_linear() && self.device() != crate::Device::Cpu {
            return self.linear(&weight.with_shape(&[outputs, inputs]), bias);
        }
        return_from_gpu!(cuda::convolution("conv2d", self, weight, bias, cuda::Method::Map(geometry)));
        on_cpu("conv2d", [self])?;
        convolution(self, weight, bias, Method::Map(geometry))
    }

    /// [`upsample_nearest`](Self::upsample_nearest) by 2, then [`conv2d`](Self::conv2d) with a kernel of 3x3 that keeps
    /// the size: `[B, H, W, I]` with weight `[O, I, 3, 3]` and bias `[O]` gives `[B, 2H, 2W, O]`. The large map is never
    /// made, and the equal pixels in it save 27 of 36 multiplications.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit.
    pub fn upsample_conv2d(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        super::common_device("upsample_conv2d", [self, weight].into_iter().chain(bias))?;
        let [batch, height, width, inputs] = self.dims("upsample_conv2d")?;
        let outputs = bias.map_or(weight.shape().first().copied().unwrap_or(0), Tensor::len);
        if weight.shape() != [outputs, inputs, 3, 3] || bias.is_some_and(|bias| bias.rank() != 1) {
            return Err(Error::shape(
                "upsample_conv2d",
                format!(
                    "wanted weight [O, {inputs}, 3, 3] and bias [O] for input {:?}, found {:?} and {:?}",
                    self.shape(),
                    weight.shape(),
                    bias.map(Tensor::shape)
                ),
            ));
        }
        return_from_gpu!(cuda::convolution("upsample_conv2d", self, weight, bias, {
            cuda::Method::Doubled { batch, size: [height, width], inputs, outputs }
        }));
        on_cpu("upsample_conv2d", [self])?;
        if !Winograd::fits_doubled(inputs, outputs) || self.is_empty() {
            return self.upsample_nearest(2)?.conv2d(weight, bias, Conv2d::same(3));
        }
        convolution(self, weight, bias, Method::Doubled(Winograd::doubled(batch, [height, width], inputs, outputs)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{agrees_with_the_cpu, assert_close, check_gradients, gradients, on_every_device, random};

    /// The definition, in f64.
    fn twin(x: &Tensor, w: &Tensor, bias: &Tensor, how: Conv2d) -> Tensor {
        let [batch, height, width, inputs] = x.dims("twin").unwrap();
        let [outputs, _, kh, kw] = w.dims("twin").unwrap();
        let [top, bottom, left, right] = how.padding;
        let out_h = (height + top + bottom - kh) / how.stride + 1;
        let out_w = (width + left + right - kw) / how.stride + 1;
        let mut data = Vec::new();
        for b in 0..batch {
            for y in 0..out_h {
                for z in 0..out_w {
                    for o in 0..outputs {
                        let mut sum = f64::from(bias.as_slice()[o]);
                        for r in 0..kh {
                            for s in 0..kw {
                                let (v, u) =
                                    ((y * how.stride + r).wrapping_sub(top), (z * how.stride + s).wrapping_sub(left));
                                if v >= height || u >= width || how.seen.is_some_and(|seen| r * kw + s >= seen) {
                                    continue;
                                }
                                for i in 0..inputs {
                                    let pixel = x.as_slice()[((b * height + v) * width + u) * inputs + i];
                                    sum += f64::from(pixel)
                                        * f64::from(w.as_slice()[((o * inputs + i) * kh + r) * kw + s]);
                                }
                            }
                        }
                        data.push(sum as f32);
                    }
                }
            }
        }
        Tensor::from_vec(data, &[batch, out_h, out_w, outputs]).unwrap()
    }

    /// Input shape, outputs, kernel, stride and padding.
    fn cases() -> Vec<([usize; 4], usize, [usize; 2], Conv2d)> {
        vec![
            ([1, 1, 1, 1], 1, [1, 1], Conv2d::same(1)),
            ([1, 1, 1, 2], 3, [3, 3], Conv2d::same(3)),
            ([2, 5, 7, 3], 5, [3, 3], Conv2d::same(3)),
            ([3, 4, 4, 17], 33, [3, 3], Conv2d::same(3)),
            ([2, 9, 6, 33], 3, [3, 3], Conv2d::same(3)),
            ([2, 6, 8, 19], 21, [1, 1], Conv2d::same(1)),
            ([2, 8, 8, 16], 20, [3, 3], Conv2d::new(2, [0, 1, 0, 1])),
            ([2, 7, 9, 5], 18, [3, 3], Conv2d::new(2, [1, 1, 1, 1])),
            ([1, 8, 8, 6], 7, [4, 4], Conv2d::new(2, [1, 1, 1, 1])),
            ([1, 9, 11, 4], 5, [2, 5], Conv2d::new(3, [0, 2, 1, 0])),
            ([1, 5, 5, 3], 4, [1, 1], Conv2d::new(2, [0; 4])),
            ([1, 3, 4, 35], 34, [5, 5], Conv2d::same(5)),
            ([1, 1, 1, 16], 17, [3, 3], Conv2d::same(3)),
            ([2, 5, 7, 20], 35, [3, 3], Conv2d::same(3)),
            ([3, 9, 11, 33], 16, [3, 3], Conv2d::new(1, [0, 2, 3, 1])),
            ([1, 3, 4, 17], 18, [3, 3], Conv2d::new(1, [0; 4])),
            ([2, 2, 6, 16], 18, [3, 3], Conv2d::same(3)),
            ([2, 3, 4, 5], 6, [3, 3], Conv2d::causal(3)),
            ([3, 2, 3, 16], 17, [5, 5], Conv2d::causal(5)),
            ([17, 3, 2, 18], 17, [3, 3], Conv2d::causal(3)),
        ]
    }

    #[test]
    fn conv2d_agrees_with_its_definition() {
        on_every_device(|| {
            for (shape, outputs, [kh, kw], how) in cases() {
                let x = random(&shape, 1);
                let (w, b) = (random(&[outputs, shape[3], kh, kw], 2), random(&[outputs], 3));
                let (got, wanted) = (x.conv2d(&w, Some(&b), how).unwrap(), twin(&x, &w, &b, how));
                assert_eq!(got.shape(), wanted.shape());
                assert_close(got.as_slice(), wanted.as_slice(), 1e-5);
                let wanted = twin(&x, &w, &Tensor::zeros(&[outputs]), how);
                assert_close(x.conv2d(&w, None, how).unwrap().as_slice(), wanted.as_slice(), 1e-5);
            }
        });
    }

    #[test]
    fn conv2d_gradients_agree_with_finite_differences() {
        on_every_device(|| {
            for (shape, outputs, [kh, kw], how) in cases() {
                let operands = [random(&shape, 1), random(&[outputs, shape[3], kh, kw], 2), random(&[outputs], 3)];
                check_gradients(&operands, |t| t[0].conv2d(&t[1], Some(&t[2]), how), 1e-3);
                // A map that is used twice gets both gradients.
                if shape[1] < 8 {
                    check_gradients(
                        &operands,
                        |t| t[0].conv2d(&t[1], None, how)?.matmul_t(&t[0].conv2d(&t[1], Some(&t[2]), how)?),
                        4e-3,
                    );
                }
            }
        });
    }

    /// Channels below and above the number from which the large map is not made.
    #[test]
    fn a_doubled_map_is_convolved_as_in_two_steps() {
        on_every_device(|| {
            for (map, outputs) in [([2, 3, 5, 4], 3), ([1, 1, 1, 16], 16), ([3, 4, 3, 17], 33), ([2, 8, 8, 36], 20)] {
                let operands = [random(&map, 1), random(&[outputs, map[3], 3, 3], 2), random(&[outputs], 3)];
                let once = |t: &[Tensor]| t[0].upsample_conv2d(&t[1], Some(&t[2]));
                let twice = |t: &[Tensor]| t[0].upsample_nearest(2)?.conv2d(&t[1], Some(&t[2]), Conv2d::same(3));
                let (found, wanted) = (once(&operands).unwrap(), twice(&operands).unwrap());
                assert_eq!(found.shape(), wanted.shape());
                assert_close(found.as_slice(), wanted.as_slice(), 1e-5);
                for (found, wanted) in gradients(&operands, once).1.iter().zip(gradients(&operands, twice).1) {
                    assert_close(found.as_slice(), wanted.as_slice(), 1e-5);
                }
                if map[1] < 8 {
                    check_gradients(&operands, once, 1e-3);
                }
            }
        });
    }

    /// Large enough for every form of the GPU's kernels: many tiles, many pieces of the positions, several phases.
    #[test]
    fn large_maps_are_convolved_as_on_the_cpu() {
        let cases = [
            ([1, 150, 230, 4], 64, 3, Conv2d::same(3)),
            ([2, 130, 130, 4], 32, 3, Conv2d::same(3)),
            ([3, 33, 35, 24], 100, 3, Conv2d::new(2, [0, 1, 0, 1])),
            ([2, 40, 30, 64], 8, 4, Conv2d::new(3, [1, 2, 2, 1])),
            ([2, 24, 20, 3], 40, 7, Conv2d::new(2, [3; 4])),
        ];
        on_every_device(|| {
            for (shape, outputs, kernel, how) in cases {
                let operands =
                    [random(&shape, 1), random(&[outputs, shape[3], kernel, kernel], 2), random(&[outputs], 3)];
                agrees_with_the_cpu(&operands, |t| t[0].conv2d(&t[1], Some(&t[2]), how));
            }
            for (shape, outputs) in [([1, 80, 110, 8], 64), ([2, 40, 45, 16], 20), ([3, 9, 10, 6], 130)] {
                let operands = [random(&shape, 1), random(&[outputs, shape[3], 3, 3], 2), random(&[outputs], 3)];
                agrees_with_the_cpu(&operands, |t| t[0].upsample_conv2d(&t[1], Some(&t[2])));
            }
        });
    }

    /// A sum over nothing is the bias.
    #[test]
    fn maps_without_channels_or_pixels_are_convolved() {
        on_every_device(|| {
            let (w, b) = (Tensor::zeros(&[2, 0, 3, 3]), random(&[2], 1));
            let y = Tensor::zeros(&[1, 2, 2, 0]).conv2d(&w, Some(&b), Conv2d::same(3)).unwrap();
            assert_eq!(y.to_vec(), b.to_vec().repeat(4));
            let y =
                Tensor::zeros(&[0, 2, 2, 3]).conv2d(&Tensor::zeros(&[2, 3, 3, 3]), Some(&b), Conv2d::same(3)).unwrap();
            assert_eq!(y.shape(), [0, 2, 2, 2]);
        });
    }

    #[test]
    fn gradients_of_a_shared_map_add_up() {
        on_every_device(|| {
            let operands = [random(&[2, 4, 5, 3], 1), random(&[3, 3, 3, 3], 2), random(&[3], 3)];
            let same = Conv2d::same(3);
            check_gradients(
                &operands,
                |t| t[0].conv2d(&t[1], Some(&t[2]), same)?.conv2d(&t[1], Some(&t[2]), same),
                2e-3,
            );
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let (x, w) = (Tensor::zeros(&[1, 4, 4, 3]), Tensor::zeros(&[2, 3, 3, 3]));
            assert!(x.conv2d(&Tensor::zeros(&[2, 4, 3, 3]), None, Conv2d::same(3)).is_err());
            assert!(x.conv2d(&w, Some(&Tensor::zeros(&[3])), Conv2d::same(3)).is_err());
            assert!(x.conv2d(&w, None, Conv2d::new(0, [1; 4])).is_err());
            assert!(Tensor::zeros(&[1, 2, 2, 3]).conv2d(&w, None, Conv2d::new(1, [0; 4])).is_err());
            assert!(x.upsample_conv2d(&w, Some(&Tensor::zeros(&[3]))).is_err());
            assert!(x.upsample_conv2d(&Tensor::zeros(&[2, 3, 5, 5]), None).is_err());
        });
    }
}
