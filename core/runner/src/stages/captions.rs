//! Makes tokens of the captions of training images, once for all priors that are told them.

use super::subset::subset;
use super::token_file::Writer;
use super::{Context, Stage, as_json, open_dataset};
use crate::id::Id;
use crate::job::Call;
use crate::settings::Precision;
use crate::store::Done;
use crate::weights::WeightsFile;
use rqlab_reports::Reading;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::{Dataset, Split, Tokens};
use rqlab_sdk::tensor::Codes;
use rqlab_sdk::{Error, Result};
use rqlab_text::{TextTokenizer, words};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Captions that are read at once.
const BATCH: usize = 1024;
/// The names of what is kept: the tokenizer, the words of all captions, which images have one, and the file of tokens.
pub(super) const TOKENIZER: &str = "tokenizer";
pub(super) const WORDS: &str = "words";
pub(super) const PRESENT: &str = "present";
pub(super) const FILE: &str = "captions.tokens";

/// Makes tokens of the captions of training images, with a tokenizer that is trained on them or read from a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EncodeCaptions {
    /// The data set.
    pub data: Call,
    /// How many training images, of all classes: those that priors learn from.
    pub images: usize,
    /// Tokens of a caption, of which longer ones are cut.
    pub length: usize,
    /// Tokens of the tokenizer that is trained.
    pub vocabulary: usize,
    /// A published tokenizer in its place.
    pub tokenizer: Option<WeightsFile>,
}

impl EncodeCaptions {
    /// See [`Stage::name`].
    pub const NAME: &str = "captions";

    /// All captions, empty ones of images that have none.
    fn read(&self, cx: &mut Context<'_>, dataset: &dyn Dataset) -> Result<Vec<String>> {
        let chosen = subset(dataset.info().train, self.images);
        let mut captions = Vec::with_capacity(chosen.len());
        for indices in chosen.chunks(BATCH) {
            captions.extend(dataset.captions(Split::Train, indices)?);
            cx.reporter.step(captions.len() as u64, chosen.len() as u64, String::new);
        }
        Ok(captions)
    }
}

impl Stage for EncodeCaptions {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn revision(&self) -> u32 {
        1
    }

    fn calls(&self) -> Vec<&Call> {
        vec![&self.data]
    }

    fn identity(&self) -> Result<Value> {
        let tokenizer = match &self.tokenizer {
            Some(file) => json!(file.digest),
            None => json!(self.vocabulary),
        };
        Ok(json!({
            "data": [self.data.name, self.data.trained],
            "images": self.images,
            "length": self.length,
            "tokenizer": tokenizer,
        }))
    }

    fn precision(&self) -> Precision {
        Precision::F32
    }

    fn work(&self) -> f64 {
        self.images as f64
    }

    fn run(&self, cx: &mut Context<'_>) -> Result<Done> {
        let dataset = open_dataset(cx.plugins, &self.data, cx.job)?;
        let captions = self.read(cx, dataset.as_ref())?;
        let given: Vec<&str> = captions.iter().map(String::as_str).filter(|caption| !caption.is_empty()).collect();
        let tokenizer = match &self.tokenizer {
            Some(file) => {
                file.check()?;
                TextTokenizer::load(&file.path)
            }
            None => TextTokenizer::train(given.iter().copied(), self.vocabulary),
        };
        let tokenizer = tokenizer.map_err(refused)?;
        let mut file = Writer::new(&cx.dir().file(FILE))?;
        let (mut cut, mut longest, mut lengths) = (0, 0, 0);
        for some in captions.chunks(BATCH) {
            let mut tokens = Vec::with_capacity(some.len() * self.length);
            for caption in some {
                let encoded = tokenizer.encode(caption, self.length).map_err(refused)?;
                cut += usize::from(encoded.cut() > 0);
                longest = longest.max(encoded.length);
                lengths += encoded.length;
                tokens.extend(encoded.tokens);
            }
            file.push(&Tokens::Codes(Codes::from_vec(tokens, &[some.len(), 1, self.length, 1])?))?;
        }
        file.finish()?;
        let (all, missing) = (captions.len(), captions.len() - given.len());
        if missing > 0 {
            cx.reporter.warn(&format!("{missing} of {all} training images have no caption, and the null condition"));
        }
        if cut > 0 {
            let length = self.length;
            cx.reporter.warn(&format!(
                "{cut} of {all} captions are longer than `text_length: {length}` and are cut; the longest has {longest} tokens"
            ));
        }
        let present = captions.iter().map(|caption| u32::from(!caption.is_empty())).collect();
        let vocabulary: BTreeSet<&str> = given.iter().flat_map(|caption| words(caption)).collect();
        let vocabulary: Vec<&str> = vocabulary.into_iter().collect();
        Checkpoint {
            codes: BTreeMap::from([(PRESENT.to_owned(), Codes::from_vec(present, &[all])?)]),
            metadata: BTreeMap::from([
                (TOKENIZER.to_owned(), tokenizer.to_json().map_err(refused)?),
                (WORDS.to_owned(), vocabulary.join("\n")),
            ]),
            ..Checkpoint::default()
        }
        .save(&cx.dir().result())?;
        let share = |count: usize, of: usize| count as f64 / of.max(1) as f64;
        Ok(Done {
            readings: vec![
                Reading::new("missing_captions", [], share(missing, all)),
                Reading::new("cut_captions", [], share(cut, all)),
                Reading::new("caption_tokens", [], share(lengths, given.len())),
            ],
            ..Done::default()
        })
    }

    fn describe(&self) -> Result<Value> {
        as_json(self)
    }
}

/// Why there are no tokens of a text.
pub(super) fn refused(error: rqlab_text::Error) -> Error {
    Error::Data(error.to_string())
}

/// The captions that a prior is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Captioned {
    /// The job that made tokens of them.
    pub job: Id,
    /// What these are.
    #[serde(flatten)]
    pub text: TextSpace,
}

/// Captions as a prior is told them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TextSpace {
    /// How many tokens there are.
    pub vocabulary: usize,
    /// Whether some image has no caption.
    pub missing: bool,
}
