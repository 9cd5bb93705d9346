//! Measures of images and features.

use super::{Case, Outputs, Result};
use rqlab_sdk::metrics::{
    DataRange, Features, Images, Moments, Ssim, Window, kernel_distance, kernel_distance_subsets, knn_radii,
    manifold_membership, mse, precision_recall as measure_precision_recall, psnr, psnr_pooled,
};
use rqlab_sdk::tensor::Tensor;

fn features(t: &Tensor) -> Result<Features<'_>> {
    Ok(Features::new(t.as_slice(), t.last_dim())?)
}

pub(super) fn psnr_ssim(case: &Case, out: &mut Outputs) -> Result<()> {
    let range = DataRange::new(0.0, case.number("data_range")?)?;
    let (a, b) = (case.map("in.a")?, case.map("in.b")?);
    let [batch, height, width, channels] = a.dims("images")?;
    let images = |t| Images::new(t, [batch, height, width, channels]);
    let (a, b) = (images(a.as_slice())?, images(b.as_slice())?);
    let errors = mse(a, b)?;
    let ratios: Vec<f64> = errors.iter().map(|&e| psnr(e, range)).collect();
    out.number("out.psnr_mean", ratios.iter().sum::<f64>() / batch as f64);
    out.number("out.psnr_pooled", psnr_pooled(&errors, range)?);
    out.numbers("out.mse", errors);
    out.numbers("out.psnr", ratios);
    let ssim = Ssim {
        range,
        window: Window::Gaussian { side: case.size("window")?, sigma: case.number("sigma")? },
        k1: case.number("K1")?,
        k2: case.number("K2")?,
        ..Ssim::new(range)
    };
    out.numbers("out.ssim", ssim.per_image(a, b)?);
    out.array("out.ssim_per_channel", &[batch, channels], ssim.per_channel(a, b)?);
    let map = ssim.map(a, b)?;
    let side = [height, width].map(|size| size + 1 - case.size("window").unwrap_or(1));
    let first = map.iter().step_by(channels).take(side[0] * side[1]).copied().collect();
    out.array("out.ssim_map_0_0", &side, first);
    Ok(())
}

pub(super) fn frechet_distance(case: &Case, out: &mut Outputs) -> Result<()> {
    let gaussian = |name: &str| -> Result<_> { Ok(Moments::of(features(&case.tensor(name)?)?).gaussian()?) };
    for sub in case.sub_cases("in.", "f1") {
        let (a, b) = (gaussian(&format!("in.{sub}f1"))?, gaussian(&format!("in.{sub}f2"))?);
        out.number(format!("out.{sub}fd"), rqlab_sdk::metrics::frechet_distance(&a, &b)?);
        if sub.is_empty() {
            out.number("out.same.fd", rqlab_sdk::metrics::frechet_distance(&a, &a)?);
            for (index, gaussian) in [(1, &a), (2, &b)] {
                let dim = gaussian.mean().len();
                out.numbers(format!("out.mu{index}"), gaussian.mean().iter().copied());
                out.array(format!("out.sigma{index}"), &[dim, dim], gaussian.covariance().to_vec());
            }
        }
    }
    Ok(())
}

pub(super) fn inception_score(case: &Case, out: &mut Outputs) -> Result<()> {
    let probs = case.tensor("in.probs")?;
    let score = |splits| rqlab_sdk::metrics::inception_score(probs.as_slice(), probs.last_dim(), splits);
    let split = score(case.size("splits")?)?;
    out.number("out.mean", split.mean);
    out.number("out.std", split.std.unwrap_or(0.0));
    out.number("out.single", score(1)?.mean);
    Ok(())
}

pub(super) fn kid(case: &Case, out: &mut Outputs) -> Result<()> {
    let (x, y) = (case.tensor("in.x")?, case.tensor("in.y")?);
    let (x, y) = (features(&x)?, features(&y)?);
    let rows = |name: &str| -> Result<Vec<Vec<usize>>> {
        let size = case.array(name)?.shape.last().copied().unwrap_or(1);
        Ok(case.indices(name)?.chunks(size).map(<[usize]>::to_vec).collect())
    };
    out.number("out.full", kernel_distance(x, y)?);
    let subsets = kernel_distance_subsets(x, y, &rows("rand.ix")?, &rows("rand.iy")?)?;
    out.number("out.mean", subsets.mean);
    out.number("out.std", subsets.std);
    out.numbers("out.subsets", subsets.subsets);
    Ok(())
}

pub(super) fn precision_recall(case: &Case, out: &mut Outputs) -> Result<()> {
    let (real, fake) = (case.tensor("in.real")?, case.tensor("in.fake")?);
    let (real, fake) = (features(&real)?, features(&fake)?);
    for k in case.sizes("ks")? {
        let measured = measure_precision_recall(real, fake, k)?;
        out.number(format!("out.{k}.precision"), measured.precision);
        out.number(format!("out.{k}.recall"), measured.recall);
        let (real_radii, fake_radii) = (knn_radii(real, k)?, knn_radii(fake, k)?);
        out.flags(format!("out.{k}.fake_in_real"), &manifold_membership(fake, real, &real_radii)?);
        out.flags(format!("out.{k}.real_in_fake"), &manifold_membership(real, fake, &fake_radii)?);
        out.numbers(format!("out.{k}.real_radii"), real_radii);
        out.numbers(format!("out.{k}.fake_radii"), fake_radii);
    }
    Ok(())
}
