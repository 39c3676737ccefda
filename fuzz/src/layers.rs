//! Layers for the targets: reading one from bytes, with limits that a fuzzer reaches.

use flattener::layer::entry::{EntryKind, Layer, LayerIndex};
use flattener::layer::{Budget, Digest, LayerDescriptor, LayerError, Limits, Spool, read_layer};

/// Limits far below the defaults, so that passing them is found.
#[must_use]
pub fn limits() -> Limits {
    Limits {
        entries: 2000,
        metadata_bytes: 2 << 20,
        uncompressed_bytes: 8 << 20,
        file_bytes: 1 << 43,
        spool_bytes: 4 << 20,
        segments: 1000,
    }
}

/// Reads a blob as the layer that it says it is.
///
/// # Errors
/// As [`read_layer`].
pub fn read(index: u32, blob: &[u8], diff_id: Digest, budget: &Budget) -> Result<(Layer, Spool), LayerError> {
    let size = u64::try_from(blob.len()).unwrap_or(u64::MAX);
    let descriptor = LayerDescriptor { digest: Digest::of(blob), size, media_type: String::new(), diff_id };
    read_layer(LayerIndex(index), &descriptor, blob, budget, &std::env::temp_dir(), &|_| {})
}

/// Reads an uncompressed archive, its checksums repaired if need be.
#[must_use]
pub fn read_archive(index: u32, archive: &[u8]) -> Option<(Layer, Spool)> {
    let attempt = |bytes: &[u8]| read(index, bytes, Digest::of(bytes), &Budget::new(limits())).ok();
    attempt(archive).or_else(|| attempt(&crate::tar::with_checksums(archive)))
}

/// Asserts what every layer that was read must be.
///
/// # Panics
/// If it is not.
pub fn check(layer: &Layer, spool: &Spool) {
    let mut spooled = 0;
    assert!(layer.entries.len() <= usize::try_from(limits().entries).unwrap_or(usize::MAX));
    for entry in &layer.entries {
        assert!(!entry.path.components().any(|part| matches!(part, b"" | b"." | b"..")));
        assert!(entry.metadata.mode <= 0o7777 && entry.metadata.mtime.nanoseconds < 1_000_000_000);
        assert!(entry.metadata.xattrs.is_sorted_by(|a, b| a.0 < b.0));
        if let EntryKind::File(content) = &entry.kind {
            let mut at = 0;
            for segment in &content.segments {
                assert!(segment.length > 0 && segment.file_offset >= at);
                at = segment.file_offset + segment.length;
                assert!(segment.spool_offset + segment.length <= spool.length());
                spooled = spooled.max(segment.spool_offset + segment.length);
            }
            assert!(at <= content.size && content.size <= limits().file_bytes);
        }
    }
    assert!(spooled <= limits().spool_bytes);
}
