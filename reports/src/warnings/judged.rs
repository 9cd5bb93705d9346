//! A tokenizer that was trained on the features that it is measured with.

use super::{Harm, Warning, by_text};
use crate::results::Trial;
use crate::study::Study;

pub(super) fn warnings(study: &Study<'_>) -> Vec<Warning> {
    by_text(study, Harm::Grave, |trial| trained_on_classifier(trial).then(|| TEXT.to_owned()))
}

const TEXT: &str = "Tokenizers were trained on features of the classifier that distances are taken on: these tell how well they learned \
                    that, not how real their images look; compare them by PSNR and SSIM, or by a published protocol";

fn trained_on_classifier(trial: &Trial) -> bool {
    let by_lab = |(path, value): (&String, &String)| {
        path.starts_with("objective") && path.ends_with(".features") && value == "lab"
    };
    trial.settings.iter().any(by_lab)
}
