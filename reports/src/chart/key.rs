//! The small drawing before a name in a chart's key.

use super::COLOURS;
use super::marker::outline;

/// A line with its dash, a marker, both, or with neither a patch of the colour, as SVG.
pub(crate) fn key(colour: Option<usize>, shape: Option<usize>, dash: Option<usize>) -> String {
    let (stroke, fill) = match colour {
        Some(colour) => (format!("s{}", colour % COLOURS), format!("f{}", colour % COLOURS)),
        None => ("ci".to_owned(), "cm".to_owned()),
    };
    let mut svg = String::from("<svg class=\"key\" viewBox=\"0 0 28 12\" aria-hidden=\"true\">");
    if let Some(dash) = dash.map(|dash| dash % COLOURS) {
        svg.push_str(&format!("<path class=\"{stroke} k{dash}\" fill=\"none\" stroke-width=\"2\" d=\"M1 6H27\"/>"));
    }
    if let Some(shape) = shape {
        match outline(shape, 4.0) {
            None => svg.push_str(&format!("<circle class=\"{fill}\" cx=\"14\" cy=\"6\" r=\"4\"/>")),
            Some(points) => {
                let text: Vec<String> = points.iter().map(|(x, y)| format!("{:.1},{:.1}", x + 14.0, y + 6.0)).collect();
                svg.push_str(&format!("<polygon class=\"{fill}\" points=\"{}\"/>", text.join(" ")));
            }
        }
    } else if dash.is_none() {
        svg.push_str(&format!("<rect class=\"{fill}\" x=\"7\" y=\"1\" width=\"14\" height=\"10\" rx=\"2\"/>"));
    }
    svg.push_str("</svg>");
    svg
}
