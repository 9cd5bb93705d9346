//! Scaled dot-product attention.
//!
//! Rows of probabilities are never kept: the backward pass computes them again from each row's largest score
//! and normaliser (Dao et al., "FlashAttention", 2022), so memory grows with `B * T * W` alone.

use super::on_cpu;
use crate::cpu::attention::short::{self, Few};
use crate::cpu::attention::{self, Rows, Sizes};
use crate::cpu::buffers;
use crate::tape::{GradKey, record};
use crate::{Error, Result, Tensor};

/// `softmax(q kᵀ / sqrt(W / heads)) v` in each of `heads` slices of the innermost axis: `q` `[B, T, W]`, `k` and `v`
/// `[B, S, W]` give `[B, T, W]`. With `causal`, position t sees 0..=t, and `S` must be `T`.
///
/// # Errors
/// [`Error::Shape`] if the sizes do not fit or `heads` does not divide `W`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let misfit = || {
        let shapes = [q.shape(), k.shape(), v.shape()];
        Error::shape(
            "attention",
            format!("query, key, value {shapes:?} do not fit with {heads} heads, causal {causal}"),
        )
    };
    let [batch, queries, width] = q.dims("attention")?;
    let [k_batch, keys, k_width] = k.dims("attention")?;
    if k.shape() != v.shape()
        || (batch, width) != (k_batch, k_width)
        || !divides(heads, width)
        || (causal && queries != keys)
        || (keys == 0 && queries > 0)
    {
        return Err(misfit());
    }
    let sizes = Sizes { heads, queries, keys, head: width / heads, causal };
    return_from_gpu!(crate::cuda::attention::attention(q, k, v, batch, sizes));
    on_cpu("attention", [q, k, v])?;
    let mut norms = vec![[0.0; 2]; batch * heads * queries];
    let operands = [q, k, v].map(|x| Rows { data: x.as_slice(), start: 0, stride: width });
    let [out] = buffers([q.len()], |[out]| [attention::forward(&sizes, operands, out, &mut norms)]);

    let keys = [q.tracked(), k.tracked(), v.tracked()];
    let key = keys.iter().any(Option::is_some).then(GradKey::new);
    let out = Tensor::output(out, q.shape(), key.clone());
    if let Some(key) = &key {
        let (q, k, v, y) = (q.detach(), k.detach(), v.detach(), out.detach());
        record(key, move |dy, flow| {
            let rows = |data| Rows { data, start: 0, stride: width };
            let operands = [&q, &k, &v].map(|x| rows(x.as_slice()));
            let outputs = [rows(y.as_slice()), rows(&dy)];
            let grads = buffers([q.len(), k.len(), v.len()], |grads| {
                attention::backward(&sizes, operands, outputs, &mut norms, grads)
            });
            for (key, grad) in keys.iter().zip(grads) {
                if let Some(key) = key {
                    flow.add(key, grad)?;
                }
            }
            Ok(())
        });
    }
    Ok(out)
}

/// [`attention`] of the three thirds (query, key, value) of the innermost axis of one tensor `[B, T, 3W]`, as a fused
/// projection leaves it: `[B, T, W]`.
///
/// # Errors
/// [`Error::Shape`] if the sizes do not fit or `heads` does not divide `W`.
pub fn attention_qkv(qkv: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let [batch, length, packed] = qkv.dims("attention_qkv")?;
    let width = packed / 3;
    if !packed.is_multiple_of(3) || !divides(heads, width) {
        return Err(Error::shape("attention_qkv", format!("{:?} does not fit with {heads} heads", qkv.shape())));
    }
    let sizes = Sizes { heads, queries: length, keys: length, head: width / heads, causal };
    return_from_gpu!(crate::cuda::attention::attention_qkv(qkv, batch, sizes));
    on_cpu("attention_qkv", [qkv])?;
    if (1..=short::FEW).contains(&length) {
        return few(qkv, Few { heads, length, head: width / heads, causal });
    }
    let mut norms = vec![[0.0; 2]; batch * heads * length];
    let operands = thirds(qkv.as_slice(), width);
    let [out] = buffers([batch * length * width], |[out]| [attention::forward(&sizes, operands, out, &mut norms)]);

    let shape = [batch, length, width];
    let Some(qkv_key) = qkv.tracked() else {
        return Ok(Tensor::output(out, &shape, None));
    };
    let key = GradKey::new();
    let out = Tensor::output(out, &shape, Some(key.clone()));
    let (qkv, y) = (qkv.detach(), out.detach());
    record(&key, move |dy, flow| {
        let rows = |data| Rows { data, start: 0, stride: width };
        let (operands, outputs) = (thirds(qkv.as_slice(), width), [rows(y.as_slice()), rows(&dy)]);
        let [grad] =
            buffers([qkv.len()], |[grad]| [attention::backward_packed(&sizes, operands, outputs, &mut norms, grad)]);
        flow.add(&qkv_key, grad)
    });
    Ok(out)
}

/// [`attention_qkv`] of short sequences.
fn few(qkv: &Tensor, sizes: Few) -> Result<Tensor> {
    let shape = [qkv.shape()[0], sizes.length, sizes.heads * sizes.head];
    let [out] = buffers([qkv.len() / 3], |[out]| [short::forward(sizes, qkv.as_slice(), out)]);
    let key = qkv.tracked().map(|x| (x, GradKey::new()));
    let out = Tensor::output(out, &shape, key.as_ref().map(|k| k.1.clone()));
    if let Some((x, key)) = key {
        let qkv = qkv.detach();
        record(&key, move |dy, flow| {
            let [grad] = buffers([qkv.len()], |[grad]| [short::backward(sizes, qkv.as_slice(), &dy, grad)]);
            flow.add(&x, grad)
        });
    }
    Ok(out)
}

/// Query, key and value in rows of three times `width`.
fn thirds(data: &[f32], width: usize) -> [Rows<'_>; 3] {
    [0, 1, 2].map(|third| Rows { data, start: third * width, stride: 3 * width })
}

fn divides(heads: usize, width: usize) -> bool {
    heads > 0 && width > 0 && width.is_multiple_of(heads)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, device, on_every_device, random};
    use crate::{Device, Tape};

    /// Batch, heads, head size, queries, keys.
    const SIZES: [[usize; 5]; 13] = [
        [1, 1, 1, 1, 1],
        [3, 2, 32, 4, 4],
        [2, 1, 19, 8, 8],
        [2, 2, 3, 5, 5],
        [1, 3, 7, 4, 9],
        [2, 1, 33, 31, 31],
        [1, 2, 16, 70, 70],
        [1, 2, 32, 64, 64],
        [3, 1, 5, 17, 2],
        [1, 1, 20, 150, 150],
        [1, 2, 100, 6, 6],
        [1, 1, 72, 40, 40],
        [1, 1, 130, 33, 70],
    ];

    /// More than one tile of either side, and heads of more than one chunk or slice.
    const LARGE: [[usize; 5]; 8] = [
        [1, 2, 17, 9, 9],
        [2, 1, 64, 90, 90],
        [1, 2, 40, 129, 129],
        [1, 1, 64, 31, 150],
        [1, 1, 3, 150, 65],
        [2, 1, 100, 70, 70],
        [1, 1, 160, 97, 97],
        [1, 1, 160, 66, 33],
    ];

    /// Random numbers, of so few digits that they need no rounding where products round their operands.
    fn operand(shape: &[usize], seed: u64) -> Tensor {
        let full = random(shape, seed);
        if rounding() == 0.0 {
            return full;
        }
        Tensor::from_vec(full.as_slice().iter().map(|x| (16.0 * x).round() / 16.0).collect(), shape).unwrap()
    }

    /// The largest relative error of a number that is rounded to the precision of products, beside f32's own.
    fn rounding() -> f64 {
        if crate::precision(device().unwrap_or(Device::Cpu)) == "f32" { 0.0 } else { 0.5f64.powi(11) }
    }

    /// What is wanted, and how much the rounding of weights and of their gradients may change it.
    #[derive(Default, Clone)]
    struct Wanted {
        value: f64,
        error: f64,
    }

    impl Wanted {
        fn add(&mut self, weight: f64, error: f64, by: f64) {
            self.value += weight * by;
            self.error += error * by.abs();
        }
    }

    /// Output and gradients of query, key and value where the output's is `dy`: the definition, in f64.
    fn wanted([q, k, v, dy]: [&Tensor; 4], heads: usize, causal: bool, rounding: f64) -> [Vec<Wanted>; 4] {
        let [batch, queries, width] = q.dims("wanted").unwrap();
        let (keys, head) = (k.shape()[1], width / heads);
        let scale = 1.0 / (head as f64).sqrt();
        let [mut y, mut dq, mut dk, mut dv] = [q, q, k, v].map(|x| vec![Wanted::default(); x.len()]);
        for (b, h, t) in (0..batch * heads * queries).map(|i| (i / queries / heads, i / queries % heads, i % queries)) {
            let query = (b * queries + t) * width + h * head;
            let key = |s: usize| (b * keys + s) * width + h * head;
            let at = |x: &Tensor, i: usize| f64::from(x.as_slice()[i]);
            let dot = |x: &Tensor, i, y: &Tensor, j| (0..head).map(|c| at(x, i + c) * at(y, j + c)).sum::<f64>();
            let seen = if causal { t + 1 } else { keys };
            let exps: Vec<f64> = (0..seen).map(|s| (dot(q, query, k, key(s)) * scale).exp()).collect();
            let norm: f64 = exps.iter().sum();
            let weights: Vec<f64> = exps.iter().map(|e| e / norm).collect();
            for (s, &p) in weights.iter().enumerate() {
                for c in 0..head {
                    y[query + c].add(p, rounding * p, at(v, key(s) + c));
                }
            }
            // The mean of the weights' gradient is computed from the output.
            let mut mean = Wanted::default();
            (0..head).for_each(|c| mean.add(y[query + c].value, y[query + c].error, at(dy, query + c)));
            for (s, &p) in weights.iter().enumerate() {
                let slope = p * (dot(dy, query, v, key(s)) - mean.value) * scale;
                let error = rounding * slope.abs() + (1.0 + rounding) * p * mean.error * scale;
                for c in 0..head {
                    dq[query + c].add(slope, error, at(k, key(s) + c));
                    dk[key(s) + c].add(slope, error, at(q, query + c));
                    dv[key(s) + c].add(p, rounding * p, at(dy, query + c));
                }
            }
        }
        [y, dq, dk, dv]
    }

    fn assert_within(got: &[f32], wanted: &[Wanted]) {
        assert_eq!(got.len(), wanted.len());
        let scale = wanted.iter().fold(1.0f64, |most, x| most.max(x.value.abs()));
        for (i, (&got, Wanted { value, error })) in got.iter().zip(wanted).enumerate() {
            let off = (f64::from(got) - value).abs();
            assert!(off <= error + 1e-5 * scale, "element {i}: {got}, wanted {value} within {error} (scale {scale})");
        }
    }

    #[test]
    fn attention_and_its_gradients_agree_with_their_definition() {
        on_every_device(|| {
            for [batch, heads, head, queries, keys] in SIZES.into_iter().chain(LARGE) {
                let width = heads * head;
                let (q, dy) = (operand(&[batch, queries, width], 1), operand(&[batch, queries, width], 4));
                let (k, v) = (operand(&[batch, keys, width], 2), operand(&[batch, keys, width], 3));
                for causal in [false, true] {
                    if causal && queries != keys {
                        continue;
                    }
                    let [y, grads @ ..] = wanted([&q, &k, &v, &dy], heads, causal, rounding());
                    let leaves = [q.leaf(), k.leaf(), v.leaf()];
                    let tape = Tape::start().unwrap();
                    let out = attention(&leaves[0], &leaves[1], &leaves[2], heads, causal).unwrap();
                    let mut found = tape.backward_from(&out, &dy).unwrap();
                    assert_within(out.as_slice(), &y);
                    for (leaf, wanted) in leaves.iter().zip(&grads) {
                        assert_within(found.take(leaf).unwrap().as_slice(), wanted);
                    }
                    if queries == keys {
                        let leaf = pack(&q, &k, &v).leaf();
                        let tape = Tape::start().unwrap();
                        let out = attention_qkv(&leaf, heads, causal).unwrap();
                        let found = tape.backward_from(&out, &dy).unwrap().take(&leaf).unwrap();
                        assert_within(out.as_slice(), &y);
                        for (third, wanted) in grads.iter().enumerate() {
                            let rows = found.as_slice().chunks(3 * width);
                            let found: Vec<f32> =
                                rows.flat_map(|row| &row[third * width..][..width]).copied().collect();
                            assert_within(&found, wanted);
                        }
                    }
                }
            }
        });
    }

    /// Scores of several hundred must not overflow.
    #[test]
    fn large_scores_stay_finite() {
        on_every_device(|| {
            let (x, v) = (Tensor::full(30.0, &[1, 4, 8]), operand(&[1, 4, 8], 3));
            let out = attention(&x, &x, &v, 2, false).unwrap();
            // All keys weigh the same.
            let wanted = v.mean(&[1], true).unwrap().as_slice().repeat(4);
            assert_close(out.as_slice(), &wanted, 1e-5);
            assert_close(attention_qkv(&pack(&x, &x, &v), 2, false).unwrap().as_slice(), &wanted, 1e-5);
        });
    }

    fn pack(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let width = q.last_dim();
        let rows = q.as_slice().chunks(width).zip(k.as_slice().chunks(width)).zip(v.as_slice().chunks(width));
        let data = rows.flat_map(|((q, k), v)| [q, k, v].concat()).collect();
        Tensor::from_vec(data, &[q.shape()[0], q.shape()[1], 3 * width]).unwrap()
    }

    #[test]
    fn the_packed_form_equals_the_plain_one() {
        on_every_device(|| {
            for [batch, heads, head, length, keys] in SIZES {
                if length != keys {
                    continue;
                }
                let shape = [batch, length, heads * head];
                let (q, k, v) = (random(&shape, 1), random(&shape, 2), random(&shape, 3));
                for causal in [false, true] {
                    let packed = attention_qkv(&pack(&q, &k, &v), heads, causal).unwrap();
                    assert_eq!(packed.shape(), shape);
                    assert_close(packed.as_slice(), attention(&q, &k, &v, heads, causal).unwrap().as_slice(), 1e-6);
                }
            }
        });
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        on_every_device(|| {
            if rounding() > 0.0 {
                // It moves the output as much as a step does.
                return;
            }
            for [batch, heads, head, queries, keys] in SIZES {
                let width = heads * head;
                let operands = [
                    random(&[batch, queries, width], 1),
                    random(&[batch, keys, width], 2),
                    random(&[batch, keys, width], 3),
                ];
                check_gradients(&operands, |t| attention(&t[0], &t[1], &t[2], heads, false), 2e-3);
                if queries == keys {
                    check_gradients(&operands, |t| attention(&t[0], &t[1], &t[2], heads, true), 2e-3);
                    let [q, k, v] = &operands;
                    for causal in [false, true] {
                        check_gradients(&[pack(q, k, v)], |t| attention_qkv(&t[0], heads, causal), 2e-3);
                    }
                    // One tensor in all three places gets the sum.
                    check_gradients(std::slice::from_ref(q), |t| attention(&t[0], &t[0], &t[0], heads, true), 4e-3);
                }
            }
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let (x, long) = (Tensor::zeros(&[1, 4, 6]), Tensor::zeros(&[1, 5, 6]));
            assert!(attention(&x, &x, &x, 4, false).is_err());
            assert!(attention(&x, &x, &x, 0, false).is_err());
            assert!(attention(&x, &long, &long, 2, true).is_err());
            assert!(attention(&x, &x, &long, 2, false).is_err());
            assert!(attention_qkv(&Tensor::zeros(&[1, 4, 7]), 1, true).is_err());
        });
    }
}
