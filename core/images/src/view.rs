//! What is seen of a decoded picture: which window of it, and whether mirrored; and from that to numbers.

use crate::Picture;
use rqlab_sdk::tensor::Rng;

/// What is seen of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Where its window lies, as fractions (down, right) of the room that it has; `None` is the middle.
    pub at: Option<[f32; 2]>,
    /// Whether it is mirrored left to right.
    pub flip: bool,
}

/// How views of training images differ from the image itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Augmentation {
    /// Whether they are mirrored at random.
    pub flip: bool,
    /// Whether their windows lie anywhere.
    pub random_window: bool,
}

impl Augmentation {
    /// The views of `count` images, each drawn by its position; without a stream, of each the image itself.
    pub fn draw(self, augment: Option<&Rng>, count: usize) -> Vec<View> {
        let flips = augment.filter(|_| self.flip).map(|rng| rng.part("flip", 0).bits(count));
        let windows = augment.filter(|_| self.random_window).map(|rng| rng.part("crop", 0).uniform(2 * count));
        let view = |n: usize| View {
            at: windows.as_ref().map(|at| [at[2 * n], at[2 * n + 1]]),
            flip: flips.as_ref().is_some_and(|bits| bits[n] >> 31 == 1),
        };
        (0..count).map(view).collect()
    }

    /// All views that are counted as variants: the middle first, then the corners, then the mirror images of all.
    pub fn views(self) -> Vec<View> {
        let corners = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]].map(Some);
        let windows = std::iter::once(None).chain(corners.into_iter().filter(|_| self.random_window));
        let windows: Vec<_> = windows.collect();
        let flips: &[bool] = if self.flip { &[false, true] } else { &[false] };
        flips.iter().flat_map(|&flip| windows.iter().map(move |&at| View { at, flip })).collect()
    }

    /// It as parts of a sentence.
    pub fn facts(self) -> Vec<String> {
        let window = self.random_window.then(|| "a window that lies anywhere".to_owned());
        window.into_iter().chain(self.flip.then(|| "mirrored at random".to_owned())).collect()
    }
}

/// Writes the view of a picture through a window of size `window` as numbers in [-1, 1] to `out`, which it fills.
pub fn write(picture: &Picture, window: [usize; 2], view: View, out: &mut [f32]) {
    let channels = out.len() / (window[0] * window[1]);
    let [top, left] = picture.corner(window, view.at);
    let number = |byte: u8| f32::from(byte) / 127.5 - 1.0;
    for (y, out) in out.chunks_exact_mut(window[1] * channels).enumerate() {
        let start = ((top + y) * picture.size[1] + left) * channels;
        let row = &picture.bytes[start..start + window[1] * channels];
        if view.flip {
            for (pixel, out) in row.chunks_exact(channels).rev().zip(out.chunks_exact_mut(channels)) {
                out.iter_mut().zip(pixel).for_each(|(out, &byte)| *out = number(byte));
            }
        } else {
            out.iter_mut().zip(row).for_each(|(out, &byte)| *out = number(byte));
        }
    }
}
