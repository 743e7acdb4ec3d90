//! Loops that are written out: loops over many multiply-adds the compiler does not unroll.

/// The block once for each of the constants.
macro_rules! unrolled {
    ($i:ident in $($n:literal)* $body:block) => {$({
        #[allow(non_upper_case_globals)]
        const $i: usize = $n;
        $body
    })*};
}

pub(crate) use unrolled;
