//! Residual quantization (Lee et al., "Autoregressive image generation using residual quantization", CVPR 2022, section
//! 3.1): codes, depth by depth, and how far each depth's sum of codewords is from what was quantized.

use super::nearest::{Search, fit};
use super::{common_device, on_cpu};
use crate::cpu::loops::loss;
use crate::cpu::nearest as kernel;
use crate::tape::{GradKey, record};
use crate::{Codes, Error, Result, Tensor};

/// Greedy residual codes: at each depth the [`nearest`](super::nearest::nearest) code of that depth's codebook to what the
/// codes before it left. Vectors `[.., C]` and D codebooks give codes `[.., D]`.
///
/// # Errors
/// [`Error::Shape`] if the sizes do not fit.
pub fn residual_codes(vectors: &Tensor, depths: &[&Search]) -> Result<Codes> {
    common_device("residual_codes", depths.iter().map(|depth| &depth.codebook).chain([vectors]))?;
    for depth in depths {
        fit("residual_codes", vectors, &depth.codebook)?;
    }
    let outer = vectors.shape().split_last().map_or(&[][..], |(_, outer)| outer);
    let shape = [outer, &[depths.len()]].concat();
    #[cfg(feature = "cuda")]
    {
        let searches: Vec<_> = depths.iter().filter_map(|depth| depth.on_gpu()).collect();
        return_from_gpu!(crate::cuda::nearest::residual_codes(vectors, &searches, &shape));
    }
    on_cpu("residual_codes", [vectors])?;
    let mut codes = vec![0; shape.iter().product()];
    let books: Vec<_> = depths.iter().filter_map(|depth| depth.on_cpu()).collect();
    kernel::residual_codes(&books, vectors.as_slice(), &mut codes);
    Codes::from_vec(codes, &shape)
}

/// What [`partial_sums`] gives.
#[derive(Debug)]
pub struct PartialSums {
    /// The sum of all terms.
    pub sum: Tensor,
    /// For each d the mean squared difference of x and the sum of the first d + 1 terms: `[D]`, without a gradient.
    pub mse: Tensor,
    /// The sum of `mse` (rank 0).
    pub total: Tensor,
}

/// The distances of `x` from the partial sums of `terms`, tensors of its shape: with codewords for terms, the parts of the
/// commitment loss `Σ_d |x - sg(z_d)|²`, each a mean over elements. A gradient flows to `x` alone.
///
/// # Errors
/// [`Error::Shape`] if there are no terms or elements, or the shapes differ.
pub fn partial_sums(x: &Tensor, terms: &[Tensor]) -> Result<PartialSums> {
    common_device("partial_sums", terms.iter().chain([x]))?;
    if terms.is_empty() || x.is_empty() || terms.iter().any(|term| term.shape() != x.shape()) {
        let shapes: Vec<_> = terms.iter().map(Tensor::shape).collect();
        return Err(Error::shape("partial_sums", format!("wanted terms of shape {:?}, found {shapes:?}", x.shape())));
    }
    #[cfg(feature = "cuda")]
    if let Some([sum, mse, total]) = crate::cuda::nearest::partial_sums(x, terms)? {
        return Ok(PartialSums { sum, mse, total });
    }
    on_cpu("partial_sums", [x])?;
    let n = x.len() as f64;
    let (sum, squares) = loss::partial_sums(x.as_slice(), &slices(terms));
    let mse: Vec<f32> = squares.iter().map(|square| (square / n) as f32).collect();
    let key = x.tracked().map(|x| (x, GradKey::new()));
    let total = Tensor::output(vec![mse.iter().sum()], &[], key.as_ref().map(|k| k.1.clone()));
    if let Some((x_key, key)) = key {
        let (x, terms): (_, Vec<_>) = (x.detach(), terms.iter().map(Tensor::detach).collect());
        record(&key, move |grad, flow| {
            let scale = (f64::from(grad[0]) * 2.0 / n) as f32;
            flow.with(&x_key, x.len(), |out| loss::partial_differences(x.as_slice(), &slices(&terms), scale, out))
        });
    }
    let mse = Tensor::output(mse, &[terms.len()], None);
    Ok(PartialSums { sum: Tensor::output(sum, x.shape(), None), mse, total })
}

fn slices(tensors: &[Tensor]) -> Vec<&[f32]> {
    tensors.iter().map(Tensor::as_slice).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, on_every_device, random};
    use crate::{Device, Rng};

    /// Depth by depth: look up, subtract.
    #[test]
    fn residual_codes_are_those_of_one_depth_after_another() {
        on_every_device(|| {
            for (rows, channels, sizes) in
                [(1, 1, vec![1]), (7, 3, vec![5, 2, 9]), (300, 19, vec![150, 150]), (130, 64, vec![256, 200, 3, 129])]
            {
                let x = random(&[rows, channels], 1);
                let books: Vec<Tensor> =
                    sizes.iter().enumerate().map(|(d, &k)| random(&[k, channels], 10 + d as u64)).collect();
                let searches: Vec<Search> = books.iter().map(|book| Search::new(book).unwrap()).collect();
                let codes = residual_codes(&x, &searches.iter().collect::<Vec<_>>()).unwrap();
                assert_eq!(codes.shape(), [rows, sizes.len()]);
                let mut residual = x;
                for (d, book) in books.iter().enumerate() {
                    let wanted = crate::ops::nearest::nearest(&residual, book).unwrap();
                    assert_eq!(codes.column(d).unwrap(), wanted);
                    residual = residual.sub(&book.embedding(&wanted).unwrap()).unwrap();
                }
            }
            let search = Search::new(&random(&[4, 3], 1)).unwrap();
            assert!(residual_codes(&random(&[5, 2], 1), &[&search]).is_err());
            assert_eq!(residual_codes(&random(&[5, 2], 1), &[]).unwrap().shape(), [5, 0]);
            assert!(residual_codes(&Tensor::zeros(&[0, 3]), &[&search, &search]).unwrap().is_empty());
        });
    }

    #[test]
    fn partial_sums_agree_with_their_definition() {
        on_every_device(|| {
            for (shape, depth) in [(&[1][..], 1), (&[3, 7], 4), (&[40, 30, 17], 3), (&[5], 19)] {
                let x = random(shape, 1);
                let terms: Vec<Tensor> =
                    (0..depth).map(|d| random(shape, 2 + Rng::new(d, "term", 0).below(1, 9)[0] as u64)).collect();
                let got = partial_sums(&x, &terms).unwrap();
                let mut sum = Tensor::zeros(shape);
                for (mse, term) in got.mse.as_slice().iter().zip(&terms) {
                    sum = sum.add(term).unwrap();
                    let wanted = x.mse(&sum).unwrap();
                    match x.device() {
                        Device::Cpu => assert_eq!(wanted.as_slice(), [*mse]),
                        // Sums in another order.
                        _ => assert_close(&[*mse], wanted.as_slice(), 1e-6),
                    }
                }
                assert_eq!(got.mse.shape(), [depth as usize]);
                assert_eq!(got.sum.to_vec(), sum.to_vec());
                assert_close(got.total.as_slice(), &[got.mse.as_slice().iter().sum()], 1e-6);
            }
            let terms = [random(&[3, 7], 3), random(&[3, 7], 4)];
            check_gradients(&[random(&[3, 7], 5)], |t| Ok(partial_sums(&t[0], &terms)?.total), 1e-3);
            check_gradients(
                &[random(&[3, 7], 6)],
                |t| t[0].square()?.mean_all()?.mul(&partial_sums(&t[0], &terms)?.total),
                1e-3,
            );
            assert!(partial_sums(&Tensor::zeros(&[2, 3]), &terms).is_err() && partial_sums(&terms[0], &[]).is_err());
        });
    }
}
