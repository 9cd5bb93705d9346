//! What trials were set to: the facts of the table at the head of the page, and the numbers that warnings look at.

/// The name of the fact that tells which classes samples are drawn of, and how often each.
pub const LABELS: &str = "labels of samples";

/// One line of the setup: what it is about, and what is so.
///
/// The page shows a fact once where all trials agree, and by axis where they do not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    /// What it is about, such as `data` or `prior's training`.
    pub name: String,
    /// What is so, such as `400 steps of 16 images, Adam, learning rate 0.003`.
    pub text: String,
}

/// Measures that a trial does not have, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Their labels or names, such as `Fréchet distances`.
    pub measures: String,
    /// Why, such as `the images carry no labels to train a classifier on`.
    pub reason: String,
}

/// The sizes of a trial, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sizes {
    /// Classes of the data set; 0 if its images carry no labels.
    pub classes: Option<usize>,
    /// Images in each class of the test split.
    pub test_by_class: Vec<usize>,
    /// Images in the test split.
    pub test_images: Option<usize>,
    /// Of these, how many are measured.
    pub measured_images: Option<usize>,
    /// Optimizer steps of the tokenizer; none if it started from given weights, which nobody here trained.
    pub steps: Option<u64>,
    /// The token map of each level that has codes.
    pub levels: Vec<CodeSizes>,
}

/// The codes of one level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeSizes {
    /// Places of the map: height times width.
    pub positions: usize,
    /// Number of codes at each depth.
    pub codebooks: Vec<usize>,
    /// Whether all depths read one codebook.
    pub shared: bool,
}

impl Fact {
    /// A fact.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }
}

impl Sizes {
    /// The codes of a level, counted from 1; without a number, of the only one there is.
    pub(crate) fn level(&self, level: Option<usize>) -> Option<&CodeSizes> {
        self.levels.get(level.unwrap_or(1).checked_sub(1)?)
    }

    /// Codes of the codebook at a level and depth, and the tokens of all measured images that choose among them.
    pub(crate) fn codes_and_tokens(&self, level: Option<usize>, depth: usize) -> Option<(usize, usize)> {
        let codes = self.level(level)?;
        Some((*codes.codebooks.get(depth.checked_sub(1)?)?, self.measured_images? * codes.positions))
    }

    /// All codes of a level and the tokens that choose among them, at any depth.
    pub(crate) fn all_codes_and_tokens(&self, level: Option<usize>) -> Option<(usize, usize)> {
        let codes = self.level(level)?;
        let all: usize = codes.codebooks.iter().sum();
        let all = if codes.shared { codes.codebooks.first().copied()? } else { all };
        Some((all, self.measured_images? * codes.positions * codes.codebooks.len()))
    }
}

/// The largest share of codes that so many tokens can show in use, and the share that they show where all codes are equally
/// frequent.
pub(crate) fn usage_ceiling(codes: usize, tokens: usize) -> (f64, f64) {
    let (codes, tokens) = (codes.max(1) as f64, tokens as f64);
    ((tokens / codes).min(1.0), -f64::exp_m1(tokens * f64::ln_1p(-1.0 / codes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_bound_what_usage_can_be() {
        assert_eq!(usage_ceiling(1024, 256).0, 0.25);
        assert_eq!(usage_ceiling(64, 6400).0, 1.0);
        // Of K equally frequent codes, n draws show K (1 - (1 - 1/K)^n).
        let drawn = usage_ceiling(1024, 1024).1;
        assert!((drawn - (1.0 - (1.0 - 1.0 / 1024.0_f64).powi(1024))).abs() < 1e-12, "{drawn}");
        assert_eq!(usage_ceiling(1, 5).1, 1.0);
    }

    #[test]
    fn separate_codebooks_count_by_depth_and_a_shared_one_once() {
        let level = CodeSizes { positions: 64, codebooks: vec![16, 16], shared: false };
        let mut sizes = Sizes { measured_images: Some(10), levels: vec![level], ..Sizes::default() };
        assert_eq!(sizes.codes_and_tokens(None, 2), Some((16, 640)));
        assert_eq!(sizes.all_codes_and_tokens(Some(1)), Some((32, 1280)));
        sizes.levels[0].shared = true;
        assert_eq!(sizes.all_codes_and_tokens(None), Some((16, 1280)));
        assert_eq!(sizes.codes_and_tokens(Some(2), 1), None);
        assert_eq!(sizes.codes_and_tokens(None, 0), None);
    }
}
