//! A large image, made on the fly: half of it text that compresses, half of it noise.

use crate::layout::LayoutDir;
use crate::random::Random;
use anyhow::Result;
use std::io::Read;

/// Layers of the image.
const LAYERS: u64 = 5;
/// Distinct lines of the text.
const LINES: usize = 256;

/// Sizes of files in turn: many small ones, a few large ones.
const SIZES: [u64; 12] = [
    3 << 10,
    20 << 10,
    900,
    64 << 10,
    7 << 10,
    400 << 10,
    12 << 10,
    5 << 20,
    90 << 10,
    1 << 20,
    30 << 10,
    48 << 20,
];

/// Content of a file, made while it is read.
struct Content {
    random: Random,
    lines: std::rc::Rc<Vec<u8>>,
    noise: bool,
    left: u64,
}

impl Read for Content {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let length = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        for piece in out[..length].chunks_mut(64) {
            if self.noise {
                for word in piece.chunks_mut(8) {
                    word.copy_from_slice(&self.random.next().to_le_bytes()[..word.len()]);
                }
            } else {
                let line = self.random.within(0..LINES) * 64;
                piece.copy_from_slice(&self.lines[line..line + piece.len()]);
            }
        }
        self.left -= length as u64;
        Ok(length)
    }
}

/// Adds an image `big` of `bytes` of content to the layout.
pub(crate) fn build(layout: &mut LayoutDir, bytes: u64) -> Result<()> {
    let lines = std::rc::Rc::new(Random::new(1).text(LINES * 64));
    let mut layers = Vec::new();
    for number in 0..LAYERS {
        layers.push(layout.layer(1, |tar| {
            let (mut left, mut file) = (bytes / LAYERS, 0);
            while left > 0 {
                let size = SIZES[file % SIZES.len()].min(left);
                left -= size;
                let mut header = tar::Header::new_gnu();
                header.set_size(size);
                header.set_mode(0o644);
                header.set_mtime(1_700_000_000);
                let path = format!("data/{number}/{:03}/file_{file}", file / 100);
                let random = Random::of(&path, 1);
                let noise = (file + file / SIZES.len()).is_multiple_of(2);
                let content = Content { random, lines: lines.clone(), noise, left: size };
                tar.append_data(&mut header, path, content)?;
                file += 1;
            }
            Ok(())
        })?);
    }
    layout.image("big", &layers, &serde_json::json!({}))
}
