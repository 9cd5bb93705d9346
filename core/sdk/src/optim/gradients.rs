//! The gradients of a step that is done in parts, one after another, by several ranks side by side.
//!
//! Gradients are exchanged in buckets of some parameters each. A bucket's sum over ranks is begun as soon as the backward pass
//! of the step's last part has finished its gradients, and goes on beneath the rest of that pass. All ranks exchange the same
//! buckets in the same order: it is that in which the first rank's gradients were whole in the first step.

use crate::tensor::ranks::{Communicator, Pending, Step, sum};
use crate::tensor::{Device, Tape, Tensor, Var};
use crate::{Error, Result};
use std::cell::RefCell;
use std::rc::Rc;

/// Numbers of a bucket at least, but in the last one: 1 MiB.
const BUCKET: usize = 1 << 18;

/// Gathers the mean gradients of parameters over a step's parts and ranks.
pub struct StepGradients {
    parameters: Vec<Var>,
    ranks: Rc<dyn Communicator>,
    parts: usize,
    /// The sum of the losses of the parts so far.
    loss: Option<Tensor>,
    gathered: Rc<RefCell<Gathered>>,
}

/// What is shared with the backward pass.
struct Gathered {
    ranks: Rc<dyn Communicator>,
    /// The sums over the parts so far.
    sums: Vec<Option<Tensor>>,
    /// Whose gradients are whole in this step, in the order in which they came to be.
    whole: Vec<usize>,
    shapes: Vec<Vec<usize>>,
    /// Parameters by buckets; none before the first step has shown their order.
    buckets: Option<Vec<Vec<usize>>>,
    begun: Vec<Sums>,
}

/// Sums of a bucket over ranks.
enum Sums {
    Begun(Box<dyn Pending>),
    There(Tensor),
}

impl StepGradients {
    /// Of parameters, in steps of `parts` parts.
    pub fn new(parameters: Vec<Var>, ranks: Rc<dyn Communicator>, parts: usize) -> Self {
        let shapes: Vec<Vec<usize>> = parameters.iter().map(|var| var.get().shape().to_vec()).collect();
        let gathered = Gathered {
            ranks: ranks.clone(),
            sums: vec![None; parameters.len()],
            whole: Vec::new(),
            shapes,
            buckets: None,
            begun: Vec::new(),
        };
        Self { parameters, ranks, parts, loss: None, gathered: Rc::new(RefCell::new(gathered)) }
    }

    /// Records what `loss` computes as a part of a step, and adds its gradients, if it has a loss.
    ///
    /// # Errors
    /// Those of `loss`; a rank that is gone.
    pub fn add(&mut self, part: usize, loss: impl FnOnce() -> Result<Option<Tensor>>) -> Result<()> {
        let step = Step::new(self.ranks.clone(), part, self.parts);
        step.run(|| {
            let watches = step.ranks() > 1 && step.is_last();
            let tape = if watches { self.watching()? } else { Tape::start()? };
            let Some(loss) = loss()? else { return Ok(()) };
            let of = step.share().of;
            let scaled = if of == 1 { loss.clone() } else { loss.mul_scalar(1.0 / of as f32)? };
            let mut left = tape.backward(&scaled)?;
            self.loss = Some(match self.loss.take() {
                None => loss.detach(),
                Some(sum) => sum.add(&loss.detach())?,
            });
            let mut gathered = self.gathered.borrow_mut();
            for (i, var) in self.parameters.iter().enumerate() {
                let Some(gradient) = left.take(&var.get()) else { continue };
                if gathered.whole.contains(&i) {
                    let message = "a parameter was used by a tensor that was taken of it before the step";
                    return Err(Error::Unsupported(message.to_owned()));
                }
                gathered.add(i, gradient)?;
            }
            // Before another player's, in the same order on all ranks.
            if watches { gathered.begin_rest() } else { Ok(()) }
        })
    }

    fn watching(&self) -> Result<Tape> {
        let gathered = self.gathered.clone();
        let ready = move |i: usize, gradient: Vec<f32>| {
            let mut gathered = gathered.borrow_mut();
            let gradient = Tensor::from_vec(gradient, &gathered.shapes[i])?;
            gathered.add(i, gradient)?;
            gathered.whole.push(i);
            gathered.begin_next()
        };
        Ok(Tape::start_watching(&self.parameters, ready)?)
    }

    /// The mean loss and the mean gradient of each parameter that one reached, and a fresh start; none if no part had a loss.
    ///
    /// # Errors
    /// A rank that is gone.
    pub fn finish(&mut self) -> Result<Option<(Tensor, Vec<Option<Tensor>>)>> {
        let Some(loss) = self.loss.take() else { return Ok(None) };
        let mut gathered = self.gathered.borrow_mut();
        let (ranks, gradients) = match self.ranks.size() {
            1 => (1, gathered.sums.iter_mut().map(Option::take).collect()),
            ranks => (ranks, gathered.exchanged()?),
        };
        let loss = if ranks == 1 { loss } else { sum(self.ranks.as_ref(), &loss)? };
        let of = ranks * self.parts;
        Ok(Some((if of == 1 { loss } else { loss.mul_scalar(1.0 / of as f32)? }, gradients)))
    }
}

impl Gathered {
    fn add(&mut self, i: usize, gradient: Tensor) -> crate::tensor::Result<()> {
        let sum = match self.sums[i].take() {
            None => gradient,
            Some(sum) => sum.add(&gradient)?,
        };
        self.sums[i] = Some(sum);
        Ok(())
    }

    /// Begins to sum the next buckets whose gradients are all whole.
    fn begin_next(&mut self) -> crate::tensor::Result<()> {
        while let Some(next) = self.buckets.as_ref().and_then(|buckets| buckets.get(self.begun.len())) {
            if !next.iter().all(|i| self.whole.contains(i)) {
                break;
            }
            self.begin()?;
        }
        Ok(())
    }

    /// Begins to sum the next bucket as it stands.
    fn begin(&mut self) -> crate::tensor::Result<()> {
        let Some(bucket) = self.buckets.as_ref().and_then(|buckets| buckets.get(self.begun.len())) else {
            return Ok(());
        };
        let device = self.sums.iter().flatten().map(Tensor::device).next().unwrap_or_default();
        let flat = |i: &usize| {
            let len = self.shapes[*i].iter().product();
            match &self.sums[*i] {
                Some(sum) => sum.reshape(&[len]),
                None => Tensor::zeros(&[len]).to_device(device),
            }
        };
        let flat = bucket.iter().map(flat).collect::<crate::tensor::Result<Vec<_>>>()?;
        let flat = Tensor::concat(&flat.iter().collect::<Vec<_>>(), 0)?;
        self.begun.push(match device {
            Device::Cpu => Sums::Begun(self.ranks.begin_sum(flat.to_vec())?),
            Device::Cuda(_) => Sums::There(sum(self.ranks.as_ref(), &flat)?),
        });
        Ok(())
    }

    /// Begins to sum all buckets that are left.
    fn begin_rest(&mut self) -> Result<()> {
        if self.buckets.is_none() {
            self.buckets = Some(self.agreed()?);
        }
        let count = self.buckets.as_ref().map_or(0, Vec::len);
        while self.begun.len() < count {
            self.begin()?;
        }
        Ok(())
    }

    /// The sums over ranks of all gradients, once all have begun.
    fn exchanged(&mut self) -> Result<Vec<Option<Tensor>>> {
        // A gradient may have reached a parameter on some ranks alone.
        let mut reached: Vec<f32> = self.sums.iter().map(|sum| f32::from(u8::from(sum.is_some()))).collect();
        self.ranks.sum(&mut reached)?;
        let mut means = vec![None; self.sums.len()];
        for (bucket, begun) in self.buckets.iter().flatten().zip(self.begun.drain(..)) {
            let flat = match begun {
                Sums::Begun(pending) => {
                    let numbers = pending.finish()?;
                    let shape = [numbers.len()];
                    Tensor::from_vec(numbers, &shape)?
                }
                Sums::There(flat) => flat,
            };
            let mut first = 0;
            for &i in bucket {
                let len: usize = self.shapes[i].iter().product();
                if reached[i] > 0.0 {
                    means[i] = Some(flat.slice(0, first..first + len)?.reshape(&self.shapes[i])?);
                }
                first += len;
            }
        }
        self.whole.clear();
        self.sums.fill(None);
        Ok(means)
    }

    /// Buckets of all parameters, in the order in which the first rank's gradients were whole.
    fn agreed(&self) -> Result<Vec<Vec<usize>>> {
        let rest = (0..self.sums.len()).filter(|i| !self.whole.contains(i));
        let order: Vec<u8> = self.whole.iter().copied().chain(rest).flat_map(|i| (i as u32).to_le_bytes()).collect();
        let all = self.ranks.gather(&order)?;
        let order = all[..order.len()].as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes) as usize);
        let (mut buckets, mut numbers): (Vec<Vec<usize>>, _) = (Vec::new(), BUCKET);
        for i in order {
            if numbers >= BUCKET {
                buckets.push(Vec::new());
                numbers = 0;
            }
            numbers += self.shapes[i].iter().product::<usize>();
            buckets.last_mut().into_iter().for_each(|bucket| bucket.push(i));
        }
        Ok(buckets)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::tensor::Rng;
    use crate::tensor::ranks::{Alone, team};

    const ROWS: usize = 12;

    /// Two layers, the first of them larger than a bucket, and a parameter that only rows of the second half use.
    fn parameters() -> Vec<Var> {
        let shapes: [&[usize]; 3] = [&[3, BUCKET], &[BUCKET, 2], &[2]];
        let values = shapes.iter().enumerate().map(|(i, shape)| {
            let numbers = Rng::new(i as u64, "parameter", 0).normal(shape.iter().product());
            Tensor::from_vec(numbers.into_iter().map(|x| 0.01 * x).collect(), shape).unwrap()
        });
        values.map(|value| Var::parameter(&value)).collect()
    }

    /// The gradients of two steps of a rank in `parts` parts.
    fn gradients(ranks: Rc<dyn Communicator>, parts: usize) -> Vec<Vec<f32>> {
        let parameters = parameters();
        let mut gradients = StepGradients::new(parameters.clone(), ranks.clone(), parts);
        let mut found = Vec::new();
        for step in 0..2 {
            for part in 0..parts {
                let loss = gradients.add(part, || {
                    let share = Step::current().share();
                    let rows = share.rows(ROWS);
                    let x = Rng::new(9, "rows", step).of_share(share).normal(3 * rows.len());
                    let x = Tensor::from_vec(x, &[rows.len(), 3])?;
                    let [first, second] = [0, 1].map(|i| parameters[i].get());
                    let mut y = x.matmul(&first)?.sigmoid()?.matmul(&second)?;
                    if rows.start >= ROWS / 2 {
                        y = y.add(&parameters[2].get())?;
                    }
                    Ok(Some(y.square()?.mean_all()?))
                });
                loss.unwrap();
            }
            let (loss, means) = gradients.finish().unwrap().unwrap();
            found.push(loss.to_vec());
            found.extend(means.into_iter().map(|gradient| gradient.unwrap().to_vec()));
        }
        gradients.add(0, || Ok(None)).unwrap();
        assert!(gradients.finish().unwrap().is_none());
        found
    }

    #[test]
    fn parts_and_ranks_have_the_gradients_of_the_whole_batch() {
        let parts = gradients(Rc::new(Alone), 4);
        for (size, of_each) in [(2, 1), (2, 2), (4, 1)] {
            let all: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = team(size)
                    .into_iter()
                    .map(|ranks| scope.spawn(move || gradients(Rc::new(ranks), of_each)))
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            for found in all {
                for (found, wanted) in found.iter().zip(&parts) {
                    assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5 * (1.0 + b.abs())));
                }
            }
        }
    }
}
