//! Files of every format, written here: what their headers say, and which pixels they give.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::metadata::Orientation;
use image::{
    DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, ImageEncoder, ImageFormat, Luma, LumaA, Rgb, RgbImage, Rgba,
    RgbaImage,
};
use rqlab_images::{Crop, FileSource, Flaw, Header, Preparation, Size};
use std::fs;
use std::io::Cursor;
use std::path::Path;

const AS_IT_IS: Preparation =
    Preparation { size: None, channels: 3, background: [255, 255, 255], crop: Crop::Center, max_megapixels: 100 };

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Every pixel another colour.
fn colours(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 9) as u8, (y * 11) as u8, (x * y) as u8]))
}

fn header(bytes: &[u8]) -> Header {
    Header::read(&mut &*bytes).unwrap()
}

fn flaw(bytes: &[u8]) -> Flaw {
    Header::read(&mut &*bytes).unwrap_err()
}

const ALL: [ImageFormat; 7] = [
    ImageFormat::Jpeg,
    ImageFormat::Png,
    ImageFormat::WebP,
    ImageFormat::Bmp,
    ImageFormat::Gif,
    ImageFormat::Tiff,
    ImageFormat::Pnm,
];

#[test]
fn every_format_is_read_and_its_header_tells_its_size() {
    for format in ALL {
        let bytes = encode(colours(12, 7), format);
        let header = header(&bytes);
        assert_eq!((header.format, header.size()), (format, [7, 12]));
        assert!(!header.grey && !header.several && header.orientation == Orientation::NoTransforms, "{header:?}");
        let picture = AS_IT_IS.picture(&bytes, None).unwrap();
        assert_eq!((picture.size, picture.bytes.len()), ([7, 12], 7 * 12 * 3));
        let lossless = matches!(format, ImageFormat::Png | ImageFormat::WebP | ImageFormat::Bmp | ImageFormat::Tiff);
        if lossless || format == ImageFormat::Pnm {
            assert_eq!(picture.bytes, colours(12, 7).into_raw(), "{format:?}");
        }
    }
}

#[test]
fn a_file_on_disk_is_read_as_one_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    for format in ALL {
        let bytes = encode(colours(200, 170), format);
        let path = dir.path().join("image");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(Header::read(&mut FileSource::open(&path).unwrap()).unwrap(), header(&bytes));
    }
}

#[test]
fn a_file_that_ends_too_soon_is_damaged() {
    for format in ALL {
        let whole = encode(colours(90, 70), format);
        for length in [20, whole.len() / 2, whole.len() - 5] {
            let flaw = flaw(&whole[..length]);
            assert_eq!(flaw.reason, "damaged", "{format:?} of {length}: {flaw:?}");
            assert!(AS_IT_IS.picture(&whole[..length], None).is_err());
        }
    }
    assert_eq!(flaw(b"").message, "the file is empty");
    assert!(flaw(b"hello").message.contains("its 5 bytes are not JPEG, PNG"));
}

#[test]
fn shades_of_grey_are_known_by_the_header() {
    let grey = GrayImage::from_fn(9, 8, |x, y| Luma([(x * y * 3) as u8]));
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Pnm] {
        let bytes = encode(grey.clone(), format);
        assert!(header(&bytes).grey, "{format:?}");
        let one = Preparation { channels: 1, ..AS_IT_IS }.picture(&bytes, None).unwrap().bytes;
        let three = AS_IT_IS.picture(&bytes, None).unwrap().bytes;
        assert_eq!(one.iter().flat_map(|&g| [g; 3]).collect::<Vec<_>>(), three);
        if format != ImageFormat::Jpeg {
            assert_eq!(one, grey.as_raw().as_slice());
        }
    }
    // 16 bits: 257 times the value of 8.
    let deep = ImageBuffer::from_fn(9, 8, |x, y| Luma([(x * y * 3) as u16 * 257]));
    let bytes = encode(DynamicImage::ImageLuma16(deep), ImageFormat::Png);
    assert!(header(&bytes).grey);
    assert_eq!(Preparation { channels: 1, ..AS_IT_IS }.picture(&bytes, None).unwrap().bytes, grey.into_raw());
    // Red, green and blue made grey: 0.299 R + 0.587 G + 0.114 B.
    let bytes = encode(RgbImage::from_pixel(2, 2, Rgb([200, 100, 50])), ImageFormat::Png);
    assert_eq!(Preparation { channels: 1, ..AS_IT_IS }.picture(&bytes, None).unwrap().bytes, [124; 4]);
}

#[test]
fn what_is_transparent_shows_the_background_and_not_the_hidden_colour() {
    let image = RgbaImage::from_fn(3, 1, |x, _| Rgba([200, 40, 7, [0, 255, 51][x as usize]]));
    let blue = Preparation { background: [0, 0, 100], ..AS_IT_IS };
    // A fifth of the colour, four fifths of the ground.
    let right = [0, 0, 100, 200, 40, 7, 40, 8, 81];
    for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Tiff] {
        let bytes = encode(image.clone(), format);
        assert!(header(&bytes).alpha, "{format:?}");
        assert_eq!(blue.picture(&bytes, None).unwrap().bytes, right, "{format:?}");
    }
    let deep = ImageBuffer::from_fn(3, 1, |x, _| Rgba([200, 40, 7, [0, 255, 51][x as usize]].map(|c| c * 257)));
    let bytes = encode(DynamicImage::ImageRgba16(deep), ImageFormat::Png);
    assert_eq!(blue.picture(&bytes, None).unwrap().bytes, right);
    let grey = GrayAlphaImage::from_fn(2, 1, |x, _| LumaA([90, if x == 0 { 0 } else { 255 }]));
    let bytes = encode(grey, ImageFormat::Png);
    assert!(header(&bytes).alpha && header(&bytes).grey);
    assert_eq!(blue.picture(&bytes, None).unwrap().bytes, [0, 0, 100, 90, 90, 90]);
    // A palette with a transparent colour.
    let gif = encode(RgbaImage::from_fn(2, 1, |x, _| Rgba([200, 40, 7, 255 * x as u8])), ImageFormat::Gif);
    assert!(header(&gif).alpha);
    assert_eq!(blue.picture(&gif, None).unwrap().bytes, [0, 0, 100, 200, 40, 7]);
}

/// Exif data of one entry: the orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let mut bytes = b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    bytes.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

/// A TIFF file of 2 rows of 3 grey pixels with an orientation.
fn tiff(orientation: u8) -> Vec<u8> {
    let entries: [(u16, u32); 9] = [
        (256, 3),
        (257, 2),
        (258, 8),
        (259, 1),
        (262, 1),
        (273, 8 + 2 + 9 * 12 + 4),
        (274, orientation.into()),
        (278, 2),
        (279, 6),
    ];
    let mut bytes = b"II\x2a\0\x08\0\0\0\x09\0".to_vec();
    for (tag, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend([4, 0, 1, 0, 0, 0]);
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend([10, 20, 30, 40, 50, 60]);
    bytes
}

#[test]
fn images_stand_upright() {
    let stored = colours(6, 4);
    for tag in 1..=8 {
        let mut upright = DynamicImage::from(stored.clone());
        upright.apply_orientation(Orientation::from_exif(tag).unwrap());
        let size = [upright.height() as usize, upright.width() as usize];

        let mut png = Vec::new();
        let mut encoder = PngEncoder::new(&mut png);
        encoder.set_exif_metadata(exif(tag)).unwrap();
        encoder.write_image(&stored, 6, 4, image::ExtendedColorType::Rgb8).unwrap();
        let mut webp = Vec::new();
        let mut encoder = WebPEncoder::new_lossless(&mut webp);
        encoder.set_exif_metadata(exif(tag)).unwrap();
        encoder.write_image(&stored, 6, 4, image::ExtendedColorType::Rgb8).unwrap();
        for bytes in [png, webp] {
            assert_eq!(header(&bytes).size(), size);
            let picture = AS_IT_IS.picture(&bytes, None).unwrap();
            assert_eq!((picture.size, picture.bytes), (size, upright.to_rgb8().into_raw()), "{tag}");
        }

        let mut jpeg = Vec::new();
        let mut encoder = JpegEncoder::new(&mut jpeg);
        encoder.set_exif_metadata(exif(tag)).unwrap();
        encoder.encode_image(&RgbImage::from_fn(32, 16, |x, _| Rgb([if x < 16 { 250 } else { 5 }; 3]))).unwrap();
        assert_eq!(header(&jpeg).size(), if tag < 5 { [16, 32] } else { [32, 16] });
        let first = AS_IT_IS.picture(&jpeg, None).unwrap().bytes[0];
        assert_eq!(first > 128, matches!(tag, 1 | 4 | 5 | 6), "{tag}: {first}");

        let grey = GrayImage::from_raw(3, 2, vec![10, 20, 30, 40, 50, 60]).unwrap();
        let mut upright = DynamicImage::from(grey);
        upright.apply_orientation(Orientation::from_exif(tag).unwrap());
        let picture = Preparation { channels: 1, ..AS_IT_IS }.picture(&tiff(tag), None).unwrap();
        assert_eq!(picture.bytes, upright.to_luma8().into_raw(), "{tag}");
    }
}

fn to(height: usize, width: usize) -> Preparation {
    Preparation { size: Some(Size { height, width }), ..AS_IT_IS }
}

/// The whole of it would be scaled to 512 x 30 million pixels.
#[test]
fn of_a_thin_image_the_middle_is_cut_before_it_is_scaled() {
    for (width, height) in [(60_000, 1), (1, 60_000), (3, 40_000)] {
        let bytes = encode(GrayImage::from_pixel(width, height, Luma([77])), ImageFormat::Png);
        for crop in [Crop::Center, Crop::Random] {
            let picture = Preparation { crop, ..to(512, 512) }.picture(&bytes, Some([0.9, 0.1])).unwrap();
            assert_eq!((picture.size, picture.bytes), ([512, 512], vec![77; 512 * 512 * 3]));
        }
    }
}

#[test]
fn the_window_has_the_shape_that_is_asked_for() {
    // Columns of one colour each, so that a pixel tells where it comes from.
    let columns = encode(RgbImage::from_fn(48, 16, |x, _| Rgb([x as u8 * 5, 0, 0])), ImageFormat::Png);
    let picture = to(16, 16).picture(&columns, None).unwrap();
    assert_eq!(
        picture.bytes.iter().step_by(3).take(16).copied().collect::<Vec<_>>(),
        (16..32).map(|x| x * 5).collect::<Vec<u8>>()
    );
    let picture = to(16, 24).picture(&columns, None).unwrap();
    assert_eq!((picture.size, picture.bytes[0]), ([16, 24], 12 * 5));
    let picture = to(8, 24).picture(&columns, None).unwrap();
    assert_eq!((picture.size, picture.bytes.len()), ([8, 24], 8 * 24 * 3));
    // Twice as high as wide: a third of the columns, from the middle.
    let picture = to(32, 16).picture(&columns, None).unwrap();
    assert_eq!(picture.size, [32, 16]);
    assert!(picture.bytes[0].abs_diff(20 * 5) <= 4, "{}", picture.bytes[0]);
}

#[test]
fn too_large_an_image_is_told_by_its_limit() {
    let bytes = encode(GrayImage::from_pixel(1500, 1000, Luma([9])), ImageFormat::Png);
    let flaw = Preparation { max_megapixels: 1, ..AS_IT_IS }.picture(&bytes, None).unwrap_err();
    assert_eq!(flaw.reason, "too large");
    assert!(flaw.message.contains("1000 x 1500 pixels") && flaw.message.contains("`max_megapixels`"), "{flaw}");
    assert!(Preparation { max_megapixels: 2, ..AS_IT_IS }.picture(&bytes, None).is_ok());
}

#[test]
fn names_of_images_end_in_any_case() {
    for name in ["a.JPG", "a.jfif", "b.x.TIF", "c.webp", "d.bmp", "e.Gif", "f.ppm"] {
        assert!(rqlab_images::has_image_ending(Path::new(name)), "{name}");
    }
    for name in ["png", "a.svg", "a.jpg.txt", "Thumbs.db"] {
        assert!(!rqlab_images::has_image_ending(Path::new(name)), "{name}");
    }
}
