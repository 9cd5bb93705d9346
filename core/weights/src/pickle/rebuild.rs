//! Storages and tensors, from the arguments that PyTorch's files give for them.

use super::{Global, Item, Machine};
use crate::Dtype;
use crate::error::{Fault, Found};
use crate::tensor::{Storage, TensorInfo};

/// What a pickle says of a storage.
#[derive(Debug)]
pub(crate) struct StorageClaim {
    /// Its name in the file.
    pub(crate) key: String,
    /// The type of its elements; none for plain bytes.
    dtype: Option<Dtype>,
    /// How many there are.
    elements: u64,
    /// How many bytes they take.
    pub(crate) bytes: u64,
}

impl StorageClaim {
    /// Bytes of one element.
    pub(crate) fn element(&self) -> u64 {
        self.dtype.map_or(1, Dtype::size)
    }

    /// How many elements there are.
    pub(crate) fn elements(&self) -> u64 {
        self.elements
    }
}

/// What a pickle says of a tensor.
#[derive(Debug)]
pub(crate) struct Stored {
    storage: usize,
    dtype: Dtype,
    shape: Vec<u64>,
    strides: Vec<u64>,
    offset: u64,
}

impl Stored {
    pub(crate) fn view(&self, claims: &[StorageClaim], storages: &[Storage]) -> Found<TensorInfo> {
        let storage = storages[self.storage].clone();
        TensorInfo::new(self.dtype, self.shape.clone(), self.strides.clone(), self.offset, storage)
            .map_err(|fault| Fault::new(format!("storage {}: {}", claims[self.storage].key, fault.reason)))
    }
}

impl Machine {
    /// A storage: `('storage', class, key, location, elements)`. The location (`cuda:0`) is where it was, and of no matter.
    pub(super) fn persistent(&mut self, id: Item) -> Found<()> {
        let id = self.tuple_of(id)?;
        let (class, key, elements) = match *id {
            [Item::Text(_), Item::Global(Global::Storage(dtype)), key, Item::Text(_), Item::Int(elements)]
            | [
                Item::Text(_),
                Item::Global(Global::Storage(dtype)),
                key,
                Item::Text(_),
                Item::Int(elements),
                Item::None,
            ] if self.text_of(id[0])? == "storage" => (dtype, key, elements),
            _ => return Err(Fault::new("a persistent id is not that of a storage")),
        };
        let key = self.text_of(key)?;
        if key.is_empty() || key.len() > 40 || !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Fault::new(format!("`{}` is no plain name of a storage", key.escape_debug())));
        }
        let elements =
            u64::try_from(elements).map_err(|_| Fault::new(format!("storage {key} has {elements} elements")))?;
        let bytes = elements.checked_mul(class.map_or(1, Dtype::size));
        let bytes =
            bytes.ok_or_else(|| Fault::new(format!("storage {key} of {elements} elements is beyond any file")))?;
        let at = match self.storage_keys.get(key) {
            Some(&at) if (self.storages[at].dtype, self.storages[at].elements) == (class, elements) => at,
            Some(_) => return Err(Fault::new(format!("storage {key} is named with two types or sizes"))),
            None => {
                let key = key.to_owned();
                self.storage_keys.insert(key.clone(), self.storages.len());
                self.storages.push(StorageClaim { key, dtype: class, elements, bytes });
                self.storages.len() - 1
            }
        };
        self.push(Item::Storage(at));
        Ok(())
    }

    /// `_rebuild_tensor(storage, offset, size, stride)`; version 2 has more, version 3 the type of the elements at last.
    pub(super) fn rebuild_tensor(&mut self, arguments: &[Item]) -> Found<Item> {
        let [Item::Storage(storage), Item::Int(offset), shape, strides, rest @ ..] = arguments else {
            return Err(Fault::new("a tensor is not made of a storage, an offset, sizes and strides"));
        };
        let named = rest.iter().find_map(|item| match item {
            Item::Global(Global::Dtype(dtype)) => Some(*dtype),
            _ => None,
        });
        let claim = &self.storages[*storage];
        let dtype = match (claim.dtype, named) {
            (Some(dtype), None) | (None, Some(dtype)) => dtype,
            (Some(stored), Some(named)) if stored == named => named,
            (Some(stored), Some(named)) => {
                return Err(Fault::new(format!("a tensor of {named} is a view of storage {} of {stored}", claim.key)));
            }
            (None, None) => {
                return Err(Fault::new(format!("a tensor over the bytes of storage {} has no type", claim.key)));
            }
        };
        let (shape, strides) = (self.sizes(*shape, "size")?, self.sizes(*strides, "stride")?);
        let offset = u64::try_from(*offset).map_err(|_| Fault::new(format!("a tensor's offset is {offset}")))?;
        self.tensors.push(Stored { storage: *storage, dtype, shape, strides, offset });
        Ok(Item::Tensor(self.tensors.len() - 1))
    }

    fn sizes(&self, item: Item, what: &str) -> Found<Vec<u64>> {
        /// PyTorch has no more.
        const MOST_AXES: usize = 64;
        let items = self.tuple_of(item)?;
        if items.len() > MOST_AXES {
            return Err(Fault::new(format!("a tensor has {} axes", items.len())));
        }
        let size = |item: &Item| match *item {
            Item::Int(size) => u64::try_from(size).map_err(|_| Fault::new(format!("a tensor's {what} is {size}"))),
            other => Err(Fault::new(format!("a tensor's {what} is {}", other.kind()))),
        };
        items.iter().map(size).collect()
    }
}
