//! POSIX access control lists as archives carry them: the kernel's user form (version 2).
//!
//! Parsed strictly, because ext4 keeps another form and the permission bits must agree with
//! the list; used when an entry is applied and when the ext4 attribute is written.

/// What an entry of a list applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AclTag {
    /// The owner.
    Owner,
    /// A user by number.
    User(u32),
    /// The owning group.
    OwningGroup,
    /// A group by number.
    Group(u32),
    /// The most that named users and all groups get.
    Mask,
    /// Everyone else.
    Other,
}

impl AclTag {
    /// The number that both forms use for the tag.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Owner => 0x01,
            Self::User(_) => 0x02,
            Self::OwningGroup => 0x04,
            Self::Group(_) => 0x08,
            Self::Mask => 0x10,
            Self::Other => 0x20,
        }
    }
}

/// One entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AclEntry {
    /// Whom it is about.
    pub tag: AclTag,
    /// Permission bits, at most 7.
    pub permissions: u16,
}

/// A valid list: owner, users, owning group, groups, mask, other, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl {
    /// The entries in order.
    pub entries: Vec<AclEntry>,
}

/// Why bytes are not an access control list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// Neither empty nor a version and whole entries.
    #[error("{0} bytes are not a version and entries of 8 bytes")]
    Length(usize),
    /// Another version than 2.
    #[error("version {0}; only 2 is known")]
    Version(u32),
    /// An unknown tag, or permission bits beyond 7.
    #[error("entry {0} has an unknown tag or permission")]
    Entry(usize),
    /// Entries missing, doubled or out of order.
    #[error("entries are missing, doubled or out of order")]
    Order,
}

impl Acl {
    /// Parses the user form. `None` for a list without entries, which means no list.
    ///
    /// # Errors
    /// [`AclError`] for what the kernel would refuse.
    pub fn parse(raw: &[u8]) -> Result<Option<Self>, AclError> {
        if raw.is_empty() {
            return Ok(None);
        }
        let Some((head, body)) = raw.split_first_chunk::<4>() else {
            return Err(AclError::Length(raw.len()));
        };
        if u32::from_le_bytes(*head) != 2 {
            return Err(AclError::Version(u32::from_le_bytes(*head)));
        }
        let (entries, rest) = body.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(AclError::Length(raw.len()));
        }
        let entries = entries
            .iter()
            .enumerate()
            .map(|(at, e)| Self::parse_entry(*e).ok_or(AclError::Entry(at)))
            .collect::<Result<Vec<_>, _>>()?;
        if entries.is_empty() {
            return Ok(None);
        }
        let acl = Self { entries };
        if acl.in_order() { Ok(Some(acl)) } else { Err(AclError::Order) }
    }

    fn parse_entry([t0, t1, p0, p1, i0, i1, i2, i3]: [u8; 8]) -> Option<AclEntry> {
        let permissions = u16::from_le_bytes([p0, p1]);
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let tag = match u16::from_le_bytes([t0, t1]) {
            0x01 => AclTag::Owner,
            0x02 => AclTag::User(id),
            0x04 => AclTag::OwningGroup,
            0x08 => AclTag::Group(id),
            0x10 => AclTag::Mask,
            0x20 => AclTag::Other,
            _ => return None,
        };
        (permissions <= 7).then_some(AclEntry { tag, permissions })
    }

    /// Owner, users, owning group, groups, mask (required if anyone is named), other.
    fn in_order(&self) -> bool {
        let mut codes = self.entries.iter().map(|e| e.tag.code()).peekable();
        let mut named = false;
        if codes.next() != Some(0x01) {
            return false;
        }
        while codes.next_if_eq(&0x02).is_some() {
            named = true;
        }
        if codes.next() != Some(0x04) {
            return false;
        }
        while codes.next_if_eq(&0x08).is_some() {
            named = true;
        }
        let mask = codes.next_if_eq(&0x10).is_some();
        codes.next() == Some(0x20) && codes.next().is_none() && (mask || !named)
    }

    /// Whether the list says no more than permission bits can.
    #[must_use]
    pub fn is_only_mode(&self) -> bool {
        self.entries.len() == 3
    }

    /// The permission bits that belong to the list: owner, mask (else owning group), other.
    #[must_use]
    pub fn mode(&self) -> u16 {
        let of = |code| self.entries.iter().find(|e| e.tag.code() == code).map(|e| e.permissions);
        let group = of(0x10).or(of(0x04)).unwrap_or(0);
        of(0x01).unwrap_or(0) << 6 | group << 3 | of(0x20).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut out = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            out.extend(tag.to_le_bytes());
            out.extend(permissions.to_le_bytes());
            out.extend(id.to_le_bytes());
        }
        out
    }

    #[test]
    fn lists_parse_or_are_refused() {
        let full = raw(&[(1, 7, !0), (2, 6, 1000), (4, 5, !0), (8, 4, 70000), (0x10, 6, !0), (0x20, 1, !0)]);
        let acl = Acl::parse(&full).unwrap().unwrap();
        assert_eq!(acl.mode(), 0o761);
        assert!(!acl.is_only_mode());
        let small = Acl::parse(&raw(&[(1, 6, !0), (4, 4, !0), (0x20, 0, !0)])).unwrap().unwrap();
        assert_eq!((small.mode(), small.is_only_mode()), (0o640, true));
        assert_eq!(Acl::parse(&[]), Ok(None));
        assert_eq!(Acl::parse(&raw(&[])), Ok(None));
        assert_eq!(Acl::parse(&[1, 0, 0, 0]), Err(AclError::Version(1)));
        assert_eq!(Acl::parse(&full[..11]), Err(AclError::Length(11)));
        assert_eq!(Acl::parse(&[2, 0]), Err(AclError::Length(2)));
        assert_eq!(Acl::parse(&raw(&[(1, 8, 0)])), Err(AclError::Entry(0)));
        for wrong in [
            &[(4, 4, 0), (1, 6, 0), (0x20, 0, 0)][..],
            &[(1, 6, 0), (2, 6, 5), (4, 4, 0), (0x20, 0, 0)],
            &[(1, 6, 0), (4, 4, 0)],
        ] {
            assert_eq!(Acl::parse(&raw(wrong)), Err(AclError::Order));
        }
    }
}
