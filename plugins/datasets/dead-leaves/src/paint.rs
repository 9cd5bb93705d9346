//! Draws an image: leaves from front to back, until they cover it.

use crate::caption::Seen;
use crate::class::{CLASSES, Class, PALETTES};
use crate::shape::Outline;
use crate::texture::{Cloud, Kind, Texture};
use rqlab_sdk::tensor::Rng;

/// Random words a leaf may use, and leaves whose words are drawn at once.
const WORDS: usize = 8;
const CHUNK: usize = 32;
/// Chunks after which what is still open gets the palette's darkest colour; never reached with radii near the default.
const CHUNKS: u64 = 4096;
/// A pixel that lets less than this through counts as covered: half a step of eight bits.
const COVERED: f32 = 1.0 / 512.0;
/// Entries of a table of radii.
const QUANTILES: usize = 256;

/// What all images of a data set have in common.
pub(crate) struct Painter {
    size: usize,
    grain: f32,
    cloud: Cloud,
    /// By class: quantiles of the radius.
    radii: Vec<Vec<f32>>,
}

/// An image, and what is to be seen in it.
pub(crate) struct Painted {
    /// `[size, size, 3]`.
    pub(crate) pixels: Box<[u8]>,
    pub(crate) seen: Seen,
}

impl Painter {
    pub(crate) fn new(size: usize, alpha: f32, range: [f32; 2], grain: f32) -> Self {
        let radii = CLASSES.iter().map(|class| radius_quantiles(class, alpha, range)).collect();
        Self { size, grain, cloud: Cloud::new(), radii }
    }

    /// An image of class `class` (an index), which `rng` determines.
    pub(crate) fn paint(&self, class: usize, rng: &Rng) -> Painted {
        let scene = Scene::new(&CLASSES[class], rng);
        let mut canvas = Canvas::new(self.size);
        let n = self.size as f32;
        // The last two of a hundred pixels would take as many leaves again: those leaves are aimed at them.
        let few = self.size * self.size / 50;
        'covered: for chunk in 0..CHUNKS {
            let words = rng.part("leaves", chunk).bits(CHUNK * WORDS);
            for words in words.chunks_exact(WORDS) {
                if canvas.open == 0 {
                    break 'covered;
                }
                let [x, y] = [unit(words[0]), unit(words[1])];
                let radius = scene.zoom * quantile(&self.radii[class], unit(words[2]));
                let (cx, cy) = if canvas.open > few {
                    (x * (1.0 + 2.0 * radius) - radius, y * (1.0 + 2.0 * radius) - radius)
                } else {
                    let (row, column) = canvas.first_open();
                    (
                        (column as f32 + 0.5) / n + radius * (2.0 * x - 1.0),
                        (row as f32 + 0.5) / n + radius * (2.0 * y - 1.0),
                    )
                };
                if canvas.may_show(cx, cy, radius) {
                    let leaf = Leaf::new(&scene, [cx, cy], radius, n, &words[3..]);
                    canvas.add(&leaf, &self.cloud, scene.light);
                }
            }
        }
        let area: f32 = canvas.textures.iter().sum();
        let seen = Seen::new(class, scene.chosen, &canvas.textures, canvas.radii / area.max(f32::MIN_POSITIVE), rng);
        let pixels = canvas.develop(scene.palette[0], scene.gain, self.grain, &rng.part("grain", 0));
        Painted { pixels: pixels.into(), seen }
    }
}

/// The quantiles of the radius of leaves that meet the image: density r^-alpha times the area (1 + 2r)^2 in which the
/// centre of a leaf of radius r may lie.
fn radius_quantiles(class: &Class, alpha: f32, range: [f32; 2]) -> Vec<f32> {
    const STEPS: usize = 4096;
    let alpha = f64::from(alpha + class.steeper);
    let low = f64::from(range[0] * class.radii[0]);
    let high = f64::from(range[1] * class.radii[1]).max(low * 1.01);
    // Steps of equal ratio: dr is in proportion to r.
    let radius = |i: f64| low * (high / low).powf(i / STEPS as f64);
    let mass = |r: f64| r.powf(1.0 - alpha) * (1.0 + 2.0 * r).powi(2);
    let total: f64 = (0..STEPS).map(|i| mass(radius(i as f64 + 0.5))).sum();
    let mut quantiles = Vec::with_capacity(QUANTILES + 1);
    let mut sum = 0.0;
    for i in 0..STEPS {
        let here = mass(radius(i as f64 + 0.5)) / total;
        while quantiles.len() as f64 <= (sum + here) * QUANTILES as f64 && quantiles.len() < QUANTILES {
            let part = (quantiles.len() as f64 / QUANTILES as f64 - sum) / here;
            quantiles.push(radius(i as f64 + part.clamp(0.0, 1.0)) as f32);
        }
        sum += here;
    }
    quantiles.resize(QUANTILES + 1, high as f32);
    quantiles
}

fn quantile(table: &[f32], u: f32) -> f32 {
    let at = u * QUANTILES as f32;
    let i = (at as usize).min(QUANTILES - 1);
    table[i] + (table[i + 1] - table[i]) * (at - i as f32)
}

fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / (1u32 << 24) as f32)
}

/// The byte `i` of `word` in [0, 1).
fn byte(word: u32, i: u32) -> f32 {
    ((word >> (8 * i)) & 0xff) as f32 / 256.0
}

/// What the leaves of one image have in common.
struct Scene {
    class: &'static Class,
    /// The place of its palette.
    chosen: usize,
    palette: [[f32; 3]; 6],
    /// Which way light comes from.
    light: [f32; 2],
    /// The direction that leaves share, in radians.
    direction: f32,
    zoom: f32,
    gain: f32,
}

impl Scene {
    fn new(class: &'static Class, rng: &Rng) -> Self {
        let draw = rng.part("scene", 0).uniform(8);
        let chosen = if draw[0] < 0.6 {
            class.palette
        } else {
            ((draw[1] * PALETTES.len() as f32) as usize).min(PALETTES.len() - 1)
        };
        let angle = std::f32::consts::PI * (1.0 + draw[2]);
        Self {
            class,
            chosen,
            palette: PALETTES[chosen].map(|rgb| [16, 8, 0].map(|shift| ((rgb >> shift) & 0xff) as f32 / 255.0)),
            light: [angle.cos(), angle.sin()],
            direction: std::f32::consts::TAU * draw[3],
            zoom: 0.8 + 0.5 * draw[4],
            gain: 0.86 + 0.26 * draw[5],
        }
    }
}

/// One leaf, ready to draw.
struct Leaf {
    center: [f32; 2],
    radius: f32,
    /// Cosine and sine of its turn.
    turn: [f32; 2],
    outline: Outline,
    texture: Texture,
    colors: [[f32; 3]; 2],
    dome: f32,
    /// How far its shadow reaches.
    shadow: f32,
}

impl Leaf {
    fn new(scene: &Scene, center: [f32; 2], radius: f32, size: f32, words: &[u32]) -> Self {
        let class = scene.class;
        let turn = scene.direction + std::f32::consts::PI * class.spread * (2.0 * unit(words[0]) - 1.0);
        let (sin, cos) = turn.sin_cos();
        let outline = Outline::new(class.family, radius, byte(words[1], 0), byte(words[1], 1));
        let mut odds = words[1] >> 28;
        let kind = class.textures.iter().find(|(_, share)| {
            let here = odds < *share;
            odds = odds.saturating_sub(*share);
            here
        });
        let kind = kind.map_or(crate::texture::Kind::Flat, |(kind, _)| *kind);
        let texture = Texture::new(kind, radius, size, byte(words[2], 0), byte(words[2], 1));
        // A colour lies between two of the palette; the second one of a leaf is lighter or darker, and a little off.
        let pick = |byte: f32| scene.palette[(byte * 6.0) as usize];
        let (from, to, part) = (pick(byte(words[3], 0)), pick(byte(words[3], 1)), 0.6 * byte(words[3], 2));
        let lift = 0.3 * (byte(words[3], 3) - 0.5);
        let first: [f32; 3] = std::array::from_fn(|c| from[c] + part * (to[c] - from[c]) + lift);
        let lightness = (first[0] + first[1] + first[2]) / 3.0;
        let away = if lightness > 0.5 { -1.0 } else { 1.0 } * (0.14 + 0.24 * byte(words[4], 0));
        let second = std::array::from_fn(|c| first[c] + away + 0.3 * byte(words[4], 1) * (to[c] - first[c]));
        Self {
            center,
            radius,
            turn: [cos, sin],
            outline,
            texture,
            colors: [first, second],
            dome: class.dome,
            shadow: (0.35 * radius).min(0.06),
        }
    }
}

/// A pixel as a leaf sees it: from its centre along the image's axes and along its own, and from its outline.
struct Place {
    dx: f32,
    dy: f32,
    u: f32,
    v: f32,
    distance: f32,
}

/// An image being painted from front to back.
struct Canvas {
    size: usize,
    /// Colours so far: red, green, blue.
    color: Vec<[f32; 3]>,
    /// How much of each pixel is still to be seen through, and how much light falls on what will be seen there.
    through: Vec<[f32; 2]>,
    /// Pixels that are not covered.
    open: usize,
    /// Pixels a cell's side.
    cell: usize,
    /// By row of cells: the cells with open pixels, as bits.
    open_cells: Vec<u64>,
    /// By cell: open pixels.
    open_in_cell: Vec<u32>,
    /// Distances along a row.
    row: Vec<f32>,
    /// The area that is seen of each texture, in the order of [`Kind::ALL`], in pixels.
    textures: [f32; Kind::ALL.len()],
    /// The sum of leaves' radii over that area.
    radii: f32,
}

impl Canvas {
    fn new(size: usize) -> Self {
        let cell = size.div_ceil(64);
        let cells = size.div_ceil(cell);
        let extent = |i: usize| (size - i * cell).min(cell);
        Self {
            size,
            color: vec![[0.0; 3]; size * size],
            through: vec![[1.0; 2]; size * size],
            open: size * size,
            cell,
            open_cells: vec![u64::MAX >> (64 - cells); cells],
            open_in_cell: (0..cells * cells).map(|i| (extent(i / cells) * extent(i % cells)) as u32).collect(),
            row: vec![0.0; size],
            textures: [0.0; Kind::ALL.len()],
            radii: 0.0,
        }
    }

    /// The first and last pixel (exclusive) of an axis that lie within `reach` of `center`.
    fn span(&self, center: f32, reach: f32) -> (usize, usize) {
        let n = self.size as f32;
        let first = ((center - reach) * n - 0.5).ceil().max(0.0) as usize;
        let end = ((center + reach) * n + 0.5).floor().max(0.0) as usize;
        (first, end.min(self.size))
    }

    /// Which cells of a row of cells the pixels `x0..x1` lie in, as bits.
    fn cells(&self, x0: usize, x1: usize) -> u64 {
        let (first, last) = (x0 / self.cell, (x1 - 1) / self.cell);
        (u64::MAX >> (63 - (last - first))) << first
    }

    /// Whether a leaf of this radius could cover a pixel that is open.
    fn may_show(&self, cx: f32, cy: f32, radius: f32) -> bool {
        let ((x0, x1), (y0, y1)) = (self.span(cx, radius), self.span(cy, radius));
        if x0 >= x1 || y0 >= y1 {
            return false;
        }
        let cells = self.cells(x0, x1);
        self.open_cells[y0 / self.cell..=(y1 - 1) / self.cell].iter().any(|row| row & cells != 0)
    }

    /// Row and column of the first open pixel; the last pixel if there is none.
    fn first_open(&self) -> (usize, usize) {
        let row = self.open_cells.iter().position(|row| *row != 0).unwrap_or(0) * self.cell * self.size;
        let open = self.through[row..].iter().position(|through| through[0] > 0.0);
        let at = open.map_or(self.through.len() - 1, |i| row + i);
        (at / self.size, at % self.size)
    }

    fn add(&mut self, leaf: &Leaf, cloud: &Cloud, light: [f32; 2]) {
        let pixel = 1.0 / self.size as f32;
        let [cos, sin] = leaf.turn;
        let reach = leaf.radius + leaf.shadow;
        let ((x0, x1), (y0, y1)) = (self.span(leaf.center[0], reach), self.span(leaf.center[1], reach));
        let cells = self.cells(x0, x1);
        let mut visible = 0.0;
        for y in y0..y1 {
            let mut open = self.open_cells[y / self.cell] & cells;
            if open == 0 {
                continue;
            }
            // From the first open pixel to the last.
            let x0 = x0.max(open.trailing_zeros() as usize * self.cell);
            let x1 = x1.min((64 - open.leading_zeros() as usize) * self.cell);
            let (dx, dy) = ((x0 as f32 + 0.5) * pixel - leaf.center[0], (y as f32 + 0.5) * pixel - leaf.center[1]);
            let (u, v) = (cos * dx + sin * dy, cos * dy - sin * dx);
            leaf.outline.distances(u, v, cos * pixel, -sin * pixel, &mut self.row[..x1 - x0]);
            while open != 0 {
                let cell = open.trailing_zeros() as usize;
                open &= open - 1;
                for x in (cell * self.cell).max(x0)..((cell + 1) * self.cell).min(x1) {
                    let distance = self.row[x - x0];
                    if distance < leaf.shadow && self.through[y * self.size + x][0] > 0.0 {
                        let along = (x - x0) as i32 as f32 * pixel;
                        let place = Place { dx: dx + along, dy, u: u + along * cos, v: v - along * sin, distance };
                        visible += self.touch(x, y, leaf, &place, cloud, light);
                    }
                }
            }
        }
        self.textures[leaf.texture.looks_like() as usize] += visible;
        self.radii += visible * leaf.radius;
    }

    /// Lays the leaf, or its shadow, on an open pixel, and tells how much of the pixel the leaf is seen in.
    fn touch(&mut self, x: usize, y: usize, leaf: &Leaf, place: &Place, cloud: &Cloud, light: [f32; 2]) -> f32 {
        let &Place { dx, dy, u, v, distance } = place;
        let at = y * self.size + x;
        let [seen, lit] = self.through[at];
        let per_radius = 1.0 / leaf.radius;
        // How much the leaf faces the light here.
        let facing = (dx * light[0] + dy * light[1]) * per_radius;
        let coverage = (0.5 - distance * self.size as f32).clamp(0.0, 1.0);
        if coverage > 0.0 {
            let mix = leaf.texture.mix(cloud, u, v);
            let rim = (dx * dx + dy * dy) * per_radius * per_radius;
            let weight = seen * coverage * lit * (1.0 + 0.14 * facing + leaf.dome * (0.35 - rim));
            let [first, second] = &leaf.colors;
            for c in 0..3 {
                self.color[at][c] += weight * (first[c] + mix * (second[c] - first[c]));
            }
        }
        let visible = seen * coverage;
        let seen = seen * (1.0 - coverage);
        if seen < COVERED {
            self.through[at][0] = 0.0;
            self.open -= 1;
            let (cy, cx) = (y / self.cell, x / self.cell);
            let count = &mut self.open_in_cell[cy * self.open_cells.len() + cx];
            *count -= 1;
            if *count == 0 {
                self.open_cells[cy] &= !(1 << cx);
            }
        } else {
            // What lies behind is in the shadow: deepest at the outline, and on the side away from the light.
            let depth = 1.0 - (distance / leaf.shadow).max(0.0);
            let shade = (0.32 - 0.26 * facing).clamp(0.0, 0.6);
            self.through[at] = [seen, lit * (1.0 - shade * depth * depth)];
        }
        visible
    }

    /// Pixels of eight bits, on ground of colour `ground`, exposed by `gain`, with grain of standard deviation `grain` (of the
    /// range from black to white).
    fn develop(self, ground: [f32; 3], gain: f32, grain: f32, rng: &Rng) -> Vec<u8> {
        let words = if grain > 0.0 { rng.bits(self.color.len()) } else { vec![0x8080_8080; self.color.len()] };
        // Each byte is uniform with standard deviation 73.9: four of them make the bell of the brightness, one more
        // of another pixel's would tint it; grain is grey here.
        let scale = grain * 255.0 / (73.9 * 2.0);
        let mut pixels = Vec::with_capacity(self.color.len() * 3);
        for ((color, &[seen, lit]), word) in self.color.iter().zip(&self.through).zip(words) {
            let bytes = word.to_le_bytes().map(i32::from);
            let noise = (bytes[0] + bytes[1] - bytes[2] - bytes[3]) as f32 * scale;
            let full: [f32; 3] = std::array::from_fn(|c| color[c] + seen * lit * ground[c]);
            pixels.extend(full.map(|c| (c * gain * 255.0 + noise + 0.5) as u8));
        }
        pixels
    }
}
