//! The transposed convolution of feature maps `[B, H, W, C]`: what a convolution does to the gradient of its output, as an
//! operation of its own. Its kernels are those of the convolution that it mirrors.

use super::conv::Conv2d;
use super::kernel::{Kernel, run};
use crate::cpu::buffer;
use crate::cpu::conv::{Geometry, backward_data, weight};
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Numbers, conv::Method};
use crate::{Error, Result, Tensor};
#[cfg(feature = "cuda")]
use dfdx::prelude::CudaError;

/// Spreads a map as the mirrored convolution does the gradient of its output.
struct Spread(Geometry);

impl Kernel<2> for Spread {
    fn cpu(&self, [x, w]: [&[f32]; 2]) -> Vec<f32> {
        buffer(self.0.input_len(), |y| backward_data(&self.0, x, w, y))
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x, w]: [&Numbers; 2]) -> Result<Numbers, CudaError> {
        gpu.convolve_back(Method::Map(self.0), x, w)
    }
}

/// The gradient of the weight, from that of the output, which the mirrored convolution reads, and the input.
struct WeightGradient(Geometry);

impl Kernel<2> for WeightGradient {
    fn cpu(&self, [dy, x]: [&[f32]; 2]) -> Vec<f32> {
        buffer(self.0.weight_len(), |dw| weight::backward(&self.0, dy, x, dw, None))
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [dy, x]: [&Numbers; 2]) -> Result<Numbers, CudaError> {
        gpu.convolve_weight(Method::Map(self.0), dy, x)
    }
}

impl Tensor {
    /// PyTorch's `conv_transpose2d`: `self` `[B, H, W, I]` with weight `[I, O, kh, kw]` and bias `[O]` gives `[B, H2, W2, O]`,
    /// `H2 = (H - 1) stride + kh - top - bottom`. Stride and padding are those of the convolution from `[B, H2, W2, O]` to
    /// `[B, H, W, I]` that it mirrors: its gradients are that convolution.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit, the stride is 0 or nothing is left between the paddings.
    pub fn conv_transpose2d(&self, weight: &Tensor, bias: Option<&Tensor>, how: Conv2d) -> Result<Tensor> {
        let [batch, height, width, inputs] = self.dims("conv_transpose2d")?;
        let [weight_inputs, outputs, kernel_h, kernel_w] = weight.dims("conv_transpose2d")?;
        let [top, bottom, left, right] = how.padding;
        let spread = |size: usize, kernel: usize, padding: usize| {
            let size = (size.checked_sub(1)? * how.stride + kernel).checked_sub(padding)?;
            (size > 0 && kernel > 0).then_some(size)
        };
        let (Some(rows), Some(columns), true) = (
            spread(height, kernel_h, top + bottom),
            spread(width, kernel_w, left + right),
            how.stride > 0
                && how.seen.is_none()
                && inputs == weight_inputs
                && bias.is_none_or(|b| b.shape() == [outputs]),
        ) else {
            return Err(Error::shape(
                "conv_transpose2d",
                format!(
                    "input {:?}, weight {:?} and bias {:?} do not fit with {how:?}",
                    self.shape(),
                    weight.shape(),
                    bias.map(Tensor::shape)
                ),
            ));
        };
        let mirrored = Geometry {
            batch,
            inputs: outputs,
            outputs: inputs,
            input: [rows, columns],
            output: [height, width],
            kernel: [kernel_h, kernel_w],
            seen: kernel_h * kernel_w,
            stride: how.stride,
            before: [top, left],
        };
        let shape = [batch, rows, columns, outputs];
        let spread = run("conv_transpose2d", &Spread(mirrored), [self, weight], &shape)?;
        let spread = spread.with_backward(&[self, weight], |_| {
            let (x, w) = (self.detach(), weight.detach());
            move |grad, gradients| {
                if gradients.wanted(1) {
                    let dw = run("conv_transpose2d", &WeightGradient(mirrored), [&grad, &x], w.shape())?;
                    gradients.add(1, dw)?;
                }
                if gradients.wanted(0) {
                    gradients.add(0, grad.conv2d(&w, None, how)?)?;
                }
                Ok(())
            }
        })?;
        match bias {
            Some(bias) => spread.add(bias),
            None => Ok(spread),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{agrees_with_the_cpu, assert_close, check_gradients, on_every_device, random};

    /// The definition, in f64: every pixel adds the kernel, times its value, to the pixels around `stride` times its place.
    fn twin(x: &Tensor, w: &Tensor, bias: &Tensor, how: Conv2d) -> Tensor {
        let [batch, height, width, inputs] = x.dims("twin").unwrap();
        let [_, outputs, kh, kw] = w.dims("twin").unwrap();
        let [top, bottom, left, right] = how.padding;
        let (rows, columns) =
            ((height - 1) * how.stride + kh - top - bottom, (width - 1) * how.stride + kw - left - right);
        let mut data: Vec<f64> = (0..batch * rows * columns).flat_map(|_| bias.to_vec()).map(f64::from).collect();
        for (n, &pixel) in x.as_slice().iter().enumerate() {
            let (i, at) = (n % inputs, n / inputs);
            let (b, y, z) = (at / width / height, at / width % height, at % width);
            for r in 0..kh {
                for s in 0..kw {
                    let row = (y * how.stride + r).wrapping_sub(top);
                    let column = (z * how.stride + s).wrapping_sub(left);
                    if row >= rows || column >= columns {
                        continue;
                    }
                    for o in 0..outputs {
                        let weight = w.as_slice()[((i * outputs + o) * kh + r) * kw + s];
                        data[((b * rows + row) * columns + column) * outputs + o] +=
                            f64::from(pixel) * f64::from(weight);
                    }
                }
            }
        }
        Tensor::from_vec(data.into_iter().map(|x| x as f32).collect(), &[batch, rows, columns, outputs]).unwrap()
    }

    /// Input shape, outputs, kernel, stride and padding.
    fn cases() -> Vec<([usize; 4], usize, [usize; 2], Conv2d)> {
        vec![
            ([1, 1, 1, 1], 1, [1, 1], Conv2d::same(1)),
            ([2, 3, 4, 5], 3, [4, 4], Conv2d::new(2, [1; 4])),
            ([1, 2, 1, 17], 33, [4, 4], Conv2d::new(2, [1; 4])),
            ([2, 3, 5, 16], 3, [4, 4], Conv2d::new(2, [1; 4])),
            ([1, 4, 3, 18], 20, [3, 3], Conv2d::same(3)),
            ([2, 3, 2, 4], 6, [3, 3], Conv2d::new(2, [0, 1, 0, 1])),
            ([1, 2, 3, 3], 2, [2, 5], Conv2d::new(3, [0, 1, 2, 0])),
            ([1, 3, 3, 2], 3, [1, 1], Conv2d::new(2, [0; 4])),
        ]
    }

    #[test]
    fn it_agrees_with_its_definition_and_with_finite_differences() {
        on_every_device(|| {
            for (shape, outputs, [kh, kw], how) in cases() {
                let operands = [random(&shape, 1), random(&[shape[3], outputs, kh, kw], 2), random(&[outputs], 3)];
                let [x, w, b] = &operands;
                let (got, wanted) = (x.conv_transpose2d(w, Some(b), how).unwrap(), twin(x, w, b, how));
                assert_eq!(got.shape(), wanted.shape());
                assert_close(got.as_slice(), wanted.as_slice(), 1e-5);
                check_gradients(&operands, |t| t[0].conv_transpose2d(&t[1], Some(&t[2]), how), 1e-3);
            }
        });
    }

    #[test]
    fn large_maps_are_spread_as_on_the_cpu() {
        on_every_device(|| {
            for (shape, outputs) in [([3, 17, 35, 24], 100), ([2, 40, 30, 64], 3)] {
                let operands = [random(&shape, 1), random(&[shape[3], outputs, 4, 4], 2), random(&[outputs], 3)];
                let how = Conv2d::new(2, [1; 4]);
                agrees_with_the_cpu(&operands, |t| t[0].conv_transpose2d(&t[1], Some(&t[2]), how));
            }
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let (x, w) = (Tensor::zeros(&[1, 2, 2, 3]), Tensor::zeros(&[3, 2, 4, 4]));
            let how = Conv2d::new(2, [1; 4]);
            assert!(x.conv_transpose2d(&w, Some(&Tensor::zeros(&[3])), how).is_err());
            assert!(x.conv_transpose2d(&Tensor::zeros(&[2, 3, 4, 4]), None, how).is_err());
            assert!(x.conv_transpose2d(&w, None, Conv2d::new(0, [1; 4])).is_err());
            assert!(x.conv_transpose2d(&w, None, Conv2d::new(2, [3; 4])).is_err());
            assert!(Tensor::zeros(&[1, 0, 2, 3]).conv_transpose2d(&w, None, how).is_err());
        });
    }
}
