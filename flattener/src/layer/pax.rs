//! PAX extended headers: records of keys and binary values.
//!
//! Values are kept byte for byte (capabilities contain newlines). Keys that do not concern
//! a file system in an image are ignored. Bounds: the caller limits the whole header.

use super::entry::Timestamp;
use super::error::Fault;
use super::xattr::{self, Xattrs};

/// What one extended header says about the entry after it. An empty value means that the
/// header block's own field counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) major: Option<i64>,
    pub(super) minor: Option<i64>,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: SparseKeys,
}

/// The `GNU.sparse.*` keys as they stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SparseKeys {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// `realsize` of 0.1 and 1.0, `size` of 0.0 and 0.1.
    pub(super) real_size: Option<u64>,
    /// The pairs of `map`, or of repeated `offset` and `numbytes`, flat.
    pub(super) map: Option<Vec<u64>>,
}

/// Parses the records of a local header.
pub(super) fn parse(body: &[u8]) -> Result<Extended, Fault> {
    let mut extended = Extended::default();
    for_each_record(body, |key, value| extended.take(key, value))?;
    extended.xattrs.check()?;
    Ok(extended)
}

/// Checks the form of a global header. Its records are not applied: no container engine
/// does, and an image must look the same here as there.
pub(super) fn check_global(body: &[u8]) -> Result<(), Fault> {
    for_each_record(body, |_, _| Ok(()))
}

fn for_each_record(
    mut body: &[u8],
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    while !body.is_empty() {
        let space = body.iter().take(20).position(|&b| b == b' ');
        let space = space.ok_or(Fault::Extension("a record has no length"))?;
        let length = decimal(&body[..space]).and_then(|n| usize::try_from(n).ok());
        let length = length.ok_or(Fault::Extension("a record's length is not a number"))?;
        if length <= space + 2 || length > body.len() || body[length - 1] != b'\n' {
            return Err(Fault::Extension("a record's length is wrong"));
        }
        let record = &body[space + 1..length - 1];
        let equals = record.iter().position(|&b| b == b'=');
        let equals = equals.ok_or(Fault::Extension("a record has no '='"))?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        if key.is_empty() || key.contains(&0) {
            return Err(Fault::Extension("a record's key is empty or contains a NUL byte"));
        }
        each(key, value)?;
        body = &body[length..];
    }
    Ok(())
}

impl Extended {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        match key {
            b"path" => self.path = name(value)?,
            b"linkpath" => self.link = name(value)?,
            b"size" => self.size = unsigned(value, "the size is not a number")?,
            b"uid" => self.uid = signed(value, "the uid is not a number")?,
            b"gid" => self.gid = signed(value, "the gid is not a number")?,
            b"mtime" => self.mtime = optional(value, timestamp, "the modification time is not a number")?,
            b"SCHILY.devmajor" => self.major = signed(value, "the major number is not a number")?,
            b"SCHILY.devminor" => self.minor = signed(value, "the minor number is not a number")?,
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.take(key, value)?;
                } else if let Some(key) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(key, value.to_vec(), xattr::Spelling::Plain);
                } else if let Some(key) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let (key, value) = xattr::decode_libarchive(key, value)?;
                    self.xattrs.insert(&key, value, xattr::Spelling::Encoded);
                }
            }
        }
        Ok(())
    }
}

impl SparseKeys {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        const NUMBER: &str = "a sparse key is not a number";
        match key {
            b"major" => self.major = unsigned(value, NUMBER)?,
            b"minor" => self.minor = unsigned(value, NUMBER)?,
            b"name" => self.name = name(value)?,
            b"realsize" | b"size" => self.real_size = unsigned(value, NUMBER)?,
            b"map" => {
                let numbers: Option<Vec<u64>> =
                    value.split(|&b| b == b',').filter(|n| !n.is_empty()).map(decimal).collect();
                self.map = Some(numbers.ok_or(Fault::Extension(NUMBER))?);
            }
            b"offset" | b"numbytes" => {
                let map = self.map.get_or_insert_default();
                let due: &[u8] = if map.len().is_multiple_of(2) { b"offset" } else { b"numbytes" };
                if key != due {
                    return Err(Fault::Sparse("offsets and lengths do not alternate"));
                }
                map.push(decimal(value).ok_or(Fault::Extension(NUMBER))?);
            }
            _ => {}
        }
        Ok(())
    }
}

fn name(value: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    if value.contains(&0) {
        return Err(Fault::Extension("a path contains a NUL byte"));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn optional<T>(
    value: &[u8],
    parse: impl Fn(&[u8]) -> Option<T>,
    reason: &'static str,
) -> Result<Option<T>, Fault> {
    if value.is_empty() { Ok(None) } else { parse(value).map(Some).ok_or(Fault::Extension(reason)) }
}

fn unsigned(value: &[u8], reason: &'static str) -> Result<Option<u64>, Fault> {
    optional(value, decimal, reason)
}

fn signed(value: &[u8], reason: &'static str) -> Result<Option<i64>, Fault> {
    optional(value, |text| std::str::from_utf8(text).ok()?.parse().ok(), reason)
}

/// Decimal digits and nothing else, up to `i64::MAX`.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    let value = text.iter().try_fold(0_u64, |value, &b| {
        b.is_ascii_digit().then_some(())?;
        value.checked_mul(10)?.checked_add(u64::from(b - b'0'))
    })?;
    i64::try_from(value).is_ok().then_some(value)
}

/// Seconds with an optional fraction, of which nine digits count; the rest is cut off.
fn timestamp(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&b| b == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanoseconds = 0_u32;
    if let Some(fraction) = parts.next() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for at in 0..9 {
            nanoseconds = nanoseconds * 10 + fraction.get(at).map_or(0, |&b| u32::from(b - b'0'));
        }
    }
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds: 0 },
        (true, _) => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, want) in [
            ("0", Some((0, 0))),
            ("1700000000.123456789", Some((1_700_000_000, 123_456_789))),
            ("5.5", Some((5, 500_000_000))),
            ("5.1234567899", Some((5, 123_456_789))),
            ("5.", Some((5, 0))),
            ("-1", Some((-1, 0))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.000000001", Some((-1, 999_999_999))),
            ("9223372036854775807", Some((i64::MAX, 0))),
            ("9223372036854775808", None),
            (".5", None),
            ("1.x", None),
            ("--1", None),
        ] {
            let got = timestamp(text.as_bytes()).map(|t| (t.seconds, t.nanoseconds));
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn records_keep_binary_values() {
        let got = parse(b"31 SCHILY.xattr.user.a=x\n9 y\0z\n").unwrap();
        assert_eq!(got.xattrs.into_sorted(), vec![(b"user.a".to_vec(), b"x\n9 y\0z".to_vec())]);
        assert_eq!(parse(b"8 path=\n").unwrap(), Extended::default());
        assert_eq!(parse(b"").unwrap(), Extended::default());
    }

    #[test]
    fn damaged_records_are_refused() {
        for bad in [
            &b"x"[..],
            b" 5 a=b\n",
            b"6 a=b\n\0",
            b"7 a=b\n",
            b"5 a=b\n",
            b"0 a=b\n",
            b"6 aab\n",
            b"5 =b\n",
            b"99999999999999999999 a=b\n",
            b"9 path=\0\n",
            b"9 size=x\n",
            b"10 size=-1\n",
            b"25 GNU.sparse.numbytes=1\n",
        ] {
            assert!(parse(bad).is_err(), "{}", bad.escape_ascii());
        }
    }
}
