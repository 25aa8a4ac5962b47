//! The two precisions and their functions.

use crate::graph::{Reals, RealsRef, Scalar};
use std::{
    fmt::Debug,
    iter::Sum,
    ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign},
};

/// Functions over slices, compiled for AVX2 as well where the machine may have it. Without fused multiply-add: both give the
/// same bits.
macro_rules! simd {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident<T: Real>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name<T: Real>($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<T: Real>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn wide<T: Real>($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
                if std::is_x86_feature_detected!("avx2") {
                    // SAFETY: the machine has it.
                    return unsafe { wide($($arg),*) };
                }
            }
            body($($arg),*)
        }
    )*};
}
pub(super) use simd;

/// A matrix of the product: first element, elements between rows, elements between columns.
pub type Strided<P> = (P, isize, isize);

/// `f32` or `f64`.
pub trait Real:
    Copy
    + Send
    + Sync
    + Default
    + Debug
    + PartialEq
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + Sum
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// -∞.
    const LOWEST: Self;
    /// Which of the two.
    const SCALAR: Scalar;
    /// Rounds to this precision.
    fn of(value: f64) -> Self;
    /// As double.
    fn f64(self) -> f64;
    /// √x.
    fn sqrt(self) -> Self;
    /// eˣ.
    fn exp(self) -> Self;
    /// ln x.
    fn ln(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// Sine and cosine.
    fn sin_cos(self) -> (Self, Self);
    /// The numbers of a feed, if they have this precision.
    fn feed(reals: &Reals) -> Option<&[Self]>;
    /// As a result.
    fn view(values: &[Self]) -> RealsRef<'_>;
    /// c = alpha a b + beta c; a `[m, k]`, b `[k, n]`.
    ///
    /// # Safety
    /// All elements of a and b may be read, those of c written, and nothing else touches c.
    unsafe fn gemm(size: [usize; 3], alpha: Self, a: Strided<*const Self>, b: Strided<*const Self>, beta: Self, c: Strided<*mut Self>);
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LOWEST: Self = f32::NEG_INFINITY;
    const SCALAR: Scalar = Scalar::F32;
    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    /// Cody-Waite reduction and the polynomial of Cephes' `expf` (S. Moshier); error below 2 ulp.
    #[inline(always)]
    fn exp(self) -> Self {
        // Comparisons are false for NaN, which stays.
        let x = if self < -104.0 { -104.0 } else { self };
        let x = if x > 89.0 { 89.0 } else { x };
        // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
        const ROUND: f32 = 12_582_912.0;
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
        let mut p = 1.987_569_1e-4;
        for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
            p = p * r + c;
        }
        let p = p * r * r + r + 1.0;
        // 2^n in two factors, so that results below the normal range and infinity come out right.
        let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
        let half = n >> 1;
        let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
        p * power(half) * power(n.wrapping_sub(half))
    }
    #[inline(always)]
    fn ln(self) -> Self {
        self.ln()
    }
    /// Interpolation at Chebyshev nodes of erf(x) / x - 1 by x² on [0, 1], and of ln erfc(x) on [1, 4]; error below 2 ulp.
    #[inline(always)]
    fn erf(self) -> Self {
        let (t, s) = (self.abs(), self * self);
        let mut p = 7.875_875e-5;
        for c in [-8.016_864e-4, 5.189_087_4e-3, -2.685_421_2e-2, 1.128_359_5e-1, -3.761_262_7e-1, 1.283_791_7e-1] {
            p = p * s + c;
        }
        let small = self + self * p;
        let t = if t > 4.0 { 4.0 } else { t };
        let mut q = 1.637_151_4e-6;
        for c in
            [-4.605_804e-5, 5.968_056e-4, -4.759_596e-3, 2.642_113_6e-2, -1.100_800_8e-1, -6.318_260_5e-1, -1.130_233_4, 3.201_380_5e-4]
        {
            q = q * t + c;
        }
        let large = (1.0 - Real::exp(q)).copysign(self);
        if self.abs() < 1.0 { small } else { large }
    }
    #[inline(always)]
    fn sin_cos(self) -> (Self, Self) {
        self.sin_cos()
    }
    fn feed(reals: &Reals) -> Option<&[Self]> {
        if let Reals::F32(v) = reals { Some(v) } else { None }
    }
    fn view(values: &[Self]) -> RealsRef<'_> {
        RealsRef::F32(values)
    }
    unsafe fn gemm(
        [m, k, n]: [usize; 3],
        alpha: Self,
        a: Strided<*const Self>,
        b: Strided<*const Self>,
        beta: Self,
        c: Strided<*mut Self>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { matrixmultiply::sgemm(m, k, n, alpha, a.0, a.1, a.2, b.0, b.1, b.2, beta, c.0, c.1, c.2) }
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LOWEST: Self = f64::NEG_INFINITY;
    const SCALAR: Scalar = Scalar::F64;
    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    #[inline(always)]
    fn exp(self) -> Self {
        self.exp()
    }
    #[inline(always)]
    fn ln(self) -> Self {
        self.ln()
    }
    #[inline(always)]
    fn erf(self) -> Self {
        libm::erf(self)
    }
    #[inline(always)]
    fn sin_cos(self) -> (Self, Self) {
        self.sin_cos()
    }
    fn feed(reals: &Reals) -> Option<&[Self]> {
        if let Reals::F64(v) = reals { Some(v) } else { None }
    }
    fn view(values: &[Self]) -> RealsRef<'_> {
        RealsRef::F64(values)
    }
    unsafe fn gemm(
        [m, k, n]: [usize; 3],
        alpha: Self,
        a: Strided<*const Self>,
        b: Strided<*const Self>,
        beta: Self,
        c: Strided<*mut Self>,
    ) {
        // SAFETY: the caller's promise.
        unsafe { matrixmultiply::dgemm(m, k, n, alpha, a.0, a.1, a.2, b.0, b.1, b.2, beta, c.0, c.1, c.2) }
    }
}

simd! {
    /// y += x.
    pub fn add_to<T: Real>(y: &mut [T], x: &[T]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }

    /// Every row of y += x.
    pub fn add_to_rows<T: Real>(y: &mut [T], x: &[T]) {
        for row in y.chunks_exact_mut(x.len().max(1)) {
            for (y, &x) in row.iter_mut().zip(x) {
                *y += x;
            }
        }
    }

    /// y += every row of x.
    pub fn add_rows_to<T: Real>(y: &mut [T], x: &[T]) {
        for row in x.chunks_exact(y.len().max(1)) {
            for (y, &x) in y.iter_mut().zip(row) {
                *y += x;
            }
        }
    }

    /// y = a + b.
    pub fn add<T: Real>(y: &mut [T], a: &[T], b: &[T]) {
        for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
            *y = a + b;
        }
    }

    /// y += w x.
    pub fn add_scaled<T: Real>(y: &mut [T], x: &[T], w: T) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += w * x;
        }
    }
}

/// y = x or y += x.
pub fn put<T: Real>(y: &mut [T], x: &[T], accumulate: bool) {
    if accumulate { add_to(y, x) } else { y.copy_from_slice(x) }
}

/// Sum in lanes, the same on every machine.
#[inline(always)]
pub fn sum<T: Real>(x: &[T]) -> T {
    let mut lanes = [T::ZERO; 16];
    let (head, tail) = x.as_chunks::<16>();
    for chunk in head {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    fold(lanes) + tail.iter().copied().sum::<T>()
}

/// Inner product in lanes.
#[inline(always)]
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::ZERO; 16];
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    for (a, b) in a.iter().zip(b) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    fold(lanes) + a_tail.iter().zip(b_tail).map(|(&a, &b)| a * b).sum::<T>()
}

/// Sum of the lanes as a tree.
#[inline(always)]
fn fold<T: Real>(mut lanes: [T; 16]) -> T {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            let other = lanes[i + half];
            lanes[i] += other;
        }
    }
    lanes[0]
}

/// max(x, 0) that keeps NaN.
#[inline(always)]
pub fn relu<T: Real>(x: T) -> T {
    if x < T::ZERO { T::ZERO } else { x }
}

/// Φ(x), the normal distribution function.
#[inline(always)]
fn normal<T: Real>(x: T) -> T {
    T::of(0.5) * (T::ONE + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf())
}

/// x Φ(x).
#[inline(always)]
pub fn gelu<T: Real>(x: T) -> T {
    x * normal(x)
}

/// d(x Φ(x)) / dx = Φ(x) + x φ(x).
#[inline(always)]
pub fn gelu_slope<T: Real>(x: T) -> T {
    normal(x) + x * T::of(0.398_942_280_401_432_7) * (-(T::of(0.5) * x * x)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest error in units of the last place over numbers in [-limit, limit].
    fn worst(limit: f32, f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> f64 {
        let error = |i: i32| {
            let x = limit * i as f32 / 200_000.0;
            let (near, exact) = (f(x), exact(f64::from(x)));
            let ulp = f64::from((exact as f32).abs().max(f32::MIN_POSITIVE)) * f64::from(f32::EPSILON);
            (f64::from(near) - exact).abs() / ulp
        };
        (-200_000..=200_000).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn single_precision_functions_are_near() {
        let exp = worst(87.0, Real::exp, f64::exp);
        let erf = worst(5.0, Real::erf, libm::erf);
        assert!(exp <= 2.0 && erf <= 2.0, "exp {exp}, erf {erf}");
        assert_eq!(
            [f32::NEG_INFINITY, -1e6, -110.0, 0.0, 100.0, f32::INFINITY].map(Real::exp),
            [0.0, 0.0, 0.0, 1.0, f32::INFINITY, f32::INFINITY]
        );
        assert!((Real::exp(-100f32) / (-100f64).exp() as f32 - 1.0).abs() < 0.1);
        assert_eq!([f32::NEG_INFINITY, -6.0, 0.0, 6.0, f32::INFINITY].map(Real::erf), [-1.0, -1.0, 0.0, 1.0, 1.0]);
        assert!(Real::exp(f32::NAN).is_nan() && Real::erf(f32::NAN).is_nan() && relu(f32::NAN).is_nan() && gelu(f32::NAN).is_nan());
    }
}
