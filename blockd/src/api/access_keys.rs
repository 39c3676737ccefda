//! The access keys that requests may be signed with: a TOML file that only its owner may
//! read.
//!
//! ```toml
//! [keys.LANTERNEXAMPLEKEY]
//! secret = "…"
//! tenant = "local"
//! account = "000000000000"   # where it is left out, this one
//! ```
//!
//! Invariants: secrets are never printed and wiped on drop; an account belongs to one tenant
//! and a tenant has one account, so that an ARN has one owner.

use crate::functions::Caller;
use crate::functions::name::is_account;
use crate::functions::settings::LOCAL_ACCOUNT;
use aws_credential_types::Credentials;
use image_format::ids::TenantId;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, Zeroizing};

/// Longest file that is read, in bytes: some thousand keys.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Shortest and longest secret, in bytes: what can be guessed is none, and AWS's have 40.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=256;

/// Why the access keys cannot be used. Never contains a secret.
#[derive(Debug, thiserror::Error)]
pub enum AccessKeyError {
    /// The file cannot be read.
    #[error("access keys {path} cannot be read")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others may read it.
    #[error("access keys {path} have mode {mode:o} and may be read by others; run: chmod 600 {path}")]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not say what it should.
    #[error("access keys {path} are not valid: {reason}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyText {
    secret: String,
    tenant: String,
    account: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    keys: BTreeMap<String, KeyText>,
}

impl Drop for KeyText {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// One key.
#[derive(Debug, Clone)]
pub struct AccessKey {
    /// Whose requests it signs.
    pub caller: Caller,
    pub(crate) credentials: Credentials,
}

/// All keys, by id.
#[derive(Debug, Clone, Default)]
pub struct AccessKeys {
    keys: HashMap<String, AccessKey>,
}

/// Whether that can be the id of a key.
pub(crate) fn is_key_id(text: &str) -> bool {
    (3..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl AccessKeys {
    /// Reads a file.
    ///
    /// # Errors
    /// [`AccessKeyError`].
    pub fn read(path: &Path) -> Result<Self, AccessKeyError> {
        let failed = |source| AccessKeyError::Read { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(AccessKeyError::Mode { path: path.to_path_buf(), mode });
        }
        let mut text = Zeroizing::new(String::new());
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
        let parsed = if text.len() as u64 > MAX_FILE_BYTES {
            Err(format!("it is longer than {MAX_FILE_BYTES} bytes"))
        } else {
            Self::parse(&text)
        };
        parsed.map_err(|reason| AccessKeyError::Invalid { path: path.to_path_buf(), reason })
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong; never the secrets.
    pub fn parse(text: &str) -> Result<Self, String> {
        // the parser's message would show the line, which may be the secret
        let file: FileText = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| text[..span.start].lines().count());
            format!("line {at}: {}", error.message())
        })?;
        let mut keys = HashMap::new();
        let (mut accounts, mut tenants) = (BTreeMap::new(), BTreeMap::new());
        for (id, key) in file.keys {
            let account = key.account.as_deref().unwrap_or(LOCAL_ACCOUNT);
            if !is_key_id(&id) {
                return Err(format!("{id:?} is not the id of a key: 3 to 128 letters, digits and _"));
            }
            if !SECRET_BYTES.contains(&key.secret.len()) || !key.secret.bytes().all(|b| b.is_ascii_graphic())
            {
                return Err(format!("the secret of {id} must have 16 to 256 printable characters"));
            }
            if key.tenant.parse::<TenantId>().is_err() {
                return Err(format!("{:?} of {id} is not a tenant", key.tenant));
            }
            if !is_account(account) {
                return Err(format!("account {account:?} of {id} must be 12 digits"));
            }
            let tenant: &String = accounts.entry(account.to_owned()).or_insert_with(|| key.tenant.clone());
            let known: &String = tenants.entry(key.tenant.clone()).or_insert_with(|| account.to_owned());
            if *tenant != key.tenant || known != account {
                return Err(format!("{id}: a tenant has one account and an account one tenant"));
            }
            let caller = Caller { tenant: key.tenant.as_str().into(), account: account.into() };
            let credentials = Credentials::new(id.as_str(), key.secret.as_str(), None, None, "lantern");
            keys.insert(id, AccessKey { caller, credentials });
        }
        Ok(Self { keys })
    }

    /// The key with that id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&AccessKey> {
        self.keys.get(id)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nobody can sign anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The account of each tenant.
    #[must_use]
    pub fn accounts(&self) -> BTreeMap<String, String> {
        let callers = self.keys.values().map(|key| &key.caller);
        callers.map(|caller| (caller.tenant.to_string(), caller.account.to_string())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const GOOD: &str = "[keys.AKIDEXAMPLE]\nsecret = 'wJalrXUtnFEMIexample'\ntenant = 'local'\n\
                        [keys.OTHER]\nsecret = 'wJalrXUtnFEMIexample2'\ntenant = 'team'\naccount = '123456789012'\n";

    #[test]
    fn files_of_the_right_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        std::fs::write(&path, GOOD).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(AccessKeys::read(&path), Err(AccessKeyError::Mode { mode: 0o644, .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let keys = AccessKeys::read(&path).unwrap();
        assert_eq!(&*keys.get("OTHER").unwrap().caller.account, "123456789012");
        assert_eq!(keys.accounts()["local"], LOCAL_ACCOUNT);
        assert!(!format!("{keys:?}").contains("wJalr"));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_told() {
        for (text, named) in [
            (GOOD.replace("AKIDEXAMPLE", "\"a b\""), "a b"),
            (GOOD.replace("'local'", "'Local'"), "tenant"),
            (GOOD.replace("'123456789012'", "'1'"), "12 digits"),
            (GOOD.replace("'123456789012'", "'000000000000'"), "one account"),
            (GOOD.replace("'team'", "'local'"), "one account"),
            (GOOD.replace("wJalrXUtnFEMIexample2", "wJalr"), "16 to 256"),
            (GOOD.replace("secret = 'wJalrXUtnFEMIexample2'", "secret = wJalrXUtnFEMIexample2"), "line"),
            (GOOD.replace("account =", "acount ="), "acount"),
        ] {
            let error = AccessKeys::parse(&text).unwrap_err();
            assert!(error.contains(named) && !error.contains("wJalr"), "{error}");
        }
    }
}
