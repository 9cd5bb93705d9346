//! The fields of an experiment file that hold neither a component nor settings.

use crate::ui::Ui;

/// A field of an experiment file.
pub struct Section {
    /// Its name in the file.
    pub name: &'static str,
    /// What it is for, in a line.
    pub summary: &'static str,
    /// What it holds, line by line.
    holds: &'static [&'static str],
    /// What is so without it.
    default: &'static str,
    /// Lines of an experiment that has it.
    example: &'static [&'static str],
}

/// All of them, in the order in which an experiment is written.
pub const SECTIONS: [Section; 8] = [
    Section {
        name: "question",
        summary: "what the experiment asks, the title of its report",
        holds: &["A sentence in quotes."],
        default: "none: the report goes by the file's name",
        example: &["question: \"Is depth worth more than a larger codebook?\","],
    },
    Section {
        name: "base",
        summary: "another experiment file that this one starts from",
        holds: &[
            "A path in quotes, from the folder of this file. All fields of that file hold that this one does not write itself; what",
            "this one writes replaces a field as a whole.",
        ],
        default: "none",
        example: &["base: \"depth-vs-codebook.ron\","],
    },
    Section {
        name: "axes",
        summary: "what varies: every combination of all values",
        holds: &[
            "A map from paths to lists of values. A path is a field of a slot (\"quantizer.depth\", \"evaluation.guidance\") or a slot",
            "(\"prior\", whose values are components). Short for `sweep: [grid({..})]`; a file has one of the two.",
        ],
        default: "nothing varies: one configuration",
        example: &[
            "axes: {",
            "    \"quantizer.depth\": [1, 2, 4],",
            "    \"prior\": [ar(layers: 6), rq_transformer()],",
            "},",
        ],
    },
    Section {
        name: "sweep",
        summary: "what varies, as a list of parts that are tried one after another",
        holds: &[
            "grid({ \"path\": [..], .. })       every combination of all values",
            "zip({ \"path\": [..], .. })        the first values of all paths together, then the second, and so on",
            "cases({ \"name\": { \"path\": value, .. }, .. })   named sets of values; the axis is called `case`",
        ],
        default: "nothing varies: one configuration",
        example: &[
            "sweep: [cases({",
            "    \"1 x 4096\": { \"quantizer.depth\": 1, \"quantizer.codebook\": 4096 },",
            "    \"2 x 64\": { \"quantizer.depth\": 2, \"quantizer.codebook\": 64 },",
            "})],",
        ],
    },
    Section {
        name: "exclude",
        summary: "combinations that are not tried",
        holds: &["A list of conditions, each a map from paths to values: what has all values of one is left out."],
        default: "none is left out",
        example: &["exclude: [{ \"quantizer.depth\": 4, \"quantizer.codebook\": 1024 }],"],
    },
    Section {
        name: "when",
        summary: "what is set otherwise in some combinations",
        holds: &["A list of (at: condition, set: values): where the condition holds, the values are set, too."],
        default: "nothing is",
        example: &["when: [(at: { \"quantizer.depth\": 4 }, set: { \"tokenizer_training.steps\": 4000 })],"],
    },
    Section {
        name: "seeds",
        summary: "the seeds of every configuration",
        holds: &[
            "A list of whole numbers. Each configuration is trained once with each; verdicts pair by seed, and have intervals from",
            "three seeds on. `--seeds` overrides it.",
        ],
        default: "[0]",
        example: &["seeds: [0, 1, 2],"],
    },
    Section {
        name: "report",
        summary: "what the report looks at and judges",
        holds: &[
            "headline: the measure in the foreground, in quotes, such as \"psnr\", \"recon_frechet\", \"sample_frechet\" or",
            "    \"prior_bits_per_image\". Section 12 of a report defines each that it has.",
            "compare: the comparisons to judge, a list of (along: axis, from: value, to: value), with `metric: \"..\"` for another",
            "    measure than the headline and `at: { \"path\": value }` for other axes at fixed values. Along named cases the axis is",
            "    \"case\".",
        ],
        default: "headline \"psnr\"; \"sample_frechet\" where nothing varies but priors and how they are drawn from. Each axis is judged from \
                  its first value to its last by the headline, and by \"sample_frechet\", too, where tokenizers and priors both vary",
        example: &[
            "report: (",
            "    headline: \"sample_frechet\",",
            "    compare: [",
            "        (along: \"quantizer.depth\", from: 1, to: 4, at: { \"quantizer.codebook\": 256 }),",
            "        (metric: \"psnr\", along: \"quantizer.depth\", from: 1, to: 4),",
            "    ],",
            "),",
        ],
    },
];

impl Section {
    /// The section of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        SECTIONS.iter().find(|section| section.name == name)
    }

    /// All there is to know of it.
    pub fn told(&self, ui: Ui) -> String {
        let mut out = vec![format!("{}  {}", ui.strong(self.name), self.summary)];
        out.push(format!("  default: {}", self.default));
        out.extend([String::new(), ui.strong("Holds")]);
        out.extend(self.holds.iter().map(|line| format!("  {line}")));
        out.extend([String::new(), ui.strong("In an experiment")]);
        out.extend(self.example.iter().map(|line| format!("  {line}")));
        out.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{Slot, document};

    #[test]
    fn every_field_of_an_experiment_file_is_told() {
        for field in document::FIELDS {
            assert!(Slot::named(field).is_some() != Section::named(field).is_some(), "{field}");
        }
        assert_eq!(document::FIELDS.len(), Slot::ALL.len() + SECTIONS.len());
    }
}
