//! Tensors as pictures, and classes by name.

use crate::ui::in_line;
use rqlab_reports::Image;
use rqlab_sdk::tensor::Tensor;
use rqlab_sdk::{Error, Result};

/// A class by its name; a name that is a number gets a word before it. Empty where the data set has no classes.
pub(crate) fn class(classes: &[String], index: u32) -> String {
    match classes.get(index as usize) {
        _ if classes.is_empty() => String::new(),
        Some(name) if name.parse::<f64>().is_err() => in_line(name).into_owned(),
        Some(number) => format!("class {number}"),
        None => format!("class number {index}"),
    }
}

/// Image `n` of a batch `[N, H, W, C]` in [-1, 1], as 8-bit RGB (grey is spread over the channels).
///
/// # Errors
/// A batch that is no batch of images.
pub(crate) fn image(batch: &Tensor, n: usize) -> Result<Image> {
    let [_, height, width, channels] = batch.dims::<4>("picture")?;
    let size = height * width * channels;
    let pixels = &batch.as_slice()[n * size..(n + 1) * size];
    let byte = |x: f32| ((x.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8;
    let rgb = pixels
        .chunks(channels.max(1))
        .flat_map(|pixel| [0, 1, 2].map(|c| byte(pixel[if channels >= 3 { c } else { 0 }])))
        .collect();
    Image::new(width as u32, height as u32, rgb).map_err(|e| Error::Data(format!("picture: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_goes_by_its_name_not_by_its_place() {
        let classes = ["1", "10", "cat"].map(str::to_owned);
        assert_eq!([0, 1, 2, 3].map(|index| class(&classes, index)), ["class 1", "class 10", "cat", "class number 3"]);
        assert_eq!(class(&["two\nlines".to_owned()], 0), "two\\u{a}lines");
        assert_eq!(class(&[], 0), "");
    }
}
