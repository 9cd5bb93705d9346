//! Checkpoints: named tensors and texts in a safetensors file.
//!
//! The format is that of Hugging Face (8 bytes of header length, a JSON header, the numbers in little-endian), so that
//! published weights can be read and ours can be opened elsewhere. Equal contents give equal bytes.

use crate::files::{self, write_atomically};
use crate::tensor::{Codes, Tensor};
use crate::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

/// What a checkpoint file holds.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// Tensors by name (f32).
    pub tensors: BTreeMap<String, Tensor>,
    /// Codes by name (u32). A name stands either here or among the tensors.
    pub codes: BTreeMap<String, Codes>,
    /// Texts by name.
    pub metadata: BTreeMap<String, String>,
}

/// The text that holds a checkpoint's own digest.
const DIGEST: &str = "blake3";

/// The entry of the header that holds the texts.
const METADATA: &str = "__metadata__";

/// Longest header that is believed; that of a model of a million tensors.
const LONGEST_HEADER: u64 = 100 << 20;

/// Numbers of 4 bytes that are converted at a time.
const CHUNK: usize = 1 << 14;

impl Checkpoint {
    /// Writes the file such that a crash at any time leaves either the old file or the new one: into a file beside it
    /// (`NAME.PROCESS.partial`), which takes its place once it is on disk.
    ///
    /// # Errors
    /// [`Error::File`], such as a full disk or a read-only folder; [`Error::Checkpoint`] if a tensor and codes share a
    /// name, or one has that of the format's own entry. The old file is untouched then.
    pub fn save(&self, path: &Path) -> Result<()> {
        if self.tensors.contains_key(METADATA) || self.codes.contains_key(METADATA) {
            let message =
                format!("{}: `{METADATA}` is the entry of the texts: name the tensor otherwise", path.display());
            return Err(Error::Checkpoint(message));
        }
        if let Some(name) = self.tensors.keys().find(|name| self.codes.contains_key(*name)) {
            return Err(Error::Checkpoint(format!("{}: a tensor and codes are both called `{name}`", path.display())));
        }
        write_atomically(path, |out| {
            let header = self.header();
            out.write_all(&(header.len() as u64).to_le_bytes())?;
            out.write_all(&header)?;
            for tensor in self.tensors.values() {
                write_words(out, tensor.as_slice(), |x| x.to_le_bytes())?;
            }
            for codes in self.codes.values() {
                write_words(out, codes.as_slice(), |x| x.to_le_bytes())?;
            }
            Ok(())
        })
    }

    fn header(&self) -> Vec<u8> {
        let tensors = self.tensors.iter().map(|(name, t)| (name, "F32", t.shape()));
        let codes = self.codes.iter().map(|(name, c)| (name, "U32", c.shape()));
        let mut offset = 0;
        let mut header = BTreeMap::<&str, Value>::from([(METADATA, json!(self.metadata))]);
        for (name, dtype, shape) in tensors.chain(codes) {
            let end = offset + 4 * shape.iter().product::<usize>();
            header.insert(name, json!({ "dtype": dtype, "shape": shape, "data_offsets": [offset, end] }));
            offset = end;
        }
        let mut text = json!(header).to_string().into_bytes();
        // The numbers start at a multiple of 8.
        text.resize(text.len().next_multiple_of(8), b' ');
        text
    }

    /// Reads a file of f32 tensors and u32 or i64 codes, straight into their places.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be read; [`Error::Checkpoint`] if it is cut off, is no safetensors file, or holds
    /// numbers of another type.
    pub fn load(path: &Path) -> Result<Self> {
        let (mut input, header) = open(path)?;
        let mut checkpoint = Self { metadata: texts(&header), ..Self::default() };
        for name in header.offset_keys() {
            let Some(TensorInfo { dtype, shape, .. }) = header.info(&name) else { continue };
            let len = shape.iter().product();
            let failed = Error::file(path);
            match dtype {
                Dtype::F32 => {
                    let data = read_words(&mut input, len, f32::from_le_bytes).map_err(failed)?;
                    checkpoint.tensors.insert(name, Tensor::from_vec(data, shape)?);
                }
                Dtype::U32 => {
                    let data = read_words(&mut input, len, u32::from_le_bytes).map_err(failed)?;
                    checkpoint.codes.insert(name, Codes::from_vec(data, shape)?);
                }
                Dtype::I64 => {
                    let data = read_words(&mut input, len, i64::from_le_bytes).map_err(failed)?;
                    let code = |x: i64| {
                        u32::try_from(x).map_err(|_| damaged(path, &format!("`{name}` holds {x}, which is no code")))
                    };
                    let data = data.into_iter().map(code).collect::<Result<_>>()?;
                    checkpoint.codes.insert(name.clone(), Codes::from_vec(data, shape)?);
                }
                other => {
                    let found = format!("`{name}` is of type {other}; wanted F32, U32 or I64");
                    return Err(damaged(path, &found));
                }
            }
        }
        Ok(checkpoint)
    }

    /// It with its own digest among its texts, so that a change of any of its names, shapes, numbers and texts is noticed by
    /// [`Checkpoint::load_sealed`].
    #[must_use]
    pub fn sealed(mut self) -> Self {
        self.metadata.insert(DIGEST.to_owned(), self.digest());
        self
    }

    /// Reads a file that was [sealed](Checkpoint::sealed).
    ///
    /// # Errors
    /// As for [`Checkpoint::load`]; [`Error::Checkpoint`] if its contents are not those that it was sealed with.
    pub fn load_sealed(path: &Path) -> Result<Self> {
        let checkpoint = Self::load(path)?;
        match checkpoint.metadata.get(DIGEST) {
            Some(digest) if *digest == checkpoint.digest() => Ok(checkpoint),
            Some(_) => Err(damaged(path, "its contents are not those that were written")),
            None => Err(damaged(path, "it does not say what was written")),
        }
    }

    /// Digest (blake3, hex) of all that it holds, but for the text that a digest stands in.
    fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        for (name, text) in self.metadata.iter().filter(|(name, _)| *name != DIGEST) {
            part(name.as_bytes());
            part(text.as_bytes());
        }
        let tensors = self.tensors.iter().map(|(name, tensor)| (name, tensor.shape()));
        let codes = self.codes.iter().map(|(name, codes)| (name, codes.shape()));
        for (name, shape) in tensors.chain(codes) {
            part(name.as_bytes());
            shape.iter().for_each(|&length| part(&(length as u64).to_le_bytes()));
        }
        // Into a hasher, writing cannot fail.
        for tensor in self.tensors.values() {
            let _ = write_words(&mut hasher, tensor.as_slice(), |x| x.to_le_bytes());
        }
        for codes in self.codes.values() {
            let _ = write_words(&mut hasher, codes.as_slice(), |x| x.to_le_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// The texts of a file, without its tensors.
    ///
    /// # Errors
    /// As for [`Checkpoint::load`].
    pub fn read_metadata(path: &Path) -> Result<BTreeMap<String, String>> {
        Ok(texts(&open(path)?.1))
    }
}

fn texts(header: &Metadata) -> BTreeMap<String, String> {
    header.metadata().iter().flatten().map(|(name, text)| (name.clone(), text.clone())).collect()
}

/// Opens a file and checks its header against its length.
fn open(path: &Path) -> Result<(BufReader<File>, Metadata)> {
    let (file, found) = files::open(path)?;
    let mut input = BufReader::with_capacity(1 << 18, file);
    let cut_off = |wanted: u64| damaged(path, &format!("it ends after {found} of {wanted} bytes"));
    if found < 8 {
        return Err(cut_off(8));
    }
    let mut length = [0; 8];
    input.read_exact(&mut length).map_err(Error::file(path))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return Err(damaged(path, "it is not a safetensors file"));
    }
    if found < 8 + length {
        return Err(cut_off(8 + length));
    }
    let mut header = vec![0; length as usize];
    input.read_exact(&mut header).map_err(Error::file(path))?;
    let header: Metadata = serde_json::from_slice(&header)
        .map_err(|e| damaged(path, &format!("it is not a safetensors file: its header is not understood ({e})")))?;
    let wanted = 8 + length + header.data_len() as u64;
    match found {
        _ if found < wanted => Err(cut_off(wanted)),
        _ if found > wanted => Err(damaged(path, &format!("it has {} bytes after its end", found - wanted))),
        _ => Ok((input, header)),
    }
}

fn damaged(path: &Path, found: &str) -> Error {
    Error::Checkpoint(format!(
        "{}: this file cannot be used: {found}. Put back a sound copy; or delete it, if it is one that rqlab wrote, to start afresh",
        path.display()
    ))
}

fn write_words<T: Copy, const N: usize>(
    out: &mut impl Write,
    words: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(CHUNK * N);
    for chunk in words.chunks(CHUNK) {
        buffer.clear();
        buffer.extend(chunk.iter().flat_map(|&word| bytes(word)));
        out.write_all(&buffer)?;
    }
    Ok(())
}

fn read_words<T, const N: usize>(input: &mut impl Read, len: usize, word: impl Fn([u8; N]) -> T) -> io::Result<Vec<T>> {
    let mut words = Vec::with_capacity(len);
    let mut buffer = vec![0; CHUNK * N];
    while words.len() < len {
        let part = &mut buffer[..N * CHUNK.min(len - words.len())];
        input.read_exact(part)?;
        words.extend(part.as_chunks().0.iter().map(|&bytes| word(bytes)));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// A folder of its own for one test, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("rqlab-checkpoint-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("model.safetensors")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn example() -> Checkpoint {
        let numbers = (0..2 * CHUNK + 3).map(|i| (i as f32).sin()).collect();
        Checkpoint {
            tensors: BTreeMap::from([
                ("encoder.weight".to_owned(), Tensor::from_vec(numbers, &[1, 2 * CHUNK + 3]).unwrap()),
                ("odd".to_owned(), Tensor::from_vec(vec![-0.0, f32::MIN_POSITIVE, 1e-45], &[3]).unwrap()),
                ("scalar".to_owned(), Tensor::scalar(2.5)),
                ("empty".to_owned(), Tensor::zeros(&[0, 4])),
            ]),
            codes: BTreeMap::from([("codes".to_owned(), Codes::from_vec(vec![0, 7, u32::MAX], &[3, 1]).unwrap())]),
            metadata: BTreeMap::from([("step".to_owned(), "12 \"quoted\" ü".to_owned())]),
        }
    }

    fn complaint(path: &Path) -> String {
        let error = Checkpoint::load(path).unwrap_err();
        assert!(matches!(error, Error::Checkpoint(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains("model.safetensors") && text.contains("to start afresh"), "{text}");
        text
    }

    #[test]
    fn what_is_written_is_read_back_bit_for_bit() {
        let folder = Folder::new("round-trip");
        let (path, written) = (folder.file(), example());
        written.save(&path).unwrap();
        let read = Checkpoint::load(&path).unwrap();
        assert_eq!(read.metadata, written.metadata);
        assert_eq!(read.codes, written.codes);
        assert_eq!(read.tensors.keys().collect::<Vec<_>>(), written.tensors.keys().collect::<Vec<_>>());
        for (name, tensor) in &written.tensors {
            assert_eq!(read.tensors[name].shape(), tensor.shape());
            let bits = |t: &Tensor| t.as_slice().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&read.tensors[name]), bits(tensor), "{name}");
        }
        assert_eq!(Checkpoint::read_metadata(&path).unwrap(), written.metadata);
        let first = fs::read(&path).unwrap();
        written.save(&path).unwrap();
        assert_eq!(first, fs::read(&path).unwrap());
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    }

    #[test]
    fn the_format_is_safetensors() {
        let folder = Folder::new("format");
        example().save(&folder.file()).unwrap();
        let bytes = fs::read(folder.file()).unwrap();
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let scalar = read.tensor("scalar").unwrap();
        assert_eq!((scalar.dtype(), scalar.shape(), scalar.data()), (Dtype::F32, &[][..], &2.5f32.to_le_bytes()[..]));
        assert_eq!(read.tensor("codes").unwrap().dtype(), Dtype::U32);
    }

    #[test]
    fn a_file_cut_off_anywhere_is_refused() {
        let folder = Folder::new("cut");
        example().save(&folder.file()).unwrap();
        let bytes = fs::read(folder.file()).unwrap();
        for length in [0, 7, 8, 100, bytes.len() / 2, bytes.len() - 1] {
            fs::write(folder.file(), &bytes[..length]).unwrap();
            let text = complaint(&folder.file());
            assert!(text.contains(&format!("ends after {length} of")), "{text}");
        }
        fs::write(folder.file(), [&bytes[..], b"more"].concat()).unwrap();
        assert!(complaint(&folder.file()).contains("4 bytes after its end"));
    }

    #[test]
    fn a_foreign_file_is_refused() {
        let folder = Folder::new("foreign");
        fs::write(folder.file(), b"\x89PNG\r\n\x1a\n and so on").unwrap();
        assert!(complaint(&folder.file()).contains("not a safetensors file"));
        fs::write(folder.file(), b"\x10\0\0\0\0\0\0\0not a header, no").unwrap();
        assert!(complaint(&folder.file()).contains("not a safetensors file"));
        // Offsets that contradict the shape must not be believed.
        let header = br#"{"w":{"dtype":"F32","shape":[4000000000],"data_offsets":[0,4]}}"#;
        fs::write(folder.file(), [&(header.len() as u64).to_le_bytes(), &header[..], &[0; 4]].concat()).unwrap();
        complaint(&folder.file());
    }

    #[test]
    fn published_codes_are_read_and_other_types_refused() {
        let folder = Folder::new("types");
        let write = |dtype: &str, data: &[u8]| {
            let header = format!(r#"{{"x":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,{}]}}}}"#, data.len());
            let length = (header.len() as u64).to_le_bytes();
            fs::write(folder.file(), [&length, header.as_bytes(), data].concat()).unwrap();
        };
        write("I64", &5i64.to_le_bytes());
        assert_eq!(Checkpoint::load(&folder.file()).unwrap().codes["x"].as_slice(), [5]);
        write("I64", &(-1i64).to_le_bytes());
        assert!(complaint(&folder.file()).contains("`x` holds -1"));
        write("BF16", &[0; 2]);
        assert!(complaint(&folder.file()).contains("`x` is of type BF16"));
    }

    #[test]
    fn a_change_of_any_byte_of_a_sealed_file_is_noticed() {
        let folder = Folder::new("sealed");
        let small = || Checkpoint {
            tensors: BTreeMap::from([("w".to_owned(), Tensor::from_vec(vec![1.0, -2.5], &[2]).unwrap())]),
            codes: BTreeMap::from([("c".to_owned(), Codes::from_vec(vec![3, 4], &[2, 1]).unwrap())]),
            metadata: BTreeMap::from([("step".to_owned(), "12".to_owned())]),
        };
        small().sealed().save(&folder.file()).unwrap();
        assert_eq!(Checkpoint::load_sealed(&folder.file()).unwrap().metadata["step"], "12");
        let whole = fs::read(folder.file()).unwrap();
        let padding = whole.len() - 16 - whole[..whole.len() - 16].iter().rev().take_while(|&&b| b == b' ').count();
        // Blanks between header and numbers mean nothing.
        for at in (0..whole.len()).filter(|at| !(padding..whole.len() - 16).contains(at)) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(folder.file(), &flipped).unwrap();
            assert!(Checkpoint::load_sealed(&folder.file()).is_err(), "byte {at}");
        }
        small().save(&folder.file()).unwrap();
        assert!(Checkpoint::load_sealed(&folder.file()).unwrap_err().to_string().contains("does not say"));
    }

    #[test]
    fn a_name_stands_for_one_thing() {
        let folder = Folder::new("names");
        let mut checkpoint = example();
        checkpoint.tensors.insert("codes".to_owned(), Tensor::scalar(0.0));
        assert!(checkpoint.save(&folder.file()).unwrap_err().to_string().contains("`codes`"));
        assert!(!folder.file().exists());
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let folder = Folder::new("failed");
        example().save(&folder.file()).unwrap();
        let before = fs::read(folder.file()).unwrap();
        let full = write_atomically(&folder.file(), |out| {
            out.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(full.unwrap_err().to_string().contains("model.safetensors"));
        assert_eq!(before, fs::read(folder.file()).unwrap());
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
        assert!(matches!(example().save(&folder.0.join("absent/file")), Err(Error::File { .. })));
        assert!(matches!(Checkpoint::load(&folder.0.join("absent")), Err(Error::File { .. })));
    }
}
