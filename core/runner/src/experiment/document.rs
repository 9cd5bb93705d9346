//! An experiment file as it was written, with what it is based on and what the command line changes.

use crate::experiment::condition::{Condition, When, condition, unknown, when};
use crate::experiment::diagnostic::{Complaints, Diagnostic, Invalid, suggestion};
use crate::experiment::files::{header, layers};
use crate::experiment::path::{Assignment, Path};
use crate::experiment::raw::{self, Entry};
use crate::experiment::report::{Compare, compare, quoted};
use crate::experiment::setup::Setup;
use crate::experiment::slot::Slot;
use crate::experiment::source::{Piece, Source};
use crate::experiment::sweep::{Axis, Block, axes, once_each};
use crate::ui::{counted, thousands};
use std::collections::{BTreeSet, HashMap};
use std::env;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

/// An experiment, read but not yet understood by its components.
#[derive(Debug, Clone)]
pub struct Document {
    /// The file.
    pub path: PathBuf,
    /// The stem of the file.
    pub name: String,
    /// The comment at the head of the file.
    pub header: String,
    /// The question.
    pub question: String,
    /// The file's text.
    pub source: Arc<Source>,
    /// What all combinations start from, with what `--set` puts into whole slots.
    pub setup: Setup,
    /// The combinations.
    pub blocks: Vec<Block>,
    /// Combinations that are left out.
    pub exclude: Vec<Condition>,
    /// Settings for some combinations.
    pub when: Vec<When>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// Whether the command line gave other seeds than the file's.
    pub other_seeds: bool,
    /// The measure in the foreground.
    pub headline: Option<Piece>,
    /// What the report judges.
    pub compare: Vec<Compare>,
    /// What the command line sets.
    pub overrides: Vec<Assignment>,
}

/// Each is planned on its own: many more would take all memory before anything is said of them.
const MOST_TRIALS: usize = 100_000;

/// The fields of an experiment file.
pub const FIELDS: [&str; 16] = [
    "question",
    "base",
    "data",
    "autoencoder",
    "quantizer",
    "prior",
    "objective",
    "tokenizer_training",
    "prior_training",
    "evaluation",
    "axes",
    "sweep",
    "exclude",
    "when",
    "seeds",
    "report",
];

/// Reads an experiment with what the command line sets: `path=value`, and other seeds.
///
/// # Errors
/// Everything that is wrong with the file itself. What the components think of it is found out by
/// [`plan`](crate::plan::plan).
pub fn read(path: &FilePath, set: &[String], seeds: Option<&[u64]>) -> Result<(Document, Vec<Diagnostic>), Invalid> {
    let mut complaints = Complaints::default();
    let entries = layers(path, &mut Vec::new(), None)?;
    let source = entries.1;
    let mut document = Document {
        path: path.to_owned(),
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        header: header(&source.text),
        question: String::new(),
        source,
        setup: Setup::default(),
        blocks: vec![],
        exclude: vec![],
        when: vec![],
        seeds: vec![0],
        other_seeds: false,
        headline: None,
        compare: vec![],
        overrides: vec![],
    };
    for entry in &entries.0 {
        document.take(entry, &mut complaints);
    }
    let has = |name: &str| entries.0.iter().find(|entry| entry.key.text() == name);
    if let (Some(one), Some(other)) = (has("axes"), has("sweep")) {
        complaints.push(
            Diagnostic::error("`axes` and `sweep` are two ways to say the same")
                .at(&one.key, "short for `sweep: [grid({..})]`")
                .also(&other.key, "")
                .help("write the axes as a `grid({..})` of the sweep"),
        );
    }
    if document.blocks.is_empty() {
        document.blocks.push(Block::Grid(vec![]));
    }
    for argument in set {
        if let Some(assignment) = complaints.take(argument_set(argument)) {
            document.overrides.push(assignment);
        }
    }
    // Wholes come before what is in them.
    document.overrides.sort_by_key(|set| set.path.steps.len());
    for set in document.overrides.iter().filter(|set| set.path.is_whole()) {
        complaints.take(document.setup.fill(set.path.slot, &set.value));
    }
    if let Some(seeds) = seeds {
        let sorted = |seeds: &[u64]| BTreeSet::from_iter(seeds.iter().copied());
        document.other_seeds = sorted(seeds) != sorted(&document.seeds);
        document.seeds = seeds.to_vec();
    }
    document.bounded()?;
    let whole = Piece::whole(&document.source);
    let start = whole.trimmed();
    for slot in [Slot::Data, Slot::Autoencoder, Slot::Quantizer] {
        let set_by_axis = |axis: &Axis| axis.path.slot == slot && axis.path.is_whole();
        let everywhere = document.blocks.iter().all(|block| match block {
            Block::Cases(cases) => {
                cases.iter().all(|(_, sets)| sets.iter().any(|s| s.path.slot == slot && s.path.is_whole()))
            }
            _ => block.axes().iter().any(set_by_axis),
        });
        if document.setup.get(slot).is_none() && has(slot.name()).is_none() && !everywhere {
            complaints.push(
                Diagnostic::error(format!("the experiment names no `{slot}`"))
                    .at(&start.between(0..1), "")
                    .help(format!("add a line such as `{slot}: name(..),`; `rqlab describe {slot}` lists the names")),
            );
        }
    }
    let warnings = complaints.finish()?;
    Ok((document, warnings))
}

/// Reads `path=value` of the command line.
fn argument_set(argument: &str) -> Result<Assignment, Diagnostic> {
    const OPTION: &str = "--set ";
    let source = Arc::new(Source {
        name: "<command line>".to_owned(),
        text: format!("{OPTION}{argument}"),
        dir: env::current_dir().unwrap_or_default(),
        is_argument: true,
    });
    let whole = Piece::whole(&source);
    let given = whole.part(&whole.text()[OPTION.len()..]);
    let Some((path, value)) = given.text().split_once('=') else {
        return Err(Diagnostic::error("`--set` needs `path=value`")
            .at(&given, "")
            .help("for example `--set quantizer.depth=8`"));
    };
    let path = Path::parse(&given.part(path).trimmed())?;
    let value = given.part(value).trimmed();
    if value.text().is_empty() {
        return Err(Diagnostic::error(format!("`--set {}=` gives no value", path.text())).at(&given, ""));
    }
    Ok(Assignment { path, value })
}

impl Document {
    /// Refuses more trials than can be planned, by multiplying: before there is a list of them.
    fn bounded(&self) -> Result<(), Diagnostic> {
        let pinned = |path: &Path| self.pins(path);
        let count = |block: &Block| block.count(pinned);
        let combinations = self.blocks.iter().fold(0usize, |sum, block| sum.saturating_add(count(block)));
        let trials = combinations.saturating_mul(self.seeds.len());
        if trials <= MOST_TRIALS {
            return Ok(());
        }
        let number = |count: usize| match count {
            usize::MAX => "more than can be counted".to_owned(),
            _ => thousands(count),
        };
        let mut error = Diagnostic::error(format!(
            "an experiment has at most {} trials, and this one has {}: combinations {}, seeds {}",
            thousands(MOST_TRIALS),
            number(trials),
            number(combinations),
            thousands(self.seeds.len())
        ));
        match self.blocks.iter().max_by_key(|block| count(block)) {
            Some(Block::Cases(cases)) => {
                if let Some((first, _)) = cases.first() {
                    error = error.at(first, counted(cases.len(), "case"));
                }
            }
            Some(block) => {
                for axis in block.axes().iter().filter(|axis| axis.values.len() > 1 && !pinned(&axis.path)) {
                    let label = counted(axis.values.len(), "value");
                    error =
                        if error.at.is_none() { error.at(&axis.list, label) } else { error.also(&axis.list, label) };
                }
            }
            None => {}
        }
        Err(error.help("leave values or seeds out, or make several experiments of it"))
    }

    /// Whether the command line sets what a path names: itself, or a component with the fields that it gives. No axis varies
    /// that.
    pub fn pins(&self, path: &Path) -> bool {
        self.overrides.iter().any(|set| set.path.rest(path).is_some_and(|rest| gives(&set.value, rest)))
    }

    /// Takes in one field of the file.
    fn take(&mut self, entry: &Entry, complaints: &mut Complaints) {
        let value = &entry.value;
        match entry.key.text() {
            "question" => self.question = complaints.take(raw::typed(value, "text in quotes")).unwrap_or_default(),
            "axes" => {
                if let Some(axes) = axes(value, complaints) {
                    self.blocks.push(Block::Grid(once_each(axes, complaints)));
                }
            }
            "sweep" => {
                for block in complaints.take(raw::list(value)).unwrap_or_default() {
                    self.blocks.extend(Block::read(&block, complaints));
                }
            }
            "exclude" => {
                for item in complaints.take(raw::list(value)).unwrap_or_default() {
                    self.exclude.extend(condition(&item, complaints));
                }
            }
            "when" => {
                for item in complaints.take(raw::list(value)).unwrap_or_default() {
                    self.when.extend(when(&item, complaints));
                }
            }
            "seeds" => {
                if let Some(seeds) = seeds(value, complaints) {
                    self.seeds = seeds;
                }
            }
            "report" => self.report(value, complaints),
            name => match Slot::named(name) {
                Some(slot) => {
                    complaints.take(self.setup.fill(slot, value));
                }
                None => {
                    let mut error =
                        Diagnostic::error(format!("an experiment has no field `{name}`")).at(&entry.key, "");
                    error.help = suggestion(name, "its fields", FIELDS);
                    complaints.push(error);
                }
            },
        }
    }

    fn report(&mut self, piece: &Piece, complaints: &mut Complaints) {
        let Some(entries) = complaints.take(raw::fields(piece)) else { return };
        for entry in entries {
            match entry.key.text() {
                "headline" => self.headline = complaints.take(quoted(&entry.value)),
                "compare" => {
                    for item in complaints.take(raw::list(&entry.value)).unwrap_or_default() {
                        self.compare.extend(compare(&item, complaints));
                    }
                }
                other => unknown(other, &entry.key, "`report`", &["headline", "compare"], complaints),
            }
        }
    }
}

/// Whether a value says what stands at these steps in it.
fn gives(value: &Piece, steps: &[Piece]) -> bool {
    let Some((step, rest)) = steps.split_first() else { return true };
    if let Ok(items) = raw::list(value) {
        let named = |item: &Piece| raw::call(item).is_some_and(|(name, _)| name.text() == step.text());
        let numbered = step.text().parse::<usize>().ok().and_then(|number| items.get(number.checked_sub(1)?));
        return numbered.or_else(|| items.iter().find(|item| named(item))).is_some_and(|item| gives(item, rest));
    }
    // Settings have no name.
    let fields = raw::call(value).map_or_else(|| raw::fields(value), |(_, arguments)| raw::fields(&arguments));
    fields.is_ok_and(|fields| fields.iter().any(|f| f.key.text() == step.text() && gives(&f.value, rest)))
}

fn seeds(piece: &Piece, complaints: &mut Complaints) -> Option<Vec<u64>> {
    let items = complaints.take(raw::list(piece).map_err(|error| error.help("for example `seeds: [0, 1, 2]`")))?;
    if items.is_empty() {
        complaints.push(Diagnostic::error("there is no seed").at(piece, "give at least one: `seeds: [0]`"));
    }
    let mut order = Vec::new();
    let mut seen: HashMap<u64, Piece> = HashMap::new();
    for item in items {
        let Some(seed) = complaints.take(raw::typed::<u64>(&item, "a whole number, 0 or more")) else { continue };
        match seen.get(&seed) {
            Some(first) => complaints.push(
                Diagnostic::error(format!("the seed {seed} is given twice"))
                    .at(&item, "here again")
                    .also(first, "here first")
                    .help("the same seed gives the same result: it would count as two without being two"),
            ),
            None => {
                order.push(seed);
                seen.insert(seed, item);
            }
        }
    }
    Some(order)
}
