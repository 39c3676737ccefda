//! Bytes to manifest: any bytes in, a manifest or a reason out. The layout is specified in
//! docs/formats.md, "Manifest", version 1.

use super::encode::{ENTRY_LEN, ENVELOPE_SYNTHETIC_GCM, HEADER_LEN, MAGIC, TRAILER_LEN, VERSION};
use super::model::{Entry, InvalidManifest, Manifest, ManifestHead, check_entries};
use crate::envelope::{self, NotAuthentic, TenantKey};
use crate::ids::{ChunkId, IdError, ImageDigest, RootId, TenantId};
use crate::seal::{CIPHER_AES256_CTR, ChunkKey, Codec, HASH_BLAKE3};
use crate::units::{ChunkIndex, ChunkSize};
use crate::wire::{Reader, Short};
use bytes::Bytes;

/// Largest manifest that is read, in bytes: about 3.7 million chunks, 1.8 TiB of data.
/// Bounds memory against a store that lies.
pub const MAX_MANIFEST_BYTES: usize = 256 * 1024 * 1024;

/// Largest image configuration carried, in bytes (registries refuse above 4 MiB).
pub const MAX_CONFIG_BYTES: usize = 8 * 1024 * 1024;

/// Why bytes are not a manifest that this version can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not a manifest at all.
    #[error("not a Lantern manifest: the magic bytes are missing")]
    Magic,
    /// Written by a later version.
    #[error(
        "manifest version {version} with incompatible features {features:#x}: this program reads version 1; upgrade it"
    )]
    Version {
        /// Version on the wire.
        version: u16,
        /// Incompatible feature bits on the wire.
        features: u32,
    },
    /// Names an algorithm that this version does not have.
    #[error(
        "manifest uses unknown algorithms (hash {hash}, cipher {cipher}, envelope {envelope}); upgrade this program"
    )]
    Algorithm {
        /// Hash id.
        hash: u8,
        /// Cipher id.
        cipher: u8,
        /// Envelope id.
        envelope: u8,
    },
    /// Shorter or longer than its header says, or over a limit.
    #[error("manifest of {actual} bytes where its header promises {promised}: truncated or damaged")]
    Length {
        /// Bytes given.
        actual: usize,
        /// Bytes that header fields add up to; 0 if the header itself is cut.
        promised: usize,
    },
    /// The trailing checksum does not fit.
    #[error("manifest is damaged: its checksum does not match")]
    Checksum,
    /// A field holds what it cannot.
    #[error("manifest field {field} is invalid")]
    Field {
        /// Which field of docs/formats.md.
        field: &'static str,
    },
    /// Fields disagree.
    #[error("manifest is inconsistent")]
    Invalid(#[from] InvalidManifest),
    /// The envelope does not open.
    #[error("manifest of tenant {tenant} does not open")]
    Envelope {
        /// Whose manifest it says it is.
        tenant: TenantId,
        /// What that means.
        source: NotAuthentic,
    },
}

impl From<Short> for DecodeError {
    fn from(_: Short) -> Self {
        Self::Length { actual: 0, promised: 0 }
    }
}

fn label<T: std::str::FromStr<Err = IdError>>(
    reader: &mut Reader<'_>,
    field: &'static str,
) -> Result<T, DecodeError> {
    reader.label()?.and_then(|text| text.parse().ok()).ok_or(DecodeError::Field { field })
}

/// A manifest whose clear part was decoded and whose checksum fits, but whose authenticity
/// only [`SealedManifest::open`] can tell. Enough to list chunks, not to read any.
#[derive(Debug, Clone)]
pub struct SealedManifest {
    head: ManifestHead,
    entries: Vec<Entry>,
    bytes: Bytes,
    clear_len: usize,
}

impl SealedManifest {
    /// Decodes the clear part.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong; no input panics or allocates more than a small
    /// multiple of its own length.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&bytes);
        if reader.take(8) != Ok(MAGIC) {
            return Err(DecodeError::Magic);
        }
        let version = reader.u16()?;
        let layout_policy = reader.u16()?;
        let chunk_size = ChunkSize::new(reader.u32()?);
        let features = reader.u32()?;
        if version != VERSION || features != 0 {
            return Err(DecodeError::Version { version, features });
        }
        let chunk_size = chunk_size.ok_or(DecodeError::Field { field: "chunk size" })?;
        let _compatible = reader.u32()?;
        let device_len = reader.u64()?;
        let image = ImageDigest::from_bytes(reader.array()?);
        let count = reader.u32()? as usize;
        let sealed_len = reader.u32()? as usize;
        let [hash, cipher, envelope, _] = reader.array()?;
        if (hash, cipher, envelope) != (HASH_BLAKE3, CIPHER_AES256_CTR, ENVELOPE_SYNTHETIC_GCM) {
            return Err(DecodeError::Algorithm { hash, cipher, envelope });
        }
        let root: RootId = label(&mut reader, "root")?;
        let tenant: TenantId = label(&mut reader, "tenant")?;
        let head = ManifestHead { image, layout_policy, chunk_size, device_len, root, tenant };

        let clear_len = HEADER_LEN.saturating_add(count.saturating_mul(ENTRY_LEN));
        let promised = clear_len.saturating_add(sealed_len).saturating_add(TRAILER_LEN);
        if bytes.len() != promised || promised > MAX_MANIFEST_BYTES {
            return Err(DecodeError::Length { actual: bytes.len(), promised });
        }
        let (covered, trailer) = bytes.split_at(promised - TRAILER_LEN);
        if blake3::hash(covered).as_bytes() != trailer {
            return Err(DecodeError::Checksum);
        }
        if bytes[HEADER_LEN - reserved_len()..HEADER_LEN].iter().any(|&b| b != 0) {
            return Err(DecodeError::Field { field: "reserved" });
        }
        let entries = decode_entries(&bytes[HEADER_LEN..clear_len])?;
        check_entries(&head, &entries)?;
        Ok(Self { head, entries, bytes, clear_len })
    }

    /// What it says of the whole image; authentic only once opened.
    #[must_use]
    pub const fn head(&self) -> &ManifestHead {
        &self.head
    }

    /// The chunks it mentions; authentic only once opened.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Opens the envelope: authenticates everything and yields the keys.
    ///
    /// # Errors
    /// [`DecodeError::Envelope`] under any other key; [`DecodeError::Invalid`] if the
    /// tenant itself sealed nonsense.
    pub fn open(self, key: &TenantKey) -> Result<Manifest, DecodeError> {
        let (clear, rest) = self.bytes.split_at(self.clear_len);
        let sealed = &rest[..rest.len() - TRAILER_LEN];
        let inner = envelope::open(key, clear, sealed)
            .map_err(|source| DecodeError::Envelope { tenant: self.head.tenant.clone(), source })?;
        let table_len = self.entries.len() * 32;
        let (table, config) =
            inner.split_at_checked(table_len).ok_or(DecodeError::Field { field: "key table" })?;
        if config.len() > MAX_CONFIG_BYTES {
            return Err(DecodeError::Field { field: "config" });
        }
        let (keys, _) = table.as_chunks::<32>();
        let keys = keys.iter().map(|&key| ChunkKey::from_bytes(key)).collect();
        Ok(Manifest::new(self.head, self.entries, keys, config.to_vec())?)
    }
}

/// Bytes at the end of the header that version 1 leaves zero.
const fn reserved_len() -> usize {
    HEADER_LEN - (8 + 2 + 2 + 4 + 4 + 4 + 8 + 32 + 4 + 4 + 4 + 64 + 64)
}

fn decode_entries(bytes: &[u8]) -> Result<Vec<Entry>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let mut entries = Vec::with_capacity(bytes.len() / ENTRY_LEN);
    while !reader.rest().is_empty() {
        let index = ChunkIndex(reader.u32()?);
        let tagged = reader.u32()?;
        let id = ChunkId::from_bytes(reader.array()?);
        let [.., codec] = tagged.to_le_bytes();
        let codec = Codec::from_wire(codec).ok_or(DecodeError::Field { field: "codec" })?;
        entries.push(Entry { index, id, stored_len: tagged & 0x00ff_ffff, codec });
    }
    Ok(entries)
}
