//! Layers made byte by byte: every header kind, every refusal, and damage of every sort.

use super::entry::*;
use super::*;
use std::io::Write;

/// A tar header in the making; fields as GNU tar writes them.
#[derive(Clone)]
struct Head {
    block: [u8; 512],
}

impl Head {
    fn new(name: &[u8], typeflag: u8, size: u64) -> Self {
        let mut head = Self { block: [0; 512] };
        head.put(0, &name[..name.len().min(100)]);
        head.octal(100, 8, 0o644).octal(108, 8, 1000).octal(116, 8, 1001);
        head.octal(124, 12, size).octal(136, 12, 1_600_000_000);
        head.block[156] = typeflag;
        head.put(257, b"ustar\0" as &[u8]).put(263, b"00");
        head
    }

    fn put(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.block[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn octal(&mut self, at: usize, length: usize, value: u64) -> &mut Self {
        let text = format!("{value:0>width$o}\0", width = length - 1);
        self.put(at, text.as_bytes())
    }

    fn link(&mut self, target: &[u8]) -> &mut Self {
        self.put(157, target)
    }

    fn gnu(&mut self) -> &mut Self {
        self.put(257, b"ustar  \0")
    }

    fn bytes(&self) -> [u8; 512] {
        let mut block = self.block;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

/// An archive in the making.
#[derive(Clone, Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn add(mut self, head: &Head, body: &[u8]) -> Self {
        self.0.extend_from_slice(&head.bytes());
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &[u8], body: &[u8]) -> Self {
        self.add(&Head::new(name, b'0', body.len() as u64), body)
    }

    fn kind(self, name: &[u8], typeflag: u8, link: &[u8]) -> Self {
        self.add(Head::new(name, typeflag, 0).link(link), b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.extension(b'x', &pax_body(records))
    }

    fn extension(self, typeflag: u8, body: &[u8]) -> Self {
        self.add(&Head::new(b"ext", typeflag, body.len() as u64), body)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn pax_body(records: &[(&str, &[u8])]) -> Vec<u8> {
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

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn descriptor(blob: &[u8], archive: &[u8]) -> LayerDescriptor {
    LayerDescriptor {
        digest: Digest::of(blob),
        size: blob.len() as u64,
        media_type: "application/vnd.oci.image.layer.v1.tar".into(),
        diff_id: Digest::of(archive),
    }
}

fn read_blob(
    blob: &[u8],
    descriptor: &LayerDescriptor,
    limits: Limits,
) -> Result<(Layer, Spool), LayerError> {
    let budget = Budget::new(limits);
    read_layer(LayerIndex(3), descriptor, blob, &budget, &std::env::temp_dir(), &|_| ())
}

fn read(archive: &[u8]) -> Result<(Layer, Spool), LayerError> {
    read_blob(archive, &descriptor(archive, archive), Limits::default())
}

fn contents(spool: &Spool, content: &FileContent) -> Vec<u8> {
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

fn only(archive: &[u8]) -> (LayerEntry, Spool) {
    let (mut layer, spool) = read(archive).unwrap();
    assert_eq!(layer.entries.len(), 1, "{layer:?}");
    (layer.entries.remove(0), spool)
}

fn only_file(archive: &[u8]) -> (LayerPath, Vec<u8>) {
    let (entry, spool) = only(archive);
    let EntryKind::File(content) = &entry.kind else { panic!("{entry:?}") };
    (entry.path.clone(), contents(&spool, content))
}

fn path(text: &str) -> LayerPath {
    LayerPath::parse(text.as_bytes()).unwrap()
}

#[test]
fn every_plain_kind() {
    let mut device = Head::new(b"dev/c", b'3', 0);
    device.octal(329, 8, 5).octal(337, 8, 260);
    let mut zero = Head::new(b"dev/zero", b'4', 0);
    zero.octal(329, 8, 0).octal(337, 8, 0);
    let archive = Tar::default()
        .kind(b"./", b'5', b"")
        .kind(b"etc/", b'5', b"")
        .file(b"/etc/hello", b"hello")
        .kind(b"etc/link", b'2', b"../../x")
        .kind(b"etc/hard", b'1', b"./etc/hello")
        .add(&device, b"")
        .add(&zero, b"")
        .kind(b"fifo", b'6', b"")
        .kind(b"old/", 0, b"")
        .add(&Head::new(b"contiguous", b'7', 2), b"ab")
        .kind(b"etc/.wh.gone", b'0', b"")
        .kind(b"etc/.wh..wh..opq", b'0', b"")
        .file(b".wh..wh.aufs", b"skipped")
        .end();
    let (layer, spool) = read(&archive).unwrap();
    let got: Vec<_> = layer.entries.iter().map(|e| (e.path.to_string(), e.kind.clone())).collect();
    let file = |spool_offset, length| {
        EntryKind::File(FileContent {
            size: length,
            segments: vec![Segment { file_offset: 0, spool_offset, length }],
        })
    };
    let want = vec![
        ("/".to_owned(), EntryKind::Directory),
        ("/etc".to_owned(), EntryKind::Directory),
        ("/etc/hello".to_owned(), file(0, 5)),
        ("/etc/link".to_owned(), EntryKind::Symlink(b"../../x".to_vec())),
        ("/etc/hard".to_owned(), EntryKind::Hardlink(path("etc/hello"))),
        ("/dev/c".to_owned(), EntryKind::CharDevice { major: 5, minor: 260 }),
        ("/dev/zero".to_owned(), EntryKind::BlockDevice { major: 0, minor: 0 }),
        ("/fifo".to_owned(), EntryKind::Fifo),
        ("/old".to_owned(), EntryKind::Directory),
        ("/contiguous".to_owned(), file(5, 2)),
        ("/etc/gone".to_owned(), EntryKind::Whiteout),
        ("/etc".to_owned(), EntryKind::OpaqueWhiteout),
    ];
    assert_eq!(got, want);
    assert_eq!(spool.length(), 7);
    let metadata = &layer.entries[2].metadata;
    assert_eq!((metadata.mode, metadata.uid, metadata.gid), (0o644, 1000, 1001));
    assert_eq!(metadata.mtime, Timestamp { seconds: 1_600_000_000, nanoseconds: 0 });
}
