//! Matrix products.

use super::arithmetic::Mul;
use super::unary::Gelu;
use super::{common_device, on_cpu};
use crate::cpu::gemm;
use crate::cpu::loops::elementwise::update;
use crate::cpu::{buffer, buffers};
use crate::tape::{GradKey, record};
use crate::{Error, Result, Tensor};

impl Tensor {
    /// `x · weightᵀ + bias`: `self` `[.., I]` with weight `[O, I]`, as in the published checkpoints, and bias `[O]`
    /// gives `[.., O]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit.
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        linear("linear", self, weight, bias, Then::Nothing)
    }

    /// [`linear`](Self::linear) followed by [`gelu`](Self::gelu), which is computed while the numbers are in the cache.
    ///
    /// # Errors
    /// As for `linear`.
    pub fn linear_gelu(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        linear("linear_gelu", self, weight, bias, Then::Gelu)
    }

    /// `residual + x · weightᵀ + bias`: [`linear`](Self::linear) added to a tensor of its result's shape.
    ///
    /// # Errors
    /// As for `linear`, or if the shape of `residual` is another.
    pub fn linear_add(&self, weight: &Tensor, bias: Option<&Tensor>, residual: &Tensor) -> Result<Tensor> {
        linear("linear_add", self, weight, bias, Then::Add(residual))
    }

    /// `a · b`: `[.., M, K]` and `[.., K, N]` give `[.., M, N]`. Outer axes are equal, or `other` has rank 2.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        product(self, other, Right::Plain)
    }

    /// `a · bᵀ`: `[.., M, K]` and `[.., N, K]` give `[.., M, N]`. Outer axes are equal, or `other` has rank 2.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit.
    pub fn matmul_t(&self, other: &Tensor) -> Result<Tensor> {
        product(self, other, Right::Transposed)
    }
}

/// What becomes of a linear map's result.
#[derive(Clone, Copy)]
pub(crate) enum Then<'a> {
    Nothing,
    Gelu,
    Add(&'a Tensor),
}

fn linear(op: &'static str, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, then: Then<'_>) -> Result<Tensor> {
    let residual = if let Then::Add(residual) = then { Some(residual) } else { None };
    common_device(op, [x, weight].into_iter().chain(bias).chain(residual))?;
    let [outputs, inputs] = weight.dims(op)?;
    let Some((&last, outer)) = x.shape().split_last() else {
        return Err(Error::shape(op, "the input needs an axis"));
    };
    if last != inputs || bias.is_some_and(|b| b.shape() != [outputs]) {
        return Err(Error::shape(
            op,
            format!(
                "input {:?}, weight {:?} and bias {:?} do not fit",
                x.shape(),
                weight.shape(),
                bias.map(Tensor::shape)
            ),
        ));
    }
    let rows: usize = outer.iter().product();
    let shape: Vec<usize> = outer.iter().copied().chain([outputs]).collect();
    if let Some(residual) = residual.filter(|residual| residual.shape() != shape) {
        return Err(Error::shape(op, format!("{shape:?} cannot be added to {:?}", residual.shape())));
    }
    return_from_gpu!(crate::cuda::gemm::linear(op, x, weight, bias, then, &shape));
    on_cpu(op, [x, weight])?;

    let (x_key, w_key, b_key) = (x.tracked(), weight.tracked(), bias.and_then(Tensor::tracked));
    let residual_key = residual.and_then(Tensor::tracked);
    let wanted = [&x_key, &w_key, &b_key, &residual_key].into_iter().any(Option::is_some);
    let key = wanted.then(GradKey::new);
    let (n, k, len) = (outputs, inputs, rows * outputs);
    let (a, b, b_slice) = (x.as_slice(), weight.as_slice(), bias.map(Tensor::as_slice));
    let (data, slope) = match then {
        Then::Nothing => (buffer(len, |c| gemm::nt(n, k, a, b, b_slice, c)), None),
        Then::Add(residual) => (buffer(len, |c| gemm::nt_add(n, k, a, b, b_slice, residual.as_slice(), c)), None),
        Then::Gelu if wanted => {
            let [data, slope] = buffers([len; 2], |out| gemm::nt_then_sloped(Gelu {}, n, k, a, b, b_slice, out));
            (data, Some(slope))
        }
        Then::Gelu => (buffer(len, |c| gemm::nt_then(Gelu {}, n, k, a, b, b_slice, c)), None),
    };
    if let Some(key) = &key {
        // Only what the wanted gradients need is kept alive.
        let (x, w) = (w_key.as_ref().map(|_| x.detach()), x_key.as_ref().map(|_| weight.detach()));
        record(key, move |mut dy, flow| {
            if let Some(slope) = slope {
                update(Mul, &mut dy, &slope);
            }
            if let (Some(key), Some(w)) = (&x_key, &w) {
                flow.with(key, rows * inputs, |dx| gemm::nn(inputs, outputs, &dy, w.as_slice(), dx))?;
            }
            let mut db = b_key.as_ref().map(|_| vec![0.0; outputs]);
            if let (Some(key), Some(x)) = (&w_key, &x) {
                flow.with(key, outputs * inputs, |dw| {
                    gemm::tn_and_sums(outputs, inputs, rows, &dy, x.as_slice(), dw, db.as_deref_mut())
                })?;
            } else if let Some(db) = &mut db {
                gemm::column_sums(&dy, db);
            }
            if let (Some(key), Some(db)) = (&b_key, db) {
                flow.add(key, db)?;
            }
            match &residual_key {
                Some(key) => flow.add(key, dy),
                None => Ok(()),
            }
        });
    }
    Ok(Tensor::output(data, &shape, key))
}

/// How the right operand of a product is stored.
#[derive(Clone, Copy, PartialEq)]
enum Right {
    /// `[K, N]`.
    Plain,
    /// `[N, K]`.
    Transposed,
}

fn product(a: &Tensor, b: &Tensor, right: Right) -> Result<Tensor> {
    let op = if right == Right::Plain { "matmul" } else { "matmul_t" };
    let misfit = || Error::shape(op, format!("{:?} and {:?} do not fit", a.shape(), b.shape()));
    let (&[ref a_outer @ .., m, k], &[ref b_outer @ .., b_first, b_second]) = (a.shape(), b.shape()) else {
        return Err(misfit());
    };
    let (b_k, n) = if right == Right::Plain { (b_first, b_second) } else { (b_second, b_first) };
    if k != b_k || !(b_outer.is_empty() || a_outer == b_outer) {
        return Err(misfit());
    }
    // A right operand of rank 2 is one matrix for all rows on the left.
    let outer: usize = a_outer.iter().product();
    let (batch, m) = if b_outer.is_empty() { (1, outer * m) } else { (outer, m) };

    let mut shape = a.shape().to_vec();
    if let Some(last) = shape.last_mut() {
        *last = n;
    }
    return_from_gpu!(crate::cuda::gemm::product(op, [a, b], right == Right::Transposed, [batch, m, n, k], &shape));
    on_cpu(op, [a, b])?;

    let sizes = gemm::Batch { batch, m, n, k };
    let data = buffer(batch * m * n, |c| match right {
        Right::Plain => gemm::batched_nn(sizes, a.as_slice(), b.as_slice(), c),
        Right::Transposed => gemm::batched_nt(sizes, a.as_slice(), b.as_slice(), c),
    });
    let (a_key, b_key) = (a.tracked(), b.tracked());
    let key = (a_key.is_some() || b_key.is_some()).then(GradKey::new);
    if let Some(key) = &key {
        let (a, b) = (b_key.as_ref().map(|_| a.detach()), a_key.as_ref().map(|_| b.detach()));
        record(key, move |dy, flow| {
            if let (Some(key), Some(b)) = (&a_key, &b) {
                flow.with(key, batch * m * k, |da| {
                    let sizes = gemm::Batch { batch, m, n: k, k: n };
                    match right {
                        Right::Plain => gemm::batched_nt(sizes, &dy, b.as_slice(), da),
                        Right::Transposed => gemm::batched_nn(sizes, &dy, b.as_slice(), da),
                    }
                })?;
            }
            if let (Some(key), Some(a)) = (&b_key, &a) {
                flow.with(key, batch * k * n, |db| match right {
                    Right::Plain => gemm::batched_tn(gemm::Batch { batch, m: k, n, k: m }, a.as_slice(), &dy, db),
                    Right::Transposed => {
                        gemm::batched_tn(gemm::Batch { batch, m: n, n: k, k: m }, &dy, a.as_slice(), db)
                    }
                })?;
            }
            Ok(())
        });
    }
    Ok(Tensor::output(data, &shape, key))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use crate::ops::testing::{assert_close, check_gradients, gradients, on_every_device, random};
    use crate::{Error, Tape, Tensor};

    /// The definition, in f64.
    fn twin(a: &Tensor, b: &Tensor, sizes: [usize; 4], transposed: bool) -> Vec<f32> {
        let [batch, m, n, k] = sizes;
        let (a, b) = (a.as_slice(), b.as_slice());
        let mut c = Vec::new();
        for t in 0..batch {
            for i in 0..m {
                for j in 0..n {
                    let dot: f64 = (0..k)
                        .map(|p| {
                            let right = if transposed { b[(t * n + j) * k + p] } else { b[(t * k + p) * n + j] };
                            f64::from(a[(t * m + i) * k + p]) * f64::from(right)
                        })
                        .sum();
                    c.push(dot as f32);
                }
            }
        }
        c
    }

    #[test]
    fn linear_agrees_with_its_definition() {
        on_every_device(|| {
            for (rows, inputs, outputs) in [
                (1, 1, 1),
                (2, 3, 5),
                (7, 17, 33),
                (1, 129, 70),
                (13, 64, 31),
                (40, 100, 3),
                (257, 65, 47),
                (90, 700, 130),
            ] {
                let (x, w, b) = (random(&[rows, inputs], 1), random(&[outputs, inputs], 2), random(&[outputs], 3));
                let mut wanted = twin(&x, &w, [1, rows, outputs, inputs], true);
                assert_close(x.linear(&w, None).unwrap().as_slice(), &wanted, 1e-5);
                for row in wanted.chunks_mut(outputs) {
                    row.iter_mut().zip(b.as_slice()).for_each(|(y, b)| *y += b);
                }
                assert_close(x.linear(&w, Some(&b)).unwrap().as_slice(), &wanted, 1e-5);
            }
        });
    }

    #[test]
    fn products_agree_with_their_definition() {
        on_every_device(|| {
            for (batch, m, n, k) in [(1, 1, 1, 1), (3, 5, 7, 2), (2, 31, 33, 17), (5, 14, 32, 16), (1, 67, 129, 300)] {
                let a = random(&[batch, m, k], 1);
                let (plain, transposed) = (random(&[batch, k, n], 2), random(&[batch, n, k], 3));
                let sizes = [batch, m, n, k];
                assert_close(a.matmul(&plain).unwrap().as_slice(), &twin(&a, &plain, sizes, false), 1e-5);
                assert_close(a.matmul_t(&transposed).unwrap().as_slice(), &twin(&a, &transposed, sizes, true), 1e-5);
            }
        });
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        on_every_device(|| {
            let sizes = [(1, 1, 1), (3, 5, 2), (17, 33, 19), (70, 6, 40)];
            for (rows, inputs, outputs) in sizes {
                let operands = [random(&[rows, inputs], 1), random(&[outputs, inputs], 2), random(&[outputs], 3)];
                check_gradients(&operands, |t| t[0].linear(&t[1], Some(&t[2])), 1e-3);
            }
            for (m, n, k) in sizes {
                check_gradients(&[random(&[2, m, k], 1), random(&[2, k, n], 2)], |t| t[0].matmul(&t[1]), 1e-3);
                check_gradients(&[random(&[2, m, k], 1), random(&[2, n, k], 2)], |t| t[0].matmul_t(&t[1]), 1e-3);
                check_gradients(&[random(&[2, m, k], 1), random(&[k, n], 2)], |t| t[0].matmul(&t[1]), 1e-3);
            }
        });
    }

    #[test]
    fn what_follows_a_linear_map_equals_its_own_operation() {
        on_every_device(|| {
            // Few rows, few columns, cut by columns, cut by rows.
            for (rows, inputs, outputs) in [(1, 1, 1), (3, 5, 2), (90, 7, 3), (20, 300, 130), (300, 65, 47)] {
                let (x, w, b) = (random(&[rows, inputs], 1), random(&[outputs, inputs], 2), random(&[outputs], 3));
                let residual = random(&[rows, outputs], 4);
                let plain = x.linear(&w, Some(&b)).unwrap();
                for x in [&x, &x.leaf()] {
                    let _tape = Tape::start().unwrap();
                    let gelu = x.linear_gelu(&w, Some(&b)).unwrap();
                    assert_close(gelu.as_slice(), plain.gelu().unwrap().as_slice(), 1e-6);
                    let sum = x.linear_add(&w, Some(&b), &residual).unwrap();
                    assert_close(sum.as_slice(), plain.add(&residual).unwrap().as_slice(), 1e-6);
                }
                let operands = [x, w, b, residual];
                check_gradients(&operands[..3], |t| t[0].linear_gelu(&t[1], Some(&t[2])), 2e-3);
                check_gradients(&operands, |t| t[0].linear_add(&t[1], Some(&t[2]), &t[3]), 1e-3);
            }
            let square = [random(&[40, 6], 1), random(&[6, 6], 2)];
            check_gradients(&square, |t| t[0].linear_add(&t[1], None, &t[0]), 1e-3);
        });
    }

    /// Sizes at which gradients of weights are cut over rows of the batch, over outputs, and over inputs.
    #[test]
    fn gradients_of_large_weights_and_biases_equal_their_definition() {
        for (rows, inputs, outputs) in [(900, 64, 96), (600, 150, 301), (600, 301, 150)] {
            let (x, w, b) = (random(&[rows, inputs], 1), random(&[outputs, inputs], 2), random(&[outputs], 3));
            let (dy, found) = gradients(&[x.clone(), w, b], |t| t[0].linear(&t[1], Some(&t[2])));
            let dy = Tensor::from_vec(dy, &[rows, outputs]).unwrap();
            let wanted = twin(&dy.transpose(0, 1).unwrap(), &x, [1, outputs, inputs, rows], false);
            assert_close(found[1].as_slice(), &wanted, 1e-5);
            let wanted = dy.sum(&[0], false).unwrap();
            assert_close(found[2].as_slice(), wanted.as_slice(), 1e-5);
        }
    }

    /// A weight used twice gets the sum of both gradients.
    #[test]
    fn gradients_accumulate() {
        on_every_device(|| {
            let operands = [random(&[5, 4], 1), random(&[4, 4], 2)];
            check_gradients(&operands, |t| t[0].linear(&t[1], None)?.linear(&t[1], None), 1e-3);
        });
    }

    #[test]
    fn empty_operands_give_empty_or_zero_results() {
        on_every_device(|| {
            assert!(Tensor::zeros(&[0, 3]).linear(&Tensor::zeros(&[2, 3]), None).unwrap().is_empty());
            let zeros = Tensor::zeros(&[2, 0]).linear(&Tensor::zeros(&[3, 0]), Some(&Tensor::full(1.5, &[3]))).unwrap();
            assert_eq!(zeros.as_slice(), [1.5; 6]);
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let (x, w) = (Tensor::zeros(&[2, 3]), Tensor::zeros(&[4, 5]));
            assert!(matches!(x.linear(&w, None), Err(Error::Shape { op: "linear", .. })));
            let w = Tensor::zeros(&[4, 3]);
            assert!(matches!(x.linear_add(&w, None, &x), Err(Error::Shape { .. })));
            let w = Tensor::zeros(&[4, 5]);
            assert!(matches!(x.matmul(&w), Err(Error::Shape { op: "matmul", .. })));
            assert!(matches!(x.matmul_t(&w), Err(Error::Shape { op: "matmul_t", .. })));
        });
    }
}
