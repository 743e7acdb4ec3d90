//! Operations on plain slices as nodes of burn's graph.

use std::borrow::Cow;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::{BalancedCheckpointing, CheckpointStrategy, NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, DispatchKindConversion, DispatchTensor, Flex, TensorData, TensorMetadata};
use burn::tensor::Tensor;
use swath::pool::{AdaptiveAvgPool, AvgPool};
use swath::resample::Resample;
use swath::{Error, Result, written};

/// An operation of `N` tensors, of any rank, to one of four axes.
pub trait Operation<const N: usize>: Clone + Debug + Send + 'static {
    /// Extents of the output.
    fn output(&self) -> [usize; 4];

    /// The output. If it is `tracked`, there is a backward pass to come.
    fn forward(&self, inputs: [&[f32]; N], tracked: bool) -> Result<Vec<f32>>;

    /// Gradients of the inputs that are wanted.
    fn backward(&self, inputs: [&[f32]; N], dy: &[f32], wanted: [bool; N]) -> Result<[Option<Vec<f32>>; N]>;
}

/// A plan whose gradient follows from that of the output alone.
pub trait Passes: Clone + Debug + Send + 'static {
    fn forward<'y>(&self, x: &[f32], y: &'y mut [MaybeUninit<f32>]) -> Result<&'y mut [f32]>;
    fn backward<'x>(&self, dy: &[f32], dx: &'x mut [MaybeUninit<f32>]) -> Result<&'x mut [f32]>;
}

macro_rules! passes {
    ($($plan:ty)*) => {$(
        impl Passes for $plan {
            fn forward<'y>(&self, x: &[f32], y: &'y mut [MaybeUninit<f32>]) -> Result<&'y mut [f32]> {
                self.forward_uninit(x, y)
            }

            fn backward<'x>(&self, dy: &[f32], dx: &'x mut [MaybeUninit<f32>]) -> Result<&'x mut [f32]> {
                self.backward_uninit(dy, dx)
            }
        }
    )*};
}

passes! { AvgPool AdaptiveAvgPool Resample }

/// Such a plan, and the extents of its output.
#[derive(Clone, Debug)]
pub struct Plain<P>(pub P, pub [usize; 4]);

impl<P: Passes> Operation<1> for Plain<P> {
    fn output(&self) -> [usize; 4] {
        self.1
    }

    fn forward(&self, [x]: [&[f32]; 1], _: bool) -> Result<Vec<f32>> {
        written(self.1.iter().product(), |y| self.0.forward(x, y))
    }

    fn backward(&self, [x]: [&[f32]; 1], dy: &[f32], _: [bool; 1]) -> Result<[Option<Vec<f32>>; 1]> {
        Ok([Some(written(x.len(), |dx| self.0.backward(dy, dx))?)])
    }
}

/// A tensor of any rank.
pub enum Any {
    /// Of one axis.
    One(Tensor<1>),
    /// Of four.
    Four(Tensor<4>),
}

/// Runs an operation where its tensors are: burn's CPU backend, with or without gradients.
pub fn apply<const N: usize>(op: impl Operation<N>, inputs: [Any; N]) -> Result<Tensor<4>> {
    if let Ok(tensors) = plain(&inputs) {
        let y = op.forward(slices(&floats(&tensors)?), false)?;
        return Ok(Tensor::from_primitive::<Flex>(made(y, op.output())));
    }
    let unless = |done: std::result::Result<Tensor<4>, Option<Error>>| match done {
        Err(None) => None,
        Err(Some(e)) => Some(Err(e)),
        Ok(y) => Some(Ok(y)),
    };
    unless(tracked::<NoCheckpointing, N>(&op, &inputs))
        .or_else(|| unless(tracked::<BalancedCheckpointing, N>(&op, &inputs)))
        .unwrap_or_else(|| Err(elsewhere()))
}

fn elsewhere() -> Error {
    let rule = "swath takes tensors of burn's backend Flex, all with gradients or all without".into();
    Error::Setting { what: "the backend of a tensor", value: "another one".into(), rule }
}

/// The tensors, if none is of a graph.
fn plain<const N: usize>(inputs: &[Any; N]) -> std::result::Result<[FlexTensor; N], ()> {
    let tensors: Vec<FlexTensor> = inputs
        .iter()
        .map(|input| match input {
            Any::One(t) => t.clone().try_into_primitive::<Flex>().map_err(drop),
            Any::Four(t) => t.clone().try_into_primitive::<Flex>().map_err(drop),
        })
        .collect::<std::result::Result<_, _>>()?;
    tensors.try_into().map_err(drop)
}

/// A node of the graph; `None` as error if the tensors are none of a graph with that strategy.
fn tracked<C, const N: usize>(
    op: &impl Operation<N>,
    inputs: &[Any; N],
) -> std::result::Result<Tensor<4>, Option<Error>>
where
    C: CheckpointStrategy,
    DispatchTensor: DispatchKindConversion<Autodiff<Flex, C>>,
{
    let mut parts = Vec::with_capacity(N);
    for input in inputs {
        let tensor = match input {
            Any::One(t) => t.clone().try_into_primitive::<Autodiff<Flex, C>>(),
            Any::Four(t) => t.clone().try_into_primitive::<Autodiff<Flex, C>>(),
        };
        parts.push(tensor.map_err(|_| None)?.into_parts());
    }
    let (tensors, nodes): (Vec<FlexTensor>, Vec<_>) = parts.into_iter().unzip();
    let (Ok(tensors), Ok(nodes)) = (<[FlexTensor; N]>::try_from(tensors), nodes.try_into()) else {
        unreachable!("there are N of them")
    };
    let floats = floats(&tensors).map_err(Some)?;
    let run = |tracked| op.forward(slices(&floats), tracked).map_err(Some);
    let y = match Node::new(op).prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let y = run(true)?;
            prep.finish((op.clone(), tensors.clone()), made(y, op.output()))
        }
        OpsKind::UnTracked(prep) => prep.finish(made(run(false)?, op.output())),
    };
    Ok(Tensor::from_primitive::<Autodiff<Flex, C>>(y))
}

/// burn wants a type without state here.
#[derive(Debug)]
struct Node<O>(PhantomData<O>);

impl<O> Node<O> {
    fn new(_: &O) -> Self {
        Self(PhantomData)
    }
}

impl<O: Operation<N>, const N: usize> Backward<Flex, N> for Node<O> {
    type State = (O, [FlexTensor; N]);

    /// # Panics
    /// If there is no memory: burn's backward pass has no errors. All else was checked by the forward pass.
    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = [gradients.consume::<Flex>(&ops.node)];
        let (op, tensors) = ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let done = floats(&tensors).and_then(|inputs| {
            let [dy] = floats(&dy)?;
            op.backward(slices(&inputs), &dy, wanted)
        });
        let all = done.unwrap_or_else(|e| panic!("swath: {e}"));
        for ((node, d), tensor) in ops.parents.into_iter().zip(all).zip(&tensors) {
            if let (Some(node), Some(d)) = (node, d) {
                gradients.register::<Flex>(node.id, made(d, tensor.shape()));
            }
        }
    }
}

/// The floats of tensors in order: as they lie, where they lie so, else copied.
fn floats<const N: usize>(tensors: &[FlexTensor; N]) -> Result<[Cow<'_, [f32]>; N]> {
    if let Some(other) = tensors.iter().find(|t| t.dtype() != burn::tensor::DType::F32) {
        let value = format!("{:?}", other.dtype());
        return Err(Error::Setting { what: "the type of a tensor", value, rule: "swath takes F32".into() });
    }
    Ok(tensors.each_ref().map(|tensor| match tensor.as_slice::<f32>() {
        Some(floats) => Cow::Borrowed(floats),
        None => {
            let copy = tensor.to_contiguous();
            Cow::Owned(copy.as_slice::<f32>().expect("it is contiguous and of f32").to_vec())
        }
    }))
}

fn slices<'a, const N: usize>(floats: &'a [Cow<'_, [f32]>; N]) -> [&'a [f32]; N] {
    floats.each_ref().map(|f| &**f)
}

fn made(floats: Vec<f32>, shape: impl Into<burn::tensor::Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(floats, shape))
}
