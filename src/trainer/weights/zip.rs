//! Archives whose members are stored as they are, as PyTorch writes them (PKWARE, "APPNOTE.TXT", 6.3).

/// Where a member's data may begin: PyTorch maps storages into memory.
const ALIGNMENT: usize = 64;
const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
/// Bytes of the end record, without its comment.
const END_LENGTH: usize = 22;
/// Names are UTF-8.
const UTF8: u16 = 1 << 11;
/// 1980-01-01, the first date that there is.
const DATE: u16 = 0x21;

/// An archive in memory; nothing of it is copied.
pub struct Archive<'a> {
    /// Name and data, by name.
    members: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Archive<'a> {
    /// True for what begins as an archive does.
    pub fn is(content: &[u8]) -> bool {
        content.starts_with(LOCAL)
    }

    /// Reads the list of members and checks their data.
    ///
    /// # Errors
    /// What is broken, a member that is compressed, or one whose checksum is not that of its data.
    pub fn read(content: &'a [u8]) -> Result<Self, String> {
        let (count, mut at) = directory(content).ok_or("the archive has no end: it is cut off or damaged")?;
        let (mut members, mut total) = (Vec::new(), 0);
        for _ in 0..count {
            let (name, data, checksum, next) = member(content, at)?;
            // Members that share bytes could be made to take for ever.
            total += data.len();
            if total > content.len() {
                return Err("the archive's members overlap".into());
            }
            if crc32fast::hash(data) != checksum {
                return Err(format!("'{name}' is damaged: its checksum differs"));
            }
            members.push((name, data));
            at = next;
        }
        members.sort_unstable_by_key(|(name, _)| *name);
        Ok(Self { members })
    }

    /// Names of all members, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.members.iter().map(|(name, _)| *name)
    }

    /// Data of a member.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.members.binary_search_by_key(&name, |(name, _)| *name).ok().map(|found| self.members[found].1)
    }
}

fn u16_at(content: &[u8], at: usize) -> Option<u16> {
    content.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(content: &[u8], at: usize) -> Option<u32> {
    content.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn size_at(content: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(*content.get(at..)?.first_chunk()?)).ok()
}

/// Number of members and the place of the first record about them.
fn directory(content: &[u8]) -> Option<(usize, usize)> {
    // A comment of up to 65535 bytes may follow the end record.
    let last = content.len().checked_sub(END_LENGTH)?;
    let end = (last.saturating_sub(usize::from(u16::MAX))..=last).rev().find(|&at| content[at..].starts_with(END))?;
    let (count, start) = (u16_at(content, end + 10)?, u32_at(content, end + 16)?);
    if count != u16::MAX && start != u32::MAX {
        return Some((count.into(), start as usize));
    }
    let locator = end.checked_sub(20)?;
    let end = size_at(content, locator + 8)?;
    let is = |at: usize, mark: &[u8]| content.get(at..).is_some_and(|rest| rest.starts_with(mark));
    (is(locator, LOCATOR_64) && is(end, END_64)).then(|| Some((size_at(content, end + 32)?, size_at(content, end + 48)?)))?
}

/// Name, data and checksum of the member that the central record at `at` describes, and the end of that record.
fn member(content: &[u8], at: usize) -> Result<(&str, &[u8], u32, usize), String> {
    let cut = || "the archive is cut off or damaged".to_owned();
    let half = |at| u16_at(content, at).map(usize::from).ok_or_else(cut);
    let word = |at| u32_at(content, at).ok_or_else(cut);
    if !content.get(at..).is_some_and(|rest| rest.starts_with(CENTRAL)) {
        return Err(cut());
    }
    let (name_length, extra_length, comment_length) = (half(at + 28)?, half(at + 30)?, half(at + 32)?);
    let (name_start, extra_start) = (at + 46, at + 46 + name_length);
    let next = extra_start + extra_length + comment_length;
    let name = content.get(name_start..extra_start).ok_or_else(cut)?;
    let name = std::str::from_utf8(name).map_err(|_| "the archive has a name that is not UTF-8".to_owned())?;
    if half(at + 8)? & 1 != 0 || half(at + 10)? != 0 {
        return Err(format!("'{name}' is compressed or encrypted, which PyTorch does not do"));
    }
    // Sizes and place that do not fit 32 bits stand, in this order, in the extra field 1.
    let mut large = content.get(extra_start..extra_start + extra_length).and_then(extra_64).unwrap_or_default();
    let mut wide = |at| match word(at)? {
        u32::MAX => {
            let (value, rest) = large.split_at_checked(8).ok_or_else(cut)?;
            large = rest;
            size_at(value, 0).ok_or_else(cut)
        }
        value => Ok(value as usize),
    };
    let (length, _, local) = (wide(at + 24)?, wide(at + 20)?, wide(at + 42)?);
    if !content.get(local..).is_some_and(|rest| rest.starts_with(LOCAL)) {
        return Err(cut());
    }
    let start = local + 30 + half(local + 26)? + half(local + 28)?;
    let data = start.checked_add(length).and_then(|end| content.get(start..end)).ok_or_else(cut)?;
    Ok((name, data, word(at + 16)?, next))
}

/// The field of large sizes in the extra fields of a record.
fn extra_64(mut extra: &[u8]) -> Option<&[u8]> {
    loop {
        let (kind, length) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let field = extra.get(4..4 + length)?;
        if kind == 1 {
            return Some(field);
        }
        extra = &extra[4 + length..];
    }
}

/// An archive in the making.
#[derive(Default)]
pub struct Writer {
    content: Vec<u8>,
    directory: Vec<u8>,
    count: u16,
}

impl Writer {
    /// An archive with room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { content: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Appends a member; `write` appends its data.
    ///
    /// # Errors
    /// The archive grows beyond 4 GiB or 65534 members.
    pub fn add(&mut self, name: &str, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), String> {
        let large = || "an archive larger than 4 GiB or with more than 65534 members cannot be written".to_owned();
        let local = self.content.len();
        // Padding is an extra field of its own, as PyTorch has it: a mark, a length, and letters.
        let unpadded = local + 30 + name.len() + 4;
        let padding = unpadded.next_multiple_of(ALIGNMENT) - unpadded;
        self.content.extend_from_slice(&[0; 30]);
        self.content.extend_from_slice(name.as_bytes());
        self.content.extend_from_slice(b"FB");
        self.content.extend_from_slice(&(padding as u16).to_le_bytes());
        self.content.resize(unpadded + padding, b'Z');
        let start = self.content.len();
        write(&mut self.content);
        let length = u32::try_from(self.content.len() - start).map_err(|_| large())?;
        let offset = u32::try_from(local).map_err(|_| large())?;
        self.count = self.count.checked_add(1).filter(|count| *count < u16::MAX).ok_or_else(large)?;

        // Versions, flags, method (stored), time, date, checksum, both sizes, length of the name.
        let mut common = Vec::with_capacity(26);
        [0, UTF8, 0, 0, DATE].iter().for_each(|value: &u16| common.extend(value.to_le_bytes()));
        [crc32fast::hash(&self.content[start..]), length, length].iter().for_each(|value| common.extend(value.to_le_bytes()));
        common.extend((name.len() as u16).to_le_bytes());
        let header = &mut self.content[local..local + 30];
        header[..4].copy_from_slice(LOCAL);
        header[4..28].copy_from_slice(&common);
        header[28..].copy_from_slice(&(padding as u16 + 4).to_le_bytes());

        self.directory.extend_from_slice(CENTRAL);
        self.directory.extend_from_slice(&[0; 2]);
        self.directory.extend_from_slice(&common);
        self.directory.extend_from_slice(&[0; 12]);
        self.directory.extend_from_slice(&offset.to_le_bytes());
        self.directory.extend_from_slice(name.as_bytes());
        Ok(())
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// The archive is larger than 4 GiB.
    pub fn finish(mut self) -> Result<Vec<u8>, String> {
        let start = u32::try_from(self.content.len()).map_err(|_| "an archive larger than 4 GiB cannot be written".to_owned())?;
        self.content.extend_from_slice(&self.directory);
        self.content.extend_from_slice(END);
        self.content.extend_from_slice(&[0; 4]);
        self.content.extend_from_slice(&self.count.to_le_bytes());
        self.content.extend_from_slice(&self.count.to_le_bytes());
        self.content.extend_from_slice(&(self.directory.len() as u32).to_le_bytes());
        self.content.extend_from_slice(&start.to_le_bytes());
        self.content.extend_from_slice(&[0; 2]);
        Ok(self.content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.add("archive/data.pkl", |out| out.extend(b"one")).unwrap();
        writer.add("archive/data/0", |out| out.extend([7; 100])).unwrap();
        writer.add("archive/empty", |_| {}).unwrap();
        let content = writer.finish().unwrap();
        let archive = Archive::read(&content).unwrap();
        assert_eq!(archive.names().collect::<Vec<_>>(), ["archive/data.pkl", "archive/data/0", "archive/empty"]);
        assert_eq!(archive.get("archive/data.pkl"), Some(&b"one"[..]));
        let data = archive.get("archive/data/0").unwrap();
        assert_eq!(data, [7; 100]);
        assert_eq!((data.as_ptr() as usize - content.as_ptr() as usize) % ALIGNMENT, 0);
        assert!(archive.get("archive/empty").unwrap().is_empty());
        assert!(archive.get("archive/other").is_none());

        let mut damaged = content.clone();
        damaged[64] ^= 1;
        let fail = |content: &[u8]| Archive::read(content).err().unwrap();
        assert!(fail(&damaged).contains("'archive/data.pkl' is damaged"));
        assert!((0..content.len()).all(|end| !fail(&content[..end]).is_empty()), "a cut archive is an error");
    }
}
