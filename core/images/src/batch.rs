//! From decoded pictures to a batch of numbers.

use crate::Picture;
use rqlab_sdk::tensor::Rng;

/// What is drawn for the images of a batch, each by its position: whether it is mirrored, and which window is used.
#[derive(Debug, Clone)]
pub struct Draws {
    flips: Vec<u32>,
    corners: Vec<f32>,
}

impl Draws {
    /// Draws for `count` images; without a stream, nothing is mirrored and the middle is used.
    pub fn new(augment: Option<&Rng>, flip: bool, random_crop: bool, count: usize) -> Self {
        Self {
            flips: augment.filter(|_| flip).map_or(vec![], |rng| rng.part("flip", 0).bits(count)),
            corners: augment.filter(|_| random_crop).map_or(vec![], |rng| rng.part("crop", 0).uniform(2 * count)),
        }
    }

    /// Whether the image at `position` is mirrored.
    pub fn flip(&self, position: usize) -> bool {
        self.flips.get(position).is_some_and(|bits| bits >> 31 == 1)
    }

    /// Which window of the image at `position` is used, as fractions of the room that it has; `None` is the middle.
    pub fn at(&self, position: usize) -> Option<[f32; 2]> {
        self.corners.get(2 * position..2 * position + 2).map(|at| [at[0], at[1]])
    }
}

/// Writes a window of size `window` of a picture as numbers in [-1, 1] to `out`, which it fills; mirrored left to right with
/// `flip`. Of a picture that is larger, `at` says which (see [`Draws::at`]).
pub fn write(picture: &Picture, window: [usize; 2], at: Option<[f32; 2]>, flip: bool, out: &mut [f32]) {
    let channels = out.len() / (window[0] * window[1]);
    let [top, left] = picture.corner(window, at);
    let number = |byte: u8| f32::from(byte) / 127.5 - 1.0;
    for (y, out) in out.chunks_exact_mut(window[1] * channels).enumerate() {
        let start = ((top + y) * picture.size[1] + left) * channels;
        let row = &picture.bytes[start..start + window[1] * channels];
        if flip {
            for (pixel, out) in row.chunks_exact(channels).rev().zip(out.chunks_exact_mut(channels)) {
                out.iter_mut().zip(pixel).for_each(|(out, &byte)| *out = number(byte));
            }
        } else {
            out.iter_mut().zip(row).for_each(|(out, &byte)| *out = number(byte));
        }
    }
}
