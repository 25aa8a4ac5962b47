//! Columns of numbers in few bytes, without loss and fast to read.
//!
//! A column is its differences of order 0, 1 or 2, whichever are smallest, in blocks of 32 of one bit width each. Doubles that
//! are whole multiples of a common unit (a millimetre, a power of two) are such whole numbers; others are their bits, in an
//! order in which neighbouring numbers are neighbours. How many numbers a column has is known from elsewhere.

/// What a column cannot be read for: it ends early or contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged;

/// Result of reading.
pub type Read<T> = Result<T, Damaged>;

/// Units a metre (or a radian) of which doubles may be multiples; 0 stands for their bits.
const SCALES: [f64; 10] = [0.0, 1.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1024.0, 65_536.0, 1_048_576.0];
/// Numbers of one bit width.
const BLOCK: usize = 32;
/// Widest numbers that are packed; wider ones take eight bytes.
const WIDEST: u32 = 56;
/// Order that stands for "all numbers are equal".
const CONSTANT: u8 = 3;
/// In a column's first byte: some of its zeros are negative.
const NEGATIVE_ZEROS: u8 = 0x40;
/// Zeros after everything, so that eight bytes can be read wherever a number begins.
const PADDING: usize = 8;

/// Appends columns.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// What was written, to be read by [`Reader`].
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; PADDING]);
        self.bytes
    }

    /// What was written, to be followed by the bytes of another writer that is finished.
    pub fn open(self) -> Vec<u8> {
        self.bytes
    }

    /// A whole number in seven bits a byte.
    pub fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Bytes with their number before them.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// Flags as lengths of runs, the first of which is of false.
    pub fn flags(&mut self, flags: &[bool]) {
        let (mut rest, mut kind) = (flags, false);
        while !rest.is_empty() {
            let run = rest.iter().take_while(|&&flag| flag == kind).count();
            self.number(run as u64);
            (rest, kind) = (&rest[run..], !kind);
        }
    }

    /// Small whole numbers.
    pub fn small(&mut self, values: impl Iterator<Item = i64>) {
        self.whole(0, &values.collect::<Vec<_>>());
    }

    /// Doubles.
    pub fn doubles(&mut self, values: &[f64]) {
        let mut whole = Vec::with_capacity(values.len());
        for (i, &scale) in SCALES.iter().enumerate().skip(1) {
            whole.clear();
            whole.extend(values.iter().map_while(|&value| {
                let units = (value * scale).round();
                let fits = units.abs() < 9e15 && (units / scale).to_bits() == value.to_bits();
                fits.then_some(units as i64)
            }));
            if whole.len() == values.len() {
                let negative = |v: &f64| *v == 0.0 && v.is_sign_negative();
                let zeros: Vec<usize> = (0..values.len()).filter(|&i| negative(&values[i])).collect();
                self.whole((i as u8) << 2 | if zeros.is_empty() { 0 } else { NEGATIVE_ZEROS }, &whole);
                if !zeros.is_empty() {
                    let mut flags = vec![false; values.len()];
                    zeros.into_iter().for_each(|i| flags[i] = true);
                    self.flags(&flags);
                }
                return;
            }
        }
        self.whole(0, &values.iter().map(|v| ordered(v.to_bits() as i64)).collect::<Vec<_>>());
    }

    fn whole(&mut self, scale: u8, values: &[i64]) {
        let Some(&first) = values.first() else { return };
        if values.iter().all(|&v| v == first) {
            self.bytes.push(scale | CONSTANT);
            return self.number(zigzag(first));
        }
        let mut best: Vec<u64> = values.iter().map(|&v| zigzag(v)).collect();
        let (mut order, mut size, mut heads) = (0, packed_size(&best), Vec::new());
        let (mut differences, mut taken) = (values.to_vec(), Vec::new());
        for next in 1..=2 {
            if differences.len() < 2 {
                break;
            }
            taken.push(differences[0]);
            for i in 1..differences.len() {
                differences[i - 1] = differences[i].wrapping_sub(differences[i - 1]);
            }
            differences.pop();
            let zigzags: Vec<u64> = differences.iter().map(|&v| zigzag(v)).collect();
            let packed = packed_size(&zigzags);
            if packed < size {
                (order, size, heads, best) = (next, packed, taken.clone(), zigzags);
            }
        }
        self.bytes.push(scale | order);
        heads.into_iter().for_each(|head| self.number(zigzag(head)));
        for block in best.chunks(BLOCK) {
            let width = width(block);
            self.bytes.push(width as u8);
            let (mut word, mut filled) = (0_u128, 0);
            for &value in block {
                word |= u128::from(value) << filled;
                filled += width;
                while filled >= 8 {
                    self.bytes.push(word as u8);
                    (word, filled) = (word >> 8, filled - 8);
                }
            }
            if filled > 0 {
                self.bytes.push(word as u8);
            }
        }
    }
}

fn width(block: &[u64]) -> u32 {
    let width = 64 - block.iter().fold(0, |all, v| all | v).leading_zeros();
    if width > WIDEST { 64 } else { width }
}

fn packed_size(values: &[u64]) -> usize {
    values.chunks(BLOCK).map(|block| 1 + (block.len() * width(block) as usize).div_ceil(8)).sum()
}

/// 0, -1, 1, -2, ... to 0, 1, 2, 3, ...
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// The unit that a column's first byte names.
fn scale(first: u8) -> Read<f64> {
    SCALES.get(usize::from((first & !NEGATIVE_ZEROS) >> 2)).copied().ok_or(Damaged)
}

fn double(first: u8, units: i64) -> Read<f64> {
    let scale = scale(first)?;
    Ok(if scale == 0.0 { f64::from_bits(ordered(units) as u64) } else { units as f64 / scale })
}

/// The bits of doubles in the order of the doubles, and back.
fn ordered(bits: i64) -> i64 {
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// Reads what a [`Writer`] wrote, in the same order. Whatever the bytes are, it ends with a result.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    scratch: Vec<i64>,
}

impl<'a> Reader<'a> {
    /// From the beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, scratch: Vec::new() }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or(Damaged)?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// See [`Writer::number`].
    pub fn number(&mut self) -> Read<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Damaged)
    }

    /// A number of things, at most `limit`.
    pub fn count(&mut self, limit: usize) -> Read<usize> {
        usize::try_from(self.number()?).ok().filter(|count| *count <= limit).ok_or(Damaged)
    }

    /// See [`Writer::bytes`].
    pub fn bytes(&mut self) -> Read<&'a [u8]> {
        let count = self.count(self.bytes.len())?;
        self.take(count)
    }

    /// UTF-8 with its length before it.
    pub fn text(&mut self) -> Read<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Damaged)
    }

    /// `count` flags.
    pub fn flags(&mut self, count: usize) -> Read<Vec<bool>> {
        let mut flags = Vec::with_capacity(count);
        let mut kind = false;
        while flags.len() < count {
            let run = self.count(count - flags.len())?;
            if run == 0 && !flags.is_empty() {
                return Err(Damaged);
            }
            flags.resize(flags.len() + run, kind);
            kind = !kind;
        }
        Ok(flags)
    }

    /// `count` small whole numbers.
    pub fn small<T: TryFrom<i64>>(&mut self, count: usize) -> Read<Vec<T>> {
        self.whole(count)?;
        self.scratch.iter().map(|&v| T::try_from(v).map_err(|_| Damaged)).collect()
    }

    /// `count` doubles.
    pub fn doubles(&mut self, count: usize) -> Read<Vec<f64>> {
        let mut values = Vec::with_capacity(count);
        self.doubles_onto(&mut values, count)?;
        Ok(values)
    }

    /// As many doubles as there is room for.
    pub fn doubles_into(&mut self, values: &mut [f64]) -> Read<()> {
        let read = self.doubles(values.len())?;
        values.copy_from_slice(&read);
        Ok(())
    }

    /// Appends `count` doubles.
    pub fn doubles_onto(&mut self, values: &mut Vec<f64>, count: usize) -> Read<()> {
        let start = values.len();
        let first = match self.constant(count)? {
            Some((first, units)) => {
                values.resize(start + count, double(first, units)?);
                first
            }
            None => {
                let first = self.whole(count)?;
                let scale = scale(first)?;
                if scale == 0.0 {
                    values.extend(self.scratch.iter().map(|&bits| f64::from_bits(ordered(bits) as u64)));
                } else {
                    values.extend(self.scratch.iter().map(|&units| units as f64 / scale));
                }
                first
            }
        };
        if first & NEGATIVE_ZEROS != 0 {
            let flags = self.flags(count)?;
            values[start..].iter_mut().zip(flags).filter(|(_, negative)| *negative).for_each(|(value, _)| *value = -*value);
        }
        Ok(())
    }

    /// First byte and value of a column whose numbers are all equal.
    fn constant(&mut self, count: usize) -> Read<Option<(u8, i64)>> {
        match self.bytes.get(self.at) {
            Some(&first) if count > 0 && first & 3 == CONSTANT => {
                self.at += 1;
                Ok(Some((first, unzigzag(self.number()?))))
            }
            _ => Ok(None),
        }
    }

    /// Fills `scratch` with the column, gives its first byte.
    fn whole(&mut self, count: usize) -> Read<u8> {
        self.scratch.clear();
        if count == 0 {
            return Ok(0);
        }
        if let Some((first, value)) = self.constant(count)? {
            self.scratch.resize(count, value);
            return Ok(first);
        }
        let first = self.take(1)?[0];
        let order = usize::from(first & 3);
        if order >= count {
            return Err(Damaged);
        }
        let mut heads = [0; 2];
        for head in &mut heads[..order] {
            *head = unzigzag(self.number()?);
        }
        self.scratch.resize(count, 0);
        let mut scratch = std::mem::take(&mut self.scratch);
        let unpacked = scratch[order..].chunks_mut(BLOCK).try_for_each(|block| self.block(block));
        self.scratch = scratch;
        unpacked?;
        let values = &mut self.scratch[..];
        if order == 2 {
            let mut step = heads[1];
            values[0] = heads[0];
            values[1] = heads[0].wrapping_add(step);
            for i in 2..values.len() {
                step = step.wrapping_add(values[i]);
                values[i] = values[i - 1].wrapping_add(step);
            }
        } else if order == 1 {
            values[0] = heads[0];
            for i in 1..values.len() {
                values[i] = values[i].wrapping_add(values[i - 1]);
            }
        }
        Ok(first)
    }

    fn block(&mut self, values: &mut [i64]) -> Read<()> {
        let width = usize::from(self.take(1)?[0]);
        if width > 64 {
            return Err(Damaged);
        }
        let packed = self.take((values.len() * width).div_ceil(8))?;
        if width > WIDEST as usize {
            let mut words = packed.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
            for value in values {
                *value = unzigzag(words.next().ok_or(Damaged)?);
            }
            return Ok(());
        }
        let start = self.at - packed.len();
        let padded = self.bytes.get(start..start + packed.len() + PADDING).ok_or(Damaged)?;
        let mask = (1 << width) - 1;
        for (i, value) in values.iter_mut().enumerate() {
            let bit = i * width;
            let word = u64::from_le_bytes(padded[bit / 8..][..8].try_into().unwrap_or_default());
            *value = unzigzag(word >> (bit % 8) & mask);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state ^ *state >> 29
    }

    fn round_trip(columns: &[Vec<f64>]) -> usize {
        let mut writer = Writer::default();
        columns.iter().for_each(|column| writer.doubles(column));
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        for column in columns {
            let read = reader.doubles(column.len()).unwrap();
            assert!(read.iter().zip(column).all(|(a, b)| a.to_bits() == b.to_bits()), "{column:?}\n{read:?}");
        }
        assert_eq!(reader.at + PADDING, bytes.len());
        bytes.len()
    }

    #[test]
    fn every_double_comes_back() {
        let mut state = 1;
        let mut columns = vec![
            vec![],
            vec![0.0],
            vec![-0.0, 0.0, 1.5],
            vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MIN, f64::MAX, f64::MIN_POSITIVE, -0.0, 0.0],
            vec![7.25; 40],
            (0..101).map(|i| 1234.567 + f64::from(i) * 0.001).collect(),
            (0..101).map(|i| f64::from((f64::from(i) * 0.3).sin() as f32)).collect(),
        ];
        for count in [1, 2, 3, 31, 32, 33, 34, 101] {
            columns.push((0..count).map(|_| f64::from_bits(random(&mut state))).collect());
            columns.push((0..count).map(|_| (random(&mut state) % 2_000_000) as f64 / 1000.0 - 1000.0).collect());
            columns.push((0..count).map(|i| 4e6 + 0.1 * f64::from(i)).collect());
        }
        round_trip(&columns);
    }

    #[test]
    fn motion_on_a_grid_is_small() {
        let smooth: Vec<f64> = (0..101).map(|i| ((500.0 + 0.8 * f64::from(i) + 0.002 * f64::from(i * i)) * 1e3).round() / 1e3).collect();
        assert!(round_trip(&[smooth]) < 70);
        assert!(round_trip(&[vec![398.565; 101]]) < 16);
    }

    #[test]
    fn flags_and_small_numbers_come_back() {
        let flags = [true, true, false, true, false, false];
        let mut writer = Writer::default();
        writer.flags(&flags);
        writer.flags(&[]);
        writer.small([3, 3, -120].into_iter());
        writer.bytes("ü".as_bytes());
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.flags(6), Ok(flags.to_vec()));
        assert_eq!(reader.flags(0), Ok(vec![]));
        assert_eq!(reader.small::<i8>(3), Ok(vec![3, 3, -120]));
        assert_eq!(reader.text(), Ok("ü"));
    }

    #[test]
    fn whatever_is_read_ends() {
        let mut state = 5;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random(&mut state) % 60).map(|_| (random(&mut state) >> 13) as u8 & 0x4F).collect();
            let mut reader = Reader::new(&bytes);
            let _ = (reader.doubles(70), reader.flags(9), reader.small::<i8>(5), reader.bytes(), reader.number());
        }
    }
}
