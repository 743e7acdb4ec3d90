//! Algorithms on blocks of channels, for tensors that lie otherwise: some images at a time are copied to blocks in scratch memory, and
//! results back.
//!
//! A copy moves a tensor at the speed of the cache that holds it, and what a kernel does in blocks it does in a half to two thirds of the
//! time that it takes along planes. On a Zen 3, one thread, milliseconds: a 1x1 convolution of 256 to 64 channels at 56x56 took 1.9 in
//! NCHW; it takes 1.07 in blocks, and the copies take 0.13 and 0.03.

use swath_kernels::epilogue::{Epilogue, Outputs};
use swath_kernels::exec::Executor;
use swath_kernels::isa::Level;
use swath_kernels::layout::Layout;
use swath_kernels::machine::Core;
use swath_kernels::pass::Place;
use swath_kernels::reorder::{reorder, reorder_to};
use swath_kernels::shape::ConvShape;

use super::{Planned, Request};

/// Floats of the two tensors, as blocks, of the images that are copied at once: 16 MiB stay in a last cache, and hold work for many threads.
const MOST: usize = 1 << 22;

/// Milliseconds that copying a million floats of blocks takes.
const COPY_MS: f64 = 0.16;

/// A kernel for some images, and which of its two tensors it takes in blocks.
#[derive(Clone, Debug)]
pub(super) struct InBlocks<K> {
    kernel: K,
    level: Level,
    /// Times that it runs.
    chunks: usize,
    /// In the order of the convolution's: input, output.
    sides: [Side; 2],
    /// Floats of the gradients at weights and bias.
    gradients: usize,
}

/// One of the two tensors, of the images that are copied at once.
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

    /// Chunk `i`, as the kernel reads it.
    fn read<'a>(&self, place: &Place<'_>, i: usize, all: &'a [f32], copy: &'a mut [f32]) -> &'a [f32] {
        let given = &all[i * self.given()..][..self.given()];
        if !self.copied {
            return given;
        }
        reorder(place, self.layout, given, Layout::Blocked, copy, self.dims);
        copy
    }
}

/// Plans for tensors without gaps, of which `copied` ones are taken in blocks.
///
/// # Errors
/// The kernel's.
pub(super) fn in_blocks<K: Planned>(
    r: &Request<'_>,
    copied: [bool; 2],
    plan: impl FnOnce(&Request<'_>) -> Result<K, String>,
) -> Result<InBlocks<K>, String> {
    in_blocks_of(MOST, r, copied, plan)
}

/// The same with at most so many floats at once, or one image.
fn in_blocks_of<K: Planned>(
    most: usize,
    r: &Request<'_>,
    copied: [bool; 2],
    plan: impl FnOnce(&Request<'_>) -> Result<K, String>,
) -> Result<InBlocks<K>, String> {
    debug_assert!(r.is_dense(), "tensors with gaps are not copied");
    let layouts = r.layouts();
    let inner: [Layout; 2] = core::array::from_fn(|i| if copied[i] { Layout::Blocked } else { layouts[i] });
    // As many images as fit, that the batch is a multiple of.
    let n = r.shape.n;
    let image = Layout::Blocked
        .len([1, r.shape.ic, r.shape.ih, r.shape.iw])
        .saturating_add(Layout::Blocked.len([1, r.shape.oc, r.shape.oh, r.shape.ow]));
    let fit = (most / image.max(1)).clamp(1, n.max(1));
    let images = (1..=fit).rev().find(|&k| n.is_multiple_of(k)).unwrap_or(1).min(n);
    let shape = of_batch(r.shape, images);
    let kernel = plan(&Request::dense(&shape, r.core, inner, r.accuracy))?;
    let dims = [shape.input(), shape.output()];
    let sides = core::array::from_fn(|i| Side { dims: dims[i], layout: layouts[i], copied: copied[i] });
    let (chunks, gradients) =
        (n.checked_div(images).unwrap_or(1), shape.weights().iter().product::<usize>() + shape.oc);
    Ok(InBlocks { kernel, level: r.core.level, chunks, sides, gradients })
}

/// The same convolution of no more images.
fn of_batch(shape: &ConvShape, n: usize) -> ConvShape {
    shape.with_batch(n).expect("fewer images overflow nothing")
}

impl<K: Planned> InBlocks<K> {
    /// What runs.
    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    /// The convolution that it was planned for, of `shape`'s batch.
    pub fn shape(&self, shape: &ConvShape) -> ConvShape {
        of_batch(shape, self.sides[0].dims[0])
    }

    /// Predicted milliseconds for `shape`'s batch: the kernel's, and those of copying.
    pub fn predict(&self, algo: &'static str, core: Core, shape: &ConvShape) -> f64 {
        let floats: usize = self.sides.iter().map(Side::copy).sum();
        self.chunks as f64 * (self.kernel.predict(algo, core, &self.shape(shape)) + COPY_MS * floats as f64 / 1e6)
    }
}

/// A kernel that makes a tensor of a tensor and packed weights.
pub(super) trait Runs: Planned {
    /// Number of the tensor that it reads; the other one is written.
    const READS: usize;

    fn scratch_len(&self, threads: usize) -> usize;

    fn run<'y>(
        &self,
        x: &[f32],
        packed: &[f32],
        epilogue: &Epilogue<'_>,
        y: Outputs<'y>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) -> &'y mut [f32];
}

impl<K: Runs> InBlocks<K> {
    /// Floats of scratch for a number of threads: both copies, and one of what is added to the outputs.
    pub fn scratch_len(&self, threads: usize) -> usize {
        let (input, output) = self.directed();
        Runs::scratch_len(&self.kernel, threads).saturating_add(input.copy() + 2 * output.copy())
    }

    /// What is read, and what is written.
    fn directed(&self) -> (&Side, &Side) {
        (&self.sides[K::READS], &self.sides[1 - K::READS])
    }

    /// Chunk by chunk, as the kernel runs.
    pub fn run<'y>(
        &self,
        x: &[f32],
        packed: &[f32],
        epilogue: &Epilogue<'_>,
        y: Outputs<'y>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) -> &'y mut [f32] {
        let place = Place::new(self.level, executor);
        let (input, output) = self.directed();
        let (x_copy, rest) = scratch.split_at_mut(input.copy());
        let (y_copy, rest) = rest.split_at_mut(output.copy());
        let (added, scratch) = rest.split_at_mut(output.copy());
        y.by_chunks(output.given().max(1), |i, y| {
            let x = input.read(&place, i, x, x_copy);
            let residual = epilogue.residual.map(|r| output.read(&place, i, r, added));
            let epilogue = Epilogue { residual, ..*epilogue };
            if !output.copied {
                return self.kernel.run(x, packed, &epilogue, y, scratch, executor);
            }
            self.kernel.run(x, packed, &epilogue, (&mut *y_copy).into(), scratch, executor);
            reorder_to(&place, Layout::Blocked, y_copy, output.layout, y, output.dims)
        })
    }
}

/// A kernel that sums over the pixels of two tensors.
pub(super) trait Sums: Planned {
    fn scratch_len(&self, threads: usize) -> usize;

    fn sum<'w>(
        &self,
        tensors: [&[f32]; 2],
        dw: Outputs<'w>,
        db: Option<&mut [f32]>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) -> &'w mut [f32];
}

impl<K: Sums> InBlocks<K> {
    /// Floats of scratch for a number of threads: both copies, and the sums of some images.
    pub fn sum_scratch_len(&self, threads: usize) -> usize {
        let [a, b] = self.sides.map(|side| side.copy());
        Sums::scratch_len(&self.kernel, threads).saturating_add(a + b + self.sums())
    }

    /// Floats of the sums of all images but the first.
    fn sums(&self) -> usize {
        if self.chunks > 1 { self.gradients } else { 0 }
    }

    /// The sums over all images: over the first ones', to which those of the next are added.
    pub fn sum<'w>(
        &self,
        [x, dy]: [&[f32]; 2],
        dw: Outputs<'w>,
        mut db: Option<&mut [f32]>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) -> &'w mut [f32] {
        let place = Place::new(self.level, executor);
        let [input, output] = &self.sides;
        let (x_copy, rest) = scratch.split_at_mut(input.copy());
        let (dy_copy, rest) = rest.split_at_mut(output.copy());
        let (sums, scratch) = rest.split_at_mut(self.sums());
        let (of_x, of_dy) = (input.read(&place, 0, x, x_copy), output.read(&place, 0, dy, dy_copy));
        let dw = self.kernel.sum([of_x, of_dy], dw, db.as_deref_mut(), scratch, executor);
        for i in 1..self.chunks {
            let (of_x, of_dy) = (input.read(&place, i, x, x_copy), output.read(&place, i, dy, dy_copy));
            let (next, next_bias) = sums.split_at_mut(dw.len());
            let wanted = db.is_some().then_some(&mut *next_bias);
            add(dw, self.kernel.sum([of_x, of_dy], next.into(), wanted, scratch, executor));
            if let Some(db) = db.as_deref_mut() {
                add(db, next_bias);
            }
        }
        dw
    }
}

fn add(sums: &mut [f32], next: &[f32]) {
    sums.iter_mut().zip(next).for_each(|(sum, next)| *sum += next);
}

#[cfg(test)]
mod tests {
    use swath_kernels::exec::Inline;
    use swath_kernels::weights::Weights;

    use super::super::gradient::{phases, pixel_sums};
    use super::super::{Accuracy, Packs, direct};
    use super::*;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 17) as f32 - 8.0).collect()
    }

    /// Integers, so that no order of a sum changes it.
    #[test]
    fn images_together_or_one_by_one_give_the_same() {
        let shape = ConvShape::builder([6, 20, 9, 7], [24, 20, 3, 3]).padding(1).stride(2).build().unwrap();
        let request = Request::dense(&shape, Core::here(Level::Scalar), [Layout::Nchw; 2], Accuracy::Exact);
        let [x, y] = [shape.input(), shape.output()].map(|dims| dims.iter().product::<usize>());
        let (x, dy, w) = (numbers(x, 1), numbers(y, 2), numbers(24 * 20 * 9, 3));
        let results = [1, 6000, usize::MAX].map(|most| {
            let forward = in_blocks_of(most, &request, [true; 2], direct).unwrap();
            let data = in_blocks_of(most, &request, [true; 2], phases).unwrap();
            let sums = in_blocks_of(most, &request, [true; 2], pixel_sums).unwrap();
            let mut scratch = vec![f32::NAN; 1 << 20];
            let mut packed = vec![0.0; forward.kernel.packed_len()];
            forward.kernel.pack(&Weights::forward(&shape, &w), &mut packed, &Inline);
            let mut y = vec![f32::NAN; dy.len()];
            let epilogue = Epilogue { residual: Some(&dy), ..Epilogue::none() }.relu();
            let len = forward.scratch_len(1);
            forward.run(&x, &packed, &epilogue, (&mut y[..]).into(), &mut scratch[..len], &Inline);
            let mut packed = vec![0.0; data.kernel.packed_len()];
            data.kernel.pack_weights(&data.shape(&shape), &w, &mut packed, &Inline);
            let mut dx = vec![f32::NAN; x.len()];
            let len = data.scratch_len(1);
            data.run(&dy, &packed, &Epilogue::none(), (&mut dx[..]).into(), &mut scratch[..len], &Inline);
            let (mut dw, mut db) = (vec![f32::NAN; w.len()], vec![f32::NAN; 24]);
            let len = sums.sum_scratch_len(1);
            sums.sum([&x, &dy], (&mut dw[..]).into(), Some(&mut db), &mut scratch[..len], &Inline);
            (forward.chunks, [y, dx, dw, db])
        });
        assert_eq!(results.each_ref().map(|(chunks, _)| *chunks), [6, 3, 1]);
        for (_, result) in &results {
            assert!(result == &results[2].1 && result.iter().flatten().all(|v| v.is_finite()));
        }
        let db: f32 = dy.chunks(24 * 5 * 4).map(|image| image[..20].iter().sum::<f32>()).sum();
        assert_eq!(results[0].1[3][0], db);
    }
}
