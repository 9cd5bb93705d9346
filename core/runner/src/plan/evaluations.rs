//! The part of an evaluation that each stage depends on, the rest at its defaults: what a stage does not depend on does not
//! make it again.

use super::components::Evaluations;
use crate::settings::Evaluation;
use crate::shared::Shared;
use rqlab_sdk::config::{Config, ConfigError};
use std::sync::Arc;

impl Evaluations {
    /// The parts of `all`.
    pub(super) fn of(all: Evaluation) -> Result<Arc<Self>, ConfigError> {
        let defaults = Evaluation::parse("()")?;
        // Drawing more samples does not measure the tokenizer again.
        let of_reconstruction = Evaluation {
            images: all.images,
            pictures: all.pictures,
            classifier_steps: all.classifier_steps,
            precision: all.precision,
            ..defaults.clone()
        };
        let of_perturbation = Evaluation {
            perturbation: all.perturbation.clone(),
            perturbation_neighbours: all.perturbation_neighbours,
            perturbation_images: all.perturbation_images,
            ..of_reconstruction.clone()
        };
        let of_probe = Evaluation {
            samples: all.samples,
            probe_steps: all.probe_steps,
            speed: vec![],
            ..of_reconstruction.clone()
        };
        let of_generation = Evaluation {
            perturbation: defaults.perturbation,
            perturbation_neighbours: defaults.perturbation_neighbours,
            perturbation_images: defaults.perturbation_images,
            probe_steps: defaults.probe_steps,
            protocols: defaults.protocols,
            protocol_references: defaults.protocol_references,
            inception_digest: defaults.inception_digest,
            dinov2_digest: defaults.dinov2_digest,
            lpips_digest: defaults.lpips_digest,
            missing_weights: defaults.missing_weights,
            ..all.clone()
        };
        let [of_reconstruction, of_perturbation, of_generation, of_probe] =
            [of_reconstruction, of_perturbation, of_generation, of_probe].map(Shared::from);
        Ok(Arc::new(Self { all, of_reconstruction, of_perturbation, of_generation, of_probe }))
    }
}
