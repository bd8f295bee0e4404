//! How ports were before they were set: one small file a port, for the case that we are killed.
//!
//! Contract: a file is there from before the first change until the last one is put back. It is whole, or not there. It is
//! of one port of one network namespace, and names the process that is to put it back: as long as that one runs, nobody else does.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::tune::{self, Change};
use crate::capture::nic::Port;

/// The longest file that is read: tables of RSS have thousands of entries.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a run has changed about a port and has not put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The port.
    pub interface: String,
    /// Its number.
    pub index: u32,
    /// Who changed it.
    pub process: u32,
    /// When that process started, in ticks since the machine did: numbers of processes are used again.
    pub started: u64,
    /// What was changed, in this order.
    pub changes: Vec<Change>,
}

impl Left {
    /// Whether the process that is to put it back still runs.
    pub fn is_running(&self) -> bool {
        started(self.process) == Some(self.started)
    }
}

/// The directory that the files are in, for one network namespace.
#[derive(Clone, Debug)]
pub struct StateDir {
    dir: PathBuf,
    namespace: u64,
}

impl StateDir {
    /// What there is. Files that cannot be read are told, and left.
    pub fn look(dir: &Path) -> (Self, Vec<Left>) {
        let namespace = fs::metadata("/proc/thread-self/ns/net").map_or(0, |found| found.ino());
        let state = Self { dir: dir.to_owned(), namespace };
        let ours = format!("port-{namespace}-");
        let mut left = Vec::new();
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !(name.starts_with(&ours) && name.ends_with(".json")) {
                continue;
            }
            match read(&entry.path()) {
                Ok(found) => left.push(found),
                Err(error) => tracing::warn!(
                    "{} cannot be read: {error}: how a port was before --tune is lost; remove it",
                    entry.path().display()
                ),
            }
        }
        (state, left)
    }

    /// Whether it is about this port.
    pub fn is_of(&self, left: &Left, port: &Port) -> bool {
        left.index == port.interface.index && left.interface == port.name
    }

    /// What this process is about to change.
    pub(super) fn left(&self, port: &Port, changes: Vec<Change>) -> Left {
        let process = std::process::id();
        Left {
            interface: port.name.clone(),
            index: port.interface.index,
            process,
            started: started(process).unwrap_or(0),
            changes,
        }
    }

    /// The file.
    pub fn path_of(&self, left: &Left) -> PathBuf {
        self.dir.join(format!("port-{}-{}.json", self.namespace, left.index))
    }

    /// Writes it, at once: a reader sees the old file or the new one.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn write(&self, left: &Left) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let path = self.path_of(left);
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec(left)?)?;
        fs::rename(new, path)
    }

    /// Puts a port back, and forgets how it was. Whether that could be done.
    pub fn put_back(&self, left: &Left) -> bool {
        if !tune::put_back(left) {
            return false;
        }
        let path = self.path_of(left);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("{} cannot be removed: {error}", path.display());
        }
        true
    }
}

fn read(path: &Path) -> io::Result<Left> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

/// When a process started; `None` when there is none of this number.
fn started(process: u32) -> Option<u64> {
    /// Fields between the name and the time of the start, which is the 22nd of all.
    const FIELDS_BETWEEN: usize = 19;
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may hold anything, brackets too.
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_whitespace().nth(FIELDS_BETWEEN)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::findings::good_port;
    use super::super::tune::Setting;
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("flowscope-state-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn change() -> Change {
        let ring = |frames| Setting::Ring { frames };
        Change { old: ring(512), new: ring(4096) }
    }

    #[test]
    fn what_is_written_is_found_again_by_whoever_looks() {
        let scratch = Scratch::new("found");
        let (state, left) = StateDir::look(&scratch.0);
        assert_eq!(left, [], "there is no directory yet");
        let port = good_port();
        let mine = state.left(&port, vec![change()]);
        state.write(&mine).unwrap();
        let (again, left) = StateDir::look(&scratch.0);
        assert_eq!(left, std::slice::from_ref(&mine));
        assert!(again.is_of(&left[0], &port) && left[0].is_running());
        let mut other = port.clone();
        other.interface.index += 1;
        assert!(!again.is_of(&left[0], &other), "a port that came after it under the same name");
        // Its interface does not exist: nothing is left to put back, and the file goes.
        assert!(again.put_back(&left[0]));
        assert_eq!(StateDir::look(&scratch.0).1, []);
    }

    #[test]
    fn a_process_is_known_by_when_it_started() {
        let scratch = Scratch::new("process");
        let (state, _) = StateDir::look(&scratch.0);
        let mine = state.left(&good_port(), vec![change()]);
        assert!(mine.is_running());
        assert!(
            !Left { started: mine.started + 1, ..mine.clone() }.is_running(),
            "its number again"
        );
        assert!(!Left { process: u32::MAX, ..mine }.is_running());
    }

    #[test]
    fn a_file_that_is_cut_is_left_where_it_is() {
        let scratch = Scratch::new("cut");
        let (state, _) = StateDir::look(&scratch.0);
        let mine = state.left(&good_port(), vec![change()]);
        state.write(&mine).unwrap();
        let path = state.path_of(&mine);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        assert_eq!(StateDir::look(&scratch.0).1, []);
        assert!(path.exists());
    }
}
