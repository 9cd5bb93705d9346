//! The outlines of leaves: signed distances, negative inside, in units of the image's side.

use std::f32::consts::PI;

/// What the leaves of a class are shaped like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Ellipse,
    Rectangle,
    Triangle,
    Star,
    Crescent,
    Capsule,
    Lens,
    Ring,
}

/// An outline about the origin of its own axes, within a circle of its radius.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outline {
    /// Half axes.
    Ellipse { a: f32, b: f32 },
    /// Half sides.
    Rectangle { a: f32, b: f32 },
    /// Outward normals and offsets of the three sides.
    Triangle { sides: [[f32; 3]; 3] },
    /// Tip radius, and the normal of the side from a tip to the next inner corner.
    Star { r: f32, normal: [f32; 2] },
    /// A disk without another one at some distance along the first axis.
    Crescent { r: f32, bite: f32, away: f32 },
    /// Half length of the straight part, and half width.
    Capsule { a: f32, b: f32 },
    /// Two arcs of this radius, whose centres lie this far off the long axis.
    Lens { arc: f32, off: f32 },
    /// Radius of the middle line, and half width.
    Ring { middle: f32, half: f32 },
}

/// The length of (`x`, `y`), rounded once, without `hypotf`, whose newest form would ask for a C library of 2022.
fn length(x: f32, y: f32) -> f32 {
    let (x, y) = (f64::from(x), f64::from(y));
    (x * x + y * y).sqrt() as f32
}

impl Outline {
    /// An outline of circumscribed radius `r`; `p` and `q` in [0, 1) vary its proportions.
    pub(crate) fn new(family: Family, r: f32, p: f32, q: f32) -> Self {
        match family {
            Family::Ellipse => Self::Ellipse { a: r, b: r * (0.62 + 0.38 * p) },
            Family::Rectangle => {
                let angle = PI / 4.0 * (1.0 - 0.5 * p * p);
                Self::Rectangle { a: r * angle.cos(), b: r * angle.sin() }
            }
            Family::Triangle => {
                let turns = [0.0, 1.0 / 3.0 + 0.2 * (p - 0.5), 2.0 / 3.0 + 0.2 * (q - 0.5)];
                let corner = turns.map(|turn| (2.0 * PI * turn).sin_cos()).map(|(sin, cos)| [r * cos, r * sin]);
                let side = |i: usize| {
                    let (from, to) = (corner[i], corner[(i + 1) % 3]);
                    let (x, y) = (to[1] - from[1], from[0] - to[0]);
                    let length = length(x, y);
                    [x / length, y / length, (x * from[0] + y * from[1]) / length]
                };
                Self::Triangle { sides: [side(0), side(1), side(2)] }
            }
            Family::Star => {
                let inner = r * (0.42 + 0.16 * p);
                let (sin, cos) = (PI / 5.0).sin_cos();
                let (x, y) = (inner * sin, inner * cos - r);
                let length = length(x, y);
                Self::Star { r, normal: [-y / length, x / length] }
            }
            Family::Crescent => Self::Crescent { r, bite: r * (0.72 + 0.2 * p), away: r * (0.5 + 0.25 * q) },
            Family::Capsule => {
                let b = r * (0.1 + 0.14 * p);
                Self::Capsule { a: r - b, b }
            }
            Family::Lens => {
                let half = r * (0.34 + 0.22 * p);
                let arc = (r * r + half * half) / (2.0 * half);
                Self::Lens { arc, off: arc - half }
            }
            Family::Ring => {
                let half = r * (0.13 + 0.15 * p);
                Self::Ring { middle: r - half, half }
            }
        }
    }

    /// The distances at points from (`u`, `v`) on, each (`du`, `dv`) further. The match stands outside the loops, so
    /// that each of them becomes vector code.
    pub(crate) fn distances(&self, u: f32, v: f32, du: f32, dv: f32, out: &mut [f32]) {
        match *self {
            Self::Ellipse { a, b } => {
                let (ia, ib) = (1.0 / a, 1.0 / b);
                // First order in the distance: exact on the outline, which is where it matters.
                along(out, u, v, du, dv, |u, v| {
                    let (x, y) = (u * ia, v * ib);
                    let k = (x * x + y * y).sqrt();
                    let (gx, gy) = (x * ia, y * ib);
                    k * (k - 1.0) / (gx * gx + gy * gy).sqrt().max(1e-6)
                });
            }
            Self::Rectangle { a, b } => along(out, u, v, du, dv, |u, v| {
                let (x, y) = (u.abs() - a, v.abs() - b);
                let (ox, oy) = (x.max(0.0), y.max(0.0));
                (ox * ox + oy * oy).sqrt() + x.max(y).min(0.0)
            }),
            Self::Triangle { sides: [s, t, w] } => along(out, u, v, du, dv, |u, v| {
                let first = s[0] * u + s[1] * v - s[2];
                let second = t[0] * u + t[1] * v - t[2];
                first.max(second).max(w[0] * u + w[1] * v - w[2])
            }),
            Self::Star { r, normal } => {
                // Mirrors fold the plane into a tenth of a turn that holds half a tip.
                let (s1, c1) = (3.0 * PI / 5.0).sin_cos();
                let (s2, c2) = (PI / 5.0).sin_cos();
                along(out, u, v, du, dv, |u, v| {
                    let (x, y) = (u.abs(), v);
                    let k = 2.0 * (c1 * x - s1 * y).max(0.0);
                    let (x, y) = (x - k * c1, y + k * s1);
                    let k = 2.0 * (c2 * x - s2 * y).max(0.0);
                    let (x, y) = ((x - k * c2).abs(), y + k * s2);
                    normal[0] * x + normal[1] * (y - r)
                });
            }
            Self::Crescent { r, bite, away } => along(out, u, v, du, dv, |u, v| {
                let x = u - away;
                ((u * u + v * v).sqrt() - r).max(bite - (x * x + v * v).sqrt())
            }),
            Self::Capsule { a, b } => along(out, u, v, du, dv, |u, v| {
                let x = (u.abs() - a).max(0.0);
                (x * x + v * v).sqrt() - b
            }),
            Self::Lens { arc, off } => along(out, u, v, du, dv, |u, v| {
                let y = v.abs() + off;
                (u * u + y * y).sqrt() - arc
            }),
            Self::Ring { middle, half } => {
                along(out, u, v, du, dv, |u, v| ((u * u + v * v).sqrt() - middle).abs() - half)
            }
        }
    }
}

fn along(out: &mut [f32], u: f32, v: f32, du: f32, dv: f32, distance: impl Fn(f32, f32) -> f32) {
    for (i, out) in out.iter_mut().enumerate() {
        let i = i as i32 as f32;
        *out = distance(u + i * du, v + i * dv);
    }
}
