//! Files that may have passwords in them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::{Group, User};
use rustix::process::{getegid, geteuid, getgroups};

/// The mode bits of a file's group, and of those who are neither its owner nor in its group.
const GROUP: u32 = 0o070;
const OTHERS: u32 = 0o007;
const WRITE: u32 = 0o022;

/// What the kernel shows instead of a group that a user namespace does not know.
const OVERFLOW_GROUP: u32 = 65534;

/// How long a file has been left alone when it is believed to have nothing in it, or less than before.
const SETTLED: Duration = Duration::from_secs(1);

/// How often one that changes is looked at, and for how long.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOOKS: usize = 100;

/// A file that was read, and who else may read or change it.
pub(super) struct SecretFile {
    pub(super) bytes: Vec<u8>,
    exposure: Option<String>,
    doubt: Option<String>,
}

impl SecretFile {
    /// Reads a file, which had so many bytes `earlier`. One that is empty or has become shorter is read
    /// again until it was left alone for a second: an editor that writes in place empties it first. An
    /// error does not name the file.
    pub(super) fn read(path: &Path, earlier: usize) -> io::Result<Self> {
        Self::read_settled(path, earlier, || thread::sleep(LOOK_AGAIN))
    }

    fn read_settled(path: &Path, earlier: usize, mut pause: impl FnMut()) -> io::Result<Self> {
        // The latest modification, and since when it is that: the file's clock may be another one.
        let mut latest: Option<(SystemTime, Instant)> = None;
        for _ in 0..LOOKS {
            let (file, modified) = Self::read_now(path)?;
            let Some(modified) = modified.filter(|_| file.bytes.len() < earlier.max(1)) else {
                return Ok(file);
            };
            let since = latest.filter(|it| it.0 == modified).map_or_else(Instant::now, |it| it.1);
            if modified.elapsed().is_ok_and(|age| age >= SETTLED) || since.elapsed() >= SETTLED {
                return Ok(file);
            }
            latest = Some((modified, since));
            pause();
        }
        Err(io::Error::other("somebody is writing it; it is shorter than before, or empty"))
    }

    /// The file as it is, and when it was modified, unless it is no regular file.
    fn read_now(path: &Path) -> io::Result<(Self, Option<SystemTime>)> {
        let mut file = File::open(path)?;
        // Of the open file, not of the path: that may name another file by now.
        let found = file.metadata()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let modified = if found.is_file() { found.modified().ok() } else { None };
        if is_among_secrets(path) {
            return Ok((SecretFile { bytes, exposure: None, doubt: None }, modified));
        }
        let bits = found.mode() & (GROUP | OTHERS);
        let has_own_group = bits & GROUP != 0 && is_own_group(found.gid());
        let others = |group_is_tabi: bool| if group_is_tabi { bits & OTHERS } else { bits };
        // A volume of Kubernetes is root's, and has a group that tabi alone is in (`fsGroup`).
        let readers = others(has_own_group && found.uid() == 0);
        let exposure = exposure(readers, found.mode(), found.uid(), geteuid().as_raw(), path);
        // A device such as /dev/null, which everybody may write to, does not keep what is written.
        let is_changed_by_others = found.is_file() && others(has_own_group) & WRITE != 0;
        let doubt = is_changed_by_others.then(|| {
            let (path, mode) = (path.display(), found.mode() & 0o7777);
            format!(
                "{path}: others than its owner can change it (mode {mode:04o}); run: chmod go-w '{path}'"
            )
        });
        Ok((SecretFile { bytes, exposure, doubt }, modified))
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

    /// Others than its owner can change the file: what is to be said of that.
    pub(super) fn doubt(&self) -> Option<&str> {
        self.doubt.as_deref()
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

/// Whether nobody else is known to be in a group of this process: it has no name here, as in a container, or
/// it has the name of the user who runs tabi, and no further member. Groups such as `users` are not, nor is
/// root's, which some systems give to others as well.
fn is_own_group(group: u32) -> bool {
    let is_ours = getegid().as_raw() == group
        || getgroups().is_ok_and(|groups| groups.iter().any(|ours| ours.as_raw() == group));
    if !is_ours || group == 0 || group == OVERFLOW_GROUP {
        return false;
    }
    match Group::from_gid(group.into()) {
        Ok(None) => true,
        Ok(Some(named)) => User::from_uid(geteuid().as_raw().into())
            .is_ok_and(|user| user.is_some_and(|user| has_nobody_else(&named, &user))),
        Err(_) => false,
    }
}

fn has_nobody_else(group: &Group, user: &User) -> bool {
    group.gid == user.gid
        && group.name == user.name
        && group.mem.iter().all(|member| *member == user.name)
}

/// Who has access to a file with this owner and these bits for others, beside root and the user who runs tabi.
fn exposure(others: u32, mode: u32, owner: u32, runs_tabi: u32, path: &Path) -> Option<String> {
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
    if others != 0 {
        let mode = mode & 0o7777;
        return Some(format!(
            "others than its owner have access to it (mode {mode:04o}): expected 0600; \
             run: chmod 600 '{path}'. Files in $CREDENTIALS_DIRECTORY and in /run/secrets may have any mode"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(mode: u32, owner: u32, runs_tabi: u32) -> Option<String> {
        exposure(mode & 0o077, 0o100_000 | mode, owner, runs_tabi, Path::new("users"))
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
    fn a_group_of_ones_own_has_the_users_name_and_nobody_else() {
        let user = |name: &str| User {
            name: name.into(),
            gid: 65532.into(),
            ..User::from_uid(0.into()).unwrap().unwrap()
        };
        let group = |name: &str, members: &[&str]| Group {
            name: name.into(),
            gid: 65532.into(),
            mem: members.iter().map(|name| (*name).into()).collect(),
            ..Group::from_gid(0.into()).unwrap().unwrap()
        };
        assert!(has_nobody_else(&group("tabi", &[]), &user("tabi")));
        assert!(has_nobody_else(&group("tabi", &["tabi"]), &user("tabi")));
        assert!(!has_nobody_else(&group("tabi", &["alice"]), &user("tabi")));
        assert!(!has_nobody_else(&group("users", &[]), &user("tabi")));
        assert!(!is_own_group(OVERFLOW_GROUP));
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
    fn a_file_that_is_being_written_is_read_once_it_is_whole() {
        let path = std::env::temp_dir().join(format!("tabi-written-{}", std::process::id()));
        let read = |earlier, writes: &[&str]| {
            let mut writes = writes.iter();
            let mut write = || match writes.next() {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => thread::sleep(LOOK_AGAIN),
            };
            write();
            let read = SecretFile::read_settled(&path, earlier, write);
            read.map(|file| String::from_utf8(file.bytes).unwrap())
                .map_err(|error| error.to_string())
        };
        assert_eq!(read(4, &["", "de", "deny"]), Ok("deny".into()), "cut, and written again");
        assert_eq!(read(0, &["", "deny"]), Ok("deny".into()), "at the start");
        assert_eq!(read(4, &["", "de"]), Ok("de".into()), "it has become shorter for good");
        assert_eq!(read(4, &["deny", ""]), Ok("deny".into()), "it is long enough");
        assert_eq!(std::fs::read(&path).unwrap(), b"deny", "nothing was waited for");
        let for_ever = read(4, &["de", "d"].repeat(LOOKS));
        assert!(for_ever.as_ref().is_err_and(|error| error.contains("writing it")), "{for_ever:?}");
        // One whose clock is ahead.
        std::fs::write(&path, "").unwrap();
        let ahead = SystemTime::now() + Duration::from_secs(3600);
        File::options().append(true).open(&path).unwrap().set_modified(ahead).unwrap();
        assert_eq!(SecretFile::read(&path, 4).unwrap().bytes, b"");
        std::fs::remove_file(&path).unwrap();
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
