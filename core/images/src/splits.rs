//! The words that splits go by, and splits that are made.

/// Words for training images.
const TRAIN: [&str; 2] = ["train", "training"];
/// Words for images that models are measured on. Where several are there, the first of them is used.
const TEST: [&str; 9] = ["test", "testing", "eval", "evaluation", "holdout", "validation", "valid", "val", "dev"];

/// What a name says of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// Training images.
    Train,
    /// Images that models are measured on. Of several, the one of the lowest rank is used.
    Test(usize),
}

impl Word {
    /// The usual word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => TRAIN[0],
            Self::Test(rank) => TEST.get(rank).copied().unwrap_or(TEST[0]),
        }
    }
}

/// What a name says of a split, in any case: `train`, `training`, `test`, `testing`, `eval`, `evaluation`,
/// `holdout`, `validation`, `valid`, `val`, `dev`; `hold-out` is `holdout`.
pub fn word(name: &str) -> Option<Word> {
    let name: String = name.to_lowercase().chars().filter(|c| !matches!(c, '-' | '_' | ' ')).collect();
    if TRAIN.contains(&name.as_str()) {
        return Some(Word::Train);
    }
    TEST.iter().position(|word| *word == name).map(Word::Test)
}

/// The word that the name of a file begins with, before a `-`, `_` or `.`: `train-00000-of-00002.parquet`, `hold_out.parquet`.
pub fn leading_word(name: &str) -> Option<Word> {
    let ends = name.match_indices(['-', '_', '.']).map(|(end, _)| end).chain([name.len()]);
    ends.take(2).find_map(|end| word(&name[..end]))
}

/// Which items make the test split: of each class the fraction `fraction`, rounded to the nearest, but at least one item and not
/// all where the class has two or more. Those with the smallest digests of their names are chosen, so that an item that is added
/// moves at most one other of its class.
pub fn by_class<'a>(items: impl Iterator<Item = (u32, &'a [u8])>, fraction: f32) -> Vec<bool> {
    let mut classes: std::collections::BTreeMap<u32, Vec<([u8; 32], usize)>> = std::collections::BTreeMap::new();
    let mut count = 0;
    for (index, (class, name)) in items.enumerate() {
        classes.entry(class).or_default().push((*blake3::hash(name).as_bytes(), index));
        count += 1;
    }
    let mut chosen = vec![false; count];
    for mut members in classes.into_values() {
        members.sort_unstable();
        members.iter().take(share(members.len(), fraction)).for_each(|&(_, index)| chosen[index] = true);
    }
    chosen
}

/// How many of `count` make the test split.
fn share(count: usize, fraction: f32) -> usize {
    let share = (count as f64 * f64::from(fraction)).round() as usize;
    match count {
        0 | 1 => 0,
        _ if fraction == 0.0 => 0,
        _ => share.clamp(1, count - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(counts: &[usize], fraction: f32) -> Vec<(u32, String, bool)> {
        let names: Vec<(u32, String)> = (0..)
            .zip(counts)
            .flat_map(|(class, &n)| (0..n).map(move |i| (class, format!("{class}/{i}.png"))))
            .collect();
        let chosen = by_class(names.iter().map(|(class, name)| (*class, name.as_bytes())), fraction);
        names.into_iter().zip(chosen).map(|((class, name), chosen)| (class, name, chosen)).collect()
    }

    #[test]
    fn shares_are_exact_in_every_class() {
        let chosen = |class: u32, all: &[(u32, String, bool)]| all.iter().filter(|(c, _, t)| *c == class && *t).count();
        let all = split(&[20, 200, 2, 1, 47, 3], 0.1);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|class| chosen(class, &all)), [2, 20, 1, 0, 5, 1]);
        let all = split(&[2, 10], 0.9);
        assert_eq!([0, 1].map(|class| chosen(class, &all)), [1, 9]);
        let all = split(&[2, 10], 0.0);
        assert_eq!([0, 1].map(|class| chosen(class, &all)), [0, 0]);
    }

    #[test]
    fn one_more_moves_one_at_most() {
        for count in 2..60 {
            let (before, after) = (split(&[count], 0.3), split(&[count + 1], 0.3));
            let moved = before.iter().zip(&after).filter(|(a, b)| a.2 != b.2).count();
            assert!(moved <= 1, "{count}: {moved}");
        }
    }

    #[test]
    fn words_are_known_in_any_case() {
        assert_eq!(word("Training"), Some(Word::Train));
        assert_eq!(word("hold-out"), word("HOLDOUT"));
        assert!(word("Valid") > word("test") && word("valid").is_some());
        assert_eq!(word("trains"), None);
        assert_eq!(leading_word("train-00000-of-00002.parquet"), Some(Word::Train));
        assert_eq!(leading_word("trainer-0.parquet"), None);
        for name in ["hold_out-00000-of-00002", "Hold-Out_0", "holdout.parquet", "hold-out"] {
            assert_eq!(leading_word(name), word("holdout"), "{name}");
        }
    }
}
