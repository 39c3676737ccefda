//! From a name to an opened manifest: the lookups that every reader of a store needs.
//!
//! Invariants: what is returned was authenticated under the tenant's key and is what was
//! asked for (tenant, root and image id of a manifest equal those in its object name);
//! every call states how many bytes it accepts.

use crate::store::{ErrorKind, Origin, OriginError};
use bytes::Bytes;
use image_format::envelope::{CustodyError, KeyCustodian, TenantKey};
use image_format::ids::{ImageDigest, ImageId, RootId, TenantId};
use image_format::manifest::{DecodeError, MAX_MANIFEST_BYTES, Manifest, SealedManifest};
use image_format::names::{ImageName, NameError, ObjectName};
use image_format::reference::{REFERENCE_LEN, Reference, ReferenceError};
use image_format::units::CHUNK_SIZE;
use std::sync::Arc;
use std::time::SystemTime;

/// Layout policies whose images can be asked for by digest, the newest first.
const LAYOUT_POLICIES: [u16; 1] = [1];

/// Why a lookup failed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The store did not answer or refused.
    #[error("the store could not be read")]
    Origin(#[from] OriginError),
    /// There is no key.
    #[error("the tenant's key could not be had")]
    Custody(#[from] CustodyError),
    /// Not a name.
    #[error("not an image")]
    Name(#[from] NameError),
    /// No image of that name.
    #[error(
        "no image {image:?} of tenant {tenant} under root {root} in {store}; `flattener ls` lists what is there"
    )]
    NoImage {
        /// What was asked for.
        image: String,
        /// Whose.
        tenant: TenantId,
        /// Where.
        root: RootId,
        /// In which store.
        store: String,
    },
    /// A reference that does not open.
    #[error("reference {name} is damaged or not this tenant's; push the image again to replace it")]
    Reference {
        /// Which object.
        name: ObjectName,
        /// Why.
        source: ReferenceError,
    },
    /// A manifest that does not decode or open.
    #[error("manifest {name} cannot be used")]
    Manifest {
        /// Which object.
        name: ObjectName,
        /// Why.
        source: DecodeError,
    },
    /// A manifest that is authentic but not the one asked for.
    #[error("object {name} holds the manifest of another image ({found}); the store was tampered with")]
    Substituted {
        /// Which object.
        name: ObjectName,
        /// What it holds.
        found: ImageDigest,
    },
}

impl CatalogError {
    /// What the failure means.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Origin(error) => error.kind(),
            Self::Custody(CustodyError::Denied { .. }) => ErrorKind::Denied,
            Self::Custody(CustodyError::Unavailable { .. }) => ErrorKind::Unavailable,
            Self::Name(_) => ErrorKind::Invalid,
            Self::NoImage { .. } => ErrorKind::NotFound,
            Self::Reference { .. } | Self::Manifest { .. } | Self::Substituted { .. } => ErrorKind::Corrupt,
        }
    }
}

/// An image in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedImage {
    /// Its name.
    pub name: ImageName,
    /// What the name means.
    pub reference: Reference,
    /// When the name last moved, as the store tells.
    pub modified: Option<SystemTime>,
}

/// One tenant's view of one root of a store.
#[derive(Clone)]
pub struct Catalog {
    origin: Arc<dyn Origin>,
    custodian: Arc<dyn KeyCustodian>,
    root: RootId,
    tenant: TenantId,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Catalog({} of {} in {:?})", self.tenant, self.root, self.origin)
    }
}

impl Catalog {
    /// The view of `tenant` on `root`.
    #[must_use]
    pub fn new(
        origin: Arc<dyn Origin>,
        custodian: Arc<dyn KeyCustodian>,
        root: RootId,
        tenant: TenantId,
    ) -> Self {
        Self { origin, custodian, root, tenant }
    }

    /// The same root as another tenant sees it.
    #[must_use]
    pub fn for_tenant(&self, tenant: TenantId) -> Self {
        Self { tenant, ..self.clone() }
    }

    /// The store.
    #[must_use]
    pub const fn origin(&self) -> &Arc<dyn Origin> {
        &self.origin
    }

    /// The root that is read.
    #[must_use]
    pub const fn root(&self) -> &RootId {
        &self.root
    }

    /// Whose images are read.
    #[must_use]
    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    async fn key(&self) -> Result<TenantKey, CatalogError> {
        let (custodian, tenant) = (Arc::clone(&self.custodian), self.tenant.clone());
        // custodians may block on files or the network
        tokio::task::spawn_blocking(move || custodian.tenant_key(&tenant))
            .await
            .expect("custodians return errors and do not panic")
            .map_err(CatalogError::from)
    }

    /// What a name means, or `None`. One request. Cancel-safe.
    ///
    /// # Errors
    /// [`CatalogError`] if the store or the key cannot be had, or the object is damaged.
    pub async fn reference(&self, image: &ImageName) -> Result<Option<Reference>, CatalogError> {
        let name = self.reference_name(image);
        let bytes = match self.origin.get(&name, REFERENCE_LEN).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Reference::open(&bytes, &self.key().await?, &name)
            .map(Some)
            .map_err(|source| CatalogError::Reference { name, source })
    }

    fn reference_name(&self, image: &ImageName) -> ObjectName {
        ObjectName::Reference { root: self.root.clone(), tenant: self.tenant.clone(), name: image.clone() }
    }

    /// Makes a name mean `reference` from now on. Not cancel-safe: the name may have moved.
    ///
    /// # Errors
    /// [`CatalogError`] if the store or the key cannot be had.
    pub async fn set_reference(&self, image: &ImageName, reference: &Reference) -> Result<(), CatalogError> {
        let name = self.reference_name(image);
        let bytes = reference.seal(&self.key().await?, &name);
        Ok(self.origin.put(&name, bytes.into()).await?)
    }

    /// The object name of an image's manifest.
    #[must_use]
    pub fn manifest_name(&self, image: ImageId) -> ObjectName {
        ObjectName::Manifest { root: self.root.clone(), tenant: self.tenant.clone(), image }
    }

    /// The manifest of an image. Cancel-safe.
    ///
    /// # Errors
    /// [`CatalogError`] if it is not there, not authentic, or not of this image.
    pub async fn manifest(&self, image: ImageId) -> Result<Manifest, CatalogError> {
        let name = self.manifest_name(image);
        let bytes = self.origin.get(&name, MAX_MANIFEST_BYTES).await?;
        let key = self.key().await?;
        self.open_manifest(name, bytes, &key, image)
    }

    fn open_manifest(
        &self,
        name: ObjectName,
        bytes: Bytes,
        key: &TenantKey,
        image: ImageId,
    ) -> Result<Manifest, CatalogError> {
        let opened = SealedManifest::decode(bytes).and_then(|sealed| sealed.open(key));
        let manifest = match opened {
            Ok(manifest) => manifest,
            Err(source) => return Err(CatalogError::Manifest { name, source }),
        };
        let head = manifest.head();
        if head.image_id() != image || head.tenant != self.tenant || head.root != self.root {
            return Err(CatalogError::Substituted { name, found: head.image });
        }
        Ok(manifest)
    }

    /// Stores a manifest: the commit point of a push. The caller has stored its chunks.
    ///
    /// # Errors
    /// [`CatalogError`] if the store or the key cannot be had.
    pub async fn store_manifest(&self, manifest: &Manifest) -> Result<(), CatalogError> {
        let bytes = manifest.seal(&self.key().await?);
        let name = self.manifest_name(manifest.head().image_id());
        self.origin.put_if_absent(&name, bytes.into()).await?;
        Ok(())
    }

    /// The manifest that a name or a digest (`sha256:…`) means. Cancel-safe.
    ///
    /// # Errors
    /// [`CatalogError::NoImage`] if there is none; else as [`Self::manifest`].
    pub async fn resolve(&self, image: &str) -> Result<Manifest, CatalogError> {
        let missing = || CatalogError::NoImage {
            image: image.into(),
            tenant: self.tenant.clone(),
            root: self.root.clone(),
            store: self.origin.describe(),
        };
        if let Ok(digest) = image.parse::<ImageDigest>() {
            for policy in LAYOUT_POLICIES {
                match self.manifest(ImageId::of(&digest, policy, CHUNK_SIZE)).await {
                    Err(CatalogError::Origin(error)) if error.is_not_found() => {}
                    other => return other,
                }
            }
            return Err(missing());
        }
        let name: ImageName = image.parse()?;
        let reference = self.reference(&name).await?.ok_or_else(missing)?;
        self.manifest(reference.image).await
    }

    /// All images of the tenant, by name. References that do not open are returned as
    /// errors beside the others, so that one damaged object does not hide the rest.
    ///
    /// # Errors
    /// [`CatalogError`] if the store cannot be listed.
    pub async fn images(&self) -> Result<Vec<Result<NamedImage, CatalogError>>, CatalogError> {
        let prefix = ObjectName::references_prefix(&self.root, &self.tenant);
        let mut images = Vec::new();
        let mut token = None;
        loop {
            let page = self.origin.list(&prefix, token.as_ref()).await?;
            for listed in page.objects {
                let ObjectName::Reference { name, .. } = listed.name else { continue };
                let found = self.reference(&name).await.transpose();
                images.extend(found.map(|reference| {
                    reference.map(|reference| NamedImage { name, reference, modified: listed.info.modified })
                }));
            }
            token = page.next;
            if token.is_none() {
                return Ok(images);
            }
        }
    }
}
