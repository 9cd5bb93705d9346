//! The values that fields hold, and how they are told of.

use super::call::{AutoencoderCall, ObjectiveCall, PriorCall, QuantizerCall};
use crate::plugin::Kind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::ops::RangeBounds;

/// What kind of values a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueKind {
    /// Whole numbers.
    Integer,
    /// Numbers.
    Number,
    /// True or false.
    Bool,
    /// Text in quotes.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// The call of a component of that kind: `of: fsq(levels: [8, 5, 5])`.
    Call(Kind),
    /// Such a value, or `None`.
    Optional(Box<ValueKind>),
    /// A list of such values: `[.., ..]`.
    List(Box<ValueKind>),
    /// A fixed number of values: `(.., ..)`.
    Tuple(Vec<ValueKind>),
    /// A value of one of these kinds: `64` or `(48, 64)`.
    Either(Vec<ValueKind>),
}

impl ValueKind {
    /// The kind of component whose calls it holds: one, perhaps none, or a list of them.
    pub fn holds(&self) -> Option<Kind> {
        match self {
            Self::Call(kind) => Some(*kind),
            Self::Optional(inner) | Self::List(inner) => inner.holds(),
            _ => None,
        }
    }

    /// Whether `None` is one of its values.
    pub fn is_optional(&self) -> bool {
        matches!(self, Self::Optional(_))
    }

    /// Itself without the `None` that it may be.
    pub fn required(&self) -> &Self {
        match self {
            Self::Optional(inner) => inner.required(),
            kind => kind,
        }
    }

    /// It in a sentence: `an integer`, `a list [number, ..]`, `the call of a quantizer or None`.
    pub fn in_words(&self) -> String {
        self.in_words_within("")
    }

    /// As [`ValueKind::in_words`], of values in a range.
    pub fn in_words_within(&self, range: &str) -> String {
        let range = if range.is_empty() { String::new() } else { format!(" in {range}") };
        match self {
            Self::Integer => format!("an integer{range}"),
            Self::Number => format!("a number{range}"),
            Self::Bool => "true or false".to_owned(),
            Self::Text => "text in quotes".to_owned(),
            Self::Choice(words) => words.join(" or "),
            Self::Call(kind) => format!("the call of {}", kind.with_article()),
            Self::Optional(inner) => format!("{}{range} or None", inner.in_words()),
            Self::List(inner) if inner.holds().is_some() => format!("a list of calls {self}"),
            Self::List(_) => format!("a list {self}{range}"),
            Self::Tuple(_) => format!("{self}{range}"),
            Self::Either(kinds) => {
                format!("{}{range}", kinds.iter().map(Self::in_words).collect::<Vec<_>>().join(" or "))
            }
        }
    }
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer => f.write_str("integer"),
            Self::Number => f.write_str("number"),
            Self::Bool => f.write_str("true | false"),
            Self::Text => f.write_str("text"),
            Self::Choice(words) => f.write_str(&words.join(" | ")),
            Self::Call(kind) => f.write_str(kind.name()),
            Self::Optional(inner) => write!(f, "{inner} | None"),
            Self::List(inner) => write!(f, "[{inner}, ..]"),
            Self::Tuple(items) => {
                let items: Vec<String> = items.iter().map(Self::to_string).collect();
                write!(f, "({})", items.join(", "))
            }
            Self::Either(kinds) => f.write_str(&kinds.iter().map(Self::to_string).collect::<Vec<_>>().join(" | ")),
        }
    }
}

/// A value that a configuration field can hold.
pub trait Value: Serialize + DeserializeOwned {
    /// What values look like.
    fn kind() -> ValueKind;
}

macro_rules! value_kinds {
    ($($kind:expr => $($ty:ty),+;)+) => { $($(impl Value for $ty { fn kind() -> ValueKind { $kind } })+)+ };
}
value_kinds! {
    ValueKind::Integer => usize, u64, u32, i64;
    ValueKind::Number => f32, f64;
    ValueKind::Bool => bool;
    ValueKind::Text => String;
    ValueKind::Call(Kind::Autoencoder) => AutoencoderCall;
    ValueKind::Call(Kind::Quantizer) => QuantizerCall;
    ValueKind::Call(Kind::Prior) => PriorCall;
    ValueKind::Call(Kind::Objective) => ObjectiveCall;
}

impl<T: Value> Value for Option<T> {
    fn kind() -> ValueKind {
        ValueKind::Optional(Box::new(T::kind()))
    }
}

impl<T: Value> Value for Vec<T> {
    fn kind() -> ValueKind {
        ValueKind::List(Box::new(T::kind()))
    }
}

impl<T: Value, const N: usize> Value for [T; N]
where
    [T; N]: Serialize + DeserializeOwned,
{
    fn kind() -> ValueKind {
        ValueKind::Tuple(vec![T::kind(); N])
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

impl<T, U: Within<T>, const N: usize> Within<T> for [U; N] {
    fn within(&self, range: &impl RangeBounds<T>) -> bool {
        self.iter().all(|x| x.within(range))
    }
}

impl<T, U: Within<T>> Within<T> for Vec<U> {
    fn within(&self, range: &impl RangeBounds<T>) -> bool {
        self.iter().all(|value| value.within(range))
    }
}
