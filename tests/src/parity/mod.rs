//! Agreement with the published systems, case by case.
//!
//! A case is a folder: `case.json` says what is computed, from which sizes, and how closely each result must agree;
//! `data.safetensors` holds inputs (`in.`), given randomness (`rand.`), weights (`w.`) and expected results (`out.`,
//! `grad.`). A case is checked by the function of its name in [`TABLE`], which computes every expected result; to add
//! one, write that function.

mod autoencoder;
mod case;
mod counts;
mod diffusion;
mod drawn;
mod grids;
mod llama;
mod lookup_free;
mod mar;
mod masked;
mod measures;
mod metrics;
mod multi_scale;
mod networks;
mod next_scale;
mod objectives;
mod outcome;
mod outputs;
mod pixelsnail;
mod players;
mod posterior;
mod priors;
mod quantizers;
mod rar;
mod residual;
mod steps;
mod training;
mod two_levels;

pub use case::Case;
pub use networks::inception_tensors;
pub use outcome::{Outcome, Summary, compare};
pub use outputs::Outputs;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Why a case could not be computed.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The result of a step of a case.
pub type Result<T, E = Error> = std::result::Result<T, E>;
/// Computes what a case expects.
pub type Compute = fn(&Case, &mut Outputs) -> Result<()>;

/// The cases of systems that exist.
pub const TABLE: &[(&str, Compute)] = &[
    ("adaptive_weight_hinge", objectives::adaptive_weight_hinge),
    ("ar_diffusion", mar::ar_diffusion),
    ("ar_step", steps::ar_step),
    ("attn_block", autoencoder::attn_block),
    ("code_folding", autoencoder::code_folding),
    ("commitment_grad", residual::commitment_grad),
    ("diag_gaussian", posterior::diag_gaussian),
    ("diffloss_mlp", diffusion::mlp),
    ("diffusion_losses", diffusion::losses),
    ("diffusion_sample", diffusion::sample),
    ("diffusion_timesteps", diffusion::timesteps),
    ("dinov2_features", networks::dinov2_features),
    ("downsample", autoencoder::downsample),
    ("ema_update", quantizers::ema_update),
    ("encoder_decoder", autoencoder::encoder_decoder),
    ("fid_inception", networks::fid_inception),
    ("frechet_distance", metrics::frechet_distance),
    ("fsq", grids::fsq),
    ("guidance", masked::guidance),
    ("inception_score", metrics::inception_score),
    ("kid", metrics::kid),
    ("kl_vae_forward", posterior::kl_vae_forward),
    ("lfq", grids::lfq),
    ("llama_ar", llama::llama_ar),
    ("lookup_free", lookup_free::lookup_free),
    ("lpips", networks::lpips),
    ("lr_schedule", training::lr_schedule),
    ("mar_forward", mar::forward),
    ("mar_mask_schedule", mar::mask_schedule),
    ("mar_sample_tokens", mar::sample_tokens),
    ("mar_steps", mar::steps),
    ("maskgit", masked::maskgit),
    ("measures", measures::measures),
    ("parameter_counts", counts::parameter_counts),
    ("partial_decode", residual::partial_decode),
    ("patch_discriminator", objectives::patch_discriminator),
    ("patchify", autoencoder::patches),
    ("pixelsnail_forward", pixelsnail::forward),
    ("pixelsnail_sample", pixelsnail::sample),
    ("precision_recall", metrics::precision_recall),
    ("psnr_ssim", metrics::psnr_ssim),
    ("rar", rar::rar),
    ("regularisers", objectives::regularisers),
    ("resnet_block", autoencoder::resnet_block),
    ("rotation_trick", quantizers::rotation_trick),
    ("rq_eval", residual::rq_eval),
    ("rq_restart", residual::rq_restart),
    ("rq_separate_train", residual::rq_train),
    ("rq_shared_train", residual::rq_train),
    ("rq_soft_codes", residual::rq_soft_codes),
    ("rq_transformer_cached_sampling", priors::rq_transformer_cached_sampling),
    ("rq_transformer_causality", priors::rq_transformer_causality),
    ("rq_transformer_forward", priors::rq_transformer_forward),
    ("rq_transformer_step", steps::rq_transformer_step),
    ("simvq", grids::simvq),
    ("soft_target_ce", training::soft_target_ce),
    ("tokenizer_step", steps::tokenizer_step),
    ("topk_topp", training::topk_topp),
    ("upsample", autoencoder::upsample),
    ("var", multi_scale::var),
    ("vq_distances", quantizers::vq_distances),
    ("vq_gradient_codebook", quantizers::vq_gradient_codebook),
    ("vqgan_steps", players::vqgan_steps),
    ("vqp_residual_vq", residual::vqp_residual_vq),
    ("vqvae2_forward", two_levels::vqvae2_forward),
    ("vqvae2_quantize", quantizers::vqvae2_quantize),
];

/// The case folders under `dir`, by name; `dir` itself if it is one.
///
/// # Errors
/// A directory that cannot be read.
pub fn find(dir: &Path) -> Result<Vec<PathBuf>> {
    if dir.join("case.json").is_file() {
        return Ok(vec![dir.to_owned()]);
    }
    let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| format!("{}: {e}", dir.display()))?.path();
        if path.join("case.json").is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Checks one case folder.
pub fn check(dir: &Path) -> (String, Outcome) {
    let folder = dir.file_name().map_or_else(|| dir.display().to_string(), |name| name.to_string_lossy().into_owned());
    let case = match Case::read(dir) {
        Ok(case) => case,
        Err(error) => return (folder, Outcome::Failed(error.to_string())),
    };
    let name = case.name.clone();
    let Some((_, compute)) = TABLE.iter().find(|(known, _)| *known == name) else { return (name, Outcome::NotYet) };
    let mut outputs = Outputs::default();
    // A panic fails its case alone; what it left half-written is not looked at.
    let outcome = match catch_unwind(AssertUnwindSafe(|| compute(&case, &mut outputs))) {
        Ok(Ok(())) => outcome::compare(&case.expect, &outputs),
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Failed("it panicked".to_owned()),
    };
    (name, outcome)
}

/// Checks all case folders under `dir` and hands each line of the report to `line`.
///
/// # Errors
/// A directory that cannot be read, or holds no case.
pub fn run(dir: &Path, mut line: impl FnMut(&str)) -> Result<Summary> {
    let cases = find(dir)?;
    if cases.is_empty() {
        return Err(format!("{}: no folder with a case.json in it", dir.display()).into());
    }
    let mut summary = Summary::default();
    line(&format!("{:<30} {:>10} {:>10}  result", "case", "max error", "tolerance"));
    for dir in cases {
        let (name, outcome) = check(&dir);
        line(&format!("{name:<30} {outcome}"));
        summary.count(&outcome);
    }
    line(&summary.to_string());
    Ok(summary)
}
