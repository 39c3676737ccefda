//! From a name to one image: opening, choosing the platform, verifying, joining.

use super::docker_archive::DockerArchive;
use super::download::Download;
use super::error::{SourceError, SourceFault};
use super::files::Files;
use super::layout::Layout;
use super::manifest::{self, Config, Descriptor, Document};
use super::platform::{self, Platform};
use super::reference::{ImageRef, RegistryRef};
use super::registry::{Object, Registry};
use crate::layer::{Digest, LayerDescriptor, Limits};
use std::collections::HashMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

/// Indexes inside indexes that are followed.
const DEPTH_MAX: u32 = 4;

/// How sources are opened.
#[derive(Debug, Clone)]
pub struct SourceOptions {
    /// The platform to take from an index; the host's when not given. When given, an image
    /// that says it is for another one is refused.
    pub platform: Option<Platform>,
    /// Where compressed image archives are decompressed to, into unlinked files.
    pub work_dir: PathBuf,
    /// Longest decompressed image archive in bytes.
    pub archive_bytes: u64,
    /// The only file to look for registry credentials in; the usual places when not given.
    pub auth_file: Option<PathBuf>,
    /// Hosts (with port, as in the image's name) that are spoken to by plain HTTP.
    pub plain_http: Vec<String>,
    /// Files of PEM certificates to trust besides the system's.
    pub ca_certs: Vec<PathBuf>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the next bytes of an answer. Registries that fetch a blob from
    /// elsewhere first can be slow to begin.
    pub read_timeout: Duration,
    /// How often a request is repeated after trouble that may pass (no connection, a broken
    /// one, 429, 5xx), with doubling waits from 250 ms up to 30 s.
    pub retries: u32,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            platform: None,
            work_dir: std::env::temp_dir(),
            archive_bytes: Limits::default().spool_bytes,
            auth_file: None,
            plain_http: Vec::new(),
            ca_certs: Vec::new(),
            connect_timeout: Duration::from_secs(15),
            read_timeout: Duration::from_secs(60),
            retries: 5,
        }
    }
}

/// One image for one platform.
#[derive(Debug, Clone)]
pub struct Image {
    /// SHA-256 of [`Self::manifest`].
    pub manifest_digest: Digest,
    /// The platform's manifest as stored; for `docker-archive:` the canonical one made from
    /// config and diff ids (`docs/image-input.md`).
    pub manifest: Vec<u8>,
    /// The image config as stored (JSON).
    pub config: Vec<u8>,
    /// The layers from the bottom.
    pub layers: Vec<LayerDescriptor>,
    /// The platform the config names (`linux/amd64`), empty when it names none.
    pub platform: String,
    /// The name it was asked for by, in canonical form.
    pub reference: String,
}

/// An opened source of one image. Shared freely; its methods may be called in parallel.
#[derive(Debug)]
pub struct ImageSource {
    reference: ImageRef,
    platform: Option<Platform>,
    backend: Backend,
    /// The manifest that the name meant when it was first asked for: a tag that moves later
    /// does not mix two images.
    located: OnceCell<Digest>,
    /// Verified documents, so that [`ImageSource::resolve`] after [`ImageSource::digest`]
    /// asks nothing twice. A handful: the chain from the name to the image.
    documents: Mutex<HashMap<Digest, Vec<u8>>>,
    /// Member names of a Docker archive's layers, once resolved.
    members: Mutex<HashMap<Digest, String>>,
}

#[derive(Debug)]
enum Backend {
    Layout(Layout),
    DockerArchive(DockerArchive),
    Registry(RegistryRef, Registry, Handle),
}

/// What leads to a document: its digest, and what is known of it besides.
#[derive(Debug, Clone)]
struct Pointer {
    digest: Digest,
    size: Option<u64>,
    /// Empty when not known.
    media_type: String,
}

impl Pointer {
    fn new(descriptor: &Descriptor, what: &str) -> Result<Self, SourceFault> {
        let media_type = descriptor.media_type.clone();
        Ok(Self { digest: descriptor.digest(what)?, size: Some(descriptor.size), media_type })
    }
}

/// Registries keep manifests and indexes apart from blobs.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Manifest,
    Config,
}

/// Opens the source of an image. Archives are scanned, compressed ones decompressed; for a
/// registry, credentials are read (which may run a helper program) but nothing is sent.
///
/// # Errors
/// [`SourceError`]; its kind is `NotFound` when a local file does not exist.
///
/// # Panics
/// Outside a tokio runtime.
///
/// Cancel safe: a scan that has begun ends in the background and leaves nothing.
pub async fn open(reference: &ImageRef, options: &SourceOptions) -> Result<ImageSource, SourceError> {
    let backend =
        open_backend(reference, options).await.map_err(|fault| SourceError::new(reference, fault))?;
    Ok(ImageSource {
        reference: reference.clone(),
        platform: options.platform.clone(),
        backend,
        located: OnceCell::new(),
        documents: Mutex::default(),
        members: Mutex::default(),
    })
}

async fn open_backend(reference: &ImageRef, options: &SourceOptions) -> Result<Backend, SourceFault> {
    let archive = |file: &PathBuf| {
        let (file, work_dir, limit) = (file.clone(), options.work_dir.clone(), options.archive_bytes);
        blocking(move || Files::archive(&file, &work_dir, limit))
    };
    Ok(match reference {
        ImageRef::Registry(name) => {
            let registry = Registry::open(name, options).await?;
            Backend::Registry(name.clone(), registry, Handle::current())
        }
        ImageRef::Layout { directory, tag } => {
            Backend::Layout(Layout { files: Files::directory(directory), tag: tag.clone() })
        }
        ImageRef::LayoutArchive { file, tag } => {
            Backend::Layout(Layout { files: archive(file).await?, tag: tag.clone() })
        }
        ImageRef::DockerArchive { file, image } => {
            let files = archive(file).await?;
            // Some tools call any archive a Docker archive; without manifest.json it is
            // read for what it is.
            if !files.has("manifest.json") && files.has("index.json") {
                Backend::Layout(Layout { files, tag: image.clone() })
            } else {
                Backend::DockerArchive(DockerArchive { files, image: image.clone() })
            }
        }
    })
}

/// Runs file reading off the reactor.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceFault> + Send + 'static,
) -> Result<T, SourceFault> {
    tokio::task::spawn_blocking(work).await.map_err(|_| SourceFault::Internal)?
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The maps are valid after any panic: each holds whole entries.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Compares a document with the descriptor that named it.
fn verify(what: &str, bytes: &[u8], digest: &Digest, size: Option<u64>) -> Result<(), SourceFault> {
    let got = Digest::of(bytes);
    let got_size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if got == *digest && size.is_none_or(|size| size == got_size) {
        return Ok(());
    }
    let want = match size {
        Some(size) => format!("{digest} and {size} bytes"),
        None => digest.to_string(),
    };
    Err(SourceFault::Mismatch { what: what.into(), want, got, got_size })
}

impl ImageSource {
    /// The digest of the manifest that [`Self::resolve`] would give, for little: against a
    /// registry one request (two when the name is an index inside an index).
    ///
    /// # Errors
    /// As [`Self::resolve`]. Cancel safe.
    pub async fn digest(&self) -> Result<Digest, SourceError> {
        let digest = match &self.backend {
            Backend::DockerArchive(_) => return Ok(self.resolve().await?.manifest_digest),
            _ => self.located().await,
        };
        digest.map_err(|fault| self.error(fault))
    }

    /// Finds the image: follows indexes to the platform's manifest, reads its config.
    ///
    /// # Errors
    /// `NotFound` for a name or platform that does not exist, `Corrupt` for documents that
    /// do not match their digests, `Invalid` for what is no image, `Denied` and
    /// `Unavailable` from registries. Cancel safe.
    pub async fn resolve(&self) -> Result<Image, SourceError> {
        let image = match &self.backend {
            Backend::DockerArchive(archive) => self.resolve_docker_archive(archive.clone()).await,
            _ => self.resolve_manifest().await,
        };
        image.map_err(|fault| self.error(fault))
    }

    /// A reader of a layer's blob as stored, from its first byte. What it yields is not
    /// verified. It blocks, so it must be read on a thread that is not the reactor's (it
    /// panics there); the runtime that [`open`] ran on must keep running.
    ///
    /// # Errors
    /// When the blob cannot be opened. Later trouble comes out of the reader.
    pub fn blob(&self, layer: &LayerDescriptor) -> Result<Box<dyn Read + Send>, SourceError> {
        let range = match &self.backend {
            Backend::Registry(_, registry, runtime) => {
                return Ok(Box::new(Download::start(runtime, registry, layer.digest, layer.size)));
            }
            Backend::Layout(layout) => layout.blob(&layer.digest),
            Backend::DockerArchive(archive) => {
                let name = lock(&self.members).get(&layer.digest).cloned();
                let missing = || SourceFault::Missing {
                    container: archive.files.container(),
                    name: layer.digest.to_string(),
                };
                name.ok_or_else(missing).and_then(|name| archive.files.open(&name))
            }
        };
        Ok(Box::new(range.map_err(|fault| self.error(fault))?))
    }

    fn error(&self, fault: SourceFault) -> SourceError {
        SourceError::new(&self.reference, fault)
    }

    async fn located(&self) -> Result<Digest, SourceFault> {
        self.located.get_or_try_init(|| self.locate()).await.copied()
    }

    /// Follows indexes from the name down to the digest of a manifest.
    async fn locate(&self) -> Result<Digest, SourceFault> {
        let mut pointer = self.root().await?;
        let wanted = self.platform.clone().unwrap_or_else(Platform::host);
        for _ in 0..=DEPTH_MAX {
            // Without a media type, only the document itself tells what it is.
            if !pointer.media_type.is_empty() && !manifest::is_index(&pointer.media_type) {
                return Ok(pointer.digest);
            }
            let what = format!("the document {}", pointer.digest);
            let bytes = self.document(Kind::Manifest, &pointer, &what).await?;
            match manifest::parse(&bytes, &what)? {
                Document::Manifest(_) => return Ok(pointer.digest),
                Document::Index(entries) => {
                    let no_platform = || SourceFault::NoPlatform {
                        wanted: wanted.to_string(),
                        held: platform::list(&entries),
                    };
                    pointer = Pointer::new(wanted.choose(&entries).ok_or_else(no_platform)?, &what)?;
                }
            }
        }
        Err(SourceFault::TooDeep(DEPTH_MAX))
    }

    /// What the name itself points to.
    async fn root(&self) -> Result<Pointer, SourceFault> {
        match &self.backend {
            Backend::Layout(layout) => {
                let layout = layout.clone();
                Pointer::new(&blocking(move || layout.root()).await?, "index.json")
            }
            Backend::DockerArchive(_) => Err(SourceFault::Internal),
            Backend::Registry(name, registry, _) => {
                let digest = match (&name.digest, &name.tag) {
                    (Some(digest), _) => *digest,
                    (None, tag) => {
                        let tag = tag.as_deref().unwrap_or("latest");
                        let bytes = registry.document(Object::Manifest(tag)).await?;
                        let digest = Digest::of(&bytes);
                        lock(&self.documents).insert(digest, bytes);
                        digest
                    }
                };
                Ok(Pointer { digest, size: None, media_type: String::new() })
            }
        }
    }

    /// A verified document.
    async fn document(&self, kind: Kind, pointer: &Pointer, what: &str) -> Result<Vec<u8>, SourceFault> {
        let Pointer { digest, size, .. } = *pointer;
        if let Some(bytes) = lock(&self.documents).get(&digest) {
            return Ok(bytes.clone());
        }
        let bytes = match &self.backend {
            Backend::Layout(layout) => {
                let layout = layout.clone();
                blocking(move || layout.document(&digest)).await?
            }
            Backend::Registry(_, registry, _) => match kind {
                Kind::Manifest => registry.document(Object::Manifest(&digest.to_string())).await?,
                Kind::Config => registry.document(Object::Blob(&digest, 0)).await?,
            },
            Backend::DockerArchive(_) => return Err(SourceFault::Internal),
        };
        verify(what, &bytes, &digest, size)?;
        lock(&self.documents).insert(digest, bytes.clone());
        Ok(bytes)
    }

    async fn resolve_manifest(&self) -> Result<Image, SourceFault> {
        let digest = self.located().await?;
        let what = "the image manifest";
        let pointer = Pointer { digest, size: None, media_type: String::new() };
        let manifest_bytes = self.document(Kind::Manifest, &pointer, what).await?;
        let Document::Manifest(manifest) = manifest::parse(&manifest_bytes, what)? else {
            return Err(SourceFault::Unsupported("an image index poses as a manifest".into()));
        };
        let pointer = Pointer::new(&manifest.config, what)?;
        let config = self.document(Kind::Config, &pointer, "the image config").await?;
        let parsed = Config::parse(&config)?;
        let layers = manifest.layers(&parsed.diff_ids()?)?;
        self.image(digest, manifest_bytes, config, &parsed, layers)
    }

    async fn resolve_docker_archive(&self, archive: DockerArchive) -> Result<Image, SourceFault> {
        let resolved = blocking(move || archive.resolve()).await?;
        lock(&self.members).extend(resolved.members);
        let digest = Digest::of(&resolved.manifest);
        let parsed = Config::parse(&resolved.config)?;
        self.image(digest, resolved.manifest, resolved.config, &parsed, resolved.layers)
    }

    fn image(
        &self,
        manifest_digest: Digest,
        manifest: Vec<u8>,
        config: Vec<u8>,
        parsed: &Config,
        layers: Vec<LayerDescriptor>,
    ) -> Result<Image, SourceFault> {
        let platform = parsed.platform();
        if let (Some(wanted), Some(held)) = (&self.platform, &platform)
            && !wanted.accepts(held)
        {
            return Err(SourceFault::NoPlatform { wanted: wanted.to_string(), held: held.to_string() });
        }
        let platform = platform.map(|platform| platform.to_string()).unwrap_or_default();
        let reference = self.reference.to_string();
        Ok(Image { manifest_digest, manifest, config, layers, platform, reference })
    }
}
