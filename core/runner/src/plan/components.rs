//! The third pass: every component and every group of settings, checked and with all defaults filled in.

use crate::experiment::diagnostic::{Complaints, Diagnostic, Severity};
use crate::experiment::reach::Descriptions;
use crate::experiment::written::{Field, Shape, Written, WrittenCall, default_piece};
use crate::experiment::{Setup, Slot, help_of};
use crate::job::{Call, Called};
use crate::plan::catalog::Catalog;
use crate::plan::setups::Combination;
use crate::plugins::{Plugins, quietly};
use crate::settings::{Conditioning, Evaluation, PriorTraining, TokenizerTraining};
use crate::shared::Shared;
use crate::weights::{FilesByLevel, WeightsFile};
use rqlab_sdk::config::{self, Config, ConfigError, Description, Fault, FieldDoc, Scope, ValueKind};
use rqlab_sdk::plugin::Kind;
use rqlab_text::TextTokenizer;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The small prior that tokenizers are probed with.
const PROBE: &str = "ar(width: 64, heads: 4, layers: 2)";
/// How deep components may hold components.
const DEEPEST: usize = 8;

/// What one combination asks for, resolved. Combinations share what they agree in.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// The question of its experiment.
    pub(super) question: Arc<str>,
    pub(super) data: Call,
    pub(super) autoencoder: Call,
    /// One for each level, or one for all of them.
    pub(super) quantizers: Arc<[Call]>,
    /// As for quantizers; empty if there is no prior.
    pub(super) priors: Arc<[Call]>,
    pub(super) objectives: Arc<[Call]>,
    pub(super) tokenizer_training: Arc<TokenizerTraining>,
    /// What the tokenizer starts from, if it is not the seed's initial values.
    pub(super) tokenizer_from: Option<WeightsFile>,
    pub(super) prior_training: Arc<PriorTraining>,
    /// What the prior of each level starts from, likewise: all or none.
    pub(super) prior_from: Vec<WeightsFile>,
    /// The published tokenizer of captions, if one is named, and how many tokens it has.
    pub(super) text_tokenizer: Option<(WeightsFile, usize)>,
    pub(super) evaluation: Arc<Evaluations>,
    /// The small prior that every tokenizer's codes are probed with, if that is asked for.
    pub(super) probe: Option<Call>,
    /// Where the data set's relative paths start.
    pub(super) base: Arc<Path>,
}

/// What is measured, and the part of it that each of the stages depends on.
#[derive(Debug)]
pub(super) struct Evaluations {
    pub(super) all: Evaluation,
    /// What measures of reconstructions depend on.
    pub(super) of_reconstruction: Shared<Evaluation>,
    /// What measures of perturbed codes depend on.
    pub(super) of_perturbation: Shared<Evaluation>,
    /// What priors and measures of them depend on.
    pub(super) of_generation: Shared<Evaluation>,
    /// What measures of the probe depend on.
    pub(super) of_probe: Shared<Evaluation>,
}

/// Resolves all combinations; one that cannot be is left out, with a complaint.
pub(super) fn resolve(
    question: &str,
    combinations: Vec<Combination>,
    catalog: &Catalog<'_>,
    complaints: &mut Complaints,
) -> Vec<(Combination, Resolved)> {
    let mut resolver = Resolver::new(question, catalog);
    let resolved = combinations.into_iter().filter_map(|combination| {
        let resolved = resolver.setup(&combination.setup, complaints)?;
        Some((combination, resolved))
    });
    resolved.collect()
}

/// A call that no experiment holds, resolved.
///
/// # Errors
/// All that is wrong with it.
pub(crate) fn resolve_call(plugins: &Plugins, kind: Kind, text: &str) -> rqlab_sdk::Result<Call> {
    let failed = |wrong: Vec<Diagnostic>| {
        let wrong: Vec<String> =
            wrong.iter().map(|one| one.render(false).trim_start_matches("error: ").to_owned()).collect();
        rqlab_sdk::Error::Unsupported(wrong.join("\n"))
    };
    let (owner, catalog) = (format!("the {kind}"), Catalog::new(plugins));
    let piece = default_piece(&owner, text);
    let written = Written::calls(kind, Shape::One, &piece, &owner).map_err(|error| failed(vec![error]))?;
    let call = written.items().into_iter().next();
    let call = call.ok_or_else(|| rqlab_sdk::Error::Unsupported(format!("{owner} is missing")))?;
    Resolver::new("", &catalog).resolved(call, 1).map_err(failed)
}

/// A call resolved, or all that is wrong with it.
type Answer = Result<Call, Vec<Diagnostic>>;

/// How priors are trained, what they start from, and the published tokenizer of captions with the number of its tokens.
type PriorStart = (Arc<PriorTraining>, Vec<WeightsFile>, Option<(WeightsFile, usize)>);

/// What slots that hold the same were resolved to before; none of one that cannot be, of which all is said.
type Known<T> = HashMap<Option<Arc<Written>>, Option<T>>;

/// Resolves what slots hold, equal contents once.
struct Resolver<'a> {
    question: Arc<str>,
    catalog: &'a Catalog<'a>,
    calls: Known<Arc<[Call]>>,
    tokenizer_training: Known<(Arc<TokenizerTraining>, Option<WeightsFile>)>,
    prior_training: Known<PriorStart>,
    evaluations: Known<Arc<Evaluations>>,
    probe: Option<Call>,
    bases: HashMap<PathBuf, Arc<Path>>,
}

/// The three texts of a call that a field holds.
#[derive(Default)]
struct Texts {
    config: String,
    trained: String,
    sampled: String,
}

/// What the fields of a call hold of other components: their texts by field, and the plugins of all of them.
#[derive(Default)]
struct Held {
    texts: BTreeMap<&'static str, Texts>,
    plugins: BTreeMap<String, String>,
    /// The fields whose calls are wrong, and in what way.
    broken: Vec<&'static str>,
    wrong: Vec<Diagnostic>,
}

/// What the slot holds, made by `make` where nothing equal was met before.
fn once<T: Clone>(known: &mut Known<T>, setup: &Setup, slot: Slot, make: impl FnOnce() -> Option<T>) -> Option<T> {
    known.entry(setup.shared(slot).cloned()).or_insert_with(make).clone()
}

impl<'a> Resolver<'a> {
    fn new(question: &str, catalog: &'a Catalog<'a>) -> Self {
        Self {
            question: question.into(),
            catalog,
            calls: HashMap::new(),
            tokenizer_training: HashMap::new(),
            prior_training: HashMap::new(),
            evaluations: HashMap::new(),
            probe: None,
            bases: HashMap::new(),
        }
    }

    fn setup(&mut self, setup: &Setup, complaints: &mut Complaints) -> Option<Resolved> {
        let data = self.slot(setup, Slot::Data, complaints);
        let autoencoder = self.slot(setup, Slot::Autoencoder, complaints);
        let quantizers = self.slot(setup, Slot::Quantizer, complaints);
        let priors = self.slot(setup, Slot::Prior, complaints);
        let objectives = self.slot(setup, Slot::Objective, complaints);
        let tokenizer_training = once(&mut self.tokenizer_training, setup, Slot::TokenizerTraining, || {
            let training = settings::<TokenizerTraining>(setup, Slot::TokenizerTraining, complaints)?;
            if let Some(written) = setup.call(Slot::TokenizerTraining) {
                complaints.extend(untrained_quantizer(&training, written));
            }
            let from = complaints.take(start(setup, Slot::TokenizerTraining, training.from.as_deref()))?;
            Some((Arc::new(training), from))
        });
        let prior_training = once(&mut self.prior_training, setup, Slot::PriorTraining, || {
            let training = settings::<PriorTraining>(setup, Slot::PriorTraining, complaints)?;
            let files = training.from.iter().flat_map(FilesByLevel::files);
            let from = files.map(|file| start(setup, Slot::PriorTraining, Some(file))).collect::<Result<Vec<_>, _>>();
            let from = complaints.take(from)?.into_iter().flatten().collect();
            let tokenizer = complaints.take(text_tokenizer(setup, &training))?;
            Some((Arc::new(training.told()), from, tokenizer))
        });
        let evaluation = once(&mut self.evaluations, setup, Slot::Evaluation, || {
            let evaluation = settings::<Evaluation>(setup, Slot::Evaluation, complaints)?;
            complaints.take(Evaluations::of(evaluation).map_err(|error| Diagnostic::error(error.to_string())))
        });
        let probe = match &evaluation {
            Some(evaluation) if evaluation.all.probe_steps > 0 => Some(self.probe(complaints)?),
            _ => None,
        };
        let (tokenizer_training, tokenizer_from) = tokenizer_training?;
        let (prior_training, prior_from, text_tokenizer) = prior_training?;
        Some(Resolved {
            question: self.question.clone(),
            data: data?.first()?.clone(),
            autoencoder: autoencoder?.first()?.clone(),
            quantizers: quantizers?,
            priors: priors?,
            objectives: objectives?,
            tokenizer_training,
            tokenizer_from,
            prior_training,
            prior_from,
            text_tokenizer,
            evaluation: evaluation?,
            probe,
            base: self.base(setup),
        })
    }

    fn probe(&mut self, complaints: &mut Complaints) -> Option<Call> {
        if self.probe.is_none() {
            let piece = default_piece("the prior of `probe_steps`", PROBE);
            let written = Written::calls(Kind::Prior, Shape::One, &piece, "`probe_steps`");
            let written = complaints.take(written)?;
            let call = written.items().into_iter().next()?;
            self.probe = self.resolved(call, 1).map_err(|list| complaints.extend(list)).ok();
        }
        self.probe.clone()
    }

    /// All calls of a slot: none if it is empty.
    fn slot(&mut self, setup: &Setup, slot: Slot, complaints: &mut Complaints) -> Option<Arc<[Call]>> {
        let written = setup.shared(slot).cloned();
        if let Some(known) = self.calls.get(&written) {
            return known.clone();
        }
        let calls = written.as_deref().map_or(vec![], Written::items);
        let answers: Vec<Answer> = calls.into_iter().map(|call| self.resolved(call, 1)).collect();
        let calls = answers.into_iter().map(|answer| answer.map_err(|list| complaints.extend(list)).ok());
        // All of them are asked before one that is wrong ends it.
        let calls: Option<Arc<[Call]>> = calls.collect::<Vec<_>>().into_iter().collect();
        self.calls.insert(written, calls.clone());
        calls
    }

    /// Where the data set's relative paths start: where its `path` is written, or else its call.
    fn base(&mut self, setup: &Setup) -> Arc<Path> {
        let data = setup.call(Slot::Data);
        let origin = data.map(|data| data.field("path").map_or(&data.whole, |field| field.value.whole()));
        let dir = origin.map_or(Path::new(""), |piece| piece.source.dir.as_path());
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        if let Some(known) = self.bases.get(dir) {
            return known.clone();
        }
        let base: Arc<Path> = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()).into();
        self.bases.insert(dir.to_owned(), base.clone());
        base
    }

    fn resolved(&self, call: &WrittenCall, depth: usize) -> Answer {
        if depth > DEEPEST {
            let error =
                Diagnostic::error(format!("components are nested more than {DEEPEST} deep")).at(call.head(), "");
            return Err(vec![error.help("a component whose default holds itself has no end: give the field")]);
        }
        let provided = self.catalog.provided(call).map_err(|error| vec![error])?;
        let component = &provided.component;
        let kind = component.build.kind();
        let Some(description) = self.catalog.of(call.role, call.name()) else { return Err(vec![]) };
        names(call, &description)?;
        let (call, held) = self.held(call, &description, depth);
        let checked = check(&call, &description, &held, component.resolve);
        let (config, mut wrong) = checked.map_or_else(|wrong| (String::new(), wrong), |config| (config, vec![]));
        wrong.splice(0..0, held.wrong.clone());
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let fields: Vec<&Field> = call.fields.iter().collect();
        let identity = |scope, variant: fn(&Texts) -> &str| {
            let text = compose(&call, &fields, &description, &held, variant);
            (component.identity)(&text, scope).map_err(|error| vec![call.complaint(None, &error.message)])
        };
        let mut plugins = held.plugins.clone();
        plugins.insert(format!("{kind} {}", component.name), provided.origin.digest.clone());
        Ok(Call::from(Called {
            name: component.name.to_owned(),
            trained: identity(Scope::Training, |texts| &texts.trained)?,
            sampled: identity(Scope::Sampling, |texts| &texts.sampled)?,
            config,
            plugins,
        }))
    }

    /// What the fields of a call hold, given or by default, resolved; and the call with this taken apart.
    fn held(&self, call: &WrittenCall, description: &Description, depth: usize) -> (WrittenCall, Held) {
        let (mut call, mut held) = (call.clone(), Held::default());
        for field in description.fields.iter().filter(|field| field.kind.holds().is_some()) {
            match self.held_by(&mut call, field, depth, &mut held.plugins) {
                Ok(Some(texts)) => drop(held.texts.insert(field.name, texts)),
                Ok(None) => {}
                Err(wrong) => {
                    held.broken.push(field.name);
                    held.wrong.extend(wrong);
                }
            }
        }
        (call, held)
    }

    /// What one field holds; nothing if it is `None`.
    fn held_by(
        &self,
        call: &mut WrittenCall,
        field: &FieldDoc,
        depth: usize,
        plugins: &mut BTreeMap<String, String>,
    ) -> Result<Option<Texts>, Vec<Diagnostic>> {
        let one = |error| vec![error];
        call.open(field).map_err(one)?;
        let value = match call.field(field.name) {
            Some(given) => given.value.clone(),
            None => default(call, field).map_err(one)?,
        };
        match value {
            Written::Value(_) if field.kind.is_optional() => Ok(None),
            Written::Value(none) => {
                let what = field.kind.in_words();
                let message = format!("`{}` of {} must be {what}, found `None`", field.name, call.called());
                Err(vec![Diagnostic::error(message).at(&none, "").help(help_of(field))])
            }
            value => self.texts(&value, depth, plugins).map(Some),
        }
    }

    fn texts(
        &self,
        value: &Written,
        depth: usize,
        plugins: &mut BTreeMap<String, String>,
    ) -> Result<Texts, Vec<Diagnostic>> {
        let (mut calls, mut wrong) = (Vec::new(), Vec::new());
        for call in value.items() {
            match self.resolved(call, depth + 1) {
                Ok(call) => calls.push(call),
                Err(list) => wrong.extend(list),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        plugins.extend(calls.iter().flat_map(|call| call.plugins.clone()));
        let join = |text: fn(&Call) -> &str| {
            let list: Vec<String> = calls.iter().map(|call| format!("{}{}", call.name, text(call))).collect();
            match value {
                Written::List(_) => format!("[{}]", list.join(",")),
                _ => list.concat(),
            }
        };
        Ok(Texts {
            config: join(|call| &call.config),
            trained: join(|call| &call.trained),
            sampled: join(|call| &call.sampled),
        })
    }
}

/// The slot's settings; the defaults if nothing is said.
fn settings<C: Config>(setup: &Setup, slot: Slot, complaints: &mut Complaints) -> Option<C> {
    let nothing = WrittenCall::no_settings(slot, &default_piece(&format!("`{slot}`"), "()"));
    let call = setup.call(slot).unwrap_or(&nothing);
    let description = C::describe();
    let resolve = |text: &str| Ok(C::read(text)?.resolved()?);
    let text = names(call, &description).and_then(|()| check(call, &description, &Held::default(), resolve));
    match text {
        Ok(text) => complaints.take(C::parse(&text).map_err(|error| call.refusal(&error))),
        Err(list) => {
            complaints.extend(list);
            None
        }
    }
}

/// The file that training starts from, as it is now: `from` is relative to where it is written, and may be a stage's directory.
fn start(setup: &Setup, slot: Slot, from: Option<&str>) -> Result<Option<WeightsFile>, Diagnostic> {
    let (Some(from), Some(call)) = (from, setup.call(slot)) else { return Ok(None) };
    let dir = call.field("from").map_or(Path::new(""), |field| field.value.whole().source.dir.as_path());
    let mut path = dir.join(from);
    if path.is_dir() {
        path.push("result.safetensors");
    }
    let file = std::fs::canonicalize(&path).map_err(rqlab_sdk::Error::file(&path)).and_then(WeightsFile::of);
    file.map(Some).map_err(|error| {
        let help = "`rqlab import FILE --as NAME` makes a file of a published checkpoint; `from` is relative to the file that it stands in";
        call.complaint(Some("from"), &error.to_string()).help(help)
    })
}

/// The published tokenizer of captions that a training names, if it is told captions.
fn text_tokenizer(setup: &Setup, training: &PriorTraining) -> Result<Option<(WeightsFile, usize)>, Diagnostic> {
    const FIELD: &str = "text_tokenizer";
    let (Some(named), Conditioning::Text) = (&training.text_tokenizer, training.condition) else { return Ok(None) };
    let Some(call) = setup.call(Slot::PriorTraining) else { return Ok(None) };
    let dir = call.field(FIELD).map_or(Path::new(""), |field| field.value.whole().source.dir.as_path());
    let path = dir.join(named);
    let refused = |message: String| call.complaint(Some(FIELD), &message);
    let path = std::fs::canonicalize(&path).map_err(|error| refused(format!("{}: {error}", path.display())))?;
    let tokenizer = quietly(|| TextTokenizer::load(&path)).map_err(|error| refused(error.to_string()))?;
    let file = WeightsFile::of(path).map_err(|error| refused(error.to_string()))?;
    Ok(Some((file, tokenizer.vocabulary())))
}

/// A field's default, taken apart.
fn default(call: &WrittenCall, field: &FieldDoc) -> Result<Written, Diagnostic> {
    let owner = format!("`{}` of {}", field.name, call.called());
    let piece = default_piece(&owner, field.default.as_deref().unwrap_or("None"));
    match field.kind.holds() {
        Some(kind) => Written::calls(kind, Shape::of(&field.kind), &piece, &owner),
        None => Ok(Written::Value(piece)),
    }
}

/// Fields that a call must not have, and that it must.
fn names(call: &WrittenCall, description: &Description) -> Result<(), Vec<Diagnostic>> {
    let unknown = call.fields.iter().filter(|given| description.field(given.key.text()).is_none());
    let mut wrong: Vec<_> = unknown.map(|given| call.unknown_field(&given.key, description)).collect();
    let missing = description.fields.iter().filter(|field| field.default.is_none() && call.field(field.name).is_none());
    wrong.extend(missing.map(|field| call.missing_field(field)));
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// The call with all defaults filled in, without its name; or all that is wrong with its values.
fn check(
    call: &WrittenCall,
    description: &Description,
    held: &Held,
    resolve: impl Fn(&str) -> Result<String, config::Complaints>,
) -> Result<String, Vec<Diagnostic>> {
    let of = |fields: &[&Field]| resolve(&compose(call, fields, description, held, |texts| &texts.config));
    let is_sound = |given: &&Field| !held.broken.contains(&given.key.text());
    let all: Vec<&Field> = call.fields.iter().filter(is_sound).collect();
    let wrong = match of(&all) {
        Ok(text) => return Ok(text),
        Err(wrong) => wrong,
    };
    // The parser stops at the first value that it cannot read, and points behind it: asked about one field at a time, it names
    // every field that is wrong, and the complaint can point at the value.
    let mut said = Vec::new();
    for given in &all {
        let errors = of(&[given]).err().into_iter().flatten();
        let of_value = errors.filter(|error| error.fault != Fault::MissingField);
        said.extend(of_value.map(|error| call.wrong_value(given, &error, description)));
    }
    // Without what is broken, fields are missing that are given.
    if said.is_empty() && held.broken.is_empty() {
        said.extend(wrong.into_iter().map(|error: ConfigError| call.refusal(&error)));
    }
    Err(said)
}

/// A call with some of its fields. What these hold is written with the texts that `variant` chooses.
fn compose(
    call: &WrittenCall,
    fields: &[&Field],
    description: &Description,
    held: &Held,
    variant: impl Fn(&Texts) -> &str,
) -> String {
    let defaults = held.texts.iter().filter(|(name, _)| call.field(name).is_none());
    let mut lines: Vec<String> = defaults.map(|(name, texts)| format!("{name}: {},\n", variant(texts))).collect();
    for given in fields {
        let name = given.key.text();
        let value = match held.texts.get(name) {
            Some(texts) => variant(texts).to_owned(),
            None => plain(given, description),
        };
        lines.push(format!("{name}: {value},\n"));
    }
    let name = call.name.as_ref().map_or("", |name| name.text());
    format!("{name}(\n{})", lines.concat())
}

/// A plain value as the parser reads it. The shell eats quotes: a text of the command line gets its own again.
fn plain(given: &Field, description: &Description) -> String {
    let piece = given.value.whole();
    let wants_text =
        description.field(given.key.text()).is_some_and(|field| matches!(field.kind.required(), ValueKind::Text));
    let bare = piece.source.is_argument && !piece.text().starts_with('"') && piece.text() != "None";
    if wants_text && bare { format!("{:?}", piece.text()) } else { piece.text().to_owned() }
}

/// A warning if training ends before the quantizer has begun.
fn untrained_quantizer(training: &TokenizerTraining, written: &WrittenCall) -> Option<Diagnostic> {
    let (after, steps) = (training.quantize_after, training.steps);
    // What starts from given weights may stay as it is.
    (after >= steps && training.from.is_none()).then(|| {
        let message = format!("no step trains the quantizer: it starts after {after} steps of {steps}");
        let field = ["quantize_after", "steps"].into_iter().find(|field| written.field(field).is_some());
        Diagnostic { severity: Severity::Warning, ..written.complaint(field, &message) }
    })
}
