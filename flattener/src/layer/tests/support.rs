//! Archives made byte by byte, and what reading them gave.

use crate::layer::entry::*;
use crate::layer::*;
use std::io::Write;

/// A tar header in the making; fields as GNU tar writes them.
#[derive(Clone)]
pub(super) struct Head {
    pub(super) block: [u8; 512],
}

impl Head {
    pub(super) fn new(name: &[u8], typeflag: u8, size: u64) -> Self {
        let mut head = Self { block: [0; 512] };
        head.put(0, &name[..name.len().min(100)]);
        head.octal(100, 8, 0o644).octal(108, 8, 1000).octal(116, 8, 1001);
        head.octal(124, 12, size).octal(136, 12, 1_600_000_000);
        head.block[156] = typeflag;
        head.put(257, b"ustar\0" as &[u8]).put(263, b"00");
        head
    }

    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(super) fn octal(&mut self, at: usize, length: usize, value: u64) -> &mut Self {
        let text = format!("{value:0>width$o}\0", width = length - 1);
        self.put(at, text.as_bytes())
    }

    pub(super) fn link(&mut self, target: &[u8]) -> &mut Self {
        self.put(157, target)
    }

    pub(super) fn gnu(&mut self) -> &mut Self {
        self.put(257, b"ustar  \0")
    }

    pub(super) fn bytes(&self) -> [u8; 512] {
        let mut block = self.block;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

/// An archive in the making.
#[derive(Clone, Default)]
pub(super) struct Tar(pub(super) Vec<u8>);

impl Tar {
    pub(super) fn add(mut self, head: &Head, body: &[u8]) -> Self {
        self.0.extend_from_slice(&head.bytes());
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn file(self, name: &[u8], body: &[u8]) -> Self {
        self.add(&Head::new(name, b'0', body.len() as u64), body)
    }

    pub(super) fn kind(self, name: &[u8], typeflag: u8, link: &[u8]) -> Self {
        self.add(Head::new(name, typeflag, 0).link(link), b"")
    }

    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extension(b'x', &pax_body(records))
    }

    pub(super) fn extension(self, typeflag: u8, body: &[u8]) -> Self {
        self.add(&Head::new(b"ext", typeflag, body.len() as u64), body)
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(super) fn pax_body(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let bare = key.len() + value.len() + 3;
        let mut length = bare + 1;
        while length != bare + length.to_string().len() {
            length = bare + length.to_string().len();
        }
        body.extend_from_slice(format!("{length} {key}=").as_bytes());
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    body
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn descriptor(blob: &[u8], archive: &[u8]) -> LayerDescriptor {
    LayerDescriptor {
        digest: Digest::of(blob),
        size: blob.len() as u64,
        media_type: "application/vnd.oci.image.layer.v1.tar".into(),
        diff_id: Digest::of(archive),
    }
}

pub(super) fn read_blob(
    blob: &[u8],
    descriptor: &LayerDescriptor,
    limits: Limits,
) -> Result<(Layer, Spool), LayerError> {
    let budget = Budget::new(limits);
    read_layer(LayerIndex(3), descriptor, blob, &budget, &std::env::temp_dir(), &|_| ())
}

pub(super) fn read(archive: &[u8]) -> Result<(Layer, Spool), LayerError> {
    read_blob(archive, &descriptor(archive, archive), Limits::default())
}

pub(super) fn contents(spool: &Spool, content: &FileContent) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(content.size).unwrap()];
    let mut end = 0;
    for segment in &content.segments {
        assert!(segment.length > 0 && segment.file_offset >= end, "{content:?}");
        end = segment.file_offset + segment.length;
        let range = usize::try_from(segment.file_offset).unwrap()..usize::try_from(end).unwrap();
        spool.read_exact_at(segment.spool_offset, &mut bytes[range]).unwrap();
    }
    bytes
}

pub(super) fn only(archive: &[u8]) -> (LayerEntry, Spool) {
    let (mut layer, spool) = read(archive).unwrap();
    assert_eq!(layer.entries.len(), 1, "{layer:?}");
    (layer.entries.remove(0), spool)
}

pub(super) fn only_file(archive: &[u8]) -> (LayerPath, Vec<u8>) {
    let (entry, spool) = only(archive);
    let EntryKind::File(content) = &entry.kind else { panic!("{entry:?}") };
    (entry.path.clone(), contents(&spool, content))
}

pub(super) fn path(text: &str) -> LayerPath {
    LayerPath::parse(text.as_bytes()).unwrap()
}
