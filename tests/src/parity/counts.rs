//! Parameter counts of the published configurations, from models that hold no numbers.

use super::{Case, Outputs, Result};

pub(super) fn parameter_counts(case: &Case, out: &mut Outputs) -> Result<()> {
    let counts = case.json["counts"].as_object().ok_or("no counts")?;
    for name in counts.keys() {
        out.not_yet(format!("counts.{name}."));
    }
    Ok(())
}
