//! Names of images as people write them: containers-transports(5) and Docker's defaults.
//!
//! Invariants: a [`RegistryRef`] is normalised (host, repository and either tag or digest
//! are always there and well-formed), so it can be put into a URL as it is.

use crate::layer::Digest;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageRef {
    /// `docker://HOST/REPO:TAG` or `…@DIGEST`: a registry.
    Registry(RegistryRef),
    /// `oci:DIR[:TAG]`: an OCI image layout.
    Layout {
        /// The layout's directory.
        directory: PathBuf,
        /// The name in its index; needed when it holds several images.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]`: a layout in a tar file.
    LayoutArchive {
        /// The tar file, possibly compressed.
        file: PathBuf,
        /// The name in its index; needed when it holds several images.
        tag: Option<String>,
    },
    /// `docker-archive:FILE[:REF]`: what `docker save` writes.
    DockerArchive {
        /// The tar file, possibly compressed.
        file: PathBuf,
        /// Name or `@INDEX` of the image; needed when it holds several.
        image: Option<String>,
    },
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryRef {
    /// Host and port as written, `docker.io` for Docker Hub.
    pub host: String,
    /// Repository, with `library/` for Docker Hub's official images.
    pub repository: String,
    /// The tag, `latest` when nothing was said; a digest beats it.
    pub tag: Option<String>,
    /// The manifest's digest.
    pub digest: Option<Digest>,
}

/// Text that does not name an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} does not name an image: {reason}")]
pub struct ReferenceError {
    text: String,
    reason: &'static str,
}

/// Transports of other tools that a name may begin with, so that `dir:x` is not taken for a
/// repository called `dir`.
const FOREIGN: [&str; 5] = ["containers-storage:", "docker-daemon:", "dir:", "sif:", "ostree:"];

impl FromStr for ImageRef {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let refuse = |reason| Err(ReferenceError { text: text.chars().take(300).collect(), reason });
        let split = |rest: &str| match rest.split_once(':') {
            Some((path, name)) => {
                (PathBuf::from(path), Some(name.to_owned()).filter(|name| !name.is_empty()))
            }
            None => (PathBuf::from(rest), None),
        };
        if let Some(rest) = text.strip_prefix("docker://") {
            return rest.parse().map(Self::Registry);
        }
        for (prefix, make) in [
            ("oci:", &(|directory, tag| Self::Layout { directory, tag }) as &dyn Fn(_, _) -> _),
            ("oci-archive:", &|file, tag| Self::LayoutArchive { file, tag }),
            ("docker-archive:", &|file, image| Self::DockerArchive { file, image }),
        ] {
            let Some(rest) = text.strip_prefix(prefix) else { continue };
            let (path, name) = split(rest);
            if path.as_os_str().is_empty() {
                return refuse("the path is missing");
            }
            return Ok(make(path, name));
        }
        if FOREIGN.iter().any(|foreign| text.starts_with(foreign)) {
            return refuse("only docker://, oci:, oci-archive: and docker-archive: are supported");
        }
        text.parse().map(Self::Registry)
    }
}

impl FromStr for RegistryRef {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let refuse = |reason| ReferenceError { text: text.chars().take(300).collect(), reason };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| refuse("the digest is not sha256 and 64 digits"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (host, rest) = match rest.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
            _ => ("docker.io", rest),
        };
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (rest, None),
        };
        let official = host == "docker.io" && !repository.contains('/');
        let repository = if official { format!("library/{repository}") } else { repository.to_owned() };
        if !is_host(host) {
            return Err(refuse("the host is not a name or address with an optional port"));
        }
        if repository.len() > 255 || !repository.split('/').all(is_component) {
            return Err(refuse(
                "the repository must be lowercase letters, digits and single . _ - between them, parts joined by /",
            ));
        }
        if !tag.as_deref().is_none_or(is_tag) {
            return Err(refuse("a tag is 1 to 128 letters, digits, . _ -, not beginning with . or -"));
        }
        let tag = if tag.is_none() && digest.is_none() { Some("latest".into()) } else { tag };
        Ok(Self { host: host.into(), repository, tag, digest })
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (None, port.strip_prefix(':').or(port.is_empty().then_some("0")))
        }
        None => match host.split_once(':') {
            Some((name, port)) => (Some(name), Some(port)),
            None => (Some(host), Some("0")),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
    };
    port.is_some_and(|port| port.parse::<u16>().is_ok())
        && name.is_none_or(|name| name.len() <= 253 && name.split('.').all(label))
}

/// `[a-z0-9]+` parts joined by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends =
        bytes.first().is_some_and(|&b| alphanumeric(b)) && bytes.last().is_some_and(|&b| alphanumeric(b));
    let joints = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends && joints
        .filter(|joint| !joint.is_empty())
        .all(|joint| matches!(joint, "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=128).contains(&tag.len()) && tag.bytes().all(legal) && !tag.starts_with(['.', '-'])
}

impl fmt::Display for RegistryRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        self.tag.iter().try_for_each(|tag| write!(f, ":{tag}"))?;
        self.digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, path, name) = match self {
            Self::Registry(reference) => return write!(f, "docker://{reference}"),
            Self::Layout { directory, tag } => ("oci", directory, tag),
            Self::LayoutArchive { file, tag } => ("oci-archive", file, tag),
            Self::DockerArchive { file, image } => ("docker-archive", file, image),
        };
        write!(f, "{prefix}:{}", path.display())?;
        name.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_canonical_form() {
        let digest = Digest::of(b"").to_string();
        for (text, want) in [
            ("ubuntu", "docker://docker.io/library/ubuntu:latest".to_owned()),
            ("ubuntu:22.04", "docker://docker.io/library/ubuntu:22.04".into()),
            ("docker://index.docker.io/a/b", "docker://docker.io/a/b:latest".into()),
            ("user/app", "docker://docker.io/user/app:latest".into()),
            ("localhost/x", "docker://localhost/x:latest".into()),
            ("localhost:5000/x/y:1", "docker://localhost:5000/x/y:1".into()),
            ("[::1]:5000/x", "docker://[::1]:5000/x:latest".into()),
            ("ghcr.io/a__b/c.d-e--f", "docker://ghcr.io/a__b/c.d-e--f:latest".into()),
            (&format!("q.io/x@{digest}"), format!("docker://q.io/x@{digest}")),
            (&format!("q.io/x:t@{digest}"), format!("docker://q.io/x:t@{digest}")),
            ("oci:dir", "oci:dir".into()),
            ("oci:/a/dir:tag:x", "oci:/a/dir:tag:x".into()),
            ("oci-archive:f.tar:", "oci-archive:f.tar".into()),
            ("docker-archive:f.tar:ubuntu:22.04", "docker-archive:f.tar:ubuntu:22.04".into()),
        ] {
            let parsed: ImageRef = text.parse().unwrap();
            assert_eq!(parsed.to_string(), want, "{text}");
            assert_eq!(want.parse::<ImageRef>().unwrap(), parsed);
        }
    }

    #[test]
    fn what_names_nothing() {
        for bad in [
            "",
            "docker://",
            "oci:",
            "oci::tag",
            "dir:/x",
            "Ubuntu",
            "a//b",
            "a/",
            "a:",
            "a:.x",
            "a b",
            "a@sha256:00",
            "h.io:99999/x",
            "h..io/x",
            "h.io/../x",
            "h.io/a?b",
            "h.io/a#b",
            "user@host.io/x",
            "a___b",
            "a-",
            "[::1/x",
        ] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad}");
        }
    }
}
