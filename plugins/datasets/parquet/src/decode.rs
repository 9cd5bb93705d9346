//! From the bytes of an image file to pixels.

use image::imageops::{self, FilterType};
use image::{ImageReader, RgbImage};
use std::io::Cursor;

/// Decodes JPEG, PNG or WebP to red, green and blue (grey is repeated, transparency dropped). With `size`, the shorter
/// side is brought to it and the middle square kept.
pub(crate) fn decode(bytes: &[u8], size: Option<usize>) -> Result<RgbImage, String> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    if reader.format().is_none() {
        return Err(format!("its {} bytes are not JPEG, PNG or WebP", bytes.len()));
    }
    let image = reader.decode().map_err(|e| e.to_string())?.into_rgb8();
    Ok(match size {
        Some(size) => square(image, size as u32),
        None => image,
    })
}

fn square(image: RgbImage, size: u32) -> RgbImage {
    let (width, height) = image.dimensions();
    if (width, height) == (size, size) {
        return image;
    }
    let scaled = |side: u32| {
        let short = u64::from(width.min(height));
        ((u64::from(side) * u64::from(size) + short / 2) / short) as u32
    };
    let (width, height) = (scaled(width), scaled(height));
    let image = imageops::resize(&image, width, height, FilterType::CatmullRom);
    imageops::crop_imm(&image, (width - size) / 2, (height - size) / 2, size, size).to_image()
}

/// Writes pixels as numbers in [-1, 1], mirrored left to right with `flip`, to `out`, which they fill.
pub(crate) fn write(image: &RgbImage, flip: bool, out: &mut [f32]) {
    let width = image.width() as usize * 3;
    let number = |byte: u8| f32::from(byte) / 127.5 - 1.0;
    for (row, out) in image.as_raw().chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        if flip {
            for (pixel, out) in row.chunks_exact(3).rev().zip(out.chunks_exact_mut(3)) {
                out.iter_mut().zip(pixel).for_each(|(out, &byte)| *out = number(byte));
            }
        } else {
            out.iter_mut().zip(row).for_each(|(out, &byte)| *out = number(byte));
        }
    }
}
