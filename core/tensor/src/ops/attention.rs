//! Scaled dot-product attention.
//!
//! Rows of probabilities are never kept: the backward pass computes them again from each row's largest score
//! and normaliser (Dao et al., "FlashAttention", 2022), so memory grows with `B * T * W` alone.

use super::on_cpu;
use crate::cpu::attention::{self, Rows, Sizes};
use crate::cpu::attention_few::{self, Few};
use crate::cpu::buffer;
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
    let mut out = buffer(q.len());
    let mut norms = vec![[0.0; 2]; batch * heads * queries];
    let rows = |data| Rows { data, start: 0, stride: width };
    attention::forward(&sizes, rows(q.as_slice()), rows(k.as_slice()), rows(v.as_slice()), &mut out, &mut norms);

    let keys = [q.tracked(), k.tracked(), v.tracked()];
    let key = keys.iter().any(Option::is_some).then(GradKey::new);
    let out = Tensor::output(out, q.shape(), key.clone());
    if let Some(key) = &key {
        let (q, k, v, y) = (q.detach(), k.detach(), v.detach(), out.detach());
        record(key, move |dy, flow| {
            let rows = |data| Rows { data, start: 0, stride: width };
            let mut grads = [buffer(q.len()), buffer(k.len()), buffer(v.len())];
            let [dq, dk, dv] = &mut grads;
            attention::backward(
                &sizes,
                [rows(q.as_slice()), rows(k.as_slice()), rows(v.as_slice())],
                [rows(y.as_slice()), rows(dy.as_slice())],
                &mut norms,
                attention::Gradients::Apart { dq, dk, dv },
            );
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
    if (1..=attention_few::FEW).contains(&length) {
        return few(qkv, Few { heads, length, head: width / heads, causal });
    }
    let mut out = buffer(batch * length * width);
    let mut norms = vec![[0.0; 2]; batch * heads * length];
    let [q, k, v] = thirds(qkv.as_slice(), width);
    attention::forward(&sizes, q, k, v, &mut out, &mut norms);

    let shape = [batch, length, width];
    let Some(qkv_key) = qkv.tracked() else {
        return Ok(Tensor::output(out, &shape, None));
    };
    let key = GradKey::new();
    let out = Tensor::output(out, &shape, Some(key.clone()));
    let (qkv, y) = (qkv.detach(), out.detach());
    record(&key, move |dy, flow| {
        let mut packed = buffer(qkv.len());
        let rows = |data| Rows { data, start: 0, stride: width };
        attention::backward(
            &sizes,
            thirds(qkv.as_slice(), width),
            [rows(y.as_slice()), rows(dy.as_slice())],
            &mut norms,
            attention::Gradients::Packed(&mut packed),
        );
        flow.add(&qkv_key, packed)
    });
    Ok(out)
}

/// [`attention_qkv`] of short sequences.
fn few(qkv: &Tensor, sizes: Few) -> Result<Tensor> {
    let shape = [qkv.shape()[0], sizes.length, sizes.heads * sizes.head];
    let mut out = buffer(qkv.len() / 3);
    attention_few::forward(sizes, qkv.as_slice(), &mut out);
    let key = qkv.tracked().map(|x| (x, GradKey::new()));
    let out = Tensor::output(out, &shape, key.as_ref().map(|k| k.1.clone()));
    if let Some((x, key)) = key {
        let qkv = qkv.detach();
        record(&key, move |dy, flow| {
            let mut grad = buffer(qkv.len());
            attention_few::backward(sizes, qkv.as_slice(), &dy, &mut grad);
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
    use crate::ops::testing::{assert_close, check_gradients, on_every_device, random};

    /// The definition, in f64.
    fn twin(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, causal: bool) -> Vec<f32> {
        let [batch, queries, width] = q.dims("twin").unwrap();
        let keys = k.shape()[1];
        let head = width / heads;
        let mut out = vec![0.0; q.len()];
        for b in 0..batch {
            for h in 0..heads {
                for t in 0..queries {
                    let at = |x: &Tensor, n: usize, row: usize, i: usize| {
                        f64::from(x.as_slice()[(b * n + row) * width + h * head + i])
                    };
                    let seen = if causal { t + 1 } else { keys };
                    let weights: Vec<f64> = (0..seen)
                        .map(|s| (0..head).map(|i| at(q, queries, t, i) * at(k, keys, s, i)).sum::<f64>())
                        .map(|dot| (dot / (head as f64).sqrt()).exp())
                        .collect();
                    let norm: f64 = weights.iter().sum();
                    for i in 0..head {
                        let sum: f64 = weights.iter().enumerate().map(|(s, w)| w * at(v, keys, s, i)).sum();
                        out[(b * queries + t) * width + h * head + i] = (sum / norm) as f32;
                    }
                }
            }
        }
        out
    }

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

    #[test]
    fn attention_agrees_with_its_definition() {
        on_every_device(|| {
            for [batch, heads, head, queries, keys] in SIZES {
                let width = heads * head;
                let q = random(&[batch, queries, width], 1);
                let (k, v) = (random(&[batch, keys, width], 2), random(&[batch, keys, width], 3));
                for causal in [false, true] {
                    if causal && queries != keys {
                        continue;
                    }
                    let out = attention(&q, &k, &v, heads, causal).unwrap();
                    assert_close(out.as_slice(), &twin(&q, &k, &v, heads, causal), 1e-5);
                }
            }
        });
    }

    /// Scores of several hundred must not overflow.
    #[test]
    fn large_scores_stay_finite() {
        on_every_device(|| {
            let (x, v) = (Tensor::full(30.0, &[1, 4, 8]), random(&[1, 4, 8], 3));
            let out = attention(&x, &x, &v, 2, false).unwrap();
            let wanted = twin(&Tensor::zeros(&[1, 4, 8]), &x, &v, 2, false);
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
