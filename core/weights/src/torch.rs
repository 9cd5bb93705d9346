//! PyTorch's files: a zip archive of a pickle and its storages (since 1.6), or a row of pickles with the storages behind.

use crate::Value;
use crate::error::{Fault, Found};
use crate::pickle::{Input, Item, Machine, StorageClaim};
use crate::source::Source;
use crate::tensor::Storage;
use crate::zip::{self, Entry};
use std::collections::BTreeMap;

/// The number that a file without an archive begins with, `0x1950a86a20f9469cfc6c`.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// The layout that follows it.
const LAYOUT: i64 = 1001;

/// The values of an archive.
pub(crate) fn read_zip(source: &Source, file: usize) -> Found<Vec<(String, Value)>> {
    let entries = zip::entries(source)?;
    let root = root(&entries)?;
    let entry = |name: &str| entries.get(&format!("{root}/{name}"));
    let pickle = entry("data.pkl").ok_or_else(|| Fault::new("the archive has no data.pkl"))?;
    let big_endian = match entry("byteorder") {
        None => false,
        Some(order) if order.length > 6 => return Err(Fault::at(order.start, "the archive's byteorder is no word")),
        Some(order) => match source.bytes(order.start, order.length)?.as_slice() {
            b"little" => false,
            b"big" => true,
            _ => return Err(Fault::at(order.start, "the archive's byteorder is neither `little` nor `big`")),
        },
    };
    let end = pickle.start + pickle.length;
    let mut input = Input::new(source, pickle.start, end);
    let mut machine = Machine::default();
    let root = machine.run(&mut input)?;
    if input.place() != end {
        return Err(Fault::at(input.place(), "data.pkl goes on behind its STOP"));
    }
    let storage = |claim: &StorageClaim| {
        let key = &claim.key;
        let entry = entry(&format!("data/{key}"));
        let entry =
            entry.ok_or_else(|| Fault::new(format!("the archive has no storage {key}, which its pickle names")))?;
        if entry.length != claim.bytes {
            let message = format!("storage {key} has {} bytes; its pickle says {}", entry.length, claim.bytes);
            return Err(Fault::at(entry.start, message));
        }
        Ok(Storage { file, start: entry.start, bytes: entry.length, big_endian })
    };
    let storages = machine.storages.iter().map(storage).collect::<Found<Vec<_>>>()?;
    machine.leaves(root, &machine.views(&storages)?, source.len())
}

/// The folder that all entries lie in.
fn root(entries: &BTreeMap<String, Entry>) -> Found<&str> {
    let mut roots = entries.keys().filter_map(|name| name.strip_suffix("/data.pkl"));
    let none = || Fault::new("the archive has no data.pkl: it is no checkpoint of PyTorch");
    let root = roots.next().filter(|root| !root.contains('/')).ok_or_else(none)?;
    if roots.next().is_some() {
        return Err(Fault::new("the archive has two data.pkl"));
    }
    let inside = |name: &str| name.strip_prefix(root).and_then(|name| name.strip_prefix('/')).map(str::to_owned);
    for name in entries.keys() {
        let Some(inside) = inside(name) else {
            return Err(Fault::new(format!("`{}` lies outside of the archive's folder `{root}`", name.escape_debug())));
        };
        if inside == "constants.pkl" || inside.starts_with("code/") {
            let remedy = "save its state_dict() instead, which holds the weights alone";
            return Err(Fault::new(format!("this is a TorchScript archive, a program with its weights: {remedy}")));
        }
        if inside.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(Fault::new(format!("`{}` is no plain name of an entry", name.escape_debug())));
        }
    }
    Ok(root)
}

/// The values of a file without an archive, as PyTorch wrote it before 1.6: four pickles (magic number, layout, system, what was
/// saved), one with the names of the storages, and the storages in that order, each behind its number of elements.
pub(crate) fn read_stream(source: &Source, file: usize) -> Found<Vec<(String, Value)>> {
    let mut machine = Machine::default();
    let mut place = 0;
    let mut next = |machine: &mut Machine| {
        let mut input = Input::new(source, place, source.len());
        let item = machine.run(&mut input)?;
        place = input.place();
        Ok::<_, Fault>(item)
    };
    if !matches!(next(&mut machine)?, Item::Big(span) if machine.kept(span) == MAGIC) {
        return Err(Fault::at(0, "it is a pickle, and no checkpoint: PyTorch's begin with their magic number"));
    }
    if !matches!(next(&mut machine)?, Item::Int(LAYOUT)) {
        return Err(Fault::new(format!("its layout is not the one known, {LAYOUT}")));
    }
    next(&mut machine)?;
    let root = next(&mut machine)?;
    let keys = next(&mut machine)?;
    let mut stored = BTreeMap::new();
    for key in machine.list_of(keys)? {
        let key = machine.text_of(*key)?;
        let claim = machine.storages.iter().find(|claim| claim.key == key);
        let claim = claim.ok_or_else(|| Fault::at(place, format!("storage {key} is stored, and never named")))?;
        let elements = u64::from_le_bytes(source.array(place)?);
        if elements != claim.elements() {
            let message = format!("storage {key} has {elements} elements; its pickle says {}", claim.elements());
            return Err(Fault::at(place, message));
        }
        let start = place + 8;
        let bytes = elements * claim.element();
        if bytes > source.len() - start {
            let message = format!("storage {key} of {bytes} bytes is cut off: {} are left", source.len() - start);
            return Err(Fault::at(start, message));
        }
        place = start + bytes;
        stored.insert(key, Storage { file, start, bytes, big_endian: false });
    }
    if place != source.len() {
        return Err(Fault::at(place, "the file goes on behind its last storage"));
    }
    let storage = |claim: &StorageClaim| {
        let missing = || Fault::new(format!("storage {} is named, and not stored", claim.key));
        stored.get(claim.key.as_str()).cloned().ok_or_else(missing)
    };
    let storages = machine.storages.iter().map(storage).collect::<Found<Vec<_>>>()?;
    machine.leaves(root, &machine.views(&storages)?, source.len())
}
