//! Content from a seed: the same on every machine, so that figures can be compared.

/// A small deterministic generator (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

const WORDS: [&str; 32] = [
    "self", "return", "value", "def", "if", "not", "None", "request", "response", "index", "for", "in",
    "import", "config", "await", "session", "query", "result", "raise", "error", "key", "item", "append",
    "lambda", "class", "yield", "token", "path", "open", "read", "write", "close",
];

impl Random {
    /// The generator of a seed.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator of a name and a version of what it names.
    pub(crate) fn of(name: &str, version: u64) -> Self {
        let hash = blake3::hash(name.as_bytes());
        let word = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
        Self(u64::from_le_bytes(*word) ^ version.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Any number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of a range.
    pub(crate) fn within(&mut self, range: std::ops::Range<usize>) -> usize {
        let width = (range.end - range.start) as u64;
        range.start + usize::try_from(self.next() % width).expect("less than a usize")
    }

    /// Program text: lines of words, compresses some 4 to 1.
    pub(crate) fn text(&mut self, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length + 16);
        while out.len() < length {
            let word = self.next();
            out.extend_from_slice(WORDS[(word % 32) as usize].as_bytes());
            out.push(if word >> 61 == 0 { b'\n' } else { b' ' });
            if word >> 60 == 9 {
                out.extend_from_slice(format!("{:x}", word & 0xffff).as_bytes());
            }
        }
        out.truncate(length);
        out
    }

    /// Machine code, more or less: half of it is new, half occurred shortly before.
    pub(crate) fn code(&mut self, length: usize) -> Vec<u8> {
        let mut out: Vec<u8> = Vec::with_capacity(length + 64);
        while out.len() < length {
            let word = self.next();
            if word.is_multiple_of(2) && out.len() > 4096 {
                let back = out.len() - self.within(64..4096);
                out.extend_from_within(back..back + 16);
            } else {
                out.extend_from_slice(&word.to_le_bytes());
                out.extend_from_slice(&self.next().to_le_bytes());
            }
        }
        out.truncate(length);
        out
    }
}
