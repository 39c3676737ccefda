//! The table of contents of an uncompressed tar file on disk: where each file's bytes are.
//!
//! Used for image archives (`oci-archive:`, `docker-archive:`), whose members are then read
//! in place. Reads headers only; memory is bounded by the number of members and of the bytes
//! of their names.

use super::archive::BLOCK_BYTES;
use super::error::Fault;
use super::header::{self, Decoded, Header};
use super::pax;
use super::spool::to_u64;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Most members of an image archive: a few per layer.
const MEMBERS_MAX: usize = 100_000;
/// Most bytes of all names and link targets; an ordinary archive has some thousands.
const NAMES_MAX: usize = 16 << 20;
/// Longest extension body.
const EXTENSION_MAX: u64 = 1 << 20;

/// One regular file or link of an image archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Name as spelled.
    pub(crate) name: Vec<u8>,
    /// Target of a symbolic or hard link.
    pub(crate) link: Option<Vec<u8>>,
    /// Where the bytes begin.
    pub(crate) offset: u64,
    /// How many there are.
    pub(crate) size: u64,
}

/// Lists the regular files and links of `archive`.
pub(crate) fn members(archive: &File) -> Result<Vec<Member>, Fault> {
    let length = archive.metadata().map_err(|source| Fault::Read { offset: 0, source })?.len();
    let (mut found, mut name_bytes) = (Vec::new(), 0);
    let (mut long_name, mut long_link, mut extended) = (None, None, pax::Extended::default());
    let mut offset = 0;
    while offset + to_u64(BLOCK_BYTES) <= length {
        let mut block = [0; BLOCK_BYTES];
        archive.read_exact_at(&mut block, offset).map_err(|source| Fault::Read { offset, source })?;
        let Decoded::Header(header) = header::decode(&block, offset)? else { break };
        offset += to_u64(BLOCK_BYTES);
        let size = extended.size.unwrap_or(header.size);
        let end = offset.checked_add(size).filter(|&end| end <= length);
        let end = end.ok_or(Fault::Truncated { what: "a member", offset: length })?;
        match header.typeflag {
            b'x' => extended = pax::parse(&body(archive, offset, &header)?)?,
            b'L' => long_name = Some(header::text(&body(archive, offset, &header)?).to_vec()),
            b'K' => long_link = Some(header::text(&body(archive, offset, &header)?).to_vec()),
            typeflag => {
                let extended = std::mem::take(&mut extended);
                let name = long_name.take().or(extended.path).unwrap_or(header.name);
                let link = long_link.take().or(extended.link).unwrap_or(header.link);
                let link = matches!(typeflag, b'1' | b'2').then_some(link);
                if link.is_some() || matches!(typeflag, 0 | b'0' | b'7') {
                    name_bytes += name.len() + link.as_ref().map_or(0, Vec::len);
                    found.push(Member { name, link, offset, size });
                }
            }
        }
        if found.len() > MEMBERS_MAX {
            return Err(Fault::Limit { what: "members", limit: to_u64(MEMBERS_MAX), setting: "(fixed)" });
        }
        if name_bytes > NAMES_MAX {
            let what = "bytes of members' names";
            return Err(Fault::Limit { what, limit: to_u64(NAMES_MAX), setting: "(fixed)" });
        }
        offset = end.next_multiple_of(to_u64(BLOCK_BYTES));
    }
    Ok(found)
}

fn body(archive: &File, offset: u64, header: &Header) -> Result<Vec<u8>, Fault> {
    let length = usize::try_from(header.size).ok().filter(|_| header.size <= EXTENSION_MAX);
    let mut bytes = vec![0; length.ok_or(Fault::Extension("it is longer than 1 MiB"))?];
    archive.read_exact_at(&mut bytes, offset).map_err(|source| Fault::Read { offset, source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fill_memory_are_refused() {
        let name = vec!["n".repeat(200); 5000].join("/");
        let mut archive = tar::Builder::new(tempfile::tempfile().unwrap());
        for _ in 0..20 {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            archive.append_data(&mut header, &name, std::io::empty()).unwrap();
        }
        let error = members(&archive.into_inner().unwrap()).unwrap_err();
        assert!(matches!(error, Fault::Limit { .. }), "{error}");
    }
}
