//! Names of chunks, images, tenants and roots: the only ways to make, parse and print them.
//!
//! Invariants: a [`ChunkId`] prints as 64 lowercase hexadecimal digits; tenants and roots
//! are labels, so they are safe as one path component of an object name.

use crate::units::ChunkSize;
use std::fmt;
use std::str::FromStr;

/// A string that is not the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not exactly 64 lowercase hexadecimal digits.
    #[error("{0:?} is not 64 lowercase hexadecimal digits")]
    Hex(String),
    /// Not `sha256:` and 64 lowercase hexadecimal digits.
    #[error("{0:?} is not a digest of the form sha256:<64 lowercase hexadecimal digits>")]
    Digest(String),
    /// Not a label.
    #[error("{0:?} is not a label: 1 to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit")]
    Label(String),
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps 32 bytes that are already such an id.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                hex32(text).map(Self).ok_or_else(|| IdError::Hex(text.into()))
            }
        }
    };
}

hex_id! {
    /// Name of a sealed chunk: BLAKE3-256 of its ciphertext. A name determines its bytes.
    ChunkId
}

hex_id! {
    /// Name of a flattened image: its OCI digest together with how it was laid out.
    ImageId
}

impl ChunkId {
    /// The id that these sealed bytes have.
    #[must_use]
    pub fn of(sealed: &[u8]) -> Self {
        Self(*blake3::hash(sealed).as_bytes())
    }
}

impl ImageId {
    /// The id of the image `digest` flattened under a layout policy and chunk size.
    ///
    /// Independent of tenant, root and compression, so that a re-push is recognised.
    #[must_use]
    pub fn of(digest: &ImageDigest, layout_policy: u16, chunk_size: ChunkSize) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("lantern 2026-11 image id v1");
        hasher.update(digest.as_bytes());
        hasher.update(&layout_policy.to_le_bytes());
        hasher.update(&chunk_size.bytes().to_le_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

/// SHA-256 digest of an OCI image manifest, as registries name images.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageDigest([u8; 32]);

impl ImageDigest {
    /// Wraps a SHA-256 value.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for ImageDigest {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        text.strip_prefix("sha256:").and_then(hex32).map(Self).ok_or_else(|| IdError::Digest(text.into()))
    }
}

/// A short name that is safe as one component of an object name: 1 to 63 of `a-z`, `0-9`,
/// `-`, `_` and `.`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Label(String);

impl FromStr for Label {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
        let starts = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if starts && text.len() <= MAX_LABEL_LEN && text.bytes().all(legal) {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Label(text.into()))
        }
    }
}

/// Longest tenant or root id in bytes: a length byte and the text fill 64 on the wire.
pub const MAX_LABEL_LEN: usize = 63;

macro_rules! label_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Label);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.parse().map(Self)
            }
        }
    };
}

label_id! {
    /// Whose image: the holder of the key that opens its manifests.
    TenantId
}

label_id! {
    /// A generation that keeps chunks alive (ATC'23 section 3.4).
    RootId
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::CHUNK_SIZE;

    #[test]
    fn hex_ids_round_trip_and_refuse_other_spellings() {
        let id = ChunkId::of(b"sealed");
        assert_eq!(id.to_string().parse::<ChunkId>().unwrap(), id);
        let upper = id.to_string().to_uppercase();
        for bad in ["", "00", &upper, &"g".repeat(64)] {
            assert!(bad.parse::<ChunkId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn labels() {
        for good in ["r1", "a", "team-7_x.y", &"a".repeat(63)] {
            assert_eq!(good.parse::<TenantId>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "-a", "A", "a/b", "ä", &"a".repeat(64)] {
            assert!(bad.parse::<RootId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn golden_image_id() {
        let digest: ImageDigest = format!("sha256:{}", "ab".repeat(32)).parse().unwrap();
        assert_eq!(
            ImageId::of(&digest, 1, CHUNK_SIZE).to_string(),
            "5fec4bd272d103f8b2a0cc3bc6bdf6960ff91522edffad8f00fc4180ca60f7ee",
        );
    }
}
