//! The whole way from an archive to a file system that reads back as the archive says.

#![no_main]

use flattener::ext4::FileSource;
use flattener::layer::Spool;
use flattener::layer::entry::LayerIndex;
use flattener::tree::Tree;
use fuzz::{filesystems, layers};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

struct Source(Spool);

impl FileSource for Source {
    fn read_exact_at(&self, _layer: LayerIndex, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read_exact_at(offset, buf)
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((layer, spool)) = layers::read_archive(0, data) else { return };
    let Ok(tree) = Tree::apply(&[layer]) else { return };
    let source: Arc<dyn FileSource> = Arc::new(Source(spool));
    filesystems::check(&tree, &source);
});
