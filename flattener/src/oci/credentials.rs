//! Registry credentials from where people keep them: containers-auth.json(5), Docker's
//! config and credential helper programs.
//!
//! Invariants: secrets are wiped on drop, never printed (`Debug` says `<redacted>`) and never
//! written anywhere; an unreadable file that was named explicitly is an error, one in a
//! default place that does not exist is passed over.

use super::error::SourceFault;
use super::reference::RegistryRef;
use base64::Engine;
use serde::Deserialize;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use zeroize::Zeroizing;

/// Longest credential file, and longest answer of a helper, in bytes.
const FILE_MAX: u64 = 4 << 20;
/// Longest answer of a credential helper in bytes.
const ANSWER_MAX: u64 = 1 << 20;
/// A helper may ask a cloud service, but not for ever.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);

/// What proves who we are to a registry.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    /// User name and password or token.
    Basic { username: String, password: Zeroizing<String> },
    /// An OAuth2 refresh token.
    Identity(Zeroizing<String>),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// The files to look into, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    files: Vec<PathBuf>,
    /// Whether a missing file is an error.
    explicit: bool,
}

impl Places {
    /// The file given, or those of the environment: `REGISTRY_AUTH_FILE` alone when it is
    /// set, else the default places of containers-auth.json(5) and Docker.
    pub(super) fn new(given: Option<&Path>, variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        if let Some(file) = given.map(Path::to_path_buf).or_else(|| variable("REGISTRY_AUTH_FILE")) {
            return Self { files: vec![file], explicit: true };
        }
        let home = variable("HOME");
        let in_home = |below: &str| home.as_ref().map(|home| home.join(below));
        let files = [
            variable("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
            variable("XDG_CONFIG_HOME")
                .or_else(|| in_home(".config"))
                .map(|dir| dir.join("containers/auth.json")),
            variable("DOCKER_CONFIG").or_else(|| in_home(".docker")).map(|dir| dir.join("config.json")),
        ];
        Self { files: files.into_iter().flatten().collect(), explicit: false }
    }

    /// The credential for a repository from the first file that has one.
    pub(super) async fn find(&self, wanted: &RegistryRef) -> Result<Option<Credential>, SourceFault> {
        for path in &self.files {
            let Some(file) = self.read(path).await? else { continue };
            if let Some(credential) = file.find(wanted, path).await? {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    async fn read(&self, path: &Path) -> Result<Option<AuthFile>, SourceFault> {
        let place = || path.display().to_string();
        let file = match tokio::fs::File::open(path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.explicit => return Ok(None),
            Err(source) => return Err(SourceFault::File { path: place(), source }),
        };
        let mut bytes = Zeroizing::new(Vec::new());
        let read = file.take(FILE_MAX).read_to_end(&mut bytes).await;
        read.map_err(|source| SourceFault::File { path: place(), source })?;
        // The parser's own message could quote a secret.
        let parsed = serde_json::from_slice(&bytes).map_err(|error| SourceFault::Credentials {
            place: place(),
            reason: format!("it is not valid JSON at line {}", error.line()),
        });
        parsed.map(Some)
    }
}

#[derive(Deserialize, Default)]
struct AuthFile {
    #[serde(default)]
    auths: HashMap<String, Entry>,
    #[serde(default, rename = "credHelpers")]
    helpers: HashMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize, Default)]
struct Entry {
    #[serde(default)]
    auth: Option<Zeroizing<String>>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<Zeroizing<String>>,
    #[serde(default, rename = "identitytoken")]
    identity: Option<Zeroizing<String>>,
}

/// A key as people write it (`https://index.docker.io/v1/`) as host and repository prefix.
fn normalise(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let bare = bare.trim_end_matches('/');
    let bare = bare.strip_suffix("/v1").or_else(|| bare.strip_suffix("/v2")).unwrap_or(bare);
    for hub in ["index.docker.io", "registry-1.docker.io"] {
        if let Some(rest) = bare.strip_prefix(hub)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return format!("docker.io{rest}");
        }
    }
    bare.to_owned()
}

impl AuthFile {
    async fn find(&self, wanted: &RegistryRef, path: &Path) -> Result<Option<Credential>, SourceFault> {
        let helper = self.helpers.iter().find(|(host, _)| normalise(host) == wanted.host);
        if let Some((_, name)) = helper
            && let Some(credential) = ask_helper(name, &wanted.host).await?
        {
            return Ok(Some(credential));
        }
        if let Some(entry) = self.entry(wanted) {
            let credential = entry.credential().map_err(|reason| SourceFault::Credentials {
                place: path.display().to_string(),
                reason: reason.into(),
            })?;
            if credential.is_some() {
                return Ok(credential);
            }
        }
        match &self.store {
            Some(name) if !name.is_empty() => ask_helper(name, &wanted.host).await,
            _ => Ok(None),
        }
    }

    /// The entry with the longest key that is the host or a prefix of the repository.
    fn entry(&self, wanted: &RegistryRef) -> Option<&Entry> {
        let full = format!("{}/{}", wanted.host, wanted.repository);
        let matches =
            |key: &str| full.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let entries = self.auths.iter().map(|(key, entry)| (normalise(key), key, entry));
        // Of two spellings of one key the smaller counts, so that the choice is stable.
        let mut entries: Vec<_> = entries.filter(|(key, _, _)| !key.is_empty() && matches(key)).collect();
        entries.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.1.cmp(b.1)));
        entries.first().map(|(_, _, entry)| *entry)
    }
}

impl Entry {
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        if let Some(token) = self.identity.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credential::Identity(token.clone())));
        }
        if let (Some(username), Some(password)) = (&self.username, &self.password) {
            return Ok(Some(Credential::Basic { username: username.clone(), password: password.clone() }));
        }
        let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(auth.trim())
            .map(Zeroizing::new)
            .map_err(|_| "an auth value is not base64")?;
        let text = std::str::from_utf8(&decoded).map_err(|_| "an auth value is not text")?;
        let (username, password) = text.split_once(':').ok_or("an auth value is not user:password")?;
        let password = Zeroizing::new(password.trim_end_matches('\0').to_owned());
        Ok(Some(Credential::Basic { username: username.into(), password }))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: Zeroizing<String>,
}

/// Asks `docker-credential-NAME get`; `None` when it knows nothing of the host.
async fn ask_helper(name: &str, host: &str) -> Result<Option<Credential>, SourceFault> {
    let program = format!("docker-credential-{name}");
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        let reason = "that is not the name of a helper".into();
        return Err(SourceFault::Credentials { place: program, reason });
    }
    ask_program(&program, host).await
}

async fn ask_program(program: &str, host: &str) -> Result<Option<Credential>, SourceFault> {
    let fault = |reason: String| SourceFault::Credentials { place: program.to_owned(), reason };
    let server = if host == "docker.io" { "https://index.docker.io/v1/" } else { host };
    let run = run_helper(program, server);
    let (success, answer) = match tokio::time::timeout(HELPER_TIMEOUT, run).await {
        Ok(result) => result.map_err(|error| fault(format!("it cannot be run ({})", error.kind())))?,
        Err(_) => return Err(fault(format!("it did not answer within {} s", HELPER_TIMEOUT.as_secs()))),
    };
    if !success {
        let said = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if said.contains("not found") {
            return Ok(None);
        }
        // Its output may hold anything, so it is not repeated.
        return Err(fault("it failed; run it by hand to see why".into()));
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&answer).map_err(|_| fault("its answer is not what helpers answer".into()))?;
    if answer.username.is_empty() && answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(if answer.username == "<token>" {
        Credential::Identity(answer.secret)
    } else {
        Credential::Basic { username: answer.username, password: answer.secret }
    }))
}

async fn run_helper(program: &str, server: &str) -> io::Result<(bool, Zeroizing<Vec<u8>>)> {
    let mut child = tokio::process::Command::new(program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input says so by its exit code.
        let _ = stdin.write_all(server.as_bytes()).await;
    }
    let mut answer = Zeroizing::new(Vec::new());
    if let Some(stdout) = child.stdout.take() {
        stdout.take(ANSWER_MAX).read_to_end(&mut answer).await?;
    }
    let status = child.wait().await?;
    Ok((status.success(), answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, name: &str) -> Option<(String, String)> {
        let file: AuthFile = serde_json::from_str(json).unwrap();
        match file.entry(&name.parse().unwrap())?.credential().unwrap()? {
            Credential::Basic { username, password } => Some((username, password.to_string())),
            Credential::Identity(token) => Some(("<token>".into(), token.to_string())),
        }
    }

    #[test]
    fn the_longest_key_wins() {
        // user:host, user:ns, user:repo, user:hub
        let json = r#"{"auths":{
            "q.io":{"auth":"dXNlcjpob3N0"},
            "q.io/a":{"auth":"dXNlcjpucw=="},
            "q.io/a/b":{"username":"user","password":"repo"},
            "https://index.docker.io/v1/":{"auth":"dXNlcjpodWI="},
            "https://t.io/v2/":{"identitytoken":"secret"},
            "e.io":{}
        }}"#;
        for (name, want) in [
            ("q.io/x", Some("host")),
            ("q.io/a/x", Some("ns")),
            ("q.io/a/b", Some("repo")),
            ("q.io/a/bc", Some("ns")),
            ("q.io/ab", Some("host")),
            ("q.io:5000/x", None),
            ("ubuntu", Some("hub")),
            ("user/app", Some("hub")),
            ("t.io/x", Some("secret")),
            ("e.io/x", None),
        ] {
            assert_eq!(find(json, name).map(|(_, password)| password).as_deref(), want, "{name}");
        }
    }

    #[test]
    fn places_follow_the_environment() {
        let places = |set: &[(&str, &str)], given: Option<&str>| {
            let set: HashMap<String, PathBuf> = set.iter().map(|(k, v)| (k.to_string(), v.into())).collect();
            Places::new(given.map(Path::new), |name| set.get(name).cloned())
        };
        assert_eq!(places(&[("REGISTRY_AUTH_FILE", "/e")], Some("/g")).files, [PathBuf::from("/g")]);
        let explicit = places(&[("REGISTRY_AUTH_FILE", "/e"), ("HOME", "/h")], None);
        assert!(explicit.explicit && explicit.files == [PathBuf::from("/e")]);
        let defaults = places(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/r")], None);
        let want = ["/r/containers/auth.json", "/h/.config/containers/auth.json", "/h/.docker/config.json"];
        assert_eq!(defaults.files, want.map(PathBuf::from));
    }

    #[tokio::test]
    async fn helpers_answer_fail_or_know_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().join("text");
        let program = dir.path().join("docker-credential-test");
        for (script, want) in [
            (
                r#"read s; echo "{\"ServerURL\":\"$s\",\"Username\":\"$1 $s\",\"Secret\":\"x\"}""#,
                "get q.io x",
            ),
            (r#"echo '{"Username":"<token>","Secret":"y"}'"#, "<token> y"),
            ("echo credentials not found in native keychain; exit 1", "none"),
            ("echo geheim; exit 1", "it failed"),
            ("echo geheim", "its answer is not"),
        ] {
            std::fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
            // Copied by another process, so that no thread of ours holds the program open.
            let mut install = std::process::Command::new("install");
            assert!(install.args(["-m", "755"]).arg(&text).arg(&program).status().unwrap().success());
            let got = match ask_program(program.to_str().unwrap(), "q.io").await {
                Ok(Some(Credential::Basic { username, password })) => format!("{username} {}", *password),
                Ok(Some(Credential::Identity(token))) => format!("<token> {}", *token),
                Ok(None) => "none".into(),
                Err(fault) => fault.to_string(),
            };
            assert!(got.contains(want) && !got.contains("geheim"), "{got}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let credential =
            Credential::Basic { username: "u".into(), password: Zeroizing::new("geheim".into()) };
        assert_eq!(format!("{credential:?}"), "<redacted>");
        assert!(find(r#"{"auths":{"q.io":{"auth":""}}}"#, "q.io/x").is_none());
    }
}
