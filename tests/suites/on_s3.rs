//! The whole job on an S3 server, and what happens when the server goes away.

use serde_json::json;
use std::time::{Duration, Instant};
use tests::image::{self, Layer};
use tests::product::{World, text};
use tests::s3::Server;

const LENGTH: usize = 6 << 20;

fn content() -> Vec<u8> {
    (0..LENGTH).map(|n| (n * n / 4099).to_le_bytes()[0]).collect()
}

/// A world with an image in a bucket.
fn pushed(server: &Server) -> World {
    let world = World::new();
    let layer = Layer::new().dir("./", 0o755).file("small", "hello").file("large", content());
    image::layout(&world.path("image"), &[layer.finish()], &json!({}));
    let source = format!("oci:{}:latest", world.path("image").display());
    for outcome in ["stored", "up_to_date"] {
        let mut push = world.command("flattener");
        server.reach(&mut push, "prefix");
        let output = push.args(["push", &source, "--name", "x", "--json"]).output().unwrap();
        let said = text(&output);
        assert!(output.status.success() && said.contains(outcome), "{said}");
    }
    for words in [&["verify", "x", "--quiet"][..], &["ls"], &["inspect", "x"]] {
        let mut command = world.command("flattener");
        server.reach(&mut command, "prefix");
        let output = command.args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", text(&output));
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn images_go_through_two_servers() {
    drop(pushed(&Server::s3s().await));
    if let Some(server) = Server::moto().await {
        drop(pushed(&server));
    }
}

/// While the store is away reads wait for the stated deadline and fail; afterwards they go
/// on by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_store_that_goes_away_and_comes_back() {
    if !tests::privileged() {
        return;
    }
    let mut server = Server::s3s().await;
    let world = pushed(&server);
    let at = world.path("at");
    std::fs::create_dir(&at).unwrap();
    let mut serve = world.command("blockd");
    server.reach(&mut serve, "prefix");
    serve.args(["serve", "--chunk-deadline", "3", "--no-prefetch"]);
    let daemon = world.daemon_of(serve);
    let output = world.blockd(&["mount", "x", at.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(std::fs::read_to_string(at.join("small")).unwrap(), "hello");
    server.stop().await;
    let begun = Instant::now();
    let error = std::fs::read(at.join("large")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()), "{error}");
    // the kernel reads the blocks of one request more than once before it gives up
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    server.go_on().await;
    assert!(std::fs::read(at.join("large")).unwrap() == content());
    drop(daemon);
    assert!(world.residue().is_empty());
}
