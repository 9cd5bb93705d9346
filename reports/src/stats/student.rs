//! Student's t distribution, from the regularized incomplete beta function.

/// The quantile of Student's t distribution: the `t` with `P(T <= t) = p`.
///
/// `p` lies in (0, 1) and `freedom`, the degrees of freedom, is positive but need not be whole (Welch). Out of that,
/// NaN. Accurate to about 1e-10 relative.
pub(crate) fn quantile(p: f64, freedom: f64) -> f64 {
    if !(p > 0.0 && p < 1.0 && freedom > 0.0) {
        return f64::NAN;
    }
    if p < 0.5 {
        return -quantile(1.0 - p, freedom);
    }
    let mut high = 1.0;
    while cumulative(high, freedom) < p && high < 1e12 {
        high *= 2.0;
    }
    let mut low = 0.0;
    // Bisection halves the bracket until neighbouring numbers; 200 steps bound it for any start.
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if cumulative(middle, freedom) < p {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// `P(T > t)` for `t >= 0`, exact also where it is tiny.
pub(crate) fn upper(t: f64, freedom: f64) -> f64 {
    0.5 * incomplete_beta(freedom / (freedom + t * t), 0.5 * freedom, 0.5)
}

/// `P(T <= t)` of the noncentral t distribution: `T = (Z + shift) / sqrt(V / freedom)` with Z normal and V chi-squared. By
/// Simpson's rule over the distribution of `sqrt(V / freedom)`, to about 1e-8.
pub(crate) fn noncentral(t: f64, freedom: f64, shift: f64) -> f64 {
    // The density of s = sqrt(V / freedom) is 2 (f/2)^(f/2) / gamma(f/2) s^(f-1) exp(-f s^2 / 2), about 1 wide 1/sqrt(2f).
    let half = 0.5 * freedom;
    let scale = half * half.ln() - ln_gamma(half) + std::f64::consts::LN_2;
    let density = |s: f64| if s > 0.0 { (scale + (freedom - 1.0) * s.ln() - half * s * s).exp() } else { 0.0 };
    let reach = 10.0 / freedom.sqrt();
    let (low, high) = ((1.0 - reach).max(0.0), 1.0 + reach);
    const STEPS: u32 = 4000;
    let width = (high - low) / f64::from(STEPS);
    let value = |i: u32| {
        let s = low + width * f64::from(i);
        density(s) * normal(t * s - shift)
    };
    let inner: f64 = (1..STEPS).map(|i| value(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    (value(0) + inner + value(STEPS)) * width / 3.0
}

/// `P(Z <= z)` of the standard normal distribution.
pub(crate) fn normal(z: f64) -> f64 {
    // The upper tail is half the regularized incomplete gamma function Q(1/2, z^2/2).
    let tail = 0.5 * upper_gamma(0.5, 0.5 * z * z);
    if z < 0.0 { tail } else { 1.0 - tail }
}

/// The regularized upper incomplete gamma function Q(a, x): a series below a + 1, a continued fraction (Lentz) above.
fn upper_gamma(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    let front = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        let (mut term, mut sum) = (1.0 / a, 1.0 / a);
        for n in 1..1000 {
            term *= x / (a + f64::from(n));
            sum += term;
            if term < sum * 1e-16 {
                break;
            }
        }
        return 1.0 - front * sum;
    }
    let mut b = x + 1.0 - a;
    let mut c = 1e300;
    let mut d = 1.0 / b;
    let mut fraction = d;
    for n in 1..1000 {
        let n = f64::from(n);
        let step = -n * (n - a);
        b += 2.0;
        d = 1.0 / (step * d + b);
        c = b + step / c;
        let change = c * d;
        fraction *= change;
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// `P(T <= t)` for `t >= 0`.
fn cumulative(t: f64, freedom: f64) -> f64 {
    1.0 - 0.5 * incomplete_beta(freedom / (freedom + t * t), 0.5 * freedom, 0.5)
}

/// The regularized incomplete beta function I_x(a, b).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp();
    // The continued fraction converges fast below the mean of the distribution; above it, the symmetry does.
    if x < (a + 1.0) / (a + b + 2.0) {
        front * continued_fraction(x, a, b) / a
    } else {
        1.0 - front * continued_fraction(1.0 - x, b, a) / b
    }
}

/// The continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8), by the modified Lentz method.
fn continued_fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away_from_zero = |value: f64| if value.abs() < TINY { TINY } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for step in 1..500 {
        let m = f64::from(step);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for term in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + term * d);
            c = away_from_zero(1.0 + term / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    fraction
}

/// ln of the gamma function for positive numbers: Stirling's series, after the recurrence has carried `x` above 10.
fn ln_gamma(mut x: f64) -> f64 {
    let mut shift = 0.0;
    while x < 10.0 {
        shift += x.ln();
        x += 1.0;
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_printed_tables() {
        // Two-sided 95% and 99%; three or four decimals are what the tables print.
        for (p, freedom, wanted) in [
            (0.975, 1.0, 12.706),
            (0.975, 2.0, 4.303),
            (0.975, 3.0, 3.182),
            (0.975, 4.0, 2.776),
            (0.975, 9.0, 2.262),
            (0.975, 30.0, 2.042),
            (0.975, 120.0, 1.980),
            (0.995, 5.0, 4.032),
            (0.95, 10.0, 1.812),
            (0.9, 2.0, 1.886),
        ] {
            let found = quantile(p, freedom);
            assert!((found - wanted).abs() < 5.1e-4, "t({p}, {freedom}) = {found}, not {wanted}");
        }
    }

    #[test]
    fn one_and_two_degrees_have_closed_forms() {
        for p in [0.55, 0.8, 0.975, 0.9995] {
            let cauchy = (std::f64::consts::PI * (p - 0.5)).tan();
            assert!((quantile(p, 1.0) / cauchy - 1.0).abs() < 1e-9);
            let two = (2.0 * p - 1.0) / (2.0 * p * (1.0 - p)).sqrt();
            assert!((quantile(p, 2.0) / two - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn many_degrees_come_to_the_normal_distribution() {
        assert!((quantile(0.975, 1e6) - 1.959_966).abs() < 1e-5);
        assert!((quantile(0.025, 7.0) + quantile(0.975, 7.0)).abs() < 1e-12);
        assert!(quantile(1.0, 3.0).is_nan() && quantile(0.5, 0.0).is_nan());
    }

    #[test]
    fn the_normal_distribution_is_that_of_the_printed_tables() {
        for (z, wanted) in
            [(0.0, 0.5), (1.0, 0.841_344_7), (1.96, 0.975_002_1), (-1.0, 0.158_655_3), (3.0, 0.998_650_1)]
        {
            assert!((normal(z) - wanted).abs() < 1e-7, "{z}: {}", normal(z));
        }
    }

    #[test]
    fn tails_are_what_quantiles_leave() {
        for (p, freedom) in [(0.975, 2.0), (0.95, 10.0), (0.9995, 3.0)] {
            assert!((upper(quantile(p, freedom), freedom) - (1.0 - p)).abs() < 1e-10);
        }
        // With 2 degrees of freedom the tail is (1 - t / sqrt(t^2 + 2)) / 2.
        assert!((upper(3.0, 2.0) - 0.5 * (1.0 - 3.0 / 11_f64.sqrt())).abs() < 1e-12);
    }

    #[test]
    fn the_noncentral_distribution_shifts_the_central_one() {
        for (t, freedom) in [(0.5, 3.0), (2.0, 9.0), (1.0, 2.0)] {
            assert!((noncentral(t, freedom, 0.0) - cumulative(t, freedom)).abs() < 1e-7);
        }
        // At zero only the sign of the numerator counts.
        assert!((noncentral(0.0, 5.0, 1.3) - normal(-1.3)).abs() < 1e-7);
    }

    #[test]
    fn gamma_is_the_factorial_and_root_pi() {
        assert!((ln_gamma(5.0) - 24.0_f64.ln()).abs() < 1e-12);
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-12);
    }
}
