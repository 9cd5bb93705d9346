//! Calls of components within the configuration of another.

use crate::plugin::Kind;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A component's call within another's configuration: `of: fsq(levels: [8, 5, 5])`. It is kept as text; the component that
/// holds it builds the inner one with [`Components`](crate::contracts::Components). Fields are declared with the type of their
/// kind, such as [`QuantizerCall`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The inner component's name.
    pub name: String,
    /// The whole call, name included, as [`Config::parse`](super::Config::parse) reads it.
    pub text: String,
}

impl Call {
    /// A call from its text.
    pub fn new(text: &str) -> Self {
        let text = text.trim();
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
        Self { name: text[..end].to_owned(), text: text.to_owned() }
    }
}

impl Serialize for Call {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = ron::value::RawValue::from_ron(&self.text).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Call {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<ron::value::RawValue>::deserialize(deserializer)?;
        let call = Self::new(raw.trim().get_ron());
        if call.name.is_empty() || call.name.starts_with(|c: char| c.is_numeric()) {
            return Err(serde::de::Error::custom("expected a component's call such as `name(field: value, ..)`"));
        }
        Ok(call)
    }
}

macro_rules! calls {
    ($($(#[doc = $doc:literal])* $Name:ident: $kind:ident;)+) => { $(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $Name(pub Call);

        impl $Name {
            /// The kind of component that is called.
            pub const KIND: Kind = Kind::$kind;

            /// A call from its text, for defaults: `QuantizerCall::new("fsq(levels: [8, 5, 5])")`.
            pub fn new(text: &str) -> Self {
                Self(Call::new(text))
            }
        }
    )+ };
}
calls! {
    /// A field that holds an autoencoder.
    AutoencoderCall: Autoencoder;
    /// A field that holds a quantizer.
    QuantizerCall: Quantizer;
    /// A field that holds a prior.
    PriorCall: Prior;
    /// A field that holds an objective.
    ObjectiveCall: Objective;
}
