//! Every operation of every level against plain Rust.

use super::*;

struct Ops;

impl<I: Isa> Kernel<I> for Ops {
    type Args = ();

    #[inline(always)]
    unsafe fn run(s: I, (): &()) {
        let a: Vec<f32> = (0..16).map(|i| (i as f32 - 7.5) * 1.25).collect();
        let b: Vec<f32> = (0..16).map(|i| 3.0 - i as f32 * 0.5).collect();
        let idx: Vec<u32> = (0..16).map(|i| (i * 7 + 3) % I::LANES as u32).collect();
        let get = |v: I::V| -> Vec<f32> {
            let mut out = vec![f32::NAN; I::LANES];
            // SAFETY: out holds LANES floats.
            unsafe { s.store(out.as_mut_ptr(), v) };
            out
        };
        let want = |f: &dyn Fn(usize) -> f32| -> Vec<f32> { (0..I::LANES).map(f).collect() };
        // SAFETY: a, b and idx hold 16 elements, at least LANES.
        let (va, vb, vi) = unsafe { (s.load(a.as_ptr()), s.load(b.as_ptr()), s.load_index(idx.as_ptr())) };
        assert_eq!(get(s.zero()), want(&|_| 0.0));
        assert_eq!(get(s.splat(2.5)), want(&|_| 2.5));
        assert_eq!(get(s.fma(va, vb, va)), want(&|i| a[i] * b[i] + a[i]));
        assert_eq!(get(s.add(va, vb)), want(&|i| a[i] + b[i]));
        assert_eq!(get(s.sub(va, vb)), want(&|i| a[i] - b[i]));
        assert_eq!(get(s.mul(va, vb)), want(&|i| a[i] * b[i]));
        assert_eq!(get(s.div(vb, va)), want(&|i| b[i] / a[i]));
        assert_eq!(get(s.min(va, vb)), want(&|i| a[i].min(b[i])));
        assert_eq!(get(s.max(va, vb)), want(&|i| a[i].max(b[i])));
        assert_eq!(get(s.round(va)), want(&|i| a[i].round_ties_even()));
        assert_eq!(get(s.exp2i(s.round(va))), want(&|i| a[i].round_ties_even().exp2()));
        assert_eq!(get(s.select_lt(va, vb, s.splat(1.0), vb)), want(&|i| if a[i] < b[i] { 1.0 } else { b[i] }));
        assert_eq!(get(s.permute(va, vi)), want(&|i| a[idx[i] as usize]));
        let [low, high] = s.zip(va, vb);
        let zipped: Vec<f32> = (0..I::LANES).flat_map(|i| [a[i], b[i]]).collect();
        assert_eq!([get(low), get(high)].concat(), zipped);
        let [even, odd] = s.unzip(low, high);
        assert_eq!([get(even), get(odd)], [get(va), get(vb)]);
        for (lo, hi) in (0..=I::LANES).flat_map(|hi| (0..=hi).map(move |lo| (lo, hi))) {
            // SAFETY: a holds LANES floats, of which these are read.
            let range = unsafe { s.load_range(a.as_ptr(), s.range(lo, hi)) };
            assert_eq!(get(range), want(&|i| if (lo..hi).contains(&i) { a[i] } else { 0.0 }));
        }
        assert_eq!(s.opaque(a.as_ptr()), a.as_ptr());
        let sign = s.splat(-0.0);
        assert_eq!(get(s.xor(va, sign)), want(&|i| -a[i]));
        assert_eq!(get(s.or(va, sign)), want(&|i| -a[i].abs()));
        assert_eq!(get(s.and(va, s.xor(sign, s.splat(f32::from_bits(u32::MAX))))), want(&|i| a[i].abs()));
        let nan = s.splat(f32::NAN);
        assert!(
            get(s.max(va, nan)).iter().chain(&get(s.min(va, nan))).all(|v| v.is_nan()),
            "second operand's NaN wins"
        );
        assert_eq!(get(s.max(nan, va)), want(&|i| a[i]));
        let mixed: Vec<f32> = (0..16).map(|i| if i % 3 == 1 { -f32::NAN } else { a[i] }).collect();
        // SAFETY: mixed holds 16 floats, at least LANES.
        let vm = unsafe { s.load(mixed.as_ptr()) };
        assert_eq!(get(s.select_nan(vm, vb, vm)), want(&|i| if i % 3 == 1 { b[i] } else { a[i] }));
        let positive: Vec<f32> = (0..16)
            .map(|i| [f32::MIN_POSITIVE, 0.99999994, 1.0, 1.5, f32::MAX][i % 5] * 0.5f32.powi(-(i as i32 / 5)))
            .collect();
        let positive: Vec<f32> = positive.into_iter().map(|v| v.min(f32::MAX)).collect();
        // SAFETY: positive holds 16 floats, at least LANES.
        let vp = unsafe { s.load(positive.as_ptr()) };
        assert_eq!(get(s.exponent(vp)), want(&|i| f64::from(positive[i]).log2().floor() as f32));
        for n in 0..=I::LANES {
            // SAFETY: exactly n floats are readable at the end of `a`, and n writable at the end of `out`.
            unsafe {
                let v = s.load_partial(a.as_ptr().add(16 - n), n);
                assert_eq!(get(v), want(&|i| if i < n { a[16 - n + i] } else { 0.0 }));
                let mut out = vec![9.0; n + 1];
                s.store_partial(out.as_mut_ptr().add(1), va, n);
                assert_eq!(out[0], 9.0);
                assert_eq!(out[1..], a[..n]);
            }
        }
        // SAFETY: one float is readable.
        assert_eq!(get(unsafe { s.load_splat(&b[3]) }), want(&|_| b[3]));
    }
}

#[test]
fn every_operation_at_every_level() {
    for level in Level::available() {
        // SAFETY: the level is available, and the kernel asks for nothing else.
        unsafe {
            match level {
                Level::Scalar => entry::scalar::<Ops>(&()),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => entry::avx2::<Ops>(&()),
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => {
                    entry::avx512::<Ops>(&());
                    entry::avx512_half::<Ops>(&());
                }
                #[cfg(target_arch = "aarch64")]
                Level::Neon => entry::neon::<Ops>(&()),
                #[allow(unreachable_patterns)]
                other => unreachable!("{other} is not of this architecture"),
            }
        }
    }
}

#[test]
fn levels_have_one_name_and_parse() {
    for level in Level::ALL {
        assert_eq!(level.name().parse::<Level>().is_ok(), level.is_available());
    }
    let e = "sse9".parse::<Level>().unwrap_err().to_string();
    assert!(e.contains("\"sse9\" is unknown") && e.contains("scalar"), "{e}");
}
