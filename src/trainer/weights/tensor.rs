//! A tensor as it lies in a file.

use safetensors::Dtype;

/// How a number lies in a file, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// Whole, 64 bits.
    I64,
    /// What no parameter has, by its size in bytes.
    Other(usize),
}

impl Element {
    /// Of a safetensors type.
    pub fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F64 => Self::F64,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::Bf16,
            Dtype::I64 => Self::I64,
            other => Self::Other((other.bitsize() / 8).max(1)),
        }
    }

    /// Of PyTorch's storage class.
    pub fn of_storage(name: &str) -> Option<Self> {
        Some(match name {
            "FloatStorage" => Self::F32,
            "DoubleStorage" => Self::F64,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::Bf16,
            "LongStorage" => Self::I64,
            "IntStorage" | "QInt32Storage" => Self::Other(4),
            "ShortStorage" => Self::Other(2),
            "CharStorage" | "ByteStorage" | "BoolStorage" | "UntypedStorage" | "QInt8Storage" | "QUInt8Storage" => Self::Other(1),
            "ComplexFloatStorage" => Self::Other(8),
            "ComplexDoubleStorage" => Self::Other(16),
            _ => return None,
        })
    }

    /// Bytes of one.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 | Self::I64 => 8,
            Self::Other(size) => size,
        }
    }
}

/// Shape and place of a tensor's numbers: element (i, j, ...) is number `offset + i * strides[0] + j * strides[1] + ...` of `data`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<'a> {
    /// How a number lies in `data`.
    pub element: Element,
    /// The storage, which tensors may share.
    pub data: &'a [u8],
    /// Number of the first element.
    pub offset: usize,
    /// Shape.
    pub shape: Vec<usize>,
    /// Numbers between neighbours along each axis.
    pub strides: Vec<usize>,
}

impl<'a> Tensor<'a> {
    /// A tensor whose numbers lie one after the other.
    pub fn contiguous(element: Element, data: &'a [u8], shape: Vec<usize>) -> Self {
        let mut strides = vec![1_usize; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
        }
        Self { element, data, offset: 0, shape, strides }
    }

    /// Checks that the tensor can be read as a parameter of a shape: floating point, within its storage, finite.
    ///
    /// # Errors
    /// What is wrong, to follow the tensor's name.
    pub fn check(&self, shape: &[usize]) -> Result<(), String> {
        self.check_layout(shape)?;
        if self.values().all(f64::is_finite) { Ok(()) } else { Err("has a value that is not finite".into()) }
    }

    /// As [`Tensor::check`], of values that may not be finite.
    ///
    /// # Errors
    /// As there.
    pub fn check_layout(&self, shape: &[usize]) -> Result<(), String> {
        if self.shape != shape {
            return Err(format!("has shape {:?}, not {shape:?}", self.shape));
        }
        if matches!(self.element, Element::I64 | Element::Other(_)) {
            return Err("has elements that are not floating point".into());
        }
        let last = self.shape.iter().zip(&self.strides).try_fold(self.offset, |last, (len, stride)| {
            let steps = len.checked_sub(1)?;
            last.checked_add(steps.checked_mul(*stride)?)
        });
        // Without an element there is no last one, and nothing to read.
        let empty = shape.contains(&0);
        if !empty && last.is_none_or(|last| last >= self.data.len() / self.element.size()) {
            return Err("reaches beyond its storage".into());
        }
        Ok(())
    }

    /// The elements of a checked tensor in the order of its shape.
    pub fn values(&self) -> impl Iterator<Item = f64> {
        let count: usize = self.shape.iter().product();
        let mut index = vec![0; self.shape.len()];
        let mut at = self.offset;
        (0..count).map(move |_| {
            let value = self.number(at);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                at -= index[axis] * self.strides[axis];
                index[axis] = 0;
            }
            value
        })
    }

    fn number(&self, at: usize) -> f64 {
        fn bytes<const N: usize>(data: &[u8], at: usize) -> [u8; N] {
            data.as_chunks().0[at]
        }
        match self.element {
            Element::F32 => f32::from_le_bytes(bytes(self.data, at)).into(),
            Element::F64 => f64::from_le_bytes(bytes(self.data, at)),
            Element::F16 => half::f16::from_le_bytes(bytes(self.data, at)).to_f64(),
            Element::Bf16 => half::bf16::from_le_bytes(bytes(self.data, at)).to_f64(),
            Element::I64 => i64::from_le_bytes(bytes(self.data, at)) as f64,
            Element::Other(_) => f64::NAN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn strides_lead_to_the_elements() {
        let data = bytes(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let read = |offset, shape: &[usize], strides: &[usize]| {
            let tensor = Tensor { element: Element::F32, data: &data, offset, shape: shape.to_vec(), strides: strides.to_vec() };
            tensor.check(shape).map(|()| tensor.values().collect::<Vec<f64>>())
        };
        assert_eq!(read(1, &[2, 3], &[3, 1]).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(read(1, &[3, 2], &[1, 3]).unwrap(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0], "transposed");
        assert_eq!(read(2, &[2, 2], &[0, 1]).unwrap(), [2.0, 3.0, 2.0, 3.0], "expanded");
        assert_eq!(read(6, &[], &[]).unwrap(), [6.0]);
        assert!(read(0, &[0], &[1]).unwrap().is_empty());
        assert!(read(2, &[2, 3], &[3, 1]).unwrap_err().contains("beyond"));
        assert!(read(0, &[2], &[usize::MAX]).unwrap_err().contains("beyond"));
        assert!(read(usize::MAX, &[2], &[1]).unwrap_err().contains("beyond"));
    }

    #[test]
    fn what_is_no_parameter_is_named() {
        let data = bytes(&[1.0, f32::NAN]);
        let tensor = Tensor::contiguous(Element::F32, &data, vec![2]);
        assert!(tensor.check(&[2]).unwrap_err().contains("not finite"));
        assert!(tensor.check(&[1, 2]).unwrap_err().contains("has shape [2], not [1, 2]"));
        assert!(Tensor::contiguous(Element::I64, &data, vec![1]).check(&[1]).unwrap_err().contains("not floating point"));
    }
}
