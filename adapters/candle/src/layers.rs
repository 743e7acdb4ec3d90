//! Layers in place of candle_nn's convolutions.

use std::sync::Arc;

use candle_core::{Module, Result, Tensor};

use crate::conv::{Apply, Product};
use crate::packs::Kept;

/// A layer of a weight, a bias and candle's options, if there are any.
macro_rules! layer {
    ($(#[$doc:meta])* $name:ident, $config:ty, $($option:ident)?) => {
        $(#[$doc])*
        ///
        /// Weights that are no variable and depend on none, as those of a file, are packed once for all batches and must not be
        /// written to afterwards; those that are trained are packed by every call.
        #[derive(Clone, Debug)]
        pub struct $name {
            weight: Tensor,
            bias: Option<Tensor>,
            config: $config,
            kept: Option<Arc<Kept>>,
        }

        impl $name {
            #[doc = concat!("As [`candle_nn::", stringify!($name), "::new`].")]
            pub fn new(weight: Tensor, bias: Option<Tensor>, $($option: $config)?) -> Self {
                // A variable is overwritten where it lies, and nothing says when.
                let kept = (!weight.track_op()).then(Default::default);
                let config = layer!(@config $($option)?);
                Self { weight, bias, config, kept }
            }

            /// The weights.
            pub fn weight(&self) -> &Tensor {
                &self.weight
            }

            /// The bias.
            pub fn bias(&self) -> Option<&Tensor> {
                self.bias.as_ref()
            }

            $(
                /// The options.
                pub fn $option(&self) -> &$config {
                    &self.config
                }
            )?
        }

        impl From<candle_nn::$name> for $name {
            fn from(layer: candle_nn::$name) -> Self {
                Self::new(layer.weight().clone(), layer.bias().cloned(), $(*layer.$option())?)
            }
        }

        impl Module for $name {
            fn forward(&self, x: &Tensor) -> Result<Tensor> {
                self.config.apply(x, &self.weight, self.bias.as_ref(), self.kept.clone())
            }
        }
    };
    (@config) => { Product };
    (@config $option:ident) => { $option };
}

layer! {
    /// In place of [`candle_nn::Conv2d`].
    ///
    /// ```
    /// use candle_core::{DType, Device, Module, Tensor};
    /// use candle_nn::{Conv2dConfig, VarBuilder, VarMap};
    /// # fn main() -> candle_core::Result<()> {
    /// let variables = VarMap::new();
    /// let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// let config = Conv2dConfig { padding: 1, ..Default::default() };
    /// let conv: swath_candle::Conv2d = candle_nn::conv2d(3, 16, 3, config, vb.pp("conv"))?.into();
    /// let y = conv.forward(&Tensor::zeros((2, 3, 8, 8), DType::F32, &Device::Cpu)?)?;
    /// assert_eq!(y.dims(), [2, 16, 8, 8]);
    /// # Ok(())
    /// # }
    /// ```
    Conv2d, candle_nn::Conv2dConfig, config
}
layer! {
    /// In place of [`candle_nn::Conv1d`].
    Conv1d, candle_nn::Conv1dConfig, config
}
layer! {
    /// In place of [`candle_nn::ConvTranspose2d`].
    ConvTranspose2d, candle_nn::ConvTranspose2dConfig, config
}
layer! {
    /// In place of [`candle_nn::ConvTranspose1d`].
    ConvTranspose1d, candle_nn::ConvTranspose1dConfig, config
}
layer! {
    /// In place of [`candle_nn::Linear`].
    Linear, Product,
}
