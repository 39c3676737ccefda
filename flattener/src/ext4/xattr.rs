//! Extended attributes: names to ext4's namespaces, values into the inode or into a block.
//!
//! Attributes are taken in the on-disk order (namespace, name length, name); each goes into
//! the 96 bytes after the inode's fields if it still fits there, else into one block. If
//! that overflows, the largest values get inodes of their own (feature `ea_inode`).

use std::borrow::Cow;

use super::CHECKSUM_SEED;
use super::checksum::{crc, put};
use crate::tree::{Acl, AclTag};

/// Bytes of an inode behind its fields.
pub(super) const INLINE: usize = 96;
const MAGIC: u32 = 0xea02_0000;
/// Bytes before the first entry: in the inode the magic, in a block the header.
const INLINE_HEADER: usize = 4;
const BLOCK_HEADER: usize = 32;
/// Linux's limit for one value.
const MAX_VALUE: usize = 65536;
/// Entries end with four zero bytes.
const END: usize = 4;

/// Why attributes do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XattrError {
    /// A name that Linux cannot hold.
    #[error("extended attribute name of {0} bytes; 1 to 255 are possible behind the namespace")]
    Name(usize),
    /// A value that Linux cannot hold.
    #[error("extended attribute value of {0} bytes; at most 65536 are possible")]
    Value(usize),
    /// More than one block, even with all values elsewhere.
    #[error("extended attributes of {0} bytes without their values; at most one block of 4096 fits")]
    TooLarge(usize),
}

/// One attribute in ext4's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attribute<'a> {
    namespace: u8,
    name: &'a [u8],
    value: Cow<'a, [u8]>,
    /// Whether the value is in an inode of its own.
    outside: bool,
}

/// Where a node's attributes go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Split<'a> {
    inline: Vec<Attribute<'a>>,
    block: Vec<Attribute<'a>>,
    /// Attributes of namespaces that ext4 does not have; they are left out.
    pub(super) dropped: u64,
}

impl Attribute<'_> {
    fn entry_size(&self) -> usize {
        16 + self.name.len().next_multiple_of(4)
    }

    fn value_size(&self) -> usize {
        if self.outside { 0 } else { self.value.len().next_multiple_of(4) }
    }

    fn size(&self) -> usize {
        self.entry_size() + self.value_size()
    }

    /// The kernel's hash of name and value; readers check it. Of a value outside, its
    /// checksum counts.
    fn hash(&self) -> u32 {
        let name = self.name.iter().fold(0_u32, |h, &byte| h.rotate_left(5) ^ u32::from(byte));
        if self.outside {
            return name.rotate_left(16) ^ value_hash(&self.value);
        }
        self.value.chunks(4).fold(name, |h, group| {
            let mut word = [0; 4];
            word[..group.len()].copy_from_slice(group);
            h.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

/// What the inode of a value says about it.
pub(super) fn value_hash(value: &[u8]) -> u32 {
    crc(CHECKSUM_SEED, value)
}

/// `None` for a namespace that ext4 does not have.
fn translate<'a>(name: &'a [u8], value: &'a [u8]) -> Result<Option<Attribute<'a>>, XattrError> {
    let lists: [(&[u8], u8); 2] = [(b"system.posix_acl_access", 2), (b"system.posix_acl_default", 3)];
    if let Some((_, namespace)) = lists.into_iter().find(|(list, _)| *list == name) {
        let value = disk_acl(value);
        return Ok(value.map(|v| Attribute { namespace, name: &[], value: Cow::Owned(v), outside: false }));
    }
    let prefixes: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
    for (prefix, namespace) in prefixes {
        if let Some(name) = name.strip_prefix(prefix) {
            if name.is_empty() || name.len() > 255 {
                return Err(XattrError::Name(name.len()));
            }
            if value.len() > MAX_VALUE {
                return Err(XattrError::Value(value.len()));
            }
            return Ok(Some(Attribute { namespace, name, value: Cow::Borrowed(value), outside: false }));
        }
    }
    Ok(None)
}

/// An access control list in ext4's form: version 1, numbers only where someone is named.
/// `None` for an empty list; the tree has refused invalid ones.
fn disk_acl(value: &[u8]) -> Option<Vec<u8>> {
    let acl = Acl::parse(value).ok().flatten()?;
    let mut out = 1_u32.to_le_bytes().to_vec();
    for entry in acl.entries {
        out.extend(entry.tag.code().to_le_bytes());
        out.extend(entry.permissions.to_le_bytes());
        if let AclTag::User(id) | AclTag::Group(id) = entry.tag {
            out.extend(id.to_le_bytes());
        }
    }
    Some(out)
}

impl<'a> Split<'a> {
    /// Decides where each attribute goes.
    pub(super) fn plan(xattrs: &'a [(Vec<u8>, Vec<u8>)]) -> Result<Self, XattrError> {
        let mut split = Self::default();
        let mut all = Vec::with_capacity(xattrs.len());
        for (name, value) in xattrs {
            match translate(name, value)? {
                Some(attribute) => all.push(attribute),
                None => split.dropped += 1,
            }
        }
        all.sort_by(|a, b| (a.namespace, a.name.len(), a.name).cmp(&(b.namespace, b.name.len(), b.name)));
        let mut inline = INLINE_HEADER + END;
        let mut block = BLOCK_HEADER + END;
        for attribute in all {
            if inline + attribute.size() <= INLINE {
                inline += attribute.size();
                split.inline.push(attribute);
            } else {
                block += attribute.size();
                split.block.push(attribute);
            }
        }
        while block > 4096 {
            let largest =
                split.block.iter_mut().filter(|a| a.value_size() > 0).max_by_key(|a| a.value_size());
            let largest = largest.ok_or(XattrError::TooLarge(block))?;
            block -= largest.value_size();
            largest.outside = true;
        }
        Ok(split)
    }

    /// Values that need inodes of their own, in order.
    pub(super) fn outside(&self) -> impl Iterator<Item = &[u8]> {
        self.block.iter().filter(|attribute| attribute.outside).map(|attribute| &*attribute.value)
    }

    /// Whether a block is needed.
    pub(super) fn has_block(&self) -> bool {
        !self.block.is_empty()
    }

    /// Fills the bytes after an inode's fields.
    pub(super) fn encode_inline(&self, out: &mut [u8]) {
        if !self.inline.is_empty() {
            put(out, 0, &MAGIC.to_le_bytes());
            // values are counted from the first entry here
            encode_entries(&self.inline, INLINE_HEADER, INLINE_HEADER, 0, &mut out[..INLINE]);
        }
    }

    /// Fills the attribute block, which lies at block number `at`. Values outside are in
    /// inodes from `first_value` on.
    pub(super) fn encode_block(&self, at: u64, first_value: u32, out: &mut [u8]) {
        put(out, 0, &MAGIC.to_le_bytes());
        put(out, 4, &1_u32.to_le_bytes()); // references
        put(out, 8, &1_u32.to_le_bytes()); // blocks
        encode_entries(&self.block, BLOCK_HEADER, 0, first_value, out);
        let hash = self.block.iter().fold(0_u32, |h, attribute| h.rotate_left(16) ^ attribute.hash());
        put(out, 12, &hash.to_le_bytes());
        let checksum = crc(crc(CHECKSUM_SEED, &at.to_le_bytes()), out);
        put(out, 16, &checksum.to_le_bytes());
    }
}

/// Entries upwards from `first`, values downwards from the end, or in inodes from
/// `next_value` on.
fn encode_entries(
    attributes: &[Attribute<'_>],
    first: usize,
    origin: usize,
    mut next_value: u32,
    out: &mut [u8],
) {
    let mut at = first;
    let mut value_at = out.len();
    for attribute in attributes {
        let short = |value: usize| u16::try_from(value).expect("within a block").to_le_bytes();
        let name_length = u8::try_from(attribute.name.len()).expect("at most 255");
        let value_length = u32::try_from(attribute.value.len()).expect("at most 65536");
        put(out, at, &[name_length, attribute.namespace]);
        put(out, at + 8, &value_length.to_le_bytes());
        put(out, at + 12, &attribute.hash().to_le_bytes());
        put(out, at + 16, attribute.name);
        if attribute.outside {
            put(out, at + 4, &next_value.to_le_bytes());
            next_value += 1;
        } else if !attribute.value.is_empty() {
            // an empty value has no place
            value_at -= attribute.value_size();
            put(out, at + 2, &short(value_at - origin));
            put(out, value_at, &attribute.value);
        }
        at += attribute.entry_size();
    }
}
