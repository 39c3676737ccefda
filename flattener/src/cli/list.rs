//! `flattener ls`: the images of a tenant in a root.

use anyhow::Result;
use flattener::report::human;
use origin::catalog::Catalog;
use serde::Serialize;
use std::io::Write;
use std::time::UNIX_EPOCH;

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    digest: String,
    chunks: u32,
    stored_bytes: u64,
    device_bytes: u64,
    /// Seconds since 1970.
    modified: Option<u64>,
}

/// Prints a table, or a JSON array. References that do not open are named on standard
/// error and do not hide the others.
pub(crate) async fn list(catalog: &Catalog, json: bool) -> Result<()> {
    let mut rows = Vec::new();
    for found in catalog.images().await? {
        match found {
            Ok(image) => rows.push(Row {
                name: image.name.to_string(),
                digest: image.reference.digest.to_string(),
                chunks: image.reference.chunk_count,
                stored_bytes: image.reference.stored_bytes,
                device_bytes: image.reference.device_len,
                modified: image
                    .modified
                    .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
                    .map(|since| since.as_secs()),
            }),
            Err(error) => writeln!(std::io::stderr(), "flattener: {:#}", anyhow::Error::from(error))?,
        }
    }
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &rows)?;
        return Ok(writeln!(out)?);
    }
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(4);
    writeln!(out, "{:width$}  {:19}  {:>7}  {:>10}", "NAME", "DIGEST", "CHUNKS", "STORED")?;
    for row in rows {
        let short = row.digest.get(..19).unwrap_or(&row.digest);
        writeln!(out, "{:width$}  {short}  {:>7}  {:>10}", row.name, row.chunks, human(row.stored_bytes))?;
    }
    Ok(())
}
