//! Loops over elements: functions of one element, and of two under broadcasting.

#![allow(unsafe_code)]

use crate::cpu::isa::simd;
use crate::cpu::{Output, buffer, buffers};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Elements a task works on at least: small enough to balance, large enough to hide the hand-over.
pub(crate) const GRAIN: usize = 1 << 14;

simd! {
    fn add_assign_chunk(target: &mut [f32], other: &[f32]) {
        for (t, o) in target.iter_mut().zip(other) {
            *t += o;
        }
    }
}

/// `target += other`, element by element.
pub(crate) fn add_assign(target: &mut [f32], other: &[f32]) {
    target.par_chunks_mut(GRAIN).zip(other.par_chunks(GRAIN)).for_each(|(t, o)| add_assign_chunk(t, o));
}

/// A function of one element. `value` must be `#[inline(always)]`.
pub(crate) trait Map: Copy + Send + Sync {
    fn value<const FUSED: bool>(self, x: f32) -> f32;
}

/// A function of two elements. `value` must be `#[inline(always)]`.
pub(crate) trait Zip: Copy + Send + Sync {
    fn value<const FUSED: bool>(self, x: f32, y: f32) -> f32;
}

simd! {
    fn map_chunk<'a, F: Map>(f: F, x: &[f32], out: Output<'a>) -> &'a mut [f32] {
        out.map(x, |x| f.value::<FUSED>(*x))
    }
}

/// `f(x)` of every element.
pub(crate) fn map<F: Map>(f: F, x: &[f32]) -> Vec<f32> {
    buffer(x.len(), |out| out.par_chunks(GRAIN, |i, out| map_chunk(f, &x[i * GRAIN..][..out.len()], out)))
}

/// A function of one element with its slope there. `both` must be `#[inline(always)]`.
pub(crate) trait Sloped: Copy + Send + Sync {
    fn both<const FUSED: bool>(self, x: f32) -> (f32, f32);
}

simd! {
    fn sloped_chunk<F: Sloped>(f: F, x: &[f32], out: &mut [MaybeUninit<f32>], slope: &mut [MaybeUninit<f32>]) {
        for ((x, o), s) in x.iter().zip(out).zip(slope) {
            let (value, slope) = f.both::<FUSED>(*x);
            o.write(value);
            s.write(slope);
        }
    }
}

/// `f(x)` and `f'(x)` of every element.
pub(crate) fn sloped<F: Sloped>(f: F, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let [out, slope] = buffers([x.len(); 2], |[out, slope]| {
        out.par_chunks_mut(GRAIN)
            .zip(slope.par_chunks_mut(GRAIN))
            .zip(x.par_chunks(GRAIN))
            .for_each(|((o, s), x)| sloped_chunk(f, x, o, s));
        // SAFETY: both were written for each element of `x`, of which there are as many.
        unsafe { [out.assume_init_mut(), slope.assume_init_mut()] }
    });
    (out, slope)
}

simd! {
    /// Turns x into `f(x)` in place and writes `f'(x)`, on this thread.
    pub(crate) fn sloped_in_place<F: Sloped>(f: F, x: &mut [f32], slope: &mut [MaybeUninit<f32>]) {
        for (x, s) in x.iter_mut().zip(slope) {
            let (value, slope) = f.both::<FUSED>(*x);
            *x = value;
            s.write(slope);
        }
    }
}

simd! {
    /// Turns x into `f(x)` in place, on this thread.
    pub(crate) fn map_in_place<F: Map>(f: F, x: &mut [f32]) {
        for x in x {
            *x = f.value::<FUSED>(*x);
        }
    }
}

simd! {
    fn update_chunk<F: Zip>(f: F, target: &mut [f32], other: &[f32]) {
        for (t, o) in target.iter_mut().zip(other) {
            *t = f.value::<FUSED>(*t, *o);
        }
    }
}

/// `target = f(target, other)`, element by element.
pub(crate) fn update<F: Zip>(f: F, target: &mut [f32], other: &[f32]) {
    target.par_chunks_mut(GRAIN).zip(other.par_chunks(GRAIN)).for_each(|(t, o)| update_chunk(f, t, o));
}

/// A broadcast output of two operands: its axes, as few as possible, and each operand's strides (0 where it is repeated).
/// There is at least one axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broadcast {
    pub(crate) shape: Vec<usize>,
    pub(crate) x: Vec<usize>,
    pub(crate) y: Vec<usize>,
}

impl Broadcast {
    /// That of operands of shapes `x` and `y` that broadcast to `out` (of at least their ranks).
    pub(crate) fn new(out: &[usize], x: &[usize], y: &[usize]) -> Self {
        let (x_strides, y_strides) = (broadcast_strides(out.len(), x), broadcast_strides(out.len(), y));
        let mut axes = Self { shape: vec![1], x: vec![0], y: vec![0] };
        for (axis, &size) in out.iter().enumerate() {
            if size == 1 {
                continue;
            }
            let (sx, sy) = (x_strides[axis], y_strides[axis]);
            let last = axes.shape.len() - 1;
            // An axis continues the one outside it if a step there equals `size` steps here, in both operands.
            if axes.shape[last] == 1 {
                (axes.shape[last], axes.x[last], axes.y[last]) = (size, sx, sy);
            } else if axes.x[last] == sx * size && axes.y[last] == sy * size {
                (axes.x[last], axes.y[last]) = (sx, sy);
                axes.shape[last] *= size;
            } else {
                axes.shape.push(size);
                axes.x.push(sx);
                axes.y.push(sy);
            }
        }
        axes
    }
}

/// Strides of `shape` seen from `rank` axes, 0 where an axis is repeated.
fn broadcast_strides(rank: usize, shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; rank];
    let mut stride = 1;
    for (s, &size) in strides.iter_mut().rev().zip(shape.iter().rev()) {
        if size != 1 {
            *s = stride;
        }
        stride *= size;
    }
    strides
}

simd! {
    fn zip_chunk<'a, F: Zip>(f: F, axes: &Broadcast, start: usize, x: &[f32], y: &[f32], out: Output<'a>) -> &'a mut [f32] {
        let mut out = out;
        let inner_axis = axes.shape.len() - 1;
        let inner = axes.shape[inner_axis];
        let (step_x, step_y) = (axes.x[inner_axis], axes.y[inner_axis]);
        let mut done = 0;
        while done < out.len() {
            // Where the row that holds this element starts in both operands.
            let (mut row, column) = ((start + done) / inner, (start + done) % inner);
            let (mut at_x, mut at_y) = (column * step_x, column * step_y);
            for axis in (0..inner_axis).rev() {
                let index = row % axes.shape[axis];
                row /= axes.shape[axis];
                at_x += index * axes.x[axis];
                at_y += index * axes.y[axis];
            }
            let n = (inner - column).min(out.len() - done);
            let o = out.part(done..done + n);
            match (step_x, step_y) {
                (1, 1) => o.zip(&x[at_x..at_x + n], &y[at_y..at_y + n], |x, y| f.value::<FUSED>(*x, *y)),
                (1, 0) => {
                    let y = y[at_y];
                    o.map(&x[at_x..at_x + n], |x| f.value::<FUSED>(*x, y))
                }
                (0, 1) => {
                    let x = x[at_x];
                    o.map(&y[at_y..at_y + n], |y| f.value::<FUSED>(x, *y))
                }
                _ => o.by_index(|i| f.value::<FUSED>(x[at_x + i * step_x], y[at_y + i * step_y])),
            };
            done += n;
        }
        // SAFETY: all parts were written.
        unsafe { out.written() }
    }
}

/// `f(x, y)` for every element of the broadcast output.
pub(crate) fn zip<F: Zip>(f: F, axes: &Broadcast, x: &[f32], y: &[f32]) -> Vec<f32> {
    let len = axes.shape.iter().product();
    buffer(len, |out| out.par_chunks(GRAIN, |i, out| zip_chunk(f, axes, i * GRAIN, x, y, out)))
}
