//! One's own pictures as tokens, and tokens as pictures: what `rqlab tokenize` and `rqlab detokenize` do.
//!
//! The file of codes is safetensors: `codes` `[N, h, w, D]` (or `vectors` `[N, h, w, C]`), with several levels `codes.1`,
//! `codes.2`, .., and among its texts the pictures' names and the identity of the tokenizer. Another one refuses it.

use crate::stages::{Tokenizer, level_scope};
use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageReader};
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::{MapShape, Progress, Tokens};
use rqlab_sdk::tensor::{Tensor, no_grad};
use rqlab_sdk::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Pictures that are worked on at once.
const BATCH: usize = 16;

/// Endings of files that are taken from a folder.
const ENDINGS: [&str; 9] = ["bmp", "gif", "jpeg", "jpg", "png", "ppm", "tif", "tiff", "webp"];

/// What tells a tokenizer from others: the digest (blake3, hex) of its image size, parameters and buffers.
pub fn identity(model: &Tokenizer) -> String {
    let MapShape { height, width, channels } = model.image();
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{height} {width} {channels}").as_bytes());
    for (name, tensor) in model.params.state() {
        hasher.update(format!("\n{name} {:?}\n", tensor.shape()).as_bytes());
        for numbers in tensor.to_vec().chunks(1 << 14) {
            let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// The files that arguments name: themselves, or the pictures of a folder and of the folders in it, in the order of their paths.
///
/// # Errors
/// What is not there; a folder without pictures.
pub fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut pictures = pictures_under(path)?;
        if pictures.is_empty() {
            let endings = ENDINGS.join(", ");
            let message =
                format!("{}: there is no picture in this folder, nor in one in it ({endings})", path.display());
            return Err(Error::Data(message));
        }
        pictures.sort();
        files.append(&mut pictures);
    }
    Ok(files)
}

/// The pictures of a folder and of those in it. A link to a folder, which may lead back to this one, is not followed.
fn pictures_under(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut pictures = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(Error::file(&folder))?.flatten() {
            let path = entry.path();
            let end = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if path.is_file() && ENDINGS.contains(&end.as_str()) {
                pictures.push(path);
            }
        }
    }
    Ok(pictures)
}

/// The tokens of pictures.
#[derive(Debug)]
pub struct Tokenized {
    /// What is to be written.
    pub checkpoint: Checkpoint,
    /// How many pictures had another size, and were scaled and cut.
    pub scaled: usize,
}

/// Encodes pictures. One of another size than the tokenizer's is scaled until it covers that, and cut at both ends alike.
///
/// # Errors
/// A file that is no picture; those of the tokenizer.
pub fn tokenize(model: &Tokenizer, files: &[PathBuf], progress: &Progress) -> Result<Tokenized> {
    let (mut levels, mut scaled): (Vec<Vec<Tokens>>, usize) = (Vec::new(), 0);
    for (i, batch) in files.chunks(BATCH).enumerate() {
        progress.tell("encoding pictures", i * BATCH, files.len());
        let pictures = batch.iter().map(|file| picture(file, model.image())).collect::<Result<Vec<_>>>()?;
        scaled += pictures.iter().filter(|(_, was_scaled)| *was_scaled).count();
        let pixels: Vec<f32> = pictures.into_iter().flat_map(|(pixels, _)| pixels).collect();
        let MapShape { height, width, channels } = model.image();
        let images = Tensor::from_vec(pixels, &[batch.len(), height, width, channels])?;
        let encoded = no_grad(|| model.encode(&images))?;
        levels.resize_with(encoded.len(), Vec::new);
        levels.iter_mut().zip(encoded).for_each(|(level, (_, quantized))| level.push(quantized.tokens));
    }
    progress.tell("encoding pictures", files.len(), files.len());
    let mut checkpoint = Checkpoint::default();
    for (level, parts) in levels.iter().enumerate() {
        match Tokens::concat(&parts.iter().collect::<Vec<_>>())? {
            Tokens::Codes(codes) => drop(checkpoint.codes.insert(level_scope("codes", level, levels.len()), codes)),
            Tokens::Vectors(vectors) => {
                checkpoint.tensors.insert(level_scope("vectors", level, levels.len()), vectors);
            }
        }
    }
    let names: Vec<String> = files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
    let names = serde_json::to_string(&names).map_err(|error| Error::Data(error.to_string()))?;
    checkpoint.metadata = BTreeMap::from([(TOKENIZER.to_owned(), identity(model)), (PICTURES.to_owned(), names)]);
    Ok(Tokenized { checkpoint, scaled })
}

/// The texts of a file of codes.
const TOKENIZER: &str = "tokenizer";
const PICTURES: &str = "pictures";

/// Decodes a file of codes into PNG files of a folder, named as the pictures were, and gives their paths.
///
/// # Errors
/// A file of another tokenizer, or that is damaged; a picture that is there already; those of the tokenizer.
pub fn detokenize(model: &Tokenizer, file: &Path, folder: &Path, progress: &Progress) -> Result<Vec<PathBuf>> {
    let checkpoint = Checkpoint::load(file)?;
    let wrong = |what: &str| Error::Data(format!("{}: {what}", file.display()));
    let of = checkpoint.metadata.get(TOKENIZER);
    let of =
        of.ok_or_else(|| wrong("it does not say which tokenizer's codes it holds; `rqlab tokenize` writes that"))?;
    let own = identity(model);
    if *of != own {
        let what = format!("these are codes of the tokenizer {}, and this one is {}", short(of), short(&own));
        return Err(wrong(&what));
    }
    let levels = model.levels().len();
    let level = |level: usize| {
        let codes = checkpoint.codes.get(&level_scope("codes", level, levels)).cloned().map(Tokens::Codes);
        let vectors = || checkpoint.tensors.get(&level_scope("vectors", level, levels)).cloned().map(Tokens::Vectors);
        codes.or_else(vectors).ok_or_else(|| wrong(&format!("it has no tokens of level {}", level + 1)))
    };
    let tokens = (0..levels).map(level).collect::<Result<Vec<_>>>()?;
    let count = tokens.first().map_or(0, Tokens::images);
    let paths = outputs(checkpoint.metadata.get(PICTURES), count, folder);
    if let Some(there) = paths.iter().find(|path| path.exists()) {
        return Err(Error::Data(format!("{} is there already: name another folder", there.display())));
    }
    std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
    for (i, batch) in paths.chunks(BATCH).enumerate() {
        progress.tell("decoding pictures", i * BATCH, count);
        let rows: Vec<usize> = (i * BATCH..i * BATCH + batch.len()).collect();
        let part = tokens.iter().map(|level| level.rows(&rows)).collect::<Result<Vec<_>>>()?;
        let images = no_grad(|| model.decode(&part, None))?.to_vec();
        let size = images.len() / batch.len().max(1);
        for (path, pixels) in batch.iter().zip(images.chunks(size.max(1))) {
            write(path, pixels, model.image())?;
        }
    }
    progress.tell("decoding pictures", count, count);
    Ok(paths)
}

fn short(digest: &str) -> &str {
    digest.get(..8).unwrap_or(digest)
}

/// A PNG file for each picture: by the stem of its name, or by its number where that is not known; each name once.
fn outputs(names: Option<&String>, count: usize, folder: &Path) -> Vec<PathBuf> {
    let names: Vec<String> = names.and_then(|names| serde_json::from_str(names).ok()).unwrap_or_default();
    let mut taken = BTreeSet::new();
    let name = |i: usize| {
        // Only the last part of a name: the file of codes may be somebody else's.
        let stem = names.get(i).and_then(|name| Some(Path::new(name).file_stem()?.to_string_lossy().into_owned()));
        let stem = stem.unwrap_or_else(|| format!("{:05}", i + 1));
        let numbered = std::iter::once(stem.clone()).chain((2..).map(|number: usize| format!("{stem}-{number}")));
        let free = numbered.into_iter().find(|name| taken.insert(name.clone()));
        folder.join(format!("{}.png", free.unwrap_or(stem)))
    };
    (0..count).map(name).collect()
}

/// The pixels of a file in [-1, 1], channels last, and whether it had to be scaled.
fn picture(path: &Path, shape: MapShape) -> Result<(Vec<f32>, bool)> {
    let MapShape { height, width, channels } = shape;
    let read = || -> std::result::Result<DynamicImage, image::ImageError> {
        let mut decoder = ImageReader::open(path)?.with_guessed_format()?.into_decoder()?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(image)
    };
    let image = read().map_err(|error| Error::Data(format!("{}: {error}", path.display())))?;
    let fits = (image.width() as usize, image.height() as usize) == (width, height);
    let image = if fits { image } else { image.resize_to_fill(width as u32, height as u32, FilterType::CatmullRom) };
    let bytes = match channels {
        1 => image.into_luma8().into_raw(),
        3 => image.into_rgb8().into_raw(),
        other => {
            return Err(Error::Unsupported(format!("pictures have 1 or 3 channels; this tokenizer wants {other}")));
        }
    };
    Ok((bytes.into_iter().map(|byte| f32::from(byte) / 127.5 - 1.0).collect(), !fits))
}

fn write(path: &Path, pixels: &[f32], shape: MapShape) -> Result<()> {
    let (width, height) = (shape.width as u32, shape.height as u32);
    let bytes: Vec<u8> = pixels.iter().map(|x| ((x.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8).collect();
    let image = match shape.channels {
        1 => image::GrayImage::from_raw(width, height, bytes).map(DynamicImage::ImageLuma8),
        _ => image::RgbImage::from_raw(width, height, bytes).map(DynamicImage::ImageRgb8),
    };
    let failed = |error: String| Error::Data(format!("{}: {error}", path.display()));
    let image = image.ok_or_else(|| failed(format!("{} channels make no picture", shape.channels)))?;
    image.save(path).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_classes_are_found_and_keep_names_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str| folder.path().join(name);
        for class in ["squares", "discs", "empty"] {
            std::fs::create_dir(of(class)).unwrap();
        }
        assert!(files(&[of("")]).is_err());
        for file in ["squares/0.png", "discs/1.JPG", "discs/0.png", "discs/notes.txt", "z.webp"] {
            std::fs::write(of(file), "").unwrap();
        }
        let found = files(&[of("")]).unwrap();
        assert_eq!(found, ["discs/0.png", "discs/1.JPG", "squares/0.png", "z.webp"].map(of));
        let names = serde_json::to_string(&found).unwrap();
        let written = outputs(Some(&names), found.len(), Path::new("out"));
        assert_eq!(written, ["0", "1", "0-2", "z"].map(|stem| PathBuf::from(format!("out/{stem}.png"))));
    }
}
