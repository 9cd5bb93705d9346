//! Charts as inline SVG, drawn by plotters and coloured by the page.
//!
//! plotters writes colours into the drawing. To let the page's style decide (light, dark, print), everything is drawn
//! in sentinel colours, each of which stands for a role; afterwards each becomes the class of that role.

mod draw;
mod heat;
mod key;
mod marker;
mod scale;
mod sentinel;

pub(crate) use draw::draw;
pub(crate) use heat::{Heat, heat};
pub(crate) use key::key;
pub(crate) use scale::Scale;

/// Colours and dashes repeat after this many.
pub(crate) const COLOURS: usize = 8;

/// A chart of points and lines over two scales.
pub(crate) struct Chart {
    /// Identifier in the page, stable between renderings.
    pub(crate) id: String,
    /// What it shows, for who cannot see it.
    pub(crate) title: String,
    /// How it reads: what goes up or down.
    pub(crate) description: String,
    /// The horizontal scale.
    pub(crate) x: Scale,
    /// The vertical scale.
    pub(crate) y: Scale,
    /// What is drawn, the later above the earlier.
    pub(crate) series: Vec<Series>,
    /// As wide as the page, for a chart of many columns.
    pub(crate) wide: bool,
}

/// Points of one colour and shape.
#[derive(Clone, Default)]
pub(crate) struct Series {
    /// Name in the key and the data table.
    pub(crate) name: String,
    /// Which of the page's colours; `None` for ink.
    pub(crate) colour: Option<usize>,
    /// Which marker.
    pub(crate) shape: usize,
    /// Which dash.
    pub(crate) dash: usize,
    /// Whether the points are joined.
    pub(crate) line: bool,
    /// Whether the points are marked.
    pub(crate) marks: bool,
    /// Whether the range of each point is drawn as one band instead of bars.
    pub(crate) band: bool,
    /// From left to right.
    pub(crate) points: Vec<Point>,
}

/// A point, with its range if it has one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Point {
    /// Across; on a scale of names, the place of the name.
    pub(crate) x: f64,
    /// Up.
    pub(crate) y: f64,
    /// Lower and upper end of its bar or band.
    pub(crate) range: Option<(f64, f64)>,
    /// The seeds' own values, each a small dot; empty where there is one, or where they are not shown.
    pub(crate) seeds: Vec<f64>,
    /// Shown when the pointer rests on it.
    pub(crate) note: String,
    /// Identifier in the page that it leads to.
    pub(crate) link: Option<String>,
}
