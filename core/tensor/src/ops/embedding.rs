//! Rows of a table.

use super::on_cpu;
use crate::cpu::loops::by_code;
use crate::tape::{GradKey, record};
use crate::{Codes, Device, Error, Result, Tensor};

impl Tensor {
    /// Rows of a table [K, C] picked by codes [..] -> [.., C].
    ///
    /// # Errors
    /// [`Error::Shape`] if this is no matrix or a code is K or more.
    pub fn embedding(&self, codes: &Codes) -> Result<Tensor> {
        let [size, width] = self.dims("embedding")?;
        super::check_codes("embedding", "code", codes, size)?;
        return_from_gpu!(crate::cuda::loops::by_code::embedding(self, codes));
        on_cpu("embedding", [self])?;
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let shape = [codes.shape(), &[width]].concat();
        let data = by_code::rows(self.as_slice(), width, codes.as_slice());
        let out = Tensor::output(data, &shape, key.as_ref().map(|k| k.1.clone()));
        if let Some((table, key)) = key {
            let codes = codes.clone();
            record(&key, move |grad, flow| {
                flow.with(&table, size * width, |out| by_code::sums_by_code(&grad, width, codes.as_slice(), out))
            });
        }
        Ok(out)
    }

    /// The sums of rows of a table [K, C] picked by codes [.., T], over the T of each -> [.., C].
    ///
    /// # Errors
    /// [`Error::Shape`] if this is no matrix or a code is K or more.
    pub fn embedding_sum(&self, codes: &Codes) -> Result<Tensor> {
        let [size, width] = self.dims("embedding_sum")?;
        let Some((&group, outer)) = codes.shape().split_last() else {
            return Err(Error::shape("embedding_sum", "a single code has no axis to sum over"));
        };
        if self.device() != Device::Cpu || group == 0 {
            return self.embedding(codes)?.sum(&[outer.len()], false);
        }
        super::check_codes("embedding_sum", "code", codes, size)?;
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let shape = [outer, &[width]].concat();
        let data = by_code::row_sums(self.as_slice(), width, codes.as_slice(), group);
        let out = Tensor::output(data, &shape, key.as_ref().map(|k| k.1.clone()));
        if let Some((table, key)) = key {
            let codes = codes.clone();
            record(&key, move |grad, flow| {
                flow.with(&table, size * width, |out| {
                    by_code::sums_by_code_of_groups(&grad, width, codes.as_slice(), group, out)
                })
            });
        }
        Ok(out)
    }

    /// Of every row of a tensor [.., K] the element that codes [..] name -> [..].
    ///
    /// # Errors
    /// [`Error::Shape`] if the codes' shape is not that of the rows, or a code is K or more.
    pub fn gather_last(&self, codes: &Codes) -> Result<Tensor> {
        if self.rank() == 0 {
            return Err(Error::shape("gather_last", "a tensor of rank 0 has no rows"));
        }
        let (outer, width) = super::rows_of("gather_last", self, codes.shape())?;
        super::check_codes("gather_last", "code", codes, width)?;
        return_from_gpu!(crate::cuda::loops::by_code::gather_last(self, codes, outer));
        on_cpu("gather_last", [self])?;
        let rows = self.as_slice().chunks_exact(width);
        let data = rows.zip(codes.as_slice()).map(|(row, &code)| row[code as usize]).collect();
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let out = Tensor::output(data, outer, key.as_ref().map(|k| k.1.clone()));
        if let Some((x, key)) = key {
            let (codes, total) = (codes.clone(), self.len());
            record(&key, move |grad, flow| {
                flow.with(&x, total, |out| {
                    let out = out.zeros();
                    for ((row, &code), grad) in out.chunks_exact_mut(width).zip(codes.as_slice()).zip(grad) {
                        row[code as usize] += grad;
                    }
                    out
                })
            });
        }
        Ok(out)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, on_every_device, random};
    use crate::{Rng, Tape};

    #[test]
    fn rows_are_those_that_the_codes_name() {
        on_every_device(|| {
            for (size, width, n) in [(1, 1, 3), (5, 7, 1), (11, 16, 40), (300, 33, 2000)] {
                let table = random(&[size, width], 1);
                let codes = Codes::from_vec(Rng::new(2, "codes", 0).below(n, size as u32), &[n, 1]).unwrap();
                let rows = table.embedding(&codes).unwrap();
                assert_eq!(rows.shape(), [n, 1, width]);
                for (row, &code) in rows.as_slice().chunks(width).zip(codes.as_slice()) {
                    assert_eq!(row, &table.as_slice()[code as usize * width..][..width]);
                }
            }
        });
    }

    #[test]
    fn a_row_gathers_the_gradients_of_all_its_uses() {
        on_every_device(|| {
            let table = Tensor::zeros(&[300, 33]).leaf();
            let codes = Codes::from_vec(Rng::new(3, "codes", 0).below(5000, 250), &[5000]).unwrap();
            let weights = random(&[5000, 33], 4);
            let tape = Tape::start().unwrap();
            let loss = table.embedding(&codes).unwrap().mul(&weights).unwrap().sum_all().unwrap();
            let found = tape.backward(&loss).unwrap().take(&table).unwrap();
            let mut wanted = vec![0.0f32; 300 * 33];
            for (row, &code) in weights.as_slice().chunks(33).zip(codes.as_slice()) {
                for (w, x) in wanted[code as usize * 33..].iter_mut().zip(row) {
                    *w += x;
                }
            }
            if table.device() == Device::Cpu {
                assert_eq!(found.as_slice(), wanted);
            }
            assert_close(found.as_slice(), &wanted, 1e-6);
        });
    }

    #[test]
    fn sums_of_rows_are_those_of_the_rows_one_by_one() {
        on_every_device(|| {
            for (size, width, group, n) in [(1, 1, 1, 1), (5, 7, 3, 4), (300, 33, 16, 200)] {
                let table = random(&[size, width], 7);
                let codes =
                    Codes::from_vec(Rng::new(8, "codes", 0).below(n * group, size as u32), &[n, 1, group]).unwrap();
                let sums = table.embedding_sum(&codes).unwrap();
                let wanted = table.embedding(&codes).unwrap().sum(&[2], false).unwrap();
                assert_eq!(sums.shape(), [n, 1, width]);
                assert_close(sums.as_slice(), wanted.as_slice(), 1e-6);
                check_gradients(&[table], |t| t[0].embedding_sum(&codes), 1e-3);
            }
        });
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        on_every_device(|| {
            let codes = Codes::from_vec(vec![0, 2, 2, 1, 2, 4], &[2, 3]).unwrap();
            check_gradients(&[random(&[5, 3], 5)], |t| t[0].embedding(&codes), 1e-3);
            check_gradients(&[random(&[5, 3], 6)], |t| t[0].embedding(&codes)?.mul(&t[0].embedding(&codes)?), 1e-3);
            check_gradients(&[random(&[2, 3, 5], 7)], |t| t[0].gather_last(&codes), 1e-3);
            check_gradients(
                &[random(&[2, 3, 5], 8)],
                |t| t[0].gather_last(&codes)?.mul(&t[0].gather_last(&codes)?),
                1e-3,
            );
        });
    }

    #[test]
    fn codes_out_of_range_are_errors_with_numbers() {
        on_every_device(|| {
            let table = Tensor::zeros(&[4, 2]);
            let codes = Codes::from_vec(vec![3, 4], &[2]).unwrap();
            let error = table.embedding(&codes).unwrap_err().to_string();
            assert_eq!(error, "embedding: code 4 at position 1 of [2] is not below 4");
            assert!(Tensor::zeros(&[2, 4]).gather_last(&codes).is_err());
            assert!(
                Tensor::zeros(&[3, 9]).gather_last(&codes).is_err() && Tensor::zeros(&[4]).embedding(&codes).is_err()
            );
        });
    }
}
