//! Signals: what ends a daemon, and what is passed on to a command.

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Ends with SIGTERM or SIGINT.
///
/// # Errors
/// If handlers cannot be installed.
pub(crate) fn stop() -> Result<impl Future<Output = ()> + Send + 'static> {
    let mut term = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    })
}

/// The signals that a command should hear of, by number.
///
/// # Errors
/// If handlers cannot be installed.
pub(crate) fn forwarded() -> Result<mpsc::Receiver<i32>> {
    let (sender, receiver) = mpsc::channel(8);
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
        SignalKind::quit(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ];
    for kind in kinds {
        let mut arrivals =
            signal(kind).with_context(|| format!("cannot handle signal {}", kind.as_raw_value()))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while arrivals.recv().await.is_some() {
                if sender.send(kind.as_raw_value()).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}
