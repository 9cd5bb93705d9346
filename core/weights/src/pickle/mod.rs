//! Python's pickles, protocols 2 to 5, as far as checkpoints need them: a machine with a stack and a memo that makes plain values
//! and views of storages. It calls nothing: the few functions that PyTorch's files name stand for what [`globals`] says.
//!
//! Memory is bounded by the length of the pickle: an instruction makes at most one small item, a text is never longer than what
//! is left of the file, nothing is ever copied that an instruction can name again.

mod globals;
mod input;
mod item;
mod rebuild;
mod tree;

use crate::error::{Fault, Found};
use crate::tensor::TensorInfo;
use globals::Global;
pub(crate) use input::Input;
pub(crate) use item::Item;
use item::Span;
pub(crate) use rebuild::{StorageClaim, Stored};
use std::collections::HashMap;

/// What runs a pickle, and what the pickle made.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    stack: Vec<Item>,
    /// Where on the stack marks stand.
    marks: Vec<usize>,
    memo: HashMap<u32, Item>,
    texts: Vec<u8>,
    tuples: Vec<Item>,
    lists: Vec<Vec<Item>>,
    dicts: Vec<Vec<(Item, Item)>>,
    /// The dictionaries of objects with named values, once they have them.
    namespaces: Vec<Option<usize>>,
    /// Storages that were named, each once.
    pub(crate) storages: Vec<StorageClaim>,
    storage_keys: HashMap<String, usize>,
    tensors: Vec<Stored>,
}

impl Machine {
    /// Runs one pickle up to its STOP. Texts and storages of earlier ones stay.
    pub(crate) fn run(&mut self, input: &mut Input<'_>) -> Found<Item> {
        (self.stack, self.marks, self.memo) = Default::default();
        loop {
            let place = input.place();
            let opcode = input.byte().map_err(|_| Fault::at(place, "the pickle ends without its STOP"))?;
            if opcode == b'.' {
                break;
            }
            self.step(opcode, input).map_err(|fault| fault.or_at(place))?;
        }
        let result = self.pop().map_err(|fault| fault.or_at(input.place()))?;
        if !self.stack.is_empty() || !self.marks.is_empty() {
            return Err(Fault::at(input.place(), "the pickle stops with more than its result on the stack"));
        }
        Ok(result)
    }

    fn step(&mut self, opcode: u8, input: &mut Input<'_>) -> Found<()> {
        match opcode {
            0x80 => match input.byte()? {
                2..=5 => {}
                other => return Err(Fault::new(format!("this is pickle protocol {other}; 2 to 5 are read"))),
            },
            0x95 => {
                let length = input.u64()?;
                input.claim(length)?;
            }
            b'(' => self.marks.push(self.stack.len()),
            b'0' => match self.marks.last() {
                Some(&mark) if mark == self.stack.len() => drop(self.marks.pop()),
                _ => drop(self.pop()?),
            },
            b'1' => drop(self.pop_mark()?),
            b'2' => self.push(self.top()?),
            b'N' => self.push(Item::None),
            0x88 => self.push(Item::Bool(true)),
            0x89 => self.push(Item::Bool(false)),
            b'J' => self.push_number(input.u32()?.cast_signed()),
            b'K' => self.push_number(input.byte()?),
            b'M' => self.push_number(u16::from_le_bytes(input.array()?)),
            b'G' => self.push(Item::Float(f64::from_be_bytes(input.array()?))),
            0x8a => self.long(input, 1)?,
            0x8b => self.long(input, 4)?,
            b'X' | b'T' => self.text(input, 4)?,
            0x8c | b'U' => self.text(input, 1)?,
            0x8d => self.text(input, 8)?,
            b'B' => self.bytes(input, 4)?,
            b'C' => self.bytes(input, 1)?,
            0x8e | 0x96 => self.bytes(input, 8)?,
            b')' => self.push(Item::Tuple(Span { start: 0, length: 0 })),
            b't' => self.pop_mark().map(|items| self.push_tuple(&items))?,
            0x85..=0x87 => self.pop_last(usize::from(opcode - 0x84)).map(|items| self.push_tuple(&items))?,
            b']' => self.push_list(),
            b'}' => self.push_dict(),
            0x8f => self.push(Item::Opaque("set")),
            0x91 => self.pop_mark().map(|_| self.push(Item::Opaque("frozenset")))?,
            b'a' => self.pop_last(1).and_then(|items| self.append(&items))?,
            b'e' | 0x90 => self.pop_mark().and_then(|items| self.append(&items))?,
            b's' => self.pop_last(2).and_then(|items| self.set_items(&items))?,
            b'u' => self.pop_mark().and_then(|items| self.set_items(&items))?,
            b'q' => self.remember(input.byte()?.into())?,
            b'r' => self.remember(input.u32()?)?,
            0x94 => self.remember(u32::try_from(self.memo.len()).unwrap_or(u32::MAX))?,
            b'h' => self.recall(input.byte()?.into())?,
            b'j' => self.recall(input.u32()?)?,
            b'c' => {
                let (module, name) = (input.line()?, input.line()?);
                self.push_global(&module, &name)?;
            }
            0x93 => {
                let names = self.pop_last(2)?;
                let (module, name) = (self.text_of(names[0])?.to_owned(), self.text_of(names[1])?.to_owned());
                self.push_global(&module, &name)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.persistent(id)?;
            }
            b'R' => {
                let call = self.pop_last(2)?;
                self.call(call[0], call[1])?;
            }
            0x81 => {
                let call = self.pop_last(2)?;
                self.make(call[0])?;
            }
            0x92 => {
                let call = self.pop_last(3)?;
                self.make(call[0])?;
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            b'i' | b'o' => return Err(Fault::new("objects are made by calling a class here (INST, OBJ): refused")),
            0x82..=0x84 => return Err(Fault::new("this names a class by a number of the extension registry: refused")),
            other => return Err(Fault::new(format!("{other:#04x} is no instruction of pickle protocols 2 to 5"))),
        }
        Ok(())
    }

    fn push(&mut self, item: Item) {
        self.stack.push(item);
    }

    fn push_number(&mut self, number: impl Into<i64>) {
        self.push(Item::Int(number.into()));
    }

    fn push_tuple(&mut self, items: &[Item]) {
        let span = Span { start: self.tuples.len(), length: items.len() };
        self.tuples.extend_from_slice(items);
        self.push(Item::Tuple(span));
    }

    fn push_list(&mut self) {
        self.push(Item::List(self.lists.len()));
        self.lists.push(Vec::new());
    }

    fn push_dict(&mut self) {
        self.push(Item::Dict(self.dicts.len()));
        self.dicts.push(Vec::new());
    }

    fn push_global(&mut self, module: &str, name: &str) -> Found<()> {
        let refused =
            || Fault::new(format!("`{module}.{name}` has no place in a checkpoint of weights: refused, not run"));
        self.push(Item::Global(globals::find(module, name).ok_or_else(refused)?));
        Ok(())
    }

    /// Where the stack may be popped down to.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop_last(&mut self, count: usize) -> Found<Vec<Item>> {
        match self.stack.len().checked_sub(count) {
            Some(at) if at >= self.floor() => Ok(self.stack.split_off(at)),
            _ => Err(Fault::new("the pickle takes more from its stack than there is")),
        }
    }

    fn pop(&mut self) -> Found<Item> {
        self.pop_last(1).map(|items| items[0])
    }

    fn pop_mark(&mut self) -> Found<Vec<Item>> {
        let mark = self.marks.pop().ok_or_else(|| Fault::new("the pickle wants a mark that was not set"))?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Found<Item> {
        let top = self.stack.get(self.floor()..).and_then(<[Item]>::last).copied();
        top.ok_or_else(|| Fault::new("the pickle asks for the top of an empty stack"))
    }

    fn remember(&mut self, slot: u32) -> Found<()> {
        let top = self.top()?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Found<()> {
        let item = self.memo.get(&slot).copied();
        self.push(
            item.ok_or_else(|| Fault::new(format!("the pickle asks for slot {slot} of its memo, which is empty")))?,
        );
        Ok(())
    }

    /// A length of so many bytes.
    fn length(input: &mut Input<'_>, width: u8) -> Found<u64> {
        Ok(match width {
            1 => input.byte()?.into(),
            4 => input.u32()?.into(),
            _ => input.u64()?,
        })
    }

    /// Keeps the next bytes among the texts.
    fn keep(&mut self, input: &mut Input<'_>, length: u64) -> Found<Span> {
        let bytes = input.take(length)?;
        let span = Span { start: self.texts.len(), length: bytes.len() };
        self.texts.extend_from_slice(bytes);
        Ok(span)
    }

    fn text(&mut self, input: &mut Input<'_>, width: u8) -> Found<()> {
        let length = Self::length(input, width)?;
        let span = self.keep(input, length)?;
        if std::str::from_utf8(self.kept(span)).is_err() {
            return Err(Fault::new("a text is not UTF-8"));
        }
        self.push(Item::Text(span));
        Ok(())
    }

    fn bytes(&mut self, input: &mut Input<'_>, width: u8) -> Found<()> {
        let length = Self::length(input, width)?;
        input.take(length)?;
        self.push(Item::Opaque("bytes"));
        Ok(())
    }

    fn long(&mut self, input: &mut Input<'_>, width: u8) -> Found<()> {
        let length = Self::length(input, width)?;
        let span = self.keep(input, length)?;
        let bytes = self.kept(span);
        let fill = if bytes.last().is_some_and(|&byte| byte > 127) { 255 } else { 0 };
        let mut number = [fill; 8];
        let item = match number.get_mut(..bytes.len()) {
            Some(part) => {
                part.copy_from_slice(bytes);
                Item::Int(i64::from_le_bytes(number))
            }
            None => Item::Big(span),
        };
        self.push(item);
        Ok(())
    }

    /// Bytes that were kept.
    pub(crate) fn kept(&self, span: Span) -> &[u8] {
        &self.texts[span.start..][..span.length]
    }

    pub(crate) fn text_of(&self, item: Item) -> Found<&str> {
        match item {
            // It was checked when it was read.
            Item::Text(span) => Ok(std::str::from_utf8(self.kept(span)).unwrap_or_default()),
            other => Err(Fault::new(format!("{} stands where a text is wanted", other.kind()))),
        }
    }

    pub(crate) fn tuple_of(&self, item: Item) -> Found<&[Item]> {
        match item {
            Item::Tuple(span) => Ok(&self.tuples[span.start..][..span.length]),
            other => Err(Fault::new(format!("{} stands where a tuple is wanted", other.kind()))),
        }
    }

    pub(crate) fn list_of(&self, item: Item) -> Found<&[Item]> {
        match item {
            Item::List(at) => Ok(&self.lists[at]),
            other => Err(Fault::new(format!("{} stands where a list is wanted", other.kind()))),
        }
    }

    fn append(&mut self, items: &[Item]) -> Found<()> {
        match self.top()? {
            Item::List(list) => self.lists[list].extend_from_slice(items),
            Item::Opaque(_) => {}
            other => return Err(Fault::new(format!("something is appended to {}", other.kind()))),
        }
        Ok(())
    }

    fn set_items(&mut self, items: &[Item]) -> Found<()> {
        let (pairs, odd) = items.as_chunks::<2>();
        if !odd.is_empty() {
            return Err(Fault::new("a dictionary gets a key without a value"));
        }
        for [key, _] in pairs {
            if matches!(key, Item::List(_) | Item::Dict(_) | Item::Namespace(_) | Item::Storage(_) | Item::Tensor(_)) {
                return Err(Fault::new(format!("{} is the key of a dictionary", key.kind())));
            }
        }
        match self.top()? {
            Item::Dict(dict) => self.dicts[dict].extend(pairs.iter().map(|&[key, value]| (key, value))),
            Item::Opaque(_) => {}
            other => return Err(Fault::new(format!("something is set in {}", other.kind()))),
        }
        Ok(())
    }

    /// What PyTorch's and Python's functions would return: the few that are known.
    fn call(&mut self, function: Item, arguments: Item) -> Found<()> {
        let Item::Global(global) = function else {
            return Err(Fault::new(format!("{} is called as a function", function.kind())));
        };
        let arguments = self.tuple_of(arguments)?.to_vec();
        let made = match global {
            Global::RebuildTensor => self.rebuild_tensor(&arguments)?,
            Global::RebuildParameter => match arguments.first() {
                Some(tensor @ Item::Tensor(_)) => *tensor,
                _ => return Err(Fault::new("a parameter is made of something that is no tensor")),
            },
            Global::RebuildFromType => match arguments[..] {
                [inner @ Item::Global(Global::RebuildTensor | Global::RebuildParameter), _, arguments, ..] => {
                    return self.call(inner, arguments);
                }
                _ => return Err(Fault::new("a tensor is made by a function that is not known")),
            },
            Global::Size => match arguments[..] {
                [sizes @ Item::Tuple(_)] => sizes,
                _ => return Err(Fault::new("`torch.Size` is made of something that is no tuple")),
            },
            other => return self.make(Item::Global(other)),
        };
        self.push(made);
        Ok(())
    }

    /// An empty object of a class.
    fn make(&mut self, class: Item) -> Found<()> {
        match class {
            Item::Global(Global::Dict) => self.push_dict(),
            Item::Global(Global::Namespace) => {
                self.push(Item::Namespace(self.namespaces.len()));
                self.namespaces.push(None);
            }
            Item::Global(Global::Opaque(name)) => self.push(Item::Opaque(name)),
            Item::Global(other) => return Err(Fault::new(format!("{other:?} is no class of objects"))),
            other => return Err(Fault::new(format!("{} is used as a class", other.kind()))),
        }
        Ok(())
    }

    /// Gives the object on top its state. No `__setstate__` is known, none is run.
    fn build(&mut self, state: Item) -> Found<()> {
        match (self.top()?, state) {
            (Item::Namespace(at), Item::Dict(values)) if self.namespaces[at].is_none() => {
                self.namespaces[at] = Some(values);
            }
            // A state dictionary's `_metadata`, which says nothing of the weights.
            (Item::Dict(_), Item::Dict(_)) | (Item::Opaque(_), _) => {}
            (object, state) => {
                return Err(Fault::new(format!("{} gets {} as its state", object.kind(), state.kind())));
            }
        }
        Ok(())
    }
}

impl Machine {
    /// The views that were made, over the storages at these places.
    pub(crate) fn views(&self, storages: &[crate::tensor::Storage]) -> Found<Vec<TensorInfo>> {
        self.tensors.iter().map(|tensor| tensor.view(&self.storages, storages)).collect()
    }
}
