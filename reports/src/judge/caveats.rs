//! Why a difference may be of something else than what was varied: parts that are not shared, settings that differ beside
//! the one that is compared, rates of two kinds, and stages that were computed in different ways.

use std::collections::{BTreeMap, BTreeSet};

use super::by_protocol;
use crate::format;
use crate::measure::{Comparable, DATASET, Group, Quantity, TEST_IMAGES};
use crate::origin::{Environment, SPEED, of_speeds};
use crate::results::Trial;
use crate::study::{Column, Configuration, Study};
use crate::warnings::{self, Harm};

/// What is to be said beside a verdict.
#[derive(Default)]
pub(super) struct Caveats {
    /// A sentence each.
    pub(super) sentences: Vec<String>,
    /// Whether the measure does not compare between the two sides.
    pub(super) incomparable: bool,
    /// Whether a warning spoils the measure on either side.
    pub(super) unsound: bool,
}

impl Caveats {
    /// What pairs of trials, one of each side, give to say about a difference in a measure.
    pub(super) fn of(study: &Study<'_>, column: &Column, axis: &str, pairs: &[(&Trial, &Trial)]) -> Self {
        let mut caveats = Self::default();
        caveats.parts(column, pairs);
        caveats.yardsticks(column, pairs);
        let by_protocol = by_protocol::reasons(column, pairs);
        caveats.incomparable |= !by_protocol.is_empty();
        caveats.sentences.extend(by_protocol);
        caveats.settings(study, column, axis, pairs);
        caveats.rates(column, pairs);
        caveats.origins(column, pairs);
        caveats.unrecorded(study, column, pairs);
        caveats.faults(study, column, &pairs.iter().flat_map(|(before, after)| [*before, *after]).collect::<Vec<_>>());
        caveats
    }

    /// Why a measure does not compare between the two sides of pairs; `None` if it does.
    pub(super) fn withheld(column: &Column, pairs: &[(&Trial, &Trial)]) -> Option<String> {
        let mut caveats = Self::default();
        caveats.parts(column, pairs);
        let same_images = |(before, after): &(&Trial, &Trial)| {
            before.parts.contains_key(TEST_IMAGES) && before.parts.get(TEST_IMAGES) == after.parts.get(TEST_IMAGES)
        };
        caveats.incomparable |= !caveats.sentences.is_empty() && !pairs.iter().all(same_images);
        caveats.yardsticks(column, pairs);
        if column.measure.is_timing() {
            caveats.origins(column, pairs);
            if pairs.iter().any(|(before, after)| before.origins.is_empty() || after.origins.is_empty()) {
                caveats.incomparable = true;
                caveats.sentences.push("Where the sides were computed is not recorded.".to_owned());
            }
        }
        caveats.incomparable.then(|| caveats.sentences.join(" "))
    }

    /// Warnings that spoil the measure and concern the compared trials: a sentence for each kind.
    pub(super) fn faults(&mut self, study: &Study<'_>, column: &Column, trials: &[&Trial]) {
        let mut kinds: Vec<(&str, Vec<String>, Harm)> = Vec::new();
        for fault in study.faults.iter().filter(|fault| fault.spoils(&column.measure)) {
            if !trials.iter().any(|trial| trial.id == fault.trial) {
                continue;
            }
            let of =
                |configuration: &&Configuration<'_>| configuration.trials.iter().any(|trial| trial.id == fault.trial);
            let Some(configuration) = study.configurations.iter().find(of) else { continue };
            match kinds.iter_mut().find(|(title, ..)| *title == fault.title) {
                Some((_, who, harm)) => {
                    *harm = (*harm).max(fault.harm);
                    if !who.contains(&configuration.label) {
                        who.push(configuration.label.clone());
                    }
                }
                None => kinds.push((fault.title, vec![configuration.label.clone()], fault.harm)),
            }
        }
        for (title, who, harm) in kinds {
            self.unsound |= harm == Harm::Grave;
            self.sentences.push(format!("{title}: {}.", warnings::listed(&who)));
        }
    }

    /// A measure may be compared between trials that share a part, such as the tokenizer, and these do not.
    fn parts(&mut self, column: &Column, pairs: &[(&Trial, &Trial)]) {
        let comparable = column.measure.comparable;
        let differs = |part: &str| {
            pairs.iter().any(|(before, after)| match (before.parts.get(part), after.parts.get(part)) {
                (Some(before), Some(after)) => before != after,
                _ => false,
            })
        };
        let different: Vec<&(&str, &str)> = comparable.parts().iter().filter(|(part, _)| differs(part)).collect();
        let (Some(within), false) = (comparable.words(), different.is_empty()) else { return };
        let label = column.label();
        // Other training images make another digest, too, and asking what they do to the same test images makes sense.
        if different.iter().all(|(part, _)| *part == DATASET) {
            if differs(TEST_IMAGES) {
                self.incomparable = true;
                self.sentences.push(format!(
                    "{} compares on the same test images only, and the two sides were measured on different ones.",
                    format::capitalized(&label)
                ));
                return;
            }
            let same = pairs
                .iter()
                .all(|(before, after)| before.parts.contains_key(TEST_IMAGES) && after.parts.contains_key(TEST_IMAGES));
            if same {
                self.sentences.push(
                    "The two sides have different data sets, whose test images, on which this is measured, are the same."
                        .to_owned(),
                );
                return;
            }
            self.sentences.push(format!(
                "The two sides have different data sets, or different parts of one: a difference in {label} may come from \
                 the images."
            ));
            return;
        }
        self.incomparable = true;
        let words: Vec<&str> = different.iter().map(|(_, words)| *words).collect();
        self.sentences.push(format!(
            "{} compares within {within} only, and the two sides have different {}.",
            format::capitalized(&label),
            words.join(" and ")
        ));
    }

    /// Settings of the evaluation that decide what a measure's number is, and that differ between the two sides.
    fn yardsticks(&mut self, column: &Column, pairs: &[(&Trial, &Trial)]) {
        let comparable = column.measure.comparable;
        let of_images = matches!(comparable, Comparable::Dataset | Comparable::Features);
        let of_samples = comparable == Comparable::Features && column.measure.group == Group::Prior;
        let counts = |yardstick: &&(&str, &str)| match yardstick.0 {
            "evaluation.images" => of_images && column.measure.group != Group::Rate,
            _ => of_samples,
        };
        for (path, words) in YARDSTICKS.iter().filter(counts) {
            if let Some((before, after)) = differing(path, pairs) {
                self.incomparable = true;
                let label = format::capitalized(&column.label());
                self.sentences
                    .push(format!("{label} depends on {words}, and the two sides have {before} and {after}."));
            }
        }
    }

    /// Settings that differ between the sides beside the axis that is compared, as far as the measure depends on them: the
    /// difference may be theirs.
    fn settings(&mut self, study: &Study<'_>, column: &Column, axis: &str, pairs: &[(&Trial, &Trial)]) {
        // A named case is all that it sets.
        let varied: Vec<&str> = match axis {
            CASE => study.results.case_paths.iter().map(String::as_str).collect(),
            path => vec![path],
        };
        let is_varied = |path: &str| varied.iter().any(|varied| is_under(path, varied));
        let paths: BTreeSet<&String> =
            pairs.iter().flat_map(|(before, after)| before.settings.keys().chain(after.settings.keys())).collect();
        let yardstick = |path: &str| YARDSTICKS.iter().any(|(known, _)| *known == path);
        let group = column.measure.group;
        let other = paths.into_iter().filter(|path| !is_varied(path) && !yardstick(path) && depends_on(group, path));
        // Settings of a component that is another one, or is not there, follow from that.
        let mut above: Option<&str> = None;
        let mut differ: Vec<String> = Vec::new();
        for path in other {
            if above.is_some_and(|above| is_under(path, above)) {
                continue;
            }
            let Some((before, after)) = differing(path, pairs) else { continue };
            above = Some(path);
            differ.push(format!("{path} ({before} → {after})"));
        }
        if differ.is_empty() {
            return;
        }
        let (shown, rest) = differ.split_at(differ.len().min(SHOWN));
        let rest = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
        let name = axis.rsplit('.').next().unwrap_or(axis);
        self.sentences.push(format!(
            "The two sides differ in more than {name}: {}{rest}. The difference may be theirs.",
            shown.join(", ")
        ));
    }

    /// Codes on one side, continuous tokens on the other.
    fn rates(&mut self, column: &Column, pairs: &[(&Trial, &Trial)]) {
        let (nominal, kl) = (Quantity::plain("bits_per_image"), Quantity::plain("kl_bits_per_image"));
        let only = |trial: &Trial, has: &Quantity, lacks: &Quantity| {
            trial.value(has).is_some() && trial.value(lacks).is_none()
        };
        let mixed = |(a, b): &(&Trial, &Trial)| {
            (only(a, &nominal, &kl) && only(b, &kl, &nominal)) || (only(a, &kl, &nominal) && only(b, &nominal, &kl))
        };
        if !column.measure.is_timing() && pairs.iter().any(mixed) {
            self.sentences.push(
                "One side's rate is the nominal bits of codes, the other's the KL divergence of continuous tokens: \
                 they are different quantities, and equal numbers of them are not equal rates."
                    .to_owned(),
            );
        }
    }

    /// Stages of one name that were computed in different ways.
    fn origins(&mut self, column: &Column, pairs: &[(&Trial, &Trial)]) {
        let timing = column.measure.is_timing();
        let mut found: Vec<Difference> = Vec::new();
        for (before, after) in pairs {
            let speeds = of_speeds(&before.origins).zip(of_speeds(&after.origins));
            if let Some((before, after)) = speeds.filter(|_| column.measure.group == Group::Speed) {
                differences(SPEED, before, after, timing, &mut found);
                continue;
            }
            for first in before.origins.iter().filter(|origin| origin.stage != SPEED) {
                let Some(second) = after.origins.iter().find(|origin| origin.stage == first.stage) else { continue };
                differences(&first.stage, &first.environment, &second.environment, timing, &mut found);
            }
        }
        if found.is_empty() {
            return;
        }
        let machine = timing && found.iter().any(|difference| difference.of_machine);
        self.incomparable |= machine;
        let how = listed(&found);
        self.sentences.push(if machine {
            let label = column.label();
            format!("The two sides were computed on different machines: {how}. A difference in {label} may come from the machines.")
        } else {
            format!("The two sides were computed differently: {how}.")
        });
    }

    /// Trials of which nobody knows where they were computed. Where that is so of all trials, the page says it once.
    fn unrecorded(&mut self, study: &Study<'_>, column: &Column, pairs: &[(&Trial, &Trial)]) {
        let compared: BTreeMap<*const Trial, &Trial> = pairs
            .iter()
            .flat_map(|(before, after)| [*before, *after])
            .map(|trial| (std::ptr::from_ref(trial), trial))
            .collect();
        let unrecorded = compared.values().filter(|trial| trial.origins.is_empty()).count();
        if unrecorded > 0 && (column.measure.is_timing() || !study.sites.is_empty()) {
            let count = if unrecorded == compared.len() {
                "the".to_owned()
            } else {
                format!("{unrecorded} of the {}", compared.len())
            };
            let were = if unrecorded == 1 && compared.len() > 1 { "was" } else { "were" };
            self.sentences.push(format!("Where {count} compared trials {were} computed is not recorded."));
        }
    }
}

/// Settings that a measure's number depends on, whatever is measured, and what they are.
const YARDSTICKS: [(&str, &str); 3] = [
    ("evaluation.images", "the number of test images"),
    ("evaluation.samples", "the number of samples"),
    ("evaluation.labels", "the mixture of labels that samples are drawn with"),
];
/// Settings of priors and their samples.
const OF_PRIORS: [&str; 12] = [
    "prior",
    "prior_training",
    "evaluation.temperature",
    "evaluation.top_k",
    "evaluation.top_p",
    "evaluation.guidance",
    "evaluation.guidance_schedule",
    "evaluation.guidance_power",
    "evaluation.guidance_from",
    "evaluation.guidance_to",
    "evaluation.sampling_seeds",
    "evaluation.speed",
];
/// The axis of named cases.
const CASE: &str = "case";
/// Settings that a sentence names before it counts the rest.
const SHOWN: usize = 5;

/// Whether measures of a group depend on a setting: what is measured of a tokenizer does not on its priors.
fn depends_on(group: Group, path: &str) -> bool {
    let of_tokenizer = matches!(group, Group::Reconstruction | Group::Rate | Group::Codebook);
    !(of_tokenizer && OF_PRIORS.iter().any(|settings| is_under(path, settings)))
}

/// Whether a path is that of an axis, or of something within what the axis sets: `prior.width` within `prior`.
fn is_under(path: &str, axis: &str) -> bool {
    path.strip_prefix(axis).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A setting's values on the two sides, as far as they differ; `None` if they are equal in every pair. What one side does not have
/// is a dash.
fn differing(path: &str, pairs: &[(&Trial, &Trial)]) -> Option<(String, String)> {
    let value = |trial: &Trial| trial.settings.get(path).cloned().unwrap_or_else(|| "–".to_owned());
    let all: Vec<(String, String)> = pairs.iter().map(|(before, after)| (value(before), value(after))).collect();
    if all.iter().all(|(before, after)| before == after) {
        return None;
    }
    let side = |take: fn(&(String, String)) -> &String| {
        let values: BTreeSet<&String> = all.iter().map(take).collect();
        values.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
    };
    let (before, after) = (side(|pair| &pair.0), side(|pair| &pair.1));
    // Equal sets of values in other pairs are averaged over on both sides.
    (before != after).then_some((before, after))
}

/// A fact that differs between the two sides.
struct Difference {
    /// What differs, such as `processor`.
    fact: String,
    /// Whether it tells machines apart, rather than programs.
    of_machine: bool,
    /// The facts before and after, as far as they differ.
    values: BTreeSet<(String, String)>,
    /// The stages in which they do, in the order of the trial.
    stages: Vec<String>,
}

/// Adds what differs between two environments of one stage.
fn differences(stage: &str, before: &Environment, after: &Environment, timing: bool, found: &mut Vec<Difference>) {
    let second = facts(after, timing);
    for (fact, of_machine, value) in facts(before, timing) {
        // A plugin that one side does not have is what was varied.
        let Some((_, _, other)) = second.iter().find(|other| other.0 == fact && other.2 != value) else { continue };
        let values = (value, other.clone());
        match found.iter_mut().find(|known| known.fact == fact) {
            Some(known) => {
                known.values.insert(values);
                if !known.stages.iter().any(|known| known == stage) {
                    known.stages.push(stage.to_owned());
                }
            }
            None => {
                found.push(Difference { fact, of_machine, values: [values].into(), stages: vec![stage.to_owned()] })
            }
        }
    }
}

/// What of an environment can change a result. Times, speeds and memory depend on the processor and the number of threads,
/// too; other results do not, since the kernels cut their work by size alone.
fn facts(environment: &Environment, timing: bool) -> Vec<(String, bool, String)> {
    let machine = |fact: &str, value: &str| (fact.to_owned(), true, value.to_owned());
    let program = |fact: &str, value: &str| (fact.to_owned(), false, value.to_owned());
    let mut facts = vec![machine("device", &environment.device)];
    if timing {
        facts.push(machine("processor", &environment.processor));
        facts.push(machine("threads", &environment.threads.to_string()));
    }
    facts.push(machine("instructions", &environment.instructions));
    facts.push(machine("precision", &environment.precision));
    facts.push(program("program", &environment.versioned()));
    facts.push(program("compiler", &environment.compiler));
    facts.push(program("target", &environment.target));
    let plugins = &environment.plugins;
    facts.extend(plugins.iter().map(|(name, digest)| program(&format!("plugin {name}"), format::digest(digest))));
    facts
}

/// `device cpu → NVIDIA H100 (tokenizer, prior); plugin rq 77ab90c4 → e4018c2b (tokenizer)`.
fn listed(found: &[Difference]) -> String {
    let groups = found.chunk_by(|a, b| a.stages == b.stages).map(|group| {
        let facts: Vec<String> = group
            .iter()
            .map(|difference| {
                let values: Vec<String> =
                    difference.values.iter().map(|(before, after)| format!("{before} → {after}")).collect();
                format!("{} {}", difference.fact, values.join(" and "))
            })
            .collect();
        let stages: Vec<&str> = group.iter().take(1).flat_map(|one| &one.stages).map(String::as_str).collect();
        format!("{} ({})", facts.join(", "), stages.join(", "))
    });
    groups.collect::<Vec<_>>().join("; ")
}
