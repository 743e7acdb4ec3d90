//! im2col convolution against the oracle: every level, geometry, pair of layouts, blocking and number of threads.

mod threads;
mod tries;

use proptest::prelude::*;
use swath_kernels::epilogue::Epilogue;
use swath_kernels::exec::{Executor, Inline};
use swath_kernels::gemm::{Blocking, Im2col};
use swath_kernels::isa::Level;
use swath_kernels::layout::{BLOCK, Layout, reorder};
use swath_kernels::machine::Core;
use swath_kernels::reference;
use swath_kernels::shape::{ConvShape, Padding};
use threads::{Guarded, Odd, Threads, bits, integers, random};
use tries::{some, tries};

fn shape() -> impl Strategy<Value = ConvShape> {
    let channels = prop_oneof![
        (Just(1usize), 1..40usize, 1..70usize),
        (2..5usize, 1..20usize, 1..40usize),
        (2..40usize, Just(1usize), 1..4usize), // depthwise, with a multiplier
        (2..4usize, 1..6usize, Just(32usize)),
    ];
    (
        0..3usize,
        channels,
        [1..9usize, 1..12usize],
        [1..4usize, 1..4usize],
        [1..4usize, 1..4usize],
        [1..4usize, 1..4usize],
        [0..4usize, 0..4usize, 0..4usize, 0..4usize],
    )
        .prop_filter_map("kernel larger than the input", |(n, (g, icg, ocg), [ih, iw], [kh, kw], st, di, pad)| {
            ConvShape::builder([n, g * icg, ih, iw], [g * ocg, icg, kh, kw])
                .groups(g)
                .stride(st)
                .dilation(di)
                .padding(Padding::from(pad))
                .build()
                .ok()
        })
}

/// NCHW data in `layout`; channels that pad the last block are `pad`.
fn arranged(x: &[f32], layout: Layout, dims: [usize; 4], pad: f32) -> Vec<f32> {
    let mut y = vec![0.0; layout.len(dims)];
    reorder(Layout::Nchw, x, layout, &mut y, dims);
    if layout == Layout::Blocked {
        padding(&mut y, dims, |v| *v = pad);
    }
    y
}

/// Calls `f` for every channel that pads a blocked tensor.
fn padding(y: &mut [f32], [_, c, h, w]: [usize; 4], f: impl Fn(&mut f32)) {
    let blocks = c.div_ceil(BLOCK);
    for (i, v) in y.iter_mut().enumerate() {
        if i / (BLOCK * h * w) % blocks * BLOCK + i % BLOCK >= c {
            f(v);
        }
    }
}

struct Problem {
    shape: ConvShape,
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Problem {
    fn new(shape: ConvShape, data: impl Fn(usize, u64) -> Vec<f32>) -> Self {
        let len = |dims: [usize; 4]| dims.iter().product::<usize>();
        Self {
            shape,
            x: data(len(shape.input()), 1),
            w: data(len(shape.weights()), 2),
            bias: data(shape.oc, 3),
            residual: data(len(shape.output()), 4),
        }
    }

    /// Output in NCHW of a run with bias, residual and ReLU.
    fn run(
        &self,
        level: Level,
        [input, output]: [Layout; 2],
        blocking: Option<Blocking>,
        executor: &dyn Executor,
        slots: usize,
    ) -> Vec<f32> {
        let s = &self.shape;
        let conv = Im2col::with_blocking(s, Core::here(level), input, output, blocking);
        let mut packed = vec![f32::NAN; conv.packed_len()];
        conv.pack(&self.w, &mut packed);
        // What pads the last input block is not read.
        let x = arranged(&self.x, input, s.input(), f32::NAN);
        let residual = arranged(&self.residual, output, s.output(), 0.0);
        let mut y = Guarded::nan(output.len(s.output()));
        let mut scratch = Guarded::nan(conv.scratch_len() * slots);
        let epilogue = Epilogue::bias(&self.bias).residual(&residual).relu();
        conv.forward(&x, &packed, &epilogue, y.slice().into(), scratch.slice(), executor);
        scratch.check();
        let mut y = y.check();
        if output == Layout::Blocked {
            padding(&mut y, s.output(), |v| assert_eq!(*v, 0.0, "a padding channel"));
        }
        let mut nchw = vec![0.0; s.output().iter().product()];
        reorder(output, &y, Layout::Nchw, &mut nchw, s.output());
        nchw
    }

    fn expected(&self) -> Vec<f64> {
        let y = reference::conv2d(&self.shape, &self.x, &self.w, Some(&self.bias));
        y.iter().zip(&self.residual).map(|(y, r)| (y + f64::from(*r)).max(0.0)).collect()
    }
}

proptest! {
    #![proptest_config(tries(250))]

    #[test]
    fn integers_are_exact_at_every_level(
        shape in shape(),
        seed in any::<u64>(),
        output in prop::sample::select(Layout::ALL.to_vec()),
        blocking in prop::option::of((1..40usize, 1..40usize).prop_map(|(mc, kc)| Blocking { mc, kc, nc: 16 })),
    ) {
        let problem = Problem::new(shape, |len, i| integers(len, seed.wrapping_add(i)));
        let want = problem.expected();
        for &level in Level::available() {
            for input in Layout::ALL {
                let got = problem.run(level, [input, output], blocking, &Inline, 1);
                let got: Vec<f64> = got.into_iter().map(f64::from).collect();
                prop_assert_eq!(&got, &want, "{} {:?} {:?}", level, input, output);
            }
        }
    }
}

#[test]
fn threads_layouts_and_blocking_never_change_a_bit() {
    let shapes = [
        ConvShape::builder([2, 20, 17, 19], [40, 20, 3, 3]).padding([1, 0, 2, 1]).stride([1, 2]),
        ConvShape::builder([1, 48, 20, 21], [72, 16, 3, 3]).padding(1).groups(3),
        ConvShape::builder([1, 40, 33, 35], [80, 1, 3, 3]).padding(2).dilation(2).groups(40),
        ConvShape::builder([3, 70, 7, 7], [90, 70, 1, 1]),
    ];
    for shape in some(shapes) {
        let problem = Problem::new(shape.build().unwrap(), random);
        for &level in Level::available() {
            let mut first: Option<Vec<u32>> = None;
            let mut same = |y: Vec<f32>, what: &str| {
                let y = bits(&y);
                assert!(first.get_or_insert_with(|| y.clone()) == &y, "{level}, {what}, {:?}", problem.shape);
            };
            for input in Layout::ALL {
                for output in Layout::ALL {
                    let layouts = [input, output];
                    for threads in [1, 2, 3, 8] {
                        let y = problem.run(level, layouts, None, &Threads(threads), threads);
                        same(y, &format!("{layouts:?}, {threads} threads"));
                    }
                    same(problem.run(level, layouts, None, &Odd(3, 7), 2), "an odd executor");
                    for (mc, kc) in [(1, 1), (9, 50), (1000, 16)] {
                        let blocking = Some(Blocking { mc, kc, nc: 16 });
                        let y = problem.run(level, layouts, blocking, &Threads(2), 2);
                        same(y, &format!("{layouts:?}, {blocking:?}"));
                    }
                }
            }
        }
    }
}

#[test]
fn groups_do_not_see_each_others_infinities() {
    let shape = ConvShape::builder([1, 6, 4, 4], [9, 2, 3, 3]).groups(3).padding(1).build().unwrap();
    let mut problem = Problem::new(shape, integers);
    problem.x[2 * 16..4 * 16].fill(f32::INFINITY); // the second group
    let want = problem.expected();
    for &level in Level::available() {
        for output in Layout::ALL {
            let got = problem.run(level, [Layout::Blocked, output], None, &Inline, 1);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                if !(3 * 16..6 * 16).contains(&i) {
                    assert_eq!(f64::from(*got), *want, "{level} {output:?}");
                }
            }
        }
    }
}

#[test]
fn scratch_stays_below_two_mebibytes() {
    for &level in Level::available() {
        for (ic, k, hw) in [(3, 7, 224), (2048, 3, 7), (512, 3, 28), (1 << 14, 5, 9), (1, 1, 1000)] {
            let shape = ConvShape::builder([1, ic, hw, hw], [64, ic, k, k]).padding(k / 2).build().unwrap();
            for input in Layout::ALL {
                for output in Layout::ALL {
                    let conv = Im2col::new(&shape, Core::here(level), input, output);
                    assert!(conv.scratch_len() * 4 <= 2 << 20, "{shape:?} {:?}", conv.blocking());
                }
            }
        }
    }
}
