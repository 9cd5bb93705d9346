//! The bytes of a pickle, read once from front to back.

use crate::error::{Fault, Found};
use crate::source::Source;

/// The longest pickle that is believed. Those of published checkpoints take some 200 bytes per tensor.
const LONGEST: u64 = 64 << 20;

/// Bytes that are read ahead.
const AHEAD: u64 = 1 << 16;

/// A part of a file, read from front to back.
pub(crate) struct Input<'a> {
    source: &'a Source,
    buffer: Vec<u8>,
    at: usize,
    /// The file's byte that `buffer` begins with.
    start: u64,
    /// The byte behind the last that may be read.
    end: u64,
}

impl<'a> Input<'a> {
    /// The part from `start` to `end`.
    pub(crate) fn new(source: &'a Source, start: u64, end: u64) -> Self {
        let end = end.min(start.saturating_add(LONGEST));
        Self { source, buffer: Vec::new(), at: 0, start, end }
    }

    /// Which byte of the file comes next.
    pub(crate) fn place(&self) -> u64 {
        self.start + self.at as u64
    }

    /// Bytes that are left.
    pub(crate) fn left(&self) -> u64 {
        self.end - self.place()
    }

    /// Refuses a length that the input does not have.
    pub(crate) fn claim(&self, length: u64) -> Found<usize> {
        if length > self.left() {
            let message = format!("{length} bytes are announced where {} are left", self.left());
            return Err(Fault::at(self.place(), message));
        }
        Ok(length as usize)
    }

    /// The next bytes.
    pub(crate) fn take(&mut self, length: u64) -> Found<&[u8]> {
        let length = self.claim(length)?;
        if self.buffer.len() - self.at < length {
            (self.start, self.at) = (self.place(), 0);
            let ahead = (length as u64).max(AHEAD).min(self.end - self.start);
            self.buffer = self.source.bytes(self.start, ahead)?;
        }
        let taken = &self.buffer[self.at..self.at + length];
        self.at += length;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Found<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    pub(crate) fn byte(&mut self) -> Found<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Found<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Found<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A line, without its end.
    pub(crate) fn line(&mut self) -> Found<String> {
        const LONGEST_NAME: usize = 255;
        let place = self.place();
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                byte if line.len() < LONGEST_NAME => line.push(byte),
                _ => return Err(Fault::at(place, "the name of a class is longer than any")),
            }
        }
        String::from_utf8(line).map_err(|_| Fault::at(place, "the name of a class is not UTF-8"))
    }
}
