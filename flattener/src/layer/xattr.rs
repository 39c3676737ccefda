//! Extended attributes of an entry: which are kept, how large they may be, how the two
//! spellings in PAX headers are joined.
//!
//! Invariants: names are unique; `SCHILY.xattr.` beats `LIBARCHIVE.xattr.` for one name
//! whatever their order (libarchive writes both); attributes that cannot be in an image's
//! ext4 (other namespaces) or belong to the machine that built it (SELinux labels, NFSv4
//! ACLs) are dropped.

use super::error::Fault;
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::collections::BTreeMap;

/// Longest value in bytes, as Linux has it (`XATTR_SIZE_MAX`).
const VALUE_MAX: usize = 64 << 10;
/// Longest name in bytes, as Linux has it (`XATTR_NAME_MAX`).
const NAME_MAX: usize = 255;
/// All names and values of one entry. Bounds memory; ext4 itself takes less.
const ENTRY_MAX: usize = 1 << 20;

/// libarchive writes no padding; others may.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Which PAX key an attribute came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spelling {
    /// `LIBARCHIVE.xattr.`: name percent-encoded, value base64.
    Encoded,
    /// `SCHILY.xattr.`: as is.
    Plain,
}

/// The attributes of one entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Xattrs(BTreeMap<Vec<u8>, (Spelling, Vec<u8>)>);

impl Xattrs {
    /// Adds an attribute if it is one that images keep; the later one of a name counts.
    pub(super) fn insert(&mut self, name: &[u8], value: Vec<u8>, spelling: Spelling) {
        if is_kept(name) && self.0.get(name).is_none_or(|(before, _)| *before <= spelling) {
            self.0.insert(name.to_vec(), (spelling, value));
        }
    }

    /// Bytes of names and values.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(name, (_, value))| name.len() + value.len()).sum()
    }

    /// Checks the sizes.
    pub(super) fn check(&self) -> Result<(), Fault> {
        for (name, (_, value)) in &self.0 {
            if name.len() > NAME_MAX {
                return Err(Fault::Xattr("a name is longer than 255 bytes"));
            }
            if value.len() > VALUE_MAX {
                return Err(Fault::Xattr("a value is longer than 64 KiB"));
            }
        }
        if self.bytes() > ENTRY_MAX {
            return Err(Fault::Xattr("one entry has more than 1 MiB of them"));
        }
        Ok(())
    }

    /// Names and values in the order of names.
    pub(super) fn into_sorted(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.0.into_iter().map(|(name, (_, value))| (name, value)).collect()
    }
}

fn is_kept(name: &[u8]) -> bool {
    match name {
        b"security.selinux" => false,
        b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ => [&b"user."[..], b"trusted.", b"security."]
            .iter()
            .any(|namespace| name.len() > namespace.len() && name.starts_with(namespace)),
    }
}

/// Decodes name and value of a `LIBARCHIVE.xattr.` record.
pub(super) fn decode_libarchive(name: &[u8], value: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    let value = BASE64.decode(value).map_err(|_| Fault::Xattr("a LIBARCHIVE value is not base64"))?;
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = |pair: &[u8]| {
            let mut out = [0];
            hex::decode_to_slice(pair, &mut out).ok().map(|()| out[0])
        };
        match after.get(..2).filter(|_| byte == b'%').and_then(digits) {
            Some(escaped) => {
                decoded.push(escaped);
                rest = &after[2..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    if decoded.contains(&0) {
        return Err(Fault::Xattr("a name contains a NUL byte"));
    }
    Ok((decoded, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libarchive_spelling() {
        let got = decode_libarchive(b"user.a%3db%zz%2", b"AAEC/w").unwrap();
        assert_eq!(got, (b"user.a=b%zz%2".to_vec(), vec![0, 1, 2, 0xff]));
        assert!(decode_libarchive(b"user.a", b"*").is_err());
        assert!(decode_libarchive(b"user.%00", b"").is_err());
    }

    #[test]
    fn the_plain_spelling_wins_and_foreign_names_are_dropped() {
        let mut xattrs = Xattrs::default();
        xattrs.insert(b"user.a", vec![1], Spelling::Plain);
        xattrs.insert(b"user.a", vec![2], Spelling::Encoded);
        for dropped in [&b"security.selinux"[..], b"system.nfs4_acl", b"com.apple.x", b"user.", b""] {
            xattrs.insert(dropped, vec![1], Spelling::Plain);
        }
        xattrs.check().unwrap();
        assert_eq!(xattrs.into_sorted(), vec![(b"user.a".to_vec(), vec![1])]);
    }

    #[test]
    fn sizes_are_bounded() {
        let refused = |count: usize, name: usize, value: usize| {
            let mut xattrs = Xattrs::default();
            for at in 0..count {
                let name = format!("user.{at:0>width$}", width = name - 5);
                xattrs.insert(name.as_bytes(), vec![0; value], Spelling::Plain);
            }
            xattrs.check().is_err()
        };
        assert!(!refused(1, 255, VALUE_MAX));
        assert!(refused(1, 256, 1));
        assert!(refused(1, 10, VALUE_MAX + 1));
        assert!(refused(17, 10, VALUE_MAX));
    }
}
