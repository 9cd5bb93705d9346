//! Causal convolutional networks that read a map in raster order, one position at a time, and keep what they have computed:
//! for sampling (Ramachandran et al., "Fast generation for convolutional autoregressive models", 2017).

mod by_operations;
#[cfg(test)]
mod tests;

use super::packed::PackedLinear;
use super::{common_device, on_cpu};
use crate::cpu::gemm::Shared;
use crate::cpu::raster::{self as kernel, Place};
use crate::{Device, Error, Result, Tensor};

/// A row of numbers for each image, which one instruction writes and any later one reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(usize);

#[derive(Debug, Clone)]
enum Instruction {
    Linear {
        map: Box<PackedLinear>,
        from: Register,
        to: Register,
    },
    /// Keeps a row for the windows of later positions.
    Remember {
        from: Register,
        history: usize,
    },
    /// The product of what was kept around the position: a weight for each row of the kernel, the lowest first.
    Window {
        rows: Vec<PackedLinear>,
        history: usize,
        to: Register,
    },
    Elu {
        from: Register,
        to: Register,
    },
    AddGlu {
        x: Register,
        gates: Register,
        to: Register,
    },
    Add {
        parts: [Register; 2],
        to: Register,
    },
    Concat {
        parts: Vec<Register>,
        to: Register,
    },
    /// Attends to what was gathered at earlier positions, then gathers the key and the value.
    Attend {
        parts: [Register; 3],
        heads: usize,
        cache: usize,
        to: Register,
    },
}

/// Which thread wrote a row, and after how many barriers. Inputs are there from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Before,
    /// All of an image's row by one thread.
    ByImages(usize),
    /// Columns of all rows, or heads, by one thread.
    ByColumns(usize),
}

/// What is kept between positions.
#[derive(Debug, Clone)]
enum Memory {
    /// Rows around every position, and keys with values, as kernels want them.
    Host { histories: Vec<Vec<f32>>, caches: Vec<[Vec<f32>; 2]> },
    /// The rows of each position, and keys with values, one after another.
    Rows { histories: Vec<Vec<Tensor>>, caches: Vec<Vec<[Tensor; 2]>> },
}

/// A network under construction, and then in use. Its weights are those of the moment when they were given; no gradients flow
/// through it. Instructions are appended by its methods, and run in [`RasterDecoder::step`] for one position after another, all
/// in one parallel region; on a GPU, as the operations that they consist of.
#[derive(Debug, Clone)]
pub struct RasterDecoder {
    images: usize,
    map: [usize; 2],
    position: usize,
    widths: Vec<usize>,
    written: Vec<Written>,
    /// In the order in which they run, each with the barriers before it.
    instructions: Vec<(usize, Instruction)>,
    /// Width and kernel of each.
    histories: Vec<[usize; 2]>,
    /// Width and heads of each.
    caches: Vec<[usize; 2]>,
    memory: Option<Memory>,
}

impl RasterDecoder {
    /// A network without instructions, for `images` maps of `map` rows and columns.
    pub fn new(images: usize, map: [usize; 2]) -> Self {
        Self {
            images,
            map,
            position: 0,
            widths: vec![],
            written: vec![],
            instructions: vec![],
            histories: vec![],
            caches: vec![],
            memory: None,
        }
    }

    /// How many maps.
    pub fn images(&self) -> usize {
        self.images
    }

    /// A register that each step is given.
    pub fn input(&mut self, width: usize) -> Register {
        self.register(width, Written::Before)
    }

    /// `weight x + bias`, with a weight `[O, I]` and a bias `[O]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit.
    pub fn linear(&mut self, from: Register, weight: &Tensor, bias: Option<&Tensor>) -> Result<Register> {
        let map = PackedLinear::new(weight, bias, self.images)?;
        let [outputs, inputs] = map.sizes();
        self.wants(from, inputs)?;
        let barriers = self.after([from], |written| match written {
            Written::Before => 0,
            Written::ByImages(barriers) | Written::ByColumns(barriers) => barriers + 1,
        });
        let to = self.register(outputs, Written::ByColumns(barriers));
        self.push(barriers, Instruction::Linear { map: Box::new(map), from, to });
        Ok(to)
    }

    /// [`Conv2d::causal`](crate::ops::conv::Conv2d::causal) with a weight `[O, I, k, k]` of odd k.
    ///
    /// # Errors
    /// [`Error::Shape`] if the sizes do not fit.
    pub fn causal_conv(&mut self, from: Register, weight: &Tensor, bias: Option<&Tensor>) -> Result<Register> {
        let [outputs, inputs, rows, columns] = weight.dims("causal_conv")?;
        self.wants(from, inputs)?;
        if rows != columns || rows % 2 == 0 {
            return Err(Error::shape("causal_conv", format!("a kernel of {rows} x {columns} has no middle")));
        }
        // To [O, row, column, I], which is how rows of positions lie.
        let weight = weight.detach().permute(&[0, 2, 3, 1])?;
        let row = |r: usize, taps: usize| -> Result<PackedLinear> {
            let part = weight.slice(1, r..r + 1)?.slice(2, 0..taps)?.reshape(&[outputs, taps * inputs])?;
            PackedLinear::new(&part, bias.filter(|_| taps < columns), self.images)
        };
        let mut weights = vec![row(rows - 1, columns / 2)?];
        for r in (0..rows - 1).rev() {
            weights.push(row(r, columns)?);
        }
        let history = self.histories.len();
        self.histories.push([inputs, rows]);
        let to = self.register(outputs, Written::ByColumns(0));
        self.push(0, Instruction::Window { rows: weights, history, to });
        // The place of this position is read at later ones alone.
        let barriers = self.by_images([from]);
        self.push(barriers, Instruction::Remember { from, history });
        Ok(to)
    }

    /// See [`Tensor::elu`].
    pub fn elu(&mut self, from: Register) -> Register {
        let barriers = self.by_images([from]);
        let to = self.register(self.widths[from.0], Written::ByImages(barriers));
        self.push(barriers, Instruction::Elu { from, to });
        to
    }

    /// See [`Tensor::add_glu`].
    ///
    /// # Errors
    /// [`Error::Shape`] if the widths do not fit.
    pub fn add_glu(&mut self, x: Register, gates: Register) -> Result<Register> {
        let width = self.widths[x.0];
        self.wants(gates, 2 * width)?;
        let barriers = self.by_images([x, gates]);
        let to = self.register(width, Written::ByImages(barriers));
        self.push(barriers, Instruction::AddGlu { x, gates, to });
        Ok(to)
    }

    /// The sum of two registers.
    ///
    /// # Errors
    /// [`Error::Shape`] if the widths do not fit.
    pub fn add(&mut self, a: Register, b: Register) -> Result<Register> {
        let width = self.widths[a.0];
        self.wants(b, width)?;
        let barriers = self.by_images([a, b]);
        let to = self.register(width, Written::ByImages(barriers));
        self.push(barriers, Instruction::Add { parts: [a, b], to });
        Ok(to)
    }

    /// Registers side by side.
    pub fn concat(&mut self, parts: &[Register]) -> Register {
        let barriers = self.by_images(parts.iter().copied());
        let width = parts.iter().map(|part| self.widths[part.0]).sum();
        let to = self.register(width, Written::ByImages(barriers));
        self.push(barriers, Instruction::Concat { parts: parts.to_vec(), to });
        to
    }

    /// Attention in `heads` heads (see [`attention`](crate::ops::attention::attention)) to strictly earlier positions; zero at
    /// the first one.
    ///
    /// # Errors
    /// [`Error::Shape`] if the widths do not fit.
    pub fn attend(&mut self, query: Register, key: Register, value: Register, heads: usize) -> Result<Register> {
        let width = self.widths[query.0];
        self.wants(key, width)?;
        self.wants(value, width)?;
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(Error::shape("attend", format!("{heads} heads do not divide a width of {width}")));
        }
        let cache = self.caches.len();
        self.caches.push([width, heads]);
        let parts = [query, key, value];
        let barriers = self.after(parts, |written| match written {
            Written::Before => 0,
            Written::ByImages(barriers) | Written::ByColumns(barriers) => barriers + 1,
        });
        let to = self.register(width, Written::ByColumns(barriers));
        self.push(barriers, Instruction::Attend { parts, heads, cache, to });
        Ok(to)
    }

    /// Runs all instructions at the next position: what they make, in the register `output`, of the rows `[B, W]` of the inputs.
    ///
    /// # Errors
    /// [`Error::Shape`] if the inputs do not fit or all positions have been read.
    pub fn step(&mut self, inputs: &[(Register, &Tensor)], output: Register) -> Result<Tensor> {
        for (register, rows) in inputs {
            if rows.shape() != [self.images, self.widths[register.0]] {
                let wanted = [self.images, self.widths[register.0]];
                return Err(Error::shape("RasterDecoder", format!("rows {:?} where {wanted:?} belong", rows.shape())));
            }
        }
        if self.position >= self.map[0] * self.map[1] {
            return Err(Error::shape("RasterDecoder", format!("a map of {:?} has been read", self.map)));
        }
        let device = common_device("RasterDecoder", inputs.iter().map(|(_, rows)| *rows))?;
        let mut memory = self.memory.take().unwrap_or_else(|| self.fresh(device == Device::Cpu));
        let out = match &mut memory {
            Memory::Host { histories, caches } => self.run(inputs, output, histories, caches),
            Memory::Rows { histories, caches } => self.run_by_operations(inputs, output, histories, caches),
        };
        self.memory = Some(memory);
        self.position += 1;
        out
    }

    fn register(&mut self, width: usize, written: Written) -> Register {
        self.widths.push(width);
        self.written.push(written);
        Register(self.widths.len() - 1)
    }

    fn wants(&self, register: Register, width: usize) -> Result<()> {
        match self.widths[register.0] {
            found if found == width => Ok(()),
            found => Err(Error::shape("RasterDecoder", format!("a row of {found} numbers where {width} belong"))),
        }
    }

    fn after<const N: usize>(&self, from: [Register; N], barriers: impl Fn(Written) -> usize) -> usize {
        from.into_iter().map(|register| barriers(self.written[register.0])).max().unwrap_or(0)
    }

    /// The barriers before an instruction each of whose rows is one thread's.
    fn by_images(&self, from: impl IntoIterator<Item = Register>) -> usize {
        let barriers = |register: Register| match self.written[register.0] {
            Written::Before => 0,
            Written::ByImages(barriers) => barriers,
            Written::ByColumns(barriers) => barriers + 1,
        };
        from.into_iter().map(barriers).max().unwrap_or(0)
    }

    fn push(&mut self, barriers: usize, instruction: Instruction) {
        let at = self.instructions.partition_point(|(others, _)| *others <= barriers);
        self.instructions.insert(at, (barriers, instruction));
    }

    fn fresh(&self, host: bool) -> Memory {
        if !host {
            let caches = vec![vec![]; self.caches.len()];
            return Memory::Rows { histories: vec![vec![]; self.histories.len()], caches };
        }
        let history =
            |&[width, kernel]: &[usize; 2]| vec![0.0; kernel::history_len(self.images, self.map, width, kernel)];
        let cache = |&[width, heads]: &[usize; 2]| {
            let len = kernel::cache_len(self.images, self.map, width, heads);
            [vec![0.0; len], vec![0.0; len]]
        };
        Memory::Host {
            histories: self.histories.iter().map(history).collect(),
            caches: self.caches.iter().map(cache).collect(),
        }
    }

    fn run(
        &self,
        inputs: &[(Register, &Tensor)],
        output: Register,
        histories: &mut [Vec<f32>],
        caches: &mut [[Vec<f32>; 2]],
    ) -> Result<Tensor> {
        on_cpu("RasterDecoder", inputs.iter().map(|(_, rows)| *rows))?;
        let places = kernel::places(self.images, &self.widths);
        let place = |register: &Register| places[register.0];
        let histories: Vec<kernel::History> = self
            .histories
            .iter()
            .zip(histories)
            .map(|(&[width, kernel], memory)| kernel::History {
                width,
                kernel,
                memory: Shared::new(memory.as_mut_ptr()),
            })
            .collect();
        let caches: Vec<[Shared; 2]> =
            caches.iter_mut().map(|pair| pair.each_mut().map(|memory| Shared::new(memory.as_mut_ptr()))).collect();
        let work = self.instructions.iter().map(|(barriers, instruction)| {
            let work = match instruction {
                Instruction::Linear { map, from, to } => {
                    kernel::Work::Linear { weight: map.operand()?, from: place(from), to: place(to) }
                }
                Instruction::Remember { from, history } => {
                    kernel::Work::Remember { from: place(from), history: histories[*history] }
                }
                Instruction::Window { rows, history, to } => kernel::Work::Window {
                    rows: rows.iter().map(PackedLinear::operand).collect::<Option<_>>()?,
                    history: histories[*history],
                    to: place(to),
                },
                Instruction::Elu { from, to } => kernel::Work::Elu { from: place(from), to: place(to) },
                Instruction::AddGlu { x, gates, to } => {
                    kernel::Work::AddGlu { x: place(x), gates: place(gates), to: place(to) }
                }
                Instruction::Add { parts, to } => {
                    kernel::Work::Add { parts: parts.each_ref().map(place), to: place(to) }
                }
                Instruction::Concat { parts, to } => {
                    kernel::Work::Concat { parts: parts.iter().map(place).collect(), to: place(to) }
                }
                Instruction::Attend { parts, heads, cache, to } => kernel::Work::Attend {
                    parts: parts.each_ref().map(place),
                    heads: *heads,
                    cache: caches[*cache],
                    to: place(to),
                },
            };
            Some((*barriers, work))
        });
        let work: Vec<(usize, kernel::Work<'_>)> = work
            .collect::<Option<_>>()
            .ok_or_else(|| Error::Device("RasterDecoder: weights and inputs are on different devices".to_owned()))?;
        let rows: Vec<(Place, &[f32])> = inputs.iter().map(|(to, rows)| (place(to), rows.as_slice())).collect();
        let sizes = kernel::Sizes { images: self.images, map: self.map, position: self.position };
        let out = kernel::step(&sizes, &rows, &work, place(&output));
        Ok(Tensor::output(out, &[self.images, self.widths[output.0]], None))
    }
}
