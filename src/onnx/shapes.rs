//! A model whose inputs have other dimensions from run to run.

use core::fmt;
use std::collections::VecDeque;

use xxhash_rust::xxh3::Xxh3;

use super::session::{Network, NetworkSession};
use crate::error::{Error, Result};
use crate::graph::packed::ReadyWeights;
use crate::ops::Array;
use crate::{Session, SessionOptions};

/// A [`Network`] that is compiled for each shape that comes, and keeps the sessions of the last few.
///
/// Weights are packed once for all shapes that take the same algorithm, known by their contents; each shape that is kept has activations of
/// its own. The number of shapes is bounded, and so is the memory: the one that was not used for the longest time goes first.
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
pub struct Shapes {
    network: Network,
    options: SessionOptions,
    limit: usize,
    names: Vec<String>,
    /// The last used last.
    sessions: VecDeque<NetworkSession>,
    /// Weights that the sessions share.
    ready: ReadyWeights,
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
        let ready = ReadyWeights::by_contents(name);
        Ok(Self { network, options, limit, names, sessions: VecDeque::new(), ready })
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
                let session = self.network.compile_sharing(&dims, &self.options, &self.ready)?;
                self.sessions.push_back(session);
                // Now, so that the new session could take what only the one before it had.
                self.ready.free_unused();
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

    /// Bytes of activations and outputs, of packed weights and constants, and of scratch for each thread, of all that are kept. Packed
    /// weights that several share count once.
    pub fn memory(&self) -> [usize; 3] {
        let own = |s: &NetworkSession| {
            let [activations, fixed, scratch] = s.memory();
            [activations, fixed - s.session().map_or(0, Session::packed_bytes), scratch]
        };
        let shared = [0, self.ready.bytes(), 0];
        self.sessions.iter().map(own).fold(shared, |all, one| [0, 1, 2].map(|i| all[i] + one[i]))
    }
}

impl fmt::Debug for Shapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} shapes of {:?}", self.kept(), self.limit, self.network)
    }
}

/// 128 bits of xxHash 3 over all pieces and their lengths. Whoever makes two weights of the same hash harms a model of their own.
fn name(pieces: &mut dyn Iterator<Item = &[u8]>) -> u128 {
    let mut hash = Xxh3::new();
    for piece in pieces {
        hash.update(&piece.len().to_le_bytes());
        hash.update(piece);
    }
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Accuracy;
    use crate::nn::{AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, ReLU, Sequential};
    use crate::onnx::export;

    fn input(n: usize) -> Array {
        let x = (0..n * 16 * 64).map(|i| (i * 37 % 101) as f32 / 101.0).collect::<Vec<f32>>();
        Array::vector(x).with_dims([n, 16, 8, 8]).unwrap()
    }

    #[test]
    fn shapes_share_weights_and_compute_what_each_alone_does() {
        let conv = || Conv2d::new(16, 16, 3).padding(1);
        // Two convolutions of the same geometry, one of which absorbs a normalisation.
        let net = (conv(), BatchNorm2d::new(16), ReLU, conv(), AdaptiveAvgPool2d::new(1), Flatten, Linear::new(16, 5));
        let network =
            Network::from_bytes(export(&Sequential::new(net).build(3).unwrap(), [1, 16, 8, 8]).unwrap()).unwrap();
        // One algorithm for all batches, whose weights they share, whatever the machine prefers.
        let options = SessionOptions::default().threads(1).accuracy(Accuracy::Exact);
        let mut shapes = Shapes::new(network.clone(), options.clone(), 2).unwrap();
        let mut fixed = Vec::new();
        for n in [1, 2, 3, 1] {
            let x = input(n);
            let mut alone = network.compile(&[("input", x.dims())], &options).unwrap();
            let expected = alone.run(std::slice::from_ref(&x)).unwrap();
            assert_eq!(shapes.run(std::slice::from_ref(&x)).unwrap(), &expected[..], "batch {n}");
            fixed.push((shapes.memory()[1], alone.memory()[1]));
        }
        let (first, one) = fixed[0];
        assert_eq!(first, one);
        for (kept, _) in &fixed[1..] {
            assert!(*kept < 2 * one, "two shapes have {kept} bytes, one {one}");
        }
    }

    #[test]
    fn contents_differ_by_where_pieces_end() {
        let of = |pieces: &[&[u8]]| name(&mut pieces.iter().copied());
        assert_eq!(of(&[b"ab", b"c"]), of(&[b"ab", b"c"]));
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
        assert_ne!(of(&[b"ab"]), of(&[b"ab", b""]));
    }
}
