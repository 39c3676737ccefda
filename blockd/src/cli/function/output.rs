//! How `blockd function` prints.

use anyhow::{Context, Result};
use blockd::api::{ShownLetter, ShownStats};
use blockd::functions::time::timestamp;
use photon::invocation::LogLine;
use serde::Serialize;
use serde_json::Value;
use std::io::Write;

/// Pretty JSON.
pub(super) fn json(value: &impl Serialize) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(value)?)?)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// A function that was made or changed.
pub(super) fn one(as_json: bool, what: &str, body: &[u8]) -> Result<()> {
    let function: Value =
        serde_json::from_slice(body).context("the daemon speaks another version; restart it")?;
    if as_json {
        return json(&function);
    }
    let (name, digest) = (text(&function, "FunctionName"), text(&function, "CodeSha256"));
    let short = digest.get(..12).unwrap_or(digest);
    Ok(writeln!(std::io::stdout(), "{what} {name} of sha256:{short}…")?)
}

/// All functions.
pub(super) fn list(as_json: bool, functions: &[Value]) -> Result<()> {
    if as_json {
        return json(&functions);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<30} {:>7} {:>9} {:<24} IMAGE", "NAME", "TIMEOUT", "MEMORY", "CHANGED")?;
    for function in functions {
        let (name, changed) = (text(function, "FunctionName"), text(function, "LastModified"));
        let digest = text(function, "CodeSha256");
        let short = digest.get(..12).unwrap_or(digest);
        let (timeout, memory) = (&function["Timeout"], &function["MemorySize"]);
        writeln!(
            out,
            "{name:<30} {timeout:>5} s {memory:>5} MiB {:<24} sha256:{short}…",
            &changed.get(..19).unwrap_or(changed)
        )?;
    }
    Ok(())
}

/// Log lines.
pub(super) fn logs(as_json: bool, lines: &[LogLine]) -> Result<()> {
    if as_json {
        return json(&lines);
    }
    let mut out = std::io::stdout().lock();
    for line in lines {
        let id = line.request_id.as_deref().unwrap_or("-");
        writeln!(out, "{} {id} {}", timestamp(line.time_ms), line.text)?;
    }
    Ok(())
}

/// What a function's sandboxes do.
pub(super) fn stats(as_json: bool, stats: &ShownStats) -> Result<()> {
    if as_json {
        return json(stats);
    }
    let mut out = std::io::stdout().lock();
    for (group, value) in
        [("", serde_json::to_value(&stats.function)?), ("queue ", serde_json::to_value(stats.queue)?)]
    {
        for (name, value) in value.as_object().into_iter().flatten() {
            writeln!(out, "{:<24} {value}", format!("{group}{}", name.replace('_', " ")))?;
        }
    }
    Ok(())
}

/// Dead letters. JSON is one object per line, so that batches can follow each other.
pub(super) fn dead_letters(as_json: bool, letters: &[ShownLetter]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for shown in letters {
        if as_json {
            writeln!(out, "{}", serde_json::to_string(shown)?)?;
            continue;
        }
        let letter = &shown.letter;
        let (ended, condition) = (timestamp(letter.ended_ms), letter.condition);
        writeln!(
            out,
            "{ended} {} {} {condition:?} after {} failures",
            letter.function, letter.request_id, letter.failures
        )?;
        writeln!(out, "  error: {}\n  event: {}", letter.error, shown.payload)?;
    }
    Ok(out.flush()?)
}
