//! Writes pickles of protocol 2, as `torch.save` does: plain values, ordered dictionaries and tensors.

use crate::graph::Scalar;

/// A pickle in the making.
pub struct Pickler {
    out: Vec<u8>,
}

impl Pickler {
    /// An empty one.
    pub fn new() -> Self {
        Self { out: b"\x80\x02".to_vec() }
    }

    /// The pickle's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.out.push(b'.');
        self.out
    }

    /// A dictionary; `entries` writes keys and values in turn.
    pub fn dict(&mut self, entries: impl FnOnce(&mut Self)) {
        self.enclosed(b"}", entries, b'u');
    }

    /// A `collections.OrderedDict`; `entries` writes keys and values in turn.
    pub fn ordered_dict(&mut self, entries: impl FnOnce(&mut Self)) {
        self.enclosed(b"ccollections\nOrderedDict\n)R", entries, b'u');
    }

    /// A list.
    pub fn list(&mut self, items: impl FnOnce(&mut Self)) {
        self.enclosed(b"]", items, b'e');
    }

    /// A tuple.
    pub fn tuple(&mut self, items: impl FnOnce(&mut Self)) {
        self.enclosed(b"", items, b't');
    }

    fn enclosed(&mut self, before: &[u8], items: impl FnOnce(&mut Self), after: u8) {
        self.out.extend_from_slice(before);
        self.out.push(b'(');
        items(self);
        self.out.push(after);
    }

    /// A text, also as a key.
    pub fn text(&mut self, text: &str) {
        self.out.push(b'X');
        self.out.extend((text.len() as u32).to_le_bytes());
        self.out.extend_from_slice(text.as_bytes());
    }

    /// A whole number, also as a key.
    pub fn int(&mut self, value: u64) {
        match u32::try_from(value) {
            Ok(small) if small <= i32::MAX as u32 => {
                self.out.push(b'J');
                self.out.extend(small.to_le_bytes());
            }
            _ => {
                // Nine bytes, so that the highest bit is no sign.
                self.out.extend_from_slice(b"\x8a\x09");
                self.out.extend(value.to_le_bytes());
                self.out.push(0);
            }
        }
    }

    /// A number.
    pub fn float(&mut self, value: f64) {
        self.out.push(b'G');
        self.out.extend(value.to_be_bytes());
    }

    /// A truth value.
    pub fn bool(&mut self, value: bool) {
        self.out.push(if value { 0x88 } else { 0x89 });
    }

    /// `None`.
    pub fn none(&mut self) {
        self.out.push(b'N');
    }

    /// A tensor of a storage of its own, by the storage's name in the archive.
    pub fn tensor(&mut self, storage: usize, kind: Storage, shape: &[usize]) {
        let count = shape.iter().product::<usize>();
        self.enclosed(
            b"ctorch._utils\n_rebuild_tensor_v2\n",
            |p| {
                p.tuple(|p| {
                    p.text("storage");
                    p.out.extend_from_slice(kind.class());
                    p.text(&storage.to_string());
                    p.text("cpu");
                    p.int(count as u64);
                });
                p.out.push(b'Q');
                p.int(0);
                p.tuple(|p| shape.iter().for_each(|&size| p.int(size as u64)));
                p.tuple(|p| (0..shape.len()).for_each(|axis| p.int(shape[axis + 1..].iter().product::<usize>() as u64)));
                p.bool(false);
                p.ordered_dict(|_| {});
            },
            b't',
        );
        self.out.push(b'R');
    }
}

/// Kind of a storage's numbers.
#[derive(Debug, Clone, Copy)]
pub enum Storage {
    /// Floating point.
    Real(Scalar),
    /// Whole, 64 bits.
    Int,
}

impl Storage {
    /// The class as a pickle names it.
    fn class(self) -> &'static [u8] {
        match self {
            Self::Real(Scalar::F32) => b"ctorch\nFloatStorage\n",
            Self::Real(Scalar::F64) => b"ctorch\nDoubleStorage\n",
            Self::Int => b"ctorch\nLongStorage\n",
        }
    }
}
