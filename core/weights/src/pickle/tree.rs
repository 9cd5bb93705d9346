//! A pickle's result as leaves with paths. What is shared is written out at each of its places, so that it is first counted how
//! much that makes.

use super::{Global, Item, Machine};
use crate::Value;
use crate::error::{Fault, Found};
use crate::tensor::TensorInfo;
use std::collections::HashMap;

/// The deepest nesting that is believed. Published checkpoints have less than ten levels.
const DEEPEST: usize = 64;

/// How much longer the paths of all leaves may be than the file. Sharing makes more of them than the pickle has keys.
const SHARED: u64 = 16;

/// What a tree with members takes when it is written out.
#[derive(Debug, Clone, Copy)]
struct Extent {
    leaves: u64,
    /// Bytes of the leaves' paths below it.
    paths: u64,
    /// Levels below it.
    height: usize,
}

impl Machine {
    /// The leaves of a result with their paths, in the order of the pickle. `views` are those of [`Machine::views`].
    pub(crate) fn leaves(&self, root: Item, views: &[TensorInfo], file: u64) -> Found<Vec<(String, Value)>> {
        let extent = self.extent(root, 0, &mut HashMap::new())?;
        if extent.paths.saturating_add(extent.leaves) > file.saturating_mul(SHARED) {
            let message =
                "it holds what it shares so often that it would be written out many times as long as the file";
            return Err(Fault::new(message));
        }
        let mut leaves = Vec::new();
        self.write(root, &mut String::new(), views, &mut leaves)?;
        Ok(leaves)
    }

    /// What tells a tree with members from others; none for a leaf.
    fn identity(item: Item) -> Option<(u8, usize)> {
        match item {
            // Empty tuples have no place of their own.
            Item::Tuple(span) if span.length > 0 => Some((0, span.start)),
            Item::List(at) => Some((1, at)),
            Item::Dict(at) => Some((2, at)),
            Item::Namespace(at) => Some((3, at)),
            _ => None,
        }
    }

    /// Its members with their keys.
    fn members(&self, item: Item) -> Found<Vec<(String, Item)>> {
        let dict = |at: usize| self.dicts[at].iter().map(|&(key, value)| Ok((self.key(key)?, value))).collect();
        let list = |items: &[Item]| Ok(items.iter().enumerate().map(|(at, &item)| (at.to_string(), item)).collect());
        match item {
            Item::Tuple(_) => list(self.tuple_of(item)?),
            Item::List(at) => list(&self.lists[at]),
            Item::Dict(at) => dict(at),
            Item::Namespace(at) => self.namespaces[at].map_or(Ok(Vec::new()), dict),
            _ => Ok(Vec::new()),
        }
    }

    fn key(&self, key: Item) -> Found<String> {
        Ok(match key {
            Item::Text(_) => self.text_of(key)?.to_owned(),
            Item::Int(number) => number.to_string(),
            Item::Float(number) => number.to_string(),
            Item::Bool(flag) => flag.to_string(),
            Item::Global(Global::Opaque(class)) => format!("<class '{class}'>"),
            other => other.kind().to_owned(),
        })
    }

    fn extent(&self, item: Item, depth: usize, known: &mut HashMap<(u8, usize), Option<Extent>>) -> Found<Extent> {
        let too_deep = || Fault::new(format!("it is nested more than {DEEPEST} levels deep"));
        let Some(identity) = Self::identity(item) else { return Ok(Extent { leaves: 1, paths: 0, height: 0 }) };
        match known.insert(identity, None) {
            Some(None) => {
                return Err(Fault::new(format!("{} holds itself, so that its paths have no end", item.kind())));
            }
            Some(Some(extent)) => {
                known.insert(identity, Some(extent));
                return if depth + extent.height > DEEPEST { Err(too_deep()) } else { Ok(extent) };
            }
            None => {}
        }
        if depth >= DEEPEST {
            return Err(too_deep());
        }
        let mut total = Extent { leaves: 0, paths: 0, height: 1 };
        for (key, member) in self.members(item)? {
            let extent = self.extent(member, depth + 1, known)?;
            let own = extent.leaves.saturating_mul(key.len() as u64 + 1);
            total.leaves = total.leaves.saturating_add(extent.leaves);
            total.paths = total.paths.saturating_add(extent.paths).saturating_add(own);
            total.height = total.height.max(extent.height + 1);
        }
        known.insert(identity, Some(total));
        Ok(total)
    }

    fn write(&self, item: Item, path: &mut String, views: &[TensorInfo], out: &mut Vec<(String, Value)>) -> Found<()> {
        let value = match item {
            Item::Tuple(_) | Item::List(_) | Item::Dict(_) | Item::Namespace(_) => {
                for (key, member) in self.members(item)? {
                    let length = path.len();
                    if length > 0 {
                        path.push('/');
                    }
                    path.push_str(&key);
                    self.write(member, path, views, out)?;
                    path.truncate(length);
                }
                return Ok(());
            }
            Item::None => Value::None,
            Item::Bool(flag) => Value::Bool(flag),
            Item::Int(number) => Value::Int(number),
            Item::Float(number) => Value::Float(number),
            Item::Text(_) => Value::Text(self.text_of(item)?.to_owned()),
            Item::Big(_) => Value::Opaque("int".to_owned()),
            Item::Opaque(name) => Value::Opaque(name.to_owned()),
            Item::Global(global) => Value::Opaque(global.as_value()?.to_owned()),
            Item::Storage(at) => {
                return Err(Fault::new(format!("storage {} stands for itself", self.storages[at].key)));
            }
            Item::Tensor(at) => Value::Tensor(views[at].clone()),
        };
        out.push((path.clone(), value));
        Ok(())
    }
}
