//! The reference captures: every one is read to its end, and has as many frames as its expected totals say.

use std::path::{Path, PathBuf};

use super::*;

/// `None`, said aloud, where the reference captures are absent. CI must have them.
fn captures() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/captures");
    if root.is_dir() {
        return Some(root);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "CI needs the reference captures at {}",
        root.display()
    );
    eprintln!("SKIPPED: no reference captures at {}", root.display());
    None
}

#[test]
fn every_reference_capture_has_as_many_frames_as_expected() {
    let Some(root) = captures() else { return };
    let mut read = 0;
    for entry in std::fs::read_dir(root.join("captures")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let expected =
            std::fs::read_to_string(root.join(format!("expected/{name}.outer.tsv"))).unwrap();
        let packets = expected.lines().find_map(|line| line.strip_prefix("#packets\t")).unwrap();
        let mapped = CaptureFiles::open(&[&path], OpenOptions::new().mmap(true)).unwrap();
        assert_eq!(mapped.bytes_total(), Some(path.metadata().unwrap().len()));
        let streamed = CaptureFiles::open(&[&path], OpenOptions::new().mmap(false)).unwrap();
        let (frames, errors) = drained(mapped);
        assert_eq!(errors, Vec::<String>::new(), "{name}");
        assert_eq!(frames.len(), packets.parse::<usize>().unwrap(), "{name}");
        assert_eq!((frames, errors), drained(streamed), "{name}: mapped and streamed differ");
        read += 1;
    }
    assert!(read >= 44, "only {read} captures found");
}
