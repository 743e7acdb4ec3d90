//! One list for each kind of thing about kernels: which levels are compiled in, the outermost edges, and all tables.
//!
//! A kernel is a row of its family's table; a table has a list of rows for each level (`by_level!`). [`FAMILIES`] is the list of
//! tables: checksums of tuning files, `swath info`, benches and tests go through it. Adding a family is one line here.

use crate::isa::Level;

/// Code for a level, where the level is of this architecture and not left out by a cargo feature.
macro_rules! compiled_in {
    (Scalar => $($code:tt)*) => { $($code)* };
    (Neon => $($code:tt)*) => { #[cfg(all(target_arch = "aarch64", feature = "neon"))] $($code)* };
    (Avx2 => $($code:tt)*) => { #[cfg(all(target_arch = "x86_64", feature = "avx2"))] $($code)* };
    (Avx512 => $($code:tt)*) => { #[cfg(all(target_arch = "x86_64", feature = "avx512"))] $($code)* };
}

/// The same for tables, of which the crate's own unit tests have the scalar level's only: they would compile all kernels once more.
macro_rules! tabled {
    (Scalar => $($code:tt)*) => { $($code)* };
    ($level:ident => $($code:tt)*) => { crate::registry::compiled_in! { $level => #[cfg(not(test))] $($code)* } };
}

/// A function from a level to its static table; the table of a level that is not compiled in is empty. `unnamed` rows are not
/// [`Named`].
macro_rules! by_level {
    (unnamed $(#[$attribute:meta])* $vis:vis fn $name:ident() -> [$row:ty]; $($level:ident: $table:expr),* $(,)?) => {
        $(#[$attribute])*
        $vis fn $name(level: crate::isa::Level) -> &'static [$row] {
            $(crate::registry::tabled! { $level =>
                if level == crate::isa::Level::$level {
                    static TABLE: &[$row] = $table;
                    return TABLE;
                }
            })*
            &[]
        }
    };
    ($(#[$attribute:meta])* $vis:vis fn $name:ident() -> [$row:ty]; $($level:ident: $table:expr),* $(,)?) => {
        crate::registry::by_level! { unnamed $(#[$attribute])* $vis fn $name() -> [$row]; $($level: $table),* }

        impl crate::registry::Named for $row {
            fn names(level: crate::isa::Level) -> &'static [&'static str] {
                $(crate::registry::tabled! { $level =>
                    if level == crate::isa::Level::$level {
                        const ROWS: &[$row] = $table;
                        static NAMES: [&str; ROWS.len()] = {
                            let (mut names, mut i) = ([""; ROWS.len()], 0);
                            while i < names.len() {
                                names[i] = ROWS[i].name;
                                i += 1;
                            }
                            names
                        };
                        return &NAMES;
                    }
                })*
                &[]
            }
        }
    };
}

/// A row of a table of kernels.
pub(crate) trait Named {
    /// Names of a level's kernels, in the order of the table. Not from the table itself, which would bring all kernels of all families
    /// into each program that asks which there are, as every plan does.
    fn names(level: Level) -> &'static [&'static str];
}

/// A module of outermost edges, one `#[target_feature]` function for each level: `edge::avx512::run::<K>` is what a table's row holds.
///
/// rustc generates the code of generic functions by the module that defines the function. So a family with modules of its own is
/// compiled beside the others, on another core; with one module for all, one core did nearly everything.
macro_rules! edges {
    ($vis:vis $name:ident) => {
        #[allow(dead_code, unused_imports)] // a family need not have kernels of every level
        $vis mod $name {
            crate::registry::edges!(@level Scalar scalar Scalar);
            crate::registry::edges!(@level Neon neon Neon "neon");
            crate::registry::edges!(@level Avx2 avx2 Avx2 "avx2,fma,bmi1,bmi2,lzcnt,popcnt");
            crate::registry::edges!(@level Avx512 avx512 Avx512
                "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt");
            crate::registry::edges!(@level Avx512 avx512_half Avx512Half
                "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt");
        }
    };
    (@level $level:ident $name:ident $token:ident $($features:literal)?) => {
        crate::registry::compiled_in! { $level =>
            pub mod $name {
                use crate::isa::{Isa, Kernel, $token};

                /// Runs `K` at its level.
                ///
                /// # Safety
                /// The CPU has the level, and `args` satisfies the kernel's contract.
                $(#[target_feature(enable = $features)])?
                #[inline(never)]
                pub unsafe fn run<K: Kernel<$token>>(args: &K::Args) {
                    // SAFETY: the caller vouches for the CPU and for the kernel's contract.
                    unsafe { K::run($token::new_unchecked(), args) }
                }
            }
        }
    };
}

pub(crate) use {by_level, compiled_in, edges, tabled};

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
    Family { name: "weight gradient along rows of planes", names: <crate::backward_weights::PlaneRow as Named>::names },
    Family { name: "activation", names: <crate::act::Row as Named>::names },
    Family { name: "softmax", names: <crate::act::SoftmaxRow as Named>::names },
    Family { name: "pool", names: <crate::pool::PoolRow as Named>::names },
];
