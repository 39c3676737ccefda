//! Reading `/proc/self/mountinfo`: which mounts there are, without touching any of them.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount of this process's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountEntry {
    /// Device number as `major:minor`, which is also the name of a FUSE mount's backing device info.
    pub(crate) device: String,
    /// Where it is mounted.
    pub(crate) target: PathBuf,
    /// File system type, such as `ext4` or `fuse.lantern`.
    pub(crate) fs_type: String,
    /// What is mounted, such as `/dev/loop3`.
    pub(crate) source: PathBuf,
}

/// All mounts, in the order they were made.
pub(crate) fn read() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Parses the file's text; lines that do not have its form are left out.
fn parse(text: &[u8]) -> Vec<MountEntry> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2)?;
    let target = fields.nth(1)?;
    // Optional fields end with a lone dash.
    fields.find(|field| *field == b"-")?;
    let (fs_type, source) = (fields.next()?, fields.next()?);
    Some(MountEntry {
        device: String::from_utf8(device.to_vec()).ok()?,
        target: unescape(target),
        fs_type: String::from_utf8(fs_type.to_vec()).ok()?,
        source: unescape(source),
    })
}

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| after.get(..3)).flatten();
        let value = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_optional_fields_and_escapes_and_skips_nonsense() {
        let text = b"36 35 0:45 / /run/a\\040b rw,nosuid shared:1 master:2 - fuse.lantern lantern rw\n\
            37 35 7:3 / /mnt\\134x ro - ext4 /dev/loop3 ro\nnonsense\n\n38 35 7:3 / /x ro ext4\n";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].target, PathBuf::from("/run/a b"));
        assert_eq!((found[0].device.as_str(), found[0].fs_type.as_str()), ("0:45", "fuse.lantern"));
        assert_eq!(found[1].target, PathBuf::from("/mnt\\x"));
        assert_eq!(found[1].source, PathBuf::from("/dev/loop3"));
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(read().expect("readable").iter().any(|mount| mount.target.as_os_str() == "/"));
    }
}
