//! Heat maps in viridis, with the number in each cell.

use plotters::prelude::{IntoDrawingArea, Rectangle, SVGBackend, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color, IntoFont, RGBColor, WHITE};

use super::draw::{FINE, opening};
use super::sentinel::{Role, resolve};
use crate::error::{Error, Result};
use crate::viridis::viridis;

/// A square table of shares.
pub(crate) struct Heat {
    /// Identifier in the page.
    pub(crate) id: String,
    /// What it shows.
    pub(crate) title: String,
    /// How it reads.
    pub(crate) description: String,
    /// Title of both sides.
    pub(crate) label: String,
    /// Values in [0, 1], by row; NaN is left blank.
    pub(crate) rows: Vec<Vec<f64>>,
}

const CELL: f64 = 44.0;
const LEFT: f64 = 34.0;
const TOP: f64 = 28.0;

/// The heat map as an `svg` element.
///
/// # Errors
/// If plotters cannot draw it.
pub(crate) fn heat(heat: &Heat) -> Result<String> {
    let side = CELL * heat.rows.len() as f64;
    let (width, height) = ((LEFT + side + 6.0).max(150.0), TOP + side + 26.0);
    let mut svg = String::new();
    paint(heat, &mut svg, width, height).map_err(|message| Error::Figure { figure: heat.id.clone(), message })?;
    let body = resolve(svg.split_once('>').map_or("", |(_, body)| body));
    let body = body.trim_end().trim_end_matches("</svg>");
    let opening = opening(&heat.id, &heat.title, &heat.description, width, height);
    Ok(format!(
        "{}{body}</svg>",
        opening.replacen("class=\"chart\"", &format!("class=\"chart\" style=\"max-width:{width}px\""), 1)
    ))
}

fn paint(heat: &Heat, svg: &mut String, width: f64, height: f64) -> std::result::Result<(), String> {
    let area = SVGBackend::with_string(svg, ((width * FINE) as u32, (height * FINE) as u32)).into_drawing_area();
    let at = |x: f64, y: f64| ((x * FINE).round() as i32, (y * FINE).round() as i32);
    let write = |text: String, x: f64, y: f64, colour: RGBColor| {
        let font = ("sans-serif", 12.0 * FINE * 1.24).into_font().color(&colour);
        let style = font.pos(Pos::new(HPos::Center, VPos::Center));
        area.draw(&Text::new(text, at(x, y), style)).map_err(|error| error.to_string())
    };
    let middle = |place: usize| (place as f64 + 0.5) * CELL;
    write(heat.label.clone(), LEFT + 0.5 * CELL * heat.rows.len() as f64, 10.0, Role::Title.colour())?;
    for (row, values) in heat.rows.iter().enumerate() {
        write((row + 1).to_string(), LEFT - 14.0, TOP + middle(row), Role::Text.colour())?;
        write(
            (row + 1).to_string(),
            LEFT + middle(row),
            TOP + 12.0 + CELL * heat.rows.len() as f64,
            Role::Text.colour(),
        )?;
        for (column, &value) in values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            let [r, g, b] = viridis(value);
            let (x, y) = (LEFT + column as f64 * CELL, TOP + row as f64 * CELL);
            let cell = [at(x + 0.5, y + 0.5), at(x + CELL - 0.5, y + CELL - 0.5)];
            area.draw(&Rectangle::new(cell, RGBColor(r, g, b).filled())).map_err(|error| error.to_string())?;
            let ink = if value > 0.55 { BLACK } else { WHITE };
            write(cell_text(value), x + 0.5 * CELL, y + 0.5 * CELL, ink)?;
        }
    }
    area.present().map_err(|error| error.to_string())
}

/// What fits into a cell.
fn cell_text(value: f64) -> String {
    if value == 1.0 { "1".to_owned() } else { format!("{value:.2}") }
}
