//! Matrix products on one thread; callers share out blocks of rows.

use super::{Out, math::Real};

/// A matrix to read: element (r, c) lies at `r * strides[0] + c * strides[1]`.
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    /// From its first element on.
    pub data: &'a [T],
    /// Elements between rows and between columns.
    pub strides: [usize; 2],
}

impl<'a, T> View<'a, T> {
    /// Row-major with `stride` elements between rows.
    pub fn rows(data: &'a [T], stride: usize) -> Self {
        Self { data, strides: [stride, 1] }
    }
    /// Its transpose.
    pub fn transposed(self) -> Self {
        Self { strides: [self.strides[1], self.strides[0]], ..self }
    }
    fn check(&self, rows: usize, columns: usize) {
        if rows > 0 && columns > 0 {
            assert!((rows - 1) * self.strides[0] + (columns - 1) * self.strides[1] < self.data.len(), "matrix product: operand too short");
        }
    }
}

/// c = alpha a b + beta c with a `[m, k]`, b `[k, n]`, c `[m, n]`, whose rows lie `stride` apart.
pub fn gemm<T: Real>([m, k, n]: [usize; 3], alpha: T, a: View<T>, b: View<T>, beta: T, c: &mut [T], stride: usize) {
    let c = Out::of(c);
    // SAFETY: `c` is borrowed for this call alone.
    unsafe { gemm_at([m, k, n], alpha, a, b, beta, c, 0, stride) }
}

/// As [`gemm`], with c from element `start` of `out` on.
///
/// # Safety
/// Nothing else touches the elements of c meanwhile.
#[allow(clippy::too_many_arguments)]
pub unsafe fn gemm_at<T: Real>([m, k, n]: [usize; 3], alpha: T, a: View<T>, b: View<T>, beta: T, out: Out<T>, start: usize, stride: usize) {
    if m == 0 || n == 0 {
        return;
    }
    a.check(m, k);
    b.check(k, n);
    assert!(start + (m - 1) * stride + n <= out.len(), "matrix product: result too short");
    let ([ra, ca], [rb, cb]) = (a.strides.map(|s| s as isize), b.strides.map(|s| s as isize));
    // SAFETY: the three checks above.
    unsafe {
        T::gemm(
            [m, k, n],
            alpha,
            (a.data.as_ptr(), ra, ca),
            (b.data.as_ptr(), rb, cb),
            beta,
            (out.pointer().add(start), stride as isize, 1),
        )
    }
}
