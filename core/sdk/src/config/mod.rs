//! Typed configuration: one declaration gives the struct, its parser, its ranges and its documentation.

mod call;
mod declare;
mod error;
mod kind;
mod mark;

pub use call::{AutoencoderCall, Call, ObjectiveCall, PriorCall, QuantizerCall};
pub use error::{Complaints, ConfigError, Fault, Place};
pub use kind::{Value, ValueKind, Within};
pub use mark::{IdentityText, Mark, Scope};

use ron::extensions::Extensions;
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Visitor};
use std::fmt;

/// The dialect of RON that all of rqlab reads: `Some` may be left out.
pub fn dialect() -> ron::Options {
    ron::Options::default().with_default_extension(
        Extensions::IMPLICIT_SOME | Extensions::UNWRAP_NEWTYPES | Extensions::UNWRAP_VARIANT_NEWTYPES,
    )
}

/// One field of a configuration, for `rqlab describe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDoc {
    /// Its name.
    pub name: &'static str,
    /// What kind of values it holds.
    pub kind: ValueKind,
    /// The default as RON; none if the field must be given.
    pub default: Option<String>,
    /// The values that are accepted, as a Rust range.
    pub range: Option<&'static str>,
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

impl Description {
    /// A field by its name.
    pub fn field(&self, name: &str) -> Option<&FieldDoc> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// A component's configuration. Implemented by [`config!`](crate::config!).
pub trait Config: Sized + Clone + Serialize + DeserializeOwned {
    /// What it is and holds.
    fn describe() -> Description;

    /// Reads a component's call as it stands in an experiment file: `rq(depth: 4, codebook: 512)`, or just `rq`.
    /// Places in errors are those of `text`.
    ///
    /// # Errors
    /// Unknown, repeated or missing fields, wrong types, values out of range: the first of [`Config::read`].
    fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::read(text).map_err(|Complaints { first, .. }| first)
    }

    /// As [`Config::parse`], with all complaints.
    ///
    /// # Errors
    /// The first place where the text is no configuration; or all fields that are missing, and all values out of range.
    fn read(text: &str) -> Result<Self, Complaints>;

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

/// Reads what stands behind a component's name in its call, as the fields of a `T`.
#[doc(hidden)]
pub fn read_arguments<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    // The component's name is the runner's business: blank it out, so that columns stay true.
    let name_end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c.is_whitespace())).unwrap_or(text.len());
    let blank: String = text[..name_end].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
    let arguments = if text[name_end..].trim().is_empty() { "()" } else { &text[name_end..] };
    Ok(dialect().from_str(&(blank + arguments))?)
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

/// Joins the lines of a doc comment.
#[doc(hidden)]
pub fn doc_text(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::plugin::Kind;
    use crate::{choice, config};

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
        assert_eq!((depth.name, &depth.kind, depth.range), ("depth", &ValueKind::Integer, Some("1..=64")));
        assert_eq!(depth.default.as_deref(), Some("4"));
        assert_eq!(description.fields[1].default, None);
        assert_eq!(description.fields[2].kind, ValueKind::Choice(&["per_depth", "per_step"]));
        assert_eq!(description.fields[3].kind.to_string(), "[integer, ..] | None");
    }

    #[test]
    fn everything_wrong_is_told_with_its_fault() {
        let faults = |text: &str| -> Vec<(Fault, Option<String>)> {
            ToyConfig::read(text).unwrap_err().into_iter().map(|error| (error.fault, error.field)).collect()
        };
        let field = |fault, name: &str| (fault, Some(name.to_owned()));
        assert_eq!(
            faults("toy(depth: 0, sizes: [1], checkpoint: 1)"),
            [field(Fault::Range, "depth"), field(Fault::MissingField, "path"), field(Fault::Range, "sizes")]
        );
        assert_eq!(faults("toy(depht: 0)"), [field(Fault::UnknownField, "depht")]);
        assert_eq!(faults("toy(depth: 1, depth: 2)"), [field(Fault::RepeatedField, "depth")]);
        assert_eq!(faults("toy(depth: 2.5, path: \"x\")"), [(Fault::Syntax, None)]);
        assert_eq!(faults("toy(4)"), [(Fault::Unnamed, None)]);
    }

    config! {
        /// A toy that holds others.
        struct BoxConfig {
            /// The one within.
            of: QuantizerCall = QuantizerCall::new("toy(path: \"x\")");
            /// More of them.
            more: Vec<PriorCall> = vec![];
            /// Perhaps one.
            perhaps: Option<ObjectiveCall> = None;
        }
    }

    #[test]
    fn a_field_can_hold_calls() {
        let config = BoxConfig::parse("box(of: fsq( levels: [8, 5] ), more: [ar, pixelsnail(width: 4)])").unwrap();
        assert_eq!((config.of.0.name.as_str(), config.of.0.text.as_str()), ("fsq", "fsq( levels: [8, 5] )"));
        assert_eq!(config.more[0].0, Call { name: "ar".into(), text: "ar".into() });
        assert_eq!(BoxConfig::parse(&config.resolved().unwrap()).unwrap(), config);
        assert_eq!(BoxConfig::parse(&config.identity(Scope::Training).unwrap()).unwrap(), config);
        let holds: Vec<_> = BoxConfig::describe().fields.iter().map(|field| field.kind.holds()).collect();
        assert_eq!(holds, [Some(Kind::Quantizer), Some(Kind::Prior), Some(Kind::Objective)]);
        assert!(BoxConfig::parse("box(of: 3)").is_err() && BoxConfig::parse("box(more: ar)").is_err());
    }
}
