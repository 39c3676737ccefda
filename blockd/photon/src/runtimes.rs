//! Our own runtimes: which files they are and how they are started. Their sources are in
//! `runtimes/`, beside this package's.

use std::io;
use std::path::Path;

/// Options of the Java virtual machine (runtimes/java/README.md says what each saves).
pub const JAVA_OPTIONS: [&str; 3] = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=4", "-Xshare:auto"];

/// The Python runtime's first file.
pub const PYTHON_ENTRY: &str = "lantern_zygote.py";

/// Puts the runtimes' files below `to`, for all sandboxes to mount: the Python runtime, which
/// this program carries, and the Java runtime's jars from `jars`, if they are there.
///
/// # Errors
/// The file system's.
pub fn install(to: &Path, jars: Option<&Path>) -> io::Result<()> {
    let python = to.join("python");
    std::fs::create_dir_all(&python)?;
    for (name, text) in PYTHON_FILES {
        std::fs::write(python.join(name), text)?;
    }
    let java = to.join("java");
    std::fs::create_dir_all(&java)?;
    for entry in jars.map(std::fs::read_dir).transpose()?.into_iter().flatten() {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "jar") {
            std::fs::copy(entry.path(), java.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The files of the Python runtime.
const PYTHON_FILES: [(&str, &str); 0] = [];
