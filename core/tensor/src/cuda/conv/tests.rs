//! Convolutions on a GPU against sums in f64, in every precision.

use super::*;
use crate::Device;
use crate::cuda::device::kernels::architecture;
use crate::cuda::device::precision::Math;
use crate::ops::testing::{assert_close, device, on_every_device, random, short};
use std::process::Command;

/// Normal numbers, and among them some half way between two of bf16: one to be rounded down, one up.
fn operand(len: usize, seed: u64) -> Vec<f32> {
    let mut numbers = random(&[len], seed).to_vec();
    numbers.iter_mut().step_by(7).for_each(|x| *x = 1.0 + 1.0 / 256.0);
    numbers.iter_mut().skip(3).step_by(7).for_each(|x| *x = 1.0 + 3.0 / 256.0);
    numbers
}

/// Calls `f` with the places in the map, the weight and the output of every product in a convolution.
fn each_product(method: &Method, mut f: impl FnMut(usize, usize, usize)) {
    let ([inputs, outputs], [height, width]) = (method.channels(), method.kernel());
    let [from, [down, across]] = method.sizes();
    let (shrink, stride, [top, left]) = match method {
        Method::Map(g) => (1, g.stride, g.before),
        Method::Doubled { .. } => (2, 1, [1, 1]),
    };
    for pixel in 0..method.batch() * down * across {
        let (image, y, x) = (pixel / across / down, pixel / across % down, pixel % across);
        for place in 0..height * width {
            let v = (y * stride + place / width).wrapping_sub(top);
            let u = (x * stride + place % width).wrapping_sub(left);
            if v >= from[0] * shrink || u >= from[1] * shrink {
                continue;
            }
            let read = (image * from[0] + v / shrink) * from[1] + u / shrink;
            for output in 0..outputs {
                for input in 0..inputs {
                    let weight = (output * inputs + input) * height * width + place;
                    f(read * inputs + input, weight, pixel * outputs + output);
                }
            }
        }
    }
}

/// A convolution with half a kernel of zeros above and to the left, and one more below and to the right.
fn map([batch, height, width, inputs]: [usize; 4], outputs: usize, kernel: usize, stride: usize) -> Method {
    let size = |from: usize| (from + kernel / 2 * 2 + 1 - kernel) / stride + 1;
    Method::Map(Geometry {
        batch,
        inputs,
        outputs,
        input: [height, width],
        output: [size(height), size(width)],
        kernel: [kernel; 2],
        seen: kernel * kernel,
        stride,
        before: [kernel / 2; 2],
    })
}

/// Enough pixels for the larger tiles.
const MANY: usize = 128 * FILL / 2;

fn methods() -> Vec<Method> {
    let doubled = |[batch, height, width, inputs]: [usize; 4], outputs| Method::Doubled {
        batch,
        size: [height, width],
        inputs,
        outputs,
    };
    vec![
        map([1, 1, 1, 1], 1, 1, 1),
        map([3, 5, 5, 1], 64, 1, 2),
        map([1, 5, 6, 17], 17, 1, 1),
        map([2, 5, 7, 3], 17, 3, 1),
        map([2, 7, 9, 17], 64, 3, 2),
        map([1, 9, 7, 64], 20, 3, 2),
        map([2, 6, 5, 64], 64, 3, 1),
        map([1, 8, 9, 64], 3, 4, 2),
        map([1, 9, 11, 3], 1, 4, 1),
        map([1, 2, MANY / 2, 4], 64, 1, 1),
        doubled([1, 1, 1, 1], 1),
        doubled([2, 3, 5, 3], 17),
        doubled([2, 5, 3, 17], 3),
        doubled([1, 4, 3, 64], 64),
        doubled([1, 3, 4, 36], 20),
    ]
}

/// What precision says of operands is the only inexact thing beside sums in f32: each is rounded once, and products
/// are exact.
#[test]
fn convolutions_sum_products_of_rounded_operands() {
    on_every_device(|| {
        let Some(Device::Cuda(ordinal)) = device() else { return };
        let gpu = crate::cuda::open(ordinal).unwrap();
        let (_, tensor_cores) = architecture(&gpu.driver).unwrap();
        let math = if tensor_cores { gpu.math() } else { Math::F32 };
        for method in methods() {
            let problem = method.problem(false, 32).unwrap();
            let [read, written] = problem.lengths();
            let ([inputs, outputs], [height, width]) = (method.channels(), method.kernel());
            // Numbers of 8 bits are the same in tf32.
            let given = |x: Vec<f32>| if math == Math::Tf32 { x.into_iter().map(short).collect() } else { x };
            let x = given(operand(read, 1));
            let mut weight = given(operand(outputs * inputs * height * width, 2));
            if method.is_doubled() {
                // Of these, sums over up to four places have 8 bits, too.
                weight.iter_mut().for_each(|w| *w = (*w * 8.0).round().clamp(-31.0, 31.0) / 8.0);
            }
            let (dy, bias) = (given(operand(written, 3)), operand(outputs, 4));

            let number = |x: f32| f64::from(if math == Math::Bf16 { short(x) } else { x });
            let [a, b, g] = [&x, &weight, &dy].map(|x| x.iter().map(|&x| number(x)).collect::<Vec<_>>());
            let mut y: Vec<f64> = (0..written).map(|i| f64::from(bias[i % outputs])).collect();
            let (mut dx, mut dw) = (vec![0.0f64; read], vec![0.0f64; weight.len()]);
            each_product(&method, |i, w, o| {
                y[o] += a[i] * b[w];
                dx[i] += g[o] * b[w];
                dw[w] += a[i] * g[o];
            });

            let [x, weight, dy, bias] = [x, weight, dy, bias].map(|numbers| gpu.upload(&numbers).unwrap());
            let agree = |found: Result<Numbers, CudaError>, wanted: Vec<f64>| {
                let wanted: Vec<f32> = wanted.into_iter().map(|x| x as f32).collect();
                assert_close(&gpu.download(&found.unwrap()).unwrap(), &wanted, 1e-5);
            };
            agree(gpu.convolve(method, &x, &weight, Some(&bias)), y);
            agree(gpu.convolve_back(method, &dy, &weight), dx);
            // The weight's gradient has no larger tiles, and takes long on so many pixels where lanes are emulated.
            if problem.positions() < MANY {
                agree(gpu.convolve_weight(method, &x, &dy), dw);
            }
        }
    });
}

/// A process has one precision.
#[test]
fn the_same_holds_in_every_precision() {
    on_every_device(|| {
        if device().is_none() {
            return;
        }
        let (_, module) = module_path!().split_once("::").unwrap();
        for math in ["tf32", "bf16"] {
            let mut test = Command::new(std::env::current_exe().unwrap());
            test.args(["--exact", &format!("{module}::convolutions_sum_products_of_rounded_operands")]);
            let output = test.env("RQLAB_GPU", math).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{math}: {said}");
        }
    });
}
