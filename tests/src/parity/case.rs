//! One case, as it lies in its folder.

use super::Result;
use rqlab_sdk::params::Params;
use rqlab_sdk::tensor::{Codes, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Numbers of any stored type in a row-major shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// The sizes of the axes.
    pub shape: Vec<usize>,
    /// The numbers. Those of f32 and of integers below 2^53 are exact.
    pub data: Vec<f64>,
}

/// How closely a result must agree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// Equal.
    Exact,
    /// `|a - b| <= abs + rel |b|`, with b what is expected.
    Within {
        /// The absolute part.
        abs: f64,
        /// The part relative to what is expected.
        rel: f64,
    },
}

/// One expected result.
#[derive(Debug, Clone)]
pub struct Expect {
    /// Its name.
    pub name: String,
    /// How closely it must agree.
    pub tolerance: Tolerance,
    /// Its value.
    pub value: Array,
}

/// A case and its data.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// Sizes and hyper-parameters.
    pub config: Value,
    /// The whole of `case.json`.
    pub json: Value,
    /// What must be computed.
    pub expect: Vec<Expect>,
    tensors: BTreeMap<String, Array>,
}

impl Case {
    /// Reads the case in folder `dir`.
    ///
    /// # Errors
    /// Files that are missing, damaged or incomplete.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("case.json");
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let json: Value = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let path = dir.join("data.safetensors");
        let tensors = if path.is_file() { read_tensors(&path)? } else { BTreeMap::new() };
        let name = json["name"].as_str().ok_or("case.json has no name")?.to_owned();
        let entries = json["expect"].as_array().ok_or("case.json expects nothing")?;
        let expect = entries.iter().map(|entry| read_expect(entry, &tensors)).collect::<Result<_>>()?;
        Ok(Self { name, config: json["config"].clone(), expect, tensors, json })
    }

    /// The stored numbers called `name`.
    ///
    /// # Errors
    /// There are none.
    pub fn array(&self, name: &str) -> Result<&Array> {
        self.tensors.get(name).ok_or_else(|| format!("the case has no `{name}`").into())
    }

    /// Whether numbers called `name` are stored.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Whether a result called `name` is expected.
    pub fn wants(&self, name: &str) -> bool {
        self.expect.iter().any(|e| e.name == name)
    }

    /// The shape of the expected result `name`; none if there is none.
    pub fn wanted_shape(&self, name: &str) -> Option<&[usize]> {
        self.expect.iter().find(|e| e.name == name).map(|e| e.value.shape.as_slice())
    }

    /// The absolute tolerance of the expected result `name`; none if there is none, or it must be equal.
    pub fn wanted_within(&self, name: &str) -> Option<f64> {
        match self.expect.iter().find(|e| e.name == name)?.tolerance {
            Tolerance::Within { abs, .. } => Some(abs),
            Tolerance::Exact => None,
        }
    }

    /// Stored numbers as a tensor.
    ///
    /// # Errors
    /// There are none of that name.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let array = self.array(name)?;
        Ok(Tensor::from_vec(array.data.iter().map(|&x| x as f32).collect(), &array.shape)?)
    }

    /// A stored map `[B, C, H, W]` as `[B, H, W, C]`.
    ///
    /// # Errors
    /// There is none of that name, or it has another rank.
    pub fn map(&self, name: &str) -> Result<Tensor> {
        Ok(self.tensor(name)?.permute(&[0, 2, 3, 1])?)
    }

    /// Stored integers as codes.
    ///
    /// # Errors
    /// There are none of that name.
    pub fn codes(&self, name: &str) -> Result<Codes> {
        let array = self.array(name)?;
        Ok(Codes::from_vec(array.data.iter().map(|&x| x as u32).collect(), &array.shape)?)
    }

    /// Stored integers as indices.
    ///
    /// # Errors
    /// There are none of that name.
    pub fn indices(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.array(name)?.data.iter().map(|&x| x as usize).collect())
    }

    /// Every prefix `p` such that `{before}{p}{after}` is stored: the sub-cases, `""` or `"name."` each.
    pub fn sub_cases(&self, before: &str, after: &str) -> Vec<String> {
        let middle = |name: &String| name.strip_prefix(before)?.strip_suffix(after).map(str::to_owned);
        let names = self.tensors.keys().filter_map(middle);
        names.filter(|p| p.is_empty() || (p.ends_with('.') && p.matches('.').count() == 1)).collect()
    }

    /// All stored tensors whose names begin with `prefix`, by the rest of their names.
    ///
    /// # Errors
    /// None for tensors that were read.
    pub fn state(&self, prefix: &str) -> Result<BTreeMap<String, Tensor>> {
        let names = self.tensors.keys().filter_map(|name| Some((name, name.strip_prefix(prefix)?)));
        names.map(|(name, rest)| Ok((rest.to_owned(), self.tensor(name)?))).collect()
    }

    /// A number of the configuration, at a path such as `rq/D`.
    ///
    /// # Errors
    /// There is none.
    pub fn number(&self, path: &str) -> Result<f64> {
        number(&self.config, path)
    }

    /// A size of the configuration.
    ///
    /// # Errors
    /// There is none.
    pub fn size(&self, path: &str) -> Result<usize> {
        Ok(self.number(path)? as usize)
    }

    /// A list of sizes of the configuration; a single size is a list of one.
    ///
    /// # Errors
    /// There is none.
    pub fn sizes(&self, path: &str) -> Result<Vec<usize>> {
        Ok(numbers(&self.config, path)?.into_iter().map(|x| x as usize).collect())
    }

    /// A list of numbers of the configuration; a single number is a list of one.
    ///
    /// # Errors
    /// There is none.
    pub fn numbers(&self, path: &str) -> Result<Vec<f64>> {
        numbers(&self.config, path)
    }

    /// Sets every parameter and buffer of `params` from the stored numbers that `stored` names. Codebooks are stored with
    /// a padding row more than the model has; it is left out. What is not stored stays as it is if `partial`.
    ///
    /// # Errors
    /// Missing numbers, or shapes that do not fit.
    pub fn load(&self, params: &Params, partial: bool, stored: impl Fn(&str) -> String) -> Result<()> {
        for (name, entry) in params.entries() {
            let from = stored(&name);
            if partial && !self.has(&from) {
                continue;
            }
            let mut value = self.tensor(&from)?;
            if value.rank() == 2 && value.shape()[0] == entry.shape[0] + 1 {
                value = value.slice(0, 0..entry.shape[0])?;
            }
            if value.shape() != entry.shape {
                return Err(format!("`{from}` is {:?}, the model's `{name}` {:?}", value.shape(), entry.shape).into());
            }
            entry.var.set(&value)?;
        }
        Ok(())
    }
}

/// A number at a path such as `warmup/epoch`.
///
/// # Errors
/// There is none.
pub(super) fn number(config: &Value, path: &str) -> Result<f64> {
    at(config, path)?.as_f64().ok_or_else(|| format!("the configuration's `{path}` is not a number").into())
}

/// A list of numbers; a single number is a list of one.
///
/// # Errors
/// There is none.
pub(super) fn numbers(config: &Value, path: &str) -> Result<Vec<f64>> {
    let wrong = || format!("the configuration's `{path}` is not a list of numbers");
    match at(config, path)? {
        Value::Array(list) => list.iter().map(|x| x.as_f64().ok_or_else(|| wrong().into())).collect(),
        one => Ok(vec![one.as_f64().ok_or_else(wrong)?]),
    }
}

fn at<'a>(config: &'a Value, path: &str) -> Result<&'a Value> {
    let pointer = if path.is_empty() { String::new() } else { format!("/{path}") };
    config.pointer(&pointer).ok_or_else(|| format!("the configuration has no `{path}`").into())
}

fn read_expect(entry: &Value, tensors: &BTreeMap<String, Array>) -> Result<Expect> {
    let name = entry["name"].as_str().ok_or("an expected result has no name")?.to_owned();
    let tolerance = if entry["exact"].as_bool() == Some(true) {
        Tolerance::Exact
    } else {
        Tolerance::Within { abs: number(entry, "abs")?, rel: number(entry, "rel")? }
    };
    let value = match (entry.get("value").and_then(Value::as_f64), tensors.get(&name)) {
        (Some(value), _) => Array { shape: Vec::new(), data: vec![value] },
        (None, Some(array)) => array.clone(),
        // An empty result may be left out of the file; its count stands in the configuration.
        (None, None) => Array { shape: vec![0], data: Vec::new() },
    };
    Ok(Expect { name, tolerance, value })
}

fn read_tensors(path: &Path) -> Result<BTreeMap<String, Array>> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| format!("{}: {e}", path.display()))?;
    file.tensors().into_iter().map(|(name, view)| Ok((name, read_array(&view)?))).collect()
}

fn read_array(view: &safetensors::tensor::TensorView<'_>) -> Result<Array> {
    fn numbers<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<N>().0.iter().map(|chunk| number(*chunk)).collect()
    }
    let bytes = view.data();
    let data = match view.dtype() {
        Dtype::F32 => numbers(bytes, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::F64 => numbers(bytes, f64::from_le_bytes),
        Dtype::I64 => numbers(bytes, |b| i64::from_le_bytes(b) as f64),
        Dtype::I32 => numbers(bytes, |b| f64::from(i32::from_le_bytes(b))),
        Dtype::U8 | Dtype::BOOL => bytes.iter().map(|&b| f64::from(b)).collect(),
        other => return Err(format!("numbers of type {other:?}").into()),
    };
    Ok(Array { shape: view.shape().to_vec(), data })
}
