//! What a file says of its image, read without decoding it: format, size, orientation, colours; and whether the file ends before
//! its image does. Orders of bytes and places are those of the formats' specifications: ITU T.81 and Exif 2.3 (JPEG), PNG 3rd
//! edition, RFC 9649 (WebP), GIF89a, TIFF 6.0, Netpbm, and Microsoft's BITMAPINFOHEADER.

mod jpeg;

use crate::{Flaw, Source};
use image::ImageFormat;
use image::metadata::Orientation;
use jpeg::jpeg;
use std::io::{self, ErrorKind};
use std::path::Path;

/// The formats that can be read.
pub const FORMATS: &str = "JPEG, PNG, WebP, BMP, GIF, TIFF or PNM";

/// How names of files in these formats end.
const ENDINGS: [&str; 15] =
    ["jpg", "jpeg", "jpe", "jfif", "jif", "png", "webp", "bmp", "dib", "gif", "tif", "tiff", "ppm", "pgm", "pbm"];

/// Whether a file's name ends as those of images do, in any case. Its contents decide which format it has.
pub fn has_image_ending(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known))
}

/// What a file says of its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The format, by the file's first bytes.
    pub format: ImageFormat,
    /// Height and width as stored.
    pub stored: [u32; 2],
    /// What turns the stored image upright.
    pub orientation: Orientation,
    /// Whether it has shades of grey alone.
    pub grey: bool,
    /// Whether parts of it may be transparent.
    pub alpha: bool,
    /// Whether there are several pictures, of which the first counts.
    pub several: bool,
}

impl Header {
    /// Reads the header of an image file.
    ///
    /// # Errors
    /// An unknown format; a header that is damaged; a file that ends before its image.
    pub fn read(source: &mut impl Source) -> Result<Self, Flaw> {
        let mut start = [0; 16];
        let known = source.length().min(16) as usize;
        source.fill(0, &mut start[..known]).map_err(|e| Flaw::unreadable(&e))?;
        let unknown = || Flaw {
            reason: if source.length() == 0 { "empty" } else { "of no known format" },
            message: match source.length() {
                0 => "the file is empty".to_owned(),
                length => format!("the image is damaged: its {length} bytes are not {FORMATS}"),
            },
        };
        let format = image::guess_format(&start[..known]).map_err(|_| unknown())?;
        let mut header = Self {
            format,
            stored: [0, 0],
            orientation: Orientation::NoTransforms,
            grey: false,
            alpha: false,
            several: false,
        };
        match format {
            ImageFormat::Jpeg => jpeg(source, &mut header),
            ImageFormat::Png => png(source, &mut header),
            ImageFormat::WebP => webp(source, &mut header),
            ImageFormat::Gif => gif(source, &mut header),
            ImageFormat::Bmp => bmp(source, &mut header),
            ImageFormat::Tiff => tiff(source, &mut header),
            ImageFormat::Pnm => pnm(source, &mut header),
            _ => return Err(unknown()),
        }
        .map_err(|e| match e.kind() {
            ErrorKind::InvalidData => Flaw::damaged(e),
            _ => Flaw::unreadable(&e),
        })?;
        match header.stored {
            [0, _] | [_, 0] => Err(Flaw::damaged("its header gives no size")),
            _ => Ok(header),
        }
    }

    /// Height and width when it stands upright.
    pub fn size(&self) -> [usize; 2] {
        let [height, width] = self.stored.map(|side| side as usize);
        if self.lies_on_its_side() { [width, height] } else { [height, width] }
    }

    /// Whether turning it upright exchanges height and width.
    pub(crate) fn lies_on_its_side(&self) -> bool {
        use Orientation::*;
        matches!(self.orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
    }
}

fn invalid<T>(message: &str) -> io::Result<T> {
    Err(io::Error::new(ErrorKind::InvalidData, message))
}

/// The orientation that Exif data give, with or without their prefix.
fn orientation(exif: &[u8]) -> Orientation {
    let chunk = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Orientation::from_exif_chunk(chunk).unwrap_or(Orientation::NoTransforms)
}

/// Whether all colours of a palette of `N` bytes each are grey.
fn is_grey<const N: usize>(palette: &[u8]) -> bool {
    palette.chunks_exact(N).all(|colour| colour[0] == colour[1] && colour[1] == colour[2])
}

fn png(source: &mut impl Source, header: &mut Header) -> io::Result<()> {
    let (mut at, mut has_data, mut palette_is_grey) = (8, false, false);
    loop {
        let start: [u8; 8] = source.array(at)?;
        let length = u32::from_be_bytes([start[0], start[1], start[2], start[3]]);
        let after = at + 12 + u64::from(length);
        if after > source.length() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        match &start[4..] {
            b"IHDR" => {
                let [w3, w2, w1, w0, h3, h2, h1, h0, _, colours]: [u8; 10] = source.array(at + 8)?;
                header.stored = [u32::from_be_bytes([h3, h2, h1, h0]), u32::from_be_bytes([w3, w2, w1, w0])];
                header.grey = matches!(colours, 0 | 4);
                header.alpha = matches!(colours, 4 | 6);
                palette_is_grey = colours == 3;
            }
            b"PLTE" if palette_is_grey => header.grey = is_grey::<3>(&source.bytes(at + 8, length as usize)?),
            b"tRNS" => header.alpha = true,
            b"eXIf" => header.orientation = orientation(&source.bytes(at + 8, length as usize)?),
            b"acTL" => header.several = true,
            b"IDAT" => has_data = true,
            b"IEND" if has_data => return Ok(()),
            b"IEND" => return invalid("it has no image data"),
            _ => {}
        }
        at = after;
    }
}

fn webp(source: &mut impl Source, header: &mut Header) -> io::Result<()> {
    let end = u64::from(u32::from_le_bytes(source.array(4)?)) + 8;
    if end > source.length() {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let mut at = 12;
    // An extended header gives the canvas; without one, the picture's own size counts.
    let mut canvas = false;
    while at + 8 <= end {
        let start: [u8; 8] = source.array(at)?;
        let length = u32::from_le_bytes([start[4], start[5], start[6], start[7]]);
        match &start[..4] {
            b"VP8X" => {
                let [flags, _, _, _, w0, w1, w2, h0, h1, h2]: [u8; 10] = source.array(at + 8)?;
                header.stored = [u32::from_le_bytes([h0, h1, h2, 0]) + 1, u32::from_le_bytes([w0, w1, w2, 0]) + 1];
                header.alpha = flags & 0x10 != 0;
                header.several = flags & 0x02 != 0;
                canvas = true;
            }
            b"VP8 " if !canvas => {
                let frame: [u8; 10] = source.array(at + 8)?;
                let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
                header.stored = [side(frame[8], frame[9]), side(frame[6], frame[7])];
            }
            b"VP8L" if !canvas => {
                let [_, bits @ ..]: [u8; 5] = source.array(at + 8)?;
                let bits = u32::from_le_bytes(bits);
                header.stored = [((bits >> 14) & 0x3fff) + 1, (bits & 0x3fff) + 1];
                header.alpha = bits >> 28 & 1 == 1;
            }
            b"EXIF" => header.orientation = orientation(&source.bytes(at + 8, length as usize)?),
            _ => {}
        }
        at += 8 + u64::from(length) + u64::from(length % 2);
    }
    Ok(())
}

fn gif(source: &mut impl Source, header: &mut Header) -> io::Result<()> {
    let [w0, w1, h0, h1, flags]: [u8; 5] = source.array(6)?;
    header.stored = [u16::from_le_bytes([h0, h1]).into(), u16::from_le_bytes([w0, w1]).into()];
    let palette = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    header.grey = flags & 0x80 != 0 && is_grey::<3>(&source.bytes(13, palette(flags))?);
    let mut at = 13 + palette(flags) as u64;
    let mut pictures = 0;
    loop {
        let block = source.array(at);
        // What comes after the first picture is not needed.
        if pictures == 1 && !matches!(block, Ok([0x2c | 0x21])) {
            return Ok(());
        }
        match block? {
            // A picture, perhaps with a palette of its own.
            [0x2c] => {
                pictures += 1;
                if pictures == 2 {
                    header.several = true;
                    return Ok(());
                }
                let [.., flags]: [u8; 10] = source.array(at)?;
                if flags & 0x80 != 0 {
                    header.grey = is_grey::<3>(&source.bytes(at + 10, palette(flags))?);
                }
                at = skip_blocks(source, at + 11 + palette(flags) as u64)?;
            }
            // Graphic control, which says whether a colour is transparent.
            [0x21] => {
                let [_, label, _, flags]: [u8; 4] = source.array(at)?;
                header.alpha |= label == 0xf9 && flags & 1 == 1;
                at = skip_blocks(source, at + 2)?;
            }
            _ => return invalid("a block of unknown kind"),
        }
    }
}

/// The place after the blocks that begin at `at`, each a length and so many bytes, up to one of none.
fn skip_blocks(source: &mut impl Source, mut at: u64) -> io::Result<u64> {
    loop {
        match source.array(at)? {
            [0] => return Ok(at + 1),
            [length] => at += 1 + u64::from(length),
        }
    }
}

fn bmp(source: &mut impl Source, header: &mut Header) -> io::Result<()> {
    let offset = u32::from_le_bytes(source.array(10)?);
    let size = u32::from_le_bytes(source.array(14)?);
    let (height, width, depth, packed, colour) = if size == 12 {
        let [w0, w1, h0, h1, _, _, depth, _]: [u8; 8] = source.array(18)?;
        (u32::from(u16::from_le_bytes([h0, h1])), u32::from(u16::from_le_bytes([w0, w1])), depth, false, 3)
    } else {
        let fields: [u8; 16] = source.array(18)?;
        let word = |i: usize| i32::from_le_bytes([fields[i], fields[i + 1], fields[i + 2], fields[i + 3]]);
        (word(4).unsigned_abs(), word(0).unsigned_abs(), fields[10], word(12) != 0, 4)
    };
    header.stored = [height, width];
    if depth <= 8 {
        let palette = u64::from(offset).saturating_sub(14 + u64::from(size)).min(colour << depth);
        let palette = source.bytes(14 + u64::from(size), palette as usize)?;
        header.grey = if colour == 3 { is_grey::<3>(&palette) } else { is_grey::<4>(&palette) };
    }
    // The mask of alpha, which later headers have.
    header.alpha = size >= 56 && depth == 32 && source.array(66)? != [0; 4];
    let row = (u64::from(width) * u64::from(depth)).div_ceil(32) * 4;
    // The last row may lack its padding.
    let least = u64::from(offset) + (row * u64::from(height)).saturating_sub(3);
    if !packed && least > source.length() { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

fn tiff(source: &mut impl Source, header: &mut Header) -> io::Result<()> {
    let order: [u8; 2] = source.array(0)?;
    let little = order == *b"II";
    let short = |b: [u8; 2]| if little { u16::from_le_bytes(b) } else { u16::from_be_bytes(b) };
    let long = |b: [u8; 4]| if little { u32::from_le_bytes(b) } else { u32::from_be_bytes(b) };
    let directory = u64::from(long(source.array(4)?));
    let entries = short(source.array(directory)?);
    let (mut offsets, mut lengths) = (Vec::new(), Vec::new());
    for n in 0..u64::from(entries) {
        let entry = directory + 2 + 12 * n;
        let [t0, t1, k0, k1, c0, c1, c2, c3]: [u8; 8] = source.array(entry)?;
        let (tag, kind, count) = (short([t0, t1]), short([k0, k1]), u64::from(long([c0, c1, c2, c3])));
        let width = if kind == 3 { 2 } else { 4 };
        if !matches!(tag, 256 | 257 | 262 | 273 | 274 | 277 | 279) || !matches!(kind, 3 | 4) {
            continue;
        }
        let place = if count * width <= 4 { entry + 8 } else { u64::from(long(source.array(entry + 8)?)) };
        let mut values = Vec::new();
        for n in 0..count {
            let at = place + n * width;
            values.push(if width == 2 { u32::from(short(source.array(at)?)) } else { long(source.array(at)?) });
        }
        let value = values.first().copied().unwrap_or(0);
        match tag {
            256 => header.stored[1] = value,
            257 => header.stored[0] = value,
            // White or black is zero.
            262 => header.grey = value <= 1,
            273 => offsets = values,
            274 => header.orientation = Orientation::from_exif(value.min(255) as u8).unwrap_or(header.orientation),
            // Beside grey, or red, green and blue, there is alpha.
            277 => header.alpha = matches!(value, 2 | 4),
            279 => lengths = values,
            _ => {}
        }
    }
    header.several = long(source.array(directory + 2 + 12 * u64::from(entries))?) != 0;
    let end = offsets.iter().zip(&lengths).map(|(&offset, &length)| u64::from(offset) + u64::from(length)).max();
    if end > Some(source.length()) { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

fn pnm(source: &mut impl Source, header: &mut Header) -> io::Result<()> {
    const LONGEST: u64 = 4096;
    let text = source.bytes(0, source.length().min(LONGEST) as usize)?;
    let mut words = Words { text: &text, at: 2 };
    let kind = text[1];
    let (mut depth, mut most) = (if matches!(kind, b'3' | b'6') { 3 } else { 1 }, 1);
    if kind == b'7' {
        loop {
            match words.next()? {
                b"ENDHDR" => break,
                b"WIDTH" => header.stored[1] = words.number()?,
                b"HEIGHT" => header.stored[0] = words.number()?,
                b"DEPTH" => depth = words.number()?,
                b"MAXVAL" => most = words.number()?,
                _ => {}
            }
        }
    } else {
        header.stored[1] = words.number()?;
        header.stored[0] = words.number()?;
        // Bit maps have no greatest value.
        if !matches!(kind, b'1' | b'4') {
            most = words.number()?;
        }
    }
    header.grey = depth <= 2;
    header.alpha = matches!(depth, 2 | 4);
    let [height, width] = header.stored.map(u64::from);
    let samples = height * width * u64::from(depth) * if most > 255 { 2 } else { 1 };
    let data = match kind {
        b'4' => width.div_ceil(8) * height,
        b'5'..=b'7' => samples,
        _ => 0,
    };
    if words.at as u64 + 1 + data > source.length() && data > 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

/// The words of a Netpbm header, between white space and comments.
struct Words<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> io::Result<&'a [u8]> {
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            match rest.first() {
                None => return Err(ErrorKind::UnexpectedEof.into()),
                Some(b'#') => self.at += rest.iter().take_while(|&&byte| byte != b'\n').count(),
                Some(byte) if byte.is_ascii_whitespace() => self.at += 1,
                Some(_) => {
                    let length = rest.iter().take_while(|byte| !byte.is_ascii_whitespace()).count();
                    self.at += length;
                    return Ok(&rest[..length]);
                }
            }
        }
    }

    fn number(&mut self) -> io::Result<u32> {
        let word = String::from_utf8_lossy(self.next()?);
        word.parse().or_else(|_| invalid("its header has no number where one belongs"))
    }
}
