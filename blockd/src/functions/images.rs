//! From what `Code.ImageUri` says to the image that a function runs from then on.

use async_trait::async_trait;
use image_format::ids::TenantId;
use image_format::names::ImageName;
use origin::catalog::{Catalog, CatalogError};
use origin::store::ErrorKind;

/// An image that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// `sha256:…`: what a function is pinned to.
    pub digest: String,
    /// Bytes of its file system.
    pub size_bytes: u64,
    /// `x86_64` or `arm64`, as Lambda calls them.
    pub architecture: &'static str,
}

/// Why an image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No image, or none that can be used: the caller's matter.
    #[error("{0}")]
    Refused(String),
    /// The store does not answer: the worker's matter.
    #[error("{0}")]
    Unavailable(String),
}

/// Whoever knows a tenant's images: the store, or a double in tests.
#[async_trait]
pub trait ImageResolver: Send + Sync {
    /// What `image` means for `tenant` now. Cancel-safe.
    ///
    /// # Errors
    /// [`ResolveError`].
    async fn resolve(&self, tenant: &str, image: &str) -> Result<ResolvedImage, ResolveError>;
}

/// The images of a store, for each tenant under its own key.
#[derive(Debug, Clone)]
pub struct StoreImages {
    catalog: Catalog,
}

impl StoreImages {
    /// The images of `catalog`'s store and root, each tenant's own.
    #[must_use]
    pub const fn new(catalog: Catalog) -> Self {
        Self { catalog }
    }
}

/// What `ImageUri` asks the store for: the digest of `repository@sha256:…`, else all of it.
fn wanted(image: &str) -> Result<&str, ResolveError> {
    let wanted = match image.split_once('@') {
        Some((_, digest)) if digest.starts_with("sha256:") => digest,
        _ => image,
    };
    let fits = wanted.starts_with("sha256:") || wanted.parse::<ImageName>().is_ok();
    fits.then_some(wanted).ok_or_else(|| ResolveError::Refused(advice(image, "is not the name of an image")))
}

fn advice(image: &str, what: &str) -> String {
    let shown: String = image.chars().take(256).collect();
    format!(
        "ImageUri {shown:?} {what}: it names an image in Lantern's store, as `flattener ls` shows it; push one \
         with `flattener push IMAGE --name NAME` first"
    )
}

fn architecture(config: &[u8]) -> &'static str {
    #[derive(serde::Deserialize)]
    struct Config {
        architecture: String,
    }
    match serde_json::from_slice::<Config>(config) {
        Ok(config) if config.architecture == "arm64" => "arm64",
        _ => "x86_64",
    }
}

#[async_trait]
impl ImageResolver for StoreImages {
    async fn resolve(&self, tenant: &str, image: &str) -> Result<ResolvedImage, ResolveError> {
        let wanted = wanted(image)?;
        let tenant: TenantId = tenant.parse().map_err(|_| {
            ResolveError::Refused(format!("{tenant:?} is not a tenant of this store; check the access keys"))
        })?;
        let catalog = self.catalog.for_tenant(tenant);
        let manifest = catalog.resolve(wanted).await.map_err(|error| match (&error, error.kind()) {
            (CatalogError::NoImage { .. }, _) => ResolveError::Refused(advice(image, "is not there")),
            (_, ErrorKind::Unavailable | ErrorKind::Exhausted | ErrorKind::Internal) => {
                ResolveError::Unavailable(format!("{:#}", anyhow::Error::from(error)))
            }
            _ => ResolveError::Refused(format!("{:#}", anyhow::Error::from(error))),
        })?;
        let head = manifest.head();
        Ok(ResolvedImage {
            digest: head.image.to_string(),
            size_bytes: head.device_len,
            architecture: architecture(manifest.config()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_uri_asks_for() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (image, want) in [
            ("app", "app"),
            ("registry.example/team/app:1", "registry.example/team/app:1"),
            (&format!("registry.example/app@{digest}"), digest.as_str()),
            (&digest, &digest),
        ] {
            assert_eq!(wanted(image).unwrap(), want);
        }
        for image in ["", "a b", "ä", &"x".repeat(201)] {
            let error = wanted(image).unwrap_err();
            assert!(error.to_string().contains("flattener push"), "{error}");
        }
    }

    #[test]
    fn architectures() {
        assert_eq!(architecture(br#"{"architecture":"arm64"}"#), "arm64");
        assert_eq!(architecture(b"{}"), "x86_64");
    }
}
