//! `flattener verify`: fetch and check every chunk of an image.

use crate::fetch::{self, FetchError};
use crate::progress::{Progress, Unit};
use futures_util::StreamExt;
use image_format::manifest::Manifest;
use origin::store::Origin;
use serde::Serialize;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// What a verification found.
#[derive(Debug, Default, Serialize)]
pub struct VerifyReport {
    /// Chunks fetched and found right.
    pub right: u64,
    /// Bytes of those.
    pub right_bytes: u64,
    /// What is wrong with the others, one line each.
    pub wrong: Vec<String>,
    /// Chunks that could not be checked because the store did not answer.
    pub unchecked: Vec<String>,
}

impl VerifyReport {
    /// Whether every chunk was checked and right.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.wrong.is_empty() && self.unchecked.is_empty()
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.wrong.iter().chain(&self.unchecked) {
            writeln!(f, "{line}")?;
        }
        write!(
            f,
            "{} chunks right ({}), {} wrong, {} not checked",
            self.right,
            crate::report::human(self.right_bytes),
            self.wrong.len(),
            self.unchecked.len()
        )
    }
}

/// Fetches each distinct chunk of an image once, checks its id, and opens it.
pub async fn verify(origin: Arc<dyn Origin>, manifest: Arc<Manifest>, progress: &Progress) -> VerifyReport {
    let mut met = HashSet::new();
    let entries = manifest.entries();
    let positions: Vec<usize> = (0..entries.len()).filter(|&p| met.insert(entries[p].id)).collect();
    let stage = progress.stage("verify", Unit::Count, positions.len() as u64);
    let mut report = VerifyReport::default();
    let mut checked = std::pin::pin!(fetch::each(origin, Arc::clone(&manifest), positions, |_, _| ()));
    while let Some((position, outcome)) = checked.next().await {
        stage.add(1);
        let entry = &manifest.entries()[position];
        match outcome {
            Ok(()) => {
                report.right += 1;
                report.right_bytes += u64::from(entry.stored_len);
            }
            Err(error @ FetchError::Origin { .. }) => report.unchecked.push(line(entry.index, &error)),
            Err(error) => report.wrong.push(line(entry.index, &error)),
        }
    }
    stage.finish();
    report
}

fn line(index: image_format::units::ChunkIndex, error: &dyn std::error::Error) -> String {
    let mut text = format!("{index}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
