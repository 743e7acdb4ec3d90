//! Documents are short, their links resolve, they name nothing outside of the repository; and rules of the house that text can hold.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files below a folder whose names end so, in order; build outputs and hidden folders left out.
fn files(folder: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !name.starts_with('.') && !name.starts_with("target") {
            found.extend(files(&path, endings));
        } else if path.is_file() && endings.iter().any(|e| name.ends_with(e)) {
            found.push(path);
        }
    }
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Lines that hold a text, as `file:line`.
fn lines_with<'a>(paths: &'a [PathBuf], wanted: impl Fn(&str) -> bool + 'a) -> Vec<String> {
    let mut found = Vec::new();
    for path in paths {
        for (i, line) in read(path).lines().enumerate().filter(|(_, line)| wanted(line)) {
            found.push(format!("{}:{}: {}", path.strip_prefix(root()).unwrap().display(), i + 1, line.trim()));
        }
    }
    found
}

/// What stands before a comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap()
}

/// Whether this is the repository, not the published package, which lacks most documents.
fn is_repository() -> bool {
    root().join("docs").is_dir() && root().join("kernels/src").is_dir()
}

/// Targets of the links of a document: `](target)` outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let after = line.split("](").skip(1);
            found.extend(after.filter_map(|rest| Some(rest.split_once(')')?.0.to_string())));
        }
    }
    found
}

#[test]
fn links_are_found_outside_of_code() {
    let text = "[a](b.md) and [c](d.md#e)\n```\n[no](f.md)\n```\n[g](https://h)";
    assert_eq!(links(text), ["b.md", "d.md#e", "https://h"]);
}

#[test]
fn documents_are_short() {
    if !is_repository() {
        return;
    }
    for (name, most) in [("README.md", 8), ("docs/architecture.md", 10)] {
        let bytes = read(&root().join(name)).len();
        assert!(bytes <= most * 1024, "{name} has {bytes} bytes, at most {} are allowed", most * 1024);
    }
}

#[test]
fn relative_links_resolve() {
    if !is_repository() {
        return;
    }
    let (mut checked, mut broken) = (0, Vec::new());
    for document in files(root(), &[".md"]) {
        for link in links(&read(&document)) {
            let target = link.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            checked += 1;
            if !document.parent().unwrap().join(target).exists() {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checked > 20, "only {checked} links were found");
}

#[test]
fn nothing_points_outside_of_the_repository() {
    if !is_repository() {
        return;
    }
    let paths: Vec<_> = files(root(), &[".md", ".rs", ".toml", ".py", ".sh"])
        .into_iter()
        .filter(|p| !p.ends_with("tests/documents.rs"))
        .collect();
    let outside = ["../shared", "/work/", "design.md", "house.md", "ARCHITECTURE.md"];
    let scripts = ["bench_layers.py", "bench_models.py", "bench_training.py", "train_mnist_cnn.py"];
    let found = lines_with(&paths, |line| outside.iter().chain(&scripts).any(|o| line.contains(o)));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn rayon_is_named_by_the_code_of_par_only() {
    let paths: Vec<_> = files(&root().join("src"), &[".rs"])
        .into_iter()
        .filter(|p| !p.ends_with("src/par.rs") && !p.parent().unwrap().ends_with("src/par"))
        .collect();
    assert!(paths.len() > 50);
    let found = lines_with(&paths, |line| code(line).contains("rayon"));
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn unsafe_code_is_in_the_kernel_crate_only() {
    assert!(read(&root().join("src/lib.rs")).contains("#![forbid(unsafe_code)]"));
    let found = lines_with(&files(&root().join("src"), &[".rs"]), |line| {
        code(line).split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn kernels_read_no_environment_and_no_files() {
    if !is_repository() {
        return;
    }
    let paths = files(&root().join("kernels/src"), &[".rs"]);
    assert!(paths.len() > 50);
    let found = lines_with(&paths, |line| {
        ["std::env", "std::fs", "std::io", "std::net", "std::process"].iter().any(|m| code(line).contains(m))
    });
    assert!(found.is_empty(), "{found:#?}");
}

/// Modules of a crate with their floors, as the map in the documentation of its `lib.rs` has them.
fn floors(lib: &str) -> Vec<(String, usize)> {
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | ")?.split_once(" | "));
    let mut found = Vec::new();
    for (floor, rest) in rows.filter_map(|(floor, rest)| Some((floor.parse().ok()?, rest))) {
        let names = rest.split(" |").next().unwrap().split('`').skip(1).step_by(2);
        found.extend(names.map(|name| (name.trim_end_matches("()").to_string(), floor)));
    }
    found
}

/// Names behind `crate::` in a line of code.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    code(line).split("crate::").skip(1).flat_map(|rest| {
        let end = |c: char| !c.is_alphanumeric() && c != '_';
        let list = rest.strip_prefix('{').map(|list| list.split(", ").collect()).unwrap_or_else(|| vec![rest]);
        list.into_iter().map(move |name| name.split(end).next().unwrap())
    })
}

#[test]
fn imports_point_to_the_same_floor_or_to_lower_ones() {
    assert!(imports("use crate::{isa::Level, tile};").eq(["isa", "tile"]));
    assert!(imports("use crate::par; // crate::nn").eq(["par"]));
    for (folder, known) in [("src", 20), ("kernels/src", 25)] {
        let folder = root().join(folder);
        if !folder.is_dir() {
            continue; // the published package
        }
        let floors = floors(&read(&folder.join("lib.rs")));
        assert!(floors.len() >= known, "{floors:?}");
        let floor = |module: &str| floors.iter().find(|(name, _)| name == module).map(|&(_, floor)| floor);
        let mut found = Vec::new();
        for path in files(&folder, &[".rs"]) {
            let inside = path.strip_prefix(&folder).unwrap();
            let module = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
            // The list of all kernel tables is of the floor that its macros are needed on.
            let Some(own) = floor(module).filter(|_| module != "registry") else { continue };
            let text = read(&path);
            let text = text.split("#[cfg(test)]").next().unwrap();
            for name in text.lines().flat_map(imports).filter(|&name| (module, name) != ("isa", "registry")) {
                if floor(name).is_some_and(|other| other > own) {
                    found.push(format!("{}: `{module}` of floor {own} imports `{name}`", path.display()));
                }
            }
        }
        assert!(found.is_empty(), "{found:#?}");
    }
}
