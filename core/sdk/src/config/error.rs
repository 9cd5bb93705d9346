//! Configurations that cannot be: what is wrong, and where.

use std::fmt;

/// A place in a text: line and column, both from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// In what way a configuration is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A bracket, comma or name is missing or out of place, or a value is not of its field's kind.
    Syntax,
    /// A name is expected where there is none: `rq(4)`.
    Unnamed,
    /// The configuration has no field of that name.
    UnknownField,
    /// A field is given twice.
    RepeatedField,
    /// A field without a default is not given.
    MissingField,
    /// A value lies outside its field's range.
    Range,
    /// A value is of the right kind and in range, and the component refuses it.
    Refused,
    /// A value cannot be written as text.
    Unwritable,
}

/// A configuration that does not parse, or asks for what cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// In what way it is wrong.
    pub fault: Fault,
    /// What is wrong, what was expected. Of [`Fault::Range`] and [`Fault::MissingField`] what comes behind the field's name.
    pub message: String,
    /// Where in the text that was parsed: start and end. Absent for a complaint about the whole.
    pub span: Option<(Place, Place)>,
    /// The field that the complaint is about, if it is about one and the place is not known.
    pub field: Option<String>,
    /// The name of the component that refuses, if it is one within the component that was asked for.
    pub component: Option<String>,
}

impl ConfigError {
    /// A complaint about the value of `field`, found after parsing (say, that it does not divide the latent).
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::of_field(Fault::Refused, field, message)
    }

    /// A complaint about a configuration as a whole, found after parsing.
    pub fn whole(message: impl Into<String>) -> Self {
        Self { fault: Fault::Refused, message: message.into(), span: None, field: None, component: None }
    }

    /// As from a component of this name, which another holds in its configuration. A name that is already there is deeper,
    /// and stays.
    #[must_use]
    pub fn within(mut self, component: &str) -> Self {
        self.component.get_or_insert_with(|| component.to_owned());
        self
    }

    /// A value outside of its range.
    #[doc(hidden)]
    pub fn range(field: &str, range: &str, found: &str) -> Self {
        Self::of_field(Fault::Range, field, format!("must lie in {range}, found {found}"))
    }

    /// A field that must be given.
    #[doc(hidden)]
    pub fn missing(field: &str) -> Self {
        Self::of_field(Fault::MissingField, field, "must be given")
    }

    pub(super) fn unwritable(error: ron::Error) -> Self {
        Self { fault: Fault::Unwritable, message: error.to_string(), span: None, field: None, component: None }
    }

    fn of_field(fault: Fault, field: &str, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), span: None, field: Some(field.to_owned()), component: None }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.span, &self.field, self.fault) {
            (Some((start, _)), ..) => write!(f, "{}:{}: {}", start.line, start.column, self.message),
            (None, Some(field), Fault::Range | Fault::MissingField) => write!(f, "`{field}` {}", self.message),
            (None, Some(field), _) => write!(f, "`{field}`: {}", self.message),
            (None, None, _) => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

impl From<ron::error::SpannedError> for ConfigError {
    fn from(error: ron::error::SpannedError) -> Self {
        use ron::Error as Ron;
        let place = |p: ron::error::Position| Place { line: p.line, column: p.col };
        let (fault, field) = match &error.code {
            Ron::ExpectedIdentifier | Ron::InvalidIdentifier(_) | Ron::SuggestRawIdentifier(_) => {
                (Fault::Unnamed, None)
            }
            Ron::NoSuchStructField { found, .. } => (Fault::UnknownField, Some(found.clone())),
            Ron::DuplicateStructField { field, .. } => (Fault::RepeatedField, Some((*field).to_owned())),
            Ron::MissingStructField { field, .. } => (Fault::MissingField, Some((*field).to_owned())),
            _ => (Fault::Syntax, None),
        };
        let message = match &error.code {
            // The parser speaks to whoever programs it.
            Ron::ExceededRecursionLimit => "calls, lists and brackets are nested too deep".to_owned(),
            code => code.to_string(),
        };
        Self { fault, message, span: Some((place(error.span.start), place(error.span.end))), field, component: None }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaints {
    /// One of it.
    pub first: ConfigError,
    /// The rest.
    pub others: Vec<ConfigError>,
}

impl Complaints {
    /// All of them, if there are any.
    pub fn of(list: Vec<ConfigError>) -> Result<(), Self> {
        let mut list = list.into_iter();
        list.next().map_or(Ok(()), |first| Err(Self { first, others: list.collect() }))
    }
}

impl From<ConfigError> for Complaints {
    fn from(first: ConfigError) -> Self {
        Self { first, others: vec![] }
    }
}

impl IntoIterator for Complaints {
    type Item = ConfigError;
    type IntoIter = std::iter::Chain<std::iter::Once<ConfigError>, std::vec::IntoIter<ConfigError>>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self.first).chain(self.others)
    }
}
