//! What priors are told of images: classes, captions, or nothing.

use super::TrainPrior;
use super::captions::{FILE, PRESENT, TOKENIZER, TextSpace, WORDS, refused};
use super::token_file::TokenFile;
use crate::settings::{Conditioning, PriorTraining};
use crate::store::{StageDir, Store};
use rqlab_sdk::contracts::{Condition, ConditionSpace, Dataset, Split, code_rows};
use rqlab_sdk::tensor::Codes;
use rqlab_sdk::{Error, Result};
use rqlab_text::{TextTokenizer, words};
use std::collections::BTreeSet;

/// What a prior is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Told {
    /// The conditions that it sees.
    pub space: ConditionSpace,
    /// Whether it sees the null condition, too.
    pub null: bool,
}

impl Told {
    /// What a training tells of images of so many classes, or of their captions.
    pub fn of(training: &PriorTraining, classes: usize, text: Option<TextSpace>) -> Self {
        let space = match (training.condition, text) {
            (Conditioning::Class, _) => Self::classes(classes),
            (Conditioning::Text, Some(text)) => {
                ConditionSpace::Text { vocabulary: text.vocabulary, length: training.text_length }
            }
            _ => ConditionSpace::None,
        };
        let missing = matches!(space, ConditionSpace::Text { .. }) && text.is_some_and(|text| text.missing);
        Self { space, null: training.condition_dropout > 0.0 || missing }
    }

    /// So many classes, if there are any.
    pub fn classes(classes: usize) -> ConditionSpace {
        if classes == 0 { ConditionSpace::None } else { ConditionSpace::Classes(classes) }
    }
}

/// The conditions of images, as a trained prior knows them.
pub struct Conditions {
    space: ConditionSpace,
    captions: Option<Captions>,
}

/// Captions as tokens.
struct Captions {
    dir: StageDir,
    tokenizer: TextTokenizer,
    /// The words of all training captions.
    words: BTreeSet<String>,
    /// Whether each of the training images has one, `[N]`.
    present: Codes,
    length: usize,
}

/// What a prior cannot read of a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    /// Tokens that did not fit.
    pub cut: usize,
    /// Words that no training caption has.
    pub unknown: Vec<String>,
}

impl Conditions {
    /// Those of a prior of images of so many classes.
    ///
    /// # Errors
    /// Tokens of captions that are missing or damaged.
    pub(super) fn of(store: &Store, prior: &TrainPrior, classes: usize) -> Result<Self> {
        let space = prior.told(classes).space;
        let (Some(captioned), ConditionSpace::Text { length, .. }) = (&prior.captions, space) else {
            return Ok(Self { space, captions: None });
        };
        let dir = store.stage(&captioned.job);
        let kept = dir.load_result()?;
        let (Some(json), Some(known), Some(present)) =
            (kept.metadata.get(TOKENIZER), kept.metadata.get(WORDS), kept.codes.get(PRESENT))
        else {
            let message = format!("{} holds no tokens of captions; delete its folder", dir.result().display());
            return Err(Error::Checkpoint(message));
        };
        let tokenizer = TextTokenizer::parse(json).map_err(refused)?;
        let words = known.lines().map(str::to_owned).collect();
        Ok(Self { space, captions: Some(Captions { dir, tokenizer, words, present: present.clone(), length }) })
    }

    /// What they are taken from.
    pub fn space(&self) -> ConditionSpace {
        self.space
    }

    /// Whether they are captions.
    pub fn are_captions(&self) -> bool {
        self.captions.is_some()
    }

    /// The conditions of the images `indices` of a split, which have these classes.
    ///
    /// # Errors
    /// Those of the data set.
    pub fn of_images(&self, data: &dyn Dataset, split: Split, indices: &[usize], labels: &Codes) -> Result<Condition> {
        match self.captions {
            Some(_) => self.of_texts(&data.captions(split, indices)?),
            None => Condition::of_labels(self.space, labels),
        }
    }

    /// The conditions that these texts are: the null condition, where one is empty.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where priors are told no captions; letters that a published tokenizer does not know.
    pub fn of_texts(&self, texts: &[String]) -> Result<Condition> {
        let Some(captions) = &self.captions else {
            let message = "this prior is told no captions: train it with `prior_training: (condition: text)`";
            return Err(Error::Unsupported(message.to_owned()));
        };
        let mut tokens = Vec::with_capacity(texts.len() * captions.length);
        for text in texts {
            tokens.extend(captions.tokenizer.encode(text, captions.length).map_err(refused)?.tokens);
        }
        let present = texts.iter().map(|text| u32::from(!text.trim().is_empty())).collect();
        let tokens = Codes::from_vec(tokens, &[texts.len(), captions.length])?;
        Condition::texts(tokens, Codes::from_vec(present, &[texts.len()])?)
    }

    /// What a prior cannot read of a text; nothing is missed by one that is told no captions.
    ///
    /// # Errors
    /// Letters that a published tokenizer does not know.
    pub fn unread(&self, text: &str) -> Result<Unread> {
        let Some(captions) = &self.captions else { return Ok(Unread::default()) };
        let cut = captions.tokenizer.encode(text, captions.length).map_err(refused)?.cut();
        let unknown = words(text).into_iter().filter(|word| !captions.words.contains(*word));
        Ok(Unread { cut, unknown: unknown.map(str::to_owned).collect() })
    }

    /// The conditions of the training images that a prior learns from, to be asked for by rows.
    ///
    /// # Errors
    /// A file that is missing or damaged; captions of another number of images than `labels` are of.
    pub(super) fn of_training(&self, labels: &Codes) -> Result<TrainingConditions> {
        let file = match &self.captions {
            None => None,
            Some(captions) => {
                let file = TokenFile::open(&captions.dir.sound(FILE)?, captions.tokenizer.vocabulary() as u32)?;
                if [file.images(), captions.present.len()] != [labels.len(); 2] {
                    let path = captions.dir.file(FILE);
                    let message = format!(
                        "{}: captions of {} images, of which {} have tokens; delete it",
                        path.display(),
                        file.images(),
                        labels.len()
                    );
                    return Err(Error::Checkpoint(message));
                }
                Some((file, captions.present.clone()))
            }
        };
        Ok(TrainingConditions { space: self.space, labels: labels.clone(), captions: file })
    }
}

/// The conditions of training images.
pub(super) struct TrainingConditions {
    space: ConditionSpace,
    labels: Codes,
    captions: Option<(TokenFile, Codes)>,
}

impl TrainingConditions {
    /// How many images there are.
    pub(super) fn images(&self) -> usize {
        self.labels.len()
    }

    /// The conditions of the images `rows`.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(super) fn rows(&self, rows: &[usize]) -> Result<Condition> {
        let Some((file, present)) = &self.captions else {
            return Condition::of_labels(self.space, &code_rows(&self.labels, rows)?);
        };
        let tokens = file.rows(rows)?;
        let codes = tokens.codes()?;
        let codes = codes.reshape(&[rows.len(), codes.len() / rows.len().max(1)])?;
        Condition::texts(codes, code_rows(present, rows)?)
    }
}
