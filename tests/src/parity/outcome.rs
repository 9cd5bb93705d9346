//! Whether a case passed.

use super::Outputs;
use super::case::{Array, Expect, Tolerance};
use std::fmt;

/// What came of a case.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All that exists was compared.
    Compared {
        /// The entry with the largest error in units of its tolerance; none if nothing was compared.
        worst: Option<Entry>,
        /// How many entries were compared.
        compared: usize,
        /// How many of them failed.
        failed: usize,
        /// Entries of parts that do not exist yet.
        not_yet: usize,
        /// Those parts.
        parts: Vec<String>,
    },
    /// It could not be computed, and why.
    Failed(String),
    /// The system does not exist yet.
    NotYet,
}

/// One compared entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its largest error, at the element that uses most of its tolerance; infinite if it was not computed, has another
    /// shape or is not a number.
    pub error: f64,
    /// The tolerance of that element.
    pub tolerance: f64,
    /// What is wrong beyond a large error.
    pub problem: Option<String>,
}

impl Entry {
    fn share(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.tolerance }
    }

    fn failed(&self) -> bool {
        self.problem.is_some() || self.error > self.tolerance
    }
}

impl Outcome {
    /// Whether the case counts as passed, failed (`Some(false)`) or skipped (`None`).
    pub fn passed(&self) -> Option<bool> {
        match self {
            Self::NotYet | Self::Compared { compared: 0, .. } => None,
            Self::Failed(_) => Some(false),
            Self::Compared { failed, .. } => Some(*failed == 0),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet => write!(f, "{:>10} {:>10}  not yet", "-", "-"),
            Self::Failed(why) => write!(f, "{:>10} {:>10}  FAIL  {why}", "-", "-"),
            Self::Compared { worst: None, parts, .. } => {
                write!(f, "{:>10} {:>10}  not yet  {}", "-", "-", parts.join(", "))
            }
            Self::Compared { worst: Some(worst), compared, failed, not_yet, parts } => {
                write!(f, "{:>10.2e} {:>10.2e}  ", worst.error, worst.tolerance)?;
                if *failed > 0 {
                    write!(f, "FAIL  {failed} of {compared}, worst `{}`", worst.name)?;
                    if let Some(problem) = &worst.problem {
                        write!(f, ": {problem}")?;
                    }
                } else {
                    f.write_str("ok")?;
                }
                if *not_yet > 0 {
                    write!(f, "  ({compared} of {} results; not yet: {})", compared + not_yet, parts.join(", "))?;
                }
                Ok(())
            }
        }
    }
}

/// Counts of cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that did not.
    pub failed: usize,
    /// Cases of systems that do not exist yet.
    pub skipped: usize,
}

impl Summary {
    /// Adds a case.
    pub fn count(&mut self, outcome: &Outcome) {
        match outcome.passed() {
            Some(true) => self.passed += 1,
            Some(false) => self.failed += 1,
            None => self.skipped += 1,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// Compares all that is expected with what was computed.
pub fn compare(expect: &[Expect], outputs: &Outputs) -> Outcome {
    let (mut worst, mut compared, mut failed, mut not_yet): (Option<Entry>, _, _, _) = (None, 0, 0, 0);
    let mut parts: Vec<String> = Vec::new();
    for wanted in expect {
        if let Some(part) = outputs.absent(&wanted.name) {
            not_yet += 1;
            if !parts.iter().any(|known| known == part) {
                parts.push(part.to_owned());
            }
            continue;
        }
        let entry = compare_entry(wanted, outputs.get(&wanted.name));
        compared += 1;
        failed += usize::from(entry.failed());
        if worst.as_ref().is_none_or(|w| entry.share() > w.share()) {
            worst = Some(entry);
        }
    }
    Outcome::Compared { worst, compared, failed, not_yet, parts }
}

fn compare_entry(wanted: &Expect, got: Option<&Array>) -> Entry {
    let entry = |error, tolerance, problem| Entry { name: wanted.name.clone(), error, tolerance, problem };
    let Some(got) = got else { return entry(f64::INFINITY, 0.0, Some("not computed".to_owned())) };
    if got.shape != wanted.value.shape && !(got.data.is_empty() && wanted.value.data.is_empty()) {
        let problem = format!("computed shape {:?}, wanted {:?}", got.shape, wanted.value.shape);
        return entry(f64::INFINITY, 0.0, Some(problem));
    }
    let mut worst = entry(0.0, 0.0, None);
    let mut largest = -1.0;
    for (a, b) in got.data.iter().zip(&wanted.value.data) {
        let tolerance = match wanted.tolerance {
            Tolerance::Exact => 0.0,
            Tolerance::Within { abs, rel } => abs + rel * b.abs(),
        };
        let error = (a - b).abs();
        let error = if error.is_nan() { f64::INFINITY } else { error };
        let this = Entry { error, tolerance, ..worst.clone() };
        if this.share() > largest {
            largest = this.share();
            worst = this;
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(tolerance: Tolerance, wanted: &[f64], got: Option<&[f64]>) -> Outcome {
        let value = Array { shape: vec![wanted.len()], data: wanted.to_vec() };
        let mut outputs = Outputs::default();
        if let Some(got) = got {
            outputs.numbers("out.y", got.iter().copied());
        }
        compare(&[Expect { name: "out.y".to_owned(), tolerance, value }], &outputs)
    }

    #[test]
    fn every_element_must_agree() {
        let near = Tolerance::Within { abs: 0.1, rel: 0.01 };
        for (tolerance, wanted, got, passed) in [
            (near, &[1.0, 100.0][..], Some(&[1.1, 101.0][..]), true),
            (near, &[1.0, 100.0], Some(&[1.2, 100.0]), false),
            (near, &[1.0, 100.0], Some(&[1.0, f64::NAN]), false),
            (near, &[1.0, 100.0], Some(&[1.0]), false),
            (near, &[1.0], None, false),
            (Tolerance::Exact, &[3.0, 4.0], Some(&[3.0, 4.0]), true),
            (Tolerance::Exact, &[3.0, 4.0], Some(&[3.0, 5.0]), false),
            (Tolerance::Exact, &[], Some(&[]), true),
        ] {
            assert_eq!(outcome(tolerance, wanted, got).passed(), Some(passed), "{wanted:?} {got:?}");
        }
    }

    #[test]
    fn parts_that_do_not_exist_are_named_and_not_compared() {
        let value = Array { shape: vec![], data: vec![1.0] };
        let expect = ["a.x", "b.x"].map(|name| Expect {
            name: name.to_owned(),
            tolerance: Tolerance::Exact,
            value: value.clone(),
        });
        let mut outputs = Outputs::default();
        outputs.number("a.x", 1.0);
        outputs.not_yet("b.", "b");
        let outcome = compare(&expect, &outputs);
        assert_eq!(outcome.passed(), Some(true));
        assert!(outcome.to_string().ends_with("ok  (1 of 2 results; not yet: b)"), "{outcome}");
        outputs.not_yet("a.", "a");
        assert_eq!(compare(&expect, &outputs).passed(), None);
    }
}
