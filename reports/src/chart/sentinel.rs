//! Sentinel colours: roles while drawing, classes afterwards.

use plotters::style::RGBColor;

/// What a stroke or a filling is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Numbers and names along the scales.
    Text,
    /// Titles of the scales.
    Title,
    /// Lines of the grid.
    Grid,
    /// The frame.
    Frame,
    /// A series in ink, with its dash.
    Ink(usize),
    /// A series in one of the page's colours, with its dash.
    Series(usize, usize),
}

/// No colour of a heat map begins so, nor do black and white.
const MARK: u8 = 0x01;

impl Role {
    /// The colour to draw with.
    pub(super) fn colour(self) -> RGBColor {
        match self {
            Role::Text => RGBColor(MARK, 0xF0, 0),
            Role::Title => RGBColor(MARK, 0xF1, 0),
            Role::Grid => RGBColor(MARK, 0xF2, 0),
            Role::Frame => RGBColor(MARK, 0xF3, 0),
            Role::Ink(dash) => RGBColor(MARK, 0xE0, dash as u8),
            Role::Series(colour, dash) => RGBColor(MARK, colour as u8, dash as u8),
        }
    }

    fn class(kind: u8, dash: u8, stroke: bool) -> String {
        match (kind, stroke) {
            (0xF0, _) => "ct".to_owned(),
            (0xF1, _) => "cl".to_owned(),
            (0xF2, _) => "cg".to_owned(),
            (0xF3, _) => "cf".to_owned(),
            (0xE0, true) => format!("ci d{dash}"),
            (0xE0, false) => "cm".to_owned(),
            (colour, true) => format!("s{colour} d{dash}"),
            (colour, false) => format!("f{colour}"),
        }
    }
}

/// Turns sentinel colours into classes, and leaves out what is the default anyway.
pub(super) fn resolve(svg: &str) -> String {
    let mut out = String::with_capacity(svg.len());
    let mut rest = svg;
    while let Some(at) = rest.find("=\"#01") {
        let (before, after) = rest.split_at(at);
        let digits = after.get(3..9).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let attribute = ["stroke", "fill"].into_iter().find(|name| before.ends_with(name));
        let (Some(colour), Some(attribute)) = (digits, attribute) else {
            out.push_str(before);
            out.push_str(&after[..5]);
            rest = &after[5..];
            continue;
        };
        out.push_str(&before[..before.len() - attribute.len()]);
        let class = Role::class((colour >> 8) as u8, colour as u8, attribute == "stroke");
        out.push_str(&format!("class=\"{class}\""));
        rest = &after[10..];
    }
    out.push_str(rest);
    for default in [" opacity=\"1\"", " font-family=\"sans-serif\"", " stroke=\"none\""] {
        out = out.replace(default, "");
    }
    out.replace(" \"/>", "\"/>").replace("\n</text>", "</text>").replace(">\n", ">")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_becomes_its_class_and_other_colours_stay() {
        let RGBColor(r, g, b) = Role::Series(3, 2).colour();
        let line =
            format!("<polyline fill=\"none\" opacity=\"1\" stroke=\"#{r:02X}{g:02X}{b:02X}\" points=\"0,0 1,1 \"/>\n");
        assert_eq!(resolve(&line), "<polyline fill=\"none\" class=\"s3 d2\" points=\"0,0 1,1\"/>");
        let dot = "<circle r=\"4\" opacity=\"1\" fill=\"#010300\" stroke=\"none\"/>";
        assert_eq!(resolve(dot), "<circle r=\"4\" class=\"f3\"/>");
        let heat = "<rect fill=\"#440154\"/>";
        assert_eq!(resolve(heat), heat);
    }
}
