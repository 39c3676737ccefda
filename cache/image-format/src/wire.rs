//! Bounded little-endian reading and writing, shared by the decoders of this crate.
//!
//! Invariant: a [`Reader`] never reads past its end and never allocates.

/// The input ended where a field should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short;

/// A cursor over bytes of unknown origin.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Short> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(Short)?;
        self.0 = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(Short)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Short> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Short> {
        self.array().map(u64::from_le_bytes)
    }

    /// A label field: a length byte, the text, zeros up to 64 bytes.
    pub(crate) fn label(&mut self) -> Result<Option<&'a str>, Short> {
        let field = self.take(LABEL_FIELD)?;
        let length = usize::from(field[0]);
        let Some((text, rest)) = field[1..].split_at_checked(length) else { return Ok(None) };
        if rest.iter().any(|&b| b != 0) {
            return Ok(None);
        }
        Ok(std::str::from_utf8(text).ok())
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// Bytes of a label field on the wire.
pub(crate) const LABEL_FIELD: usize = 64;

/// Appends a label field.
pub(crate) fn put_label(out: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).expect("labels are at most 63 bytes by construction");
    out.push(length);
    out.extend_from_slice(text.as_bytes());
    out.resize(out.len() + LABEL_FIELD - 1 - text.len(), 0);
}
