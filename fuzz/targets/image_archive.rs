//! Image archives as files: the table of contents, `index.json` or `manifest.json`, links
//! between members, documents and blobs. Tar checksums are repaired.

#![no_main]

use flattener::oci::Image;
use fuzz::files::MemoryFile;
use fuzz::images::{self, Kind};
use fuzz::tar;
use libfuzzer_sys::fuzz_target;
use photon::image_config::ImageConfig;
use std::sync::LazyLock;

static FILE: LazyLock<MemoryFile> = LazyLock::new(|| MemoryFile::new().expect("a file in memory"));

fuzz_target!(|data: &[u8]| {
    let fixed = tar::with_checksums(data);
    let inputs: &[&[u8]] = if fixed == data { &[data] } else { &[data, &fixed] };
    for bytes in inputs {
        FILE.fill(bytes).expect("room in memory");
        // A Docker archive falls back to a layout where it has no manifest.json.
        for kind in [Kind::Layout, Kind::Docker] {
            if let Some(Image { config, .. }) = images::read(&FILE, kind) {
                let _ = ImageConfig::parse(&config);
            }
        }
    }
});
