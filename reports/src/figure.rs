//! Line charts as a picture of their own, for a page that is not ours.

use crate::chart::{Chart, Point, Scale, Series, draw, key};
use crate::error::Result;

/// One chart of a picture; both scales are logarithmic, and the horizontal one has a tick at each point.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What it shows.
    pub title: String,
    /// Title of the horizontal scale.
    pub x: String,
    /// Title of the vertical scale.
    pub y: String,
    /// What is drawn.
    pub lines: Vec<Line>,
}

/// Points that are joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its name in the key.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// What the drawings of charts look like, where no page says: the first part is the page's palette, and the rest of the
/// rules is its own.
const STYLE: &str = "\
svg { --paper: #fff; --ink: #1b1c1e; --soft: #5c6068; --rule: #d9dbe0; \
--c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #e69f00; --c5: #56b4e9; --c6: #000; --c7: #f0e442; }
text { font-family: system-ui, -apple-system, \"Segoe UI\", Roboto, Arial, sans-serif; }
.head { font-size: 14px; font-weight: 600; fill: var(--ink); } .name { font-size: 12px; fill: var(--soft); }
";

/// Width of a panel, as charts are drawn.
const WIDTH: usize = 440;
/// Height of a panel's chart.
const HEIGHT: usize = 300;
/// Room above it for its title, and for each name of its key below.
const LINE: usize = 20;
/// Room around a panel.
const GAP: usize = 16;

/// The panels two by two as one SVG document, which says all its colours itself.
///
/// # Errors
/// If a chart cannot be drawn.
pub fn figure(panels: &[Panel]) -> Result<String> {
    let names = panels.iter().map(|panel| panel.lines.len()).max().unwrap_or(0);
    let (across, down) = (WIDTH + GAP, LINE + HEIGHT + names * LINE + GAP);
    let (width, height) = (2 * across + GAP, panels.len().div_ceil(2) * down + GAP);
    let rules = include_str!("page/style.css").lines().filter(|line| of_a_chart(line));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\">\n<style>\n{STYLE}{}\n</style>\n<rect width=\"100%\" height=\"100%\" \
         fill=\"#fff\"/>\n",
        rules.collect::<Vec<_>>().join("\n")
    );
    for (index, panel) in panels.iter().enumerate() {
        let (left, top) = (GAP + index % 2 * across, GAP + index / 2 * down);
        svg.push_str(&format!("<g transform=\"translate({left} {top})\">\n{}</g>\n", draw_panel(panel, index)?));
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// Whether a line of the page's style is about the inside of charts: those whose names have at most two letters.
fn of_a_chart(line: &str) -> bool {
    let class = line.trim_start().strip_prefix('.').and_then(|rest| rest.split([' ', '{', ',']).next());
    class.is_some_and(|class| class.len() == 2)
        || line.starts_with(".chart polyline")
        || line.starts_with(".chart circle")
}

fn draw_panel(panel: &Panel, index: usize) -> Result<String> {
    let series = panel.lines.iter().enumerate().map(|(colour, line)| Series {
        name: line.name.clone(),
        colour: Some(colour),
        shape: colour,
        line: true,
        marks: true,
        points: line.points.iter().map(|&(x, y)| Point { x, y, ..Point::default() }).collect(),
        ..Series::default()
    });
    let chart = Chart {
        id: format!("panel-{index}"),
        title: panel.title.clone(),
        description: format!("{} against {}.", panel.y, panel.x),
        x: Scale::sizes(panel.x.clone(), panel.lines.iter().flat_map(|line| &line.points).map(|point| point.0)),
        y: Scale::log(panel.y.clone()),
        series: series.collect(),
        wide: false,
    };
    let title = text(&panel.title);
    let drawing = placed(&draw(&chart)?, 0, LINE, WIDTH, HEIGHT);
    let mut svg = format!("<text class=\"head\" x=\"4\" y=\"14\">{title}</text>\n{drawing}\n");
    for (colour, line) in panel.lines.iter().enumerate() {
        let top = LINE + HEIGHT + colour * LINE;
        let mark = placed(&key(Some(colour), Some(colour), Some(0)), 48, top, 28, 12);
        let name = text(&line.name);
        svg.push_str(&format!("{mark}<text class=\"name\" x=\"84\" y=\"{}\">{name}</text>\n", top + 10));
    }
    Ok(svg)
}

/// A drawing at a place and in a size.
fn placed(svg: &str, x: usize, y: usize, width: usize, height: usize) -> String {
    let place = format!("<svg x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" ");
    svg.replacen("<svg ", &place, 1)
}

fn text(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn panel(lines: usize) -> Panel {
        let line = |i: usize| Line { name: format!("a < {i}"), points: vec![(1.0, 2.0), (10.0, 20.0 + i as f64)] };
        Panel { title: "Time".to_owned(), x: "N".to_owned(), y: "ms".to_owned(), lines: (0..lines).map(line).collect() }
    }

    #[test]
    fn a_picture_needs_no_page_around_it() {
        let svg = figure(&[panel(2), panel(1), panel(3)]).unwrap();
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
        assert_eq!(svg.matches("<svg ").count(), svg.matches("</svg>").count());
        let drawn =
            (0..3).map(|colour| svg.matches(&format!("<polyline fill=\"none\" class=\"s{colour} d0\"")).count());
        assert_eq!(drawn.collect::<Vec<_>>(), [3, 2, 1]);
        for name in ["a &lt; 0", "a &lt; 1", "a &lt; 2"] {
            assert!(svg.contains(name));
        }
        // Every colour that is used is said.
        for class in ["s0", "s1", "s2", "f0", "ct", "cl", "cg", "cf"] {
            assert!(svg.contains(&format!(".{class} {{")), "{class}");
        }
    }

    #[test]
    fn equal_numbers_make_equal_bytes() {
        assert_eq!(figure(&[panel(2)]).unwrap(), figure(&[panel(2)]).unwrap());
    }
}
