//! Facts of networks that read a map in raster order.

#![allow(clippy::unwrap_used, reason = "tests stop at the first failure")]

use super::*;
use crate::ops::conv::Conv2d;
use crate::ops::testing::{assert_close, on_every_device, random};

/// A network of all instructions, and the registers of its input and output.
fn network(images: usize, map: [usize; 2], kernel: usize, width: usize) -> (RasterDecoder, Register, Register) {
    let mut net = RasterDecoder::new(images, map);
    let scale = |t: Tensor, by: f32| t.mul_scalar(by).unwrap();
    let x = net.input(width);
    let activated = net.elu(x);
    let weight = scale(random(&[2 * width, width, kernel, kernel], 1), 0.2);
    let gates = net.causal_conv(activated, &weight, Some(&random(&[2 * width], 2))).unwrap();
    let out = net.add_glu(x, gates).unwrap();
    let both = net.concat(&[x, out]);
    let [q, k, v] = [3, 4, 5]
        .map(|seed| net.linear(both, &scale(random(&[4, 2 * width], seed), 0.3), Some(&random(&[4], seed))).unwrap());
    let seen = net.attend(q, k, v, 2).unwrap();
    let seen = net.linear(seen, &random(&[width, 4], 6), None).unwrap();
    let output = net.add(out, seen).unwrap();
    (net, x, output)
}

#[test]
fn steps_in_one_region_give_what_one_operation_after_another_gives() {
    on_every_device(|| {
        for (images, map, kernel, width) in
            [(1, [1, 1], 3, 2), (2, [3, 4], 3, 5), (5, [4, 3], 5, 16), (3, [6, 7], 5, 20)]
        {
            let (mut fused, x, output) = network(images, map, kernel, width);
            let mut twin = fused.clone();
            twin.memory = Some(twin.fresh(false));
            for n in 0..map[0] * map[1] {
                let row = random(&[images, width], 100 + n as u64);
                let found = fused.step(&[(x, &row)], output).unwrap();
                let wanted = twin.step(&[(x, &row)], output).unwrap();
                assert_close(found.as_slice(), wanted.as_slice(), 1e-5);
            }
            assert!(fused.step(&[(x, &random(&[images, width], 1))], output).is_err());
        }
    });
}

/// A masked convolution a position at a time is that of the whole map.
#[test]
fn a_causal_convolution_is_that_of_the_whole_map() {
    on_every_device(|| {
        for (images, [rows, columns], kernel, width) in [(1, [2, 3], 3, 1), (3, [5, 4], 5, 17), (2, [3, 9], 7, 4)] {
            let map = random(&[images, rows, columns, width], 1);
            let (weight, bias) = (random(&[6, width, kernel, kernel], 2), random(&[6], 3));
            let whole = map.conv2d(&weight, Some(&bias), Conv2d::causal(kernel)).unwrap();
            let mut net = RasterDecoder::new(images, [rows, columns]);
            let x = net.input(width);
            let y = net.causal_conv(x, &weight, Some(&bias)).unwrap();
            for n in 0..rows * columns {
                let at = |t: &Tensor| {
                    let flat = t.reshape(&[images, rows * columns, t.last_dim()]).unwrap();
                    flat.slice(1, n..n + 1).unwrap().reshape(&[images, t.last_dim()]).unwrap()
                };
                let found = net.step(&[(x, &at(&map))], y).unwrap();
                assert_close(found.as_slice(), at(&whole).as_slice(), 1e-5);
            }
        }
    });
}

#[test]
fn misfits_are_errors() {
    let mut net = RasterDecoder::new(2, [2, 2]);
    let x = net.input(3);
    assert!(net.linear(x, &Tensor::zeros(&[2, 4]), None).is_err());
    assert!(net.causal_conv(x, &Tensor::zeros(&[2, 3, 4, 4]), None).is_err());
    assert!(net.add_glu(x, x).is_err());
    assert!(net.attend(x, x, x, 2).is_err());
    let y = net.elu(x);
    assert!(net.step(&[(x, &Tensor::zeros(&[1, 3]))], y).is_err());
}
