//! A model whose inputs have other dimensions from run to run.

use std::collections::VecDeque;

use super::session::{Network, NetworkSession};
use crate::SessionOptions;
use crate::error::{Error, Result};
use crate::ops::Array;

/// A [`Network`] that is compiled for each shape that comes, and keeps the sessions of the last few.
///
/// Each shape that is kept has its own packed weights and activations. The number of them is bounded, and so is the memory: the shape that
/// was not used for the longest time goes first.
///
/// ```
/// use swath::nn::*;
/// use swath::onnx::{Network, Shapes, export};
/// use swath::ops::Array;
///
/// let model = Sequential::new((Conv2d::new(1, 2, 3), AdaptiveAvgPool2d::new(1), Flatten)).build(1)?;
/// let network = Network::from_bytes(export(&model, [1, 1, 8, 8])?)?;
/// let mut shapes = Shapes::new(network, Default::default(), 4)?;
/// for n in 1..=6 {
///     let x = Array::vector(vec![0.5f32; n * 64]).with_dims([n, 1, 8, 8]).expect("as many elements");
///     assert_eq!(shapes.run(&[x])?[0].dims(), [n, 2]);
/// }
/// assert_eq!(shapes.kept(), 4);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Debug)]
pub struct Shapes {
    network: Network,
    options: SessionOptions,
    limit: usize,
    names: Vec<String>,
    /// The last used last.
    sessions: VecDeque<NetworkSession>,
}

impl Shapes {
    /// Keeps the sessions of at most `limit` shapes.
    ///
    /// # Errors
    ///
    /// If `limit` is 0, or the bytes are no model.
    pub fn new(network: Network, options: SessionOptions, limit: usize) -> Result<Self> {
        if limit == 0 {
            let (value, rule) = (limit.to_string(), "at least the last one is kept".into());
            return Err(Error::Setting { what: "the number of shapes that are kept", value, rule });
        }
        let names = network.model()?.graph.free_inputs().map(|i| i.name.to_string()).collect();
        Ok(Self { network, options, limit, names, sessions: VecDeque::new() })
    }

    /// The session for these inputs' dimensions, compiled if it is not kept.
    ///
    /// # Errors
    ///
    /// As [`Network::compile`], and for another number of inputs.
    pub fn session(&mut self, inputs: &[Array]) -> Result<&mut NetworkSession> {
        if inputs.len() != self.names.len() {
            return Err(Error::Inputs { takes: self.names.len(), gets: inputs.len() });
        }
        let fits = |s: &NetworkSession| s.inputs().zip(inputs).all(|((_, fact), array)| fact.dims == array.dims());
        match self.sessions.iter().position(fits) {
            Some(at) => {
                // To the end, without an allocation.
                self.sessions.make_contiguous()[at..].rotate_left(1);
            }
            None => {
                let dims: Vec<(&str, &[usize])> =
                    self.names.iter().map(String::as_str).zip(inputs.iter().map(Array::dims)).collect();
                // Room first, so that no more than the limit exist at once.
                if self.sessions.len() >= self.limit {
                    self.sessions.pop_front();
                }
                let session = self.network.compile(&dims, &self.options)?;
                self.sessions.push_back(session);
            }
        }
        Ok(self.sessions.back_mut().expect("the session that was just used"))
    }

    /// Runs the model; its outputs are the session's, and are overwritten by the next run.
    ///
    /// # Errors
    ///
    /// As [`Shapes::session`] and [`NetworkSession::run`].
    pub fn run(&mut self, inputs: &[Array]) -> Result<&[Array]> {
        self.session(inputs)?.run_in_place(inputs)
    }

    /// The number of shapes whose sessions are kept.
    pub fn kept(&self) -> usize {
        self.sessions.len()
    }

    /// Bytes of activations and outputs, of packed weights and constants, and of scratch for each thread, of all that are kept.
    pub fn memory(&self) -> [usize; 3] {
        self.sessions.iter().map(NetworkSession::memory).fold([0; 3], |all, one| [0, 1, 2].map(|i| all[i] + one[i]))
    }
}
