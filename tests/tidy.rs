//! How the repository looks, as a test: what the style page says and a machine can check.

use std::path::Path;
use std::process::Command;

/// A file is one noun; past this many lines, tests and blank ones aside, it is two.
const SOURCE_LINES_MAX: usize = 600;

/// What the top level may hold.
const TOP_LEVEL: [&str; 14] = [
    "Cargo.toml",
    "Cargo.lock",
    "CHANGELOG.md",
    "README.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "rustfmt.toml",
    "deny.toml",
    "src",
    "bpf",
    "bench",
    "scripts",
    "tests",
    "docs",
];

/// Left over from writing. Spelled in two parts, or this file would hold them.
const LEFTOVERS: [&str; 4] = [
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
    concat!("FIX", "ME"),
];

/// Hosts of package registries, and folders of the machines that this is written on: neither means
/// anything to who reads the repository.
const FOREIGN: [&str; 9] = [
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("npmjs", ".org"),
    concat!("deb.debian", ".org"),
    concat!("security.debian", ".org"),
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
];

/// Every tracked text file with its name; `None` where this is not a git checkout (a packaged crate).
fn tracked() -> Option<Vec<(String, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output().ok()?;
    if !out.status.success() || !root.join(".git").exists() {
        return None;
    }
    let names = String::from_utf8(out.stdout).expect("file names are UTF-8");
    let names = names.split('\0').filter(|name| !name.is_empty());
    // A file that is deleted but not yet committed is still listed; a capture is not text.
    let texts = names.filter_map(|name| {
        std::fs::read_to_string(root.join(name)).ok().map(|text| (name.to_owned(), text))
    });
    Some(texts.collect())
}

/// Runs `check` on every tracked file and fails with all that it found.
fn no_finding(check: impl Fn(&str, &str) -> Vec<String>) {
    let Some(files) = tracked() else {
        eprintln!("SKIPPED: not a git checkout");
        return;
    };
    assert!(files.len() > 10, "git lists too few files to be true");
    let found: Vec<_> = files.iter().flat_map(|(name, text)| check(name, text)).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Lines that hold any of `words`, as `file:line: word`.
fn lines_with(name: &str, text: &str, words: &[&str]) -> Vec<String> {
    let hits = text.lines().enumerate().flat_map(|(index, line)| {
        let hit = words.iter().filter(move |word| line.contains(**word));
        hit.map(move |word| format!("{name}:{}: {word}", index + 1))
    });
    hits.collect()
}

#[test]
fn the_top_level_holds_only_what_belongs_there() {
    no_finding(|name, _| {
        let top = name.split('/').next().unwrap_or_default();
        let fits = top.starts_with('.') || TOP_LEVEL.contains(&top);
        if fits { vec![] } else { vec![format!("{name}: does not belong at the top level")] }
    });
}

#[test]
fn source_files_are_short() {
    no_finding(|name, text| {
        let source = name.starts_with("src/") && name.ends_with(".rs");
        if !source || name.ends_with("/tests.rs") || name.contains("/tests/") {
            return vec![];
        }
        let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
        let lines = lines.filter(|line| !line.is_empty()).count();
        if lines <= SOURCE_LINES_MAX {
            return vec![];
        }
        vec![format!("{name}: {lines} lines, more than {SOURCE_LINES_MAX}")]
    });
}

#[test]
fn nothing_is_left_over_in_the_source() {
    no_finding(
        |name, text| {
            if name.starts_with("src/") { lines_with(name, text, &LEFTOVERS) } else { vec![] }
        },
    );
}

/// Neither does the sensor, nor may a unit test: until a child has become another program it holds open what any other test writes just
/// then, and such a file can be had under no lease.
#[test]
fn nothing_in_the_source_starts_another_program() {
    let words = ["process::Command", "Command::new(\""];
    no_finding(
        |name, text| {
            if name.starts_with("src/") { lines_with(name, text, &words) } else { vec![] }
        },
    );
}

#[test]
fn no_file_names_a_registry_host_or_a_folder_of_ours() {
    no_finding(|name, text| {
        // cargo writes its registry into its lock files.
        if name.ends_with("Cargo.lock") { vec![] } else { lines_with(name, text, &FOREIGN) }
    });
}

#[test]
fn modules_are_files_beside_their_folder() {
    no_finding(|name, _| {
        let odd = name.starts_with("src/") && name.ends_with("/mod.rs");
        if odd { vec![format!("{name}: say foo.rs beside foo/")] } else { vec![] }
    });
}
