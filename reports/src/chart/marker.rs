//! Markers: shapes that can be told apart without colour.

/// How many there are before they repeat.
pub(super) const SHAPES: usize = 8;

/// The outline of a marker around the origin, or `None` for the circle. `radius` is that of a circle of equal weight.
pub(super) fn outline(shape: usize, radius: f64) -> Option<Vec<(f64, f64)>> {
    let points: &[(f64, f64)] = match shape % SHAPES {
        1 => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        2 => &[(0.0, -1.25), (1.15, 0.85), (-1.15, 0.85)],
        3 => &[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
        4 => &[(0.0, 1.25), (1.15, -0.85), (-1.15, -0.85)],
        5 => &[
            (-0.4, -1.2),
            (0.4, -1.2),
            (0.4, -0.4),
            (1.2, -0.4),
            (1.2, 0.4),
            (0.4, 0.4),
            (0.4, 1.2),
            (-0.4, 1.2),
            (-0.4, 0.4),
            (-1.2, 0.4),
            (-1.2, -0.4),
            (-0.4, -0.4),
        ],
        6 => &[(0.0, -1.2), (1.14, -0.37), (0.71, 0.97), (-0.71, 0.97), (-1.14, -0.37)],
        7 => &[(-1.25, 0.0), (0.85, -1.15), (0.85, 1.15)],
        _ => return None,
    };
    Some(points.iter().map(|(x, y)| (x * radius, y * radius)).collect())
}
