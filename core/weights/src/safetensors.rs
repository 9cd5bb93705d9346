//! Hugging Face's safetensors: 8 bytes of header length, a JSON header, the numbers.

use crate::error::{Fault, Found};
use crate::source::Source;
use crate::tensor::{Storage, TensorInfo};
use crate::{Dtype, Value};
use safetensors::tensor::{Dtype as Published, Metadata};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// The tensors of a file, and its texts as `__metadata__/NAME`.
pub(crate) fn read(source: &Source, file: usize) -> Found<Vec<(String, Value)>> {
    let length = u64::from_le_bytes(source.array(0)?);
    let data = length.checked_add(8).filter(|&end| end <= source.len()).ok_or_else(|| {
        Fault::new(format!("its header of {length} bytes is longer than the file: cut off, or no safetensors file"))
    })?;
    let header = source.bytes(8, length)?;
    // The parser bounds the depth; what it makes checks that tensors lie one after another, each as long as its shape says.
    let header: Metadata = serde_json::from_slice(&header)
        .map_err(|error| Fault::at(8, format!("the header is not that of a safetensors file: {error}")))?;
    let (found, wanted) = (source.len() - data, header.data_len() as u64);
    if found != wanted {
        return Err(Fault::new(format!("it has {found} bytes of numbers; its header says {wanted}")));
    }
    let texts = header.metadata().iter().flatten();
    let mut texts: Vec<_> =
        texts.map(|(name, text)| (format!("__metadata__/{name}"), Value::Text(text.clone()))).collect();
    texts.sort_by(|a, b| a.0.cmp(&b.0));
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let (start, end) = info.data_offsets;
        let storage = Storage { file, start: data + start as u64, bytes: (end - start) as u64, big_endian: false };
        let shape = info.shape.iter().map(|&size| size as u64).collect();
        let tensor = dtype(info.dtype)
            .and_then(|dtype| TensorInfo::whole(dtype, shape, storage))
            .map_err(|fault| Fault::new(format!("`{name}`: {}", fault.reason)))?;
        texts.push((name, Value::Tensor(tensor)));
    }
    Ok(texts)
}

fn dtype(dtype: Published) -> Found<Dtype> {
    Ok(match dtype {
        Published::F16 => Dtype::F16,
        Published::BF16 => Dtype::BF16,
        Published::F32 => Dtype::F32,
        Published::F64 => Dtype::F64,
        Published::I8 => Dtype::I8,
        Published::I16 => Dtype::I16,
        Published::I32 => Dtype::I32,
        Published::I64 => Dtype::I64,
        Published::U8 => Dtype::U8,
        Published::U16 => Dtype::U16,
        Published::U32 => Dtype::U32,
        Published::U64 => Dtype::U64,
        Published::BOOL => Dtype::Bool,
        other => return Err(Fault::new(format!("elements of type {other} are not read"))),
    })
}

/// Which file beside the index (`model.safetensors.index.json`) holds which tensors.
pub(crate) fn shards(source: &Source) -> Found<BTreeMap<String, Vec<String>>> {
    let json: Json = serde_json::from_slice(&source.bytes(0, source.len())?)
        .map_err(|error| Fault::new(format!("it is no index of safetensors files: {error}")))?;
    let map = json.get("weight_map").and_then(Json::as_object);
    let map = map.ok_or_else(|| Fault::new("it is no index of safetensors files: it has no `weight_map`"))?;
    let mut shards = BTreeMap::<String, Vec<String>>::new();
    for (tensor, file) in map {
        let name =
            file.as_str().filter(|name| !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']));
        let name = name.ok_or_else(|| Fault::new(format!("`{tensor}` is said to lie in {file}: not a plain name")))?;
        shards.entry(name.to_owned()).or_default().push(tensor.clone());
    }
    Ok(shards)
}
