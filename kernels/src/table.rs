//! What families make their kernels callable with: tables that have a list of rows for each level, and outermost edges.
//!
//! A kernel is a row of its family's table (`by_level!`), and the row holds a pointer to an edge (`edges!`). The list of all tables is
//! [`registry::FAMILIES`](crate::registry::FAMILIES).

use crate::isa::Level;

/// Code for a level that is compiled in (`compiled_in!`), as tables need it: the crate's own unit tests have the scalar level's tables
/// only. They would compile all kernels once more.
macro_rules! tabled {
    (Scalar => $($code:tt)*) => { $($code)* };
    ($level:ident => $($code:tt)*) => { crate::isa::compiled_in! { $level => #[cfg(not(test))] $($code)* } };
}

/// A function from a level to its static table; the table of a level that is not compiled in is empty. `unnamed` rows are not
/// [`Named`].
macro_rules! by_level {
    (unnamed $(#[$attribute:meta])* $vis:vis fn $name:ident() -> [$row:ty]; $($level:ident: $table:expr),* $(,)?) => {
        $(#[$attribute])*
        $vis fn $name(level: crate::isa::Level) -> &'static [$row] {
            $(crate::table::tabled! { $level =>
                if level == crate::isa::Level::$level {
                    static TABLE: &[$row] = $table;
                    return TABLE;
                }
            })*
            &[]
        }
    };
    ($(#[$attribute:meta])* $vis:vis fn $name:ident() -> [$row:ty]; $($level:ident: $table:expr),* $(,)?) => {
        crate::table::by_level! { unnamed $(#[$attribute])* $vis fn $name() -> [$row]; $($level: $table),* }

        impl crate::table::Named for $row {
            fn names(level: crate::isa::Level) -> &'static [&'static str] {
                $(crate::table::tabled! { $level =>
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
            crate::table::edges!(@level Scalar scalar Scalar);
            crate::table::edges!(@level Neon neon Neon "neon");
            crate::table::edges!(@level Avx2 avx2 Avx2 "avx2,fma,bmi1,bmi2,lzcnt,popcnt");
            crate::table::edges!(@level Avx512 avx512 Avx512
                "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt");
            crate::table::edges!(@level Avx512 avx512_half Avx512Half
                "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt");
        }
    };
    (@level $level:ident $name:ident $token:ident $($features:literal)?) => {
        crate::isa::compiled_in! { $level =>
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

pub(crate) use {by_level, edges, tabled};
