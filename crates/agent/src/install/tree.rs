//! Files of the system being installed. Every path is resolved as that system will see it: a link to
//! `/run/x` in the tree leads to the tree's `/run/x`, never to that of the running system.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Links followed for one path, as the kernel does.
const LINKS_MAX: usize = 40;

/// The tree of the new system.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree below `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where the tree is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where `path` of the new system is now, with links in all but the last component followed inside the tree.
    ///
    /// # Errors
    /// When links lead in circles.
    pub fn path(&self, path: &str) -> io::Result<PathBuf> {
        self.resolve(path, false)
    }

    /// Where `path` of the new system is now, with all links followed inside the tree.
    ///
    /// # Errors
    /// When links lead in circles.
    pub fn follow(&self, path: &str) -> io::Result<PathBuf> {
        self.resolve(path, true)
    }

    fn resolve(&self, path: &str, follow_last: bool) -> io::Result<PathBuf> {
        let mut todo: Vec<std::ffi::OsString> = parts(Path::new(path));
        let mut inside: Vec<std::ffi::OsString> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                inside.pop();
                continue;
            }
            let here: PathBuf = self
                .root
                .join(inside.iter().collect::<PathBuf>())
                .join(&part);
            let last = todo.is_empty();
            match std::fs::read_link(&here) {
                Ok(target) if follow_last || !last => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(io::Error::other(format!("too many links in {path}")));
                    }
                    if target.is_absolute() {
                        inside.clear();
                    }
                    todo.extend(parts(&target));
                }
                _ => inside.push(part),
            }
        }
        Ok(self.root.join(inside.into_iter().collect::<PathBuf>()))
    }

    /// Whether the new system has `path`, links followed.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.resolve(path, true).is_ok_and(|p| p.exists())
    }

    /// The content of a text file of the new system.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<String> {
        std::fs::read(self.resolve(path, true).ok()?)
            .ok()
            .map(|b| String::from_utf8_lossy(&b).into_owned())
    }

    /// The bytes of a file of the new system, links followed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_bytes(&self, path: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.resolve(path, true)?)
    }

    /// The names in a directory of the new system, sorted.
    #[must_use]
    pub fn list(&self, path: &str) -> Vec<String> {
        let Some(entries) = self
            .resolve(path, true)
            .ok()
            .and_then(|p| std::fs::read_dir(p).ok())
        else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .filter_map(Result::ok)
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Writes a file with exactly these permission bits, replacing what is there, also a link.
    ///
    /// # Errors
    /// When a directory or the file cannot be written.
    pub fn write(&self, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let to = self.path(path)?;
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match std::fs::remove_file(&to) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode & 0o7777)
            .open(&to)?;
        file.write_all(content)?;
        // The mode above went through the umask.
        file.set_permissions(std::fs::Permissions::from_mode(mode & 0o7777))
    }

    /// Removes a file or directory, if it is there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let at = self.path(path)?;
        match std::fs::symlink_metadata(&at) {
            Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(at),
            Ok(_) => std::fs::remove_file(at),
            Err(_) => Ok(()),
        }
    }
}

/// The components of a path, last first.
fn parts(path: &Path) -> Vec<std::ffi::OsString> {
    let mut out: Vec<_> = path
        .components()
        .filter_map(|c| match c {
            Component::Normal(n) => Some(n.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    out.reverse();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path().join("t"));
        std::fs::create_dir_all(dir.path().join("t/etc")).unwrap();
        symlink("/outside", dir.path().join("t/etc/abs")).unwrap();
        symlink("../../../outside", dir.path().join("t/etc/rel")).unwrap();
        for name in ["abs", "rel"] {
            tree.write(&format!("/etc/{name}/file"), b"x", 0o600)
                .unwrap();
            assert!(dir.path().join("t/outside/file").is_file());
            std::fs::remove_file(dir.path().join("t/outside/file")).unwrap();
        }
        tree.write("/../../up", b"x", 0o644).unwrap();
        assert!(dir.path().join("t/up").is_file() && !dir.path().join("up").exists());
    }

    #[test]
    fn a_link_is_replaced_and_the_mode_is_exact() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path());
        symlink(
            "/run/systemd/resolve/stub-resolv.conf",
            dir.path().join("resolv.conf"),
        )
        .unwrap();
        tree.write("/resolv.conf", b"nameserver 10.0.0.1\n", 0o666)
            .unwrap();
        let meta = std::fs::symlink_metadata(dir.path().join("resolv.conf")).unwrap();
        assert!(meta.is_file() && meta.permissions().mode() & 0o7777 == 0o666);
    }

    #[test]
    fn links_in_circles_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        assert!(Tree::new(dir.path()).path("/a/x").is_err());
    }
}
