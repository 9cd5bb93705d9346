//! Ids of stages: the digest of everything that determines a stage's result, and of nothing else.
//!
//! Where data lie, how much memory a cache may take, how often a checkpoint is written, with how many threads and on which
//! device a stage is computed: none of it is in the id. The last two are recorded beside the result instead.

use crate::id::Id;
use crate::stages::Stage;
use rqlab_sdk::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;

/// Goes into every id, so that raising it renews all of them: when ids are composed differently, or all stages leave other
/// files.
const SCHEME: &str = "rqlab results 3";

/// A stage's id, its name in the store: scheme, stage and revision, settings and seed, precision, the digests of the plugins that
/// it uses, of its data, and the ids of the stages that it stands on.
///
/// # Errors
/// A setting that cannot be written as text.
pub fn of_stage(stage: &dyn Stage, data_digest: &str) -> Result<Id> {
    let plugins: BTreeMap<&String, &String> = stage.calls().into_iter().flat_map(|call| &call.plugins).collect();
    let mut parts = vec![
        SCHEME.to_owned(),
        stage.name().to_owned(),
        stage.revision().to_string(),
        text(&stage.identity()?)?,
        text(&stage.precision())?,
        text(&plugins)?,
        data_digest.to_owned(),
    ];
    parts.extend(stage.needs().into_iter().map(str::to_owned));
    Ok(digest(&parts))
}

fn text(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::Data(format!("an id cannot be made: {e}")))
}

/// The digest of a list of texts (blake3, hex).
pub fn digest(parts: &[impl AsRef<str>]) -> Id {
    let mut hasher = blake3::Hasher::new();
    for part in parts.iter().map(AsRef::as_ref) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize().to_hex().as_str().into()
}
