//! The control groups of this process (cgroups(7)), of version 1 and of version 2.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Where control groups are mounted.
const GROUPS: &str = "/sys/fs/cgroup";

/// Where the groups lie that count what `controller` does: that of this process, and those around it.
pub(super) fn of(controller: &str) -> Vec<PathBuf> {
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let found = group_paths(&groups, controller);
    let all = found.iter().flat_map(|path| path.ancestors());
    all.map(|path| Path::new(GROUPS).join(path)).collect()
}

/// The groups that the text of `/proc/self/cgroup` lists, below [`GROUPS`]: that of version 2, and the one of
/// version 1 with this controller.
fn group_paths(groups: &str, controller: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let folder = match fields.next()? {
            "" => "",
            controllers if controllers.split(',').any(|name| name == controller) => controller,
            _ => return None,
        };
        Some(Path::new(folder).join(fields.next()?.trim_start_matches('/')))
    };
    groups.lines().filter_map(path).collect()
}

/// The number that a file of the system holds.
pub(super) fn number(file: &Path) -> Option<usize> {
    read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_groups_of_both_versions_are_found() {
        let groups = "9:memory:/other\n8:cpu,pids:/box/tabi\n0::/system.slice/tabi.service\n";
        let found = group_paths(groups, "pids");
        assert_eq!(found, ["pids/box/tabi", "system.slice/tabi.service"].map(PathBuf::from));
        assert_eq!(group_paths(groups, "memory")[0], Path::new("memory/other"));
    }
}
