//! Platforms as image indexes name them, and the choice among them.

use super::manifest::Descriptor;
use serde::Deserialize;
use std::fmt;
use std::str::FromStr;

/// Operating system, processor and variant, in Go's spelling (`linux/arm64/v8`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `linux` and others.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7`, `v8`, …, where the architecture has them.
    #[serde(default)]
    pub variant: Option<String>,
}

/// Text that is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a platform of the form os/arch or os/arch/variant, as in linux/amd64")]
pub struct PlatformError(String);

impl Platform {
    /// Linux on this machine's processor.
    #[must_use]
    pub fn host() -> Self {
        Self { os: "linux".into(), architecture: std::env::consts::ARCH.into(), variant: None }.normalised()
    }

    /// Joins the spellings of one platform: `aarch64` is `arm64`, its `v8` and amd64's `v1`
    /// are what no variant means.
    #[must_use]
    pub fn normalised(mut self) -> Self {
        self.os.make_ascii_lowercase();
        self.architecture.make_ascii_lowercase();
        self.variant = self.variant.filter(|variant| !variant.is_empty()).map(|v| v.to_ascii_lowercase());
        let (architecture, variant) = match (self.architecture.as_str(), self.variant.as_deref()) {
            ("aarch64" | "arm64", None | Some("v8" | "8")) => ("arm64", None),
            ("aarch64", _) => ("arm64", self.variant.as_deref()),
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64", _) => ("amd64", self.variant.as_deref()),
            ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", None),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            (other, variant) => (other, variant),
        };
        Self { architecture: architecture.into(), variant: variant.map(Into::into), os: self.os }
    }

    /// How well an entry for `offered` serves who wants `self`: `None` not at all, smaller
    /// is better. Without a wanted variant, plain is best, then the highest arm variant.
    fn distance(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        match (&self.variant, &offered.variant) {
            (wanted, offered) if wanted == offered => Some(0),
            (Some(_), _) => None,
            (None, Some(variant)) if self.architecture == "arm" => {
                let level: u32 = variant.strip_prefix('v').and_then(|n| n.parse().ok()).unwrap_or(0);
                Some(100 - level.min(7))
            }
            // amd64/v3 code would not run on every amd64.
            (None, _) => None,
        }
    }

    /// Whether an image that says it is for `offered` is acceptable to who wants `self`.
    #[must_use]
    pub fn accepts(&self, offered: &Self) -> bool {
        self.clone().normalised().distance(&offered.clone().normalised()).is_some()
    }

    /// The best of an index's entries, the first among equals.
    pub(super) fn choose<'d>(&self, entries: &'d [Descriptor]) -> Option<&'d Descriptor> {
        let wanted = self.clone().normalised();
        let distance = |entry: &Descriptor| wanted.distance(&entry.platform.clone()?.normalised());
        let best = entries.iter().filter_map(|entry| Some((distance(entry)?, entry)));
        match best.min_by_key(|(distance, _)| *distance) {
            Some((_, entry)) => Some(entry),
            // A lone entry without a platform is an index around one image.
            None => match entries {
                [only] if only.platform.is_none() => Some(only),
                _ => None,
            },
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = PlatformError;
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(PlatformError(text.into())),
        };
        if parts.iter().any(|part| part.is_empty() || !part.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(PlatformError(text.into()));
        }
        let platform =
            Self { os: os.into(), architecture: architecture.into(), variant: variant.map(Into::into) };
        Ok(platform.normalised())
    }
}

/// The platforms of an index, for people.
pub(super) fn list(entries: &[Descriptor]) -> String {
    let mut names: Vec<String> =
        entries.iter().filter_map(|entry| Some(entry.platform.as_ref()?.to_string())).collect();
    names.retain(|name| name != "unknown/unknown");
    if names.is_empty() { "nothing that names a platform".into() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choosing() {
        let entries = |names: &[&str]| -> Vec<Descriptor> {
            let entry = |name: &&str| {
                let parts: Vec<&str> = name.split('/').collect();
                let variant = parts.get(2).map(|v| format!(r#","variant":"{v}""#)).unwrap_or_default();
                let platform = format!(r#"{{"os":"{}","architecture":"{}"{variant}}}"#, parts[0], parts[1]);
                let digest = crate::layer::Digest::of(name.as_bytes());
                let json =
                    format!(r#"{{"mediaType":"m","digest":"{digest}","size":1,"platform":{platform}}}"#);
                serde_json::from_str(&json).unwrap()
            };
            names.iter().map(entry).collect()
        };
        let all = entries(&[
            "unknown/unknown",
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/arm64/v8",
            "linux/amd64/v3",
            "linux/amd64",
            "windows/amd64",
        ]);
        for (wanted, want) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/x86_64", Some("linux/amd64")),
            ("linux/amd64/v3", Some("linux/amd64/v3")),
            ("linux/amd64/v2", None),
            ("linux/arm", Some("linux/arm/v7")),
            ("linux/arm/v6", Some("linux/arm/v6")),
            ("linux/arm64", Some("linux/arm64/v8")),
            ("linux/aarch64/v8", Some("linux/arm64/v8")),
            ("linux/s390x", None),
        ] {
            let got = wanted.parse::<Platform>().unwrap().choose(&all);
            assert_eq!(got.map(|d| d.platform.as_ref().unwrap().to_string()).as_deref(), want, "{wanted}");
        }
        assert_eq!(
            list(&all),
            "linux/arm/v6, linux/arm/v7, linux/arm64/v8, linux/amd64/v3, linux/amd64, windows/amd64"
        );
        for bad in ["", "linux", "linux/", "/amd64", "a/b/c/d"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
