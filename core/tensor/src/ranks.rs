//! Processes that train one model together, each on its share of every batch: ranks.
//!
//! A step's loss is the mean of those of its shares, and so are its gradients. What looks across a batch, such as a batch norm or
//! an adaptive weight, asks here for the mean over the ranks that work on the step's present part, or for what they all have.
//! Outside a [`Step`] there is one rank, and nothing is exchanged: evaluation is one rank's work.

use crate::{Error, Result, Share, Tensor};
use std::cell::RefCell;
use std::rc::Rc;

/// How ranks exchange numbers. All ranks make the same calls in the same order.
pub trait Communicator {
    /// Which rank this process is, from 0. The first leads: it alone writes and speaks.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// Replaces numbers by their sums over all ranks.
    ///
    /// # Errors
    /// [`Error::Device`] if a rank is gone.
    fn sum(&self, numbers: &mut [f32]) -> Result<()>;

    /// Begins such a sum, which goes on while this process computes.
    ///
    /// # Errors
    /// As for [`Communicator::sum`].
    fn begin_sum(&self, mut numbers: Vec<f32>) -> Result<Box<dyn Pending>> {
        self.sum(&mut numbers)?;
        Ok(Box::new(numbers))
    }

    /// The sums of numbers where they are on a GPU, if it exchanges them itself; else they go by the host.
    ///
    /// # Errors
    /// As for [`Communicator::sum`].
    fn sum_on_device(&self, numbers: &Tensor) -> Result<Option<Tensor>> {
        let _ = numbers;
        Ok(None)
    }

    /// What all ranks have, one after another; each gives as many bytes.
    ///
    /// # Errors
    /// As for [`Communicator::sum`].
    fn gather(&self, bytes: &[u8]) -> Result<Vec<u8>>;
}

/// Sums that were begun.
pub trait Pending {
    /// Waits for them.
    ///
    /// # Errors
    /// As for [`Communicator::sum`].
    fn finish(self: Box<Self>) -> Result<Vec<f32>>;
}

impl Pending for Vec<f32> {
    fn finish(self: Box<Self>) -> Result<Vec<f32>> {
        Ok(*self)
    }
}

/// One process by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn gather(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
}

/// A part of a step of training: the ranks that work on it, and which of the step's parts it is, one after another.
#[derive(Clone)]
pub struct Step {
    ranks: Rc<dyn Communicator>,
    part: usize,
    parts: usize,
}

thread_local! {
    static STEP: RefCell<Option<Step>> = const { RefCell::new(None) };
}

impl Step {
    /// Part `part`, from 0, of the `parts` of a step.
    pub fn new(ranks: Rc<dyn Communicator>, part: usize, parts: usize) -> Self {
        Self { ranks, part, parts }
    }

    /// Runs `f` as work on this part.
    pub fn run<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Restore(Option<Step>);
        impl Drop for Restore {
            fn drop(&mut self) {
                STEP.set(self.0.take());
            }
        }
        let _restore = Restore(STEP.replace(Some(self.clone())));
        f()
    }

    /// The part that this thread works on; where it works on none, one that is a whole step of one rank.
    pub fn current() -> Self {
        STEP.with_borrow(Clone::clone).unwrap_or_else(|| Self::new(Rc::new(Alone), 0, 1))
    }

    /// The rows of the batch that this rank works on: the batch is cut by ranks, and each rank's rows by parts.
    pub fn share(&self) -> Share {
        share(self.ranks.as_ref()).part(self.part, self.parts)
    }

    /// How many ranks there are.
    pub fn ranks(&self) -> usize {
        self.ranks.size()
    }

    /// Which of the step's parts it is, from 0.
    pub fn part(&self) -> usize {
        self.part
    }

    /// Whether one rank does the whole step at once.
    pub fn is_undivided(&self) -> bool {
        self.parts == 1 && self.ranks() == 1
    }

    /// Whether it is the last: what moves once in a step moves then.
    pub fn is_last(&self) -> bool {
        self.part + 1 == self.parts
    }

    /// The sums of numbers over all ranks, without a gradient.
    ///
    /// # Errors
    /// Those of the ranks' communicator.
    pub fn sum(&self, numbers: &Tensor) -> Result<Tensor> {
        if self.ranks() == 1 { Ok(numbers.detach()) } else { sum(self.ranks.as_ref(), numbers) }
    }

    /// The mean over all ranks. Its gradient is the mean of theirs: the whole batch's loss is the mean of the ranks' losses, and
    /// each rank's gradient is that of its own.
    ///
    /// # Errors
    /// As for [`Step::sum`].
    pub fn mean(&self, x: &Tensor) -> Result<Tensor> {
        if self.ranks() == 1 {
            return Ok(x.clone());
        }
        let ranks = self.ranks.clone();
        mean(ranks.as_ref(), x)?
            .with_backward(&[x], |_| move |grad, gradients| gradients.add(0, mean(ranks.as_ref(), &grad)?))
    }

    /// The rows `[N, ..]` of all ranks, one rank's after another's, without a gradient; each has as many.
    ///
    /// # Errors
    /// As for [`Step::sum`]; a number has no rows.
    pub fn gather(&self, rows: &Tensor) -> Result<Tensor> {
        if self.ranks() == 1 {
            return Ok(rows.detach());
        }
        let bytes: Vec<u8> = rows.as_slice().iter().flat_map(|number| number.to_le_bytes()).collect();
        let all = self.ranks.gather(&bytes)?;
        let numbers = all.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let mut shape = rows.shape().to_vec();
        match shape.first_mut() {
            Some(first) => *first *= self.ranks(),
            None => return Err(Error::shape("gather", "a number has no rows")),
        }
        Tensor::from_vec(numbers, &shape)?.to_device(rows.device())
    }
}

/// The same ranks, which exchange what lies on GPUs directly, where this process computes on one and is built to.
///
/// # Errors
/// [`Error::Device`] if the GPUs do not reach each other.
pub fn on_devices(ranks: Rc<dyn Communicator>) -> Result<Rc<dyn Communicator>> {
    #[cfg(feature = "nccl")]
    if let crate::Device::Cuda(ordinal) = crate::Device::default_of_process() {
        return crate::cuda::device::nccl::connect(crate::cuda::open(ordinal)?, ranks);
    }
    Ok(ranks)
}

/// The rows of a batch that a rank works on.
pub fn share(ranks: &dyn Communicator) -> Share {
    Share { index: ranks.rank(), of: ranks.size() }
}

/// The sums of numbers over ranks, where the numbers are.
///
/// # Errors
/// Those of the communicator.
pub fn sum(ranks: &dyn Communicator, numbers: &Tensor) -> Result<Tensor> {
    if let Some(sums) = ranks.sum_on_device(numbers)? {
        return Ok(sums);
    }
    let mut sums = numbers.to_vec();
    ranks.sum(&mut sums)?;
    Tensor::from_vec(sums, numbers.shape())?.to_device(numbers.device())
}

fn mean(ranks: &dyn Communicator, numbers: &Tensor) -> Result<Tensor> {
    sum(ranks, numbers)?.mul_scalar(1.0 / ranks.size() as f32)
}

pub use team::{Member, team};

/// Threads of one process as ranks, for tests of what ranks compute.
mod team {
    use super::{Communicator, Result};
    use std::sync::{Arc, Barrier, Mutex, PoisonError};

    /// One of the ranks of a [`team`].
    pub struct Member {
        rank: usize,
        table: Arc<Table>,
    }

    struct Table {
        given: Mutex<Vec<Vec<u8>>>,
        turn: Barrier,
    }

    /// A communicator for each of `size` threads.
    pub fn team(size: usize) -> Vec<Member> {
        let table = Arc::new(Table { given: Mutex::new(vec![Vec::new(); size]), turn: Barrier::new(size) });
        (0..size).map(|rank| Member { rank, table: table.clone() }).collect()
    }

    impl Communicator for Member {
        fn rank(&self) -> usize {
            self.rank
        }

        fn size(&self) -> usize {
            self.given().len()
        }

        fn sum(&self, numbers: &mut [f32]) -> Result<()> {
            let all = self.gather(&numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>())?;
            let all = all.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect::<Vec<_>>();
            for (i, number) in numbers.iter_mut().enumerate() {
                *number = all.iter().skip(i).step_by(all.len() / self.size()).sum();
            }
            Ok(())
        }

        fn gather(&self, bytes: &[u8]) -> Result<Vec<u8>> {
            self.given()[self.rank] = bytes.to_vec();
            self.table.turn.wait();
            let all = self.given().concat();
            self.table.turn.wait();
            Ok(all)
        }
    }

    impl Member {
        fn given(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
            self.table.given.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::{Rng, Tape};

    /// What every rank of a team gives.
    fn on_ranks<R: Send>(size: usize, work: impl Fn(Step) -> R + Sync) -> Vec<R> {
        let work = &work;
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                team(size).into_iter().map(|ranks| scope.spawn(|| work(Step::new(Rc::new(ranks), 0, 1)))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn rows(of: &Share) -> Tensor {
        let all = Rng::new(1, "rows", 0).normal(8 * 3);
        let rows = of.rows(8);
        Tensor::from_vec(all[rows.start * 3..rows.end * 3].to_vec(), &[rows.len(), 3]).unwrap()
    }

    /// A loss that looks across the batch: the variance of each column.
    fn variance(step: &Step) -> (f32, Vec<f32>) {
        let x = rows(&step.share()).leaf();
        let tape = Tape::start().unwrap();
        let mean = step.mean(&x.mean(&[0], true).unwrap()).unwrap();
        let spread = step.mean(&x.sub(&mean).unwrap().square().unwrap().mean(&[0], false).unwrap()).unwrap();
        let loss = spread.sqrt().unwrap().sum_all().unwrap();
        (loss.item().unwrap(), tape.backward(&loss).unwrap().take(&x).unwrap().to_vec())
    }

    #[test]
    fn means_over_ranks_and_their_gradients_are_those_of_the_whole_batch() {
        let (loss, gradient) = variance(&Step::current());
        for size in [1, 2, 4] {
            let ranks = on_ranks(size, |step| variance(&step));
            // Each rank's gradient is that of the mean of the losses, times the ranks.
            let found: Vec<f32> = ranks.iter().flat_map(|(_, gradient)| gradient.clone()).collect();
            assert!(ranks.iter().all(|(found, _)| (found - loss).abs() < 1e-5));
            assert!(
                found.iter().zip(&gradient).all(|(a, b)| (a / size as f32 - b).abs() < 1e-5),
                "{found:?} {gradient:?}"
            );
        }
    }

    #[test]
    fn all_rows_are_gathered_in_their_order_and_sums_are_alike() {
        let whole = rows(&Share::WHOLE);
        for (gathered, sum) in on_ranks(4, |step| {
            let own = rows(&step.share());
            (step.gather(&own).unwrap().to_vec(), step.sum(&own.sum_all().unwrap()).unwrap().item().unwrap())
        }) {
            assert_eq!(gathered, whole.to_vec());
            assert!((sum - whole.sum_all().unwrap().item().unwrap()).abs() < 1e-5);
        }
    }

    #[test]
    fn shares_cut_a_batch_by_ranks_and_each_ranks_rows_by_parts() {
        let shares: Vec<usize> = on_ranks(2, |step| {
            (0..3).map(|part| Step::new(step.ranks.clone(), part, 3).share().index).collect::<Vec<_>>()
        })
        .concat();
        assert_eq!(shares, [0, 1, 2, 3, 4, 5]);
        let step = Step::new(Rc::new(Alone), 1, 2);
        assert!(step.is_last() && !step.is_undivided());
        assert_eq!(step.run(|| Step::current().share()), Share { index: 1, of: 2 });
        assert_eq!(Step::current().share(), Share::WHOLE);
    }
}
