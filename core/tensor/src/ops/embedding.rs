//! Rows of a table.

use crate::cpu::gather;
use crate::tape::{GradKey, record};
use crate::{Codes, Error, Result, Tensor};

impl Tensor {
    /// Rows of a table [K, C] picked by codes [..] -> [.., C].
    ///
    /// # Errors
    /// [`Error::Shape`] if this is no matrix or a code is K or more.
    pub fn embedding(&self, codes: &Codes) -> Result<Tensor> {
        let [size, width] = self.dims("embedding")?;
        super::check_codes("embedding", "code", codes, size)?;
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let shape = [codes.shape(), &[width]].concat();
        let data = gather::rows(self.as_slice(), width, codes.as_slice());
        let out = Tensor::output(data, &shape, key.as_ref().map(|k| k.1.clone()));
        if let Some((table, key)) = key {
            let codes = codes.clone();
            record(&key, move |grad, flow| {
                flow.with(&table, size * width, |out, accumulate| {
                    gather::add_rows(&grad, width, codes.as_slice(), out, accumulate);
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
        let rows = self.as_slice().chunks_exact(width);
        let data = rows.zip(codes.as_slice()).map(|(row, &code)| row[code as usize]).collect();
        let key = self.tracked().map(|x| (x, GradKey::new()));
        let out = Tensor::output(data, outer, key.as_ref().map(|k| k.1.clone()));
        if let Some((x, key)) = key {
            let (codes, total) = (codes.clone(), self.len());
            record(&key, move |grad, flow| {
                flow.with(&x, total, |out, accumulate| {
                    if !accumulate {
                        out.fill(0.0);
                    }
                    for ((row, &code), grad) in out.chunks_exact_mut(width).zip(codes.as_slice()).zip(grad) {
                        row[code as usize] += grad;
                    }
                })
            });
        }
        Ok(out)
    }
}
