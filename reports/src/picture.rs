//! Pictures for the page: encoded into data addresses, within a budget of bytes.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::imageops::{FilterType, resize};
use image::{ExtendedColorType, ImageEncoder, RgbImage};

use crate::error::{Error, Result};
use crate::results::{CodeMap, Image};
use crate::viridis::viridis;

/// Longest side of a thumbnail in pixels; larger images are scaled down.
const LONGEST: u32 = 128;

/// Up to this side a picture is kept exactly, as PNG; beyond, JPEG takes a fifth of the bytes.
const EXACT: u32 = 64;

/// Encodes pictures until their budget is spent.
pub(crate) struct Album {
    left: usize,
    /// How many pictures were left out.
    pub(crate) left_out: usize,
}

impl Album {
    /// An album of at most this many bytes in the page.
    pub(crate) fn new(budget: usize) -> Self {
        Self { left: budget, left_out: 0 }
    }

    /// The picture as a `data:` address; `None` if the image is empty or the budget is spent.
    ///
    /// # Errors
    /// If the image's bytes do not fit its size.
    pub(crate) fn address(&mut self, image: &Image) -> Result<Option<String>> {
        if image.is_empty() {
            return Ok(None);
        }
        let (kind, bytes) = encode(image)?;
        let text = format!("data:image/{kind};base64,{}", STANDARD.encode(bytes));
        if text.len() > self.left {
            self.left_out += 1;
            return Ok(None);
        }
        self.left -= text.len();
        Ok(Some(text))
    }
}

fn encode(image: &Image) -> Result<(&'static str, Vec<u8>)> {
    let wanted = image.width as usize * image.height as usize * 3;
    let wrong = || Error::ImageSize { width: image.width, height: image.height, wanted, found: image.rgb.len() };
    let mut pixels = RgbImage::from_raw(image.width, image.height, image.rgb.clone()).ok_or_else(wrong)?;
    if image.rgb.len() != wanted {
        return Err(wrong());
    }
    let side = image.width.max(image.height);
    if side > LONGEST {
        let scaled = |length: u32| (length * LONGEST / side).max(1);
        pixels = resize(&pixels, scaled(image.width), scaled(image.height), FilterType::Triangle);
    }
    let (width, height) = pixels.dimensions();
    let mut bytes = Cursor::new(Vec::new());
    let exact = side <= EXACT;
    let written = if exact {
        PngEncoder::new(&mut bytes).write_image(&pixels, width, height, ExtendedColorType::Rgb8)
    } else {
        JpegEncoder::new_with_quality(&mut bytes, 85).write_image(&pixels, width, height, ExtendedColorType::Rgb8)
    };
    written.map_err(Error::Image)?;
    Ok((if exact { "png" } else { "jpeg" }, bytes.into_inner()))
}

/// Mean squared error of two images of one size, over bytes scaled to [-1, 1]; `None` if the sizes differ.
pub(crate) fn squared_error(a: &Image, b: &Image) -> Option<f64> {
    if a.is_empty() || (a.width, a.height) != (b.width, b.height) || a.rgb.len() != b.rgb.len() {
        return None;
    }
    let sum: f64 = a.rgb.iter().zip(&b.rgb).map(|(a, b)| ((f64::from(*a) - f64::from(*b)) / 127.5).powi(2)).sum();
    Some(sum / a.rgb.len() as f64)
}

/// Mean absolute error of each pixel, as a share of the full range.
pub(crate) fn errors(a: &Image, b: &Image) -> Option<Vec<f64>> {
    squared_error(a, b)?;
    let pixel = |(a, b): (&[u8], &[u8])| {
        a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / (255.0 * a.len() as f64)
    };
    Some(a.rgb.chunks(3).zip(b.rgb.chunks(3)).map(pixel).collect())
}

/// Errors as a picture in viridis, from 0 to `most`.
pub(crate) fn error_map(errors: &[f64], width: u32, height: u32, most: f64) -> Image {
    let most = if most > 0.0 { most } else { 1.0 };
    Image { width, height, rgb: errors.iter().flat_map(|error| viridis(error / most)).collect() }
}

/// The codes of one depth as a picture: equal colours are equal codes, and near colours mean nothing.
pub(crate) fn code_map(codes: &CodeMap, depth: usize) -> Image {
    let (width, height) = (codes.width as u32, codes.height as u32);
    let places = codes.codes.iter().skip(depth).step_by(codes.depth.max(1)).take(codes.width * codes.height);
    let rgb: Vec<u8> = places.flat_map(|&code| tint(code)).collect();
    if rgb.len() == codes.width * codes.height * 3 { Image { width, height, rgb } } else { Image::default() }
}

/// A colour for a code: hues a golden angle apart, in a few lightnesses, so that any two codes can be told apart.
fn tint(code: u32) -> [u8; 3] {
    let hue = (f64::from(code) * 0.618_033_988_75).fract() * 6.0;
    let light = 0.45 + 0.12 * f64::from(code / 7 % 4);
    let colourful = 0.36 * (1.0 - (2.0 * light - 1.0).abs());
    std::array::from_fn(|channel| {
        let turn = (hue + [0.0, 4.0, 2.0][channel]).rem_euclid(6.0);
        let ramp = ((turn - 3.0).abs() - 1.0).clamp(0.0, 1.0);
        ((light + colourful * (ramp - 0.5) * 2.0 * 0.8).clamp(0.0, 1.0) * 255.0).round() as u8
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn opposite_images_have_the_largest_error() {
        let black = Image::new(2, 1, vec![0; 6]).unwrap();
        let white = Image::new(2, 1, vec![255; 6]).unwrap();
        assert_eq!(squared_error(&black, &white), Some(4.0));
        assert_eq!(errors(&black, &white), Some(vec![1.0, 1.0]));
        assert_eq!(squared_error(&black, &Image::new(1, 1, vec![0; 3]).unwrap()), None);
    }

    #[test]
    fn a_code_map_shows_one_depth() {
        let codes = CodeMap { height: 1, width: 2, depth: 2, codes: vec![5, 9, 5, 3] };
        let (first, second) = (code_map(&codes, 0), code_map(&codes, 1));
        assert_eq!(first.rgb[..3], first.rgb[3..]);
        assert_ne!(second.rgb[..3], second.rgb[3..]);
    }

    #[test]
    fn an_album_stays_within_its_budget() {
        let image = Image::new(4, 4, vec![7; 48]).unwrap();
        let mut album = Album::new(200);
        let mut bytes = 0;
        while let Some(address) = album.address(&image).unwrap() {
            bytes += address.len();
        }
        assert!(bytes > 0 && bytes <= 200);
        assert_eq!(album.left_out, 1);
    }

    #[test]
    fn large_images_become_thumbnails() {
        let image = Image::new(512, 256, vec![90; 512 * 256 * 3]).unwrap();
        let address = Album::new(1 << 20).address(&image).unwrap().unwrap();
        let bytes = STANDARD.decode(address.split_once(',').unwrap().1).unwrap();
        let thumbnail = Image::decode(&bytes).unwrap();
        assert_eq!((thumbnail.width, thumbnail.height), (128, 64));
    }
}
