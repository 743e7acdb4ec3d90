//! Training: optimizers, schedules of the learning rate, clipping, and averages of weights.
//!
//! Names, defaults and the order of operations are PyTorch's, so that a recipe written for it means the same here.
//!
//! | module | what it holds |
//! |---|---|
//! | [`optimizer`] | the rules that change a parameter by its gradient: [`Sgd`], [`Adam`], [`AdamW`], [`RmsProp`] |
//! | [`optimization`] | [`Optimization`]: a rule for each group of parameters, and the state of every parameter |
//! | [`schedule`] | learning rates over time: steps, cosine, warm-up, one-cycle, plateau, sequences of them |
//! | [`clip`] | clipping of gradients by norm and by value |
//! | [`average`] | [`WeightAverage`]: the exponential moving average of the weights |
//! | [`loss`] | losses as operators: cross-entropy, squared and absolute differences, binary cross-entropy, Dice |
//! | [`trainer`] | [`Trainer`]: a model, its loss and its optimizer, a step at a time |
//! | [`fit()`] | epochs over a loader, validation, the best weights, checkpoints, early stopping |
//! | [`checkpoint`] | [`Checkpoint`]: a run at rest, in one file |
//!
//! ```
//! use swath::train::{Adjust, Optimization, Rates, Sgd, schedule::{Schedule, StepLr}};
//!
//! // The minimum of (w - 3)^2, whose gradient is 2 (w - 3).
//! let mut optimization = Optimization::new(Sgd::new(0.2).momentum(0.5))?;
//! let w = optimization.register("w", &[1])?;
//! let schedule = StepLr::new(20).gamma(0.5);
//! let mut value = [0.0f32];
//! for step in 0..60 {
//!     optimization.follow(&schedule, step)?;
//!     let gradient = [2.0 * (value[0] - 3.0)];
//!     optimization.update(w, &mut value, &gradient, Adjust::NONE)?;
//! }
//! assert!((value[0] - 3.0).abs() < 1e-4);
//! # Ok::<(), swath::Error>(())
//! ```

pub mod average;
pub mod checkpoint;
pub mod clip;
mod fit;
mod gradient_check;
mod gradients;
pub mod loss;
pub mod optimization;
pub mod optimizer;
pub mod schedule;
pub mod trainer;

pub use average::WeightAverage;
pub use checkpoint::{Checkpoint, Progress, Tally};
pub use clip::Clip;
pub use fit::{EpochReport, Event, Fit, evaluate, fit, predict, targets};
pub use gradient_check::{GradientCheck, check_gradients};
pub use gradients::{GradientOptions, Gradients, gradients};
pub use loss::Loss;
pub use optimization::{Optimization, ParameterId, Select};
pub use optimizer::{Adam, AdamW, Adjust, Optimizer, Rates, RmsProp, Sgd};
pub use trainer::{Footprint, StepReport, Trainer, TrainerOptions};
