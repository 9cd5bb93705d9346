//! Operations forward and backward: `cargo bench -p rqlab-tensor`.
//!
//! Names and sizes of the first group are those of the PyTorch peers: forward, then backward from a fixed gradient into
//! every operand. Rows of `nearest` and `sampling` are forward alone.

#![allow(
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark stops at the first failure; criterion writes its main function"
)]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rqlab_tensor::ops::attention::{attention, attention_qkv};
use rqlab_tensor::ops::averages::update_averages;
use rqlab_tensor::ops::conv::Conv2d;
use rqlab_tensor::ops::decoder::{BlockWeights, Decoder};
use rqlab_tensor::ops::nearest::{Search, nearest};
use rqlab_tensor::ops::residual::residual_codes;
use rqlab_tensor::{Codes, Result, Rng, Tape, Tensor, Var};
use std::hint::black_box;
use std::time::{Duration, Instant};

fn random(shape: &[usize], seed: u64) -> Tensor {
    let data = Rng::new(seed, "bench", 0).normal(shape.iter().product());
    Tensor::from_vec(data, shape).expect("the shape fits")
}

/// Times `f` forward and backward into all `operands`.
fn both_ways(c: &mut Criterion, name: &str, operands: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let leaves: Vec<Tensor> = operands.iter().map(Tensor::leaf).collect();
    let gradient = random(f(&leaves).expect("the shapes fit").shape(), 99);
    let step = |gradient: Vec<f32>| {
        let tape = Tape::start()?;
        let y = f(&leaves)?;
        let mut gradients = tape.backward_from_vec(&y, gradient)?;
        Ok::<_, rqlab_tensor::Error>(leaves.iter().map(|leaf| gradients.take(leaf)).collect::<Vec<_>>())
    };
    c.bench_function(name, |b| {
        b.iter_batched(|| gradient.to_vec(), |g| black_box(step(g)).expect("the shapes fit"), BatchSize::LargeInput);
    });
    c.bench_function(&format!("{name}/forward"), |b| b.iter(|| black_box(f(operands)).expect("the shapes fit")));
}

fn products(c: &mut Criterion) {
    let linear = |t: &[Tensor]| t[0].linear(&t[1], Some(&t[2]));
    for (name, rows, inputs, outputs) in [
        ("linear_2048x256x1024", 2048, 256, 1024),
        ("linear_2048x1024x256", 2048, 1024, 256),
        ("linear_1024x64x192", 1024, 64, 192),
    ] {
        let operands = [random(&[rows, inputs], 1), random(&[outputs, inputs], 2), random(&[outputs], 3)];
        both_ways(c, name, &operands, linear);
    }
    for rows in [1, 4, 16, 32, 100] {
        let operands = [random(&[rows, 256], 1), random(&[1024, 256], 2), random(&[1024], 3)];
        c.bench_function(&format!("sampling/linear_{rows}x256x1024"), |b| b.iter(|| linear(&operands).expect("fits")));
    }
    both_ways(c, "matmul_t_256x64x64x32", &[random(&[256, 64, 32], 1), random(&[256, 64, 32], 2)], |t| {
        t[0].matmul_t(&t[1])
    });
}

fn convolutions(c: &mut Criterion) {
    for (name, map, outputs, kernel, how) in [
        ("conv3x3_64x32", [64, 32, 32, 64], 64, 3, Conv2d::same(3)),
        ("conv3x3_32x32", [64, 32, 32, 32], 32, 3, Conv2d::same(3)),
        ("conv3x3_128x8", [64, 8, 8, 128], 128, 3, Conv2d::same(3)),
        ("conv3x3_64x4", [64, 4, 4, 64], 64, 3, Conv2d::same(3)),
        ("conv3x3_stride2_64x32", [64, 32, 32, 64], 64, 3, Conv2d::new(2, [1; 4])),
        ("conv1x1_64x32", [64, 32, 32, 64], 128, 1, Conv2d::same(1)),
        ("conv3x3_3to64x32", [64, 32, 32, 3], 64, 3, Conv2d::same(3)),
        ("conv3x3_64to3x32", [64, 32, 32, 64], 3, 3, Conv2d::same(3)),
    ] {
        let operands = [random(&map, 1), random(&[outputs, map[3], kernel, kernel], 2), random(&[outputs], 3)];
        both_ways(c, name, &operands, |t| t[0].conv2d(&t[1], Some(&t[2]), how));
    }
}

fn attentions(c: &mut Criterion) {
    let operands = [1, 2, 3].map(|seed| random(&[32, 64, 256], seed));
    both_ways(c, "attention_causal_32x8x64x32", &operands, |t| attention(&t[0], &t[1], &t[2], 8, true));
    both_ways(c, "attention_qkv_causal_32x8x64x32", &[random(&[32, 64, 768], 1)], |t| attention_qkv(&t[0], 8, true));
    both_ways(c, "attention_qkv_causal_8x8x256x32", &[random(&[8, 256, 768], 1)], |t| attention_qkv(&t[0], 8, true));
    both_ways(c, "attention_qkv_causal_2048x8x4x32", &[random(&[2048, 4, 768], 1)], |t| attention_qkv(&t[0], 8, true));
    both_ways(c, "attention_qkv_full_1x1x1024x256", &[random(&[1, 1024, 768], 1)], |t| attention_qkv(&t[0], 1, false));
}

/// A position more after 63, through the body of the peers' RQ-Transformer.
fn decoders(c: &mut Criterion) {
    let pair = |outputs: usize, inputs: usize| {
        let weight = random(&[outputs, inputs], 1).mul_scalar(1.0 / (inputs as f32).sqrt()).expect("any shape fits");
        [weight, random(&[outputs], 2)]
    };
    let norm = || [random(&[256], 3), random(&[256], 4)];
    let block = || BlockWeights {
        norm1: norm(),
        qkv: pair(768, 256),
        proj: pair(256, 256),
        norm2: norm(),
        gate: None,
        expand: pair(1024, 256),
        contract: pair(256, 1024),
    };
    for (layers, batch) in [(6, 1), (6, 16), (6, 100), (2, 1), (2, 16), (2, 100)] {
        let blocks: Vec<BlockWeights> = (0..layers).map(|_| block()).collect();
        let mut decoder = Decoder::new(&blocks, 8, 1e-5, batch, 64).expect("fits");
        let [past, now] = [63, 1].map(|length| random(&[batch, length, 256], 1));
        c.bench_function(&format!("decoder_{layers}x{batch}"), |b| {
            b.iter_custom(|times| {
                let mut spent = Duration::ZERO;
                for _ in 0..times {
                    if decoder.len() == 64 {
                        decoder.clear();
                    }
                    if decoder.is_empty() {
                        decoder.step(&past).expect("fits");
                    }
                    let start = Instant::now();
                    black_box(decoder.step(&now).expect("fits"));
                    spent += start.elapsed();
                }
                spent
            });
        });
    }
}

fn codebooks(c: &mut Criterion) {
    for (rows, size, channels) in [(16384, 1024, 64), (16384, 256, 64), (2048, 16384, 256)] {
        let (x, e) = (random(&[rows, channels], 1), random(&[size, channels], 2));
        c.bench_function(&format!("nearest_{rows}x{size}x{channels}"), |b| b.iter(|| nearest(&x, &e).expect("fits")));
        let codes = Codes::from_vec(Rng::new(1, "codes", 0).below(rows, size as u32), &[rows]).expect("fits");
        let (counts, sums) = (Var::buffer(&Tensor::zeros(&[size])), Var::buffer(&e));
        c.bench_function(&format!("update_averages_{rows}x{size}x{channels}"), |b| {
            b.iter(|| update_averages(&x, &codes, 0.99, &counts, &sums).expect("fits"));
        });
    }
    let (x, e) = (random(&[16384, 64], 1), random(&[1024, 64], 2).mul_scalar(0.5).expect("fits"));
    let search = Search::new(&e).expect("fits");
    c.bench_function("residual_codes_16384x1024x64x4", |b| b.iter(|| residual_codes(&x, &[&search; 4]).expect("fits")));
}

criterion_group!(ops, products, convolutions, attentions, decoders, codebooks);
criterion_main!(ops);
