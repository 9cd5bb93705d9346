//! Published networks that images are measured with. The cases store no weights, but a formula for them.

use super::outputs::{backward, gradient};
use super::{Case, Outputs, Result};
use rqlab_sdk::networks::{Dinov2, Dinov2Config, Inception, Lpips, Weights};
use rqlab_sdk::tensor::{Tensor, no_grad};
use serde_json::Value;
use std::collections::BTreeMap;

/// The hash of the FID and DINOv2 cases: a number in (-1, 1) for element `i`, from 1, of the tensor at `place`.
struct Hash {
    per_tensor: u32,
    offset: u32,
}

impl Hash {
    fn of(constants: &Value) -> Result<Self> {
        let whole = |name: &str| -> Result<u32> {
            let value = constants[name].as_u64().ok_or_else(|| format!("the constant `{name}` is no whole number"))?;
            Ok(value as u32)
        };
        Ok(Self { per_tensor: whole("k")?, offset: whole("o")? })
    }

    fn at(&self, place: usize, i: usize) -> f64 {
        let mut h = (i as u32).wrapping_add(self.per_tensor.wrapping_mul(place as u32)).wrapping_add(self.offset);
        h ^= h >> 16;
        h = h.wrapping_mul(0x85EB_CA6B);
        h ^= h >> 13;
        h = h.wrapping_mul(0xC2B2_AE35);
        h ^= h >> 16;
        (f64::from(h) + 0.5) / f64::from(1u32 << 31) - 1.0
    }
}

/// The tensors that `list` names in order, each of numbers that `rule` makes of its name, shape and hash; checked at the
/// last elements that the case tells.
fn by_formula(
    list: &Value,
    checks: &Value,
    hash: &Hash,
    rule: impl Fn(&str, &[usize], f64) -> f64,
) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for (place, entry) in list.as_array().ok_or("the configuration names no tensors")?.iter().enumerate() {
        let name = entry[0].as_str().ok_or("a tensor has no name")?;
        let sizes = entry[1].as_array().ok_or("a tensor has no shape")?;
        let shape: Vec<usize> = sizes.iter().map(|size| size.as_u64().unwrap_or(0) as usize).collect();
        let numbers = (1..=shape.iter().product()).map(|i| rule(name, &shape, hash.at(place, i)));
        let numbers: Vec<f64> = numbers.collect();
        if let (Some(wanted), Some(&last)) = (checks[name].as_f64(), numbers.last())
            && (last - wanted).abs() > 1e-12
        {
            return Err(format!("the formula gives {last} at the end of `{name}`, not {wanted}").into());
        }
        let numbers = numbers.into_iter().map(|x| x as f32).collect();
        tensors.insert(name.to_owned(), Tensor::from_vec(numbers, &shape)?);
    }
    Ok(tensors)
}

/// A constant of the formula.
fn constant(constants: &Value, name: &str) -> Result<f64> {
    constants[name].as_f64().ok_or_else(|| format!("the formula has no constant `{name}`").into())
}

/// The tensors of Inception that the case `fid_inception` states by a formula.
///
/// # Errors
/// A case that states none, or whose checks its formula does not meet.
pub fn inception_tensors(case: &Case) -> Result<BTreeMap<String, Tensor>> {
    let constants = &case.config["constants"];
    let [s, gw, gb, gm, gv] = ["s", "gw", "gb", "gm", "gv"].map(|name| constant(constants, name));
    let (s, gw, gb, gm, gv) = (s?, gw?, gb?, gm?, gv?);
    let rule = |name: &str, shape: &[usize], v: f64| match name.rsplit_once(".bn.") {
        None => v * s / (shape[1..].iter().product::<usize>() as f64).sqrt(),
        Some((_, "weight")) => 1.0 + gw * v,
        Some((_, "bias")) => gb * v,
        Some((_, "running_mean")) => gm * v,
        Some(_) => 1.0 + gv * v,
    };
    by_formula(&case.config["names"], &case.config["last_element_check"], &Hash::of(constants)?, rule)
}

pub(super) fn fid_inception(case: &Case, out: &mut Outputs) -> Result<()> {
    let inception = Inception::new(Weights::new(inception_tensors(case)?, "the case"))?;

    let images = case.map("in.x")?.mul_scalar(2.0)?.add_scalar(-1.0)?;
    let prepared = Inception::prepare(&images)?;
    let [batch, _, side, channels] = prepared.dims("prepared")?;
    let row = prepared.slice(1, 150..151)?.reshape(&[batch, side, channels])?;
    out.tensor("out.resized_row", &row.permute(&[0, 2, 1])?);
    let maps = inception.forward(&prepared)?;
    for map in [&maps.first, &maps.second, &maps.third] {
        let [_, _, width, channels] = map.dims("map")?;
        out.tensor(format!("out.mean_{channels}"), &map.mean(&[1, 2], false)?);
        let corner = map.slice(1, 0..2)?.slice(2, width - 2..width)?.slice(3, 0..8)?;
        out.map(format!("out.corner_{channels}"), &corner)?;
    }
    out.tensor("out.pool", &maps.pool);
    Ok(())
}

pub(super) fn dinov2_features(case: &Case, out: &mut Outputs) -> Result<()> {
    let constants = &case.config["constants"];
    let [s, e, b, n, ls] = ["s", "e", "b", "n", "ls"].map(|name| constant(constants, name));
    let (s, e, b, n, ls) = (s?, e?, b?, n?, ls?);
    let rule = |name: &str, shape: &[usize], v: f64| match name {
        name if name.ends_with("gamma") => ls * (1.0 + v / 2.0),
        "cls_token" | "pos_embed" | "register_tokens" => e * v,
        name if name.ends_with("bias") => b * v,
        name if name.contains("norm") => 1.0 + n * v,
        _ => v * s / (shape[1..].iter().product::<usize>() as f64).sqrt(),
    };
    for sub in case.config["subcases"].as_array().ok_or("the configuration has no sub-cases")? {
        let name = sub["name"].as_str().ok_or("a sub-case has no name")?;
        let tensors = by_formula(&sub["names"], &sub["last_element_check"], &Hash::of(constants)?, rule)?;
        let config = Dinov2Config {
            heads: case.size("num_heads")?,
            antialias: sub["interpolate_antialias"].as_bool().unwrap_or(false),
            offset: sub["interpolate_offset"].as_f64().unwrap_or(0.0),
        };
        let patch = sub["patch_size"].as_u64().ok_or("a sub-case has no patch size")? as usize;
        let network = Dinov2::new(Weights::new(tensors, "the case"), config)?;
        for size in sub["inputs"].as_array().ok_or("a sub-case has no inputs")? {
            let of = |axis: usize| size[axis].as_u64().unwrap_or(0) as usize;
            let (height, width) = (of(0), of(1));
            let at = format!("{name}.{height}x{width}");
            if !case.has(&format!("in.{at}.x")) {
                continue;
            }
            let tokens = network.forward(&case.map(&format!("in.{at}.x"))?)?;
            out.tensor(format!("out.{at}.mean_patchtokens"), &tokens.patches.mean(&[1], false)?);
            out.tensor(format!("out.{at}.x_norm_regtokens"), &tokens.registers);
            out.tensor(format!("out.{at}.x_norm_clstoken"), &tokens.class);
            let positions = network.positions(height / patch, width / patch)?;
            out.tensor(format!("out.{at}.pos"), &positions.reshape(&[1, positions.shape()[0], positions.last_dim()])?);
        }
    }
    Ok(())
}

/// The trunk's numbers: of layer `layer`, `count` of them in (-scale, scale).
fn trunk_numbers(layer: usize, count: usize, scale: f64) -> Vec<f32> {
    let of_layer = 1_000_003u32.wrapping_mul(layer as u32 + 1);
    let number = |i: u32| {
        let mut h = (i + 1).wrapping_add(of_layer).wrapping_mul(2_654_435_761);
        h = (h ^ (h >> 15)).wrapping_mul(2_246_822_519);
        h = (h ^ (h >> 13)).wrapping_mul(3_266_489_917);
        h ^= h >> 16;
        (scale * (2.0 * f64::from(h) / 4_294_967_296.0 - 1.0)) as f32
    };
    (0..count as u32).map(number).collect()
}

pub(super) fn lpips(case: &Case, out: &mut Outputs) -> Result<()> {
    const CHANNELS: [usize; 13] = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512];
    const PLACES: [usize; 13] = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28];
    let (offset, weight_scale, bias_scale) =
        (case.size("layer_offset")?, case.number("weight_scale")?, case.number("bias_scale")?);
    let (mut tensors, mut first, mut inputs) = (BTreeMap::new(), Vec::new(), 3);
    for (layer, (outputs, place)) in CHANNELS.into_iter().zip(PLACES).enumerate() {
        let fan = 9 * inputs;
        let weights = trunk_numbers(layer + offset, outputs * fan, weight_scale * (6.0 / fan as f64).sqrt());
        first.extend(weights[..4].iter().map(|&x| f64::from(x)));
        tensors.insert(format!("features.{place}.weight"), Tensor::from_vec(weights, &[outputs, inputs, 3, 3])?);
        let biases = trunk_numbers(layer + offset + 100, outputs, bias_scale);
        tensors.insert(format!("features.{place}.bias"), Tensor::from_vec(biases, &[outputs])?);
        inputs = outputs;
    }
    for head in 0..5 {
        let weight = case.tensor(&format!("w.lin{head}"))?;
        tensors.insert(format!("lin{head}.model.1.weight"), weight.reshape(&[1, weight.len(), 1, 1])?);
    }
    out.numbers("out.first_weights", first);
    let network = Lpips::new(Weights::new(tensors, "the case"))?;
    let (x, y) = (case.map("in.x")?.leaf(), case.map("in.y")?);
    out.numbers(
        "out.feature_mean",
        network.features(&x)?.iter().map(|map| Ok(f64::from(map.mean_all()?.item()?))).collect::<Result<Vec<_>>>()?,
    );
    let by_map = no_grad(|| network.by_map(&x, &y))?;
    out.tensor("out.total", &by_map.sum(&[1], false)?);
    out.tensor("out.per_layer", &by_map);
    // Pictures in [0, 1] are mapped to [-1, 1] first.
    let there_and_back = |t: &Tensor| -> Result<Tensor> {
        let unit = t.add_scalar(1.0)?.mul_scalar(0.5)?;
        Ok(unit.mul_scalar(2.0)?.add_scalar(-1.0)?)
    };
    let (x_again, y_again) = (there_and_back(&x)?, there_and_back(&y)?);
    out.tensor("out.unscaled_range_total", &no_grad(|| network.distance(&x_again, &y_again))?);
    let mut found = backward(|| Ok(network.distance(&x, &y)?.sum_all()?))?;
    out.map("grad.in.x", &gradient(&mut found, &x))?;
    Ok(())
}
