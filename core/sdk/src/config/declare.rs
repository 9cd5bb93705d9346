//! The macros that declare configurations and choices.

/// Declares a component's configuration: a struct with documented fields, defaults, ranges and [marks](crate::config::Mark). A
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

        const _: () = {
            /// What is given of it.
            struct Given {
                $( $field: ::std::option::Option<$ty>, )*
            }

            impl Given {
                /// Everything with the defaults filled in, or all that is missing or out of range.
                fn complete(self) -> ::std::result::Result<$Name, $crate::config::Complaints> {
                    use $crate::config::{Complaints, ConfigError};
                    let mut wrong = ::std::vec::Vec::<ConfigError>::new();
                    $(
                        if self.$field.is_none() {
                            wrong.extend($crate::config_missing!($field $(, $default)?));
                        }
                        $( if let Some(value) = &self.$field && !$crate::config::Within::within(value, &($range)) {
                            let found = $crate::config::ron_text(value);
                            wrong.push(ConfigError::range(stringify!($field), stringify!($range), &found));
                        } )?
                    )*
                    Complaints::of(wrong)?;
                    Ok($Name { $( $field: match self.$field {
                        Some(value) => value,
                        None => $crate::config_default!($field $(, $default)?),
                    }, )* })
                }
            }

            impl<'de> $crate::serde::Deserialize<'de> for Given {
                fn deserialize<D: $crate::serde::Deserializer<'de>>(deserializer: D) -> ::std::result::Result<Self, D::Error> {
                    const FIELDS: &[&str] = &[$(stringify!($field)),*];
                    struct Fields;
                    impl<'de> $crate::serde::de::Visitor<'de> for Fields {
                        type Value = Given;
                        fn expecting(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                            f.write_str(concat!("the fields of ", stringify!($Name)))
                        }
                        fn visit_map<A: $crate::serde::de::MapAccess<'de>>(
                            self,
                            mut map: A,
                        ) -> ::std::result::Result<Given, A::Error> {
                            use $crate::serde::de::Error as _;
                            let mut given = Given { $( $field: None, )* };
                            while let Some($crate::config::Identifier(name)) = map.next_key()? {
                                match name.as_str() {
                                    $( stringify!($field) => {
                                        if given.$field.is_some() {
                                            return Err(A::Error::duplicate_field(stringify!($field)));
                                        }
                                        given.$field = Some(map.next_value()?);
                                    } )*
                                    other => return Err(A::Error::unknown_field(other, FIELDS)),
                                }
                            }
                            Ok(given)
                        }
                    }
                    deserializer.deserialize_struct(stringify!($Name), FIELDS, Fields)
                }
            }

            impl<'de> $crate::serde::Deserialize<'de> for $Name {
                fn deserialize<D: $crate::serde::Deserializer<'de>>(deserializer: D) -> ::std::result::Result<Self, D::Error> {
                    use $crate::serde::de::Error as _;
                    Given::deserialize(deserializer)?.complete().map_err(|wrong| D::Error::custom(wrong.first))
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
                            mark: $crate::config_mark!($(local $($local)?)? $(sampling $($sampling)?)?),
                            doc: $crate::config::doc_text(&[$($field_doc),*]),
                        } ),*],
                    }
                }

                fn read(text: &str) -> ::std::result::Result<Self, $crate::config::Complaints> {
                    $crate::config::read_arguments::<Given>(text)?.complete()
                }

                fn identity(
                    &self,
                    scope: $crate::config::Scope,
                ) -> ::std::result::Result<String, $crate::config::ConfigError> {
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
macro_rules! config_missing {
    ($field:ident) => {
        Some($crate::config::ConfigError::missing(stringify!($field)))
    };
    ($field:ident, $default:expr) => {
        None
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! config_default {
    ($field:ident) => {
        // Told of above already.
        return Err($crate::config::ConfigError::missing(stringify!($field)).into())
    };
    ($field:ident, $default:expr) => {
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
            fn kind() -> $crate::config::ValueKind {
                $crate::config::ValueKind::Choice(&[$($text),+])
            }
        }
    };
}
