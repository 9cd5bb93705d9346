//! A step of a [`RasterDecoder`] as the operations that it consists of.

use super::{Instruction, RasterDecoder, Register};
use crate::ops::attention::attention;
use crate::ops::packed::PackedLinear;
use crate::{Error, Result, Tensor};

impl RasterDecoder {
    /// The same, one operation after another: what a GPU runs, without a host read, and the twin of the kernel.
    pub(super) fn run_by_operations(
        &self,
        inputs: &[(Register, &Tensor)],
        output: Register,
        histories: &mut [Vec<Tensor>],
        caches: &mut [Vec<[Tensor; 2]>],
    ) -> Result<Tensor> {
        let mut rows: Vec<Option<Tensor>> = vec![None; self.widths.len()];
        for (register, input) in inputs {
            rows[register.0] = Some(input.detach());
        }
        for (_, instruction) in &self.instructions {
            let row = |register: &Register| {
                rows[register.0].clone().ok_or_else(|| Error::shape("RasterDecoder", "an input is missing"))
            };
            let (to, made) = match instruction {
                Instruction::Remember { from, history } => {
                    histories[*history].push(row(from)?);
                    continue;
                }
                Instruction::Linear { map, from, to } => (to, map.forward(&row(from)?)?),
                Instruction::Window { rows, history, to } => {
                    (to, self.window(rows, self.histories[*history], &histories[*history])?)
                }
                Instruction::Elu { from, to } => (to, row(from)?.elu()?),
                Instruction::AddGlu { x, gates, to } => (to, row(x)?.add_glu(&row(gates)?)?),
                Instruction::Add { parts: [a, b], to } => (to, row(a)?.add(&row(b)?)?),
                Instruction::Concat { parts, to } => {
                    let parts = parts.iter().map(row).collect::<Result<Vec<_>>>()?;
                    (to, Tensor::concat(&parts.iter().collect::<Vec<_>>(), 1)?)
                }
                Instruction::Attend { parts: [query, key, value], heads, cache, to } => {
                    let (query, past) = (row(query)?, &mut caches[*cache]);
                    let earlier =
                        |which: usize| Tensor::stack(&past.iter().map(|pair| &pair[which]).collect::<Vec<_>>(), 1);
                    let made = if past.is_empty() {
                        query.mul_scalar(0.0)?
                    } else {
                        let [images, width] = query.dims("attend")?;
                        let query = query.reshape(&[images, 1, width])?;
                        attention(&query, &earlier(0)?, &earlier(1)?, *heads, false)?.reshape(&[images, width])?
                    };
                    past.push([row(key)?, row(value)?]);
                    (to, made)
                }
            };
            rows[to.0] = Some(made);
        }
        rows[output.0].take().ok_or_else(|| Error::shape("RasterDecoder", "nothing writes the output"))
    }

    fn window(&self, rows: &[PackedLinear], [width, kernel]: [usize; 2], past: &[Tensor]) -> Result<Tensor> {
        let [i, j] = [self.position / self.map[1], self.position % self.map[1]];
        let device = past.first().map_or_else(crate::threads::device, Tensor::device);
        let zeros = Tensor::zeros(&[self.images, width]).to_device(device)?;
        let mut sum: Option<Tensor> = None;
        for (up, weight) in rows.iter().enumerate().take(i + 1) {
            let taps = if up == 0 { kernel / 2 } else { kernel };
            let seen: Vec<&Tensor> = (0..taps)
                .map(|tap| match (j + tap).checked_sub(kernel / 2) {
                    Some(column) if column < self.map[1] => &past[(i - up) * self.map[1] + column],
                    _ => &zeros,
                })
                .collect();
            let product = weight.forward(&Tensor::concat(&seen, 1)?)?;
            sum = Some(match sum {
                Some(sum) => sum.add(&product)?,
                None => product,
            });
        }
        sum.ok_or_else(|| Error::shape("RasterDecoder", "a kernel without rows"))
    }
}
