//! What only a tenant may read: sealed under the tenant's key, deterministically, with
//! everything around it authenticated (ATC'23 section 3.1).
//!
//! Construction (docs/formats.md, "Envelope"): a synthetic value over associated data and
//! plaintext is stored in front; it derives the message key of AES-256-GCM under a zero
//! nonce. Equal inputs give equal bytes, so pushes are reproducible, and no nonce can
//! repeat under one message key. On opening the value is computed again and compared,
//! which also commits the bytes to the key.

use crate::ids::TenantId;
use aes_gcm::aead::{Aead, KeyInit, Payload};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes that an envelope is longer than its plaintext: synthetic value and tag.
pub const OVERHEAD: usize = SYNTHETIC_LEN + TAG_LEN;
const SYNTHETIC_LEN: usize = 32;
const TAG_LEN: usize = 16;

/// A tenant's 256-bit key. Prints as `<redacted>`; wiped on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TenantKey([u8; 32]);

impl TenantKey {
    /// Wraps key bytes that a custodian holds.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for TenantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TenantKey(<redacted>)")
    }
}

/// Why a custodian did not give a key.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The custodian has no key for this tenant, or may not give it.
    #[error("no key for tenant {tenant} in {custodian}; {advice}")]
    Denied {
        /// Whose key.
        tenant: TenantId,
        /// Which custodian was asked.
        custodian: String,
        /// What to do about it.
        advice: String,
    },
    /// The custodian could not be read or reached.
    #[error("{custodian} does not answer for tenant {tenant}")]
    Unavailable {
        /// Whose key.
        tenant: TenantId,
        /// Which custodian was asked.
        custodian: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Who holds the tenants' keys. Implemented only at the edges (a keyring file, a key
/// management service).
///
/// Contract: the same tenant gets the same key for as long as its images live; a key is
/// given only to a caller who may read that tenant's images. May block; call it off the
/// reactor.
pub trait KeyCustodian: Send + Sync {
    /// The key of `tenant`.
    ///
    /// # Errors
    /// [`CustodyError`] when there is none for this caller, or none can be had now.
    fn tenant_key(&self, tenant: &TenantId) -> Result<TenantKey, CustodyError>;
}

/// The envelope is not what this key sealed with this associated data: another tenant's
/// key, or changed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tenant's key does not open it: it belongs to another tenant, or its bytes were changed")]
pub struct NotAuthentic;

fn synthetic(key: &TenantKey, associated: &[u8], plain: &[u8]) -> [u8; SYNTHETIC_LEN] {
    let derived = Zeroizing::new(blake3::derive_key("lantern 2026-11 envelope synthetic value v1", &key.0));
    let mut hasher = blake3::Hasher::new_keyed(&derived);
    hasher.update(&(associated.len() as u64).to_le_bytes());
    hasher.update(associated);
    hasher.update(plain);
    *hasher.finalize().as_bytes()
}

fn cipher(key: &TenantKey, synthetic: &[u8; SYNTHETIC_LEN]) -> aes_gcm::Aes256Gcm {
    let derived = Zeroizing::new(blake3::derive_key("lantern 2026-11 envelope message key v1", &key.0));
    let message_key = Zeroizing::new(*blake3::keyed_hash(&derived, synthetic).as_bytes());
    aes_gcm::Aes256Gcm::new((&*message_key).into())
}

/// Seals `plain` under the tenant's key; `associated` is authenticated and not included.
#[must_use]
pub fn seal(key: &TenantKey, associated: &[u8], plain: &[u8]) -> Vec<u8> {
    let value = synthetic(key, associated, plain);
    let sealed = cipher(key, &value)
        .encrypt(&[0; 12].into(), Payload { msg: plain, aad: associated })
        .expect("AES-GCM takes messages of up to 64 GiB; ours are bounded far below");
    let mut out = Vec::with_capacity(SYNTHETIC_LEN + sealed.len());
    out.extend_from_slice(&value);
    out.extend_from_slice(&sealed);
    out
}

/// Opens what [`seal`] made. The plaintext wipes itself on drop.
///
/// # Errors
/// [`NotAuthentic`] for any other key, associated data or bytes.
pub fn open(key: &TenantKey, associated: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
    let (value, ciphertext) = sealed.split_first_chunk::<SYNTHETIC_LEN>().ok_or(NotAuthentic)?;
    let plain = cipher(key, value)
        .decrypt(&[0; 12].into(), Payload { msg: ciphertext, aad: associated })
        .map_err(|_| NotAuthentic)?;
    let plain = Zeroizing::new(plain);
    // blake3::Hash compares in constant time
    if blake3::Hash::from(synthetic(key, associated, &plain)) == blake3::Hash::from(*value) {
        Ok(plain)
    } else {
        Err(NotAuthentic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: TenantKey = TenantKey([5; 32]);

    #[test]
    fn golden_envelope() {
        assert_eq!(
            hex::encode(seal(&KEY, b"around", b"inside")),
            "e285df622cc876bfbe9554b2f9ead50f3a70e3ab63f2f23fcccccbcd9f504b8c4177ea04f0c3230ecda8a17038e0619c8a86716f12e2"
        );
    }

    proptest! {
        #[test]
        fn opens_only_unchanged(
            associated in proptest::collection::vec(any::<u8>(), 0..40),
            plain in proptest::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let sealed = seal(&KEY, &associated, &plain);
            prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
            prop_assert_eq!(&open(&KEY, &associated, &sealed).unwrap()[..], &plain[..]);
            prop_assert_eq!(open(&TenantKey([6; 32]), &associated, &sealed), Err(NotAuthentic));
            let mut changed = sealed.clone();
            let index = at.index(changed.len());
            changed[index] ^= 1 << bit;
            prop_assert_eq!(open(&KEY, &associated, &changed), Err(NotAuthentic));
            prop_assert_eq!(open(&KEY, &associated, &sealed[..index]), Err(NotAuthentic));
            let mut around = associated.clone();
            around.push(0);
            prop_assert_eq!(open(&KEY, &around, &sealed), Err(NotAuthentic));
        }
    }
}
