"""The boundary, against its definition and against what it promises."""

import numpy as np
import pytest
from scipy import integrate
from scipy.stats import gamma, norm

from serve_app.router.experiments.confidence import _best_rho, boundary

ALPHA = 0.025


def log_mixture_by_integration(s: float, v: float, rho: float) -> float:
    """Mix exp(s l - v psi(l)), psi(l) = -log(1 - l) - l, over 1 - l of a gamma distribution cut at 1."""
    density = gamma(rho, scale=1 / rho)

    def mixed(x: float) -> float:  # x = 1 - l
        return float(np.exp(s * (1 - x) + v * (np.log(x) + 1 - x)) * density.pdf(x))

    total, _ = integrate.quad(mixed, 0, 1, limit=200)
    return float(np.log(total / density.cdf(1)))


@pytest.mark.parametrize("variance", [0.5, 20.0, 400.0])
@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_the_mixture_reaches_one_in_alpha_at_the_boundary(variance: float, scale: float) -> None:
    tight_at = 50.0
    rho = _best_rho(tight_at, ALPHA)
    (edge,) = boundary(np.array([variance]), ALPHA, scale, tight_at)
    reached = log_mixture_by_integration(edge / scale, variance / scale**2, rho / scale**2)
    assert reached == pytest.approx(np.log(1 / ALPHA), abs=1e-6)


def test_the_best_mixture_is_the_one_of_the_paper() -> None:
    log = np.log(1 / (2 * ALPHA))
    # Howard et al., equation 26: an approximation.
    assert _best_rho(50.0, ALPHA) == pytest.approx(50.0 / (2 * log + np.log(1 + 2 * log)), rel=0.05)


def test_it_is_a_little_more_than_a_single_look_needs_where_it_is_tight() -> None:
    variance = np.array([1e3, 1e4, 1e5])
    single_look = norm.ppf(1 - ALPHA) * np.sqrt(variance)
    ratio = boundary(variance, ALPHA, 1.0, tight_at=1e4) / single_look
    assert (ratio > 1).all()
    assert ratio[1] < 1.6
    assert (np.diff(ratio / np.log(variance)) < 0).all()  # far out it grows with the iterated logarithm, no faster


def test_it_scales_with_what_is_measured() -> None:
    variance = np.geomspace(1e-3, 1e5, 30)
    one, ten = boundary(variance, ALPHA, 1.0, 80.0), boundary(100 * variance, ALPHA, 10.0, 8000.0)
    assert ten == pytest.approx(10 * one)
    assert (np.diff(one) > 0).all()
