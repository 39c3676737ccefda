//! Just enough tar: checksums made right, and small archives for seeds and targets.

/// Unit of tar.
const BLOCK: usize = 512;
/// Where a header has its checksum.
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// Where a header says that it is one.
const MAGIC: std::ops::Range<usize> = 257..262;

fn seal(block: &mut [u8]) {
    block[CHECKSUM].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// The archive with the checksum of every block that looks like a header made right.
#[must_use]
pub fn with_checksums(archive: &[u8]) -> Vec<u8> {
    let mut fixed = archive.to_vec();
    for block in fixed.chunks_exact_mut(BLOCK).filter(|block| &block[MAGIC] == b"ustar") {
        seal(block);
    }
    fixed
}

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Archive(Vec<u8>);

impl Archive {
    /// Appends an entry; names longer than 100 bytes are cut.
    pub fn entry(&mut self, typeflag: u8, name: &str, link: &str, body: &[u8]) -> &mut Self {
        let mut header = [0; BLOCK];
        let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
        put(0, &name.as_bytes()[..name.len().min(100)]);
        put(100, b"0000644\0");
        put(108, b"0001750\0");
        put(116, b"0001750\0");
        put(124, format!("{:011o}\0", body.len()).as_bytes());
        put(136, b"14524570400\0");
        put(156, &[typeflag]);
        put(157, &link.as_bytes()[..link.len().min(100)]);
        put(257, b"ustar\x0000");
        seal(&mut header);
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// Appends a regular file.
    pub fn file(&mut self, name: &str, body: &[u8]) -> &mut Self {
        self.entry(b'0', name, "", body)
    }

    /// Appends a PAX header for the entry to come.
    pub fn pax(&mut self, records: &[(&str, &str)]) -> &mut Self {
        let mut body = String::new();
        for (key, value) in records {
            // The length counts its own digits.
            let rest = key.len() + value.len() + 3;
            let length = (1..).map(|digits| rest + digits).find(|n| n.to_string().len() == n - rest);
            body.push_str(&format!("{} {key}={value}\n", length.unwrap_or(rest)));
        }
        self.entry(b'x', "pax", "", body.as_bytes())
    }

    /// The archive with its end marker.
    pub fn finish(&mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        std::mem::take(&mut self.0)
    }
}
