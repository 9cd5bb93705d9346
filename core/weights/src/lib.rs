//! Published weights: safetensors (also in parts, by their index) and PyTorch's files, read without running anything that they
//! hold.
//!
//! A [`Checkpoint`] is the list of what a file holds: values with their paths (`state_dict/encoder.conv_in.weight`,
//! `model_ema/0/..`), tensors not yet read. Opening checks everything that reading relies on. A file that names a function or
//! class that has no place among weights is refused with that name; a file that is damaged or made to do harm is refused with
//! the place and the reason, in memory bounded by the file's size.
//!
//! It knows no model and nothing else of ours.

mod dtype;
mod error;
mod pickle;
mod safetensors;
mod source;
mod tensor;
mod torch;
mod zip;

pub use dtype::Dtype;
pub use error::{Error, Result};
use error::{Fault, Found};
use source::Source;
use std::collections::BTreeMap;
use std::path::Path;
pub use tensor::TensorInfo;

/// One value of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A tensor, to be [read](Checkpoint::read).
    Tensor(TensorInfo),
    /// Nothing.
    None,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A text.
    Text(String),
    /// An object of this class, of which nothing else is kept: NumPy's arrays, settings of omegaconf, paths.
    Opaque(String),
}

/// What a file of weights holds.
#[derive(Debug)]
pub struct Checkpoint {
    sources: Vec<Source>,
    values: Vec<(String, Value)>,
}

impl Checkpoint {
    /// Opens a safetensors file, the index of several, or a file of PyTorch, whichever its contents are.
    ///
    /// # Errors
    /// A file that cannot be read, with the place and the reason.
    pub fn open(path: &Path) -> Result<Self> {
        let source = Source::open(path).map_err(|fault| fault.of(path))?;
        if path.to_string_lossy().ends_with(".safetensors.index.json") {
            return Self::open_shards(&source);
        }
        let values = contents(&source, 0).and_then(|values| {
            let mut paths: Vec<_> = values.iter().map(|(path, _)| path.as_str()).collect();
            paths.sort_unstable();
            match paths.windows(2).find(|pair| pair[0] == pair[1]) {
                Some(pair) => Err(Fault::new(format!("two of its values are called `{}`", pair[0].escape_debug()))),
                None => Ok(values),
            }
        });
        Ok(Self { values: values.map_err(|fault| fault.of(path))?, sources: vec![source] })
    }

    fn open_shards(index: &Source) -> Result<Self> {
        let shards = safetensors::shards(index).map_err(|fault| fault.of(index.path()))?;
        let (mut sources, mut values) = (Vec::new(), Vec::new());
        for (name, mut wanted) in shards {
            let path = index.path().with_file_name(&name);
            let read = Source::open(&path).and_then(|source| {
                let found = safetensors::read(&source, sources.len())?;
                let mut tensors: Vec<_> =
                    found.into_iter().filter(|(_, value)| matches!(value, Value::Tensor(_))).collect();
                let mut names: Vec<&str> = tensors.iter().map(|(name, _)| name.as_str()).collect();
                names.sort_unstable();
                wanted.sort_unstable();
                if names != wanted {
                    return Err(Fault::new("it does not hold the tensors that its index says"));
                }
                values.append(&mut tensors);
                Ok(source)
            });
            sources.push(read.map_err(|fault| fault.of(&path))?);
        }
        Ok(Self { sources, values })
    }

    /// The files that it is read from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.iter().map(Source::path)
    }

    /// All values with their paths, keys joined by `/`, in the order of the file.
    pub fn values(&self) -> &[(String, Value)] {
        &self.values
    }

    /// The value of a path.
    pub fn value(&self, path: &str) -> Option<&Value> {
        self.values.iter().find(|(name, _)| name == path).map(|(_, value)| value)
    }

    /// The tensors by path.
    pub fn tensors(&self) -> BTreeMap<&str, &TensorInfo> {
        let tensors = self.values.iter().filter_map(|(path, value)| match value {
            Value::Tensor(tensor) => Some((path.as_str(), tensor)),
            _ => None,
        });
        tensors.collect()
    }

    /// A tensor's elements, row-major and little-endian, bit for bit as they are stored.
    ///
    /// # Errors
    /// The file cannot be read, or is shorter by now.
    pub fn read(&self, tensor: &TensorInfo) -> Result<Vec<u8>> {
        let source = &self.sources[tensor.storage.file];
        let (start, length) = tensor.span();
        let bytes = source.bytes(tensor.storage.start + start, length).map(|span| tensor.gather(span));
        bytes.map_err(|fault| fault.of(source.path()))
    }

    /// A tensor's elements as f32: see [`Dtype::to_f32`].
    ///
    /// # Errors
    /// As for [`Checkpoint::read`].
    pub fn read_f32(&self, tensor: &TensorInfo) -> Result<Vec<f32>> {
        self.read(tensor).map(|bytes| tensor.dtype.to_f32(&bytes))
    }
}

/// The values of one file.
fn contents(source: &Source, file: usize) -> Found<Vec<(String, Value)>> {
    if source.len() < 8 {
        return Err(Fault::new(format!("it has {} bytes: no checkpoint", source.len())));
    }
    let values = match source.array::<4>(0)? {
        [b'P', b'K', 3, 4] => torch::read_zip(source, file)?,
        [0x80, 2..=5, ..] => torch::read_stream(source, file)?,
        _ => safetensors::read(source, file)?,
    };
    let mut tensors = 0;
    for (path, value) in &values {
        let Value::Tensor(tensor) = value else { continue };
        tensors += 1;
        if tensor.bytes() > source.len() {
            let message = format!(
                "`{path}` repeats its stored elements until it has {} bytes, more than the file",
                tensor.bytes()
            );
            return Err(Fault::new(message));
        }
    }
    if tensors == 0 {
        return Err(Fault::new("it holds no tensors: no checkpoint"));
    }
    Ok(values)
}
