//! Convergent sealing: derive the key from the payload, encrypt, name by the ciphertext
//! (ATC'23 section 3.1). The only file that chooses the chunk algorithms.
//!
//! payload = the chunk without its trailing zeros, zstd-compressed where that pays;
//! key = BLAKE3 keyed by the [`Salt`], over the payload; sealed = AES-256-CTR, zero IV;
//! id = BLAKE3-256 of the sealed bytes.
//!
//! Invariants: the key is derived from the very bytes that it encrypts, so one (key, IV)
//! pair never encrypts two messages, whatever the compressor's version; integrity is the
//! collision-resistant id, never an AEAD tag, because every owner of a chunk knows its key.

use crate::chunk::{PlainChunk, VerifiedChunk};
use crate::ids::{ChunkId, RootId};
use crate::units::ChunkSize;
use bytes::Bytes;
use ctr::cipher::{KeyIvInit, StreamCipher};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

type ChunkCipher = ctr::Ctr128BE<aes::Aes256>;

/// Ciphertext algorithm identifier in manifests: AES-256-CTR with an all-zero IV.
pub const CIPHER_AES256_CTR: u8 = 1;
/// Hash algorithm identifier in manifests: BLAKE3 with 256 bits of output.
pub const HASH_BLAKE3: u8 = 1;

/// Compressed payloads are kept only if they are at most this share of the trimmed chunk;
/// otherwise inflating would cost more than the bytes saved.
const KEEP_COMPRESSED_AT_MOST: f64 = 0.9;

/// A chunk's key. Prints as `<redacted>`; wiped on drop.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ChunkKey([u8; 32]);

impl ChunkKey {
    /// Wraps key bytes read from an opened manifest.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key bytes, for a manifest's sealed key table and nothing else.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ChunkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChunkKey(<redacted>)")
    }
}

/// What separates one dedup domain from another: equal chunks under equal salts seal to
/// equal bytes; under different salts they share nothing (ATC'23 section 3.3).
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Salt([u8; 32]);

impl Salt {
    /// The salt of a dedup domain within a root. An all-zero `secret` makes a public
    /// domain: anyone with a plaintext can compute its chunk's name. A secret one closes
    /// that confirmation-of-file channel to outsiders.
    #[must_use]
    pub fn derive(root: &RootId, secret: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("lantern 2026-11 chunk salt v1");
        hasher.update(secret);
        hasher.update(root.as_str().as_bytes());
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(<redacted>)")
    }
}

/// How a payload is encoded before encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// The trimmed bytes themselves.
    Plain,
    /// One zstd frame.
    Zstd,
}

impl Codec {
    pub(crate) const fn to_wire(self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Zstd => 1,
        }
    }

    pub(crate) const fn from_wire(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Plain),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// Whether chunks are compressed before they are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Never: sizes reveal only how many trailing zeros a chunk has.
    Off,
    /// zstd at this level, kept where it saves at least a tenth. Sizes then reveal how
    /// compressible a chunk is.
    Zstd(i32),
}

/// A sealed chunk on its way to the store, with what the manifest must remember.
#[derive(Debug, Clone)]
pub struct SealedOutput {
    /// Name of the sealed bytes.
    pub id: ChunkId,
    /// Key that opens them.
    pub key: ChunkKey,
    /// How the payload is encoded.
    pub codec: Codec,
    /// The sealed bytes; their length is the stored length.
    pub bytes: Bytes,
    /// Length of the plaintext without its trailing zeros, in bytes.
    pub payload_len: u32,
}

/// Seals chunks, reusing its compression state. One per thread.
pub struct Sealer {
    salt: Salt,
    compressor: Option<zstd::bulk::Compressor<'static>>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("compress", &self.compressor.is_some()).finish_non_exhaustive()
    }
}

/// The compression level is not one that zstd has.
#[derive(Debug, thiserror::Error)]
#[error("zstd refuses compression level {level}: use 1 to 22")]
pub struct LevelError {
    level: i32,
    source: std::io::Error,
}

impl Sealer {
    /// A sealer for one dedup domain.
    ///
    /// # Errors
    /// [`LevelError`] if the compression level does not exist.
    pub fn new(salt: Salt, compression: Compression) -> Result<Self, LevelError> {
        let compressor = match compression {
            Compression::Off => None,
            Compression::Zstd(level) => {
                Some(zstd::bulk::Compressor::new(level).map_err(|source| LevelError { level, source })?)
            }
        };
        Ok(Self { salt, compressor })
    }

    /// Seals a chunk's plaintext; `None` if it is all zeros, which is never stored.
    pub fn seal(&mut self, plain: &[u8]) -> Option<SealedOutput> {
        let trimmed = trim_trailing_zeros(plain);
        if trimmed.is_empty() {
            return None;
        }
        let payload_len = u32::try_from(trimmed.len()).unwrap_or(u32::MAX);
        let (codec, mut payload) = self.encode(trimmed);
        let key = ChunkKey(*blake3::keyed_hash(&self.salt.0, &payload).as_bytes());
        apply_keystream(&key, &mut payload);
        Some(SealedOutput { id: ChunkId::of(&payload), key, codec, bytes: payload.into(), payload_len })
    }

    fn encode(&mut self, trimmed: &[u8]) -> (Codec, Vec<u8>) {
        if let Some(compressor) = &mut self.compressor
            && let Ok(compressed) = compressor.compress(trimmed)
            && (compressed.len() as f64) <= trimmed.len() as f64 * KEEP_COMPRESSED_AT_MOST
        {
            return (Codec::Zstd, compressed);
        }
        (Codec::Plain, trimmed.to_vec())
    }
}

fn apply_keystream(key: &ChunkKey, data: &mut [u8]) {
    ChunkCipher::new(&key.0.into(), &[0; 16].into()).apply_keystream(data);
}

/// The bytes without their trailing zeros.
fn trim_trailing_zeros(bytes: &[u8]) -> &[u8] {
    const WORD: usize = 64;
    let mut end = bytes.len();
    while end >= WORD && bytes[end - WORD..end] == [0; WORD] {
        end -= WORD;
    }
    end = bytes[..end].iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    &bytes[..end]
}

/// A verified chunk that its key does not open: the manifest and the chunk disagree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The payload is longer than the image's chunks.
    #[error("chunk {id} holds {length} bytes; the image's chunks hold {limit}")]
    TooLong {
        /// Which chunk.
        id: ChunkId,
        /// Payload length in bytes.
        length: usize,
        /// Chunk size of the image in bytes.
        limit: u32,
    },
    /// The payload is not a zstd frame that fits a chunk.
    #[error(
        "chunk {id} does not decompress within {limit} bytes; its manifest is wrong, push the image again"
    )]
    Decompress {
        /// Which chunk.
        id: ChunkId,
        /// Chunk size of the image in bytes.
        limit: u32,
    },
}

/// Opens verified chunks, reusing its decompression state. One per thread.
pub struct Opener(zstd::bulk::Decompressor<'static>);

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

impl Opener {
    /// A fresh opener.
    #[must_use]
    pub fn new() -> Self {
        Self(zstd::bulk::Decompressor::new().expect("zstd allocates a decompression context"))
    }

    /// Decrypts and decodes a verified chunk. Takes its bytes in place where it holds the
    /// only reference to them.
    ///
    /// # Errors
    /// [`OpenError`] if the payload does not fit `chunk_size`.
    pub fn open(
        &mut self,
        chunk: VerifiedChunk,
        key: &ChunkKey,
        codec: Codec,
        chunk_size: ChunkSize,
    ) -> Result<PlainChunk, OpenError> {
        let (id, bytes) = chunk.into_parts();
        let limit = chunk_size.bytes();
        let mut payload = bytes.try_into_mut().map_or_else(|shared| shared.to_vec(), Vec::from);
        apply_keystream(key, &mut payload);
        let plain = match codec {
            Codec::Plain if payload.len() > chunk_size.as_usize() => {
                return Err(OpenError::TooLong { id, length: payload.len(), limit });
            }
            Codec::Plain => payload,
            Codec::Zstd => self
                .0
                .decompress(&payload, chunk_size.as_usize())
                .map_err(|_| OpenError::Decompress { id, limit })?,
        };
        Ok(PlainChunk::new(plain.into(), chunk_size))
    }
}

impl Default for Opener {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
