//! The published variants of measures: 8-bit steps, windows of the structural similarity, neighbours, extrapolation, usage.

use super::case::Array;
use super::{Case, Outputs, Result};
use rqlab_sdk::metrics::{
    Ball, Border, DataRange, Features, Images, Levels, Moments, RecentUsage, ScaleHits, Ssim, entropy_bits_eps,
    extrapolation_sizes, frechet_distance, frechet_extrapolated, kernel_distance_subsets, mse, perplexity_eps, prdc,
    psnr, psnr_pooled, unit_discrepancy, usage, usage_above,
};
use rqlab_sdk::resize::{Resize, Sampling};
use rqlab_sdk::tensor::Tensor;
use rqlab_sdk::tensor::ops::conv::Conv2d;
use rqlab_sdk::tensor::ops::nearest::nearest;

pub(super) fn measures(case: &Case, out: &mut Outputs) -> Result<()> {
    pictures(case, out)?;
    neighbours(case, out)?;
    extrapolation(case, out)?;
    kernels(case, out)?;
    usages(case, out)?;
    usage_by_scale(case, out)
}

/// A batch of pictures `[B, H, W, C]` and their values.
struct Pictures {
    values: Vec<f32>,
    shape: [usize; 4],
}

impl Pictures {
    fn of(map: &Tensor) -> Result<Self> {
        Ok(Self { values: map.to_vec(), shape: map.dims("pictures")? })
    }

    fn each(&self, f: impl FnMut(f32) -> f32) -> Self {
        Self { values: self.values.iter().copied().map(f).collect(), shape: self.shape }
    }

    fn view(&self) -> Result<Images<'_>> {
        Ok(Images::new(&self.values, self.shape)?)
    }

    fn map(&self) -> Result<Tensor> {
        Ok(Tensor::from_vec(self.values.clone(), &self.shape)?)
    }
}

/// Distortions after each published way to 8 bits.
fn pictures(case: &Case, out: &mut Outputs) -> Result<()> {
    let (levels, y) = (Pictures::of(&case.map("in.levels")?)?, Pictures::of(&case.map("in.y")?)?);
    let of_levels = |levels: Levels| y.each(|x| f32::from(levels.of(x)));
    let (round, truncate) = (of_levels(Levels::Round), of_levels(Levels::Truncate));
    out.map("out.levels.round", &round.map()?)?;
    out.map("out.levels.truncate", &truncate.map()?)?;
    let back: Vec<u8> = (0..=255).map(|v| Levels::Truncate.of(Levels::intensity(v))).collect();
    out.numbers("out.truncation.levels", back.iter().map(|&v| f64::from(v)));
    out.number("out.truncation.lowered", (0..=255).zip(&back).filter(|(v, back)| v > *back).count() as f64);

    let unit = |levels: &Pictures| levels.each(|v| v / 255.0);
    let (x, float) = (unit(&levels), y.each(|x| (x.clamp(-1.0, 1.0) + 1.0) / 2.0));
    let (rounded, truncated) = (unit(&round), unit(&truncate));
    let lowered = unit(&levels.each(|v| f32::from(back[v as usize])));
    let error = |a: &Pictures, b: &Pictures| -> Result<Vec<f64>> { Ok(mse(a.view()?, b.view()?)?) };
    for (name, a, b) in [
        ("float", &x, &float),
        ("round", &x, &rounded),
        ("truncate", &x, &truncated),
        ("truncate_both", &lowered, &truncated),
    ] {
        out.numbers(format!("out.psnr.{name}"), error(a, b)?.into_iter().map(|e| psnr(e, DataRange::UNIT)));
    }
    let errors = error(&x, &float)?;
    out.number("out.psnr.pooled", psnr_pooled(&errors, DataRange::UNIT)?);
    let mean = errors.iter().map(|&e| psnr(e, DataRange::UNIT)).sum::<f64>() / errors.len() as f64;
    out.number("out.psnr.mean_of_images", mean);

    let of_width = |width: f64| -> Result<Ssim> { Ok(Ssim::scikit_image(DataRange::new(0.0, width)?)) };
    let mirrored = Ssim { border: Border::Mirror { repeat_edge: true }, ..of_width(1.0)? };
    for (name, ssim, a, b) in [
        ("float", of_width(1.0)?, &x, &float),
        ("round", of_width(1.0)?, &x, &rounded),
        ("range2", of_width(2.0)?, &x, &rounded),
        ("levels255", of_width(255.0)?, &levels, &round),
        ("uncropped", mirrored, &x, &float),
    ] {
        out.numbers(format!("out.ssim.{name}"), ssim.per_image(a.view()?, b.view()?)?);
    }
    Ok(())
}

fn features(t: &Tensor) -> Result<Features<'_>> {
    Ok(Features::new(t.as_slice(), t.last_dim())?)
}

fn neighbours(case: &Case, out: &mut Outputs) -> Result<()> {
    let (real, fake) = (case.tensor("in.prdc.real")?, case.tensor("in.prdc.fake")?);
    for k in case.sizes("prdc_k")? {
        let found = prdc(features(&real)?, features(&fake)?, k, Ball::Open)?;
        out.numbers(format!("out.prdc.{k}"), [found.precision, found.recall, found.density, found.coverage]);
    }
    Ok(())
}

/// The rows of a table of indices.
fn index_rows(case: &Case, name: &str) -> Result<Vec<Vec<usize>>> {
    let width = case.array(name)?.shape.last().copied().unwrap_or(1).max(1);
    Ok(case.indices(name)?.chunks(width).map(<[usize]>::to_vec).collect())
}

fn extrapolation(case: &Case, out: &mut Outputs) -> Result<()> {
    let (real, fake) = (case.tensor("in.fd.real")?, case.tensor("in.fd.fake")?);
    let real = Moments::of(features(&real)?).gaussian()?;
    let sizes = extrapolation_sizes(fake.shape()[0]);
    let orders = index_rows(case, "rand.fd.perm")?;
    let subsets: Vec<Vec<usize>> = orders.iter().zip(&sizes).map(|(order, &size)| order[..size].to_vec()).collect();
    let found = frechet_extrapolated(&real, features(&fake)?, &subsets)?;
    out.numbers("out.fd.sizes", found.sizes.iter().map(|&size| size as f64));
    out.numbers("out.fd.values", found.values);
    out.number("out.fd.infinity", found.infinite);
    out.number("out.fd.full", frechet_distance(&real, &Moments::of(features(&fake)?).gaussian()?)?);
    Ok(())
}

fn kernels(case: &Case, out: &mut Outputs) -> Result<()> {
    let (real, fake) = (case.tensor("in.fd.real")?, case.tensor("in.fd.fake")?);
    let (real_rows, fake_rows) = (index_rows(case, "rand.kd.real")?, index_rows(case, "rand.kd.fake")?);
    let found = kernel_distance_subsets(features(&real)?, features(&fake)?, &real_rows, &fake_rows)?;
    out.number("out.kd.mean", found.mean);
    out.numbers("out.kd.subsets", found.subsets);
    let (x, y) = (case.tensor("in.cmmd.x")?, case.tensor("in.cmmd.y")?);
    out.number("out.cmmd", unit_discrepancy(features(&x)?, features(&y)?)?);
    Ok(())
}

fn usages(case: &Case, out: &mut Outputs) -> Result<()> {
    let codes = case.size("usage/codes")?;
    let array: &Array = case.array("in.usage.indices")?;
    let per_step = array.shape.last().copied().unwrap_or(1).max(1);
    let steps: Vec<Vec<u32>> =
        array.data.chunks(per_step).map(|step| step.iter().map(|&code| code as u32).collect()).collect();
    let mut recent = RecentUsage::new(codes, case.size("usage/window")?)?;
    let mut after = Vec::new();
    for step in &steps {
        after.push(recent.push(step)?);
    }
    out.numbers("out.usage.window", after);
    let histogram = |choices: &[Vec<u32>]| {
        let mut counts = vec![0u64; codes];
        choices.iter().flatten().for_each(|&code| counts[code as usize] += 1);
        counts
    };
    let all = histogram(&steps);
    out.number("out.usage.any_hit", usage(&all));
    out.number("out.usage.share", 100.0 * usage_above(&histogram(&steps[..1]), 0.01));
    out.number("out.entropy.bits", entropy_bits_eps(&all, 1e-8));
    out.number("out.perplexity.eps10", perplexity_eps(&all, 1e-10));
    out.number("out.perplexity.eps5", perplexity_eps(&all, 1e-5));
    Ok(())
}

/// Hits of a quantizer that fits a coarse map first and the rest of the way on ever finer ones.
fn usage_by_scale(case: &Case, out: &mut Outputs) -> Result<()> {
    let sides = case.sizes("ema/patch_nums")?;
    let codes = case.size("ema/codes")?;
    let maps = case.tensor("in.ema.f")?;
    let [steps, batch, channels, height, width] = maps.dims("in.ema.f")?;
    let codebook = case.tensor("w.ema.embedding.weight")?;
    let (weight, bias) = (case.tensor("w.ema.phi.weight")?, case.tensor("w.ema.phi.bias")?);
    let mut hits = ScaleHits::new(sides.len(), codes);
    for step in 0..steps {
        let map = maps.slice(0, step..step + 1)?.reshape(&[batch, channels, height, width])?;
        let mut rest = map.permute(&[0, 2, 3, 1])?;
        for (scale, &side) in sides.iter().enumerate() {
            let last = scale + 1 == sides.len();
            let small = if last { rest.clone() } else { Resize::to([side, side], Sampling::Area).of(&rest)? };
            let chosen = nearest(&small, &codebook)?;
            hits.push(scale, chosen.as_slice())?;
            let coarse = codebook.embedding(&chosen)?;
            let fine = if last { coarse } else { Resize::to([height, width], Sampling::CUBIC).of(&coarse)? };
            let convolved = fine.conv2d(&weight, Some(&bias), Conv2d::same(3))?;
            rest = rest.sub(&fine.mul_scalar(0.5)?.add(&convolved.mul_scalar(0.5)?)?)?;
        }
        let flat: Vec<f64> = hits.hits().concat();
        out.array(format!("out.ema.{step}.hits"), &[sides.len(), codes], flat);
        let usage = hits.usage(batch * height * width).into_iter().map(|share| 100.0 * share);
        out.numbers(format!("out.ema.{step}.usage"), usage);
    }
    Ok(())
}
