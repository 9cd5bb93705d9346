//! The results as the page sees them: trials of equal axes and different seeds are one configuration.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::measure::{Better, Group, Measure, Quantity, Reading};
use crate::results::{Axis, Results, Status, Trial, Value};
use crate::site::{Site, sites};
use crate::stats::{self, Estimate};
use crate::warnings::{Fault, Harm, faults};

/// What a configuration is called that stands for all.
pub(crate) const ALL: &str = "all configurations";

/// A quantity with what the registry says of its measure: a column of a table, or one direction of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// What is looked up in trials.
    pub(crate) quantity: Quantity,
    /// Its unit, direction and definition.
    pub(crate) measure: Measure,
}

/// The trials that differ in nothing but the seed.
#[derive(Clone)]
pub(crate) struct Configuration<'a> {
    /// One value per axis, in the order of the axes.
    pub(crate) key: Vec<Option<&'a Value>>,
    /// Such as `depth 4, codebook 256`; only axes that vary.
    pub(crate) label: String,
    /// Its trials in the order of the plan, of any status.
    pub(crate) trials: Vec<&'a Trial>,
    /// How many others it stands for, of which its key and its trials do not tell.
    pub(crate) others: usize,
}

/// The results with their configurations.
#[derive(Clone)]
pub(crate) struct Study<'a> {
    /// What it is a view of.
    pub(crate) results: &'a Results,
    /// In the order in which the plan first names them.
    pub(crate) configurations: Vec<Configuration<'a>>,
    /// The programs and machines that computed the trials.
    pub(crate) sites: Vec<Site<'a>>,
    /// Indices of the axes that take more than one value, those with a longer grid not before shorter ones.
    pub(crate) varied: Vec<usize>,
    /// What the axes after the first varied one take together, as far as it occurs: a marker each.
    combinations: Vec<Vec<Option<&'a Value>>>,
    /// The measure that the page is about.
    pub(crate) headline: Column,
    /// What is to be held against single trials.
    pub(crate) faults: Vec<Fault>,
}

impl<'a> Study<'a> {
    pub(crate) fn new(results: &'a Results) -> Self {
        let varied: Vec<usize> = (0..results.axes.len()).filter(|&axis| results.axes[axis].values.len() > 1).collect();
        let mut configurations: Vec<Configuration<'a>> = Vec::new();
        for trial in &results.trials {
            let key: Vec<Option<&Value>> = results.axes.iter().map(|axis| trial.axes.get(&axis.path)).collect();
            let same = |configuration: &&mut Configuration<'a>| {
                configuration.key == key
                    && configuration.trials.first().is_none_or(|first| first.configuration == trial.configuration)
            };
            match configurations.iter_mut().find(same) {
                Some(configuration) => configuration.trials.push(trial),
                None => {
                    let label = label(&results.axes, &varied, &key);
                    configurations.push(Configuration { key, label, trials: vec![trial], others: 0 });
                }
            }
        }
        let headline = results.headline.clone().map_or_else(|| Column::plain("psnr"), Column::of);
        let combinations = combinations(&varied, &configurations);
        let sites = sites(results);
        let mut study = Self { results, configurations, sites, varied, combinations, headline, faults: Vec::new() };
        study.faults = faults(&study);
        study
    }

    /// The same, with one configuration for all that share their reconstructions, such as those that differ in the prior alone:
    /// what concerns tokenizers shows each once. Axes that they do not differ by are not varied, and no measure of priors is the
    /// headline.
    pub(crate) fn of_tokenizers(&self) -> Self {
        let mut groups: Vec<Vec<&Configuration<'a>>> = Vec::new();
        for configuration in &self.configurations {
            let its = configuration.reconstructions();
            match groups.iter_mut().find(|group| !its.is_empty() && group[0].reconstructions() == its) {
                Some(group) => group.push(configuration),
                None => groups.push(vec![configuration]),
            }
        }
        let mut varied = self.varied.clone();
        for axis in &self.varied {
            let rest: Vec<usize> = varied.iter().copied().filter(|other| other != axis).collect();
            let varies_within =
                groups.iter().any(|group| group.iter().any(|one| one.key[*axis] != group[0].key[*axis]));
            let mut keys: Vec<Vec<Option<&Value>>> = groups.iter().map(|group| at(&rest, &group[0].key)).collect();
            keys.sort_by_cached_key(|key| format!("{key:?}"));
            keys.dedup();
            if varies_within && keys.len() == groups.len() {
                varied = rest;
            }
        }
        let named = |group: &Vec<&Configuration<'a>>| {
            let told = group.iter().all(|one| at(&varied, &one.key) == at(&varied, &group[0].key));
            let name = label(&self.results.axes, &varied, &group[0].key);
            let label = match group.len() - 1 {
                0 if told && groups.len() > 1 => name,
                0 => group[0].label.clone(),
                others if others + 1 == self.configurations.len() => ALL.to_owned(),
                _ if told => name,
                1 => format!("{} (and another one)", group[0].label),
                others => format!("{} (and {others} others)", group[0].label),
            };
            Configuration { label, others: if told { 0 } else { group.len() - 1 }, ..group[0].clone() }
        };
        let configurations: Vec<Configuration<'a>> = groups.iter().map(named).collect();
        let psnr = Column::plain("psnr");
        let of_priors = matches!(self.headline.measure.group, Group::Prior | Group::Speed) && self.has(&psnr.quantity);
        let headline = if of_priors { psnr } else { self.headline.clone() };
        let combinations = combinations(&varied, &configurations);
        Self { configurations, varied, combinations, headline, ..self.clone() }
    }

    /// Whether it is the view of one tokenizer that all of several configurations share.
    pub(crate) fn is_shared(&self) -> bool {
        self.configurations.len() == 1 && self.configurations[0].label == ALL
    }

    /// The axis at an index of `varied`.
    pub(crate) fn varied_axis(&self, place: usize) -> Option<&'a Axis> {
        self.varied.get(place).map(|&axis| &self.results.axes[axis])
    }

    /// Colour and marker of a configuration: the first varied axis is the colour, and the others together the marker
    /// and the dash; with one varied axis it is both.
    pub(crate) fn style(&self, configuration: &Configuration<'_>) -> (usize, usize) {
        let place = || {
            let &axis = self.varied.first()?;
            self.results.axes[axis].values.iter().position(|value| Some(value) == configuration.key[axis])
        };
        let colour = place().unwrap_or(0);
        let own: Vec<Option<&Value>> = others(&self.varied, &configuration.key);
        let marker = self.combinations.iter().position(|combination| *combination == own).unwrap_or(0);
        (colour, if self.varied.len() < 2 { colour } else { marker })
    }

    /// Whether it is known of all configurations that their trials differ in the seed alone: their resolved configurations are
    /// recorded, and no seed occurs twice.
    pub(crate) fn differ_in_seed_alone(&self) -> bool {
        self.configurations.iter().all(|configuration| {
            let seeds: BTreeSet<Option<u64>> = configuration.trials.iter().map(|trial| trial.seed).collect();
            seeds.len() == configuration.trials.len()
                && configuration.trials.iter().all(|trial| !trial.configuration.is_empty())
        })
    }

    /// Why no verdict may be drawn from a configuration's value of a measure; `None` if one may.
    pub(crate) fn unsound(&self, configuration: &Configuration<'_>, measure: &Measure) -> Option<&'static str> {
        let its = |fault: &&Fault| configuration.done().any(|trial| trial.id == fault.trial);
        let grave = |fault: &&Fault| fault.harm == Harm::Grave && fault.spoils(measure);
        self.faults.iter().filter(grave).find(its).map(|fault| fault.title)
    }

    /// How good a configuration is, to choose one that is shown for the others: the headline's mean, the larger the better;
    /// below all others where it was not measured or is not sound.
    pub(crate) fn rank(&self, configuration: &Configuration<'_>) -> f64 {
        let Column { quantity, measure } = &self.headline;
        let sign = if measure.better == Better::Lower { -1.0 } else { 1.0 };
        let sound = configuration.mean(quantity).filter(|_| self.unsound(configuration, measure).is_none());
        sound.map_or(f64::NEG_INFINITY, |found| sign * found.mean)
    }

    /// Whether any finished trial has a quantity.
    pub(crate) fn has(&self, of: &Quantity) -> bool {
        self.results.done().any(|trial| trial.value(of).is_some())
    }

    /// All quantities of finished trials, in the order of the tables.
    pub(crate) fn columns(&self) -> Vec<Column> {
        columns(self.results)
    }

    /// The quantities of a group, in the order of the tables.
    pub(crate) fn group(&self, group: Group) -> Vec<Column> {
        self.columns().into_iter().filter(|column| column.measure.group == group).collect()
    }

    /// A measure at all indices that it was taken at, ascending.
    pub(crate) fn taken(&self, measure: &str) -> Vec<Column> {
        self.columns().into_iter().filter(|column| column.measure.name == measure).collect()
    }
}

impl Column {
    pub(crate) fn of(quantity: Quantity) -> Self {
        Self { measure: quantity.measure(), quantity }
    }

    /// A measure without indices.
    pub(crate) fn plain(measure: &str) -> Self {
        Self::of(Quantity::plain(measure))
    }

    /// Label for headings and charts.
    pub(crate) fn label(&self) -> String {
        self.quantity.label()
    }

    /// Label and unit, as along a chart.
    pub(crate) fn axis_label(&self) -> String {
        let unit = self.measure.unit;
        if unit.is_empty() { self.label() } else { format!("{} ({unit})", self.label()) }
    }

    /// The registry's order, and that of the indices within a measure.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        self.measure.order(&other.measure).then_with(|| self.quantity.cmp(&other.quantity))
    }
}

impl Configuration<'_> {
    /// The finished trials.
    pub(crate) fn done(&self) -> impl Iterator<Item = &Trial> {
        self.trials.iter().copied().filter(|trial| trial.status == Status::Done)
    }

    /// The seeds and the digests of the stages that measured the reconstructions of its finished trials.
    fn reconstructions(&self) -> Vec<(Option<u64>, &str)> {
        self.done().filter_map(|trial| Some((trial.seed, trial.parts.get("reconstruction")?.as_str()))).collect()
    }

    /// The value of a quantity in each finished trial that has it.
    pub(crate) fn values(&self, of: &Quantity) -> Vec<f64> {
        self.done().filter_map(|trial| trial.value(of)).collect()
    }

    /// The mean of a quantity over seeds.
    pub(crate) fn mean(&self, of: &Quantity) -> Option<Estimate> {
        stats::mean(&self.values(of))
    }

    /// A stable identifier for links and figures: that of the first trial.
    pub(crate) fn id(&self) -> &str {
        self.trials.first().map_or("", |trial| &trial.id)
    }
}

/// A configuration's values at these axes.
fn at<'a>(axes: &[usize], key: &[Option<&'a Value>]) -> Vec<Option<&'a Value>> {
    axes.iter().map(|&axis| key[axis]).collect()
}

/// The values of all varied axes but the first.
fn others<'a>(varied: &[usize], key: &[Option<&'a Value>]) -> Vec<Option<&'a Value>> {
    at(varied.get(1..).unwrap_or_default(), key)
}

/// What the axes after the first varied one take together, as far as it occurs.
fn combinations<'a>(varied: &[usize], configurations: &[Configuration<'a>]) -> Vec<Vec<Option<&'a Value>>> {
    let mut combinations = Vec::new();
    for configuration in configurations {
        let combination = others(varied, &configuration.key);
        if !combinations.contains(&combination) {
            combinations.push(combination);
        }
    }
    combinations
}

/// Every quantity of any trial, in the order of the tables' columns. Single draws are no columns: their mean is.
pub(crate) fn columns(results: &Results) -> Vec<Column> {
    let readings = results.trials.iter().flat_map(|trial| &trial.readings);
    let quantities: BTreeSet<Quantity> =
        readings.map(Reading::quantity).filter(|quantity| quantity.draw().is_none()).collect();
    let mut columns: Vec<Column> = quantities.into_iter().map(Column::of).collect();
    columns.sort_by(Column::order);
    columns
}

/// `depth 4, codebook 256`, of the axes at these places.
pub(crate) fn label(axes: &[Axis], places: &[usize], key: &[Option<&Value>]) -> String {
    let parts: Vec<String> =
        places.iter().filter_map(|&place| key[place].map(|value| named(&axes[place], value))).collect();
    if parts.is_empty() { "the one configuration".to_owned() } else { parts.join(", ") }
}

/// `depth 4`, `shared`, `not shared`, `prior ar(...)`: a value with its axis.
pub(crate) fn named(axis: &Axis, value: &Value) -> String {
    match value {
        Value::Text(text) if text == "true" => axis.title().to_owned(),
        Value::Text(text) if text == "false" => format!("not {}", axis.title()),
        _ => format!("{} {}", axis.title(), short(axis, value)),
    }
}

/// A value as text; of a component `rq(depth: 4)`, its name alone if that tells it from the axis' other values.
pub(crate) fn short(axis: &Axis, value: &Value) -> String {
    let head = |value: &Value| value.to_string().split('(').next().unwrap_or_default().trim().to_owned();
    let mut heads: Vec<String> = axis.values.iter().map(head).collect();
    heads.sort_unstable();
    let distinct = heads.windows(2).all(|pair| pair[0] != pair[1]);
    let own = head(value);
    if distinct && !own.is_empty() { own } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_goes_by_its_name_where_that_tells_it_apart() {
        let axis = |values: &[&str]| Axis {
            path: "prior".to_owned(),
            label: String::new(),
            values: values.iter().map(|value| Value::from(*value)).collect(),
        };
        let priors = axis(&["ar(layers: 6)", "rq_transformer(body: 4, head: 2)"]);
        assert_eq!(named(&priors, &priors.values[1]), "prior rq_transformer");
        let layers = axis(&["ar(layers: 6)", "ar(layers: 12)"]);
        assert_eq!(short(&layers, &layers.values[1]), "ar(layers: 12)");
    }

    #[test]
    fn configurations_that_share_their_reconstructions_are_one_tokenizer() {
        let trial = |prior: &str, seed: u64, reconstruction: Option<&str>| Trial {
            axes: [("prior".to_owned(), Value::from(prior))].into(),
            seed: Some(seed),
            status: Status::Done,
            parts: reconstruction.map(|digest| ("reconstruction".to_owned(), digest.to_owned())).into_iter().collect(),
            ..Trial::default()
        };
        let labels = |trials: Vec<Trial>| {
            let mut values: Vec<Value> = trials.iter().map(|trial| trial.axes["prior"].clone()).collect();
            values.dedup();
            let axes = vec![Axis { path: "prior".to_owned(), label: String::new(), values }];
            let results = Results { axes, trials, ..Results::default() };
            let study = Study::new(&results);
            study.of_tokenizers().configurations.into_iter().map(|one| one.label).collect::<Vec<_>>()
        };
        let (x, y) = (Some("x"), Some("y"));
        let two = [("a", x), ("b", x)].map(|(prior, of)| [trial(prior, 0, of), trial(prior, 1, y)]);
        assert_eq!(labels(two.concat()), ["all configurations"]);
        // Another tokenizer stands for itself.
        assert_eq!(
            labels(vec![trial("a", 0, x), trial("b", 0, x), trial("c", 0, y)]),
            ["prior a (and another one)", "prior c"]
        );
        // Where it is not known, and where seeds differ, they are not the same.
        assert_eq!(labels(vec![trial("a", 0, None), trial("b", 0, None)]), ["prior a", "prior b"]);
        assert_eq!(labels(vec![trial("a", 0, x), trial("b", 1, x)]), ["prior a", "prior b"]);
    }

    #[test]
    fn tokenizers_are_told_by_what_they_differ_in() {
        let trial = |prior: &str, depth: i64| Trial {
            axes: [("prior".to_owned(), Value::from(prior)), ("quantizer.depth".to_owned(), depth.into())].into(),
            seed: Some(0),
            status: Status::Done,
            parts: [("reconstruction".to_owned(), depth.to_string())].into(),
            readings: vec![Reading::new("psnr", [], 20.0)],
            ..Trial::default()
        };
        let axis = |path: &str, values: Vec<Value>| Axis { path: path.to_owned(), label: String::new(), values };
        let results = Results {
            axes: vec![
                axis("prior", vec!["a".into(), "b".into()]),
                axis("quantizer.depth", vec![1_i64.into(), 2_i64.into()]),
            ],
            trials: vec![trial("a", 1), trial("b", 1), trial("a", 2), trial("b", 2)],
            headline: Some(Quantity::plain("sample_frechet")),
            ..Results::default()
        };
        let tokenizers = Study::new(&results).of_tokenizers();
        let labels: Vec<&str> = tokenizers.configurations.iter().map(|one| &*one.label).collect();
        assert_eq!(labels, ["depth 1", "depth 2"]);
        assert_eq!(tokenizers.varied, [1]);
        let colours: Vec<_> = tokenizers.configurations.iter().map(|one| tokenizers.style(one)).collect();
        assert_eq!(colours, [(0, 0), (1, 1)]);
        // The best of tokenizers is not that of one prior's samples.
        assert_eq!(tokenizers.headline.measure.name, "psnr");
    }
}
