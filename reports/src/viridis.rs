//! The viridis colour map: even in lightness, readable in grey and to colour-blind eyes.

/// Every tenth of the map.
const STOPS: [[u8; 3]; 11] = [
    [68, 1, 84],
    [72, 36, 117],
    [65, 68, 135],
    [53, 95, 141],
    [42, 120, 142],
    [33, 145, 140],
    [34, 168, 132],
    [68, 191, 112],
    [122, 209, 81],
    [189, 223, 38],
    [253, 231, 37],
];

/// The colour of a share in [0, 1]; what lies outside takes the end's.
pub(crate) fn viridis(share: f64) -> [u8; 3] {
    let place = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) } * (STOPS.len() - 1) as f64;
    let low = (place as usize).min(STOPS.len() - 2);
    let part = place - low as f64;
    std::array::from_fn(|channel| {
        let (a, b) = (f64::from(STOPS[low][channel]), f64::from(STOPS[low + 1][channel]));
        (a + part * (b - a)).round() as u8
    })
}

/// The colour as CSS.
pub(crate) fn css(share: f64) -> String {
    let [r, g, b] = viridis(share);
    format!("#{r:02x}{g:02x}{b:02x}")
}
