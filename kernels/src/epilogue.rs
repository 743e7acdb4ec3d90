//! What is applied to a register tile before its one store: bias, residual, activation.

use core::mem::MaybeUninit;

use crate::exec::Shared;
use crate::layout::{Layout, Strides};
use crate::shape::ConvShape;

/// An elementwise activation, with PyTorch's meanings and parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// `x`
    #[default]
    Identity,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, lo), hi)`: ReLU6 is `Clip { lo: 0, hi: 6 }`, hard-tanh `Clip { lo: -1, hi: 1 }`.
    Clip {
        /// Lower limit.
        lo: f32,
        /// Upper limit.
        hi: f32,
    },
    /// `x` where positive, else `slope * x`.
    LeakyRelu {
        /// Factor of negative values.
        slope: f32,
    },
    /// `x` where positive, else `alpha * (exp(x) - 1)`.
    Elu {
        /// Minus the limit at minus infinity.
        alpha: f32,
    },
    /// `scale * (x where positive, else alpha * (exp(x) - 1))` with the constants of Klambauer et al. 2017.
    Selu,
    /// `max(x, 0) + min(0, alpha * (exp(x / alpha) - 1))`
    Celu {
        /// Minus the limit at minus infinity.
        alpha: f32,
    },
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `x * (1 + erf(x / sqrt 2)) / 2`
    Gelu,
    /// GELU's tanh approximation.
    GeluTanh,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// `x * tanh(softplus(x))`
    Mish,
    /// `ln(1 + exp(beta x)) / beta`, and `x` where `beta x > threshold`.
    Softplus {
        /// Sharpness; PyTorch's default is 1.
        beta: f32,
        /// From here on linear; PyTorch's default is 20.
        threshold: f32,
    },
    /// `min(max(x + 3, 0), 6) / 6`
    HardSigmoid,
    /// `x * min(max(x + 3, 0), 6) / 6`
    HardSwish,
    /// Hard-swish with what small networks learn behind it: `scale * hardswish(x) + shift`.
    HardSwishAffine {
        /// Factor.
        scale: f32,
        /// What is added.
        shift: f32,
    },
}

/// What follows a convolution or matrix product before the store: `y = activation(sum + bias + residual)`.
///
/// ```
/// use swath_kernels::epilogue::{Activation, Epilogue};
/// let bias = [0.5; 64];
/// let e = Epilogue::bias(&bias).relu();
/// assert_eq!(e.activation, Activation::Relu);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One float per output channel.
    pub bias: Option<&'a [f32]>,
    /// A tensor with the output's extents, in its layout.
    pub residual: Option<&'a [f32]>,
    /// The activation.
    pub activation: Activation,
}

/// A vector of `len` elements that `write` writes, which nobody has filled before: it gets its memory, and returns that memory, written.
///
/// # Errors
/// Those of `write`.
///
/// # Panics
/// If the vector has no room for so many, or `write` returns other memory.
///
/// ```
/// use core::mem::MaybeUninit;
/// use swath_kernels::epilogue::written;
/// let y = written(Vec::with_capacity(3), 3, |memory| Ok::<_, ()>(memory.write_copy_of_slice(&[1.0, 2.0, 3.0])));
/// assert_eq!(y, Ok(vec![1.0, 2.0, 3.0]));
/// ```
pub fn written<T, E>(
    mut memory: Vec<T>,
    len: usize,
    write: impl for<'y> FnOnce(&'y mut [MaybeUninit<T>]) -> Result<&'y mut [T], E>,
) -> Result<Vec<T>, E> {
    memory.clear();
    let spare = &mut memory.spare_capacity_mut()[..len];
    let first = spare.as_ptr();
    let y = write(spare)?;
    assert!(core::ptr::eq(first.cast(), y.as_ptr()) && y.len() == len, "other memory was written");
    // SAFETY: a slice of values over all of this memory is what `write` returned, so that it holds them.
    unsafe { memory.set_len(len) };
    Ok(memory)
}

/// Memory for the outputs of a run, which are written whole: what it held does not matter.
#[derive(Debug)]
pub enum Outputs<'a, T = f32> {
    /// That holds floats, or what else is written.
    Floats(&'a mut [T]),
    /// That holds nothing yet.
    Unwritten(&'a mut [MaybeUninit<T>]),
}

impl<'a, T> From<&'a mut [T]> for Outputs<'a, T> {
    fn from(y: &'a mut [T]) -> Self {
        Outputs::Floats(y)
    }
}

impl<'a, T> From<&'a mut [MaybeUninit<T>]> for Outputs<'a, T> {
    fn from(y: &'a mut [MaybeUninit<T>]) -> Self {
        Outputs::Unwritten(y)
    }
}

impl<'a, T> Outputs<'a, T> {
    /// Elements.
    pub fn len(&self) -> usize {
        match self {
            Outputs::Floats(y) => y.len(),
            Outputs::Unwritten(y) => y.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements, all of this value.
    pub(crate) fn filled(self, value: T) -> &'a mut [T]
    where
        T: Copy,
    {
        match self {
            Outputs::Floats(y) => {
                y.fill(value);
                y
            }
            Outputs::Unwritten(y) => {
                y.fill(MaybeUninit::new(value));
                // SAFETY: all of it has just been written.
                unsafe { y.assume_init_mut() }
            }
        }
    }

    /// Has it written chunk by chunk, of `len` elements and a last one of what is left: `write` gets a chunk's number and memory, and returns
    /// that memory, written.
    ///
    /// # Panics
    /// If `len` is 0, or `write` returns other memory.
    ///
    /// ```
    /// use swath_kernels::epilogue::Outputs;
    /// let mut memory = [0.0; 5];
    /// let y = Outputs::from(&mut memory[..]).by_chunks(2, |i, chunk| {
    ///     let Outputs::Floats(y) = chunk else { unreachable!() };
    ///     y.fill(i as f32);
    ///     y
    /// });
    /// assert_eq!(y, [0.0, 0.0, 1.0, 1.0, 2.0]);
    /// ```
    pub fn by_chunks(mut self, len: usize, mut write: impl FnMut(usize, Outputs<'_, T>) -> &mut [T]) -> &'a mut [T] {
        let mut check = |i: usize, chunk: *const T, n: usize, y: Outputs<'_, T>| {
            let got = write(i, y);
            assert!(got.as_ptr() == chunk && got.len() == n, "chunk {i} was not written");
        };
        match &mut self {
            Outputs::Floats(y) => {
                for (i, y) in y.chunks_mut(len).enumerate() {
                    check(i, y.as_ptr(), y.len(), Outputs::Floats(y));
                }
            }
            Outputs::Unwritten(y) => {
                for (i, y) in y.chunks_mut(len).enumerate() {
                    check(i, y.as_ptr().cast(), y.len(), Outputs::Unwritten(y));
                }
            }
        }
        // SAFETY: every chunk came back as elements.
        unsafe { self.written() }
    }

    /// As memory that may hold nothing.
    ///
    /// # Safety
    /// Nothing but elements is written to it.
    pub(crate) unsafe fn memory(&mut self) -> &mut [MaybeUninit<T>] {
        match self {
            // SAFETY: the same memory, in which elements stay elements by the contract.
            Outputs::Floats(y) => unsafe { core::slice::from_raw_parts_mut(y.as_mut_ptr().cast(), y.len()) },
            Outputs::Unwritten(y) => y,
        }
    }

    /// The elements.
    ///
    /// # Safety
    /// If the memory held nothing, all of it has been written.
    pub(crate) unsafe fn written(self) -> &'a mut [T] {
        match self {
            Outputs::Floats(y) => y,
            // SAFETY: the same contract.
            Outputs::Unwritten(y) => unsafe { y.assume_init_mut() },
        }
    }
}

impl Outputs<'_> {
    /// For the parts of a run.
    pub(crate) fn shared(&mut self) -> Shared<'_> {
        match self {
            Outputs::Floats(y) => Shared::new(y),
            Outputs::Unwritten(y) => Shared::unwritten(y),
        }
    }
}

/// How long the slices of a convolution's run must be. Kernels go through pointers, so this is checked once a run.
pub(crate) struct Lengths {
    x: usize,
    packed: usize,
    /// Of the output, and of the residual.
    y: usize,
    /// Whether outputs have gaps between them, which no kernel writes.
    gaps: bool,
    /// Output channels, as many as the bias has.
    channels: usize,
}

impl Lengths {
    /// Of a run on `packed` floats of weights, with input and output of these layouts and distances.
    pub fn new(s: &ConvShape, packed: usize, tensors: [(Layout, Strides); 2]) -> Self {
        Self::of([s.input(), s.output()], packed, tensors)
    }

    /// The same of a convolution's data gradient, from its output to its input.
    pub fn backward(s: &ConvShape, packed: usize, tensors: [(Layout, Strides); 2]) -> Self {
        Self::of([s.output(), s.input()], packed, tensors)
    }

    fn of([from, to]: [[usize; 4]; 2], packed: usize, [x, y]: [(Layout, Strides); 2]) -> Self {
        let reach = |(layout, strides): (Layout, Strides), dims| strides.reach(layout, dims);
        let (x, y_len) = (reach(x, from), reach(y, to));
        Self { x, packed, y: y_len, gaps: y_len != y.0.len(to), channels: to[1] }
    }

    /// Panics where a slice is not so long, and where outputs with gaps between them lie in memory that holds nothing.
    #[track_caller]
    pub fn assert(&self, x: &[f32], packed: &[f32], epilogue: &Epilogue<'_>, y: &Outputs<'_>) {
        assert_eq!(x.len(), self.x, "input length");
        assert_eq!(packed.len(), self.packed, "packed weights' length");
        self.assert_outputs(epilogue, y);
    }

    /// The same of the outputs, and what is added to them.
    #[track_caller]
    pub fn assert_outputs(&self, epilogue: &Epilogue<'_>, y: &Outputs<'_>) {
        assert_eq!(y.len(), self.y, "output length");
        assert!(!self.gaps || matches!(y, Outputs::Floats(_)), "gaps between outputs stay unwritten");
        assert!(epilogue.bias.is_none_or(|b| b.len() == self.channels), "bias length");
        assert!(epilogue.residual.is_none_or(|r| r.len() == self.y), "residual length");
    }
}

impl<'a> Epilogue<'a> {
    /// Nothing at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// A bias.
    pub fn bias(bias: &'a [f32]) -> Self {
        Self { bias: Some(bias), ..Self::default() }
    }

    /// The same with a residual to add.
    #[must_use]
    pub fn residual(self, residual: &'a [f32]) -> Self {
        Self { residual: Some(residual), ..self }
    }

    /// The same with an activation.
    #[must_use]
    pub fn activation(self, activation: Activation) -> Self {
        Self { activation, ..self }
    }

    /// The same with ReLU.
    #[must_use]
    pub fn relu(self) -> Self {
        self.activation(Activation::Relu)
    }
}
