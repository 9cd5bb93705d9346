//! The zip archives that PyTorch writes: stored entries, found by the central directory at the file's end.
//!
//! PyTorch never compresses, so that nothing is ever larger than the file: what is compressed, encrypted, named twice,
//! overlapping or said to be of another size than it takes is refused.

use crate::error::{Fault, Found};
use crate::source::Source;
use std::collections::BTreeMap;

const END: [u8; 4] = *b"PK\x05\x06";
const END64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR64: [u8; 4] = *b"PK\x06\x07";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const LOCAL: [u8; 4] = *b"PK\x03\x04";

/// The end record without a comment, which PyTorch does not write.
const END_LENGTH: u64 = 22;

/// A part of the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    /// Its first byte.
    pub(crate) start: u64,
    /// Its length in bytes.
    pub(crate) length: u64,
}

/// The entries of an archive by name; their CRCs hold.
pub(crate) fn entries(source: &Source) -> Found<BTreeMap<String, Entry>> {
    let (directory, count) = directory(source)?;
    let bytes = source.bytes(directory.start, directory.length)?;
    let mut reader = Fields { bytes: &bytes, at: 0, start: directory.start };
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let (name, entry, crc) = central(source, &mut reader, directory.start)?;
        check_crc(source, &name, entry, crc)?;
        if let Some(first) = entries.insert(name, entry) {
            return Err(Fault::at(first.start, "two entries of the archive have this one's name"));
        }
    }
    if reader.at != bytes.len() {
        let message = format!("the archive's directory goes on behind its {count} entries");
        return Err(Fault::at(directory.start + reader.at as u64, message));
    }
    let mut places: Vec<_> = entries.values().collect();
    places.sort_by_key(|entry| entry.start);
    for pair in places.windows(2) {
        if pair[0].start + pair[0].length > pair[1].start {
            return Err(Fault::at(pair[1].start, "two entries of the archive overlap"));
        }
    }
    Ok(entries)
}

/// Where the central directory lies, and how many entries it has.
fn directory(source: &Source) -> Found<(Entry, u64)> {
    let cut_off = || Fault::new("the archive is cut off: its directory is not at the file's end");
    let at = source.len().checked_sub(END_LENGTH).ok_or_else(cut_off)?;
    let end = source.bytes(at, END_LENGTH)?;
    let mut end = Fields { bytes: &end, at: 0, start: at };
    if end.array::<4>()? != END {
        return Err(cut_off());
    }
    end.skip(6)?;
    let (count, length, start) = (end.u16()?, end.u32()?, end.u32()?);
    let locator = at.checked_sub(20).filter(|&at| source.array::<4>(at).is_ok_and(|found| found == LOCATOR64));
    let (start, length, count, behind) = match locator {
        None => (u64::from(start), u64::from(length), u64::from(count), at),
        Some(locator) => {
            let record = u64::from_le_bytes(source.array(locator + 8)?);
            let bytes = source.bytes(record, 56)?;
            let mut fields = Fields { bytes: &bytes, at: 0, start: record };
            if fields.array::<4>()? != END64 {
                return Err(Fault::at(record, "the archive's end record is not here, where its locator says"));
            }
            fields.skip(28)?;
            let (count, length, start) = (fields.u64()?, fields.u64()?, fields.u64()?);
            (start, length, count, record)
        }
    };
    if start.checked_add(length) != Some(behind) {
        let message =
            format!("the archive's directory is said to be {length} bytes from byte {start}, and ends elsewhere");
        return Err(Fault::at(at, message));
    }
    Ok((Entry { start, length }, count))
}

/// An entry of the central directory: name, place, CRC.
fn central(source: &Source, fields: &mut Fields<'_>, directory: u64) -> Found<(String, Entry, u32)> {
    let place = fields.place();
    let wrong = |what: String| Fault::at(place, what);
    if fields.array::<4>()? != CENTRAL {
        return Err(wrong("the archive's directory has fewer entries than its end record says".to_owned()));
    }
    fields.skip(4)?;
    let (flags, method) = (fields.u16()?, fields.u16()?);
    fields.skip(4)?;
    let (crc, packed, unpacked) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let (name, extra, comment) = (fields.u16()?, fields.u16()?, fields.u16()?);
    fields.skip(8)?;
    let local = fields.u32()?;
    let name = std::str::from_utf8(fields.take(name.into())?);
    let name = name.map_err(|_| wrong("the name of an entry is not UTF-8".to_owned()))?.to_owned();
    let mut extra = Fields { bytes: fields.take(extra.into())?, at: 0, start: place };
    fields.skip(comment.into())?;
    let [unpacked, packed, local] = sizes([unpacked, packed, local], &mut extra)?;
    if flags & 1 != 0 {
        return Err(wrong(format!("`{name}` is encrypted")));
    }
    if method != 0 {
        let remedy = "PyTorch stores entries as they are, and nothing is unpacked here";
        return Err(wrong(format!("`{name}` is compressed (method {method}): {remedy}")));
    }
    if packed != unpacked {
        return Err(wrong(format!("`{name}` is stored, and said to be of {packed} and of {unpacked} bytes")));
    }
    let about = source.bytes(local, 30)?;
    let mut about = Fields { bytes: &about, at: 0, start: local };
    if about.array::<4>()? != LOCAL {
        return Err(Fault::at(local, format!("`{name}` is not here, where the archive's directory says")));
    }
    about.skip(22)?;
    let (name_length, extra_length) = (u64::from(about.u16()?), u64::from(about.u16()?));
    if source.bytes(local + 30, name_length)? != name.as_bytes() {
        return Err(Fault::at(local, format!("the archive's directory calls this entry `{name}`, which it is not")));
    }
    let start = local + 30 + name_length + extra_length;
    match start.checked_add(packed) {
        Some(end) if end <= directory => Ok((name, Entry { start, length: packed }, crc)),
        _ => Err(Fault::at(start, format!("`{name}` of {packed} bytes does not lie before the archive's directory"))),
    }
}

/// Sizes of an entry, of which those that are all ones stand in the extra field of 64-bit sizes.
fn sizes(small: [u32; 3], extra: &mut Fields<'_>) -> Found<[u64; 3]> {
    let mut sizes = small.map(u64::from);
    let mut wanted = sizes.iter_mut().filter(|size| **size == u64::from(u32::MAX)).peekable();
    while wanted.peek().is_some() && extra.at < extra.bytes.len() {
        let (kind, length) = (extra.u16()?, extra.u16()?);
        let field = extra.take(length.into())?;
        if kind == 1 {
            let mut field = Fields { bytes: field, at: 0, start: extra.start };
            for size in wanted.by_ref() {
                *size = field.u64()?;
            }
        }
    }
    Ok(sizes)
}

fn check_crc(source: &Source, name: &str, entry: Entry, crc: u32) -> Found<()> {
    let mut hasher = crc32fast::Hasher::new();
    source.each_chunk(entry.start, entry.length, |bytes| hasher.update(bytes))?;
    if hasher.finalize() == crc {
        return Ok(());
    }
    Err(Fault::at(entry.start, format!("`{name}` is damaged: its bytes do not have the CRC that is stored with them")))
}

/// Little-endian fields, one after another.
struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the bytes lie in the file.
    start: u64,
}

impl<'a> Fields<'a> {
    fn place(&self) -> u64 {
        self.start + self.at as u64
    }

    fn take(&mut self, length: usize) -> Found<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or_else(|| Fault::at(self.place(), "the archive's directory is cut off"))?;
        self.at += length;
        Ok(taken)
    }

    fn skip(&mut self, length: usize) -> Found<()> {
        self.take(length).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Found<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Found<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Found<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Found<u64> {
        self.array().map(u64::from_le_bytes)
    }
}
