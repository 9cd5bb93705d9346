//! Measures a prior: likelihood of test codes, quality of its samples, speed of sampling.

use super::codes::encode;
use super::data::chunks;
use super::features::FeatureNet;
use super::prior::pick_codes;
use super::{Context, Tokenizer, load_prior, load_tokenizer};
use crate::settings::Evaluation;
use crate::store::Done;
use rqlab_sdk::Result;
use rqlab_sdk::checkpoint::Checkpoint;
use rqlab_sdk::contracts::{Prior, SampleRequest, Split, Targets, TokenBatch};
use rqlab_sdk::tensor::ops::sampling::Draw;
use rqlab_sdk::tensor::{Codes, Rng, Tensor, no_grad};
use std::collections::BTreeMap;
use std::time::Instant;

const BATCH: usize = 50;
/// Sampling is timed until this many seconds have passed, or this many rounds.
const SPEED_SECONDS: f64 = 1.0;
const SPEED_ROUNDS: usize = 5;

pub(super) fn run(
    cx: &mut Context<'_>,
    tokenizer: &str,
    prior: &str,
    classifier: Option<&str>,
    evaluation: &Evaluation,
) -> Result<Done> {
    let (dataset, model) = load_tokenizer(cx.plugins, cx.store, tokenizer)?;
    let info = dataset.info().clone();
    let classes = info.classes.len();
    let prior = load_prior(cx.plugins, cx.store, prior, &model, classes)?;
    let mut done = Done::default();

    let images = evaluation.images.min(info.test);
    let test = encode(dataset.as_ref(), &model, Split::Test, images, false, |_| {})?;
    for (name, value) in likelihood(prior.as_ref(), &test.codes, &test.labels)? {
        done.measures.insert(name, value);
    }

    let draw = vec![Draw { temperature: evaluation.temperature, top_k: evaluation.top_k, top_p: evaluation.top_p }];
    let sampled = sample(cx, prior.as_ref(), evaluation.samples, classes, &draw)?;
    let pictures = decode(&model, &sampled.0)?;
    if let Some(id) = classifier {
        let net = FeatureNet::load(cx.store, id, info.image[2], classes)?;
        let real = net.describe(&test_images(dataset.as_ref(), images)?)?;
        let ours = net.describe(&pictures)?;
        let baseline = net.describe(&decode(&model, &shuffled(&test.codes, evaluation.samples)?)?)?;
        let (precision, recall) = ours.precision_recall(&real)?;
        done.measures.extend([
            ("sample_frechet".to_owned(), ours.frechet(&real)?),
            ("shuffled_frechet".to_owned(), baseline.frechet(&real)?),
            ("precision".to_owned(), precision),
            ("recall".to_owned(), recall),
            ("inception_style".to_owned(), ours.inception_style()?),
        ]);
    }
    keep_samples(cx, &pictures, &sampled.1, classes, evaluation.pictures)?;
    done.timings = speed(&model, prior.as_ref(), classes, &draw, &evaluation.speed)?;
    Ok(done)
}

/// Bits per image, in all and by depth, averaged over test images.
fn likelihood(prior: &dyn Prior, codes: &Codes, labels: &Codes) -> Result<Vec<(String, f64)>> {
    let count = labels.len();
    let mut sums: Vec<f64> = Vec::new();
    for range in chunks(count, BATCH) {
        let rows: Vec<usize> = range.collect();
        let batch = TokenBatch {
            codes: pick_codes(codes, &rows)?,
            targets: Targets::Hard,
            labels: pick_codes(labels, &rows)?,
            latents: None,
            upper: None,
        };
        let Some(nats) = no_grad(|| prior.likelihood(&batch))? else { return Ok(Vec::new()) };
        sums.resize(nats.last_dim(), 0.0);
        for row in nats.as_slice().chunks(nats.last_dim().max(1)) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += f64::from(*value);
            }
        }
    }
    let bits: Vec<f64> = sums.iter().map(|sum| sum / count.max(1) as f64 / std::f64::consts::LN_2).collect();
    let mut out = vec![("prior_bits_per_image".to_owned(), bits.iter().sum())];
    out.extend(bits.iter().enumerate().map(|(d, b)| (format!("prior_bits_{}", d + 1), *b)));
    Ok(out)
}

/// Draws `count` images' codes, classes in turn.
fn sample(
    cx: &mut Context<'_>,
    prior: &dyn Prior,
    count: usize,
    classes: usize,
    draw: &[Draw],
) -> Result<(Codes, Codes)> {
    let (mut codes, mut labels, mut shape) = (Vec::new(), Vec::new(), Vec::new());
    for (i, range) in chunks(count, BATCH).enumerate() {
        let wanted: Vec<u32> = range.clone().map(|n| (n % classes.max(1)) as u32).collect();
        let request = SampleRequest {
            count: range.len(),
            labels: Codes::from_vec(wanted.clone(), &[range.len()])?,
            draw: draw.to_vec(),
            cache: true,
            upper: None,
        };
        let drawn = no_grad(|| prior.sample(&request, &Rng::new(0, "samples", i as u64)))?;
        codes.extend_from_slice(drawn.as_slice());
        labels.extend(wanted);
        shape = drawn.shape().to_vec();
        cx.reporter.step(range.end as u64, count as u64, || "sampling".to_owned());
    }
    if let Some(first) = shape.first_mut() {
        *first = count;
    }
    Ok((Codes::from_vec(codes, &shape)?, Codes::from_vec(labels, &[count])?))
}

/// Images `[N, H, W, C]` of codes, in [-1, 1].
fn decode(model: &Tokenizer, codes: &Codes) -> Result<Tensor> {
    let count = codes.shape()[0];
    let (mut pixels, mut shape) = (Vec::new(), Vec::new());
    for range in chunks(count, BATCH) {
        let part = pick_codes(codes, &range.collect::<Vec<_>>())?;
        let images = no_grad(|| model.decode(&[part], usize::MAX)?.clamp(-1.0, 1.0).map_err(rqlab_sdk::Error::from))?;
        pixels.extend_from_slice(images.as_slice());
        shape = images.shape().to_vec();
    }
    if let Some(first) = shape.first_mut() {
        *first = count;
    }
    Ok(Tensor::from_vec(pixels, &shape)?)
}

fn test_images(dataset: &dyn rqlab_sdk::contracts::Dataset, count: usize) -> Result<Tensor> {
    let [height, width, channels] = dataset.info().image;
    let mut pixels = Vec::with_capacity(count * height * width * channels);
    for range in chunks(count, BATCH) {
        pixels.extend_from_slice(dataset.batch(Split::Test, &range.collect::<Vec<_>>(), None)?.pixels.as_slice());
    }
    Ok(Tensor::from_vec(pixels, &[count, height, width, channels])?)
}

/// The baseline without a prior: each code drawn on its own from the codes that test images have at its depth.
fn shuffled(codes: &Codes, count: usize) -> Result<Codes> {
    let depth = codes.last_dim();
    let positions = codes.len() / codes.shape()[0].max(1) / depth.max(1);
    let sites = codes.len() / depth.max(1);
    let mut data = vec![0; count * positions * depth];
    for d in 0..depth {
        let picks = Rng::new(0, "shuffled codes", d as u64).below(count * positions, sites as u32);
        for (i, pick) in picks.into_iter().enumerate() {
            data[i * depth + d] = codes.as_slice()[pick as usize * depth + d];
        }
    }
    let mut shape = codes.shape().to_vec();
    shape[0] = count;
    Ok(Codes::from_vec(data, &shape)?)
}

/// Keeps the first samples of each class for the report.
fn keep_samples(cx: &Context<'_>, pictures: &Tensor, labels: &Codes, classes: usize, each: usize) -> Result<()> {
    let size: usize = pictures.shape()[1..].iter().product();
    let mut rows: Vec<usize> = (0..labels.len().min(classes.max(1) * each)).collect();
    rows.sort_by_key(|&row| labels.as_slice()[row]);
    let data = rows.iter().flat_map(|&row| &pictures.as_slice()[row * size..(row + 1) * size]).copied().collect();
    let mut shape = pictures.shape().to_vec();
    shape[0] = rows.len();
    let tensors = BTreeMap::from([("samples".to_owned(), Tensor::from_vec(data, &shape)?)]);
    let codes = BTreeMap::from([("labels".to_owned(), pick_codes(labels, &rows)?)]);
    Checkpoint { tensors, codes, ..Checkpoint::default() }.save(&cx.dir().result())
}

/// Images a second by batch size: sampling with and without cache, and decoding.
fn speed(
    model: &Tokenizer,
    prior: &dyn Prior,
    classes: usize,
    draw: &[Draw],
    batches: &[usize],
) -> Result<BTreeMap<String, f64>> {
    let mut timings = BTreeMap::new();
    for &count in batches {
        let labels: Vec<u32> = (0..count).map(|n| (n % classes.max(1)) as u32).collect();
        let mut request = SampleRequest {
            count,
            labels: Codes::from_vec(labels, &[count])?,
            draw: draw.to_vec(),
            cache: true,
            upper: None,
        };
        let rng = Rng::new(0, "speed", 0);
        let codes = no_grad(|| prior.sample(&request, &rng))?;
        for (cache, name) in [(true, "cache"), (false, "nocache")] {
            request.cache = cache;
            let seconds = seconds_per_call(|| no_grad(|| prior.sample(&request, &rng)).map(drop))?;
            timings.insert(format!("images_per_second_b{count}_{name}"), count as f64 / seconds);
        }
        let seconds =
            seconds_per_call(|| no_grad(|| model.decode(std::slice::from_ref(&codes), usize::MAX)).map(drop))?;
        timings.insert(format!("decode_images_per_second_b{count}"), count as f64 / seconds);
    }
    Ok(timings)
}

/// The shortest of several calls.
fn seconds_per_call(mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    let mut best = f64::INFINITY;
    for _ in 0..SPEED_ROUNDS {
        let round = Instant::now();
        call()?;
        best = best.min(round.elapsed().as_secs_f64());
        if started.elapsed().as_secs_f64() > SPEED_SECONDS {
            break;
        }
    }
    Ok(best)
}
