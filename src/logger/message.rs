//! Protocol-buffer messages in the making, for the two formats that consist of them.

/// A message; fields are appended in any order.
#[derive(Debug, Default, Clone)]
pub(super) struct Message(pub Vec<u8>);

impl Message {
    /// A message that `fill` makes.
    pub fn new(fill: impl FnOnce(&mut Self)) -> Self {
        let mut message = Self::default();
        fill(&mut message);
        message
    }
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
    /// A field of type int32, int64, bool or enum; not for negative numbers.
    pub fn integer(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }
    /// A field of type double.
    pub fn double(&mut self, field: u64, value: f64) {
        self.varint(field << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }
    /// A field of type float.
    pub fn float(&mut self, field: u64, value: f32) {
        self.varint(field << 3 | 5);
        self.0.extend(value.to_le_bytes());
    }
    /// A field of type bytes.
    pub fn bytes(&mut self, field: u64, value: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }
    /// A field of type string.
    pub fn text(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }
    /// A field that is a message, which `fill` makes.
    pub fn message(&mut self, field: u64, fill: impl FnOnce(&mut Self)) {
        self.bytes(field, &Self::new(fill).0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_encoded_as_the_format_says() {
        let message = Message::new(|m| {
            m.integer(2, 300);
            m.message(5, |m| m.text(1, "ab"));
            m.float(2, 1.5);
            m.double(20, -0.0);
        });
        assert_eq!(message.0, b"\x10\xac\x02\x2a\x04\x0a\x02ab\x15\x00\x00\xc0\x3f\xa1\x01\x00\x00\x00\x00\x00\x00\x00\x80");
    }
}
