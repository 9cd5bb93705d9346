//! What sets the classes apart: shape, size law, orientation, palette, texture. No one of them is enough: palettes and
//! textures are shared between classes with different odds.

use crate::shape::Family;
use crate::texture::Kind;

/// The laws of one class.
pub(crate) struct Class {
    pub(crate) name: &'static str,
    pub(crate) family: Family,
    /// What the exponent of the size law is more than the configured one.
    pub(crate) steeper: f32,
    /// What the smallest and largest radius are times the configured ones.
    pub(crate) radii: [f32; 2],
    /// How far leaves turn from the direction that they share in an image, in half turns: 1 is any direction.
    pub(crate) spread: f32,
    /// The palette that three images in five use; the others use any.
    pub(crate) palette: usize,
    /// Textures and their odds, in sixteenths.
    pub(crate) textures: &'static [(Kind, u32)],
    /// How much darker a leaf gets towards its rim.
    pub(crate) dome: f32,
}

/// All classes; a data set of n classes takes the first n.
pub(crate) const CLASSES: [Class; 8] = [
    Class {
        name: "pebbles",
        family: Family::Ellipse,
        steeper: 0.1,
        radii: [1.0, 0.55],
        spread: 0.35,
        palette: 0,
        textures: &[(Kind::Cloud, 7), (Kind::Flat, 6), (Kind::Stripes, 3)],
        dome: 0.45,
    },
    Class {
        name: "foliage",
        family: Family::Lens,
        steeper: 0.0,
        radii: [1.6, 1.1],
        spread: 1.0,
        palette: 1,
        textures: &[(Kind::Vein, 11), (Kind::Gradient, 3), (Kind::Cloud, 2)],
        dome: 0.1,
    },
    Class {
        name: "shards",
        family: Family::Triangle,
        steeper: 0.2,
        radii: [1.1, 1.1],
        spread: 1.0,
        palette: 2,
        textures: &[(Kind::Gradient, 10), (Kind::Flat, 4), (Kind::Cloud, 2)],
        dome: 0.0,
    },
    Class {
        name: "stars",
        family: Family::Star,
        steeper: 0.3,
        radii: [1.7, 1.0],
        spread: 1.0,
        palette: 3,
        textures: &[(Kind::Flat, 8), (Kind::Bands, 5), (Kind::Gradient, 3)],
        dome: 0.15,
    },
    Class {
        name: "tiles",
        family: Family::Rectangle,
        steeper: -0.2,
        radii: [1.3, 0.9],
        spread: 0.08,
        palette: 4,
        textures: &[(Kind::Checker, 6), (Kind::Stripes, 4), (Kind::Flat, 3), (Kind::Cloud, 3)],
        dome: 0.0,
    },
    Class {
        name: "moons",
        family: Family::Crescent,
        steeper: 0.0,
        radii: [1.7, 1.0],
        spread: 0.5,
        palette: 5,
        textures: &[(Kind::Cloud, 7), (Kind::Gradient, 5), (Kind::Flat, 4)],
        dome: 0.2,
    },
    Class {
        name: "reeds",
        family: Family::Capsule,
        steeper: -0.4,
        radii: [3.2, 1.5],
        spread: 0.14,
        palette: 6,
        textures: &[(Kind::Gradient, 6), (Kind::Flat, 4), (Kind::Stripes, 3), (Kind::Bands, 3)],
        dome: 0.0,
    },
    Class {
        name: "rings",
        family: Family::Ring,
        steeper: 0.0,
        radii: [1.8, 0.9],
        spread: 1.0,
        palette: 7,
        textures: &[(Kind::Flat, 7), (Kind::Gradient, 5), (Kind::Bands, 4)],
        dome: 0.1,
    },
];

/// What captions call the palettes.
pub(crate) const PALETTE_NAMES: [&str; PALETTES.len()] =
    ["stone", "autumn", "glacier", "festival", "terracotta", "night", "meadow", "blossom", "earth", "lagoon"];

/// Colours that go together, as 0xRRGGBB: from dark to light, the last one to set off the others.
pub(crate) const PALETTES: [[u32; 6]; 10] = [
    [0x2b2a2c, 0x555453, 0x837e78, 0xb3aca1, 0xddd8cd, 0x7a5f4c],
    [0x43140f, 0x8c2a15, 0xc7511f, 0xe4902a, 0xf3cc55, 0x5c5120],
    [0x0b2340, 0x13496b, 0x1f7c8f, 0x7db8c0, 0xd6eef1, 0x3b66a8],
    [0x1b2a4a, 0xd93a46, 0xf6a91b, 0x0d9f7b, 0xfff0d0, 0x7d45c9],
    [0x561b19, 0xa1392a, 0xd06a3a, 0xeba45f, 0xf5d9ab, 0x3f6468],
    [0x0f1136, 0x2a2463, 0x4d418f, 0x8e80c3, 0xf3dfa3, 0x223a63],
    [0x15301f, 0x2e5b34, 0x5f8c3e, 0xa4b951, 0xe5df8e, 0x3a6f6b],
    [0x571d3b, 0xa33d6b, 0xdf7b9b, 0xf5bcc8, 0xfff0ec, 0x6b8c74],
    [0x3a2d2c, 0x6a4e3a, 0x9b7a54, 0xc8ae80, 0xe7dab9, 0x59603f],
    [0x0d3b3e, 0x0f6f6c, 0x3da58f, 0x9fd6b4, 0xf3f0cf, 0xe2725b],
];
