//! Tokens or latents of many images on disk, written batch by batch and read by rows: no more of them is ever in memory than
//! a batch.

use crate::store::StageDir;
use rqlab_sdk::contracts::{LevelInfo, Tokens};
use rqlab_sdk::tensor::{Codes, Tensor};
use rqlab_sdk::{Error, Result, files};
use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What a number of the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    Codes,
    Vectors,
}

const MAGIC: [u8; 8] = *b"RQLABTK1";
const HEADER: u64 = 8 + 8 + 5 * 8;

/// Writes a file of tokens `[N, h, w, D]` or vectors `[N, h, w, C]`. It takes its place only when it is whole.
pub(super) struct Writer {
    path: PathBuf,
    partial: PathBuf,
    out: BufWriter<File>,
    layout: Option<(Numbers, [usize; 3])>,
    images: usize,
}

impl Writer {
    /// A file that is to stand at `path`.
    pub(super) fn new(path: &Path) -> Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = path.with_file_name(name);
        let file = File::create(&partial).map_err(Error::file(&partial))?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        out.write_all(&[0; HEADER as usize]).map_err(Error::file(&partial))?;
        Ok(Self { path: path.to_owned(), partial, out, layout: None, images: 0 })
    }

    /// Appends a batch.
    pub(super) fn push(&mut self, tokens: &Tokens) -> Result<()> {
        let [images, height, width, last] = tokens.shape() else {
            return Err(Error::Unsupported(format!("tokens {:?} are no maps", tokens.shape())));
        };
        let numbers = match tokens {
            Tokens::Codes(_) => Numbers::Codes,
            Tokens::Vectors(_) => Numbers::Vectors,
        };
        let layout = (numbers, [*height, *width, *last]);
        if *self.layout.get_or_insert(layout) != layout {
            return Err(Error::Unsupported("the tokens of one level change their shape".to_owned()));
        }
        let written = match tokens {
            Tokens::Codes(codes) => codes.as_slice().iter().try_for_each(|x| self.out.write_all(&x.to_le_bytes())),
            Tokens::Vectors(values) => values.as_slice().iter().try_for_each(|x| self.out.write_all(&x.to_le_bytes())),
        };
        self.images += images;
        written.map_err(Error::file(&self.partial))
    }

    /// Puts the file in its place.
    pub(super) fn finish(mut self) -> Result<()> {
        let (numbers, shape) = self.layout.unwrap_or((Numbers::Codes, [0; 3]));
        let kind: u64 = if numbers == Numbers::Codes { 0 } else { 1 };
        let mut header = MAGIC.to_vec();
        header.extend(kind.to_le_bytes());
        for number in [self.images, shape[0], shape[1], shape[2], 0] {
            header.extend((number as u64).to_le_bytes());
        }
        let put = |out: &mut BufWriter<File>| {
            out.seek(SeekFrom::Start(0))?;
            out.write_all(&header)?;
            out.flush()?;
            out.get_ref().sync_all()?;
            fs::rename(&self.partial, &self.path)
        };
        put(&mut self.out).map_err(Error::file(&self.path))
    }
}

/// A file of tokens, read by rows.
pub(super) struct TokenFile {
    path: PathBuf,
    file: Mutex<File>,
    numbers: Numbers,
    images: usize,
    shape: [usize; 3],
    /// All codes are below this.
    below: u32,
}

impl TokenFile {
    /// Opens a file that [`Writer`] has finished, of vectors or of codes below `below`.
    pub(super) fn open(path: &Path, below: u32) -> Result<Self> {
        let damaged = |what: &str| damaged(path, what);
        let (mut file, length) = match files::open(path) {
            Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Err(damaged("it is missing"));
            }
            opened => opened?,
        };
        let mut header = [0; HEADER as usize];
        file.read_exact(&mut header).map_err(|_| damaged("it is too short to hold tokens"))?;
        let (magic, rest) = header.split_at(8);
        let words: Vec<u64> = rest.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let [kind @ (0 | 1), images, height, width, last, _] = words[..] else {
            return Err(damaged("it holds no tokens"));
        };
        if magic != MAGIC {
            return Err(damaged("it holds no tokens"));
        }
        let sizes = [images, height, width, last];
        let bytes = sizes.iter().try_fold(4_u64, |product, &size| product.checked_mul(size));
        if bytes.and_then(|bytes| bytes.checked_add(HEADER)) != Some(length) {
            return Err(damaged("it is cut off or has grown"));
        }
        let [images, height, width, last] = sizes.map(|size| size as usize);
        let numbers = if kind == 0 { Numbers::Codes } else { Numbers::Vectors };
        Ok(Self { path: path.to_owned(), file: Mutex::new(file), numbers, images, shape: [height, width, last], below })
    }

    /// Opens the file of a level, which `info` describes.
    pub(super) fn open_level(path: &Path, info: &LevelInfo) -> Result<Self> {
        Self::open(path, info.sizes().iter().max().map_or(u32::MAX, |&size| size as u32))
    }

    /// How many images it has tokens of.
    pub(super) fn images(&self) -> usize {
        self.images
    }

    /// The tokens of the images `rows`, in that order.
    pub(super) fn rows(&self, rows: &[usize]) -> Result<Tokens> {
        let size: usize = self.shape.iter().product();
        let mut bytes = vec![0; 4 * size * rows.len()];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, &row) in bytes.chunks_exact_mut((4 * size).max(1)).zip(rows) {
            if row >= self.images {
                return Err(Error::Unsupported(format!(
                    "there are tokens of {} images, none of image {row}",
                    self.images
                )));
            }
            let at = HEADER + 4 * (row as u64) * size as u64;
            file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(place)).map_err(Error::file(&self.path))?;
        }
        let shape = [rows.len(), self.shape[0], self.shape[1], self.shape[2]];
        let words = bytes.as_chunks().0.iter().copied();
        Ok(match self.numbers {
            Numbers::Codes => {
                let codes: Vec<u32> = words.map(u32::from_le_bytes).collect();
                if let Some(code) = codes.iter().find(|&&code| code >= self.below) {
                    return Err(damaged(
                        &self.path,
                        &format!("it holds the code {code}, and all are below {}", self.below),
                    ));
                }
                Tokens::Codes(Codes::from_vec(codes, &shape)?)
            }
            Numbers::Vectors => Tokens::Vectors(Tensor::from_vec(words.map(f32::from_le_bytes).collect(), &shape)?),
        })
    }
}

fn damaged(path: &Path, what: &str) -> Error {
    let message = format!("{}: {what}; delete the folder of its stage to have it made again", path.display());
    Error::Checkpoint(message)
}

/// The labels `[N]` of a stage that wrote tokens.
pub(super) fn labels(dir: &StageDir) -> Result<Codes> {
    let mut kept = dir.load_result()?.codes;
    kept.remove("labels")
        .ok_or_else(|| Error::Checkpoint(format!("{} has no `labels`; delete its folder", dir.result().display())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn rows_are_read_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("level.tokens");
        let batch = |from: u32, images: usize| {
            let data = (from..from + 6 * images as u32).collect();
            Tokens::Codes(Codes::from_vec(data, &[images, 1, 3, 2]).unwrap())
        };
        let mut writer = Writer::new(&path).unwrap();
        writer.push(&batch(0, 2)).unwrap();
        writer.push(&batch(12, 1)).unwrap();
        assert!(!path.exists(), "a file that is not whole has no name");
        writer.finish().unwrap();
        let file = TokenFile::open(&path, 18).unwrap();
        assert_eq!(file.images(), 3);
        let rows = file.rows(&[2, 0]).unwrap();
        assert_eq!(rows.codes().unwrap().as_slice(), [12, 13, 14, 15, 16, 17, 0, 1, 2, 3, 4, 5]);
        assert!(file.rows(&[3]).is_err());
        let said = TokenFile::open(&path, 17).unwrap().rows(&[2]).unwrap_err().to_string();
        assert!(said.contains("level.tokens") && said.contains("the code 17") && said.contains("delete"), "{said}");
    }

    #[test]
    fn vectors_keep_their_bits_and_shapes_may_not_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("level.tokens");
        let values = vec![0.1, -0.0, f32::MIN_POSITIVE, 3e38];
        let mut writer = Writer::new(&path).unwrap();
        writer.push(&Tokens::Vectors(Tensor::from_vec(values.clone(), &[1, 1, 2, 2]).unwrap())).unwrap();
        assert!(writer.push(&Tokens::Vectors(Tensor::zeros(&[1, 2, 1, 2]))).is_err());
        writer.finish().unwrap();
        assert_eq!(TokenFile::open(&path, 18).unwrap().rows(&[0]).unwrap().vectors().unwrap().to_vec(), values);
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("level.tokens");
        let mut writer = Writer::new(&path).unwrap();
        writer.push(&Tokens::Vectors(Tensor::zeros(&[2, 1, 1, 3]))).unwrap();
        writer.finish().unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in [0, 7, HEADER as usize, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(TokenFile::open(&path, 18).is_err(), "cut to {cut} bytes");
        }
        let mut huge = whole;
        huge[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
        fs::write(&path, &huge).unwrap();
        assert!(TokenFile::open(&path, 18).is_err(), "more images than a file can hold");
        fs::remove_file(&path).unwrap();
        let said = TokenFile::open(&path, 18).err().unwrap().to_string();
        assert!(said.contains("it is missing; delete the folder of its stage"), "{said}");
    }
}
