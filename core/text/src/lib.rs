//! Texts as tokens, for priors that are conditioned on captions.
//!
//! A tokenizer is a byte-level BPE that is trained on the captions of the training images (Sennrich et al., "Neural Machine
//! Translation of Rare Words with Subword Units", ACL 2016; on bytes: Radford et al., "Language Models are Unsupervised
//! Multitask Learners", 2019), or one that others have published as `tokenizer.json`. Both are Hugging Face's `tokenizers`.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::{PostProcessorWrapper, Tokenizer};

/// The result of what may fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why there is no tokenizer, or no tokens.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that is no tokenizer.
    #[error("{path}: it is no tokenizer.json: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// What the library could not do.
    #[error("{0}")]
    Library(String),
}

/// A pair of tokens that occurs less often than this is not joined: a word that stands once stays in pieces.
const LEAST_FREQUENCY: u64 = 2;

/// Makes tokens of texts. Tokens are numbered from 0; the last number is that of the end of a text.
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    vocabulary: usize,
}

/// A text as so many tokens as a prior reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The tokens, then ends of text up to the length.
    pub tokens: Vec<u32>,
    /// How many tokens the text has.
    pub length: usize,
}

impl Encoded {
    /// How many tokens of the text did not fit.
    pub fn cut(&self) -> usize {
        self.length.saturating_sub(self.tokens.len())
    }
}

impl TextTokenizer {
    /// The smallest vocabulary that can be trained: a token for each byte, and the end of a text.
    pub const SMALLEST: usize = 257;

    /// Trains a byte-level BPE on texts until it has `vocabulary` tokens, the end of a text among them, or nothing is left to
    /// be joined. Equal texts give equal tokenizers.
    ///
    /// # Errors
    /// [`Error::Library`], not known to occur.
    pub fn train<'a>(texts: impl IntoIterator<Item = &'a str>, vocabulary: usize) -> Result<Self> {
        let trainer = BpeTrainer::builder()
            .show_progress(false)
            .min_frequency(LEAST_FREQUENCY)
            .vocab_size(vocabulary.saturating_sub(1))
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let mut tokenizer = Tokenizer::new(BPE::default());
        // Without a space put before the text, a word has other tokens at its beginning.
        let bytes = ByteLevel::default().add_prefix_space(true);
        tokenizer.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
        let mut texts: Vec<&str> = texts.into_iter().collect();
        texts.sort_unstable();
        tokenizer.train(&mut TrainerWrapper::from(trainer), texts.into_iter()).map_err(library)?;
        Ok(Self::of(tokenizer))
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read or is none.
    pub fn load(path: &Path) -> Result<Self> {
        let failed = |reason: String| Error::File { path: path.display().to_string(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        Self::parse(&text).map_err(|error| failed(error.to_string()))
    }

    /// Reads the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Library`] for a text that is none.
    pub fn parse(json: &str) -> Result<Self> {
        let mut tokenizer: Tokenizer = guarded(|| json.parse())?;
        // How long a text may be, and what stands around it, is the prior's affair.
        tokenizer.with_truncation(None).map_err(library)?;
        tokenizer.with_padding(None).with_post_processor(None::<PostProcessorWrapper>);
        Ok(Self::of(tokenizer))
    }

    fn of(tokenizer: Tokenizer) -> Self {
        // The largest number counts: published vocabularies have gaps.
        let last = tokenizer.get_vocab(true).into_values().max();
        Self { tokenizer, vocabulary: last.map_or(0, |last| last as usize + 1) + 1 }
    }

    /// It as `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Library`], not known to occur.
    pub fn to_json(&self) -> Result<String> {
        self.tokenizer.to_string(false).map_err(library)
    }

    /// How many tokens there are, the end of a text among them.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// A text as `length` tokens.
    ///
    /// # Errors
    /// [`Error::Library`] where a published tokenizer does not know a letter and has no token for such.
    pub fn encode(&self, text: &str, length: usize) -> Result<Encoded> {
        let end = self.vocabulary as u32 - 1;
        let encoding = guarded(|| self.tokenizer.encode_fast(text.trim(), false))?;
        let mut tokens = encoding.get_ids().to_vec();
        let found = tokens.len();
        tokens.resize(length, end);
        Ok(Encoded { tokens, length: found })
    }
}

/// The words of a text, each once: runs of letters and digits, as they are written.
pub fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect()
}

/// What the library does. It panics at some files that others would refuse.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("its parts contradict each other".into()))
        .map_err(library)
}

fn library(error: tokenizers::Error) -> Error {
    Error::Library(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    const TEXTS: [&str; 4] =
        ["small plain tiles in stone colours", "large plain tiles", "plain stars in night colours", "small stars"];

    #[test]
    fn frequent_words_become_tokens() {
        let tokenizer = TextTokenizer::train(TEXTS, 400).unwrap();
        let encoded = tokenizer.encode("plain tiles", 4).unwrap();
        assert_eq!((encoded.length, encoded.cut()), (2, 0));
        let end = tokenizer.vocabulary() as u32 - 1;
        assert!(encoded.tokens[..2].iter().all(|token| *token < end));
        assert_eq!(encoded.tokens[2..], [end; 2]);
        assert_eq!(tokenizer.encode("  plain tiles ", 4).unwrap(), encoded);
    }

    #[test]
    fn any_letters_have_tokens_and_long_texts_are_cut() {
        let tokenizer = TextTokenizer::train(TEXTS, 300).unwrap();
        assert!(tokenizer.vocabulary() <= 300);
        let strange = tokenizer.encode("\u{1F98A} zebra", 3).unwrap();
        assert_eq!(strange.tokens.len(), 3);
        assert!(strange.cut() > 0 && strange.cut() == strange.length - 3);
        let empty = tokenizer.encode("", 2).unwrap();
        assert_eq!((empty.length, empty.tokens), (0, vec![tokenizer.vocabulary() as u32 - 1; 2]));
    }

    #[test]
    fn equal_texts_give_equal_tokenizers_and_a_file_gives_the_same_back() {
        let json = |texts: &[&str]| TextTokenizer::train(texts.iter().copied(), 320).unwrap().to_json().unwrap();
        let reversed: Vec<&str> = TEXTS.into_iter().rev().collect();
        assert_eq!(json(&TEXTS), json(&reversed));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, json(&TEXTS)).unwrap();
        let (trained, loaded) = (TextTokenizer::train(TEXTS, 320).unwrap(), TextTokenizer::load(&path).unwrap());
        assert_eq!(trained.vocabulary(), loaded.vocabulary());
        assert_eq!(trained.encode(TEXTS[0], 9).unwrap(), loaded.encode(TEXTS[0], 9).unwrap());
    }

    #[test]
    fn a_file_that_is_no_tokenizer_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        std::fs::write(&path, "{\"version\": 1}").unwrap();
        let refused = TextTokenizer::load(&path).err().unwrap().to_string();
        assert!(refused.contains("tokenizer.json"), "{refused}");
        assert!(TextTokenizer::load(&dir.path().join("none")).is_err());
    }

    #[test]
    fn words_are_runs_of_letters() {
        assert_eq!(
            words("moons, small and small-ish").into_iter().collect::<Vec<_>>(),
            ["and", "ish", "moons", "small"]
        );
    }
}
