//! From the bytes of a file to pixels as they are stored; then upright, composited, and cut.

use crate::{Flaw, Header};
use image::metadata::Orientation;
use image::{ColorType, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::io::Cursor;
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

/// Pixels as a file stores them, of one byte per channel: grey, grey and alpha, red green blue, or these and alpha.
pub(crate) struct Raster {
    height: usize,
    width: usize,
    channels: usize,
    bytes: Vec<u8>,
}

/// A window of an upright image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) top: usize,
    pub(crate) left: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Raster {
    /// Decodes a file whose header is `header`.
    pub(crate) fn decode(bytes: &[u8], header: &Header) -> Result<Self, Flaw> {
        let raster = match header.format {
            ImageFormat::Jpeg => jpeg(bytes)?,
            format => other(bytes, format, header.stored)?,
        };
        same_size(header.stored, [raster.height, raster.width])?;
        Ok(raster)
    }

    /// A window of the image, turned upright, of 1 channel (grey) or 3 (red, green, blue), with what is transparent composited
    /// on `background`.
    pub(crate) fn upright(
        self,
        orientation: Orientation,
        window: Window,
        channels: usize,
        background: [u8; 3],
    ) -> Vec<u8> {
        let Self { height, width, channels: stored, bytes } = self;
        let whole = Window { top: 0, left: 0, height, width };
        if orientation == Orientation::NoTransforms && window == whole && channels == stored {
            return bytes;
        }
        let mut out = Vec::with_capacity(window.height * window.width * channels);
        if orientation == Orientation::NoTransforms && channels == stored {
            for row in bytes.chunks_exact(width * channels).skip(window.top).take(window.height) {
                out.extend_from_slice(&row[window.left * channels..(window.left + window.width) * channels]);
            }
            return out;
        }
        let Steps { start, down, right } = Steps::of(orientation, height as isize, width as isize);
        let ground = if channels == 1 { [luma(background); 3] } else { background };
        for y in window.top..window.top + window.height {
            for x in window.left..window.left + window.width {
                let pixel = (start + y as isize * down + x as isize * right) as usize * stored;
                let pixel = &bytes[pixel..pixel + stored];
                let colour = match stored {
                    1 | 2 => [pixel[0]; 3],
                    _ => [pixel[0], pixel[1], pixel[2]],
                };
                let colour = if channels == 1 && stored > 2 { [luma(colour); 3] } else { colour };
                let alpha = if stored % 2 == 0 { pixel[stored - 1] } else { 255 };
                for c in 0..channels {
                    out.push(over(colour[c], alpha, ground[c]));
                }
            }
        }
        out
    }
}

/// Memory was bounded by the size that the header gives.
fn same_size(header: [u32; 2], found: [usize; 2]) -> Result<(), Flaw> {
    let [height, width] = header.map(|side| side as usize);
    if found == [height, width] {
        return Ok(());
    }
    let [h, w] = found;
    Err(Flaw::damaged(format!("its header says {height} x {width} pixels, and it has {h} x {w}")))
}

/// A colour over another one.
fn over(colour: u8, alpha: u8, ground: u8) -> u8 {
    let [colour, alpha, ground] = [colour, alpha, ground].map(u32::from);
    ((colour * alpha + ground * (255 - alpha) + 127) / 255) as u8
}

/// The luma of ITU-R BT.601, in the fixed point of Pillow's `convert("L")`.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16) as u8
}

/// Where the pixels of the upright image lie in the stored one: the first, and the steps to the next one down and right.
struct Steps {
    start: isize,
    down: isize,
    right: isize,
}

impl Steps {
    fn of(orientation: Orientation, height: isize, width: isize) -> Self {
        let last = height * width - 1;
        let (start, down, right) = match orientation {
            Orientation::NoTransforms => (0, width, 1),
            Orientation::FlipHorizontal => (width - 1, width, -1),
            Orientation::Rotate180 => (last, -width, -1),
            Orientation::FlipVertical => (last - (width - 1), -width, 1),
            Orientation::Rotate90FlipH => (0, 1, width),
            Orientation::Rotate90 => (last - (width - 1), 1, -width),
            Orientation::Rotate270FlipH => (last, -1, -width),
            Orientation::Rotate270 => (width - 1, -1, width),
        };
        Self { start, down, right }
    }
}

fn jpeg(bytes: &[u8]) -> Result<Raster, Flaw> {
    let damaged = |e: zune_jpeg::errors::DecodeErrors| Flaw::damaged(e);
    let options = DecoderOptions::default().set_strict_mode(false).set_max_width(usize::MAX).set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let (space, channels) = if grey { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let bytes = decoder.decode().map_err(damaged)?;
    let (width, height) = decoder.dimensions().ok_or_else(|| Flaw::damaged("it has no size"))?;
    if bytes.len() != height * width * channels {
        return Err(Flaw::damaged("it has fewer pixels than its header says"));
    }
    Ok(Raster { height, width, channels, bytes })
}

fn other(bytes: &[u8], format: ImageFormat, stored: [u32; 2]) -> Result<Raster, Flaw> {
    /// The widest pixel has four channels of four bytes; decoders hold it once more.
    const BYTES_PER_PIXEL: u64 = 32;
    const BESIDES: u64 = 64 << 20;
    let damaged = |e: image::ImageError| Flaw::damaged(e);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(u64::from(stored[0]) * u64::from(stored[1]) * BYTES_PER_PIXEL + BESIDES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    same_size(stored, [height as usize, width as usize])?;
    let colours = decoder.color_type();
    let size = usize::try_from(decoder.total_bytes()).map_err(Flaw::damaged)?;
    let mut bytes = vec![0; size];
    decoder.read_image(&mut bytes).map_err(damaged)?;
    let channels = match colours {
        ColorType::L8 | ColorType::L16 => 1,
        ColorType::La8 | ColorType::La16 => 2,
        ColorType::Rgb8 | ColorType::Rgb16 | ColorType::Rgb32F => 3,
        ColorType::Rgba8 | ColorType::Rgba16 | ColorType::Rgba32F => 4,
        unknown => return Err(Flaw::damaged(format!("its colours are {unknown:?}, which is not supported"))),
    };
    match usize::from(colours.bytes_per_pixel()) / channels {
        1 => {}
        2 => narrow::<2>(&mut bytes, |word| ((u32::from(u16::from_ne_bytes(word)) + 128) / 257) as u8),
        _ => narrow::<4>(&mut bytes, |word| (f32::from_ne_bytes(word) * 255.0).round() as u8),
    }
    Ok(Raster { height: height as usize, width: width as usize, channels, bytes })
}

/// Brings channels of `N` bytes to one byte each, in place.
fn narrow<const N: usize>(bytes: &mut Vec<u8>, byte: impl Fn([u8; N]) -> u8) {
    let count = bytes.len() / N;
    for i in 0..count {
        let mut word = [0; N];
        word.copy_from_slice(&bytes[i * N..(i + 1) * N]);
        bytes[i] = byte(word);
    }
    bytes.truncate(count);
    bytes.shrink_to_fit();
}
