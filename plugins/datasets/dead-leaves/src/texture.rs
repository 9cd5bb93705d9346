//! What is painted on a leaf: how far, at each point, its colour has gone from the first of two towards the second.

use rqlab_sdk::tensor::Rng;

/// The kinds of texture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Flat,
    Gradient,
    Stripes,
    Checker,
    Bands,
    Cloud,
    Vein,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 7] =
        [Self::Flat, Self::Gradient, Self::Stripes, Self::Checker, Self::Bands, Self::Cloud, Self::Vein];

    /// What captions call it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Flat => "plain",
            Self::Gradient => "shaded",
            Self::Stripes => "striped",
            Self::Checker => "chequered",
            Self::Bands => "banded",
            Self::Cloud => "cloudy",
            Self::Vein => "veined",
        }
    }
}

/// A texture of one leaf, in the leaf's own axes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Texture {
    pub(crate) kind: Kind,
    /// Periods a unit of length.
    frequency: f32,
    phase: f32,
    /// How strong the pattern is, 0 to 1: less where a period comes near two pixels.
    contrast: f32,
    radius: f32,
}

impl Texture {
    /// A texture for a leaf of radius `radius` in an image of `size` pixels a side; `p` and `q` in [0, 1) vary it.
    pub(crate) fn new(kind: Kind, radius: f32, size: f32, p: f32, q: f32) -> Self {
        let period = radius * (0.28 + 0.4 * p);
        // From full strength at six pixels a period to none at two: what the grid cannot carry is left out.
        let contrast = ((period * size - 2.0) / 4.0).clamp(0.0, 1.0);
        Self { kind, frequency: 1.0 / period, phase: q, contrast, radius }
    }

    /// What it looks like: flat where its pattern is too fine for the pixels.
    pub(crate) fn looks_like(&self) -> Kind {
        match self.kind {
            Kind::Stripes | Kind::Checker | Kind::Bands | Kind::Vein if self.contrast < 0.2 => Kind::Flat,
            kind => kind,
        }
    }

    /// The mixture in [0, 1] at (`u`, `v`).
    pub(crate) fn mix(&self, cloud: &Cloud, u: f32, v: f32) -> f32 {
        match self.kind {
            Kind::Flat => 0.0,
            Kind::Gradient => (0.5 + 0.5 * u / self.radius).clamp(0.0, 1.0),
            Kind::Stripes => self.wave(v),
            Kind::Checker => {
                let (a, b) = (self.wave(u), self.wave(v));
                a + b - 2.0 * a * b
            }
            Kind::Bands => self.wave((u * u + v * v).sqrt()),
            Kind::Cloud => cloud.at(u + self.phase, v + 0.37 * self.phase),
            Kind::Vein => {
                // A light midrib, and ribs that leave it at an angle.
                let v = v.abs();
                let midrib = (1.0 - v / (0.07 * self.radius)).max(0.0);
                midrib.max(0.45 * self.wave(u - 0.8 * v))
            }
        }
    }

    /// A square wave with soft edges, between 0 and 1.
    fn wave(&self, x: f32) -> f32 {
        let x = x * self.frequency + self.phase;
        let triangle = (x - x.floor() - 0.5).abs() * 4.0 - 1.0;
        0.5 + 0.5 * self.contrast * (2.5 * triangle).clamp(-1.0, 1.0)
    }
}

/// A field of clouds that repeats: noise whose power falls as 1/f^2, by octaves of smoothed lattice noise.
pub(crate) struct Cloud {
    values: Vec<f32>,
}

/// Lattice points a side; a power of two.
const SIDE: usize = 128;
/// Lattice points a unit of length: two pixels of a 32 x 32 image.
const DENSITY: f32 = 64.0;

impl Cloud {
    pub(crate) fn new() -> Self {
        let rng = Rng::new(0, "dead_leaves/cloud", 0);
        let mut values = vec![0.0; SIDE * SIDE];
        for octave in 2..=6 {
            let cells = 1usize << octave;
            let lattice = rng.part("octave", octave).normal(cells * cells);
            for (i, value) in values.iter_mut().enumerate() {
                let scale = cells as f32 / SIDE as f32;
                let (y, x) = ((i / SIDE) as f32 * scale, (i % SIDE) as f32 * scale);
                *value += bilinear(&lattice, cells, x, y, |t| t * t * (3.0 - 2.0 * t));
            }
        }
        let n = values.len() as f32;
        let deviation = (values.iter().map(|v| v * v).sum::<f32>() / n).sqrt();
        values.iter_mut().for_each(|v| *v = (0.5 + 0.3 * *v / deviation).clamp(0.0, 1.0));
        Self { values }
    }

    fn at(&self, u: f32, v: f32) -> f32 {
        bilinear(&self.values, SIDE, u * DENSITY, v * DENSITY, |t| t)
    }
}

/// The value at (`x`, `y`) of a periodic lattice of `side` points, a power of two.
fn bilinear(lattice: &[f32], side: usize, x: f32, y: f32, ease: impl Fn(f32) -> f32) -> f32 {
    let (fx, fy) = (x.floor(), y.floor());
    let (tx, ty) = (ease(x - fx), ease(y - fy));
    let mask = side - 1;
    let wrap = |f: f32| f as i64 as usize & mask;
    let (x0, y0) = (wrap(fx), wrap(fy));
    let (x1, y1) = ((x0 + 1) & mask, (y0 + 1) & mask);
    let row = |y: usize| lattice[y * side + x0] * (1.0 - tx) + lattice[y * side + x1] * tx;
    row(y0) * (1.0 - ty) + row(y1) * ty
}
