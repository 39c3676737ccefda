//! The tar reader: headers and bodies in, entries and spooled contents out.
//!
//! Invariants: a body is either spooled or skipped, never kept in memory; extension bodies
//! are at most [`EXTENSION_MAX`]; whatever the archive says about sizes is compared with
//! limits before it is believed. Where archives are ambiguous the reading is that of the
//! Go library behind the common container engines (`docs/image-input.md`).

use super::archive::{Archive, Block};
use super::entry::{EntryKind, FileContent, Layer, LayerEntry, LayerPath, Metadata, Timestamp};
use super::error::{Fault, Located};
use super::header::{self, Decoded, Header};
use super::limits::Budget;
use super::pax::{self, Extended};
use super::sparse::SparseMap;
use super::spool::{ContentWriter, SpoolWriter, to_u64};
use super::whiteout::{self, Place};
use std::collections::HashMap;

/// Longest body of a PAX header, a long name or a long link, in bytes: the Go library's.
const EXTENSION_MAX: u64 = 1 << 20;

/// Longest symlink target in bytes: Linux makes none longer.
const SYMLINK_MAX: usize = 4095;

/// What extension headers have said about the entry to come.
#[derive(Debug, Default)]
struct Pending {
    extended: Extended,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// An entry's header with its extensions applied.
#[derive(Debug)]
struct Item {
    name: Vec<u8>,
    link: Vec<u8>,
    typeflag: u8,
    /// Bytes that follow the header in the archive.
    stored: u64,
    uid: i64,
    gid: i64,
    mode: i64,
    mtime: Timestamp,
    major: i64,
    minor: i64,
    extended: Extended,
}

impl Item {
    fn new(header: Header, pending: Pending) -> Self {
        let Pending { mut extended, long_name, long_link } = pending;
        let sparse_name = extended.sparse.name.take();
        let name = long_name.or(sparse_name).or(extended.path.take()).unwrap_or(header.name);
        let link = long_link.or(extended.link.take()).unwrap_or(header.link);
        let typeflag = match header.typeflag {
            // Before ustar, a trailing slash made a directory.
            0 if name.ends_with(b"/") => b'5',
            0 | b'7' => b'0',
            other => other,
        };
        let mtime = extended.mtime.unwrap_or(Timestamp { seconds: header.mtime, nanoseconds: 0 });
        Self {
            name,
            link,
            typeflag,
            stored: extended.size.unwrap_or(header.size),
            uid: extended.uid.unwrap_or(header.uid),
            gid: extended.gid.unwrap_or(header.gid),
            mode: header.mode,
            mtime,
            major: extended.major.unwrap_or(header.major),
            minor: extended.minor.unwrap_or(header.minor),
            extended,
        }
    }

    /// Bytes of this entry that stay in memory until the image is laid out.
    fn held_bytes(&self) -> u64 {
        to_u64(self.name.len() + self.link.len() + self.extended.xattrs.bytes())
    }

    fn metadata(&mut self) -> Result<Metadata, Fault> {
        Ok(Metadata {
            mode: u16::try_from(self.mode & 0o7777).expect("twelve bits"),
            uid: u32::try_from(self.uid).map_err(|_| Fault::Range("the uid"))?,
            gid: u32::try_from(self.gid).map_err(|_| Fault::Range("the gid"))?,
            mtime: self.mtime,
            xattrs: std::mem::take(&mut self.extended.xattrs).into_sorted(),
        })
    }

    fn device(&self) -> Result<(u32, u32), Fault> {
        let major = u32::try_from(self.major).map_err(|_| Fault::Range("the major number"))?;
        let minor = u32::try_from(self.minor).map_err(|_| Fault::Range("the minor number"))?;
        Ok((major, minor))
    }
}

/// Reads one archive.
#[derive(Debug)]
pub(super) struct Reader<'r, 'a> {
    archive: &'r mut Archive<'a>,
    spool: &'r mut SpoolWriter<'a>,
    budget: &'a Budget,
    entries: Vec<LayerEntry>,
    pseudo_links: HashMap<Vec<u8>, (FileContent, Metadata)>,
    /// The name of the entry in hand, for errors.
    current: Option<Vec<u8>>,
}

impl<'r, 'a> Reader<'r, 'a> {
    pub(super) fn new(
        archive: &'r mut Archive<'a>,
        spool: &'r mut SpoolWriter<'a>,
        budget: &'a Budget,
    ) -> Self {
        let pseudo_links = HashMap::new();
        Self { archive, spool, budget, entries: Vec::new(), pseudo_links, current: None }
    }

    /// Reads up to the archive's end marker, or to its end where there is none. An error
    /// comes with the name of its entry.
    pub(super) fn read(mut self) -> Located<Layer> {
        match self.read_entries() {
            Ok(()) => Ok(Layer { entries: self.entries }),
            Err(fault) => Err((self.current, fault)),
        }
    }

    fn read_entries(&mut self) -> Result<(), Fault> {
        let mut pending = Pending::default();
        loop {
            let offset = self.archive.offset();
            let Some(block) = self.archive.block("a header")? else { return Ok(()) };
            let header = match header::decode(&block, offset)? {
                Decoded::Header(header) => header,
                Decoded::Zero => return self.end_marker(offset),
            };
            match header.typeflag {
                b'x' => pending.extended = pax::parse(&self.extension(header.size)?)?,
                b'g' => pax::check_global(&self.extension(header.size)?)?,
                b'L' => pending.long_name = Some(header::text(&self.extension(header.size)?).to_vec()),
                b'K' => pending.long_link = Some(header::text(&self.extension(header.size)?).to_vec()),
                _ => {
                    let item = Item::new(header, std::mem::take(&mut pending));
                    self.current = Some(item.name.clone());
                    self.budget.entry(item.held_bytes())?;
                    self.entry(item, &block)?;
                    self.current = None;
                }
            }
        }
    }

    /// A zero block has been read: a second one, or the end of the data, must follow.
    fn end_marker(&mut self, offset: u64) -> Result<(), Fault> {
        match self.archive.block("the end marker")? {
            Some(block) if block.iter().any(|&b| b != 0) => {
                Err(Fault::Header { offset, reason: "a zero block is followed by more than zeros" })
            }
            _ => Ok(()),
        }
    }

    /// The body of an extension header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        if size > EXTENSION_MAX {
            return Err(Fault::Extension("it is longer than 1 MiB"));
        }
        let mut body = Vec::new();
        self.archive.run(size, "an extended header", |bytes| {
            body.extend_from_slice(bytes);
            Ok(())
        })?;
        self.archive.skip_padding()?;
        Ok(body)
    }

    fn entry(&mut self, mut item: Item, block: &Block) -> Result<(), Fault> {
        let path = LayerPath::parse(&item.name).map_err(Fault::Path)?;
        match Place::of(&path)? {
            Place::Object => {
                let (kind, metadata) = self.object(&mut item, block, &path)?;
                self.entries.push(LayerEntry { path, kind, metadata });
            }
            Place::PseudoLink(name) if matches!(item.typeflag, b'0' | b'S') => {
                let content = self.content(&mut item, block)?;
                self.pseudo_links.insert(name, (content, item.metadata()?));
            }
            Place::PseudoLink(_) | Place::Bookkeeping => self.skip_body(&item, block)?,
            Place::Whiteout(path) => {
                self.skip_body(&item, block)?;
                self.entries.push(LayerEntry {
                    path,
                    kind: EntryKind::Whiteout,
                    metadata: Metadata::default(),
                });
            }
            Place::Opaque(path) => {
                self.skip_body(&item, block)?;
                let (kind, metadata) = (EntryKind::OpaqueWhiteout, Metadata::default());
                self.entries.push(LayerEntry { path, kind, metadata });
            }
        }
        Ok(())
    }

    fn object(
        &mut self,
        item: &mut Item,
        block: &Block,
        path: &LayerPath,
    ) -> Result<(EntryKind, Metadata), Fault> {
        if path.as_bytes().is_empty() && item.typeflag != b'5' {
            return Err(Fault::Root);
        }
        let metadata = item.metadata()?;
        let kind = match item.typeflag {
            b'0' | b'S' => return Ok((EntryKind::File(self.content(item, block)?), metadata)),
            b'1' => {
                let target = LayerPath::parse(&item.link).map_err(Fault::LinkTarget)?;
                match whiteout::pseudo_link(&target).map(|name| self.pseudo_links.get(name)) {
                    Some(Some((content, metadata))) => {
                        let file = (EntryKind::File(content.clone()), metadata.clone());
                        self.skip_body(item, block)?;
                        return Ok(file);
                    }
                    Some(None) => return Err(Fault::PseudoLink),
                    None => EntryKind::Hardlink(target),
                }
            }
            b'2' if item.link.is_empty() || item.link.len() > SYMLINK_MAX => return Err(Fault::Symlink),
            b'2' => EntryKind::Symlink(std::mem::take(&mut item.link)),
            b'3' => item.device().map(|(major, minor)| EntryKind::CharDevice { major, minor })?,
            b'4' => item.device().map(|(major, minor)| EntryKind::BlockDevice { major, minor })?,
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Fifo,
            other => return Err(Fault::EntryType(char::from(other))),
        };
        self.skip_body(item, block)?;
        Ok((kind, metadata))
    }

    /// The sparse map of an entry, if it has one; reads what of it stands before the data.
    fn sparse_map(&mut self, item: &mut Item, block: &Block) -> Result<Option<SparseMap>, Fault> {
        if item.typeflag == b'S' {
            return SparseMap::old_gnu(block, item.stored, self.archive).map(Some);
        }
        SparseMap::pax(&item.extended.sparse, &mut item.stored, self.archive)
    }

    /// Spools the body of a regular file.
    fn content(&mut self, item: &mut Item, block: &Block) -> Result<FileContent, Fault> {
        const WHAT: &str = "file contents";
        let map = self.sparse_map(item, block)?;
        self.budget.file(map.as_ref().map_or(item.stored, |map| map.size))?;
        let mut writer = ContentWriter::new(self.spool);
        if let Some(map) = map {
            let mut at = 0;
            for (offset, length) in map.runs {
                writer.hole(offset - at)?;
                self.archive.run(length, WHAT, |bytes| writer.data(bytes))?;
                at = offset + length;
            }
            writer.hole(map.size - at)?;
        } else {
            self.archive.run(item.stored, WHAT, |bytes| writer.data(bytes))?;
        }
        let content = writer.finish()?;
        self.archive.skip_padding()?;
        Ok(content)
    }

    /// Skips what follows an entry whose body has no meaning. Entries other than files have
    /// none, even when they give a size: some writers put the linked file's size into a
    /// hard link without its bytes. But POSIX lets the bytes follow, so the next block
    /// decides: if it cannot be a header, it is data.
    fn skip_body(&mut self, item: &Item, block: &Block) -> Result<(), Fault> {
        const WHAT: &str = "an entry's data";
        if item.typeflag == b'S' {
            SparseMap::old_gnu(block, item.stored, self.archive)?;
        } else if item.typeflag != b'0' && item.stored > 0 {
            let Some(next) = self.archive.block(WHAT)? else { return Ok(()) };
            self.archive.push_back(next);
            if header::plausible(&next) {
                return Ok(());
            }
        }
        self.archive.run(item.stored, WHAT, |_| Ok(()))?;
        self.archive.skip_padding()
    }
}
