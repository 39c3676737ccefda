//! The one place where FUSE threads meet the async runtime.
//!
//! A FUSE thread never waits for the runtime: it hands over a device call with the reply and goes
//! on. How many calls can pend is bounded by the kernel (background requests by `max_background`,
//! the others by the processes that wait for them); how many run is bounded here, per device. A
//! call ends with its answer, with EIO at the deadline, or with EIO when its device is failed. If
//! it panics the reply is dropped, which answers EIO as well.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use fuser::Errno;
use tokio::runtime::Handle;

use crate::device::DeviceError;
use crate::errno;
use crate::table::Slot;

/// Hands device calls from FUSE threads to the runtime.
#[derive(Debug, Clone)]
pub(crate) struct Bridge {
    runtime: Handle,
    deadline: Duration,
}

impl Bridge {
    /// Calls run on `runtime`, each for at most `deadline`, waiting for its turn included.
    pub(crate) fn new(runtime: Handle, deadline: Duration) -> Self {
        Self { runtime, deadline }
    }

    /// Runs `call`, which does `what` on `slot`, and then `answer` with what it gave.
    pub(crate) fn dispatch<T, C, F, A>(&self, slot: Arc<Slot>, what: &'static str, call: C, answer: A)
    where
        T: Send + 'static,
        C: FnOnce(Arc<Slot>) -> F + Send + 'static,
        F: Future<Output = Result<T, DeviceError>> + Send + 'static,
        A: FnOnce(Result<T, Errno>) + Send + 'static,
    {
        let deadline = self.deadline;
        self.runtime.spawn(async move {
            let bounded = tokio::time::timeout(deadline, async {
                // The semaphore is never closed; if it were, running unbounded is still right.
                let _permit = slot.permits.acquire().await.ok();
                call(Arc::clone(&slot)).await
            });
            let outcome = tokio::select! {
                biased;
                () = slot.failure() => {
                    tracing::debug!(device = slot.name, what, "request of a failed device refused");
                    Err(Errno::EIO)
                }
                done = bounded => match done {
                    Ok(Ok(value)) => Ok(value),
                    Ok(Err(error)) => {
                        let source = std::error::Error::source(&error).map(tracing::field::display);
                        tracing::warn!(device = slot.name, what, %error, source, "device request failed");
                        Err(errno::of_kind(error.kind()))
                    }
                    Err(_) => {
                        tracing::warn!(device = slot.name, what, ?deadline, "device gave no answer in time");
                        Err(Errno::EIO)
                    }
                },
            };
            answer(outcome);
        });
    }
}
