//! Blocking kernel calls on a thread of their own.
//!
//! A call that touches our own FUSE mount may wait for an answer that only this process can
//! give. It therefore never runs on a FUSE thread or on a worker of the async runtime, and not on
//! the runtime's blocking pool either: a call stuck there would hold up the runtime's shutdown.

use std::io;
use std::thread;

use tokio::sync::oneshot;

/// Runs `call` on a new thread; the receiver resolves when it ends. If the receiver is dropped
/// the call goes on and its result is dropped on that thread (guards clean up after themselves).
pub(crate) fn start<T, F>(call: F) -> io::Result<oneshot::Receiver<T>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new().name("lantern-mount".into()).spawn(move || {
        // A dropped receiver is not an error: see above.
        let _ = sender.send(call());
    })?;
    Ok(receiver)
}

/// Runs `call` on a new thread and waits for it.
pub(crate) async fn run<T, F>(call: F) -> io::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    start(call)?.await.unwrap_or_else(|_| Err(io::Error::other("the thread of a kernel call panicked")))
}
