//! What a picture shows, in words.
//!
//! ```text
//! caption = size texture shape "in" palette "colours"
//!         | shape "in" palette "colours," size "and" texture
//! shape   = the name of the class
//! palette = "stone" | "autumn" | "glacier" | "festival" | "terracotta" | "night" | "meadow" | "blossom" | "earth" | "lagoon"
//! texture = "plain" | "shaded" | "striped" | "chequered" | "banded" | "cloudy" | "veined"
//! size    = "small" | "medium" | "large"
//! ```
//!
//! Texture is the one that covers most of the picture, as it is seen: a pattern too fine for the pixels is plain. Size tells the
//! mean radius of leaves over the picture's area, as a share of its side: below 0.24, below 0.3, or more, of which with the default
//! radii a third of the pictures are each. Which of the two forms a caption has is drawn.

use crate::class::{CLASSES, PALETTE_NAMES};
use crate::texture::Kind;
use rqlab_sdk::prelude::*;

/// The sizes, and the mean radii that they are below.
const SIZES: [(&str, f32); 3] = [("small", 0.24), ("medium", 0.3), ("large", f32::INFINITY)];

/// What is to be seen in a picture. Places in the lists of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    class: usize,
    palette: usize,
    texture: usize,
    size: usize,
    /// Whether the caption begins with the shape.
    shape_first: bool,
}

impl Seen {
    /// A picture of a class and a palette, by the area that each texture covers, in the order of [`Kind::ALL`], and the mean
    /// radius of leaves over it. `rng` is the picture's.
    pub(crate) fn new(class: usize, palette: usize, textures: &[f32], radius: f32, rng: &Rng) -> Self {
        let most = |a: &(usize, &f32), b: &(usize, &f32)| a.1.total_cmp(b.1);
        Self {
            class,
            palette,
            texture: textures.iter().enumerate().max_by(most).map_or(0, |(texture, _)| texture),
            size: SIZES.iter().position(|(_, below)| radius < *below).unwrap_or(SIZES.len() - 1),
            shape_first: rng.part("caption", 0).bits(1)[0] >> 31 == 1,
        }
    }

    /// The values of [`attributes`].
    pub(crate) fn values(self) -> [u32; 4] {
        [self.class, self.palette, self.texture, self.size].map(|value| value as u32)
    }

    /// The picture in words.
    pub(crate) fn caption(self) -> String {
        let (shape, palette) = (CLASSES[self.class].name, PALETTE_NAMES[self.palette]);
        let (texture, size) = (Kind::ALL[self.texture].word(), SIZES[self.size].0);
        match self.shape_first {
            false => format!("{size} {texture} {shape} in {palette} colours"),
            true => format!("{shape} in {palette} colours, {size} and {texture}"),
        }
    }
}

/// What captions of the first `classes` classes name.
pub(crate) fn attributes(classes: usize) -> Vec<Attribute> {
    let attribute = |name: &str, values: Vec<&str>| Attribute {
        name: name.to_owned(),
        values: values.into_iter().map(str::to_owned).collect(),
    };
    vec![
        attribute("shape", CLASSES[..classes].iter().map(|class| class.name).collect()),
        attribute("palette", PALETTE_NAMES.to_vec()),
        attribute("texture", Kind::ALL.iter().map(|kind| kind.word()).collect()),
        attribute("size", SIZES.iter().map(|(size, _)| *size).collect()),
    ]
}
