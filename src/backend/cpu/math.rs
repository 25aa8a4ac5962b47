//! The two precisions and their functions.

use crate::graph::{Reals, RealsRef, Scalar};
use std::{
    fmt::Debug,
    iter::Sum,
    ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign},
};

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
        libm::erff(self)
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

/// y += x.
pub fn add_to<T: Real>(y: &mut [T], x: &[T]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// y = x or y += x.
pub fn put<T: Real>(y: &mut [T], x: &[T], accumulate: bool) {
    if accumulate { add_to(y, x) } else { y.copy_from_slice(x) }
}

/// Sum in lanes, the same on every machine.
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

/// x Φ(x).
#[inline(always)]
pub fn gelu<T: Real>(x: T) -> T {
    T::of(0.5) * x * (T::ONE + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf())
}

/// d(x Φ(x)) / dx = Φ(x) + x φ(x).
#[inline(always)]
pub fn gelu_slope<T: Real>(x: T) -> T {
    let half = T::of(0.5);
    let cumulative = half * (T::ONE + (x * T::of(std::f64::consts::FRAC_1_SQRT_2)).erf());
    cumulative + x * T::of(0.398_942_280_401_432_7) * (-(half * x * x)).exp()
}
