//! PyTorch-shaped layers: thin builders of graph operators, with PyTorch's names, defaults and initialisation.
//!
//! A layer is a [`Module`]: a function from graph value to graph value. Layers compose by [`Sequential`] or by plain
//! Rust; parameters get PyTorch's dotted names, from the position in a `Sequential` or from [`Module::named`].
//!
//! ```
//! use swath::{Tensor, nn::*};
//! let model = Sequential::new((
//!     Conv2d::new(3, 16, 3).padding(1), ReLU, MaxPool2d::new(2),
//!     Flatten, Linear::new(16 * 4 * 4, 10),
//! )).build(7)?;
//! let names: Vec<&str> = model.parameters().map(|(name, _)| name).collect();
//! assert_eq!(names, ["0.weight", "0.bias", "4.weight", "4.bias"]);
//!
//! let mut session = model.compile([1, 3, 8, 8])?;
//! let logits = session.run(&Tensor::zeros([1, 3, 8, 8])?)?;
//! assert_eq!(logits.dims(), [1, 10]);
//! // The shape of another image does not fit the last layer:
//! let e = model.compile([1, 3, 16, 16]).unwrap_err();
//! assert_eq!(e.to_string(), "layer `4`: Linear takes 256 features, gets 1024");
//! # Ok::<(), swath::Error>(())
//! ```
//!
//! A custom module is a type that calls layers which it named, or just a function:
//!
//! ```
//! use swath::{Result, Value, nn::*};
//! struct Residual { conv1: Named<Conv2d>, conv2: Named<Conv2d> }
//! impl Residual {
//!     fn new(channels: usize) -> Self {
//!         let conv = || Conv2d::new(channels, channels, 3).padding(1);
//!         Self { conv1: conv().named("conv1"), conv2: conv().named("conv2") }
//!     }
//! }
//! impl Module for Residual {
//!     fn call(&self, x: &Value) -> Result<Value> {
//!         let y = self.conv2.call(&self.conv1.call(x)?.relu())? + x;
//!         Ok(y.relu())
//!     }
//! }
//! let double = |x: &Value| Ok(x + x);
//! let model = Sequential::new((Residual::new(16), double)).build(0)?;
//! assert_eq!(model.parameters().next().unwrap().0, "0.conv1.weight");
//! # Ok::<(), swath::Error>(())
//! ```

use crate::error::Result;
use crate::graph::{Graph, Value};
use crate::model::Model;

mod activation;
mod conv;
mod conv_transpose;
mod dropout;
mod linear;
mod norm;
mod pad;
mod parameter;
mod pool;
mod prelu;
mod resize;
mod sequential;

pub use activation::{
    CELU, ELU, GELU, Hardsigmoid, Hardswish, Hardtanh, LeakyReLU, LogSoftmax, Mish, ReLU, ReLU6, SELU, SiLU, Sigmoid,
    Softmax, Softmax2d, Softplus, Tanh,
};
pub use conv::{Conv2d, Conv2dPadding};
pub use conv_transpose::ConvTranspose2d;
pub use dropout::{Dropout, Dropout2d};
pub use linear::{Flatten, Identity, Linear};
pub use norm::{BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm};
pub use pad::{CircularPad2d, ConstantPad2d, PaddingMode, ReflectionPad2d, ReplicationPad2d, ZeroPad2d};
pub use parameter::Parameter;
pub use prelu::PReLU;
pub use resize::{PixelShuffle, PixelUnshuffle, Upsample, UpsampleMode};
pub use sequential::{IntoModules, Sequential};

pub use crate::graph::ops::adaptive_max::AdaptiveMaxPool2d;
pub use crate::graph::ops::crop::{CenterCrop, Crop};
pub use crate::graph::ops::pool::{AdaptiveAvgPool2d, AvgPool2d, MaxPool2d};

/// A function from graph value to graph value: a layer, or a model made of layers.
///
/// Also implemented by functions and closures `|x: &Value| -> Result<Value>`. A layer with parameters of its own holds a
/// [`Parameter`].
///
/// ```
/// use swath::{Result, Value, nn::*};
///
/// /// Two 3x3 convolutions around a shortcut.
/// struct Shortcut(Named<Conv2d>, Named<Conv2d>);
///
/// impl Module for Shortcut {
///     fn call(&self, x: &Value) -> Result<Value> {
///         Ok(x + self.1.call(&self.0.call(x)?.relu())?)
///     }
/// }
///
/// let conv = || Conv2d::new(4, 4, 3).padding(1);
/// let model = Shortcut(conv().named("a"), conv().named("b")).named("block").build(0)?;
/// assert_eq!(model.output_dims([1, 4, 6, 6])?, [1, 4, 6, 6]);
/// assert_eq!(model.parameter("block.a.weight")?.dims(), [4, 4, 3, 3]);
/// # Ok::<(), swath::Error>(())
/// ```
pub trait Module {
    /// Appends the module's operators to the graph of `x`.
    ///
    /// # Errors
    /// For options of layers that contradict each other. What depends on the input's shape is refused when the
    /// model is compiled.
    fn call(&self, x: &Value) -> Result<Value>;

    /// The name that the module brings along, instead of its position in a [`Sequential`].
    fn name(&self) -> Option<&str> {
        None
    }

    /// The module under a name of its own: parameters are called `name.weight` and so on.
    fn named(self, name: impl Into<String>) -> Named<Self>
    where
        Self: Sized,
    {
        Named { name: name.into(), module: self }
    }

    /// The module behind a pointer, to put modules of different types into one collection.
    fn boxed(self) -> Box<dyn Module>
    where
        Self: Sized + 'static,
    {
        Box::new(self)
    }

    /// Records the graph and initialises its parameters as PyTorch does. The same seed gives the same values on every
    /// machine.
    ///
    /// # Errors
    /// Those of [`Module::call`], and [`crate::Error::DuplicateParameter`].
    fn build(&self, seed: u64) -> Result<Model>
    where
        Self: Sized,
    {
        Model::new(Graph::record(|x| self.call(x))?, seed)
    }
}

impl<F: Fn(&Value) -> Result<Value>> Module for F {
    fn call(&self, x: &Value) -> Result<Value> {
        self(x)
    }
}

impl Module for Box<dyn Module> {
    fn call(&self, x: &Value) -> Result<Value> {
        self.as_ref().call(x)
    }

    fn name(&self) -> Option<&str> {
        self.as_ref().name()
    }
}

/// A module with a name; see [`Module::named`].
#[derive(Clone, Debug)]
pub struct Named<M> {
    name: String,
    module: M,
}

impl<M: Module> Module for Named<M> {
    fn call(&self, x: &Value) -> Result<Value> {
        x.scope(&self.name, |x| self.module.call(x))
    }

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }
}
