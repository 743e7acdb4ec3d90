//! Parameters of layers of one's own.

use crate::error::Result;
use crate::graph::{Init, LayerId, Value};

/// A parameter that a layer of one's own holds: it has the layer's dotted name, is initialised, trained and saved with the model.
///
/// The same parameter, used twice, is one. A clone is another.
///
/// ```
/// use swath::graph::Init;
/// use swath::nn::*;
/// use swath::{Result, Value};
///
/// /// `x * scale`, with a scale for each feature.
/// struct Scale(Parameter);
///
/// impl Module for Scale {
///     fn call(&self, x: &Value) -> Result<Value> {
///         Ok(x * &self.0.value(x)?)
///     }
/// }
///
/// let scale = Scale(Parameter::new("weight", [1, 3], Init::Constant(2.0)));
/// let model = Sequential::new((scale.named("scale"),)).build(0)?;
/// assert_eq!(model.parameter("scale.weight")?.as_slice(), [2.0; 3]);
/// assert_eq!(model.compile([1, 3])?.run(&[1.0, 2.0, 3.0])?.as_slice(), [2.0, 4.0, 6.0]);
/// # Ok::<(), swath::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Parameter {
    owner: LayerId,
    name: String,
    dims: Vec<usize>,
    init: Init,
}

impl Parameter {
    /// A parameter of this name within its layer, these extents, and this start.
    pub fn new(name: impl Into<String>, dims: impl AsRef<[usize]>, init: Init) -> Self {
        Self { owner: LayerId::new(), name: name.into(), dims: dims.as_ref().to_vec(), init }
    }

    /// Its value in the graph of `x`, declared where `x` is used: in the layer that is being called.
    ///
    /// # Errors
    /// [`Error::DuplicateParameter`](crate::Error::DuplicateParameter), where another layer has declared the name.
    pub fn value(&self, x: &Value) -> Result<Value> {
        x.parameter(&self.owner, &self.name, &self.dims, self.init)
    }
}
