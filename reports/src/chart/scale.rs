//! Scales: from values to places, and the ticks between.

use crate::format;

/// How the values of one direction become places.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scale {
    /// Title with its unit.
    pub(crate) label: String,
    /// Names at 0, 1, 2, …, or none for numbers.
    pub(crate) names: Vec<String>,
    /// Values that ticks stand at, or none for round numbers.
    pub(crate) marks: Vec<f64>,
    /// Whether equal ratios take equal space.
    pub(crate) log: bool,
    /// Whether zero must be on it.
    pub(crate) zero: bool,
    /// Factor of the shown numbers: 100 for percent.
    pub(crate) factor: f64,
}

impl Scale {
    /// A linear scale.
    pub(crate) fn linear(label: impl Into<String>) -> Self {
        Self { label: label.into(), names: Vec::new(), marks: Vec::new(), log: false, zero: false, factor: 1.0 }
    }

    /// A logarithmic scale.
    pub(crate) fn log(label: impl Into<String>) -> Self {
        Self { log: true, ..Self::linear(label) }
    }

    /// A logarithmic scale of sizes that were chosen, each of which has its tick: 1, 2, 4 rather than 1, 2, 5.
    pub(crate) fn sizes(label: impl Into<String>, values: impl Iterator<Item = f64>) -> Self {
        let mut marks: Vec<f64> = values.collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        Self { marks, ..Self::log(label) }
    }

    /// Names in a row.
    pub(crate) fn names(label: impl Into<String>, names: Vec<String>) -> Self {
        Self { names, ..Self::linear(label) }
    }

    /// The place of a value before it is stretched to pixels; `None` for what has no place (zero on a log scale).
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let place = if self.log { (value * self.factor).log10() } else { value * self.factor };
        place.is_finite().then_some(place)
    }

    /// The range of places that holds these values, with some room.
    pub(super) fn range(&self, values: impl Iterator<Item = f64>) -> (f64, f64) {
        if !self.names.is_empty() {
            return (-0.5, self.names.len() as f64 - 0.5);
        }
        let places = values.filter_map(|value| self.place(value));
        let (mut low, mut high) =
            places.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), place| (low.min(place), high.max(place)));
        if low > high {
            return (0.0, 1.0);
        }
        let at_zero = !self.log && low == 0.0;
        if self.zero && !self.log {
            (low, high) = (low.min(0.0), high.max(0.0));
        }
        if high - low < 1e-9 * high.abs().max(1e-9) {
            let room = if self.log { 0.15 } else { high.abs().max(1.0) * 0.1 };
            return (low - room, high + room);
        }
        let room = (high - low) * 0.06;
        // A quantity that starts at nothing stands on the frame.
        let floor = if at_zero || (self.zero && low == 0.0 && !self.log) { 0.0 } else { low - room };
        (floor, high + room)
    }

    /// Places and names of the ticks within a range.
    pub(super) fn ticks(&self, (low, high): (f64, f64)) -> Vec<(f64, String)> {
        if !self.names.is_empty() {
            return self.names.iter().enumerate().map(|(place, name)| (place as f64, name.clone())).collect();
        }
        if !self.marks.is_empty() {
            let tick = |value: &f64| Some((self.place(*value)?, format::number(value * self.factor)));
            return self.marks.iter().filter_map(tick).collect();
        }
        if self.log { logarithmic(low, high) } else { linear(low, high) }
    }
}

fn linear(low: f64, high: f64) -> Vec<(f64, String)> {
    let step = step((high - low) / 6.0);
    let decimals = (-step.log10().floor()).max(0.0) as usize;
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last)
        .map(|tick| {
            let value = tick as f64 * step;
            let text =
                if step >= 1.0 || decimals > 4 { format::significant(value, 3) } else { format!("{value:.decimals$}") };
            (value, text.replace('-', "\u{2212}"))
        })
        .collect()
}

/// The next of 1, 2, 5, 10, … that is not less.
fn step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|step| step * power >= rough * 0.999).unwrap_or(10.0);
    step * power
}

fn logarithmic(low: f64, high: f64) -> Vec<(f64, String)> {
    // Under a third of a decade, even 1, 2, 5 may leave one tick or none.
    if high - low < 0.5 {
        return linear(10_f64.powf(low), 10_f64.powf(high))
            .into_iter()
            .filter(|(value, _)| *value > 0.0)
            .map(|(value, text)| (value.log10(), text))
            .collect();
    }
    let digits: &[f64] = if high - low < 2.9 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    // Long ranges label each second or third power only.
    let every = ((high - low) / 6.0).ceil().max(1.0) as i32;
    let (first, last) = (low.floor() as i32, high.ceil() as i32);
    let mut ticks = Vec::new();
    for power in (first..=last).filter(|power| power.rem_euclid(every) == 0) {
        for digit in digits {
            let value = digit * 10_f64.powi(power);
            let place = value.log10();
            if (low..=high).contains(&place) {
                // Whole and round: the digits behind would all be zeros.
                let text = if value < 1.0 {
                    format!("{value:.*}", (-power).max(0) as usize)
                } else {
                    format::significant(value, 2)
                };
                ticks.push((place, text));
            }
        }
    }
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(scale: &Scale, low: f64, high: f64) -> Vec<String> {
        scale.ticks((low, high)).into_iter().map(|tick| tick.1).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(texts(&Scale::linear(""), 0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(texts(&Scale::linear(""), 17.0, 31.0), ["20", "25", "30"]);
        assert_eq!(texts(&Scale::linear(""), -1.0, 1.0), ["−1.0", "−0.5", "0.0", "0.5", "1.0"]);
        assert_eq!(texts(&Scale::log(""), 0.0, 2.0), ["1", "2", "5", "10", "20", "50", "100"]);
        assert_eq!(texts(&Scale::log(""), -4.0, 0.0).first().map(String::as_str), Some("0.0001"));
    }

    #[test]
    fn chosen_sizes_have_their_own_ticks() {
        let scale = Scale::sizes("", [16384.0, 1.0, 4.0, 1.0].into_iter());
        let range = scale.range([1.0, 16384.0].into_iter());
        let ticks = [(1_f64, "1"), (4.0, "4"), (16384.0, "16,384")];
        assert_eq!(scale.ticks(range), ticks.map(|(size, text)| (size.log10(), text.to_owned())));
    }

    #[test]
    fn a_log_scale_has_no_place_for_zero() {
        assert_eq!(Scale::log("").place(0.0), None);
        assert_eq!(Scale::log("").place(100.0), Some(2.0));
    }
}
