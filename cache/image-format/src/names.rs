//! Every object name in the store, built and parsed here and nowhere else.
//!
//! ```text
//! roots/table                                  the roots and their states
//! roots/<root>/refs/<tenant>/<name>            what a name means today
//! roots/<root>/manifests/<tenant>/<image id>   one flattened image
//! roots/<root>/profiles/<tenant>/<image id>    what its starts touch
//! roots/<root>/chunks/<2 digits>/<chunk id>    one sealed chunk
//! probes/<label>                               scratch of the ability probe
//! ```
//!
//! Invariants: no component is empty, `.` or `..`, or longer than 255 bytes, so every name
//! is also a relative path of plain components; printing and parsing are inverse.

use crate::ids::{ChunkId, ImageId, RootId, TenantId};
use std::fmt;
use std::str::FromStr;

/// The name of one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectName {
    /// The roots and their states.
    RootTable,
    /// What a name means today.
    Reference {
        /// Root.
        root: RootId,
        /// Whose name.
        tenant: TenantId,
        /// The name.
        name: ImageName,
    },
    /// One flattened image.
    Manifest {
        /// Root.
        root: RootId,
        /// Whose image.
        tenant: TenantId,
        /// Which image.
        image: ImageId,
    },
    /// What the starts of an image touch.
    Profile {
        /// Root.
        root: RootId,
        /// Whose image.
        tenant: TenantId,
        /// Which image.
        image: ImageId,
    },
    /// One sealed chunk.
    Chunk {
        /// Root.
        root: RootId,
        /// Which chunk.
        id: ChunkId,
    },
    /// Scratch of the ability probe.
    Probe(RootId),
}

/// What people call an image: `docker.io/library/python:3.12`, `my-app`, … 1 to 200 bytes
/// of printable ASCII without spaces.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName(String);

/// A string that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not an image name.
    #[error(
        "{0:?} is not an image name: 1 to 200 printable ASCII characters without spaces, at most 255 once percent-encoded"
    )]
    Image(String),
    /// Not an object name.
    #[error("{0:?} is not the name of an object of this store")]
    Object(String),
}

impl ImageName {
    /// The name as people write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn encoded(&self) -> String {
        let mut out = String::with_capacity(self.0.len());
        for (at, byte) in self.0.bytes().enumerate() {
            let plain = byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || (byte == b'.' && at > 0);
            if plain {
                out.push(char::from(byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
        out
    }

    fn decode(text: &str) -> Option<Self> {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            if byte == b'%' {
                let (digits, tail) = rest.split_at_checked(2)?;
                rest = tail;
                out.extend(hex::decode(digits).ok()?);
            } else {
                out.push(byte);
            }
        }
        let name: Self = String::from_utf8(out).ok()?.parse().ok()?;
        // one spelling only
        (name.encoded() == text).then_some(name)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageName({self})")
    }
}

impl FromStr for ImageName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = Self(text.into());
        let fits = (1..=200).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_graphic())
            && name.encoded().len() <= 255;
        if fits { Ok(name) } else { Err(NameError::Image(text.into())) }
    }
}

impl ObjectName {
    /// The reference object of an image name.
    ///
    /// # Errors
    /// [`NameError::Image`] if the text is no image name.
    pub fn reference(root: &RootId, tenant: &TenantId, name: &str) -> Result<Self, NameError> {
        Ok(Self::Reference { root: root.clone(), tenant: tenant.clone(), name: name.parse()? })
    }

    /// The chunk object in a root.
    #[must_use]
    pub fn chunk(root: &RootId, id: ChunkId) -> Self {
        Self::Chunk { root: root.clone(), id }
    }

    /// Prefix of all references of a tenant, ending with `/`, for listing.
    #[must_use]
    pub fn references_prefix(root: &RootId, tenant: &TenantId) -> String {
        format!("roots/{root}/refs/{tenant}/")
    }

    /// Prefix of all manifests in a root, ending with `/`, for listing.
    #[must_use]
    pub fn manifests_prefix(root: &RootId) -> String {
        format!("roots/{root}/manifests/")
    }

    /// Prefix of all chunks in a root, ending with `/`, for listing.
    #[must_use]
    pub fn chunks_prefix(root: &RootId) -> String {
        format!("roots/{root}/chunks/")
    }

    /// Whether the object may be replaced: references, profiles and the root table change;
    /// chunks and manifests never do.
    #[must_use]
    pub const fn is_mutable(&self) -> bool {
        matches!(self, Self::RootTable | Self::Reference { .. } | Self::Profile { .. } | Self::Probe(_))
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootTable => f.write_str("roots/table"),
            Self::Reference { root, tenant, name } => {
                write!(f, "roots/{root}/refs/{tenant}/{}", name.encoded())
            }
            Self::Manifest { root, tenant, image } => write!(f, "roots/{root}/manifests/{tenant}/{image}"),
            Self::Profile { root, tenant, image } => write!(f, "roots/{root}/profiles/{tenant}/{image}"),
            Self::Chunk { root, id } => {
                let id = id.to_string();
                write!(f, "roots/{root}/chunks/{}/{id}", &id[..2])
            }
            Self::Probe(label) => write!(f, "probes/{label}"),
        }
    }
}

impl FromStr for ObjectName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        parse(text).ok_or_else(|| NameError::Object(text.into()))
    }
}

fn parse(text: &str) -> Option<ObjectName> {
    let parts: Vec<&str> = text.split('/').collect();
    Some(match parts[..] {
        ["roots", "table"] => ObjectName::RootTable,
        ["probes", label] => ObjectName::Probe(label.parse().ok()?),
        ["roots", root, "chunks", fan, id] if id.get(..2) == Some(fan) => {
            ObjectName::Chunk { root: root.parse().ok()?, id: id.parse().ok()? }
        }
        ["roots", root, kind, tenant, last] => {
            let (root, tenant) = (root.parse().ok()?, tenant.parse().ok()?);
            match kind {
                "refs" => ObjectName::Reference { root, tenant, name: ImageName::decode(last)? },
                "manifests" => ObjectName::Manifest { root, tenant, image: last.parse().ok()? },
                "profiles" => ObjectName::Profile { root, tenant, image: last.parse().ok()? },
                _ => return None,
            }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_print_as_specified() {
        let (root, tenant) = ("r1".parse().unwrap(), "local".parse().unwrap());
        let id = ChunkId::from_bytes([0xab; 32]);
        let image = ImageId::from_bytes([1; 32]);
        let digits = "ab".repeat(32);
        for (name, text) in [
            (ObjectName::RootTable, "roots/table".to_string()),
            (ObjectName::chunk(&root, id), format!("roots/r1/chunks/ab/{digits}")),
            (
                ObjectName::reference(&root, &tenant, "docker.io/library/python:3.12").unwrap(),
                "roots/r1/refs/local/docker.io%2Flibrary%2Fpython%3A3.12".to_string(),
            ),
            (
                ObjectName::Manifest { root: root.clone(), tenant: tenant.clone(), image },
                format!("roots/r1/manifests/local/{}", "01".repeat(32)),
            ),
        ] {
            assert_eq!(name.to_string(), text);
            assert_eq!(text.parse::<ObjectName>().unwrap(), name);
        }
    }

    #[test]
    fn other_strings_are_refused() {
        for bad in [
            "",
            "roots",
            "roots/table/",
            "/roots/table",
            "roots/r1/chunks/00/ab",
            "roots/../table",
            "roots/r1/refs/local/a%2fb",
            "roots/r1/refs/local/%61",
            "roots/r1/refs/local/..",
        ] {
            assert!(bad.parse::<ObjectName>().is_err(), "{bad}");
        }
        for bad in ["", "a b", "ä", &"x".repeat(201), &"/".repeat(100)] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn references_round_trip_and_stay_one_component(name in "[!-~]{1,80}") {
            let (root, tenant) = ("r1".parse().unwrap(), "t".parse().unwrap());
            let object = ObjectName::reference(&root, &tenant, &name).unwrap();
            let text = object.to_string();
            prop_assert_eq!(text.split('/').count(), 5);
            prop_assert!(!text.split('/').any(|part| part.is_empty() || part == "." || part == ".."));
            prop_assert_eq!(text.parse::<ObjectName>().unwrap(), object);
        }
    }
}
