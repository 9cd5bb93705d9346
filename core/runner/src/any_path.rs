//! Paths in JSON, for `#[serde(with)]`: as text where they are text, and else as the bytes that they are.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(PathBuf),
    Bytes(Vec<u8>),
}

pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    let bytes = path.as_os_str().as_encoded_bytes();
    match path.to_str() {
        Some(_) => Written::Text(path.to_owned()),
        None => Written::Bytes(bytes.to_vec()),
    }
    .serialize(serializer)
}

pub(crate) fn deserialize<'de, P: From<PathBuf>, D: Deserializer<'de>>(deserializer: D) -> Result<P, D::Error> {
    match Written::deserialize(deserializer)? {
        Written::Text(path) => Ok(path.into()),
        Written::Bytes(bytes) => {
            from_bytes(bytes).map(P::from).ok_or_else(|| serde::de::Error::custom("no path of this system"))
        }
    }
}

#[cfg(unix)]
fn from_bytes(bytes: Vec<u8>) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    Some(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn from_bytes(bytes: Vec<u8>) -> Option<PathBuf> {
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Holder(#[serde(with = "super")] Arc<Path>);

    #[test]
    fn a_path_that_is_no_text_is_read_back() {
        for bytes in [&b"data/\xff\xfe x"[..], "dätä".as_bytes(), b""] {
            let path = PathBuf::from(OsStr::from_bytes(bytes));
            let json = serde_json::to_string(&Holder(path.clone().into())).unwrap();
            assert_eq!(serde_json::from_str::<Holder>(&json).unwrap().0, path.into(), "{json}");
        }
    }
}
