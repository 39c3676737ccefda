//! Our own runtimes: which files they are and how they are started. Their sources are in
//! `runtimes/`, beside this package's.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The Python runtime's first file.
pub const PYTHON_ENTRY: &str = "lantern_zygote.py";

/// Puts the runtimes' files below `to`, for all sandboxes to mount: the Python runtime, which
/// this program carries, and the Java runtime
/// from `jars`, if it was built.
///
/// # Errors
/// The file system's.
pub fn install(to: &Path, jars: Option<&Path>) -> io::Result<()> {
    let python = to.join("python");
    std::fs::create_dir_all(&python)?;
    for (name, text) in PYTHON_FILES {
        let path = python.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, text)?;
    }
    let java = to.join("java");
    std::fs::create_dir_all(&java)?;
    for entry in jars.map(std::fs::read_dir).transpose()?.into_iter().flatten() {
        let entry = entry?;
        let is_jar = entry.path().extension().is_some_and(|extension| extension == "jar");
        if is_jar || entry.file_name() == "options" {
            std::fs::copy(entry.path(), java.join(entry.file_name()))?;
        }
    }
    readable(to)
}

/// Lets everybody read a directory and all in it: sandboxes run as nobody in particular.
fn readable(directory: &Path) -> io::Result<()> {
    std::fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            readable(&entry.path())?;
        } else {
            std::fs::set_permissions(entry.path(), Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

/// A file of the Python runtime, by its name below the runtime's directory.
macro_rules! python {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../runtimes/python/", $name)))),*]
    };
}

/// The files of the Python runtime.
const PYTHON_FILES: [(&str, &str); 23] = python![
    "lantern_runtime/__init__.py",
    "lantern_runtime/config.py",
    "lantern_runtime/context.py",
    "lantern_runtime/hooks.py",
    "lantern_runtime/http.py",
    "lantern_runtime/imports.py",
    "lantern_runtime/inherited.py",
    "lantern_runtime/isolation.py",
    "lantern_runtime/layout.py",
    "lantern_runtime/loader.py",
    "lantern_runtime/logs.py",
    "lantern_runtime/payload.py",
    "lantern_runtime/photon.py",
    "lantern_runtime/post.py",
    "lantern_runtime/rehearsal.py",
    "lantern_runtime/rootlogger.py",
    "lantern_runtime/scratch.py",
    "lantern_runtime/slots.py",
    "lantern_runtime/system.py",
    "lantern_runtime/zygote.py",
    "lantern_store.py",
    "lantern_stream.py",
    "lantern_zygote.py",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_python_runtime_is_carried() {
        let directory = tempfile::tempdir().unwrap();
        install(directory.path(), None).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("runtimes/python");
        for folder in ["", "lantern_runtime"] {
            for entry in std::fs::read_dir(source.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                if path.extension().is_some_and(|extension| extension == "py") && !name.starts_with("bench") {
                    let installed = directory.path().join("python").join(folder).join(&name);
                    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(installed).unwrap(), "{name}");
                }
            }
        }
    }
}
