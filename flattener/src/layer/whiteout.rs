//! What a name in a layer stands for: a file, a removal, or AUFS bookkeeping.
//!
//! The rules are those of the OCI image specification; names that it does not foresee are
//! refused or skipped, as `docs/image-input.md` says, and never reach outside their directory.

use super::entry::LayerPath;
use super::error::Fault;

const PREFIX: &[u8] = b".wh.";
const META_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const PSEUDO_LINKS: &[u8] = b".wh..wh.plnk";

/// What an entry's path stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// An object at this path.
    Object,
    /// The object at this path is removed from the layers below.
    Whiteout(LayerPath),
    /// The directory at this path loses what the layers below put into it.
    Opaque(LayerPath),
    /// AUFS bookkeeping, no part of the image.
    Bookkeeping,
    /// A file that AUFS keeps for hard links under this name, no part of the image itself.
    PseudoLink(Vec<u8>),
}

impl Place {
    /// What `path`, already normalised, stands for.
    pub(super) fn of(path: &LayerPath) -> Result<Self, Fault> {
        if let Some(name) = pseudo_link(path) {
            return Ok(Self::PseudoLink(name.to_vec()));
        }
        let Some((parent, name)) = path.split_last() else { return Ok(Self::Object) };
        if name == OPAQUE {
            return Ok(Self::Opaque(parent));
        }
        let top = path.components().next().unwrap_or_default();
        if name.starts_with(META_PREFIX) || top.starts_with(META_PREFIX) {
            return Ok(Self::Bookkeeping);
        }
        let Some(removed) = name.strip_prefix(PREFIX) else { return Ok(Self::Object) };
        if matches!(removed, b"" | b"." | b"..") {
            return Err(Fault::Whiteout);
        }
        let joined = [parent.as_bytes(), b"/", removed].concat();
        LayerPath::parse(&joined).map(Self::Whiteout).map_err(Fault::Path)
    }
}

/// The name of the AUFS pseudo link at `path`, if it is one.
pub(super) fn pseudo_link(path: &LayerPath) -> Option<&[u8]> {
    let mut components = path.components();
    match (components.next(), components.next(), components.next()) {
        (Some(PSEUDO_LINKS), Some(name), None) => Some(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let path = |text: &str| LayerPath::parse(text.as_bytes()).unwrap();
        for (text, want) in [
            ("", Some(Place::Object)),
            ("etc/passwd", Some(Place::Object)),
            ("etc/wh.x", Some(Place::Object)),
            (".wh.x/y", Some(Place::Object)),
            ("etc/.wh.passwd", Some(Place::Whiteout(path("etc/passwd")))),
            (".wh.etc", Some(Place::Whiteout(path("etc")))),
            (".wh..x", Some(Place::Whiteout(path(".x")))),
            (".wh....", Some(Place::Whiteout(path("...")))),
            ("etc/.wh..wh..opq", Some(Place::Opaque(path("etc")))),
            (".wh..wh..opq", Some(Place::Opaque(path("")))),
            (".wh..wh.aufs", Some(Place::Bookkeeping)),
            ("etc/.wh..wh.foo", Some(Place::Bookkeeping)),
            (".wh..wh.orph/x/y", Some(Place::Bookkeeping)),
            (".wh..wh.plnk", Some(Place::Bookkeeping)),
            (".wh..wh.plnk/1.2", Some(Place::PseudoLink(b"1.2".to_vec()))),
            ("etc/.wh.", None),
            ("etc/.wh..", None),
            ("etc/.wh...", None),
            (".wh...", None),
        ] {
            assert_eq!(Place::of(&path(text)).ok(), want, "{text}");
        }
    }
}
