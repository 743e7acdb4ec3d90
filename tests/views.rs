//! Convolutions of tensors that are parts of larger ones, and into memory that holds nothing yet: the same bits as of dense
//! tensors, by every algorithm.

#[path = "../kernels/tests/tries/mod.rs"]
mod tries;

use core::mem::MaybeUninit;

use proptest::prelude::*;
use swath::conv::Candidate;
use swath::layout::reorder;
use swath::norm::{Norm, Sets};
use swath::pool::{AdaptiveAvgPool, AdaptiveMaxPool, AdaptiveShape, AvgPool, Divisor, MaxPool};
use swath::resample::{Filter, PadMode, Resample, Size};
use swath::{
    Accuracy, Activation, ConvBackwardBias, ConvBackwardData, ConvBackwardWeights, ConvPlan, ConvShape, Epilogue,
    Layout, Options, Pitches, PoolShape, Scratch, Tuning,
};
use tries::tries;

/// What no result is: a NaN of this payload.
const POISON: u32 = 0x7fc0_beef;

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + seed * 104_729) % 2001) as f32 / 1000.0 - 1.0).collect()
}

/// Gaps in floats behind rows, channels and images.
type Gaps = [usize; 3];

fn pitches(layout: Layout, [_, c, h, w]: [usize; 4], [row, channel, image]: Gaps) -> Pitches {
    if layout == Layout::Nhwc {
        let row = w * c + row;
        return Pitches { row, channel: 1, image: h * row + image };
    }
    let row = w + row;
    let channel = h * row + channel;
    Pitches { row, channel, image: c * channel + image }
}

/// Where each element of a tensor lies, in the order of its layout.
fn places(layout: Layout, [n, c, h, w]: [usize; 4], p: Pitches) -> Vec<usize> {
    let mut all = Vec::new();
    for i in 0..n {
        let at = |k: usize, y: usize, x: usize| match layout {
            Layout::Nhwc => i * p.image + y * p.row + x * c + k,
            _ => i * p.image + k * p.channel + y * p.row + x,
        };
        match layout {
            Layout::Nhwc => (0..h).for_each(|y| (0..w).for_each(|x| (0..c).for_each(|k| all.push(at(k, y, x))))),
            _ => (0..c).for_each(|k| (0..h).for_each(|y| (0..w).for_each(|x| all.push(at(k, y, x))))),
        }
    }
    all
}

/// A tensor of a plan: dense, or with gaps.
struct Side {
    layout: Layout,
    dims: [usize; 4],
    pitches: Option<Pitches>,
    /// Where each element lies, in the order of the layout.
    at: Vec<usize>,
}

impl Side {
    /// Of blocks there are no gaps.
    fn new(layout: Layout, dims: [usize; 4], gaps: Gaps) -> Self {
        if layout == Layout::Blocked {
            return Self { layout, dims, pitches: None, at: (0..layout.len(dims)).collect() };
        }
        let p = pitches(layout, dims, gaps);
        Self { layout, dims, pitches: Some(p), at: places(layout, dims, p) }
    }

    /// Gaps behind a single row, channel or image lie outside of the tensor.
    fn apart(&self) -> bool {
        self.at.iter().enumerate().any(|(i, &place)| i != place)
    }

    fn numbers(&self, seed: usize) -> Vec<f32> {
        let mut all = vec![0.0; self.at.len()];
        let nchw = numbers(self.dims.iter().product(), seed);
        reorder(Layout::Nchw, &nchw, self.layout, &mut all, self.dims).unwrap();
        all
    }

    /// A dense tensor's floats at their places, in a slice that goes on behind a view, with poison everywhere else.
    fn spread(&self, dense: &[f32]) -> Vec<f32> {
        let behind = if self.pitches.is_some() { 3 } else { 0 };
        let mut all = vec![f32::from_bits(POISON); self.at.iter().max().map_or(0, |m| m + 1) + behind];
        self.at.iter().zip(dense).for_each(|(&at, &v)| all[at] = v);
        all
    }

    fn poison(&self) -> Vec<f32> {
        self.spread(&vec![f32::from_bits(POISON); self.at.len()])
    }
}

/// Memory whose floats show whether they were written.
fn unwritten(len: usize) -> Vec<MaybeUninit<f32>> {
    vec![MaybeUninit::new(f32::from_bits(POISON)); len]
}

fn same(got: &[f32], expected: &[f32], what: impl Fn() -> String) {
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert!(bits(got) == bits(expected), "{}", what());
}

fn all_written(y: &[f32], what: &str) {
    assert!(y.iter().all(|v| v.to_bits() != POISON), "{what}");
}

/// A convolution, and how its input and its output lie.
struct Case {
    shape: ConvShape,
    x: Side,
    y: Side,
    options: Options,
}

impl Case {
    fn new(shape: &ConvShape, layouts: [Layout; 2], gaps: [Gaps; 2], threads: usize) -> Self {
        let (x, y) = (Side::new(layouts[0], shape.input(), gaps[0]), Side::new(layouts[1], shape.output(), gaps[1]));
        let options = Options { accuracy: Accuracy::Fast, tuning: Tuning::Off, ..Options::default() };
        Self { shape: *shape, x, y, options: options.layouts(layouts[0], layouts[1]).threads(threads) }
    }

    /// Plans of every algorithm that does it, of dense tensors and of those with gaps.
    fn plans<'a, P>(
        &'a self,
        plan: impl Fn(&ConvShape, &Options) -> swath::Result<P> + 'a,
        candidates: impl Fn(&P) -> &[Candidate],
    ) -> impl Iterator<Item = (&'static str, [P; 2])> + 'a
    where
        P: std::fmt::Debug + 'a,
    {
        let any = plan(&self.shape, &self.options).unwrap();
        let able = candidates(&any).iter().filter(|c| c.predicted.is_ok());
        let able: Vec<_> = able.map(|c| c.algo).collect();
        able.into_iter().filter_map(move |algo| {
            let options = self.options.clone().algo(algo);
            let far = plan(&self.shape, &options.clone().pitches(self.x.pitches, self.y.pitches));
            if algo == "bf16x6" && (self.x.apart() || self.y.apart()) {
                assert!(far.unwrap_err().to_string().contains("lie apart"));
                return None;
            }
            // What is copied to blocks as a whole.
            if far.as_ref().is_err_and(|e| e.to_string().contains("without gaps")) {
                assert!([&self.x, &self.y].iter().any(|side| side.layout != Layout::Blocked && side.apart()));
                return None;
            }
            Some((algo, [plan(&self.shape, &options).unwrap(), far.unwrap()]))
        })
    }

    fn what(&self, what: &str, algo: &str) -> String {
        let Self { shape, x, y, .. } = self;
        format!("{what} by {algo}, {:?} {:?}, {:?} {:?}, {shape:?}", x.layout, x.pitches, y.layout, y.pitches)
    }

    /// Runs every algorithm of every pass on tensors with gaps, and compares with the same one on dense tensors.
    fn agree(&self) {
        let w = numbers(self.shape.weights().iter().product(), 2);
        for activation in [Activation::Relu, Activation::Silu] {
            self.forward(&w, activation);
            self.data(&w, activation);
        }
        self.weights();
    }

    fn forward(&self, w: &[f32], activation: Activation) {
        let (x, residual, bias) = (self.x.numbers(1), self.y.numbers(4), numbers(self.shape.oc, 3));
        let (x_far, residual_far) = (self.x.spread(&x), self.y.spread(&residual));
        let epilogue = Epilogue { residual: Some(&residual), activation, ..Epilogue::bias(&bias) };
        let epilogue_far = Epilogue { residual: Some(&residual_far), ..epilogue };
        let mut scratch = Scratch::new();
        for (algo, [dense, far]) in self.plans(ConvPlan::new, ConvPlan::candidates) {
            // Packed for the one, they serve the other.
            let (weights, mut y) = (dense.pack(w).unwrap(), unwritten(residual.len()));
            let y = dense.forward_uninit(&x, &weights, epilogue, &mut y, &mut scratch).unwrap();
            all_written(y, algo);
            let (expected, mut y) = (self.y.spread(y), self.y.poison());
            far.forward(&x_far, &weights, epilogue_far, &mut y, &mut scratch).unwrap();
            same(&y, &expected, || self.what("convolution", algo));
        }
    }

    fn data(&self, w: &[f32], activation: Activation) {
        let (dy, residual, bias) = (self.y.numbers(1), self.x.numbers(4), numbers(self.shape.ic, 3));
        let (dy_far, residual_far) = (self.y.spread(&dy), self.x.spread(&residual));
        let epilogue = Epilogue { residual: Some(&residual), activation, ..Epilogue::bias(&bias) };
        let epilogue_far = Epilogue { residual: Some(&residual_far), ..epilogue };
        let mut scratch = Scratch::new();
        for (algo, [dense, far]) in self.plans(ConvBackwardData::new, ConvBackwardData::candidates) {
            let (weights, mut dx) = (dense.pack(w).unwrap(), unwritten(residual.len()));
            let dx = dense.transposed_uninit(&dy, &weights, epilogue, &mut dx, &mut scratch).unwrap();
            all_written(dx, algo);
            let (expected, mut dx) = (self.x.spread(dx), self.x.poison());
            far.transposed(&dy_far, &weights, epilogue_far, &mut dx, &mut scratch).unwrap();
            same(&dx, &expected, || self.what("data gradient", algo));
        }
    }

    fn weights(&self) {
        let (x, dy, mut scratch) = (self.x.numbers(1), self.y.numbers(5), Scratch::new());
        let (x_far, dy_far) = (self.x.spread(&x), self.y.spread(&dy));
        let len = self.shape.weights().iter().product();
        for (algo, [dense, far]) in self.plans(ConvBackwardWeights::new, ConvBackwardWeights::candidates) {
            let (mut dw, mut db) = (unwritten(len), [vec![f32::NAN; self.shape.oc], vec![f32::NAN; self.shape.oc]]);
            let dw = dense.run_uninit(&x, &dy, &mut dw, Some(&mut db[0]), &mut scratch).unwrap();
            all_written(dw, algo);
            let mut dw_far = vec![f32::NAN; len];
            far.run(&x_far, &dy_far, &mut dw_far, Some(&mut db[1]), &mut scratch).unwrap();
            same(&dw_far, dw, || self.what("weight gradient", algo));
            same(&db[1], &db[0], || self.what("bias gradient", algo));
        }
        let [dense, far] = [None, self.y.pitches].map(|pitches| {
            let plan =
                ConvBackwardBias::new(self.shape.output(), &self.options.clone().pitches(None, pitches)).unwrap();
            let mut db = vec![f32::NAN; self.shape.oc];
            plan.run(if pitches.is_some() { &dy_far } else { &dy }, &mut db, &mut scratch).unwrap();
            db
        });
        same(&far, &dense, || self.what("bias gradient", "itself"));
    }
}

/// A pooling's input and output, dense and with gaps.
struct Pooled {
    x: Side,
    y: Side,
    /// Of dense tensors, and of those with gaps.
    options: [Options; 2],
}

impl Pooled {
    fn new(layout: Layout, dims: [[usize; 4]; 2], gaps: [Gaps; 2], threads: usize) -> Self {
        let [x, y] = [0, 1].map(|i| Side::new(layout, dims[i], gaps[i]));
        let dense = Options::default().layouts(layout, layout).threads(threads);
        let far = dense.clone().pitches(x.pitches, y.pitches);
        Self { x, y, options: [dense, far] }
    }

    /// `dense` and `far` compute outputs, and gradients at the input, of these plans.
    fn agree<P>(
        &self,
        what: &str,
        plan: impl Fn(&Options) -> swath::Result<P>,
        forward_uninit: impl for<'y> Fn(&P, &[f32], &'y mut [MaybeUninit<f32>]) -> (&'y mut [f32], Vec<u32>),
        forward: impl Fn(&P, &[f32], &mut [f32]) -> Vec<u32>,
        backward_uninit: impl for<'x> Fn(&P, &[u32], &[f32], &'x mut [MaybeUninit<f32>]) -> &'x mut [f32],
        backward: impl Fn(&P, &[u32], &[f32], &mut [f32]),
    ) {
        let [dense, far] = self.options.each_ref().map(|options| plan(options).unwrap());
        let what = || format!("{what}, {:?} {:?} {:?}", self.x.layout, self.x.pitches, self.y.pitches);
        // Ties, too; none of zeros of two signs, of which kernels may take either.
        let x: Vec<f32> = self.x.numbers(1).iter().map(|v| (v * 4.0).round() + 0.0).collect();
        let (dy, mut y, mut dx) = (self.y.numbers(2), unwritten(self.y.at.len()), unwritten(x.len()));
        let (y, indices) = forward_uninit(&dense, &x, &mut y);
        all_written(y, &what());
        let (expected, mut y) = (self.y.spread(y), self.y.poison());
        let indices_far = forward(&far, &self.x.spread(&x), &mut y);
        same(&y, &expected, what);
        assert_eq!(indices_far, indices, "indices of {}", what());
        let dx = backward_uninit(&dense, &indices, &dy, &mut dx);
        all_written(dx, &what());
        let (expected, mut dx) = (self.x.spread(dx), self.x.poison());
        backward(&far, &indices, &self.y.spread(&dy), &mut dx);
        same(&dx, &expected, || format!("gradient of {}", what()));
    }

    fn windows(s: &PoolShape, layout: Layout, gaps: [Gaps; 2], threads: usize) {
        let these = Self::new(layout, [s.input(), s.output()], gaps, threads);
        let len = these.y.at.len();
        these.agree(
            &format!("max pooling {s:?}"),
            |options| MaxPool::new(s, options),
            |plan, x, y| {
                let (y, indices) = plan.forward_with_indices(x, y).unwrap();
                // Without indices, by other kernels.
                let mut alone = unwritten(len);
                same(plan.forward_uninit(x, &mut alone, None).unwrap().0, y, || format!("without indices {s:?}"));
                (y, indices)
            },
            |plan, x, y| {
                let mut alone = y.to_vec();
                let mut indices = vec![77; len];
                plan.forward(x, y, Some(&mut indices)).unwrap();
                plan.forward(x, &mut alone, None).unwrap();
                same(&alone, y, || format!("without indices {s:?}"));
                indices
            },
            |plan, indices, dy, dx| plan.backward_uninit(indices, dy, dx).unwrap(),
            |plan, indices, dy, dx| plan.backward(indices, dy, dx).unwrap(),
        );
        if [s.dh, s.dw] != [1, 1] {
            return;
        }
        these.agree(
            &format!("average pooling {s:?}"),
            |options| AvgPool::new(s, Divisor::Padded, options),
            |plan, x, y| (plan.forward_uninit(x, y).unwrap(), Vec::new()),
            |plan, x, y| plan.forward(x, y).map(|()| Vec::new()).unwrap(),
            |plan, _, dy, dx| plan.backward_uninit(dy, dx).unwrap(),
            |plan, _, dy, dx| plan.backward(dy, dx).unwrap(),
        );
    }

    fn regions(s: &AdaptiveShape, layout: Layout, gaps: [Gaps; 2], threads: usize) {
        let these = Self::new(layout, [s.input(), s.output()], gaps, threads);
        let len = these.y.at.len();
        these.agree(
            &format!("adaptive averages {s:?}"),
            |options| AdaptiveAvgPool::new(s, options),
            |plan, x, y| (plan.forward_uninit(x, y).unwrap(), Vec::new()),
            |plan, x, y| plan.forward(x, y).map(|()| Vec::new()).unwrap(),
            |plan, _, dy, dx| plan.backward_uninit(dy, dx).unwrap(),
            |plan, _, dy, dx| plan.backward(dy, dx).unwrap(),
        );
        these.agree(
            &format!("adaptive maxima {s:?}"),
            |options| AdaptiveMaxPool::new(s, options),
            |plan, x, y| {
                let mut indices = vec![MaybeUninit::new(77); len];
                let (y, indices) = plan.forward_uninit(x, y, &mut indices).unwrap();
                (y, indices.to_vec())
            },
            |plan, x, y| {
                let mut indices = vec![77; len];
                plan.forward(x, y, &mut indices).unwrap();
                indices
            },
            |plan, indices, dy, dx| plan.backward_uninit(indices, dy, dx).unwrap(),
            |plan, indices, dy, dx| plan.backward(indices, dy, dx).unwrap(),
        );
    }
}

fn any_window() -> impl Strategy<Value = PoolShape> {
    let extents = (1usize..4, 1usize..36, 1usize..16, 1usize..24);
    let window = (prop::array::uniform2(1usize..5), prop::array::uniform2(1usize..4), prop::array::uniform2(0usize..2));
    let dilation = prop_oneof![3 => Just(1usize), 1 => Just(2)];
    (extents, window, dilation, any::<bool>()).prop_filter_map(
        "a window within its input",
        |((n, c, h, w), (kernel, stride, pad), dilation, ceil)| {
            let shape = PoolShape::builder([n, c, h, w], kernel).stride(stride).padding(pad);
            shape.dilation(dilation).ceil_mode(ceil).build().ok()
        },
    )
}

fn any_shape() -> impl Strategy<Value = ConvShape> {
    let extents = (1usize..4, 1usize..20, 1usize..20, 1usize..18, 1usize..40);
    let window = (prop_oneof![1 => Just(1usize), 2 => Just(3)], 1usize..4, 0usize..3, 0usize..3);
    let dilation = prop_oneof![3 => Just(1usize), 1 => Just(2)];
    (extents, window, dilation).prop_filter_map(
        "a kernel within its input",
        |((n, ic, oc, ih, iw), (k, stride, pad, groups), dilation)| {
            let (ic, oc, groups) = match groups {
                0 => (ic, oc, 1),
                1 => (ic, ic, ic),
                _ => (2 * ic.min(4), 2 * oc, 2),
            };
            let shape = ConvShape::builder([n, ic, ih, iw], [oc, ic / groups, k, k]);
            shape.stride(stride).padding(pad).dilation(dilation).groups(groups).build().ok()
        },
    )
}

fn any_gaps() -> impl Strategy<Value = Gaps> {
    let gap = || prop_oneof![Just(0usize), 1usize..20];
    [gap(), gap(), gap()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..tries(384) })]

    #[test]
    fn gaps_change_nothing(
        shape in any_shape(),
        layouts in prop::array::uniform2(prop::sample::select(Layout::ALL.to_vec())),
        gaps in [any_gaps(), any_gaps()],
        threads in 1usize..4,
    ) {
        Case::new(&shape, layouts, gaps, threads).agree();
    }

    #[test]
    fn gaps_change_nothing_of_pooling(
        window in any_window(),
        cells in prop::array::uniform2(1usize..7),
        layout in prop::sample::select(Layout::ALL.to_vec()),
        gaps in [any_gaps(), any_gaps()],
        threads in 1usize..4,
    ) {
        Pooled::windows(&window, layout, gaps, threads);
        Pooled::regions(&AdaptiveShape::new(window.input(), cells).unwrap(), layout, gaps, threads);
    }
}

/// Enough floats for several parts, and for threads.
#[test]
fn large_planes_are_pooled() {
    let s = PoolShape::builder([2, 20, 60, 70], 3).stride(2).padding(1).build().unwrap();
    let cells = AdaptiveShape::new(s.input(), [7, 9]).unwrap();
    for layout in Layout::ALL {
        Pooled::windows(&s, layout, [[3, 1, 5], [1, 0, 2]], 3);
        Pooled::regions(&cells, layout, [[0, 2, 0], [4, 0, 0]], 2);
    }
}

/// Rows that are a vector and more, and more threads than one, by each family.
#[test]
fn long_rows_and_many_channels() {
    for (c, groups, k, stride) in [(48, 1, 3, 1), (48, 1, 1, 2), (40, 40, 3, 1), (40, 40, 3, 2), (24, 8, 3, 1)] {
        let shape = ConvShape::builder([2, c, 19, 37], [c, c / groups, k, k]).padding(k / 2).stride(stride);
        let shape = shape.groups(groups).build().unwrap();
        for gaps in [[[0, 0, 5], [0; 3]], [[0; 3], [0, 0, 96]], [[3, 0, 0], [1, 0, 0]], [[0, 7, 1], [5, 2, 9]]] {
            Case::new(&shape, [Layout::Nchw; 2], gaps, 2).agree();
        }
    }
    // A bias's gradient that is several slices of a plane.
    let shape = ConvShape::builder([1, 2, 150, 150], [2, 2, 1, 1]).build().unwrap();
    Case::new(&shape, [Layout::Nchw; 2], [[0; 3], [3, 0, 0]], 2).agree();
}

#[test]
fn what_cannot_lie_so_is_an_error_with_both_numbers() {
    let shape = ConvShape::builder([2, 3, 8, 9], [4, 3, 3, 3]).padding(1).build().unwrap();
    let plan = |input: Layout, pitches| {
        let options = Options { input, input_pitches: pitches, ..Options::default() };
        ConvPlan::new(&shape, &options).map(|_| ()).unwrap_err().to_string()
    };
    let far = Pitches { image: 3 * 80, channel: 80, row: 10 };
    for (layout, pitches, says) in [
        (Layout::Nchw, Pitches { row: 8, ..far }, ["rows are 8 floats", "each takes 9"]),
        (Layout::Nchw, Pitches { channel: 78, ..far }, ["channels are 78 floats", "each takes 79"]),
        (Layout::Nchw, Pitches { image: 238, ..far }, ["images are 238 floats", "each takes 239"]),
        (Layout::Nchw, Pitches { image: usize::MAX, ..far }, ["2 images", "more than memory can hold"]),
        (Layout::Nhwc, far, ["channels are 80 floats", "1 in nhwc"]),
        (Layout::Blocked, far, ["the input's pitch", "blocked tensors are dense"]),
    ] {
        let e = plan(layout, Some(pitches));
        assert!(says.iter().all(|s| e.contains(s)), "{e}");
    }
    let options = Options::default().pitches(Some(far), Some(Pitches { image: 4 * 80 + 7, ..far }));
    let (plan, mut scratch) = (ConvPlan::new(&shape, &options).unwrap(), Scratch::new());
    assert!(plan.explain().to_string().contains("input: rows 10, channels 80, images 240 floats apart"));
    let weights = plan.pack(&[1.0; 108]).unwrap();
    let mut run = |x: usize, y: usize, residual: usize| {
        let (x, mut y, residual) = (vec![0.0; x], vec![0.0; y], vec![0.0; residual]);
        let epilogue = Epilogue { residual: Some(&residual), ..Epilogue::none() };
        plan.forward(&x, &weights, epilogue, &mut y, &mut scratch).map_err(|e| e.to_string())
    };
    let (x, y) = (240 + 160 + 79, 327 + 240 + 79);
    assert_eq!([run(x, y, y), run(x + 1, y + 9, y + 2)], [Ok(()), Ok(())]);
    assert_eq!(run(x - 1, y, y), Err(format!("the input has {} elements, but {x} are needed", x - 1)));
    assert_eq!(run(x, y - 1, y), Err(format!("the output has {} elements, but {y} are needed", y - 1)));
    assert_eq!(run(x, y, y - 1), Err(format!("the residual has {} elements, but {y} are needed", y - 1)));
    let mut unwritten = vec![MaybeUninit::uninit(); y];
    let e = plan.forward_uninit(&vec![0.0; x], &weights, Epilogue::none(), &mut unwritten, &mut scratch).unwrap_err();
    assert!(e.to_string().contains("the output, of 646 floats with its gaps"), "{e}");
    let plan = ConvBackwardData::new(&shape, &options).unwrap();
    let weights = plan.pack(&[1.0; 108]).unwrap();
    let mut run = |dy: usize, dx: usize| {
        let (dy, mut dx) = (vec![0.0; dy], vec![0.0; dx]);
        plan.run(&dy, &weights, &mut dx, &mut scratch).map_err(|e| e.to_string())
    };
    assert_eq!([run(y, x), run(y + 1, x + 9)], [Ok(()), Ok(())]);
    assert_eq!(run(y - 1, x), Err(format!("the gradient at the output has {} elements, but {y} are needed", y - 1)));
    assert_eq!(run(y, x - 1), Err(format!("the gradient at the input has {} elements, but {x} are needed", x - 1)));
    let e = plan.run_uninit(&vec![0.0; y], &weights, &mut unwritten, &mut scratch).unwrap_err();
    assert!(e.to_string().contains("the gradient at the input, of 479 floats with its gaps"), "{e}");
    let pool = PoolShape::builder([2, 3, 8, 9], 2).build().unwrap();
    let maxima = MaxPool::new(&pool, &options).unwrap();
    let e = maxima.forward_uninit(&vec![0.0; x], &mut unwritten, None).unwrap_err().to_string();
    assert!(e.contains("the output, of 521 floats with its gaps"), "{e}");
    let short = Pitches { row: 8, ..far };
    let e = MaxPool::new(&pool, &Options::default().pitches(Some(short), None)).unwrap_err().to_string();
    assert!(e.contains("rows are 8 floats") && e.contains("each takes 9"), "{e}");
    let e = Norm::new([2, 3, 8, 9], Sets::Batch, &options).unwrap_err().to_string();
    assert!(e.contains("10") && e.contains("dense"), "{e}");
    // Another batch of the same pitches.
    assert!(plan.with_batch(5).is_ok() && plan.with_batch(usize::MAX / 600).is_err());
}

/// In every layout, with one thread and several: into memory that holds nothing yet as over NaNs.
#[test]
fn resampling_writes_all_of_its_output() {
    let dims = [2, 17, 40, 50];
    for (layout, threads) in Layout::ALL.into_iter().flat_map(|layout| [(layout, 1), (layout, 3)]) {
        let options = Options::default().layouts(layout, layout).threads(threads);
        let filters =
            [Filter::Nearest, Filter::Bilinear { align_corners: false }, Filter::Bicubic { align_corners: true }];
        let sizes = filters.into_iter().flat_map(|filter| [(filter, [3, 50]), (filter, [130, 97])]);
        let resized = sizes.map(|(filter, size)| Resample::resize(dims, Size::To(size), filter, &options));
        let padded = [PadMode::Constant(1.5), PadMode::Reflect, PadMode::Circular]
            .map(|mode| Resample::pad(dims, [2, 9, 0, 3], mode, &options));
        for plan in resized.chain(padded).map(Result::unwrap) {
            let what = || format!("{plan:?} on {threads} threads");
            let [x, dy] = [plan.input(), plan.output()].map(|dims| {
                let dense = numbers(dims.iter().product(), 3);
                let mut there = vec![0.0; layout.len(dims)];
                reorder(Layout::Nchw, &dense, layout, &mut there, dims).unwrap();
                there
            });
            let (mut y, mut dx) = (vec![f32::NAN; dy.len()], vec![f32::NAN; x.len()]);
            plan.forward(&x, &mut y).unwrap();
            plan.backward(&dy, &mut dx).unwrap();
            let (mut fresh_y, mut fresh_dx) = (unwritten(y.len()), unwritten(dx.len()));
            same(plan.forward_uninit(&x, &mut fresh_y).unwrap(), &y, what);
            same(plan.backward_uninit(&dy, &mut fresh_dx).unwrap(), &dx, what);
            assert!(y.iter().chain(&dx).all(|v| v.is_finite()), "{}", what());
            assert!(plan.forward_uninit(&x, &mut fresh_y[1..]).is_err());
            assert!(plan.backward_uninit(&dy[1..], &mut fresh_dx).is_err());
        }
    }
}
