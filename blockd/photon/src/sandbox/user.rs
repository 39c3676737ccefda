//! Who a sandbox's process is: names looked up in the image's own passwd and group files.
//!
//! Invariants: files are opened inside the image (`openat2`, `RESOLVE_IN_ROOT`), so no link
//! leads out of it; only regular files are read, and at most [`MAX_FILE_BYTES`] of them.

use super::SandboxError;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longest passwd or group file that is read.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Numeric identity of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Home directory, where the image says.
    pub home: Option<String>,
}

/// Reads a regular file inside `root`; `None` if there is none or it is something else.
fn read_inside(root: &Path, path: &str) -> Option<String> {
    let directory = openat(CWD, root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    // non-blocking, or a FIFO would hold us here
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(&directory, path, flags, Mode::empty(), inside).ok()?);
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Passwd { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

/// Name, id and members of each group.
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

impl Identity {
    /// The identity that `user` (`name`, `uid`, either with `:group`) has in the image at
    /// `root`. Empty means root. Blocks for two small file reads.
    ///
    /// # Errors
    /// [`SandboxError::User`] if a name does not exist in the image.
    pub fn find(root: &Path, user: &str) -> Result<Self, SandboxError> {
        let failed = |reason: &str| SandboxError::User { user: user.into(), reason: reason.into() };
        let (name, group) = user.split_once(':').map_or((user, None), |(name, group)| (name, Some(group)));
        let name = if name.is_empty() { "0" } else { name };
        let users = read_inside(root, "etc/passwd").unwrap_or_default();
        let numeric: Option<u32> = name.parse().ok();
        let entry = passwd(&users).find(|entry| match numeric {
            Some(uid) => entry.uid == uid,
            None => entry.name == name,
        });
        let uid = match (&entry, numeric) {
            (Some(entry), _) => entry.uid,
            (None, Some(uid)) => uid,
            (None, None) => return Err(failed("no such user in the image's /etc/passwd; give a number")),
        };
        let home = entry.as_ref().map(|entry| entry.home.to_string()).filter(|home| home.starts_with('/'));
        let all = read_inside(root, "etc/group").unwrap_or_default();
        if let Some(group) = group.filter(|group| !group.is_empty()) {
            let by_name = || groups(&all).find(|&(name, ..)| name == group).map(|(_, gid, _)| gid);
            let gid = group.parse().ok().or_else(by_name);
            let gid = gid.ok_or_else(|| failed("no such group in the image's /etc/group; give a number"))?;
            return Ok(Self { uid, gid, groups: Vec::new(), home });
        }
        let gid = entry.as_ref().map_or(0, |entry| entry.gid);
        let member = |members: &str| entry.as_ref().is_some_and(|e| members.split(',').any(|m| m == e.name));
        let further = groups(&all).filter(|&(_, id, members)| id != gid && member(members));
        let further = further.map(|(_, id, _)| id).take(1024).collect();
        Ok(Self { uid, gid, groups: further, home })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn image() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nbroken line\nweb:x:33:33::/var/www:/x\n",
        )
        .unwrap();
        fs::write(dir.path().join("etc/group"), "root:x:0:\nweb:x:33:\nlogs:x:40:a,web\n").unwrap();
        dir
    }

    #[test]
    fn names_and_numbers() {
        let image = image();
        for (user, uid, gid, groups) in [
            ("", 0, 0, vec![]),
            ("web", 33, 33, vec![40]),
            ("33", 33, 33, vec![40]),
            ("web:logs", 33, 40, vec![]),
            ("1000:7", 1000, 7, vec![]),
            ("1000", 1000, 0, vec![]),
        ] {
            let found = Identity::find(image.path(), user).unwrap();
            assert_eq!((found.uid, found.gid, found.groups), (uid, gid, groups), "{user}");
        }
        for user in ["nobody", "web:nobody", "-1"] {
            assert!(matches!(Identity::find(image.path(), user), Err(SandboxError::User { .. })), "{user}");
        }
    }

    #[test]
    fn links_stay_inside_and_odd_files_are_passed_over() {
        let image = image();
        fs::remove_file(image.path().join("etc/passwd")).unwrap();
        symlink("/etc/passwd", image.path().join("etc/passwd")).unwrap();
        assert!(Identity::find(image.path(), "root").is_err(), "the host's file is not the image's");
        fs::remove_file(image.path().join("etc/passwd")).unwrap();
        rustix::fs::mknodat(
            CWD,
            image.path().join("etc/passwd"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        assert!(Identity::find(image.path(), "root").is_err());
        assert_eq!(Identity::find(image.path(), "5").unwrap().uid, 5);
    }
}
