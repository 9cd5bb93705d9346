//! Numbers as text: sensible digits, units, times.

use crate::measure::Measure;
use crate::stats::Estimate;

/// A true minus sign, as wide as a plus.
const MINUS: char = '\u{2212}';

/// A number with about four significant digits, and commas between thousands.
pub(crate) fn number(value: f64) -> String {
    significant(value, 4)
}

/// A number that somebody chose, such as a scale: without zeros at its end.
pub(crate) fn chosen(value: f64) -> String {
    let text = number(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A number with this many significant digits; whole numbers below a million keep all of theirs.
pub(crate) fn significant(value: f64, digits: i32) -> String {
    if !value.is_finite() {
        return not_finite(value);
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let size = value.abs();
    if size >= 1e18 {
        return format!("{value:.*e}", (digits - 2).max(0) as usize).replace('-', &MINUS.to_string());
    }
    if size >= 1e6 {
        return scaled(value, digits);
    }
    if value.fract() == 0.0 {
        return grouped(&format!("{value:.0}"));
    }
    if size < 1e-4 {
        return format!("{value:.*e}", (digits - 2).max(0) as usize).replace('-', &MINUS.to_string());
    }
    let decimals = (digits - 1 - size.log10().floor() as i32).max(0);
    decimal(value, decimals)
}

/// Millions and more with a letter: `1.39 M`, `2.4 G`.
fn scaled(value: f64, digits: i32) -> String {
    let powers = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")];
    let (power, letter) = powers.into_iter().find(|(power, _)| value.abs() >= *power).unwrap_or((1e6, "M"));
    let mantissa = value / power;
    let decimals = (digits - 2 - mantissa.abs().log10().floor() as i32).max(0);
    format!("{} {letter}", decimal(mantissa, decimals))
}

fn not_finite(value: f64) -> String {
    if value.is_nan() {
        "not a number".to_owned()
    } else if value > 0.0 {
        "∞".to_owned()
    } else {
        format!("{MINUS}∞")
    }
}

/// A number with this many decimals, negative zero as zero.
fn decimal(value: f64, decimals: i32) -> String {
    let text = format!("{value:.*}", decimals.max(0) as usize);
    let zero = text.chars().all(|c| matches!(c, '-' | '0' | '.'));
    grouped(if zero { text.trim_start_matches('-') } else { &text })
}

/// Puts commas between thousands and a true minus in front.
fn grouped(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut out = String::new();
    if !sign.is_empty() {
        out.push(MINUS);
    }
    for (place, digit) in whole.chars().enumerate() {
        // Four digits read well without a comma.
        if place > 0 && whole.len() > 4 && (whole.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// The factor between a measure's value and what is shown: shares are shown in percent.
pub(crate) fn scale(measure: &Measure) -> f64 {
    if measure.unit == "%" { 100.0 } else { 1.0 }
}

/// A measure's value with its unit.
pub(crate) fn value(measure: &Measure, value: f64) -> String {
    match measure.unit {
        "s" => seconds(value),
        "%" => format!("{}%", significant(100.0 * value, 3)),
        // Counts of codes need no unit in every cell, nor do numbers without one.
        "" | "codes" => number(value),
        unit => format!("{} {unit}", number(value)),
    }
}

/// The first digits of a digest or a commit: enough to tell it apart.
pub(crate) fn digest(text: &str) -> &str {
    text.get(..12).unwrap_or(text)
}

/// Text with a capital at its start, as for a caption.
pub(crate) fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// The one precision of all cells of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// So many decimals of what is shown.
    Decimals(i32),
    /// Each cell by itself: times, and numbers of very different sizes.
    Each,
}

impl Precision {
    /// Four significant digits of the largest value (three of speeds), and two of the largest half of an interval;
    /// none beyond the point where all are whole, or where numbers without intervals, such as settings, end.
    pub(crate) fn of(measure: &Measure, cells: impl Iterator<Item = Estimate>) -> Self {
        /// Values whose sizes differ by more than this share no number of decimals.
        const SPREAD: f64 = 1e4;
        let factor = scale(measure);
        let (mut values, mut halves) = (Vec::new(), Vec::new());
        for cell in cells.filter(|cell| cell.mean.is_finite()) {
            values.push((cell.mean * factor).abs());
            halves
                .extend(half_width(&cell, factor).filter(|half| *half > 1e-12 * values.last().copied().unwrap_or(0.0)));
        }
        let largest = values.iter().copied().fold(0.0, f64::max);
        let least = values.iter().copied().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
        if measure.unit == "s" || !(1e-4..1e6).contains(&largest) || largest > SPREAD * least {
            return Self::Each;
        }
        let needed = |size: f64, digits: i32| (digits - 1 - size.log10().floor() as i32).clamp(0, 8);
        let digits = if measure.unit == "images/s" { 3 } else { 4 };
        let exact = |decimals: i32| {
            let shown = |value: f64| value * 10f64.powi(decimals);
            values.iter().all(|&value| (shown(value) - shown(value).round()).abs() <= 1e-9 * shown(value))
        };
        let most = needed(largest, digits);
        let tried = 0..if halves.is_empty() { most } else { 1 };
        let of_values = tried.into_iter().find(|&decimals| exact(decimals)).unwrap_or(most);
        let of_halves = halves.iter().copied().reduce(f64::max).map_or(0, |half| needed(half, 2));
        Self::Decimals(of_values.max(of_halves))
    }

    /// A measure's value without its unit, for the cells of a table whose head names it.
    pub(crate) fn bare(self, measure: &Measure, value: f64) -> String {
        match self {
            Self::Decimals(decimals) if value.is_finite() => decimal(value * scale(measure), decimals),
            _ => bare(measure, value),
        }
    }

    /// A mean and half of its interval, `25.41 ± 0.12`, without unit. Without a half if all seeds gave one value, as counts do.
    pub(crate) fn estimate(self, measure: &Measure, found: &Estimate) -> String {
        let factor = scale(measure);
        let half = half_width(found, factor).filter(|half| *half > 1e-12 * (found.mean * factor).abs());
        match (self, half) {
            (Self::Each, _) => estimate(measure, found),
            (Self::Decimals(decimals), Some(half)) => {
                format!("{} ± {}", self.bare(measure, found.mean), decimal(half, decimals))
            }
            (Self::Decimals(_), None) => self.bare(measure, found.mean),
        }
    }
}

/// A measure's value without its unit.
fn bare(measure: &Measure, value: f64) -> String {
    match measure.unit {
        "s" => seconds(value),
        "%" => significant(100.0 * value, 3),
        "images/s" => significant(value, 3),
        _ => number(value),
    }
}

/// A mean and half of its interval, `25.41 ± 0.12`, without unit; the half with two significant digits or more, so that
/// a table's cells agree. Without a half if all seeds gave one value, as counts do.
pub(crate) fn estimate(measure: &Measure, estimate: &Estimate) -> String {
    let factor = scale(measure);
    match half_width(estimate, factor) {
        Some(half) if half > 1e-12 * (estimate.mean * factor).abs() => {
            let shown = estimate.mean * factor;
            let digits = if measure.unit == "%" { 3 } else { 4 };
            let decimals = decimals(half, shown).max((digits - 1 - shown.abs().log10().floor() as i32).clamp(0, 6));
            format!("{} ± {}", decimal(shown, decimals), decimal(half, decimals))
        }
        _ => bare(measure, estimate.mean),
    }
}

/// A signed difference with its unit; shares differ by percentage points.
pub(crate) fn difference(measure: &Measure, estimate: &Estimate) -> String {
    let factor = scale(measure);
    let shown = estimate.mean * factor;
    let text = match half_width(estimate, factor) {
        Some(half) => decimal(shown, decimals(half, shown)),
        None => significant(shown, 3),
    };
    let sign = if shown > 0.0 { "+" } else { "" };
    match measure.unit {
        "%" => format!("{sign}{text} points"),
        "" => format!("{sign}{text}"),
        unit => format!("{sign}{text} {unit}"),
    }
}

/// An amount with its unit and no sign, such as a margin.
pub(crate) fn amount(measure: &Measure, value: f64) -> String {
    let text = significant(value * scale(measure), 2);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text };
    match measure.unit {
        "%" => format!("{text} points"),
        "" => text,
        unit => format!("{text} {unit}"),
    }
}

/// The interval, `[3.8, 4.4]`; empty if there is none.
pub(crate) fn interval(measure: &Measure, estimate: &Estimate) -> String {
    let factor = scale(measure);
    let (Some((low, high)), Some(half)) = (estimate.interval, half_width(estimate, factor)) else {
        return String::new();
    };
    let decimals = decimals(half, estimate.mean * factor);
    format!("[{}, {}]", decimal(low * factor, decimals), decimal(high * factor, decimals))
}

fn half_width(estimate: &Estimate, factor: f64) -> Option<f64> {
    estimate.interval.map(|(low, high)| 0.5 * (high - low) * factor)
}

/// Decimals that give the half width two significant digits; at most six, and three significant digits of the value
/// if the half width is nothing.
fn decimals(half: f64, value: f64) -> i32 {
    let (size, digits) = if half > 0.0 { (half, 2) } else { (value.abs(), 3) };
    if size > 0.0 && size.is_finite() { (digits - 1 - size.log10().floor() as i32).clamp(0, 6) } else { 0 }
}

/// A time: `12.3 s`, `4:07` (minutes and seconds), `2:04:07`.
pub(crate) fn seconds(value: f64) -> String {
    if !value.is_finite() || value < 0.0 {
        return not_finite(value);
    }
    if value < 59.95 {
        return format!("{} s", significant(value, 3));
    }
    let whole = value.round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::measure;

    #[test]
    fn numbers_keep_the_digits_that_mean_something() {
        for (value, text) in [
            (0.0, "0"),
            (25.4183, "25.42"),
            (-0.012345, "−0.01235"),
            (1536.0, "1536"),
            (123456.0, "123,456"),
            (1_389_123.0, "1.39 M"),
            (2.5e12, "2.50 T"),
            (0.0000312, "3.12e−5"),
            (1e30, "1.00e30"),
            (12345.67, "12,346"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(number(f64::NAN), "not a number");
        assert_eq!([1.5, 2.0, 1.1 - 1.0, 40.0].map(chosen), ["1.5", "2", "0.1", "40"]);
    }

    #[test]
    fn times_read_as_minutes_and_seconds() {
        assert_eq!(seconds(12.345), "12.3 s");
        assert_eq!(seconds(247.2), "4:07");
        assert_eq!(seconds(7447.0), "2:04:07");
        assert_eq!(seconds(59.97), "1:00");
    }

    #[test]
    fn an_estimate_is_rounded_by_its_interval() {
        let found = Estimate { mean: 4.1234, interval: Some((3.8134, 4.4334)), n: 3, error: None };
        assert_eq!(estimate(&measure("psnr"), &found), "4.123 ± 0.310");
        assert_eq!(difference(&measure("psnr"), &found), "+4.12 dB");
        assert_eq!(interval(&measure("psnr"), &found), "[3.81, 4.43]");
        let share = Estimate::bare(-0.125, 1);
        assert_eq!(difference(&measure("usage"), &share), "−12.5 points");
        assert_eq!(value(&measure("usage"), 0.875), "87.5%");
    }

    #[test]
    fn the_cells_of_a_column_have_one_precision() {
        let cells = |name: &str, values: &[f64]| {
            let precision = Precision::of(&measure(name), values.iter().map(|value| Estimate::bare(*value, 1)));
            values.iter().map(|value| precision.bare(&measure(name), *value)).collect::<Vec<_>>()
        };
        assert_eq!(cells("usage", &[0.95, 1.0, 0.0627, 0.0]), ["95.0", "100.0", "6.3", "0.0"]);
        assert_eq!(cells("precision", &[0.95, 1.0, 0.0627, 0.0]), ["0.950", "1.000", "0.063", "0.000"]);
        assert_eq!(cells("psnr", &[18.022, 18.9387, 9.0]), ["18.02", "18.94", "9.00"]);
        assert_eq!(cells("prior_bits_per_image", &[1805.25, 21.37]), ["1805", "21"]);
        assert_eq!(cells("perplexity", &[512.0, 1.0]), ["512", "1"]);
        assert_eq!(cells("guidance", &[1.5, 2.0]), ["1.5", "2.0"]);
        assert_eq!(cells("parameters", &[1_389_123.0, 20.0]), ["1.39 M", "20"]);
        let half =
            |mean: f64, half: f64| Estimate { mean, interval: Some((mean - half, mean + half)), n: 3, error: None };
        let found = [half(18.022, 0.028), half(18.9387, 0.0053), Estimate::bare(18.0, 1)];
        let precision = Precision::of(&measure("psnr"), found.into_iter());
        let texts = found.map(|found| precision.estimate(&measure("psnr"), &found));
        assert_eq!(texts, ["18.022 ± 0.028", "18.939 ± 0.005", "18.000"]);
    }
}
