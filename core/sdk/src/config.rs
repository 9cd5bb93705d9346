//! Typed configuration: one declaration gives the struct, its parser, its ranges and its documentation.

use ron::extensions::Extensions;
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Visitor};
use std::fmt;
use std::ops::RangeBounds;

/// A place in a text: line and column, both from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A configuration that does not parse, or asks for what cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// What is wrong, what was expected.
    pub message: String,
    /// Where in the text that was parsed: start and end. Absent for a complaint about the whole.
    pub span: Option<(Place, Place)>,
    /// The field that the complaint is about, if it is about one and the place is not known.
    pub field: Option<String>,
}

impl ConfigError {
    /// A complaint about the value of `field`, found after parsing (say, that it does not divide the latent).
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self { message: message.into(), span: None, field: Some(field.to_owned()) }
    }

    fn unwritable(error: ron::Error) -> Self {
        Self { message: error.to_string(), span: None, field: None }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.span, &self.field) {
            (Some((start, _)), _) => write!(f, "{}:{}: {}", start.line, start.column, self.message),
            (None, Some(field)) => write!(f, "`{field}`: {}", self.message),
            (None, None) => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<ron::error::SpannedError> for ConfigError {
    fn from(error: ron::error::SpannedError) -> Self {
        let place = |p: ron::error::Position| Place { line: p.line, column: p.col };
        Self {
            message: error.code.to_string(),
            span: Some((place(error.span.start), place(error.span.end))),
            field: None,
        }
    }
}

/// The dialect of RON that all of rqlab reads: `Some` may be left out.
pub fn dialect() -> ron::Options {
    ron::Options::default().with_default_extension(
        Extensions::IMPLICIT_SOME | Extensions::UNWRAP_NEWTYPES | Extensions::UNWRAP_VARIANT_NEWTYPES,
    )
}

/// A component's call within another's configuration: `of: fsq(levels: [8, 5, 5])`. It is kept as text; the component that
/// holds it builds the inner one with [`crate::contracts::Components`]. Fields are declared with the type of their kind, such
/// as [`QuantizerCall`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The inner component's name.
    pub name: String,
    /// The whole call, name included, as [`Config::parse`] reads it.
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
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
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
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $Name(pub Call);

        impl Value for $Name {
            fn kind() -> String {
                concat!("a call of a component of kind ", stringify!($kind)).to_lowercase()
            }

            fn holds() -> Option<crate::plugin::Kind> {
                Some(crate::plugin::Kind::$kind)
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

/// What a field does not determine, so that a change of it repeats no more work than it must. Most fields carry no mark: they
/// determine all results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It changes no result: where a file lies, how often a checkpoint is written, how large a cache is. Written `local`.
    Local,
    /// It changes how a trained model is sampled, and nothing of how it is trained. Written `sampling`.
    Sampling,
}

impl Mark {
    /// The word in a declaration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Sampling => "sampling",
        }
    }

    /// What it means, in words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Local => "changes no result",
            Self::Sampling => "changes sampling alone: what was trained stays as it is",
        }
    }
}

/// What work is named by a configuration's [`Config::identity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Training, and what else does not sample: only fields without a mark count.
    Training,
    /// Sampling: all fields count but those that are local.
    Sampling,
}

impl Scope {
    /// Whether a field with that mark counts.
    pub fn counts(self, mark: Option<Mark>) -> bool {
        match mark {
            None => true,
            Some(Mark::Sampling) => self == Self::Sampling,
            Some(Mark::Local) => false,
        }
    }
}

/// One field of a configuration, for `rqlab plugins describe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDoc {
    /// Its name.
    pub name: &'static str,
    /// What values look like: `integer`, `number`, `per_depth | per_step`, ...
    pub kind: String,
    /// The default as RON; none if the field must be given.
    pub default: Option<String>,
    /// The values that are accepted, as a Rust range.
    pub range: Option<&'static str>,
    /// The kind of component whose call, or list of calls, it holds; none for plain values.
    pub holds: Option<crate::plugin::Kind>,
    /// What it does not determine; none if it determines all results.
    pub mark: Option<Mark>,
    /// What it does.
    pub doc: String,
}

/// What a configuration is and holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// What the component is, from the struct's doc comment.
    pub doc: String,
    /// Its fields in order.
    pub fields: Vec<FieldDoc>,
}

/// A component's configuration. Implemented by [`config!`](crate::config!).
pub trait Config: Sized + Clone + Serialize + DeserializeOwned {
    /// What it is and holds.
    fn describe() -> Description;

    /// Reads a component's call as it stands in an experiment file: `rq(depth: 4, codebook: 512)`, or just `rq`.
    /// Places in errors are those of `text`.
    ///
    /// # Errors
    /// Unknown or repeated fields, wrong types, values out of range.
    fn parse(text: &str) -> Result<Self, ConfigError> {
        // The component's name is the runner's business: blank it out, so that columns stay true.
        let name_end =
            text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c.is_whitespace())).unwrap_or(text.len());
        let blank: String = text[..name_end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        let arguments = if text[name_end..].trim().is_empty() { "()" } else { &text[name_end..] };
        Ok(dialect().from_str(&(blank + arguments))?)
    }

    /// The configuration with every default filled in, as RON on one line: what a component is built from.
    ///
    /// # Errors
    /// A value that RON cannot write.
    fn resolved(&self) -> Result<String, ConfigError> {
        dialect().to_string(self).map_err(ConfigError::unwritable)
    }

    /// The part of [`Config::resolved`] that determines results of that scope, which they are named by: fields whose
    /// [`Mark`] says that they do not are left out. A call that a field holds stands there as it is.
    ///
    /// # Errors
    /// A value that RON cannot write.
    fn identity(&self, scope: Scope) -> Result<String, ConfigError>;
}

/// A value that a configuration field can hold.
pub trait Value: Serialize + DeserializeOwned {
    /// What values look like, in words.
    fn kind() -> String;

    /// The kind of component whose calls it holds, if it holds one or a list of them.
    fn holds() -> Option<crate::plugin::Kind> {
        None
    }
}

macro_rules! value_kinds {
    ($($kind:literal: $($ty:ty),+;)+) => { $($(impl Value for $ty { fn kind() -> String { $kind.to_owned() } })+)+ };
}
value_kinds! {
    "integer": usize, u64, u32, i64;
    "number": f32, f64;
    "true | false": bool;
    "text": String;
}

impl<T: Value> Value for Option<T> {
    fn kind() -> String {
        format!("{} | None", T::kind())
    }

    fn holds() -> Option<crate::plugin::Kind> {
        T::holds()
    }
}

impl<T: Value> Value for Vec<T> {
    fn kind() -> String {
        format!("[{}, ..]", T::kind())
    }

    fn holds() -> Option<crate::plugin::Kind> {
        T::holds()
    }
}

impl<T: Value, const N: usize> Value for [T; N]
where
    [T; N]: Serialize + DeserializeOwned,
{
    fn kind() -> String {
        format!("({})", vec![T::kind(); N].join(", "))
    }
}

/// Whether a value, or every value in it, lies in a range.
pub trait Within<T> {
    /// The check.
    fn within(&self, range: &impl RangeBounds<T>) -> bool;
}

macro_rules! within_itself {
    ($($ty:ty),+) => { $(impl Within<$ty> for $ty {
        fn within(&self, range: &impl RangeBounds<$ty>) -> bool { range.contains(self) }
    })+ };
}
within_itself!(usize, u64, u32, i64, f32, f64);

impl<T, U: Within<T>> Within<T> for Option<U> {
    fn within(&self, range: &impl RangeBounds<T>) -> bool {
        self.iter().all(|value| value.within(range))
    }
}

impl<T, U: Within<T>> Within<T> for Vec<U> {
    fn within(&self, range: &impl RangeBounds<T>) -> bool {
        self.iter().all(|value| value.within(range))
    }
}

/// The name of a field, as the parser meets it.
#[doc(hidden)]
pub struct Identifier(pub String);

impl<'de> Deserialize<'de> for Identifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Identifier;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }
            fn visit_str<E>(self, name: &str) -> Result<Identifier, E> {
                Ok(Identifier(name.to_owned()))
            }
        }
        deserializer.deserialize_identifier(Name)
    }
}

/// A default as RON.
#[doc(hidden)]
pub fn ron_text<T: Serialize>(value: &T) -> String {
    dialect().to_string(value).unwrap_or_default()
}

/// `(a:1,b:2)`, of the fields that count in a scope.
#[doc(hidden)]
pub struct IdentityText {
    scope: Scope,
    fields: Vec<String>,
}

impl IdentityText {
    /// No field yet.
    pub fn new(scope: Scope) -> Self {
        Self { scope, fields: vec![] }
    }

    /// Adds a field, if one of that mark counts.
    pub fn field<T: Serialize>(mut self, name: &str, mark: Option<Mark>, value: &T) -> Result<Self, ConfigError> {
        if self.scope.counts(mark) {
            let value = dialect().to_string(value).map_err(ConfigError::unwritable)?;
            self.fields.push(format!("{name}:{value}"));
        }
        Ok(self)
    }

    /// The text.
    pub fn end(self) -> String {
        format!("({})", self.fields.join(","))
    }
}

/// Joins the lines of a doc comment.
#[doc(hidden)]
pub fn doc_text(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n").trim().to_owned()
}

/// Declares a component's configuration: a struct with documented fields, defaults, ranges and [marks](config::Mark). A
/// field without a default must be given in the experiment file. A mark stands last: `checkpoint: u64 = 200, local;`,
/// `iterations: usize = 64, in 1.., sampling;`. See the [crate] page for an example.
#[macro_export]
macro_rules! config {
    (
        $(#[doc = $doc:literal])*
        $vis:vis struct $Name:ident {
            // The lifetimes are never written: a repetition is counted by a fragment in it.
            $( $(#[doc = $field_doc:literal])* $field:ident : $ty:ty $(= $default:expr)? $(, in $range:expr)?
                $(, local $($local:lifetime)?)? $(, sampling $($sampling:lifetime)?)? ; )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, $crate::serde::Serialize)]
        #[serde(crate = "rqlab_sdk::serde")]
        $vis struct $Name {
            $( $(#[doc = $field_doc])* pub $field: $ty, )*
        }

        impl<'de> $crate::serde::Deserialize<'de> for $Name {
            fn deserialize<D: $crate::serde::Deserializer<'de>>(deserializer: D) -> ::std::result::Result<Self, D::Error> {
                const FIELDS: &[&str] = &[$(stringify!($field)),*];
                struct Fields;
                impl<'de> $crate::serde::de::Visitor<'de> for Fields {
                    type Value = $Name;
                    fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                        f.write_str(concat!("the fields of ", stringify!($Name)))
                    }
                    fn visit_map<A: $crate::serde::de::MapAccess<'de>>(self, mut map: A) -> ::std::result::Result<$Name, A::Error> {
                        use $crate::serde::de::Error as _;
                        $( let mut $field: ::std::option::Option<$ty> = None; )*
                        while let Some($crate::config::Identifier(name)) = map.next_key()? {
                            match name.as_str() {
                                $( stringify!($field) => {
                                    if $field.is_some() {
                                        return Err(A::Error::duplicate_field(stringify!($field)));
                                    }
                                    let value: $ty = map.next_value()?;
                                    $( if !$crate::config::Within::within(&value, &($range)) {
                                        return Err(A::Error::custom(format!(
                                            "`{}` must lie in {}, found {}",
                                            stringify!($field), stringify!($range), $crate::config::ron_text(&value)
                                        )));
                                    } )?
                                    $field = Some(value);
                                } )*
                                other => return Err(A::Error::unknown_field(other, FIELDS)),
                            }
                        }
                        Ok($Name { $( $field: match $field {
                            Some(value) => value,
                            None => $crate::config_default!(A::Error, $field $(, $default)?),
                        }, )* })
                    }
                }
                deserializer.deserialize_struct(stringify!($Name), FIELDS, Fields)
            }
        }

        impl $crate::config::Config for $Name {
            fn describe() -> $crate::config::Description {
                $crate::config::Description {
                    doc: $crate::config::doc_text(&[$($doc),*]),
                    fields: vec![$( $crate::config::FieldDoc {
                        name: stringify!($field),
                        kind: <$ty as $crate::config::Value>::kind(),
                        default: $crate::config_default_text!($ty $(, $default)?),
                        range: [$(stringify!($range))?].first().copied(),
                        holds: <$ty as $crate::config::Value>::holds(),
                        mark: $crate::config_mark!($(local $($local)?)? $(sampling $($sampling)?)?),
                        doc: $crate::config::doc_text(&[$($field_doc),*]),
                    } ),*],
                }
            }

            fn identity(&self, scope: $crate::config::Scope) -> ::std::result::Result<String, $crate::config::ConfigError> {
                let text = $crate::config::IdentityText::new(scope);
                $( let text = text.field(
                    stringify!($field),
                    $crate::config_mark!($(local $($local)?)? $(sampling $($sampling)?)?),
                    &self.$field,
                )?; )*
                Ok(text.end())
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! config_mark {
    () => {
        None
    };
    (local) => {
        Some($crate::config::Mark::Local)
    };
    (sampling) => {
        Some($crate::config::Mark::Sampling)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! config_default {
    ($Error:ty, $field:ident) => {
        return Err(<$Error as $crate::serde::de::Error>::missing_field(stringify!($field)))
    };
    ($Error:ty, $field:ident, $default:expr) => {
        $default
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! config_default_text {
    ($ty:ty) => {
        None
    };
    ($ty:ty, $default:expr) => {{
        let value: $ty = $default;
        Some($crate::config::ron_text(&value))
    }};
}

/// Declares a choice between named alternatives, written in lower case in an experiment file: `update: per_step`.
#[macro_export]
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $Name:ident { $( $(#[doc = $variant_doc:literal])* $Variant:ident = $text:literal ),+ $(,)? }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, $crate::serde::Serialize, $crate::serde::Deserialize)]
        #[serde(crate = "rqlab_sdk::serde")]
        $vis enum $Name { $( $(#[doc = $variant_doc])* #[serde(rename = $text)] $Variant ),+ }

        impl $crate::config::Value for $Name {
            fn kind() -> String {
                [$($text),+].join(" | ")
            }
        }
    };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    choice! {
        /// When the codebook moves.
        enum Update {
            /// After every depth.
            PerDepth = "per_depth",
            /// After all of them.
            PerStep = "per_step",
        }
    }

    config! {
        /// A toy.
        struct ToyConfig {
            /// Residual steps.
            depth: usize = 4, in 1..=64;
            /// Where.
            path: String;
            /// When.
            update: Update = Update::PerDepth;
            /// Sizes.
            sizes: Option<Vec<usize>> = None, in 2..;
            /// How often it is saved.
            checkpoint: u64 = 200, in 1.., local;
            /// Rounds of drawing.
            iterations: usize = 64, sampling;
        }
    }

    fn complaint(text: &str) -> String {
        ToyConfig::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_call_parses_with_defaults() {
        let config = ToyConfig::parse("toy(path: \"x\", sizes: [2, 3])").unwrap();
        assert_eq!(config.depth, 4);
        assert_eq!(config.sizes, Some(vec![2, 3]));
        assert_eq!(
            config.resolved().unwrap(),
            r#"(depth:4,path:"x",update:per_depth,sizes:[2,3],checkpoint:200,iterations:64)"#
        );
    }

    #[test]
    fn a_result_is_named_by_the_fields_that_determine_it() {
        let config = ToyConfig::parse("toy(path: \"x\", checkpoint: 5, iterations: 8)").unwrap();
        assert_eq!(config.identity(Scope::Training).unwrap(), r#"(depth:4,path:"x",update:per_depth,sizes:None)"#);
        let sampling = r#"(depth:4,path:"x",update:per_depth,sizes:None,iterations:8)"#;
        assert_eq!(config.identity(Scope::Sampling).unwrap(), sampling);
        let marks: Vec<Option<Mark>> = ToyConfig::describe().fields.iter().map(|field| field.mark).collect();
        assert_eq!(marks, [None, None, None, None, Some(Mark::Local), Some(Mark::Sampling)]);
    }

    #[test]
    fn complaints_name_the_place() {
        assert!(complaint("toy(\n  depht: 2)").starts_with("2:"), "{}", complaint("toy(\n  depht: 2)"));
        assert!(complaint("toy(depht: 2)").contains("depht"));
        assert!(complaint("toy(path: \"x\", depth: 0)").contains("`depth` must lie in 1..=64, found 0"));
        assert!(complaint("toy(path: \"x\", sizes: [4, 1])").contains("`sizes` must lie in 2.., found [4,1]"));
        assert!(complaint("toy").contains("path"));
        assert!(complaint("toy(path: 3)").contains("string"), "{}", complaint("toy(path: 3)"));
        assert!(complaint("toy(path: \"x\", update: never)").contains("per_step"));
    }

    #[test]
    fn the_description_comes_from_the_same_struct() {
        let description = ToyConfig::describe();
        assert_eq!(description.doc, "A toy.");
        let depth = &description.fields[0];
        assert_eq!((depth.name, depth.kind.as_str(), depth.range), ("depth", "integer", Some("1..=64")));
        assert_eq!(depth.default.as_deref(), Some("4"));
        assert_eq!(description.fields[1].default, None);
        assert_eq!(description.fields[2].kind, "per_depth | per_step");
    }
}
