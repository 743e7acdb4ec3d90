//! The register tile: the one multiply-accumulate body under direct, stem and 1x1 convolution and GEMM.
//!
//! A tile is `MR` pixels by `NV` vectors of output channels, whose sums stay in registers while the inputs and the
//! weights pass by:
//!
//! ```text
//!                  w[0]       w[1]             NV vectors of weights, loaded
//!      x[0]  ->  acc[0][0]  acc[0][1]
//!      x[1]  ->  acc[1][0]  acc[1][1]          acc[i][v] += x[i] * w[v]      one step: MR * NV multiply-adds
//!      x[2]  ->  acc[2][0]  acc[2][1]
//!    MR inputs, each broadcast to a vector
//! ```
//!
//! A step's loads serve `MR * NV` multiply-adds, so that the multiply-adds are what takes the time. The steps follow
//! each other in the order of the sum:
//!
//! ```text
//! acc[i][o] = sum over (b, ky, kx, k)  x[b, ky, kx][i * PS + k * KS] * w[b, ky, kx][k][o]
//! y[i][o]   = activation(acc[i][o] + bias[o] + residual[i][o])
//! ```
//!
//! `b, ky, kx` are three outer loops with run-time counts and steps; `k` runs over contiguous elements, such as the
//! channels of a block. Each output is stored once.
//!
//! What differs between the users is only where the inputs lie, [`Access`]:
//!
//! | access | pixel stride `PS` | step `KS` | user |
//! |---|---|---|---|
//! | `Blocked1`, `Blocked2` | 16, 32 | 1 | direct convolution of stride 1 and 2, 1x1 over flattened pixels |
//! | `Strided` | run time | 1 | any other stride, tiles down a column, NHWC, row-major matrices |
//! | `Plain1`, `Plain2`, `Plain4` | 1, 2, 4; small tiles run time | 1 | the stem, straight from NCHW |
//! | `Packed` | 1 | `MR` | GEMM on packed panels |
//! | `PixelSum` | 1 | run time | weight gradients: `i` are channels of `dy`, `k` pixels, and `w` is `x` |
//!
//! `k` runs over a block's channels from blocked input, and the first and the last pixels may lack taps ([`Edge`]). In
//! stems it runs over `kx`.
//!
//! `docs/kernels.md` of the repository teaches this with pictures, and follows one convolution from its shape to its
//! stores.
//!
//! | file | subject |
//! |---|---|
//! | `tile/args.rs` | what a tile is given ([`TileArgs`]): the contract between it and the loops around it |
//! | `tile/body.rs` | the loops ([`Tile`]) |
//! | `tile/store.rs`, `tile/strand.rs` | where sums go ([`Output`]): bias, residual, activation, masks |
//! | `tile/table.rs` | which sizes there are, and their kernels ([`rows`]) |
//! | `tile/choice.rs` | which of them cover a run of pixels ([`TileSet`]), for a core |
//!
//! Register budget: `MR * NV` accumulators, `NV` weights, one broadcast; all sizes stay within it on every level, and
//! `.ci/disassembly` proves that no tile loop touches the stack. Any tile with two or more weight vectors and eight or
//! more accumulators reaches the FMA peak (AVX-512: 97-100 % measured), so tiles are chosen for edge waste: the sizes
//! are contiguous, and a row of any length is cut into nearly equal pieces.
//!
//! Error: a plain sum in the order above, fused where the level fuses: `|err| <= (n + 2) * 2^-24 * sum |x * w|` for `n`
//! terms.

mod args;
mod body;
mod choice;
mod store;
mod strand;
mod table;

pub use args::{Access, Edge, Loop, OVERHANG, Soon, Steps, Sweep, TileArgs, overhang};
pub use body::Tile;
pub(crate) use choice::{Overhead, best_width};
pub use choice::{TileSet, fetches_output, pieces, runs};
pub use store::{Finish, Output};
pub(crate) use store::{SyncFinish, load_channels};
pub(crate) use strand::Strand;
pub use table::{MAX_BLOCKS, MAX_MR, Row, rows};
