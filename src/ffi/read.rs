//! Checked reading of what a host points to. Nothing is trusted that can be checked: null, alignment, size fields, counts,
//! texts, numbers. Messages name the field.

use std::ffi::c_char;

/// What is wrong with a field.
pub type Reading<T> = Result<T, String>;

/// Longest text for a name, bytes.
pub const NAME_LIMIT: usize = 1 << 12;
/// Longest text for a configuration or a path, bytes.
pub const TEXT_LIMIT: usize = 1 << 24;
/// No structure of any later version is larger, bytes.
const STRUCT_LIMIT: usize = 1 << 14;

/// A structure that starts with `struct_size` and whose all-zero bytes are a valid value.
///
/// # Safety
/// `repr(C)`, first field `struct_size: usize`, zero bytes valid.
pub unsafe trait Structure: Copy {
    /// Name in messages.
    const NAME: &'static str;
    /// Its size in the first version of the interface; smaller ones are refused.
    const FIRST_SIZE: usize;
}

macro_rules! sized {
    ($($name:ident: $size:literal),* $(,)?) => {
        // SAFETY: `types.rs` declares each as `repr(C)` with `struct_size` first and plain fields or nullable pointers after it.
        $(unsafe impl Structure for super::types::$name {
            const NAME: &'static str = stringify!($name);
            const FIRST_SIZE: usize = $size;
        })*
    };
}
sized! {
    TeLane: 104, TeCrosswalk: 32, TeMapDescription: 48, TeAgent: 40, TeScenario: 160, TeScenarioInfo: 40, TeSource: 64,
    TeBuildOptions: 80, TeReportView: 104, TeCandidate: 48, TeAgentPrediction: 32, TePredictionView: 32,
    TeSaveWeightsOptions: 24, TeLoadWeightsOptions: 32, TeWeightsReportView: 40,
}

/// A zeroed structure for a callback to fill.
pub fn blank<T: Structure>() -> T {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: zero bytes are valid for the type and its first field is `struct_size`.
    unsafe {
        value.as_mut_ptr().cast::<usize>().write(size_of::<T>());
        value.assume_init()
    }
}

/// `struct_size` of what a pointer points to, checked.
unsafe fn struct_size<T: Structure>(pointer: *const T, field: &str) -> Reading<usize> {
    if pointer.is_null() {
        return Err(format!("{field} is null"));
    }
    if !pointer.is_aligned() {
        return Err(format!("{field} is misaligned"));
    }
    // SAFETY: the first field is there in every version.
    let size = unsafe { pointer.cast::<usize>().read() };
    if size < T::FIRST_SIZE || size > STRUCT_LIMIT || size % align_of::<T>() != 0 {
        return Err(format!("{field}: struct_size is {size}, sizeof({}) is {}", T::NAME, size_of::<T>()));
    }
    Ok(size)
}

/// Copies a structure of the size that it states; fields that it lacks are zero.
///
/// # Safety
/// `pointer` is null or points to as many bytes as its `struct_size` says.
pub unsafe fn structure<T: Structure>(pointer: *const T, field: &str) -> Reading<T> {
    // SAFETY: as promised by the caller; the copy stays within both sizes.
    unsafe {
        let size = struct_size(pointer, field)?;
        let mut value = blank::<T>();
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), (&raw mut value).cast::<u8>(), size.min(size_of::<T>()));
        Ok(value)
    }
}

/// Checks the size field of a structure that a callback filled: that of its header's version, not above what it was given.
pub fn filled<T: Structure>(value: &T) -> Reading<()> {
    // SAFETY: `value` is a structure that starts with its size.
    let size = unsafe { struct_size(value, "out") }?;
    if size > size_of::<T>() {
        return Err(format!("out: struct_size was {}, the callback made it {size}", size_of::<T>()));
    }
    Ok(())
}

/// Writes as much of `value` as the host's structure has room for; its `struct_size` stays.
///
/// # Safety
/// As [`structure`], for writing.
pub unsafe fn write<T: Structure>(pointer: *mut T, field: &str, value: &T) -> Reading<()> {
    let skip = size_of::<usize>();
    // SAFETY: as promised by the caller; the copy stays within both sizes.
    unsafe {
        let size = struct_size(pointer.cast_const(), field)?.min(size_of::<T>());
        std::ptr::copy_nonoverlapping((&raw const *value).cast::<u8>().add(skip), pointer.cast::<u8>().add(skip), size - skip);
    }
    Ok(())
}

/// An array of values that never change their layout.
///
/// # Safety
/// `pointer` is null or points to `count` values that outlive the answer.
pub unsafe fn array<'a, T>(pointer: *const T, count: usize, limit: usize, field: &str) -> Reading<&'a [T]> {
    check_count(count, limit, field)?;
    if count == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(format!("{field} is null but its count is {count}"));
    }
    if !pointer.is_aligned() {
        return Err(format!("{field} is misaligned"));
    }
    // SAFETY: not null, aligned, and the caller vouches for the count.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// An array of structures, each with its `struct_size`; all must state the same.
///
/// # Safety
/// `pointer` is null or points to `count` structures.
pub unsafe fn structures<T: Structure>(pointer: *const T, count: usize, limit: usize, field: &str) -> Reading<Vec<T>> {
    check_count(count, limit, field)?;
    if count == 0 {
        return Ok(Vec::new());
    }
    if pointer.is_null() {
        return Err(format!("{field} is null but its count is {count}"));
    }
    // SAFETY: as promised by the caller; each step goes by the size that the host's own header gave the structure.
    unsafe {
        let stride = struct_size(pointer, &format!("{field}[0]"))?;
        (0..count)
            .map(|i| {
                let element = pointer.byte_add(i * stride);
                let size = element.cast::<usize>().read();
                if size != stride {
                    return Err(format!("{field}[{i}]: struct_size is {size}, that of {field}[0] is {stride}"));
                }
                structure(element, field)
            })
            .collect()
    }
}

fn check_count(count: usize, limit: usize, field: &str) -> Reading<()> {
    if count > limit {
        return Err(format!("{field}: a count of {count}, at most {limit} are allowed"));
    }
    Ok(())
}

/// The bytes of a NUL-terminated text of at most `limit` bytes.
///
/// # Safety
/// `pointer` is null or points to a text that ends with NUL within `limit` bytes, or is at least that long; it outlives the answer.
pub unsafe fn bytes<'a>(pointer: *const c_char, limit: usize, field: &str) -> Reading<&'a [u8]> {
    if pointer.is_null() {
        return Err(format!("{field} is null"));
    }
    // SAFETY: bytes are read one after the other up to the NUL, as strlen does, and not beyond the limit.
    unsafe {
        let length = (0..=limit).find(|&i| *pointer.add(i) == 0).ok_or_else(|| format!("{field} is longer than {limit} bytes"))?;
        Ok(std::slice::from_raw_parts(pointer.cast::<u8>(), length))
    }
}

/// A NUL-terminated UTF-8 text of at most `limit` bytes.
///
/// # Safety
/// As [`bytes`].
pub unsafe fn text(pointer: *const c_char, limit: usize, field: &str) -> Reading<String> {
    // SAFETY: as promised by the caller.
    let bytes = unsafe { bytes(pointer, limit, field) }?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|e| format!("{field} is not UTF-8 (byte {})", e.valid_up_to()))
}

/// A name: a text that is not empty.
///
/// # Safety
/// As [`text`].
pub unsafe fn name(pointer: *const c_char, field: &str) -> Reading<String> {
    // SAFETY: as promised by the caller.
    let text = unsafe { text(pointer, NAME_LIMIT, field) }?;
    if text.is_empty() { Err(format!("{field} is empty")) } else { Ok(text) }
}

/// An array of names.
///
/// # Safety
/// As [`array`] and [`text`].
pub unsafe fn names(pointer: *const *const c_char, count: usize, limit: usize, field: &str) -> Reading<Vec<String>> {
    // SAFETY: as promised by the caller.
    unsafe { array(pointer, count, limit, field)?.iter().enumerate().map(|(i, &id)| name(id, &format!("{field}[{i}]"))).collect() }
}

/// The text of a C string that the library itself made.
///
/// # Safety
/// `pointer` came from the library and still lives.
#[cfg(test)]
pub unsafe fn own(pointer: *const c_char) -> String {
    // SAFETY: the library's texts end with NUL.
    unsafe { std::ffi::CStr::from_ptr(pointer) }.to_str().unwrap().to_owned()
}
