//! Codebooks that follow their vectors by exponential moving averages (van den Oord et al., "Neural discrete
//! representation learning", NeurIPS 2017, appendix A.1).

use super::{check_codes, on_cpu, rows_of};
use crate::cpu::averages as kernel;
use crate::{Codes, Error, Result, Tensor, Var};

/// Takes vectors `[.., C]` with codes `[..]` into the averages: with n the number and s the sum of a code's vectors,
/// `counts = decay counts + (1 - decay) n` `[K]` and `sums = decay sums + (1 - decay) s` `[K, C]`. Sums run in the order of
/// the vectors, whatever the number of threads.
///
/// # Errors
/// [`Error::Shape`] if the sizes do not fit or a code is not below K.
pub fn update_averages(vectors: &Tensor, codes: &Codes, decay: f64, counts: &Var, sums: &Var) -> Result<()> {
    on_cpu("update_averages", [vectors, &counts.get(), &sums.get()])?;
    let (_, channels) = rows_of("update_averages", vectors, codes.shape())?;
    let decay = kernel::Decay { old: decay as f32, new: (1.0 - decay) as f32 };
    counts.write(|counts| {
        check_codes("update_averages", "code", codes, counts.len())?;
        sums.write(|sums| {
            if sums.len() != counts.len() * channels {
                return Err(Error::shape(
                    "update_averages",
                    format!("{} sums of {} codes with {channels} channels", sums.len(), counts.len()),
                ));
            }
            kernel::update(decay, channels, vectors.as_slice(), codes.as_slice(), counts, sums);
            Ok(())
        })
    })
}

/// Writes the mean vector of each code: `means = sums / counts` `[K, C]`.
///
/// # Errors
/// [`Error::Shape`] if the sizes do not fit.
pub fn write_means(sums: &Tensor, counts: &[f32], means: &Var) -> Result<()> {
    on_cpu("write_means", [sums, &means.get()])?;
    means.write(|means| {
        if sums.len() != means.len() || sums.shape().first() != Some(&counts.len()) {
            return Err(Error::shape(
                "write_means",
                format!("{} means of sums {:?} and {} counts", means.len(), sums.shape(), counts.len()),
            ));
        }
        kernel::divide(sums.len() / counts.len().max(1), sums.as_slice(), counts, means);
        Ok(())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::Rng;
    use crate::ops::testing::{assert_close, random};

    #[test]
    fn averages_agree_with_their_definition() {
        for (rows, size, channels) in
            [(1, 1, 1), (100, 7, 5), (5000, 300, 70), (3000, 10, 192), (3, 1000, 2), (0, 4, 3)]
        {
            let x = random(&[rows, channels], 1);
            let codes = Codes::from_vec(Rng::new(2, "codes", 0).below(rows, size), &[rows]).unwrap();
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
    }

    #[test]
    fn means_are_sums_over_counts() {
        let (sums, counts) = (random(&[7, 5], 1), [1.0, 2.0, 0.5, 3.0, 4.0, 10.0, 0.1]);
        let means = Var::buffer(&Tensor::zeros(&[7, 5]));
        write_means(&sums, &counts, &means).unwrap();
        for ((mean, sum), count) in means.get().as_slice().chunks(5).zip(sums.as_slice().chunks(5)).zip(counts) {
            assert!(mean.iter().zip(sum).all(|(mean, sum)| *mean == sum / count));
        }
        assert!(write_means(&sums, &counts[1..], &means).is_err());
    }

    #[test]
    fn misfits_are_errors() {
        let codes = Codes::from_vec(vec![0, 4], &[2]).unwrap();
        let update = |rows: usize, size: usize, sums: usize| {
            let (counts, sums) = (Var::buffer(&Tensor::zeros(&[size])), Var::buffer(&Tensor::zeros(&[sums, 3])));
            update_averages(&Tensor::zeros(&[rows, 3]), &codes, 0.9, &counts, &sums)
        };
        assert!(update(2, 5, 5).is_ok());
        assert!(update(3, 5, 5).is_err() && update(2, 4, 4).is_err() && update(2, 5, 6).is_err());
    }
}
