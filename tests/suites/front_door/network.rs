//! What anybody on the network may do to the door without a key.

use super::double::DoorUnderTest;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn send(door: &DoorUnderTest, text: &[u8]) -> String {
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(text).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let read =
        tokio::time::timeout(Duration::from_secs(60), reading).await.expect("the connection is closed");
    // a reset after the answer is an end as well
    drop(read);
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn unsigned_requests_are_told_so_in_the_shape_of_aws() {
    let door = DoorUnderTest::open().await;
    for line in
        ["GET /2015-03-31/functions/", "POST /2015-03-31/functions/f/invocations", "GET /", "PUT /%00"]
    {
        let answer =
            send(&door, format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{line}: {answer}");
        assert!(answer.contains("x-amzn-errortype: MissingAuthenticationTokenException"), "{answer}");
        assert!(answer.contains("x-amzn-requestid: ") && answer.contains("\"Type\":\"User\""), "{answer}");
    }
}

#[tokio::test]
async fn nonsense_is_no_harm() {
    let door = DoorUnderTest::with(|_, door| door.head_time = Duration::from_millis(500)).await;
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    for text in ["\r\n\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0\0\0\0\r\n\r\n", long.as_str()] {
        let answer = send(&door, text.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{text:.40}: {answer}");
    }
    // a good head, for which there is time
    let door = DoorUnderTest::open().await;
    let authorization = "AWS4-HMAC-SHA256 Credential=LANTERNTESTKEY";
    let text =
        format!("GET / HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\nconnection: close\r\n\r\n");
    let answer = send(&door, text.as_bytes()).await;
    assert!(answer.contains("IncompleteSignatureException"), "{answer}");
}

#[tokio::test]
async fn slow_senders_are_closed() {
    let door = DoorUnderTest::with(|_, door| door.head_time = Duration::from_millis(50)).await;
    let answer = send(&door, b"GET / HTTP/1.1\r\nhost:").await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(send(&door, b"").await, "", "one that says nothing at all");
}

#[tokio::test]
async fn a_stranger_has_no_body_read_for_ever() {
    let door = DoorUnderTest::open().await;
    let head = "POST /2015-03-31/functions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 1000000000\r\n\r\n";
    let answer = send(&door, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn connections_above_the_bound_are_told_so() {
    let door = DoorUnderTest::with(|_, door| door.max_connections = 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        // an answer shows that it has a place
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        stream.read_u8().await.unwrap();
        held.push(stream);
    }
    let answer = send(&door, b"").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("ServiceUnavailableException"), "{answer}");
    drop(held);
    let waiting = async {
        loop {
            let text = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            if send(&door, text).await.starts_with("HTTP/1.1 403") {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("places are given back");
}
