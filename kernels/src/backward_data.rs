//! The gradient at a convolution's input, which is the transposed convolution of the gradient at its output.
//!
//! ```text
//! dx[i] = sum over (oc, k, o) with o * s + k * d - p = i  of  dy[o] * w[oc, k]
//!
//! for each phase (y, x) of the stride, of those that meet a tap:
//!   convolution, direct or depthwise, of stride 1 and dilation d / gcd(s, d) of dy with every s / gcd(s, d)-th tap,
//!     turned, which writes every s-th row and column of dx
//! what meets no tap: activation(bias + residual), 0 for a gradient
//! ```
//!
//! Every geometry is done so: any stride, dilation, padding (also beyond the kernel) and groups, in every layout.
//! Nothing is copied: a phase reads a part of `dy` and writes a lattice of `dx`. For stride 1 there is one phase, a
//! convolution of its own ([`turned`]), which other algorithms can do as well. Over planes of NCHW [`PlanarData`] computes the phases of a
//! row side by side.
//!
//! Order of each sum: as for [`direct`](crate::direct), over the phase's turned taps. Error: as for the register tile.

mod fill;
mod phase;
mod plan;
mod plane;

use phase::{Axis, AxisPhase, Window};
use plan::Plan;
pub use plane::{PlanarData, PlanarRow, planar_rows};

use crate::depthwise::Depthwise;
use crate::direct::Direct;
use crate::epilogue::{Epilogue, Lengths, Outputs};
use crate::exec::{Executor, Inline, for_each_part_with};
use crate::isa::Level;
use crate::layout::{Layout, Strides, View};
use crate::machine::Core;
use crate::shape::{ConvShape, ShapeError};
use crate::tile::{Finish, SyncFinish};
use crate::weights::{Taps, Weights};

/// The convolution that is the data gradient of `s`, if it is a single one over all of `dy`: stride 1, and padding
/// within the kernel. Its weights are all taps, [`turned`](Weights::turned).
///
/// ```
/// use swath_kernels::{backward_data::turned, shape::ConvShape};
/// let s = ConvShape::builder([1, 64, 56, 56], [128, 64, 3, 3]).padding(1).build()?;
/// let t = turned(&s).unwrap();
/// assert_eq!((t.input(), t.output(), t.pad.top), (s.output(), s.input(), 1));
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
pub fn turned(s: &ConvShape) -> Option<ConvShape> {
    if (s.sh, s.sw) != (1, 1) {
        return None;
    }
    let (y, x) = (Axis::y(s).phases().next()?.window?, Axis::x(s).phases().next()?.window?);
    let whole = [y.view, x.view] == [[0, s.oh], [0, s.ow]];
    convolution(s, &y, &x).ok().filter(|t| whole && t.output() == s.input())
}

/// The convolution of stride 1 that two windows are.
fn convolution(s: &ConvShape, y: &Window, x: &Window) -> Result<ConvShape, ShapeError> {
    ConvShape::builder([s.n, s.oc, y.view[1], x.view[1]], [s.ic, s.ocg(), y.taps.n, x.taps.n])
        .dilation([y.dilation, x.dilation])
        .padding([y.pad[0], x.pad[0], y.pad[1], x.pad[1]])
        .groups(s.groups)
        .build()
}

/// Most phases of a data gradient: those of strides of 64 in both axes.
pub const MOST_PHASES: usize = 1 << 12;

/// Whether there are few enough phases to list them.
fn few_phases(s: &ConvShape) -> Result<(), ShapeError> {
    let few = Axis::y(s).count().saturating_mul(Axis::x(s).count()) <= MOST_PHASES;
    if few { Ok(()) } else { Err(ShapeError::Overflow { what: "list of the stride's phases", limit: MOST_PHASES }) }
}

/// A phase: which of the plans, and where its tensors lie.
#[derive(Clone, Copy, Debug)]
struct Phase {
    plan: usize,
    /// Where its part of `dy` begins, in floats.
    x: usize,
    /// Where its first element of `dx` lies, in floats.
    y: usize,
    taps: [Taps; 2],
    /// Where its packed weights begin.
    packed: usize,
}

/// A data gradient, planned: the phases of the stride, each a direct or depthwise convolution. Holds no tensor.
///
/// ```
/// use swath_kernels::{epilogue::Epilogue, exec::Inline, isa::Level, layout::Layout, shape::ConvShape};
/// use swath_kernels::{backward_data::BackwardData, machine::Core};
/// let shape = ConvShape::builder([1, 1, 4, 4], [1, 1, 2, 2]).stride(2).build()?;
/// let plan = BackwardData::new(&shape, Core::here(Level::Scalar), Layout::Nchw, Layout::Nchw)?;
/// let mut packed = vec![0.0; plan.packed_len()];
/// plan.pack(&[1.0, 2.0, 3.0, 4.0], &mut packed);
/// let mut dx = [f32::NAN; 16];
/// plan.run(&[1.0, 10.0, 0.0, 0.0], &packed, &Epilogue::none(), dx.as_mut_slice().into(), &mut [], &Inline);
/// assert_eq!(dx[..8], [1.0, 2.0, 10.0, 20.0, 3.0, 4.0, 30.0, 40.0]);
/// # Ok::<(), swath_kernels::shape::ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct BackwardData {
    shape: ConvShape,
    core: Core,
    /// How `dy` and `dx` lie.
    input: Layout,
    output: Layout,
    ds: Strides,
    xs: Strides,
    /// The phases' convolutions, each different one once.
    plans: Vec<Plan>,
    phases: Vec<Phase>,
    packed_len: usize,
    /// Whether some positions meet no tap.
    holes: bool,
}

impl BackwardData {
    /// Plans the data gradient of the convolution `shape`, from `dy` in layout `input` to `dx` in layout `output`.
    ///
    /// # Errors
    /// Where a phase's sizes overflow, though those of the convolution do not, and for strides of more than [`MOST_PHASES`] phases.
    pub fn new(shape: &ConvShape, core: Core, input: Layout, output: Layout) -> Result<Self, ShapeError> {
        Self::of_views(shape, core, [View::dense(input, shape.output()), View::dense(output, shape.input())])
    }

    /// The same for a `dy` and a `dx` that are parts of larger tensors.
    ///
    /// # Errors
    /// As for [`BackwardData::new`].
    ///
    /// # Panics
    /// If a view has other extents than the shape's.
    pub fn of_views(shape: &ConvShape, core: Core, views: [View; 2]) -> Result<Self, ShapeError> {
        few_phases(shape)?;
        let layouts = views.map(|view| view.layout());
        let phase = |conv: Result<ConvShape, ShapeError>, strides| -> Result<Plan, ShapeError> {
            let direct = Direct::within(&conv?, core, layouts, strides, None);
            Ok(Plan::Direct(Box::new(direct)))
        };
        Self::by(shape, core, views, phase)
    }

    /// Plans it by depthwise convolutions, where one vector of input channels holds whole groups.
    ///
    /// # Errors
    /// A reason, as for [`Depthwise::new`] and [`BackwardData::new`].
    ///
    /// # Panics
    /// If a view has other extents than the shape's.
    pub fn depthwise(shape: &ConvShape, core: Core, views: [View; 2]) -> Result<Self, String> {
        few_phases(shape).map_err(|e| e.to_string())?;
        let layouts = views.map(|view| view.layout());
        let phase = |conv: Result<ConvShape, ShapeError>, strides| -> Result<Plan, String> {
            let conv = conv.map_err(|e| e.to_string())?;
            let plan = Depthwise::within(&conv, core, layouts, strides, None)?;
            Ok(Plan::Depthwise(Box::new(plan.phase_of(shape.macs()))))
        };
        Self::by(shape, core, views, phase)
    }

    /// Plans each phase by `plan`, which is given its convolution and the strides of its tensors.
    fn by<E>(
        shape: &ConvShape,
        core: Core,
        [dy, dx]: [View; 2],
        plan: impl Fn(Result<ConvShape, ShapeError>, [Strides; 2]) -> Result<Plan, E>,
    ) -> Result<Self, E> {
        shape.assert_consistent();
        let s = *shape;
        let (ds, xs) = (dy.strides_of(s.output()), dx.strides_of(s.input()));
        let lattice = Strides { row: s.sh.saturating_mul(xs.row), px: s.sw.saturating_mul(xs.px), ..xs };
        let mut this = Self {
            shape: s,
            core,
            input: dy.layout(),
            output: dx.layout(),
            ds,
            xs,
            plans: Vec::new(),
            phases: Vec::new(),
            packed_len: 0,
            holes: false,
        };
        for y in Axis::y(&s).phases() {
            for x in Axis::x(&s).phases() {
                let (Some(wy), Some(wx)) = (y.window, x.window) else {
                    this.holes = true;
                    continue;
                };
                let conv = convolution(&s, &wy, &wx);
                let known = conv.as_ref().ok().and_then(|conv| this.plans.iter().position(|p| p.shape() == conv));
                let plan = match known {
                    Some(plan) => plan,
                    None => {
                        this.plans.push(plan(conv, [ds, lattice])?);
                        this.plans.len() - 1
                    }
                };
                debug_assert_eq!(this.plans[plan].shape().output(), [s.n, s.ic, y.outputs, x.outputs]);
                this.phases.push(Phase {
                    plan,
                    x: wy.view[0] * ds.row + wx.view[0] * ds.px,
                    y: y.first * xs.row + x.first * xs.px,
                    taps: [wy.taps, wx.taps],
                    packed: this.packed_len,
                });
                this.packed_len += this.plans[plan].packed_len();
            }
        }
        Ok(this)
    }

    /// The convolution whose gradient this is.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }

    /// The instruction-set level whose tiles run.
    pub fn level(&self) -> Level {
        self.core.level
    }

    /// Name of the tile that does most of the work: what `explain` prints.
    pub fn kernel(&self) -> &'static str {
        let macs = |p: &&Phase| self.plans[p.plan].shape().macs();
        self.phases.iter().max_by_key(macs).map_or("none", |p| self.plans[p.plan].kernel())
    }

    /// Multiply-adds done per multiply-add that counts: 1 except where groups are unaligned with blocks.
    pub fn waste(&self) -> f64 {
        self.plans.iter().map(Plan::waste).fold(1.0, f64::max)
    }

    /// Whether `dy` and `dx` take as long as if they were copied, to blocks and from them: those in NCHW by depthwise kernels, which store
    /// a lattice pixel by pixel.
    pub fn copied(&self) -> [bool; 2] {
        let in_blocks = self.plans.iter().any(|plan| matches!(plan, Plan::Depthwise(_)));
        [self.input, self.output].map(|layout| in_blocks && layout == Layout::Nchw)
    }

    /// Floats of packed weights: phase after phase.
    pub fn packed_len(&self) -> usize {
        self.packed_len
    }

    /// Packs the convolution's weights `[oc, ic / groups, kh, kw]`.
    ///
    /// # Panics
    /// If a slice's length is not what the shape and [`BackwardData::packed_len`] say.
    pub fn pack(&self, w: &[f32], packed: &mut [f32]) {
        self.pack_from(&Weights::forward(&self.shape, w), packed, &Inline);
    }

    /// The same of the convolution's weights in any order, on the executor's threads.
    ///
    /// # Panics
    /// As for [`BackwardData::pack`].
    pub fn pack_from(&self, w: &Weights<'_>, packed: &mut [f32], executor: &dyn Executor) {
        assert_eq!(packed.len(), self.packed_len, "packed weights' length");
        for phase in &self.phases {
            let plan = &self.plans[phase.plan];
            let to = &mut packed[phase.packed..][..plan.packed_len()];
            plan.pack_from(&w.turn(phase.taps), to, executor);
        }
    }

    /// Floats of scratch for one thread.
    pub fn scratch_len(&self) -> usize {
        self.plans.iter().map(Plan::scratch_len).max().unwrap_or(0)
    }

    /// Computes `dx = activation(transposed convolution of dy + bias + residual)` on the executor's threads; a gradient
    /// has no epilogue. The bias has one float per input channel of the convolution, the residual lies as `dx` does.
    /// `scratch` holds [`BackwardData::scratch_len`] floats for each thread that is to take part, at least for one.
    ///
    /// The outputs may lie in memory that holds nothing yet; what they then are is returned.
    ///
    /// # Panics
    /// If a slice's length is not what the shape, the layouts and [`BackwardData::packed_len`] say. Where outputs with gaps between
    /// them lie in memory that holds nothing.
    pub fn run<'x>(
        &self,
        dy: &[f32],
        packed: &[f32],
        epilogue: &Epilogue<'_>,
        mut dx: Outputs<'x>,
        scratch: &mut [f32],
        executor: &dyn Executor,
    ) -> &'x mut [f32] {
        Lengths::backward(&self.shape, self.packed_len, [(self.input, self.ds), (self.output, self.xs)])
            .assert(dy, packed, epilogue, &dx);
        assert!(self.core.level.is_available());
        let shared = dx.shared();
        let finish = SyncFinish(Finish::new(epilogue, self.core.level));
        if self.holes {
            fill::Fill { d: self, y: shared, finish }.all(executor);
        }
        let threads = executor.threads();
        // As many parts for each phase, those that a small one lacks are empty. All phases of a part follow each other, which write
        // neighbouring lines.
        let most = self.plans.iter().map(|p| p.parts(threads)).max().unwrap_or(0);
        let phases = self.phases.len();
        for_each_part_with(executor, phases * most, scratch, self.scratch_len(), |i, scratch| {
            let (i, phase) = (i / phases, &self.phases[i % phases]);
            let plan = &self.plans[phase.plan];
            let packed = &packed[phase.packed..][..plan.packed_len()];
            let dy = &dy[phase.x.min(dy.len())..];
            plan.part((dy, packed), finish, (shared, phase.y), [threads, i], scratch);
        });
        // SAFETY: each position is of a phase, whose parts write all of its outputs, channels that pad included, or meets no tap and is
        // filled; what holds nothing has no gaps (asserted).
        unsafe { dx.written() }
    }

    /// Positions of an axis that meet no tap.
    fn holes(axis: Axis) -> impl Iterator<Item = AxisPhase> + Clone {
        axis.phases().filter(|p| p.window.is_none())
    }
}
