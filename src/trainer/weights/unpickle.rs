//! Reads Python's pickles and executes nothing in them (opcodes: Python's `pickletools`, protocols 0 to 5).
//!
//! A pickle is a program for a stack machine that would import and call what it names. Here a call stays a description of
//! itself ([`Object::Call`]), so objects of unknown classes are carried along and never made. Texts are not copied, and what a
//! pickle may allocate is limited by the caller.

/// A text of a pickle: where it begins, and its length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Text(u32, u32);

/// A value; composite ones lie in [`Pickle::objects`], so that one that contains itself is no harm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(Text),
    /// Place of an object.
    Object(u32),
    /// What is not read: bytes, numbers beyond 64 bits, sets, objects of classes.
    Opaque,
}

/// A composite value.
#[derive(Debug, PartialEq)]
pub enum Object {
    /// A tuple.
    Tuple(Box<[Value]>),
    /// A list.
    List(Vec<Value>),
    /// A dictionary, ordered or not; of equal keys the last one counts.
    Dict(Vec<(Value, Value)>),
    /// A class or function: module and name.
    Global(Text, Text),
    /// What lies outside the pickle, by its identification.
    Persistent(Value),
    /// A call that was not made: place of the function, and the tuple of arguments.
    Call(u32, Value),
}

/// What a pickle describes.
#[derive(Debug)]
pub struct Pickle<'a> {
    bytes: &'a [u8],
    /// All composite values.
    pub objects: Vec<Object>,
    /// The described value.
    pub root: Value,
    /// Bytes of the pickle.
    pub length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `bytes`. It allocates `limit` bytes at most.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn read(bytes: &'a [u8], limit: usize) -> Result<Self, String> {
        // Texts are placed with 32 bits.
        let bytes = &bytes[..bytes.len().min(u32::MAX as usize)];
        let mut machine = Machine { bytes, at: 0, stack: Vec::new(), marks: Vec::new(), memo: Vec::new(), objects: Vec::new(), limit };
        let root = machine.run().map_err(|reason| format!("its pickle is broken at byte {}: {reason}", machine.at))?;
        Ok(Self { bytes, objects: machine.objects, root, length: machine.at })
    }

    /// The text that a value is.
    pub fn text(&self, value: Value) -> Option<&'a str> {
        if let Value::Text(text) = value { Some(read_text(self.bytes, text)) } else { None }
    }

    /// The object that a value is.
    pub fn object(&self, value: Value) -> Option<&Object> {
        if let Value::Object(place) = value { self.objects.get(place as usize) } else { None }
    }

    /// Entries of a dictionary.
    pub fn dict(&self, value: Value) -> Option<&[(Value, Value)]> {
        if let Object::Dict(entries) = self.object(value)? { Some(entries) } else { None }
    }

    /// Elements of a list or tuple.
    pub fn items(&self, value: Value) -> Option<&[Value]> {
        match self.object(value)? {
            Object::Tuple(items) => Some(items),
            Object::List(items) => Some(items),
            _ => None,
        }
    }

    /// Entry of a dictionary.
    pub fn get(&self, dict: Value, key: &str) -> Option<Value> {
        self.dict(dict)?.iter().rev().find(|(k, _)| self.text(*k) == Some(key)).map(|(_, value)| *value)
    }

    /// Module and name of a class or function.
    pub fn global(&self, value: Value) -> Option<(&'a str, &'a str)> {
        let Object::Global(module, name) = self.object(value)? else { return None };
        Some((read_text(self.bytes, *module), read_text(self.bytes, *name)))
    }

    /// Module and name of the function of a call that was not made, and its arguments.
    pub fn call(&self, value: Value) -> Option<((&'a str, &'a str), &[Value])> {
        let Object::Call(function, arguments) = self.object(value)? else { return None };
        Some((self.global(Value::Object(*function))?, self.items(*arguments)?))
    }
}

/// A text was found to be one when it was read.
fn read_text(bytes: &[u8], Text(start, length): Text) -> &str {
    let text = bytes.get(start as usize..).and_then(|rest| rest.get(..length as usize)).unwrap_or_default();
    std::str::from_utf8(text).unwrap_or_default()
}

// A checkpoint's structure is some twenty values and ten objects a tensor.
const _: () = assert!(size_of::<Value>() == 16 && size_of::<Object>() <= 32);

type Step<T = ()> = Result<T, String>;

/// The stack machine.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    /// Heights of the stack that were marked.
    marks: Vec<usize>,
    memo: Vec<Value>,
    objects: Vec<Object>,
    /// Bytes that may still be allocated.
    limit: usize,
}

fn spend<T>(count: usize, limit: &mut usize) -> Step {
    let left = count.checked_mul(size_of::<T>()).and_then(|bytes| limit.checked_sub(bytes));
    *limit = left.ok_or("it needs more memory than a file of its size does")?;
    Ok(())
}

/// Makes room for more elements, a quarter more than are there at least, and takes it off the limit.
fn grow<T>(vector: &mut Vec<T>, more: usize, limit: &mut usize) -> Step {
    if vector.capacity() - vector.len() < more {
        let room = more.max(vector.len() / 4 + 8);
        // While it grows, the old room is there as well.
        spend::<T>(vector.capacity() + room, limit)?;
        *limit += vector.capacity() * size_of::<T>();
        vector.reserve_exact(room);
    }
    Ok(())
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Step<Value> {
        loop {
            let code = self.take(1)?[0];
            if code == b'.' {
                return self.pop();
            }
            self.step(code)?;
        }
    }

    #[rustfmt::skip]
    fn step(&mut self, code: u8) -> Step {
        match code {
            0x80 => { // PROTO
                let version = self.number::<1>()?;
                if version > 5 { return Err(format!("its protocol {version} is not known")); }
                Ok(())
            }
            0x95 => self.take(8).map(drop), // FRAME
            b'(' => { grow(&mut self.marks, 1, &mut self.limit)?; self.marks.push(self.stack.len()); Ok(()) }
            b'0' => self.pop().map(drop), // POP
            b'1' => self.marked().map(drop), // POP_MARK
            b'2' => { let top = self.top()?; self.push(top) } // DUP
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'I' => { let line = self.line()?; self.push(match line { "00" => Value::Bool(false), "01" => Value::Bool(true), _ => whole(line)? }) }
            b'L' => { let line = self.line()?; self.push(whole(line.strip_suffix('L').unwrap_or(line))?) }
            b'J' => { let value = self.number::<4>()? as u32 as i32; self.push(Value::Int(value.into())) } // BININT
            b'K' => { let value = self.number::<1>()?; self.push(Value::Int(value as i64)) }
            b'M' => { let value = self.number::<2>()?; self.push(Value::Int(value as i64)) }
            0x8a => { let bytes = self.counted::<1>()?; self.push(long(bytes)) } // LONG1
            0x8b => { let bytes = self.counted::<4>()?; self.push(long(bytes)) }
            b'F' => { let line = self.line()?; self.push(Value::Float(line.parse().map_err(|_| format!("'{line}' is no number"))?)) }
            b'G' => { let bytes = *self.take(8)?.first_chunk().ok_or("cut off")?; self.push(Value::Float(f64::from_be_bytes(bytes))) }
            b'S' | b'V' => { let line = self.line()?; let text = self.place(line.trim_matches(['\'', '"'])); self.push(Value::Text(text)) } // STRING, UNICODE
            b'T' => self.text::<4>(), // BINSTRING
            b'U' => self.text::<1>(),
            b'X' => self.text::<4>(), // BINUNICODE
            0x8c => self.text::<1>(),
            0x8d => self.text::<8>(),
            b'B' => self.skip::<4>(), // BINBYTES
            b'C' => self.skip::<1>(),
            0x8e | 0x96 => self.skip::<8>(),
            b']' => self.put(Object::List(Vec::new())),
            b')' => self.put(Object::Tuple(Box::default())),
            b'}' => self.put(Object::Dict(Vec::new())),
            0x8f => self.push(Value::Opaque), // EMPTY_SET
            b'l' => { let items = self.marked()?; self.put(Object::List(items)) }
            b't' => { let items = self.marked()?; self.put(Object::Tuple(items.into())) }
            b'd' => { let items = self.marked()?; self.put(Object::Dict(Vec::new()))?; self.set(&items) }
            0x85 => self.tuple(1),
            0x86 => self.tuple(2),
            0x87 => self.tuple(3),
            b'a' => { let item = self.pop()?; self.append(&[item]) }
            b'e' => { let items = self.marked()?; self.append(&items) }
            b's' => { let value = self.pop()?; let key = self.pop()?; self.set(&[key, value]) }
            b'u' => { let items = self.marked()?; self.set(&items) }
            0x90 => self.marked().map(drop), // ADDITEMS
            0x91 => { self.marked()?; self.push(Value::Opaque) } // FROZENSET
            b'p' => { let line = self.line()?; let index = line.parse().map_err(|_| "a bad memo")?; self.remember(index) }
            b'q' => { let index = self.number::<1>()?; self.remember(index) }
            b'r' => { let index = self.number::<4>()?; self.remember(index) }
            0x94 => self.remember(self.memo.len() as u64), // MEMOIZE
            b'g' => { let line = self.line()?; let index = line.parse().map_err(|_| "a bad memo")?; self.recall(index) }
            b'h' => { let index = self.number::<1>()?; self.recall(index) }
            b'j' => { let index = self.number::<4>()?; self.recall(index) }
            b'c' => { let (module, name) = (self.line()?, self.line()?); self.put(Object::Global(self.place(module), self.place(name))) }
            0x93 => { // STACK_GLOBAL
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(module), Value::Text(name)) = (module, name) else { return Err("a class without a name".into()) };
                self.put(Object::Global(module, name))
            }
            b'R' | 0x81 => { let arguments = self.pop()?; let function = self.pop()?; self.call(function, arguments) } // REDUCE, NEWOBJ
            0x92 => { self.pop()?; let arguments = self.pop()?; let class = self.pop()?; self.call(class, arguments) } // NEWOBJ_EX
            b'b' => self.pop().map(drop), // BUILD: state of an object that is not made
            b'i' => { self.line()?; self.line()?; self.marked()?; self.push(Value::Opaque) } // INST
            b'o' => { self.marked()?; self.push(Value::Opaque) } // OBJ
            b'P' => { let line = self.line()?; self.put(Object::Persistent(Value::Text(self.place(line)))) }
            b'Q' => { let identification = self.pop()?; self.put(Object::Persistent(identification)) }
            0x82 => { self.take(1)?; self.push(Value::Opaque) } // EXT1
            0x83 => { self.take(2)?; self.push(Value::Opaque) }
            0x84 => { self.take(4)?; self.push(Value::Opaque) }
            other => Err(format!("{other:#04x} is no opcode of a file")),
        }
    }

    fn take(&mut self, count: usize) -> Step<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len()).ok_or("it is cut off")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// Little-endian number of N bytes.
    fn number<const N: usize>(&mut self) -> Step<u64> {
        Ok(self.take(N)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// As many bytes as a number of N bytes says.
    fn counted<const N: usize>(&mut self) -> Step<&'a [u8]> {
        let count = self.number::<N>()?;
        self.take(usize::try_from(count).map_err(|_| "it is cut off")?)
    }

    fn line(&mut self) -> Step<&'a str> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or("it is cut off")?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "a line is not UTF-8".into())
    }

    /// Where a text of the pickle lies in it.
    fn place(&self, text: &str) -> Text {
        Text((text.as_ptr() as usize - self.bytes.as_ptr() as usize) as u32, text.len() as u32)
    }

    fn text<const N: usize>(&mut self) -> Step {
        // Python 2 wrote bytes as texts.
        let value = std::str::from_utf8(self.counted::<N>()?).map_or(Value::Opaque, |text| Value::Text(self.place(text)));
        self.push(value)
    }

    fn skip<const N: usize>(&mut self) -> Step {
        self.counted::<N>()?;
        self.push(Value::Opaque)
    }

    fn push(&mut self, value: Value) -> Step {
        grow(&mut self.stack, 1, &mut self.limit)?;
        self.stack.push(value);
        Ok(())
    }

    fn put(&mut self, object: Object) -> Step {
        let place = u32::try_from(self.objects.len()).map_err(|_| "too many objects")?;
        grow(&mut self.objects, 1, &mut self.limit)?;
        self.objects.push(object);
        self.push(Value::Object(place))
    }

    /// The stack above the last mark is not to be popped.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Step<Value> {
        self.stack.get(self.floor()..).and_then(<[_]>::last).copied().ok_or_else(|| "the stack is empty".into())
    }

    fn pop(&mut self) -> Step<Value> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// What lies above the last mark, which goes.
    fn marked(&mut self) -> Step<Vec<Value>> {
        let mark = self.marks.pop().ok_or("no mark")?;
        self.taken(mark)
    }

    /// The stack from a height on, which goes.
    fn taken(&mut self, height: usize) -> Step<Vec<Value>> {
        spend::<Value>(self.stack.len() - height, &mut self.limit)?;
        Ok(self.stack.drain(height..).collect())
    }

    fn tuple(&mut self, count: usize) -> Step {
        let start = self.stack.len().checked_sub(count).filter(|start| *start >= self.floor()).ok_or("the stack is empty")?;
        let items = self.taken(start)?;
        self.put(Object::Tuple(items.into()))
    }

    /// Adds to the list on top; what is no list is none of ours.
    fn append(&mut self, items: &[Value]) -> Step {
        if let Value::Object(place) = self.top()?
            && let Object::List(list) = &mut self.objects[place as usize]
        {
            grow(list, items.len(), &mut self.limit)?;
            list.extend_from_slice(items);
        }
        Ok(())
    }

    /// Adds to the dictionary on top; what is no dictionary is none of ours.
    fn set(&mut self, items: &[Value]) -> Step {
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("a key without a value".into());
        }
        if let Value::Object(place) = self.top()?
            && let Object::Dict(entries) = &mut self.objects[place as usize]
        {
            grow(entries, pairs.len(), &mut self.limit)?;
            entries.extend(pairs.iter().map(|[key, value]| (*key, *value)));
        }
        Ok(())
    }

    /// Writers number what they remember without gaps, or with gaps where they dropped some of it.
    fn remember(&mut self, index: u64) -> Step {
        let index = usize::try_from(index).ok().filter(|index| *index <= self.at).ok_or("a memo out of order")?;
        let top = self.top()?;
        if index >= self.memo.len() {
            let more = index + 1 - self.memo.len();
            grow(&mut self.memo, more, &mut self.limit)?;
            self.memo.resize(index + 1, Value::Opaque);
        }
        self.memo[index] = top;
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Step {
        let value = usize::try_from(index).ok().and_then(|index| self.memo.get(index)).copied().ok_or("a memo that was never made")?;
        self.push(value)
    }

    /// An ordered dictionary is made empty; every other call is described.
    fn call(&mut self, function: Value, arguments: Value) -> Step {
        let Value::Object(place) = function else { return self.push(Value::Opaque) };
        let ordered = matches!(self.objects[place as usize], Object::Global(module, name)
            if (read_text(self.bytes, module), read_text(self.bytes, name)) == ("collections", "OrderedDict"));
        self.put(if ordered { Object::Dict(Vec::new()) } else { Object::Call(place, arguments) })
    }
}

fn whole(line: &str) -> Step<Value> {
    match line.parse() {
        Ok(value) => Ok(Value::Int(value)),
        Err(_) if !line.is_empty() && line.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit()) => Ok(Value::Opaque),
        Err(_) => Err(format!("'{line}' is no number")),
    }
}

/// A whole number of two's complement, little-endian.
fn long(bytes: &[u8]) -> Value {
    if bytes.len() > 8 {
        return Value::Opaque;
    }
    let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
    Value::Int(bytes.iter().rev().fold(sign, |value, byte| value << 8 | i64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Pickle<'_>, String> {
        Pickle::read(bytes, 1 << 16)
    }

    #[test]
    fn values() {
        let root = |bytes| read(bytes).unwrap().root;
        assert_eq!(root(b"K\x07."), Value::Int(7));
        assert_eq!(root(b"J\xfe\xff\xff\xff."), Value::Int(-2));
        assert_eq!(root(b"\x8a\x02\x00\xff."), Value::Int(-256));
        assert_eq!(root(b"\x8a\x00."), Value::Int(0));
        assert_eq!(root(b"\x8a\x09123456789."), Value::Opaque);
        assert_eq!(root(b"G\x3f\xf0\x00\x00\x00\x00\x00\x00."), Value::Float(1.0));
        let text = read(b"X\x02\x00\x00\x00ab.").unwrap();
        assert_eq!(text.text(text.root), Some("ab"));
        assert_eq!(root(b"I01\n."), Value::Bool(true));
        assert_eq!(root(b"L12L\n."), Value::Int(12));
    }

    #[test]
    fn composites() {
        // {'a': [1, 2], 'b': (None,)} with the list remembered, and set twice
        let pickle = read(b"\x80\x02}(U\x01a]q\x00(K\x01K\x02eU\x01bN\x85U\x01ch\x00u.").unwrap();
        let list = pickle.get(pickle.root, "a").unwrap();
        assert_eq!(pickle.items(list).unwrap(), [Value::Int(1), Value::Int(2)]);
        assert_eq!(pickle.get(pickle.root, "c"), Some(list));
        assert_eq!(pickle.items(pickle.get(pickle.root, "b").unwrap()).unwrap(), [Value::None]);
        // A list that contains itself.
        let pickle = read(b"]q\x00h\x00a.").unwrap();
        assert_eq!(pickle.items(pickle.root).unwrap(), [pickle.root]);
    }

    #[test]
    fn calls_are_described_and_not_made() {
        let pickle = read(b"cos\nsystem\n(U\x08rm -rf /tR}b.").unwrap();
        let (function, arguments) = pickle.call(pickle.root).unwrap();
        assert_eq!((function, pickle.text(arguments[0])), (("os", "system"), Some("rm -rf /")));
    }

    #[test]
    fn bombs_are_errors() {
        let fail = |bytes: &[u8]| read(bytes).unwrap_err();
        assert!(fail(&b"N".repeat(100_000)).contains("more memory"));
        assert!(fail(&b"(".repeat(100_000)).contains("more memory"));
        assert!(fail(&b"]".repeat(100_000)).contains("more memory"));
        assert!(fail(b"Nr\xff\xff\xff\xff.").contains("memo out of order"));
        assert!(fail(b"X\xff\xff\xff\xffa").contains("cut off"));
        assert!(fail(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffa").contains("cut off"));
        assert!(fail(b".").contains("empty"));
        assert!(fail(b"N(0").contains("empty"), "nothing below a mark is popped");
        assert!(fail(b"u.").contains("no mark"));
        assert!(fail(b"}(Nu.").contains("a key without a value"));
        assert!(fail(b"h\x05.").contains("never made"));
        assert!(fail(b"\x80\x06.").contains("protocol"));
        assert!(fail(b"\xff").contains("no opcode"));
    }
}
