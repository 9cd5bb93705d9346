//! Numbers to codes, and back.

use super::on_cpu;
use crate::{Codes, Error, Result, Tensor};

/// Whole numbers up to this one are exact in f32.
const EXACT: usize = 1 << 24;

impl Tensor {
    /// The whole numbers of a tensor `[..]` as codes `[..]` below `size`: what lies between is cut off towards zero, what
    /// lies outside brought to the nearest end, NaN to 0. Not differentiable.
    ///
    /// # Errors
    /// [`Error::Shape`] if `size` is 0, or above 2^24, where f32 leaves out whole numbers.
    pub fn to_codes(&self, size: usize) -> Result<Codes> {
        if !(1..=EXACT).contains(&size) {
            return Err(Error::shape("to_codes", format!("codes below {size} cannot be told apart as f32")));
        }
        return_from_gpu!(crate::cuda::device::codes::of_numbers(self, size));
        on_cpu("to_codes", [self])?;
        let last = (size - 1) as u32;
        Codes::from_vec(self.as_slice().iter().map(|&x| (x as u32).min(last)).collect(), self.shape())
    }
}

impl Codes {
    /// The codes `[..]` as numbers `[..]`. Not differentiable.
    ///
    /// # Errors
    /// [`Error::Shape`] of codes above 2^24, where f32 leaves out whole numbers.
    pub fn to_numbers(&self) -> Result<Tensor> {
        if self.bound() > EXACT {
            return Err(Error::shape("to_numbers", format!("codes below {} are no numbers of f32", self.bound())));
        }
        return_from_gpu!(crate::cuda::device::codes::to_numbers(self));
        Tensor::from_vec(self.as_slice().iter().map(|&code| code as f32).collect(), self.shape())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::on_every_device;

    #[test]
    fn whole_numbers_become_codes_and_all_others_codes_that_exist() {
        on_every_device(|| {
            let last = (EXACT - 1) as f32;
            let x = Tensor::from_vec(vec![0.0, 7.0, last, -3.0, 2.9, f32::NAN, 1e30, -1e30], &[2, 4]).unwrap();
            let codes = x.to_codes(EXACT).unwrap();
            assert_eq!((codes.shape(), codes.device()), (&[2, 4][..], x.device()));
            assert_eq!(codes.as_slice(), [0, 7, last as u32, 0, 2, 0, last as u32, 0]);
            let back = codes.to_numbers().unwrap();
            assert_eq!(back.to_vec(), [0.0, 7.0, last, 0.0, 2.0, 0.0, last, 0.0]);
            assert_eq!((back.shape(), back.device()), (x.shape(), x.device()));
            assert!(Codes::from_vec(vec![1 << 24], &[1]).unwrap().to_numbers().is_err());
            assert_eq!(x.to_codes(5).unwrap().as_slice(), [0, 4, 4, 0, 2, 0, 4, 0]);
            assert!(Tensor::zeros(&[0, 3]).to_codes(1).unwrap().is_empty());
            assert!(x.to_codes(0).is_err() && x.to_codes(EXACT + 1).is_err());
        });
    }
}
