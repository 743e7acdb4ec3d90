//! Plans of matrix products.

use swath_kernels::exec::{Executor, Inline, for_each_piece_and_scratch};
use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout};
use swath_kernels::shape::ConvShape;
use swath_kernels::weights::{Taps, Weights};

use super::{Choice, Epilogue, Options, Scratch};
use crate::algo::{Kernel, Packs, Run};
use crate::error::{Result, check_len};
use crate::par;

/// A planned product of matrices `c = a b`, or of many of the same extents: `a` is `[m, k]`, `b` is `[k, n]`, `c` is `[m, n]`, all
/// row-major.
///
/// Neither matrix is known when the plan is made, so `b` is packed in each run; where it is known, a 1x1 convolution in NHWC
/// packs it once. The rows of `a` are the pixels of that convolution, so that its kernels are these.
///
/// ```
/// use swath::{MatMul, Options, Scratch};
/// let plan = MatMul::new([2, 3, 1], &Options::default())?;
/// let (mut c, mut scratch) = ([0.0; 2], Scratch::new());
/// plan.run(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[1.0, 0.0, -1.0], &mut c, &mut scratch)?;
/// assert_eq!(c, [-2.0, -2.0]);
///
/// // Two left matrices by one right one.
/// let (a, mut c) = ([1.0; 12], [0.0; 4]);
/// plan.run_many(&[[0, 0], [1, 0]], &a, &[1.0, 2.0, 3.0], &mut c, &mut scratch)?;
/// assert_eq!(c, [6.0; 4]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MatMul {
    extents: [usize; 3],
    transposed: bool,
    /// The options, for products without elements, which have no convolution.
    threads: Option<usize>,
    conv: Option<Choice<Kernel>>,
}

impl MatMul {
    /// Plans products of these extents `[m, k, n]`. Of the options, the layouts have no meaning.
    ///
    /// # Errors
    /// For matrices that are larger than a tensor may be, a level that this machine lacks, and an algorithm that is unknown or computes
    /// no 1x1 convolution in NHWC.
    pub fn new([m, k, n]: [usize; 3], options: &Options) -> Result<Self> {
        let options = Options { input: Layout::Nhwc, output: Layout::Nhwc, ..options.clone() };
        super::dense_level(&options)?;
        let conv = match [m, k, n].contains(&0) {
            true => None,
            false => Some(Choice::new(&ConvShape::builder([1, k, 1, m], [n, k, 1, 1]).build()?, &options)?),
        };
        Ok(Self { extents: [m, k, n], transposed: false, threads: options.threads, conv })
    }

    /// The same plan for right matrices that lie transposed, as `[n, k]`.
    ///
    /// ```
    /// use swath::{MatMul, Options, Scratch};
    /// let plan = MatMul::new([1, 2, 2], &Options::default())?.transposed_b();
    /// let mut c = [0.0; 2];
    /// plan.run(&[1.0, 10.0], &[1.0, 2.0, 3.0, 4.0], &mut c, &mut Scratch::new())?;
    /// assert_eq!(c, [21.0, 43.0]);
    /// # Ok::<(), swath::Error>(())
    /// ```
    #[must_use]
    pub fn transposed_b(self) -> Self {
        Self { transposed: true, ..self }
    }

    /// `[m, k, n]`.
    pub fn extents(&self) -> [usize; 3] {
        self.extents
    }

    /// Name of the chosen algorithm, from [`ALGOS`](crate::algo::ALGOS); `zeros` for products without terms.
    pub fn algo(&self) -> &'static str {
        self.conv.as_ref().map_or("zeros", |c| c.algo)
    }

    /// The instruction-set level; none for products without terms.
    pub fn level(&self) -> Option<Level> {
        self.conv.as_ref().map(|c| c.core.level)
    }

    /// Floats of scratch that a run of so many products takes on `threads` threads.
    pub fn scratch_len(&self, products: usize, threads: usize) -> usize {
        match products {
            0 => 0,
            _ if products >= threads => self.of_one(1) * threads,
            _ => self.of_one(threads),
        }
    }

    /// Floats for one product: its packed matrix, and what the kernel takes.
    fn of_one(&self, threads: usize) -> usize {
        self.conv.as_ref().map_or(0, |c| c.kernel.packed_len() + c.kernel.scratch_len(threads)).next_multiple_of(BLOCK)
    }

    /// One product.
    ///
    /// # Errors
    /// For wrong lengths, and [`Error::Memory`](crate::Error::Memory) where the scratch has to grow and cannot.
    pub fn run(&self, a: &[f32], b: &[f32], c: &mut [f32], scratch: &mut Scratch) -> Result<()> {
        let [m, k, n] = self.extents;
        check_len("the left matrix", a.len(), m.saturating_mul(k))?;
        check_len("the right matrix", b.len(), k.saturating_mul(n))?;
        self.run_many(&[[0, 0]], a, b, c, scratch)
    }

    /// A product for each of `pairs`, which name a matrix of `a` and one of `b`: matrix `i` of `c` is what pair `i` makes. The matrices of
    /// each slice lie one behind the other.
    ///
    /// Threads share out the products, or each of them where there are fewer. The result is the same bits for any number of threads.
    ///
    /// # Errors
    /// As [`MatMul::run`], and for pairs that name matrices behind the ends.
    pub fn run_many(
        &self,
        pairs: &[[usize; 2]],
        a: &[f32],
        b: &[f32],
        c: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let [m, k, n] = self.extents;
        check_len("the product", c.len(), pairs.len().saturating_mul(m.saturating_mul(n)))?;
        let named = |side: usize| pairs.iter().map(|p| p[side].saturating_add(1)).max().unwrap_or(0);
        check_at_least("the block of left matrices", a.len(), named(0).saturating_mul(m.saturating_mul(k)))?;
        check_at_least("the block of right matrices", b.len(), named(1).saturating_mul(k.saturating_mul(n)))?;
        let Some(conv) = &self.conv else {
            c.fill(0.0);
            return Ok(());
        };
        let product = |[left, right]: [usize; 2], c: &mut [f32], scratch: &mut [f32], executor: &dyn Executor| {
            let (packed, scratch) = scratch.split_at_mut(conv.kernel.packed_len());
            conv.kernel.pack(&self.weights(&conv.shape, &b[right * k * n..][..k * n]), packed, executor);
            let (x, epilogue) = (&a[left * m * k..][..m * k], &Epilogue::none());
            conv.kernel.run(Run { x, packed, epilogue, scratch, executor }, c.into());
        };
        let executor = par::executor(self.threads, conv.predicted * pairs.len() as f64);
        let threads = executor.threads();
        let scratch = scratch.take(self.scratch_len(pairs.len(), threads))?;
        if pairs.len() >= threads {
            let of_one = self.of_one(1);
            for_each_piece_and_scratch(&*executor, c, m * n, scratch, of_one, |at, c, scratch| {
                product(pairs[at.start / (m * n)], c, scratch, &Inline);
            });
        } else {
            for (&pair, c) in pairs.iter().zip(c.chunks_exact_mut(m * n)) {
                product(pair, c, scratch, &*executor);
            }
        }
        Ok(())
    }

    /// A right matrix as the weights of the convolution.
    fn weights<'b>(&self, shape: &ConvShape, b: &'b [f32]) -> Weights<'b> {
        if self.transposed {
            return Weights::forward(shape, b);
        }
        // `[k, n]` are the weights of the convolution whose data gradient this one is.
        let mut mirror = *shape;
        (mirror.ic, mirror.oc) = (shape.oc, shape.ic);
        Weights::turned(&mirror, b, [Taps::all(1); 2])
    }
}

/// As [`check_len`], of a slice that may be longer.
fn check_at_least(what: &'static str, len: usize, needed: usize) -> Result<()> {
    if len >= needed { Ok(()) } else { check_len(what, len, needed) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
    }

    /// The products in double precision, and the bound of each one's error.
    fn exact(plan: &MatMul, pairs: &[[usize; 2]], a: &[f32], b: &[f32]) -> Vec<(f64, f64)> {
        let [m, k, n] = plan.extents;
        let mut all = Vec::new();
        for &[left, right] in pairs {
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let terms = (0..k).map(|l| {
                    let at = if plan.transposed { j * k + l } else { l * n + j };
                    f64::from(a[(left * m + i) * k + l]) * f64::from(b[right * k * n + at])
                });
                let size: f64 = terms.clone().map(f64::abs).sum();
                all.push((terms.sum(), (k as f64 + 2.0) * size / f64::from(1 << 24) + 1e-30));
            }
        }
        all
    }

    proptest! {
        #[test]
        fn products_are_the_exact_ones_on_any_threads(
            (m, k, n) in (1usize..40, 0usize..50, 1usize..40),
            transposed: bool,
            pairs in proptest::collection::vec([0usize..3, 0usize..3], 0..6),
        ) {
            let (a, b) = (numbers(3 * m * k, 1), numbers(3 * k * n, 2));
            let mut first: Option<Vec<f32>> = None;
            for threads in [1, 2, 3] {
                let mut plan = MatMul::new([m, k, n], &Options::default().threads(threads).accuracy(crate::Accuracy::Exact)).unwrap();
                if transposed {
                    plan = plan.transposed_b();
                }
                let mut c = vec![f32::NAN; pairs.len() * m * n];
                plan.run_many(&pairs, &a, &b, &mut c, &mut Scratch::new()).unwrap();
                for (c, (exact, bound)) in c.iter().zip(exact(&plan, &pairs, &a, &b)) {
                    prop_assert!((f64::from(*c) - exact).abs() <= bound, "{c}, not {exact}");
                }
                prop_assert_eq!(first.get_or_insert_with(|| c.clone()), &c);
            }
        }
    }

    #[test]
    fn lengths_and_pairs_are_checked() {
        let plan = MatMul::new([2, 3, 4], &Options::default()).unwrap();
        let (a, b, mut scratch) = ([1.0; 6], [1.0; 12], Scratch::new());
        let told = |result: Result<()>| result.unwrap_err().to_string();
        let e = told(plan.run(&a[1..], &b, &mut [0.0; 8], &mut scratch));
        assert_eq!(e, "the left matrix has 5 elements, but 6 are needed");
        let e = told(plan.run_many(&[[0, 1]], &a, &b, &mut [0.0; 8], &mut scratch));
        assert_eq!(e, "the block of right matrices has 12 elements, but 24 are needed");
        let e = told(plan.run_many(&[[usize::MAX, 0]], &a, &b, &mut [0.0; 8], &mut scratch));
        assert!(e.starts_with("the block of left matrices has 6 elements, but "), "{e}");
        let e = told(plan.run(&a, &b, &mut [0.0; 9], &mut scratch));
        assert_eq!(e, "the product has 9 elements, but 8 are needed");
        assert!(MatMul::new([usize::MAX, 2, 2], &Options::default()).is_err());
        let nothing = MatMul::new([usize::MAX, 0, usize::MAX], &Options::default()).unwrap();
        assert!(nothing.run(&[], &[], &mut [0.0; 3], &mut scratch).is_err());
        plan.run_many(&[], &a, &b, &mut [], &mut scratch).unwrap();
    }
}
