//! From an image file to pixels.

use image::imageops::{self, FilterType};
use image::{ImageReader, RgbImage};
use rqlab_sdk::{Error, Result};
use std::fs;
use std::io::Cursor;
use std::path::Path;

/// Decodes a file to red, green and blue (grey is repeated, transparency dropped). The contents tell the format, the
/// name does not. With `size`, the shorter side is brought to it.
pub(crate) fn decode(path: &Path, size: Option<usize>) -> Result<RgbImage> {
    let bytes = fs::read(path).map_err(Error::file(path))?;
    let damaged = |message: String| Error::Data(format!("{}: the image is damaged: {message}", path.display()));
    let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format().map_err(|e| damaged(e.to_string()))?;
    if reader.format().is_none() {
        return Err(damaged(format!("its {} bytes are not JPEG, PNG or WebP", bytes.len())));
    }
    let image = reader.decode().map_err(|e| damaged(e.to_string()))?.into_rgb8();
    Ok(match size {
        Some(size) => scale(image, size as u32),
        None => image,
    })
}

fn scale(image: RgbImage, size: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    let short = width.min(height);
    if short == size {
        return image;
    }
    let scaled = |side: u32| ((u64::from(side) * u64::from(size) + u64::from(short) / 2) / u64::from(short)) as u32;
    imageops::resize(&image, scaled(width), scaled(height), FilterType::CatmullRom)
}

/// Writes the window of height and width `window` whose upper left corner lies at the fractions `at` (down, right) of
/// the room that it has, as numbers in [-1, 1], mirrored left to right with `flip`.
pub(crate) fn write(image: &RgbImage, window: [usize; 2], at: [f32; 2], flip: bool, out: &mut [f32]) {
    let (height, width) = (image.height() as usize, image.width() as usize);
    let offset = |room: usize, at: f32| ((room + 1) as f32 * at) as usize;
    let top = offset(height - window[0], at[0]).min(height - window[0]);
    let left = offset(width - window[1], at[1]).min(width - window[1]);
    let number = |byte: u8| f32::from(byte) / 127.5 - 1.0;
    for (y, out) in out.chunks_exact_mut(window[1] * 3).enumerate() {
        let start = ((top + y) * width + left) * 3;
        let row = &image.as_raw()[start..start + window[1] * 3];
        if flip {
            for (pixel, out) in row.chunks_exact(3).rev().zip(out.chunks_exact_mut(3)) {
                out.iter_mut().zip(pixel).for_each(|(out, &byte)| *out = number(byte));
            }
        } else {
            out.iter_mut().zip(row).for_each(|(out, &byte)| *out = number(byte));
        }
    }
}
