//! Which of a process's steps are taken in sampling.

use crate::{Error, Result};

/// The published rule: `steps` are cut into `sections.len()` equal sections, of which earlier ones take the remainder; of a
/// section of s steps the i-th of n is its start plus `i (s - 1) / (n - 1)`, added up and rounded half to even. Ascending.
///
/// # Errors
/// [`Error::Unsupported`] for a section with fewer steps than are asked of it, or none asked of it.
pub fn respaced_timesteps(steps: usize, sections: &[usize]) -> Result<Vec<usize>> {
    let (count, mut start, mut taken) = (sections.len().max(1), 0, Vec::new());
    for (i, &wanted) in sections.iter().enumerate() {
        let size = steps / count + usize::from(i < steps % count);
        if wanted == 0 || wanted > size {
            return Err(Error::Unsupported(format!(
                "{wanted} steps cannot be taken of {size}: a process of {steps} steps{} has no more",
                if count > 1 { format!(" in {count} sections") } else { String::new() }
            )));
        }
        let stride = if wanted == 1 { 1.0 } else { (size - 1) as f64 / (wanted - 1) as f64 };
        let mut at = 0.0f64;
        for _ in 0..wanted {
            taken.push(start + at.round_ties_even() as usize);
            at += stride;
        }
        start += size;
    }
    Ok(taken)
}

/// Every n-th step from the first, with the least n that gives exactly `count` (Song et al., "Denoising diffusion implicit
/// models", ICLR 2021). Ascending.
///
/// # Errors
/// [`Error::Unsupported`] where no whole stride gives so many.
pub fn ddim_timesteps(steps: usize, count: usize) -> Result<Vec<usize>> {
    let stride = (1..steps).find(|&stride| steps.div_ceil(stride) == count);
    let none = || Error::Unsupported(format!("no whole stride takes {count} of {steps} steps"));
    Ok((0..steps).step_by(stride.ok_or_else(none)?).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_hundred_of_a_thousand_are_the_published_ones() {
        let taken = respaced_timesteps(1000, &[100]).unwrap();
        assert_eq!(taken[..4], [0, 10, 20, 30]);
        assert_eq!(taken[97..], [979, 989, 999]);
        assert_eq!(ddim_timesteps(1000, 50).unwrap()[..3], [0, 20, 40]);
    }

    #[test]
    fn counts_that_do_not_respace_are_refused() {
        for sections in [&[1001][..], &[0], &[400, 600]] {
            assert!(respaced_timesteps(1000, sections).unwrap_err().to_string().contains("steps"));
        }
        assert!(ddim_timesteps(1000, 999).is_err());
    }
}
