//! What the tests of operations share: one body for every device, random operands, and gradients against central finite
//! differences.

use crate::{Device, Result, Rng, Tape, Tensor};
use std::cell::Cell;

thread_local! {
    static DEVICE: Cell<Option<Device>> = const { Cell::new(None) };
}

/// The device that the test on this thread places new tensors on.
pub(crate) fn device() -> Option<Device> {
    DEVICE.get()
}

/// Runs the body of a test on the CPU, and on the first GPU where one opens; says so where none does.
pub(crate) fn on_every_device(body: impl Fn()) {
    body();
    match Device::Cuda(0).open() {
        Ok(()) => {
            DEVICE.set(Some(Device::Cuda(0)));
            body();
            DEVICE.set(None);
        }
        #[allow(clippy::print_stdout, reason = "a test that skips says so")]
        Err(error) => println!("skipped on the GPU: {error}"),
    }
}

/// A tensor of standard normal numbers.
pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
    Tensor::from_vec(Rng::new(seed, "test", 0).normal(shape.iter().product()), shape).unwrap()
}

/// `sum(weights * y)` in f64, the loss whose gradient at `y` is `weights`.
fn projection(y: &Tensor, weights: &[f32]) -> f64 {
    y.as_slice().iter().zip(weights).map(|(&y, &w)| f64::from(y) * f64::from(w)).sum()
}

/// The gradients of `sum(g * f(inputs))` with a random `g`, one for each input.
pub(crate) fn gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> (Vec<f32>, Vec<Tensor>) {
    let leaves: Vec<Tensor> = inputs.iter().map(Tensor::leaf).collect();
    let tape = Tape::start().unwrap();
    let y = f(&leaves).unwrap();
    let weights = random(y.shape(), 0x0ff1ce).to_vec();
    let mut found = tape.backward_from_vec(&y, weights.clone()).unwrap();
    let found = leaves.iter().map(|leaf| found.take(leaf).unwrap_or_else(|| Tensor::zeros(leaf.shape()))).collect();
    (weights, found)
}

/// Checks the gradients of `f` at `inputs` against central finite differences of a random projection of its output.
/// Differences may be `tolerance` times the largest gradient of that input (at least 1). Of a large input, 100 elements
/// are tried.
pub(crate) fn check_gradients(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>, tolerance: f64) {
    let step = 1e-2f32;
    let (weights, found) = gradients(inputs, &f);
    for (which, gradient) in found.iter().enumerate() {
        assert_eq!(gradient.shape(), inputs[which].shape());
        let scale = gradient.as_slice().iter().fold(1.0f64, |m, &g| m.max(f64::from(g).abs()));
        let n = inputs[which].len();
        for i in (0..n.min(100)).map(|t| t * n / n.min(100)) {
            let at = |delta: f32| {
                let mut moved = inputs.to_vec();
                let mut data = moved[which].to_vec();
                data[i] += delta;
                let x = data[i];
                moved[which] = Tensor::from_vec(data, inputs[which].shape()).unwrap();
                (projection(&f(&moved).unwrap(), &weights), f64::from(x))
            };
            let ((up, above), (down, below)) = (at(step), at(-step));
            let (wanted, got) = ((up - down) / (above - below), f64::from(gradient.as_slice()[i]));
            assert!(
                (got - wanted).abs() <= tolerance * scale,
                "gradient of input {which} at {i}: {got}, by finite differences {wanted} (scale {scale})"
            );
        }
    }
}

/// Checks value and gradients of `f` at `inputs` against those on the CPU.
pub(crate) fn agrees_with_the_cpu(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let here = f(inputs).unwrap();
    let (_, found) = gradients(inputs, &f);
    let device = DEVICE.replace(None);
    let inputs: Vec<Tensor> = inputs.iter().map(|x| x.to_device(Device::Cpu).unwrap()).collect();
    let wanted = f(&inputs).unwrap();
    let (_, gradients) = gradients(&inputs, &f);
    DEVICE.set(device);
    assert_eq!(here.shape(), wanted.shape());
    assert_close(here.as_slice(), wanted.as_slice(), 1e-5);
    for (found, wanted) in found.iter().zip(gradients) {
        assert_close(found.as_slice(), wanted.as_slice(), 1e-5);
    }
}

/// Checks that two slices agree to `tolerance` times the largest wanted value (at least 1).
pub(crate) fn assert_close(got: &[f32], wanted: &[f32], tolerance: f32) {
    assert_eq!(got.len(), wanted.len());
    let scale = wanted.iter().fold(1.0f32, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(wanted).enumerate() {
        assert!((g - w).abs() <= tolerance * scale, "element {i}: {g}, wanted {w} (scale {scale})");
    }
}

/// The nearest number with 8 bits, as bf16 has them; of two the even one.
#[cfg(feature = "cuda")]
pub(crate) fn short(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}
