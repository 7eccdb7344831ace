"""The bound of a confidence sequence: an interval after every observation, all of which hold at once.

So one may look after every bar and stop when one likes, which a fixed-sample test forbids. It is Howard, Ramdas,
McAuliffe and Sekhon (2021), "Time-uniform, nonparametric, nonasymptotic confidence sequences", Theorem 4 (the empirical
Bernstein sequence) with the gamma-exponential mixture of Proposition 9; that it may be put on the score differences of
two forecasters, with no assumption of stationarity, is Choe and Ramdas, "Comparing Sequential Forecasters",
arXiv 2110.00115.
"""

import numpy as np
from scipy.optimize import elementwise
from scipy.special import gammainc, gammaln, lambertw

from serve_app.types import FloatArray


def boundary(variance: FloatArray, alpha: float, scale: float, tight_at: float) -> FloatArray:
    """Return what a centred sum exceeds at any time with a probability of at most `alpha`.

    The sum is of terms less their conditional means; no term is farther than `scale` from what was predicted for it.
    `variance` (N,) is the sum of squares of the terms less these predictions (0 will do when it is as near); the
    boundary is tightest where that is `tight_at`.
    """
    rho = _best_rho(tight_at, alpha) / scale**2
    v = np.asarray(variance, dtype=np.float64) / scale**2

    def excess(s: FloatArray, v: FloatArray) -> FloatArray:
        return np.asarray(_log_mixture(s, v, rho) + np.log(alpha))

    # In units of `scale`, the boundary is near sqrt(2 (v + rho) log(1 / alpha)); the search grows from there.
    guess = 1 + np.sqrt(v + rho)
    bracket = elementwise.bracket_root(excess, np.zeros_like(v), guess, xmin=0.0, args=(v,)).bracket
    return np.asarray(elementwise.find_root(excess, bracket, args=(v,)).x * scale)


def _best_rho(v: float, alpha: float) -> float:
    """Howard et al., Proposition 3: which mixture gives the lowest one-sided boundary at `v`."""
    return float(v / (-lambertw(-4 * alpha**2 / np.e, -1).real - 1))


def _log_mixture(s: FloatArray, v: FloatArray, rho: float) -> FloatArray:
    """Return the logarithm of the mixed supermartingale of a sum `s` with variance `v`, both in units of the scale."""
    leading = rho * np.log(rho) - gammaln(rho) - np.log(gammainc(rho, rho))
    a, x = v + rho, s + v + rho
    return np.asarray(leading + gammaln(a) + np.log(gammainc(a, x)) - a * np.log(x) + s + v)
