#!/usr/bin/env python3
"""Fits the polynomials of kernels/src/vecmath/erf.rs: weighted least squares on Chebyshev nodes, re-weighted towards
the minimax fit (Lawson), leading coefficients rounded to f32 before the rest are fitted again.

    pip install mpmath numpy && python erf.py
"""
import mpmath as mp
import numpy as np

mp.mp.dps = 30


def lawson(basis, target, weight, fixed):
    w = np.ones(len(target))
    rhs = target - sum(basis[:, i] * c for i, c in fixed.items())
    free = [i for i in range(basis.shape[1]) if i not in fixed]
    for _ in range(80):
        s = weight * np.sqrt(w)
        c = np.linalg.lstsq(basis[:, free] * s[:, None], rhs * s, rcond=None)[0]
        err = np.abs(basis[:, free] @ c - rhs) * weight
        if err.max() == 0:
            break
        w *= err / err.max() + 1e-3
        w /= w.sum()
    return dict(zip(free, c)), err.max()


def fit(nodes, target, weight, degree):
    basis = np.vander(nodes, degree + 1, increasing=True)
    fixed = {}
    for i in range(degree + 1):
        c, err = lawson(basis, target, weight, fixed)
        fixed[i] = float(np.float32(c[i]))
    final = np.max(np.abs(basis @ np.array([fixed[i] for i in range(degree + 1)]) - target) * weight)
    return [fixed[i] for i in range(degree + 1)], final


def show(name, c, err):
    print(f"{name}: relative error {err:.2e}")
    print(", ".join(f"{np.float32(v):.9e}" for v in c))


cheb = lambda n: (1 - np.cos(np.pi * (np.arange(n) + 0.5) / n)) / 2

# erf(x) = x + x P(x^2) on |x| <= 1
t = cheb(600)
f = np.array([float(mp.erf(mp.sqrt(v)) / mp.sqrt(v) - 1) for v in t])
show("P of erf", *fit(t, f, 1 / (1 + f), 6))

# exp(t^2) erfc(t) = W(w) / (t + 3), w = (t - 3) / (t + 3), on 0 <= t <= 10.5. Of 1.5, 2, 2.5 and 3 in place of 3, this
# is the one whose degree 9 is below 1e-8.
K = 3.0
w = -1 + cheb(800) * ((10.5 - K) / (10.5 + K) + 1)
a = K * (1 + w) / (1 - w)
g = np.array([float(mp.exp(mp.mpf(v) ** 2) * mp.erfc(mp.mpf(v)) * (mp.mpf(v) + K)) for v in a])
show("W of erfcx", *fit(w, g, 1 / g, 9))
