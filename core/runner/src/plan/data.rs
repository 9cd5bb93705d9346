//! What a plan and a report tell of a data set.

use crate::ui::{in_line, thousands};
use rqlab_sdk::contracts::{DatasetInfo, LeftOut, Sizes};
use std::sync::Arc;

/// How many classes are named before the rest is only counted.
const NAMED: usize = 12;

/// A data set of an experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSet {
    /// Its component, and the path that is written for it.
    pub name: String,
    /// What it is.
    pub info: Arc<DatasetInfo>,
}

impl DataSet {
    /// What there is, in a line: "4 classes, 224 + 16 images, 3 files left out (2 .svg, 1 damaged)".
    pub fn headline(&self) -> String {
        let info = &self.info;
        let classes = match info.classes.len() {
            0 => "no labels".to_owned(),
            1 => "1 class".to_owned(),
            count => format!("{} classes", thousands(count)),
        };
        let images = format!("{} + {} images", thousands(info.train), thousands(info.test));
        let mut parts = vec![classes, images];
        parts.extend(left_out(&info.summary.left_out));
        in_line(&parts.join(", ")).into_owned()
    }

    /// What there is to know of it, by what it is about: names and counts of classes, sizes, how splits are made, what is left
    /// out, what is done to images. What there is nothing to say of is not in it.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let (info, summary) = (&self.info, &self.info.summary);
        let [height, width, channels] = info.image;
        let met = summary.sizes.map(|sizes| format!("{}, used as ", range_of(sizes))).unwrap_or_default();
        let left_out = summary.left_out.iter().map(|LeftOut { unit, reason, count, example }| {
            let plural = if *count == 1 { "" } else { "s" };
            format!("{} {unit}{plural}, {reason}, such as {example}", thousands(*count))
        });
        let facts = [
            ("classes", named(&info.classes)),
            ("images per class", self.balance()),
            ("no training images of", named(&self.without(0))),
            ("no test images of", named(&self.without(1))),
            ("size", format!("{met}{height} x {width} x {channels} (height x width x channels)")),
            ("splits", summary.splits.clone()),
            ("left out", left_out.collect::<Vec<_>>().join("; ")),
            ("every image", summary.preparation.join("; ")),
            ("in training", summary.augmentation.join("; ")),
            ("note", summary.notes.join("; ")),
        ];
        let shown = facts.into_iter().filter(|(_, fact)| !fact.is_empty());
        shown.map(|(what, fact)| (what, in_line(&fact).into_owned())).collect()
    }

    /// The classes that have no image in the split: 0 is training, 1 is test.
    fn without(&self, split: usize) -> Vec<String> {
        let counts = self.info.classes.iter().zip(&self.info.summary.per_class);
        counts.filter(|(_, counts)| counts[split] == 0).map(|(class, _)| class.clone()).collect()
    }

    /// From how many to how many images classes have, unless all have equally many.
    fn balance(&self) -> String {
        let of = |split: usize, name: &str| {
            let counts = self.info.summary.per_class.iter().map(|counts| counts[split]);
            let (least, most) = (counts.clone().min()?, counts.max()?);
            Some(if least == most {
                format!("{} {name}", thousands(least))
            } else {
                format!("{} to {} {name}", thousands(least), thousands(most))
            })
        };
        [of(0, "training"), of(1, "test")].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// "3 files left out (2 .svg, 1 damaged)" for each unit.
fn left_out(all: &[LeftOut]) -> Vec<String> {
    let mut units: Vec<&str> = Vec::new();
    for out in all {
        if !units.contains(&out.unit.as_str()) {
            units.push(&out.unit);
        }
    }
    let of_unit = |unit: &str| {
        let these = || all.iter().filter(|out| out.unit == unit);
        let count: usize = these().map(|out| out.count).sum();
        let reasons: Vec<String> = these().map(|out| format!("{} {}", thousands(out.count), out.reason)).collect();
        let plural = if count == 1 { "" } else { "s" };
        format!("{} {unit}{plural} left out ({})", thousands(count), reasons.join(", "))
    };
    units.into_iter().map(of_unit).collect()
}

/// The first of some names, and how many more there are.
fn named(names: &[String]) -> String {
    let mut text = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", thousands(names.len() - NAMED)));
    }
    text
}

/// "32 x 48", or "16 to 64 x 48 to 50": height by width.
fn range_of(sizes: Sizes) -> String {
    let range =
        |[least, most]: [usize; 2]| if least == most { format!("{least}") } else { format!("{least} to {most}") };
    format!("{} x {}", range(sizes.height), range(sizes.width))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rqlab_sdk::contracts::Summary;

    fn set(per_class: Vec<[usize; 2]>, left_out: Vec<LeftOut>) -> DataSet {
        let sum = |split: usize| per_class.iter().map(|counts| counts[split]).sum();
        let info = DatasetInfo {
            image: [16, 16, 3],
            classes: ["ant", "bee", "cow", "dog"].iter().take(per_class.len()).map(|&name| name.to_owned()).collect(),
            train: sum(0),
            test: sum(1),
            digest: "d".to_owned(),
            summary: Summary {
                sizes: Some(Sizes::of([16, 20]).with(Sizes::of([24, 20]))),
                per_class,
                left_out,
                ..Summary::default()
            },
        };
        DataSet { name: "folder \"x\"".to_owned(), info: Arc::new(info) }
    }

    fn out(unit: &str, count: usize, reason: &str) -> LeftOut {
        LeftOut { unit: unit.to_owned(), reason: reason.to_owned(), count, example: "x/1".to_owned() }
    }

    #[test]
    fn the_headline_counts_what_is_there_and_what_is_left_out() {
        let counts = vec![[100, 4], [100, 8], [24, 4], [0, 0]];
        let all = set(counts.clone(), vec![out("file", 2, ".svg"), out("file", 1, "damaged"), out("row", 1, "empty")]);
        assert_eq!(
            all.headline(),
            "4 classes, 224 + 16 images, 3 files left out (2 .svg, 1 damaged), 1 row left out (1 empty)"
        );
        assert_eq!(set(counts, vec![]).headline(), "4 classes, 224 + 16 images");
    }

    #[test]
    fn a_name_with_a_line_end_stays_in_its_line() {
        let mut set = set(vec![[10, 2]], vec![out("file", 1, ".a\nb")]);
        Arc::make_mut(&mut set.info).classes[0] = "ant\u{1b}[2J\nlion".to_owned();
        assert!(set.headline().ends_with("(1 .a\\u{a}b)"), "{}", set.headline());
        assert_eq!(set.facts()[0], ("classes", "ant\\u{1b}[2J\\u{a}lion".to_owned()));
    }

    #[test]
    fn facts_name_the_classes_that_a_split_lacks() {
        let facts = set(vec![[100, 4], [0, 8], [24, 0], [0, 0]], vec![]).facts();
        let fact = |what: &str| facts.iter().find(|(about, _)| *about == what).map(|(_, fact)| fact.as_str());
        assert_eq!(fact("no training images of"), Some("bee, dog"));
        assert_eq!(fact("no test images of"), Some("cow, dog"));
        assert_eq!(fact("images per class"), Some("0 to 100 training, 0 to 8 test"));
        assert_eq!(fact("size"), Some("16 to 24 x 20, used as 16 x 16 x 3 (height x width x channels)"));
        assert_eq!(fact("left out"), None);
    }
}
