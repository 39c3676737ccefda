//! What a failure means to the shell: error kinds to exit codes, once, at the edge.

use flattener::commands::export::ExportError;
use flattener::fetch::FetchError;
use flattener::oci::{ReferenceError, SourceError};
use flattener::push::PushError;
use fleet::settings::L2Error;
use image_format::names::NameError;
use origin::catalog::CatalogError;
use origin::settings::SettingsError;
use origin::store::{ErrorKind, OriginError};
use std::process::ExitCode;

/// The exit code of a failed command.
pub(crate) fn code(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(|e| {
        e.is::<SettingsError>() || e.is::<L2Error>() || e.is::<NameError>() || e.is::<ReferenceError>()
    }) {
        return ExitCode::from(2);
    }
    let kind = error.chain().find_map(kind_of).unwrap_or(ErrorKind::Internal);
    ExitCode::from(match kind {
        ErrorKind::NotFound => 3,
        ErrorKind::Invalid | ErrorKind::Corrupt => 4,
        ErrorKind::Unavailable => 5,
        ErrorKind::Denied | ErrorKind::Unsupported => 6,
        ErrorKind::Exhausted => 7,
        ErrorKind::Internal => 70,
    })
}

fn kind_of(error: &(dyn std::error::Error + 'static)) -> Option<ErrorKind> {
    if let Some(ExportError::Io { .. }) = error.downcast_ref() {
        return Some(ErrorKind::Unavailable);
    }
    None.or_else(|| error.downcast_ref::<PushError>().map(PushError::kind))
        .or_else(|| error.downcast_ref::<SourceError>().map(SourceError::kind))
        .or_else(|| error.downcast_ref::<CatalogError>().map(CatalogError::kind))
        .or_else(|| error.downcast_ref::<FetchError>().map(FetchError::kind))
        .or_else(|| error.downcast_ref::<OriginError>().map(OriginError::kind))
}
