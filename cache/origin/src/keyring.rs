//! The default key custodian: one TOML file on this host with the tenants' keys and the
//! secrets of private dedup domains.
//!
//! Invariants: the file has mode 0600 and is refused otherwise; it is replaced atomically
//! and under a lock, so two first uses agree on one key; keys are made from the kernel's
//! random source, never derived; nothing here is ever printed.

use image_format::envelope::{CustodyError, KeyCustodian, TenantKey};
use image_format::ids::TenantId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Largest keyring file that is read, in bytes: some ten thousand tenants.
const MAX_KEYRING_BYTES: u64 = 1024 * 1024;

/// Why a keyring file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file cannot be read or written.
    #[error("keyring {path}: cannot {action}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("keyring {path} has mode {mode:o} and may be read by others; run: chmod 600 {path}")]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The text is not a keyring.
    #[error("keyring {path} is not a version 1 keyring ({reason}); restore it from your backup")]
    Format {
        /// Which file.
        path: PathBuf,
        /// What does not fit; never contains key material.
        reason: String,
    },
    /// The dedup domain has no secret in the file.
    #[error("keyring {path} has no dedup domain {domain:?}; create it with: flattener add-domain {domain}")]
    NoDomain {
        /// Which file.
        path: PathBuf,
        /// The domain asked for.
        domain: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyringText {
    version: u32,
    #[serde(default)]
    tenants: BTreeMap<String, String>,
    #[serde(default)]
    domains: BTreeMap<String, String>,
}

impl Drop for KeyringText {
    fn drop(&mut self) {
        use zeroize::Zeroize;
        self.tenants.values_mut().chain(self.domains.values_mut()).for_each(Zeroize::zeroize);
    }
}

/// Tenants' keys in a local file. See the module's invariants.
#[derive(Debug, Clone)]
pub struct Keyring {
    path: PathBuf,
}

impl Keyring {
    /// The keyring at `path`; nothing is read yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tenant's key, made and stored first if there is none. For writers; readers use
    /// [`KeyCustodian::tenant_key`], which never makes one.
    ///
    /// # Errors
    /// [`KeyringError`] if the file cannot be used.
    pub fn ensure_tenant(&self, tenant: &TenantId) -> Result<TenantKey, KeyringError> {
        if let Some(text) = self.read()?
            && let Some(key) = text.tenants.get(tenant.as_str())
        {
            return Ok(TenantKey::from_bytes(*self.decode(key)?));
        }
        let key =
            self.update(|text| Ok(text.tenants.entry(tenant.as_str().into()).or_insert(fresh()?).clone()))?;
        Ok(TenantKey::from_bytes(*self.decode(&Zeroizing::new(key))?))
    }

    /// The secret of a dedup domain; `public` is the one without a secret (all zeros).
    ///
    /// # Errors
    /// [`KeyringError::NoDomain`] if the file has no such domain.
    pub fn domain_secret(&self, domain: &str) -> Result<Zeroizing<[u8; 32]>, KeyringError> {
        if domain == "public" {
            return Ok(Zeroizing::new([0; 32]));
        }
        match self.read()?.as_ref().and_then(|text| text.domains.get(domain)) {
            Some(secret) => self.decode(secret),
            None => Err(KeyringError::NoDomain { path: self.path.clone(), domain: domain.into() }),
        }
    }

    /// Makes a dedup domain with a fresh secret, unless it exists.
    ///
    /// # Errors
    /// [`KeyringError`] if the file cannot be used.
    pub fn ensure_domain(&self, domain: &str) -> Result<(), KeyringError> {
        self.update(|text| Ok(text.domains.entry(domain.into()).or_insert(fresh()?).clone())).map(drop)
    }

    fn io(&self, action: &'static str) -> impl FnOnce(io::Error) -> KeyringError {
        let path = self.path.clone();
        move |source| KeyringError::Io { path, action, source }
    }

    fn decode(&self, hex_text: &str) -> Result<Zeroizing<[u8; 32]>, KeyringError> {
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(hex_text, &mut *key).map_err(|_| KeyringError::Format {
            path: self.path.clone(),
            reason: "a key is not 64 hexadecimal digits".into(),
        })?;
        Ok(key)
    }

    fn read(&self) -> Result<Option<KeyringText>, KeyringError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io("open")(error)),
        };
        let mode = file.metadata().map_err(self.io("stat"))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyringError::Mode { path: self.path.clone(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        let format = |reason| KeyringError::Format { path: self.path.clone(), reason };
        // a part of it must never pass for the whole: an update would drop the rest
        let read = file.take(MAX_KEYRING_BYTES + 1).read_to_string(&mut text).map_err(self.io("read"))?;
        if read as u64 > MAX_KEYRING_BYTES {
            return Err(format(format!("longer than {MAX_KEYRING_BYTES} bytes")));
        }
        // the parser's message would quote the line, which may hold a key
        let parsed: KeyringText =
            toml::from_str(&text).map_err(|_| format("not the expected TOML tables".into()))?;
        if parsed.version != 1 {
            return Err(format(format!("version {}", parsed.version)));
        }
        Ok(Some(parsed))
    }

    fn update(
        &self,
        change: impl FnOnce(&mut KeyringText) -> Result<String, io::Error>,
    ) -> Result<String, KeyringError> {
        let parent = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(self.io("create the directory of"))?;
        let mut lock_name = self.path.clone().into_os_string();
        lock_name.push(".lock");
        let lock = private_file(Path::new(&lock_name)).map_err(self.io("lock"))?;
        lock.lock().map_err(self.io("lock"))?;

        let mut text = self.read()?.unwrap_or_else(|| KeyringText {
            version: 1,
            tenants: BTreeMap::new(),
            domains: BTreeMap::new(),
        });
        let value = change(&mut text).map_err(self.io("make a key for"))?;
        let body = Zeroizing::new(format!(
            "# Lantern keyring. Whoever holds it can read the tenants' images; without it\n\
             # nobody can. Keep a backup. See docs/operations.md.\n{}",
            toml::to_string(&text).expect("maps of strings are TOML")
        ));
        let mut temporary = self.path.clone().into_os_string();
        temporary.push(".new");
        let mut file = private_file(Path::new(&temporary)).map_err(self.io("write"))?;
        file.set_len(0).map_err(self.io("write"))?;
        file.write_all(body.as_bytes()).map_err(self.io("write"))?;
        file.sync_all().map_err(self.io("sync"))?;
        fs::rename(&temporary, &self.path).map_err(self.io("replace"))?;
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(self.io("sync the directory of"))?;
        Ok(value)
    }
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

fn fresh() -> io::Result<String> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *key).map_err(io::Error::other)?;
    Ok(hex::encode(*key))
}

impl KeyCustodian for Keyring {
    fn tenant_key(&self, tenant: &TenantId) -> Result<TenantKey, CustodyError> {
        let custodian = || format!("keyring {}", self.path.display());
        let unavailable = |error: KeyringError| CustodyError::Unavailable {
            tenant: tenant.clone(),
            custodian: custodian(),
            source: Box::new(error),
        };
        let text = self.read().map_err(unavailable)?;
        let Some(key) = text.as_ref().and_then(|text| text.tenants.get(tenant.as_str())) else {
            return Err(CustodyError::Denied {
                tenant: tenant.clone(),
                custodian: custodian(),
                advice: "push an image as this tenant first, or copy the keyring of the machine that did"
                    .into(),
            });
        };
        Ok(TenantKey::from_bytes(*self.decode(key).map_err(unavailable)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn tenant() -> TenantId {
        "local".parse().unwrap()
    }

    fn bytes(key: &TenantKey) -> Vec<u8> {
        image_format::envelope::seal(key, b"", b"probe")
    }

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = Keyring::new(dir.path().join("sub/keyring.toml"));
        assert!(matches!(keyring.tenant_key(&tenant()), Err(CustodyError::Denied { .. })));
        let made = keyring.ensure_tenant(&tenant()).unwrap();
        assert_eq!(bytes(&keyring.ensure_tenant(&tenant()).unwrap()), bytes(&made));
        assert_eq!(bytes(&keyring.tenant_key(&tenant()).unwrap()), bytes(&made));
        assert_eq!(fs::metadata(keyring.path()).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn racing_first_uses_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keyring.toml");
        let keys: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let start = || bytes(&Keyring::new(&path).ensure_tenant(&tenant()).unwrap());
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
    }

    #[test]
    fn an_open_or_damaged_file_is_refused_without_quoting_it() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = Keyring::new(dir.path().join("keyring.toml"));
        keyring.ensure_tenant(&tenant()).unwrap();
        fs::set_permissions(keyring.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(keyring.ensure_tenant(&tenant()), Err(KeyringError::Mode { mode: 0o640, .. })));
        fs::set_permissions(keyring.path(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(keyring.path(), "version = 1\n[tenants]\nlocal = secret").unwrap();
        let error = format!("{:?}", keyring.ensure_tenant(&tenant()).unwrap_err());
        assert!(!error.contains("secret"), "{error}");
        let long = format!("version = 1\n{}", "# filler\n".repeat(200_000));
        fs::write(keyring.path(), &long).unwrap();
        assert!(matches!(keyring.ensure_tenant(&tenant()), Err(KeyringError::Format { .. })));
        assert_eq!(fs::read_to_string(keyring.path()).unwrap(), long, "what was not read is not replaced");
    }

    #[test]
    fn domains() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = Keyring::new(dir.path().join("keyring.toml"));
        assert_eq!(*keyring.domain_secret("public").unwrap(), [0; 32]);
        assert!(matches!(keyring.domain_secret("team"), Err(KeyringError::NoDomain { .. })));
        keyring.ensure_domain("team").unwrap();
        assert_ne!(*keyring.domain_secret("team").unwrap(), [0; 32]);
    }
}
