//! What a tokenizer does to each test image, and which images these are: intervals that hold for other images need the former, and
//! two trials compare only where the latter is the same.

use rqlab_reports::Trial;
use rqlab_sdk::Result;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::tensor::{Codes, Tensor};

/// The measures that are kept of each image.
const MEASURES: [&str; 4] = ["mse", "l1", "psnr", "ssim"];
/// The name of the images' digest among a result's codes, and among a trial's parts.
const IMAGES: &str = "test images";

/// Distortions of test images, 16 bytes for each, and a digest of their pixels.
pub(super) struct PerImage {
    values: [Vec<f32>; MEASURES.len()],
    pixels: blake3::Hasher,
}

impl PerImage {
    /// No image yet.
    pub(super) fn new() -> Self {
        Self { values: Default::default(), pixels: blake3::Hasher::new() }
    }

    /// Takes in the pixels of a batch of test images.
    pub(super) fn see(&mut self, images: &Tensor) {
        for pixel in images.as_slice() {
            self.pixels.update(&pixel.to_le_bytes());
        }
    }

    /// Adds the value of one of the measures for the next image.
    pub(super) fn add(&mut self, measure: &str, value: f64) {
        if let Some(place) = MEASURES.iter().position(|known| *known == measure) {
            self.values[place].push(value as f32);
        }
    }

    /// Puts them into a result. A measure that some image does not have is left out.
    ///
    /// # Errors
    /// None in practice: the lists have shapes.
    pub(super) fn keep(&self, result: &mut Checkpoint) -> Result<()> {
        let images = self.values[0].len();
        for (measure, values) in MEASURES.iter().zip(&self.values).filter(|(_, values)| values.len() == images) {
            result.tensors.insert(format!("per_image_{measure}"), Tensor::from_vec(values.clone(), &[images])?);
        }
        let words =
            self.pixels.finalize().as_bytes().chunks(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        result.codes.insert(IMAGES.to_owned(), Codes::from_vec(words, &[8])?);
        Ok(())
    }

    /// Hands what a result holds of them to a report.
    pub(super) fn report(kept: &Checkpoint, out: &mut Trial) {
        for measure in MEASURES {
            if let Some(values) = kept.tensors.get(&format!("per_image_{measure}")) {
                out.per_image
                    .insert(measure.to_owned(), values.as_slice().iter().map(|&value| f64::from(value)).collect());
            }
        }
        if let Some(words) = kept.codes.get(IMAGES) {
            let digest = words.as_slice().iter().map(|word| format!("{:08x}", word.swap_bytes())).collect();
            out.parts.insert(IMAGES.to_owned(), digest);
        }
    }
}
