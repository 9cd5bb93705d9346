//! Pictures from finished trials, as PNG files: what `rqlab sample` and `rqlab reconstruct` make.

use crate::id::Id;
use crate::job::Trial;
use crate::plan::Plan;
use crate::plugins::Plugins;
use crate::repeat::Repeat;
use crate::stages::{MeasurePrior, MeasureTokenizer, Unread, load_prior, load_tokenizer, shown};
use crate::store::Store;
use rqlab_sdk::contracts::{Condition, ConditionSpace, Guidance, Split, Tokens};
use rqlab_sdk::files;
use rqlab_sdk::tensor::ops::sampling::Draw;
use rqlab_sdk::tensor::{Codes, Rng, Tensor, no_grad};
use rqlab_sdk::{Error, Result};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// Pixels between images, and around them.
const GAP: usize = 2;
/// Images drawn at once.
const BATCH: usize = 64;
/// Pixels of the largest sheet: 400 MB while it is made.
const LARGEST: u128 = 1 << 27;

/// What to draw.
#[derive(Debug, Clone)]
pub struct SampleOptions {
    /// How many images.
    pub count: usize,
    /// What all of them are to show; none for what `evaluation.labels` says.
    pub shows: Option<Shows>,
    /// How codes are drawn.
    pub draw: Draw,
    /// The guidance scale; none for the experiment's.
    pub guidance: Option<f32>,
    /// Of the draws.
    pub seed: u64,
}

/// A sheet of samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    /// Where it is, if it is a file.
    pub path: Option<PathBuf>,
    /// What could not be read of the text that was given.
    pub unread: Unread,
}

/// What images are to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shows {
    /// A class.
    Class(u32),
    /// What a caption says; nothing of an empty one.
    Text(String),
}

/// Draws images from a trial's priors into one PNG sheet.
///
/// # Errors
/// A trial without a prior, stages that are not done, a class that does not exist, guidance of priors that cannot be guided.
pub fn sample(
    plan: &Plan,
    trial: &Trial,
    store: &Store,
    plugins: &Plugins,
    how: &SampleOptions,
    repeat: &Repeat,
    out: &Path,
) -> Result<Sheet> {
    let (id, stage) = plan
        .jobs
        .iter()
        .filter(|job| trial.jobs.contains(&job.id))
        .filter_map(|job| Some((&job.id, job.stage.is::<MeasurePrior>()?)))
        .find(|(_, stage)| !stage.probe)
        .ok_or_else(|| {
            Error::Unsupported("this trial has no prior to sample from; give it one with `prior:`".to_owned())
        })?;
    let needed: Vec<&Id> = std::iter::once(&stage.tokenizer).chain(&stage.priors).collect();
    require_done(store, &needed, repeat)?;
    let (dataset, model) = load_tokenizer(plugins, store, &stage.tokenizer)?;
    let classes = dataset.info().classes.len();
    let sampler = load_prior(plugins, store, stage.levels(), &model, classes)?;
    let conditions = sampler.conditions();
    let asked = stage.evaluation.guidance();
    let tuned = stage.tuned(&store.stage(id))?.unwrap_or(asked.scale);
    let guidance = Guidance { scale: how.guidance.unwrap_or(tuned), ..asked };
    if guidance.is_on() && conditions.space() == ConditionSpace::None {
        let message = "the prior is told nothing of images: there is nothing to guide it by";
        return Err(Error::Unsupported(message.to_owned()));
    }
    fits(dataset.info().image, how.count, 1)?;
    let mut unread = Unread::default();
    let condition = match &how.shows {
        None => stage.conditions(dataset.as_ref(), conditions, how.count)?,
        Some(Shows::Text(text)) => {
            unread = conditions.unread(text)?;
            conditions.of_texts(&vec![text.clone(); how.count])?
        }
        Some(Shows::Class(_)) if conditions.are_captions() => {
            let message = "this prior is told captions, not classes: use `--text`";
            return Err(Error::Unsupported(message.to_owned()));
        }
        Some(Shows::Class(class)) => {
            Condition::of_labels(conditions.space(), &Codes::from_vec(vec![*class; how.count], &[how.count])?)?
        }
    };
    let mut images = Vec::new();
    for (i, rows) in (0..how.count).collect::<Vec<_>>().chunks(BATCH).enumerate() {
        let rng = Rng::new(how.seed, "samples", i as u64);
        images.push(no_grad(|| -> Result<Tensor> {
            let tokens = sampler.sample(&condition.rows(rows)?, &[how.draw], guidance, true, &rng)?;
            model.decode(&tokens, None)
        })?);
    }
    let path = sheet(&[Tensor::concat(&images.iter().collect::<Vec<_>>(), 0)?], out)?;
    Ok(Sheet { path, unread })
}

/// Puts test images, of all classes in turn, above their reconstructions (from 1 to all depths, where tokens are codes), in one
/// PNG sheet.
///
/// # Errors
/// Stages that are not done.
pub fn reconstruct(
    plan: &Plan,
    trial: &Trial,
    store: &Store,
    plugins: &Plugins,
    count: usize,
    repeat: &Repeat,
    out: &Path,
) -> Result<Option<PathBuf>> {
    let stage = plan
        .jobs
        .iter()
        .filter(|job| trial.jobs.contains(&job.id))
        .find_map(|job| job.stage.is::<MeasureTokenizer>())
        .ok_or_else(|| Error::Unsupported("this trial has no tokenizer".to_owned()))?;
    require_done(store, &[&stage.tokenizer], repeat)?;
    let (dataset, model) = load_tokenizer(plugins, store, &stage.tokenizer)?;
    let count = count.min(dataset.info().test);
    fits(dataset.info().image, count, model.depth().max(1) + 1)?;
    // Those that the report shows, and more of the same.
    let indices = shown(dataset.as_ref(), Split::Test, stage.evaluation.images.max(count), count)?;
    let images = dataset.batch(Split::Test, &indices, None)?.pixels;
    let rows = no_grad(|| -> Result<Vec<Tensor>> {
        let tokens: Vec<Tokens> = model.encode(&images)?.into_iter().map(|(_, quantized)| quantized.tokens).collect();
        let depth = model.depth();
        let mut rows = vec![images.clone()];
        for d in 1..=depth.max(1) {
            rows.push(model.decode(&tokens, (depth > 0).then_some(d))?);
        }
        Ok(rows)
    })?;
    sheet(&rows, out)
}

/// That stages are done.
///
/// # Errors
/// Which command does them.
pub(crate) fn require_done(store: &Store, ids: &[&Id], repeat: &Repeat) -> Result<()> {
    for id in ids {
        if store.stage(id).done()?.is_none() {
            return Err(Error::Data(format!(
                "this trial has not been trained in {}; run `{}` first",
                store.root().display(),
                repeat.sweep()
            )));
        }
    }
    Ok(())
}

/// Checks, before any work, that a sheet with so many images in each of its rows is not too large.
fn fits([height, width, _]: [usize; 3], count: usize, rows: usize) -> Result<()> {
    let one = (height + GAP) as u128 * (width + GAP) as u128 * rows as u128;
    if one * count as u128 <= LARGEST {
        return Ok(());
    }
    let most = LARGEST / one.max(1);
    Err(Error::Data(format!(
        "a sheet of {count} images of {height}x{width} would be too large: at most {most} go on one; lower --count"
    )))
}

/// That a name is one for a PNG: it ends so, or it does not say. (What is named may be a FIFO or a device, too.)
///
/// # Errors
/// Which name would do.
pub fn expect_png(out: &Path) -> Result<()> {
    match out.extension() {
        Some(end) if !end.eq_ignore_ascii_case("png") => Err(Error::Data(format!(
            "{}: pictures are written as PNG; name it {}",
            out.display(),
            out.with_extension("png").display()
        ))),
        _ => Ok(()),
    }
}

/// Writes rows of images `[N, H, W, C]` in [-1, 1] as one PNG; a single row is folded to about a square. Gives its path if it
/// is a file, and not a FIFO or a device that was written to.
fn sheet(rows: &[Tensor], out: &Path) -> Result<Option<PathBuf>> {
    let [count, height, width, channels] = rows[0].dims::<4>("sheet")?;
    let columns = if rows.len() > 1 { count } else { (count as f64).sqrt().ceil() as usize };
    let lines = if rows.len() > 1 { rows.len() } else { count.div_ceil(columns.max(1)) };
    let (w, h) = (columns * (width + GAP) + GAP, lines * (height + GAP) + GAP);
    let mut picture = image::RgbImage::from_pixel(w as u32, h as u32, image::Rgb([255; 3]));
    for (r, row) in rows.iter().enumerate() {
        for n in 0..count {
            let (line, column) = if rows.len() > 1 { (r, n) } else { (n / columns, n % columns) };
            let (top, left) = (GAP + line * (height + GAP), GAP + column * (width + GAP));
            for (i, pixel) in
                row.as_slice()[n * height * width * channels..].chunks(channels).take(height * width).enumerate()
            {
                let rgb = [0, 1, 2].map(|c| {
                    let x = pixel[if channels >= 3 { c } else { 0 }];
                    ((x.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8
                });
                picture.put_pixel((left + i % width) as u32, (top + i / width) as u32, image::Rgb(rgb));
            }
        }
    }
    let mut bytes = Cursor::new(Vec::new());
    picture
        .write_to(&mut bytes, image::ImageFormat::Png)
        .map_err(|e| Error::Data(format!("{}: {e}", out.display())))?;
    let is_file = files::write_given(out, bytes.get_ref())?;
    Ok(is_file.then(|| out.to_owned()))
}
