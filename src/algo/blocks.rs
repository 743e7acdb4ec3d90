//! Algorithms on blocks of channels, for tensors that lie otherwise: some images at a time are copied to blocks in scratch memory, and
//! results back.
//!
//! A copy moves a tensor at the speed of the cache that holds it, and what a kernel does in blocks it does in a half to two thirds of the
//! time that it takes along planes. On a Zen 3, one thread, milliseconds: a 1x1 convolution of 256 to 64 channels at 56x56 took 1.9 in
//! NCHW; it takes 1.07 in blocks, and the copies take 0.13 and 0.03.

use core::fmt::Debug;
use std::sync::Arc;

use swath_kernels::epilogue::{Epilogue, Outputs};
use swath_kernels::exec::Executor;
use swath_kernels::finite::FiniteRange;
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::machine::Core;
use swath_kernels::pass::Place;
use swath_kernels::reorder::{reorder, reorder_to};
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::Weights;

use super::cost::{Cores, Work};
use super::kernel::{Convolution, Planning, Run, Sum, WeightGradient};
use super::request::Request;

/// Floats of the two tensors, as blocks, of the images that are copied at once: 16 MiB stay in a last cache, and hold work for many threads.
const MOST: usize = 1 << 22;

/// Floats of both copies of one image from which memory counts more than time: 256 MiB. What can be read and written in planes is.
const LARGE: usize = 1 << 26;

/// Milliseconds that copying a million floats of blocks takes.
fn copy_ms(core: Core) -> f64 {
    match Cores::of(core) {
        Cores::Avx512Wide => 0.12,
        Cores::Scalar | Cores::Neon | Cores::Avx2 | Cores::Avx512 | Cores::Avx512Amx => 0.16,
    }
}

/// A kernel for some images, and which of its two tensors it takes in blocks.
#[derive(Debug)]
struct InBlocks<K: ?Sized> {
    kernel: Arc<K>,
    level: Level,
    /// What the kernel was planned for.
    shape: ConvShape,
    /// Times that it runs.
    chunks: usize,
    /// What runs at last, for the images that are left, if they are fewer, and what it was planned for.
    rest: Option<(Arc<K>, ConvShape)>,
    /// In the order of the convolution's: input, output.
    sides: [Side; 2],
}

/// One of the two tensors, of the images that are copied at once, or fewer.
#[derive(Clone, Copy, Debug)]
struct Side {
    dims: [usize; 4],
    layout: Layout,
    copied: bool,
}

impl Side {
    /// Floats as the caller holds it.
    fn given(&self) -> usize {
        self.layout.len(self.dims)
    }

    /// Floats of its copy.
    fn copy(&self) -> usize {
        if self.copied { Layout::Blocked.len(self.dims) } else { 0 }
    }

    /// Chunk `i`, of this one's images or of those that are left, as the kernel reads it.
    fn read<'a>(&self, place: &Place<'_>, i: usize, all: &'a [f32], copy: &'a mut [f32]) -> &'a [f32] {
        let given = &all[i * self.given()..];
        let given = &given[..self.given().min(given.len())];
        if !self.copied {
            return given;
        }
        let dims = self.dims_of(given.len());
        let copy = &mut copy[..Layout::Blocked.len(dims)];
        reorder(place, self.layout, given, Layout::Blocked, copy, dims);
        copy
    }

    /// The extents of so many floats.
    fn dims_of(&self, given: usize) -> [usize; 4] {
        let [n, c, h, w] = self.dims;
        [(n * given).checked_div(self.given()).unwrap_or(n), c, h, w]
    }
}

/// Plans a convolution by `plan` for tensors of which the `copied` ones are taken in blocks, where all lie without gaps.
///
/// # Errors
/// Those of `plan`.
pub(super) fn forward(
    r: &Request<'_>,
    copied: [bool; 2],
    plan: impl Fn(&Request<'_>) -> Planning<dyn Convolution>,
) -> Planning<dyn Convolution> {
    copying(r, copied, plan, |inner| Arc::new(Copying { inner, reads: 0 }))
}

/// The same for a data gradient.
pub(super) fn data(
    r: &Request<'_>,
    copied: [bool; 2],
    plan: impl Fn(&Request<'_>) -> Planning<dyn Convolution>,
) -> Planning<dyn Convolution> {
    copying(r, copied, plan, |inner| Arc::new(Copying { inner, reads: 1 }))
}

/// The same for a weight gradient.
pub(super) fn weights(
    r: &Request<'_>,
    copied: [bool; 2],
    plan: impl Fn(&Request<'_>) -> Planning<dyn WeightGradient>,
) -> Planning<dyn WeightGradient> {
    copying(r, copied, plan, |inner| Arc::new(inner))
}

fn copying<K: ?Sized>(
    r: &Request<'_>,
    copied: [bool; 2],
    plan: impl Fn(&Request<'_>) -> Planning<K>,
    copies: impl Fn(InBlocks<K>) -> Arc<K>,
) -> Planning<K> {
    if copied == [false; 2] {
        return plan(r);
    }
    let in_blocks = || of_at_most(MOST, r, copied, &plan).map(&copies);
    if r.is_dense() {
        let as_it_lies = if floats_of_image(r.shape) > LARGE { plan(r).ok() } else { None };
        return as_it_lies.map_or_else(in_blocks, Ok);
    }
    plan(r).map_err(|why| if in_blocks().is_ok() { "takes what lies without gaps".into() } else { why })
}

/// Floats of an image's input and output in blocks.
fn floats_of_image(s: &ConvShape) -> usize {
    let both = [[1, s.ic, s.ih, s.iw], [1, s.oc, s.oh, s.ow]].map(|dims| Layout::Blocked.len(dims));
    both[0].saturating_add(both[1])
}

/// With at most so many floats at once, or one image.
fn of_at_most<K: ?Sized>(
    most: usize,
    r: &Request<'_>,
    copied: [bool; 2],
    plan: impl Fn(&Request<'_>) -> Planning<K>,
) -> Result<InBlocks<K>, String> {
    let layouts = r.layouts();
    let inner: [Layout; 2] = core::array::from_fn(|i| if copied[i] { Layout::Blocked } else { layouts[i] });
    let n = r.shape.n;
    // As many as fit, or a few less, so that all chunks are about as large.
    let fit = (most / floats_of_image(r.shape).max(1)).clamp(1, n.max(1));
    let images = n.div_ceil(n.div_ceil(fit).max(1));
    let of = |images| {
        let shape = r.shape.with_batch(images).expect("fewer images overflow nothing");
        Ok::<_, String>((plan(&Request::dense(&shape, r.core, inner, r.accuracy))?, shape))
    };
    let (kernel, shape) = of(images)?;
    let rest = match n.checked_rem(images) {
        Some(rest) if rest > 0 => Some(of(rest)?),
        _ => None,
    };
    let dims = [shape.input(), shape.output()];
    let sides = core::array::from_fn(|i| Side { dims: dims[i], layout: layouts[i], copied: copied[i] });
    Ok(InBlocks { kernel, level: r.core.level, shape, chunks: n.checked_div(images).unwrap_or(1), rest, sides })
}

impl<K: ?Sized> InBlocks<K> {
    /// Floats of both copies.
    fn copies(&self) -> usize {
        self.sides.iter().map(Side::copy).sum()
    }

    /// How many runs there are.
    fn times(&self) -> usize {
        self.chunks + usize::from(self.rest.is_some())
    }

    /// All runs: each kernel, the convolution of its images, and how often.
    fn runs(&self) -> impl Iterator<Item = (&K, &ConvShape, f64)> {
        let rest = self.rest.as_ref().map(|(kernel, shape)| (&**kernel, shape, 1.0));
        core::iter::once((&*self.kernel, &self.shape, self.chunks as f64)).chain(rest)
    }

    /// The kernel of chunk `i`.
    fn kernel(&self, i: usize) -> &K {
        self.rest.as_ref().filter(|_| i == self.chunks).map_or(&self.kernel, |(rest, _)| rest)
    }

    /// The sum over all runs of what a kernel does of its images.
    fn work(&self, work: impl Fn(&K, &ConvShape) -> Work) -> Work {
        self.runs().map(|(k, shape, times)| work(k, shape).times(times)).reduce(Work::plus).expect("there is a run")
    }

    /// Predicted milliseconds: those that kernels take of their images, and copies.
    fn predicted(&self, core: Core, kernel: impl Fn(&K, &ConvShape) -> f64) -> f64 {
        let copies = copy_ms(core) * self.copies() as f64 / 1e6 / self.shape.n.max(1) as f64;
        self.runs().map(|(k, shape, times)| times * (kernel(k, shape) + copies * shape.n as f64)).sum()
    }

    /// The most of their scratch.
    fn most(&self, scratch: impl Fn(&K) -> usize) -> usize {
        self.runs().map(|(k, ..)| scratch(k)).max().expect("there is a run")
    }
}

/// A [`Convolution`], and the number of the tensor that it reads; the other one is written.
#[derive(Debug)]
struct Copying {
    inner: InBlocks<dyn Convolution>,
    reads: usize,
}

impl Copying {
    /// What is read, and what is written.
    fn directed(&self) -> [&Side; 2] {
        [&self.inner.sides[self.reads], &self.inner.sides[1 - self.reads]]
    }
}

impl Convolution for Copying {
    fn name(&self) -> &'static str {
        self.inner.kernel.name()
    }

    fn packed_len(&self) -> usize {
        self.inner.kernel.packed_len()
    }

    /// Both copies, and one of what is added to the outputs.
    fn scratch_len(&self, threads: usize) -> usize {
        let [_, output] = self.directed();
        self.inner.most(|k| k.scratch_len(threads)).saturating_add(self.inner.copies() + output.copy())
    }

    fn pack(&self, w: &Weights<'_>, packed: &mut [f32], executor: &dyn Executor) {
        self.inner.kernel.pack(w, packed, executor);
    }

    /// Chunk by chunk, as the kernel runs.
    fn run<'y>(&self, run: Run<'_>, y: Outputs<'y>) -> &'y mut [f32] {
        let Run { x, packed, epilogue, scratch, executor } = run;
        let place = Place::new(self.inner.level, executor);
        let [input, output] = self.directed();
        let (x_copy, rest) = scratch.split_at_mut(input.copy());
        let (y_copy, rest) = rest.split_at_mut(output.copy());
        let (added, scratch) = rest.split_at_mut(output.copy());
        y.by_chunks(output.given().max(1), |i, y| {
            let (kernel, x) = (self.inner.kernel(i), input.read(&place, i, x, x_copy));
            let residual = epilogue.residual.map(|r| output.read(&place, i, r, added));
            let epilogue = &Epilogue { residual, ..*epilogue };
            let run = Run { x, packed, epilogue, scratch: &mut *scratch, executor };
            if !output.copied {
                return kernel.run(run, y);
            }
            let dims = output.dims_of(y.len());
            let y_copy = kernel.run(run, (&mut y_copy[..Layout::Blocked.len(dims)]).into());
            reorder_to(&place, Layout::Blocked, y_copy, output.layout, y, dims)
        })
    }

    /// That of the kernel, all images together.
    fn work(&self, core: Core, _: &ConvShape) -> Work {
        self.inner.work(|k, shape| k.work(core, shape))
    }

    fn predict(&self, algo: &'static str, core: Core, _: &ConvShape) -> f64 {
        self.inner.predicted(core, |k, shape| k.predict(algo, core, shape))
    }

    fn finite_range(&self) -> FiniteRange {
        self.inner.kernel.finite_range()
    }
}

impl InBlocks<dyn WeightGradient> {
    /// Chunk `i` of both tensors, as the kernel reads them.
    fn read<'a>(&self, place: &Place<'_>, i: usize, [x, dy]: [&'a [f32]; 2], copies: &'a mut [f32]) -> [&'a [f32]; 2] {
        let [input, output] = &self.sides;
        let (x_copy, dy_copy) = copies.split_at_mut(input.copy());
        [input.read(place, i, x, x_copy), output.read(place, i, dy, dy_copy)]
    }

    /// Floats of the sums of all images but the first: the gradients at weights and bias.
    fn sums(&self) -> usize {
        if self.times() > 1 { self.shape.weights().iter().product::<usize>() + self.shape.oc } else { 0 }
    }
}

impl WeightGradient for InBlocks<dyn WeightGradient> {
    fn name(&self) -> &'static str {
        self.kernel.name()
    }

    /// Both copies, and the sums of some images.
    fn scratch_len(&self, threads: usize) -> usize {
        self.most(|k| k.scratch_len(threads)).saturating_add(self.copies() + self.sums())
    }

    /// The sums over all images: over the first ones', to which those of the next are added.
    fn run<'w>(&self, sum: Sum<'_>, dw: Outputs<'w>) -> &'w mut [f32] {
        let Sum { tensors: [x, dy], mut db, scratch, executor } = sum;
        let place = Place::new(self.level, executor);
        let (copies, rest) = scratch.split_at_mut(self.copies());
        let (sums, scratch) = rest.split_at_mut(self.sums());
        let tensors = self.read(&place, 0, [x, dy], copies);
        let dw = self.kernel.run(Sum { tensors, db: db.as_deref_mut(), scratch, executor }, dw);
        for i in 1..self.times() {
            let (next, next_bias) = sums.split_at_mut(dw.len());
            let wanted = db.is_some().then_some(&mut *next_bias);
            let tensors = self.read(&place, i, [x, dy], copies);
            add(dw, self.kernel(i).run(Sum { tensors, db: wanted, scratch, executor }, next.into()));
            if let Some(db) = db.as_deref_mut() {
                add(db, next_bias);
            }
        }
        dw
    }

    /// That of the kernel, all images together.
    fn work(&self, core: Core, _: &ConvShape) -> Work {
        self.work(|k, shape| k.work(core, shape))
    }

    fn predict(&self, algo: &'static str, core: Core, _: &ConvShape) -> f64 {
        // Sums of all runs but the first are added to those of the first.
        let sums = copy_ms(core) * self.sums() as f64 / 1e6 * (self.times() - 1) as f64;
        self.predicted(core, |k, shape| k.predict(algo, core, shape)) + sums
    }
}

fn add(sums: &mut [f32], next: &[f32]) {
    sums.iter_mut().zip(next).for_each(|(sum, next)| *sum += next);
}

#[cfg(test)]
mod tests {
    use swath_kernels::exec::Inline;

    use swath_kernels::winograd::Variant;

    use super::super::request::Accuracy;
    use super::super::{direct, winograd};
    use super::*;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 17) as f32 - 8.0).collect()
    }

    /// Packs weights `w` of `shape`, and runs.
    fn made(
        kernel: &dyn Convolution,
        shape: &ConvShape,
        w: &[f32],
        x: &[f32],
        epilogue: Epilogue<'_>,
        len: usize,
    ) -> Vec<f32> {
        let (mut packed, mut y) = (vec![f32::NAN; kernel.packed_len()], vec![f32::NAN; len]);
        let scratch = &mut vec![f32::NAN; kernel.scratch_len(1)];
        kernel.pack(&Weights::forward(shape, w), &mut packed, &Inline);
        let run = Run { x, packed: &packed, epilogue: &epilogue, scratch, executor: &Inline };
        kernel.run(run, (&mut y[..]).into());
        y
    }

    /// Integers, so that no order of a sum changes it.
    #[test]
    fn images_together_or_one_by_one_give_the_same() {
        let shape = ConvShape::builder([7, 20, 9, 7], [24, 20, 3, 3]).padding(1).stride(2).build().unwrap();
        let request = Request::dense(&shape, Core::here(Level::Scalar), [Layout::Nchw; 2], Accuracy::Exact);
        let [x, y] = [shape.input(), shape.output()].map(|dims| dims.iter().product::<usize>());
        let (x, dy, w) = (numbers(x, 1), numbers(y, 2), numbers(24 * 20 * 9, 3));
        let results = [1, 6000, 13_000, usize::MAX].map(|most| {
            let forward = Copying { inner: of_at_most(most, &request, [true; 2], direct::forward).unwrap(), reads: 0 };
            let data = Copying { inner: of_at_most(most, &request, [true; 2], direct::data).unwrap(), reads: 1 };
            let sums = of_at_most(most, &request, [true; 2], direct::weights).unwrap();
            let epilogue = Epilogue { residual: Some(&dy), ..Epilogue::none() }.relu();
            let y = made(&forward, &shape, &w, &x, epilogue, dy.len());
            let dx = made(&data, &shape, &w, &dy, Epilogue::none(), x.len());
            let (mut dw, mut db) = (vec![f32::NAN; w.len()], vec![f32::NAN; 24]);
            let scratch = &mut vec![f32::NAN; sums.scratch_len(1)];
            let sum = Sum { tensors: [&x, &dy], db: Some(&mut db), scratch, executor: &Inline };
            sums.run(sum, (&mut dw[..]).into());
            ((forward.inner.chunks, forward.inner.rest.is_some()), [y, dx, dw, db])
        });
        let cuts = results.each_ref().map(|(cut, _)| *cut);
        assert_eq!(cuts, [(7, false), (3, true), (1, true), (1, false)]);
        for (_, result) in &results {
            assert!(result == &results[3].1 && result.iter().flatten().all(|v| v.is_finite()));
        }
        let db: f32 = dy.chunks(24 * 5 * 4).map(|image| image[..20].iter().sum::<f32>()).sum();
        assert_eq!(results[0].1[3][0], db);
    }

    /// Planned alone: nothing of that size is made.
    #[test]
    fn huge_images_stay_in_planes() {
        let planned = |size, plan: fn(&Request<'_>) -> Planning<dyn Convolution>| {
            let shape = ConvShape::builder([1, 16, size, size], [16, 16, 3, 3]).padding(1).build().unwrap();
            plan(&Request::dense(&shape, Core::here(Level::Scalar), [Layout::Nchw; 2], Accuracy::Default)).unwrap()
        };
        let winograd: fn(&Request<'_>) -> _ = |r| winograd::forward(r, Variant::F4);
        let copies = |size: usize| 2 * 16 * size * size;
        assert!(planned(1000, winograd).scratch_len(1) > copies(1000));
        assert!(planned(1500, winograd).scratch_len(1) < copies(1500) / 2);
        // It does not read planes.
        assert!(planned(1500, direct::forward).scratch_len(1) > copies(1500));
    }
}
