//! Tuning: measured choices in place of modelled ones.
//!
//! A [`Tuner`] times the candidates of the cost model on this machine; a [`TuningTable`] holds what it measured, and a
//! [`TuningFile`] keeps that from run to run. Plans read tables and never time anything.
//!
//! A plan takes, in this order, what [`Options::algo`](crate::Options) asks for; the fastest candidate of its entry in
//! a table ([`Options::tuning`](crate::Options)): the user's file, then the table that ships with this crate; the cost
//! model's choice. An entry counts only for the same CPU, level, number of threads, set of kernels ([`kernel_set`]),
//! geometry and layouts, and only if it has measured what the cost model would choose: then the tuned choice was the
//! faster one when they met.
//!
//! One plan gives the same bits on any number of threads. Since tables are keyed by threads, two plans for different
//! numbers of threads may get different algorithms from one, and so different roundings; [`Tuning::Off`] or a name in
//! [`Options::algo`](crate::Options) rules that out.

#[cfg(feature = "tune")]
mod campaign;
#[cfg(feature = "tune")]
mod race;
#[cfg(feature = "tune")]
mod stopwatch;
#[cfg(feature = "tune")]
mod tuner;

pub use crate::tuning::{
    Census, Conditions, Convolution, Entry, Figures, KeptChoices, Measured, Tuning, TuningTable, kernel_set, shipped,
};
#[cfg(feature = "tune")]
pub use {
    crate::tuning::{FILE_VARIABLE, LONGEST_FILE, Parsed, TuningFile, reload},
    campaign::{Event, Job, Outcome, Summary},
    race::Rules,
    tuner::{Effort, Tuned, Tuner},
};
