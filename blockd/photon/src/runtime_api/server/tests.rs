//! Hostile clients of the Runtime API, on this host's loopback.

use super::*;
use crate::invocation::Invocation;
use crate::logs::{FunctionLog, InvocationLog};
use crate::runtime_api::slots::OnFree;
use std::time::SystemTime;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

const MOST: usize = 1 << 20;

/// An API with an invocation in flight.
struct World {
    slots: Arc<Slots>,
    id: RequestId,
    address: std::net::SocketAddr,
}

impl World {
    async fn new() -> Self {
        let slots = Slots::new("s".into(), OnFree(Box::new(|| {})));
        let settings = ApiSettings {
            most_response_bytes: MOST,
            most_connections: 64,
            function_arn: "arn".into(),
            room: WorkerRoom::new(MOST),
        };
        let api = Api::new("s".into(), Arc::clone(&slots), settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(api.serve(listener, Router::new()));
        let invocation = Arc::new(Invocation::new("{}"));
        let id = invocation.request_id.clone();
        let log = InvocationLog::new(id.clone(), Arc::new(FunctionLog::default()));
        let (progress, _) = mpsc::unbounded_channel();
        let timeout = Duration::from_secs(1000);
        let task = Task { invocation, timeout, deadline_at: SystemTime::UNIX_EPOCH, log, progress };
        let (given, offered) = tokio::join!(slots.next(None, None), async {
            tokio::task::yield_now().await;
            slots.offer(task)
        });
        offered.unwrap();
        let _ = given.unwrap().take();
        Self { slots, id, address }
    }

    /// A response that is never sent to its end.
    async fn endless(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST /2018-06-01/runtime/invocation/{}/response HTTP/1.1\r\nHost: x\r\nContent-Length: {MOST}\r\n\r\n",
            self.id
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b'x'; MOST / 2]).await.unwrap();
        stream
    }
}

async fn status(stream: &mut TcpStream) -> String {
    let mut head = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut head));
    read.await.expect("it is answered").unwrap();
    String::from_utf8_lossy(&head[9..]).into_owned()
}

#[tokio::test]
async fn answers_that_never_end_are_few_and_end_with_their_invocation() {
    let world = World::new().await;
    let mut first = world.endless().await;
    let mut second = world.endless().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut third = world.endless().await;
    assert_eq!(status(&mut third).await, "409");
    drop(third);
    let _ = world.slots.expire(&world.id);
    assert_eq!(status(&mut first).await, "410");
    assert_eq!(status(&mut second).await, "410");
}
