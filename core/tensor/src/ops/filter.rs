//! Weighted sums along an axis: what resizing and blurring are made of.

use super::kernel::{Kernel, run};
use crate::cpu::loops::filter::Lines;
#[cfg(feature = "cuda")]
use crate::cuda::{Gpu, Numbers};
use crate::{Device, Error, Result, Tensor};
#[cfg(feature = "cuda")]
use dfdx::prelude::CudaError;

/// For each new position along an axis, the first old position that it reads, and the weights of that one and its followers.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    from: usize,
    taps: Vec<(usize, Vec<f32>)>,
}

impl Filter {
    /// A filter of axes of `from` positions.
    ///
    /// # Errors
    /// [`Error::Shape`] if a position is read that is not there.
    pub fn new(from: usize, taps: Vec<(usize, Vec<f32>)>) -> Result<Self> {
        if let Some((first, weights)) = taps.iter().find(|(first, weights)| first + weights.len() > from) {
            let message = format!("{} weights from position {first} on leave an axis of {from}", weights.len());
            return Err(Error::shape("filter", message));
        }
        Ok(Self { from, taps })
    }

    /// New positions.
    pub fn len(&self) -> usize {
        self.taps.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.taps.is_empty()
    }

    /// What takes gradients back: the transposed matrix.
    fn transposed(&self) -> Self {
        let mut taps: Vec<(usize, Vec<f32>)> = vec![(0, Vec::new()); self.from];
        for (to, (first, weights)) in self.taps.iter().enumerate() {
            for (tap, &weight) in taps[*first..].iter_mut().zip(weights) {
                if tap.1.is_empty() {
                    tap.0 = to;
                }
                // Positions between two readers are read with the weight 0.
                tap.1.resize(to - tap.0, 0.0);
                tap.1.push(weight);
            }
        }
        Self { from: self.taps.len(), taps }
    }

    /// As kernels take it, a row for each new position: the first old one, how many, and their weights.
    fn table(&self, device: Device) -> Result<Tensor> {
        let width = 2 + self.taps.iter().map(|(_, weights)| weights.len()).max().unwrap_or(0);
        let mut table = vec![0.0; self.taps.len() * width];
        for (row, (first, weights)) in table.chunks_exact_mut(width).zip(&self.taps) {
            row[0] = *first as f32;
            row[1] = weights.len() as f32;
            row[2..][..weights.len()].copy_from_slice(weights);
        }
        Tensor::from_vec(table, &[self.taps.len(), width])?.to_device(device)
    }
}

impl Kernel<2> for Lines {
    fn cpu(&self, [x, table]: [&[f32]; 2]) -> Vec<f32> {
        self.filtered(x, table)
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gpu: &Gpu, [x, table]: [&Numbers; 2]) -> Result<Numbers, CudaError> {
        gpu.filter(x, table, *self)
    }
}

impl Tensor {
    /// The weighted sums of a filter along `axis`, which gets as many positions as the filter makes.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the axis is there and as long as the filter's.
    pub fn filter(&self, axis: usize, filter: &Filter) -> Result<Tensor> {
        if self.shape().get(axis) != Some(&filter.from) || filter.from.max(filter.len()) >= 1 << 24 {
            let message =
                format!("axis {axis} of {:?} is not the {} positions of the filter", self.shape(), filter.from);
            return Err(Error::shape("filter", message));
        }
        let mut shape = self.shape().to_vec();
        shape[axis] = filter.len();
        let lines = Lines { from: filter.from, to: filter.len(), inner: self.shape()[axis + 1..].iter().product() };
        let table = filter.table(self.device())?;
        run("filter", &lines, [self, &table], &shape)?.with_backward(&[self], |_| {
            let (own, back) = (self.shape().to_vec(), filter.transposed());
            move |grad, gradients| {
                let table = back.table(grad.device())?;
                let lines = Lines { from: lines.to, to: lines.from, ..lines };
                gradients.add(0, run("filter", &lines, [&grad, &table], &own)?)
            }
        })
    }

    /// A filter down and one across a map `[B, H, W, C]`, in the order that makes the smaller map in between.
    ///
    /// # Errors
    /// As for [`filter`](Self::filter); another rank.
    pub fn filter_map(&self, down: &Filter, across: &Filter) -> Result<Tensor> {
        let [_, height, width, _] = self.dims("filter_map")?;
        if down.len() * width <= height * across.len() {
            self.filter(1, down)?.filter(2, across)
        } else {
            self.filter(2, across)?.filter(1, down)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests stop at the first failure")]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_close, check_gradients, on_every_device, random};

    fn filters() -> [Filter; 4] {
        let taps = |list: &[(usize, &[f32])]| list.iter().map(|(first, w)| (*first, w.to_vec())).collect();
        [
            Filter::new(5, taps(&[(0, &[0.5, 0.5]), (3, &[0.25, 0.75]), (1, &[2.0]), (0, &[1.0, 2.0, 3.0, 4.0, 5.0])])),
            Filter::new(5, taps(&[(2, &[1.0, -1.0, 0.5])])),
            Filter::new(5, taps(&[(0, &[1.0]), (0, &[]), (4, &[1.0]), (0, &[1.0]), (4, &[3.0]), (2, &[1.0])])),
            Filter::new(5, Vec::new()),
        ]
        .map(Result::unwrap)
    }

    #[test]
    fn new_positions_are_weighted_sums_of_old_ones() {
        on_every_device(|| {
            for (before, after) in
                [(vec![3], vec![7]), (vec![], vec![3]), (vec![2, 2], vec![]), (vec![70], vec![2, 33])]
            {
                let shape = [before.clone(), vec![5], after.clone()].concat();
                let (x, inner) = (random(&shape, 1), after.iter().product::<usize>());
                for filter in filters() {
                    let found = x.filter(before.len(), &filter).unwrap();
                    assert_eq!(found.shape(), [before.clone(), vec![filter.len()], after.clone()].concat());
                    let mut wanted = Vec::new();
                    for line in x.as_slice().chunks(5 * inner) {
                        for (first, weights) in &filter.taps {
                            let sum = |i: usize| {
                                let at = |k: usize| f64::from(line[(first + k) * inner + i]);
                                weights.iter().enumerate().map(|(k, &w)| f64::from(w) * at(k)).sum::<f64>() as f32
                            };
                            wanted.extend((0..inner).map(sum));
                        }
                    }
                    assert_close(found.as_slice(), &wanted, 1e-6);
                    check_gradients(std::slice::from_ref(&x), |t| t[0].filter(before.len(), &filter), 1e-3);
                }
            }
        });
    }

    #[test]
    fn a_map_is_filtered_down_and_across() {
        on_every_device(|| {
            let x = random(&[2, 5, 5, 3], 2);
            let [a, b, c, _] = filters();
            for (down, across) in [(&a, &b), (&b, &c), (&c, &a)] {
                let found = x.filter_map(down, across).unwrap();
                let wanted = x.filter(1, down).unwrap().filter(2, across).unwrap();
                assert_close(found.as_slice(), wanted.as_slice(), 1e-5);
            }
        });
    }

    #[test]
    fn what_is_not_there_is_not_read() {
        assert!(Filter::new(3, vec![(2, vec![1.0, 1.0])]).is_err());
        let filter = Filter::new(3, vec![(0, vec![1.0])]).unwrap();
        assert!(Tensor::zeros(&[2, 4]).filter(1, &filter).is_err() && Tensor::zeros(&[3]).filter(1, &filter).is_err());
        assert!(Tensor::zeros(&[0, 3]).filter(1, &filter).unwrap().is_empty());
    }
}
