//! What an image says about running it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use photon::image_config::ImageConfig;

fuzz_target!(|data: &[u8]| {
    let Ok(config) = ImageConfig::parse(data) else { return };
    let own = config.command(None, &[]);
    assert_eq!(own, [&config.entrypoint[..], &config.cmd].concat());
    assert_eq!(config.command(Some(&[]), &config.env), config.env);
});
