//! Files that may have passwords in them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The mode bits of group and others.
const NOT_THE_OWNER: u32 = 0o077;

/// A file that was read, and who else may read or change it.
pub(super) struct SecretFile {
    pub(super) bytes: Vec<u8>,
    exposure: Option<String>,
}

impl SecretFile {
    /// Reads a file. An error does not name it.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        // Of the open file, not of the path: that may name another file by now.
        let found = file.metadata()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let exposure = if is_among_secrets(path) {
            None
        } else {
            exposure(found.mode(), found.uid(), rustix::process::geteuid().as_raw(), path)
        };
        Ok(SecretFile { bytes, exposure })
    }

    /// Whether the file is good enough for a password.
    ///
    /// # Errors
    ///
    /// When others than its owner have access to it, or when its owner is neither root nor the user
    /// who runs tabi; not in `$CREDENTIALS_DIRECTORY` and `/run/secrets`. The error names the file only
    /// in the command that mends it.
    pub(super) fn check_private(&self) -> Result<(), String> {
        self.exposure.clone().map_or(Ok(()), Err)
    }
}

/// Whether the file, wherever links lead, is in a folder for secrets: that of the service manager's
/// credentials, or that of a container. Who may look into those has been decided by whoever made them,
/// and their files have the modes and owners that suit him.
fn is_among_secrets(path: &Path) -> bool {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let folders = [credentials, Some(PathBuf::from("/run/secrets"))];
    folders.into_iter().flatten().any(|folder| is_in(path, &folder))
}

/// The root folder and a relative one are nobody's folder for secrets.
fn is_in(path: &Path, folder: &Path) -> bool {
    let (Ok(path), Ok(real)) = (path.canonicalize(), folder.canonicalize()) else { return false };
    folder.is_absolute() && real.parent().is_some() && path.starts_with(real)
}

/// Who has access to a file with this mode and owner, beside root and the user who runs tabi.
fn exposure(mode: u32, owner: u32, runs_tabi: u32, path: &Path) -> Option<String> {
    let path = path.display();
    if owner != 0 && owner != runs_tabi {
        let expected = if runs_tabi == 0 {
            "root, who runs tabi".into()
        } else {
            format!("user {runs_tabi}, who runs tabi, or root")
        };
        return Some(format!(
            "it belongs to user {owner}, who can read and change it: expected {expected}; \
             run: chown {runs_tabi} '{path}'"
        ));
    }
    if mode & NOT_THE_OWNER != 0 {
        let mode = mode & 0o7777;
        return Some(format!(
            "others than its owner have access to it (mode {mode:04o}): expected 0600; \
             run: chmod 600 '{path}'"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mode: u32, owner: u32, runs_tabi: u32) -> Option<String> {
        exposure(0o100_000 | mode, owner, runs_tabi, Path::new("users"))
    }

    #[test]
    fn only_the_owner_may_have_access() {
        for mode in [0o640, 0o604, 0o644, 0o620, 0o602, 0o610] {
            let error = of(mode, 0, 0).unwrap();
            assert!(error.contains(&format!("{mode:04o}")), "{error}");
            assert!(error.contains("run: chmod 600 'users'"), "{error}");
        }
        for mode in [0o600, 0o400] {
            assert_eq!(of(mode, 0, 0), None, "{mode:o}");
        }
    }

    #[test]
    fn a_link_out_of_the_folder_for_secrets_leads_elsewhere() {
        let folder = std::env::temp_dir().join(format!("tabi-secrets-{}", std::process::id()));
        let secrets = folder.join("secrets");
        std::fs::create_dir_all(&secrets).unwrap();
        std::fs::write(folder.join("elsewhere"), "").unwrap();
        std::fs::write(secrets.join("users"), "").unwrap();
        std::os::unix::fs::symlink("users", secrets.join("link")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", secrets.join("out")).unwrap();
        let known: Vec<_> = ["users", "link", "out", "../elsewhere", "nowhere"]
            .map(|name| is_in(&secrets.join(name), &secrets))
            .to_vec();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(known, [true, true, false, false, false]);
        assert!(!is_in(Path::new("/etc/passwd"), Path::new("/")));
        assert!(!is_in(Path::new("/etc/passwd"), Path::new("/etc/..")));
    }

    #[test]
    fn the_owner_is_root_or_who_runs_tabi() {
        assert_eq!(of(0o600, 1000, 1000), None);
        assert_eq!(of(0o600, 0, 1000), None);
        let error = of(0o600, 1001, 1000).unwrap();
        assert!(error.contains("it belongs to user 1001") && error.contains("user 1000, who runs"));
        let error = of(0o600, 1001, 0).unwrap();
        assert!(
            error.contains("expected root") && error.contains("run: chown 0 'users'"),
            "{error}"
        );
    }
}
