//! Codebooks that follow their vectors by exponential moving averages (van den Oord et al., "Neural discrete
//! representation learning", NeurIPS 2017, appendix A.1).

use super::{check_codes, common_device, rows_of};
use crate::cpu::nearest::averages as kernel;
use crate::{Codes, Error, Result, Tensor, Var};

/// Takes vectors `[.., C]` with codes `[..]` into the averages: with n the number and s the sum of a code's vectors,
/// `counts = decay counts + (1 - decay) n` `[K]` and `sums = decay sums + (1 - decay) s` `[K, C]`. The order of a sum is that
/// of the vectors, whatever the number of threads; on a GPU eight parts of it are joined.
///
/// # Errors
/// [`Error::Shape`] if the sizes do not fit or a code is not below K.
pub fn update_averages(vectors: &Tensor, codes: &Codes, decay: f64, counts: &Var, sums: &Var) -> Result<()> {
    common_device("update_averages", [vectors, &counts.get(), &sums.get()])?;
    let (_, channels) = rows_of("update_averages", vectors, codes.shape())?;
    let (size, total) = (counts.get().len(), sums.get().len());
    check_codes("update_averages", "code", codes, size)?;
    if total != size * channels {
        return Err(Error::shape("update_averages", format!("{total} sums of {size} codes with {channels} channels")));
    }
    let decay = kernel::Decay { old: decay as f32, new: (1.0 - decay) as f32 };
    #[cfg(feature = "cuda")]
    if crate::cuda::loops::by_code::update_averages(vectors, codes, decay, [counts, sums])? {
        return Ok(());
    }
    counts.write(|counts| {
        sums.write(|sums| kernel::update(decay, channels, vectors.as_slice(), codes.as_slice(), counts, sums));
    });
    Ok(())
}

/// Writes the mean vector of each code, `means = sums / n` `[K, C]`, from counts N `[K]` with Laplace smoothing: with
/// `S = sum N`, `n = S (N + eps) / (S + K eps)`; with `eps` 0, the counts themselves.
///
/// # Errors
/// [`Error::Shape`] if the sizes do not fit.
pub fn write_means(sums: &Tensor, counts: &Tensor, eps: f64, means: &Var) -> Result<()> {
    common_device("write_means", [sums, counts, &means.get()])?;
    let (size, wanted) = (counts.len(), means.get().len());
    if sums.len() != wanted || sums.shape().first() != Some(&size) {
        return Err(Error::shape(
            "write_means",
            format!("{wanted} means of sums {:?} and {size} counts", sums.shape()),
        ));
    }
    #[cfg(feature = "cuda")]
    if crate::cuda::loops::by_code::write_means(sums, counts, eps, means)? {
        return Ok(());
    }
    let counts = counts.as_slice();
    let total: f64 = counts.iter().map(|&n| f64::from(n)).sum();
    let scale = total / (total + size as f64 * eps);
    let smoothed: Vec<f32> = counts.iter().map(|&n| ((f64::from(n) + eps) * scale) as f32).collect();
    means.write(|means| kernel::divide(sums.len() / size.max(1), sums.as_slice(), &smoothed, means));
    Ok(())
}

/// How many counts are below `least`: rank 0, on their device.
///
/// # Errors
/// [`Error::Device`] if the device fails.
pub fn count_rare(counts: &Tensor, least: f32) -> Result<Tensor> {
    return_from_gpu!(crate::cuda::loops::by_code::count_rare(counts, least));
    let rare = counts.as_slice().iter().filter(|&&count| count < least).count();
    Ok(Tensor::output(vec![rare as f32], &[], None))
}

/// Gives every code whose count is below `least` that count, and `least` times its row of `candidates` `[K, C]` as its sum.
///
/// # Errors
/// [`Error::Shape`] if the sizes do not fit.
pub fn replace_rare(candidates: &Tensor, least: f32, counts: &Var, sums: &Var) -> Result<()> {
    common_device("replace_rare", [candidates, &counts.get(), &sums.get()])?;
    let [size, channels] = candidates.dims("replace_rare")?;
    if counts.get().len() != size || sums.get().len() != size * channels {
        return Err(Error::shape(
            "replace_rare",
            format!("{} counts and {} sums of {:?}", counts.get().len(), sums.get().len(), candidates.shape()),
        ));
    }
    if size * channels == 0 {
        return Ok(());
    }
    #[cfg(feature = "cuda")]
    if crate::cuda::loops::by_code::replace_rare(candidates, least, [counts, sums])? {
        return Ok(());
    }
    counts.write(|counts| {
        sums.write(|sums| {
            let rows = sums.chunks_exact_mut(channels).zip(candidates.as_slice().chunks_exact(channels));
            for (count, (sum, candidate)) in counts.iter_mut().zip(rows).filter(|(count, _)| **count < least) {
                *count = least;
                sum.iter_mut().zip(candidate).for_each(|(sum, x)| *sum = x * least);
            }
        });
    });
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::Rng;
    use crate::ops::testing::{assert_close, on_every_device, random};

    /// Of the last two, nearly all rows have one code.
    #[test]
    fn averages_agree_with_their_definition() {
        on_every_device(|| {
            for (rows, size, channels, crowded) in [
                (1, 1, 1, false),
                (100, 7, 5, false),
                (5000, 300, 70, false),
                (3000, 10, 192, false),
                (3, 1000, 2, false),
                (0, 4, 3, false),
                (2100, 70_000, 3, true),
                (4097, 512, 40, true),
            ] {
                let x = random(&[rows, channels], 1);
                let mut codes = Rng::new(2, "codes", 0).below(rows, size);
                if crowded {
                    codes.iter_mut().enumerate().filter(|(i, _)| i % 50 > 0).for_each(|(_, code)| *code = size / 2);
                }
                let codes = Codes::from_vec(codes, &[rows]).unwrap();
                let size = size as usize;
                let (n, m) = (random(&[size], 3).square().unwrap(), random(&[size, channels], 4));
                let (counts, sums) = (Var::buffer(&n), Var::buffer(&m));
                update_averages(&x, &codes, 0.75, &counts, &sums).unwrap();
                let mut n: Vec<f64> = n.as_slice().iter().map(|&n| 0.75 * f64::from(n)).collect();
                let mut m: Vec<f64> = m.as_slice().iter().map(|&m| 0.75 * f64::from(m)).collect();
                for (x, &code) in x.as_slice().chunks(channels).zip(codes.as_slice()) {
                    n[code as usize] += 0.25;
                    for (c, x) in x.iter().enumerate() {
                        m[code as usize * channels + c] += 0.25 * f64::from(*x);
                    }
                }
                let narrow = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect::<Vec<_>>();
                assert_close(counts.get().as_slice(), &narrow(n), 1e-6);
                assert_close(sums.get().as_slice(), &narrow(m), 1e-5);
            }
        });
    }

    #[test]
    fn means_are_sums_over_counts() {
        on_every_device(|| {
            let (sums, counts) = (random(&[7, 5], 1), vec![1.0, 2.0, 0.5, 3.0, 4.0, 10.0, 0.25]);
            let means = Var::buffer(&Tensor::zeros(&[7, 5]));
            for eps in [0.0, 0.3] {
                write_means(&sums, &Tensor::from_vec(counts.clone(), &[7]).unwrap(), eps, &means).unwrap();
                let total: f64 = counts.iter().map(|&n| f64::from(n)).sum();
                for ((mean, sum), &count) in
                    means.get().as_slice().chunks(5).zip(sums.as_slice().chunks(5)).zip(&counts)
                {
                    let smoothed = total * (f64::from(count) + eps) / (total + 7.0 * eps);
                    let wanted: Vec<f32> = sum.iter().map(|&sum| (f64::from(sum) / smoothed) as f32).collect();
                    assert_close(mean, &wanted, 1e-6);
                }
            }
            assert!(write_means(&sums, &Tensor::zeros(&[6]), 0.0, &means).is_err());
        });
    }

    #[test]
    fn rare_codes_are_replaced_and_others_stay() {
        on_every_device(|| {
            let (first, candidates) = (random(&[5, 3], 1), random(&[5, 3], 2));
            let counts = Var::buffer(&Tensor::from_vec(vec![0.0, 2.0, 7.0, 1.99, 2.5], &[5]).unwrap());
            let sums = Var::buffer(&first);
            let rare = || count_rare(&counts.get(), 2.0).unwrap().item().unwrap();
            assert_eq!(rare(), 2.0);
            replace_rare(&candidates, 2.0, &counts, &sums).unwrap();
            assert_eq!(rare(), 0.0);
            assert_eq!(counts.get().as_slice(), [2.0, 2.0, 7.0, 2.0, 2.5]);
            for (k, sum) in sums.get().as_slice().chunks(3).enumerate() {
                let (old, new) = (&first.as_slice()[3 * k..3 * k + 3], &candidates.as_slice()[3 * k..3 * k + 3]);
                let wanted: Vec<f32> =
                    if [0, 3].contains(&k) { new.iter().map(|x| 2.0 * x).collect() } else { old.to_vec() };
                assert_eq!(sum, wanted);
            }
            assert!(replace_rare(&random(&[4, 3], 3), 1.0, &counts, &sums).is_err());
        });
    }

    #[test]
    fn misfits_are_errors() {
        on_every_device(|| {
            let codes = Codes::from_vec(vec![0, 4], &[2]).unwrap();
            let update = |rows: usize, size: usize, sums: usize| {
                let (counts, sums) = (Var::buffer(&Tensor::zeros(&[size])), Var::buffer(&Tensor::zeros(&[sums, 3])));
                update_averages(&Tensor::zeros(&[rows, 3]), &codes, 0.9, &counts, &sums)
            };
            assert!(update(2, 5, 5).is_ok());
            assert!(update(3, 5, 5).is_err() && update(2, 4, 4).is_err() && update(2, 5, 6).is_err());
        });
    }
}
