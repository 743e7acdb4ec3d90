//! The list of all tables of kernels: checksums of tuning files, `swath info`, benches and tests go through it.
//!
//! A kernel is a row of its family's table; a table has a list of rows for each level (`by_level!` of `kernels/src/table.rs`). Adding a
//! family is one line here.

use crate::isa::Level;
use crate::table::Named;

/// A table of kernels.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// What its kernels compute.
    pub name: &'static str,
    /// Names of a level's kernels, in the order of the table.
    pub names: fn(Level) -> &'static [&'static str],
}

/// All tables of kernels.
///
/// ```
/// use swath_kernels::{isa::Level, registry::FAMILIES};
/// let tile = FAMILIES.iter().find(|family| family.name == "tile").unwrap();
/// assert!((tile.names)(Level::Scalar).contains(&"conv_f32_2x16_scalar"));
/// ```
pub static FAMILIES: &[Family] = &[
    Family { name: "tile", names: <crate::tile::Row as Named>::names },
    Family { name: "depthwise", names: <crate::depthwise::Row as Named>::names },
    Family { name: "planar", names: <crate::planar::Row as Named>::names },
    Family { name: "data gradient along rows", names: <crate::backward_data::PlanarRow as Named>::names },
    Family { name: "winograd transform", names: <crate::winograd::TransformRow as Named>::names },
    Family { name: "winograd product", names: <crate::winograd::Row as Named>::names },
    Family { name: "winograd weight gradient", names: <crate::winograd::GradientRow as Named>::names },
    Family { name: "weight gradient of planes and lanes", names: <crate::backward_weights::SumRow as Named>::names },
    Family {
        name: "weight gradient along rows of planes",
        names: <crate::backward_weights::PlanarRow as Named>::names,
    },
    Family { name: "activation", names: <crate::act::Row as Named>::names },
    Family { name: "softmax", names: <crate::act::SoftmaxRow as Named>::names },
    Family { name: "pool", names: <crate::pool::PoolRow as Named>::names },
];
