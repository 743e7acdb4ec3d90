//! Documents are short, their links resolve, they name nothing outside of the repository; and rules of the house that text can hold.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
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

/// Planning is a function of shape and core: what detects or measures is named by the code of a few files alone, tests
/// left out. A library makes cores in one place, and kernels in none.
#[test]
fn planning_asks_the_core_alone() {
    if !is_repository() {
        return;
    }
    // What a core is made of, and where it is told or made; and what has a use of its own.
    let rules: [(&str, &[&str]); 9] = [
        ("l2_bytes()", &["kernels/src/isa.rs", "kernels/src/isa/x86.rs", "kernels/src/machine.rs"]),
        ("half_registers_gain", &["kernels/src/machine.rs", "kernels/src/probe.rs"]),
        ("probe::", &["kernels/src/machine.rs"]),
        (
            "Amx.is_available",
            &["kernels/src/isa.rs", "kernels/src/isa/matrix.rs", "kernels/src/machine.rs", "src/algo/bf16x6.rs"],
        ),
        ("MatrixUnit::beside", &[]),
        ("Cpu::detect", &["kernels/src/probe.rs", "src/cpu.rs"]),
        ("cpuid", &["kernels/src/isa/matrix/amx.rs", "kernels/src/isa/x86.rs"]),
        ("Core::here", &["src/conv.rs"]),
        ("Instant", &["kernels/src/probe.rs"]),
    ];
    let mut paths = files(&root().join("kernels/src"), &[".rs"]);
    let kernels = paths.len();
    paths.extend(files(&root().join("src"), &[".rs"]));
    let (mut found, mut used) = (Vec::new(), HashSet::new());
    for (i, path) in paths.iter().enumerate() {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
        let (text, _) = untested(&read(path));
        // Of the library, tuning and training hold clocks of their own.
        let named = rules.iter().filter(|(what, _)| text.contains(what) && (*what != "Instant" || i < kernels));
        for (what, allowed) in named {
            match allowed.iter().find(|&&file| file == name) {
                Some(file) => drop(used.insert((what, file))),
                None => found.push(format!("{name} names {what}")),
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(used.len(), rules.iter().map(|(_, allowed)| allowed.len()).sum::<usize>(), "{used:?}");
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

/// Code without comments and tests, and the names of the modules that tests alone have. Paths in modules within the file are as the file
/// itself would write them.
fn untested(text: &str) -> (String, Vec<String>) {
    let (mut out, mut tests) = (String::new(), Vec::new());
    let (mut skipped, mut inner): (Option<usize>, Vec<usize>) = (None, Vec::new());
    for line in text.lines().map(|line| code(line).trim_end()).filter(|line| !line.is_empty()) {
        let (indent, item) = (line.len() - line.trim_start().len(), line.trim_start());
        if let Some(at) = skipped {
            if let Some((_, name)) = item.strip_suffix(';').and_then(|m| m.rsplit_once("mod ")).filter(|_| indent == at)
            {
                tests.push(name.to_string());
            }
            let ends = indent == at && item.ends_with([';', '}', ',']);
            skipped = skipped.filter(|_| !ends);
            continue;
        }
        if item.starts_with("#[cfg(") && item.contains("test") && !item.contains("not(test)") {
            skipped = Some(indent);
            continue;
        }
        if item == "}" && inner.last() == Some(&indent) {
            inner.pop();
        }
        let mut rest = line;
        while let Some(at) = rest.find("super::") {
            out.push_str(&rest[..at]);
            let outer = rest[at..].trim_start_matches("super::");
            let run = (rest.len() - at - outer.len()) / "super::".len();
            out.push_str(&"self::".repeat(run.min(inner.len())));
            out.push_str(&"super::".repeat(run.saturating_sub(inner.len())));
            rest = outer;
        }
        out.push_str(rest);
        out.push('\n');
        if item.ends_with('{') && (item.starts_with("mod ") || item.starts_with("pub") && item.contains(" mod ")) {
            inner.push(indent);
        }
    }
    (out, tests)
}

/// Words, `::`, and single characters.
fn tokens(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let len = match word {
            0 if rest.starts_with("::") => 2,
            0 => first.len_utf8(),
            word => word,
        };
        found.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    found
}

type Name = Vec<String>;

/// Adds the paths that begin with a path, and go on as tokens from `at` on say, with the name that each gets; returns what is behind.
fn paths(tokens: &[&str], mut at: usize, mut path: Name, found: &mut Vec<(Name, String)>) -> usize {
    let is = |at: usize, token: &str| tokens.get(at) == Some(&token);
    while let Some(&token) = tokens.get(at) {
        at += 1;
        match token {
            "{" => {
                while at < tokens.len() && !is(at, "}") {
                    let behind = paths(tokens, at, path.clone(), found);
                    at = behind.max(at + 1) + usize::from(behind > at && is(behind, ","));
                }
                return at + 1;
            }
            "*" => {
                found.push((path, "*".into()));
                return at;
            }
            _ if token.starts_with(|c: char| c.is_alphanumeric() || c == '_') => path.push(token.into()),
            _ => return at - 1,
        }
        if !is(at, "::") {
            if token == "self" {
                path.pop();
            }
            let name = if is(at, "as") { tokens.get(at + 1).copied() } else { path.last().map(String::as_str) };
            found.push((path.clone(), name.unwrap_or_default().into()));
            return at + 2 * usize::from(is(at, "as"));
        }
        at += 1;
    }
    at
}

/// The modules of a crate that are files, by their path, and what each names.
struct Modules(BTreeMap<Name, Module>);

#[derive(Default)]
struct Module {
    /// Paths of the names that it has by `use`.
    names: HashMap<String, Name>,
    /// Paths in its code.
    paths: Vec<Name>,
}

impl Modules {
    /// Of files by their names within the folder, and their texts.
    fn new(files: &[(&str, String)]) -> Self {
        let (mut modules, mut tests) = (BTreeMap::new(), Vec::new());
        for (name, text) in files {
            let name = name.trim_end_matches(".rs");
            let path: Name = name.split('/').filter(|&n| n != "lib").map(String::from).collect();
            let (text, tested) = untested(text);
            tests.extend(tested.into_iter().map(|name| [&path[..], &[name]].concat()));
            modules.insert(path, Module::of(&text));
        }
        modules.retain(|path, _| !tests.iter().any(|test| path.starts_with(test)));
        Self(modules)
    }

    fn read(folder: &Path) -> Self {
        let paths = files(folder, &[".rs"]);
        let texts = paths.iter().map(|p| (p.strip_prefix(folder).unwrap().to_str().unwrap(), read(p)));
        Self::new(&texts.collect::<Vec<_>>())
    }

    /// The file that defines what a path in a module names, also where others hand the name on; `None` for what is of another crate.
    fn find(&self, module: &[String], path: &[String], depth: usize) -> Option<Name> {
        let (first, mut rest) = path.split_first()?;
        let mut at = module.to_vec();
        match first.as_str() {
            "crate" => at.clear(),
            "self" => {}
            "super" => drop(at.pop()),
            // A child, or a name of this module.
            _ => rest = path,
        }
        while let Some((next, behind)) = rest.split_first() {
            let child = [&at[..], std::slice::from_ref(next)].concat();
            match next.as_str() {
                "self" => {}
                "super" => drop(at.pop()),
                _ if self.0.contains_key(&child) => at = child,
                name => {
                    let handed = self.0.get(&at).and_then(|module| module.names.get(name));
                    return match handed.filter(|path| depth < 8 && path[0] != *name) {
                        Some(path) => self.find(&at, &[path, behind].concat(), depth + 1),
                        // What begins with no module of this crate begins with another crate.
                        None => (rest.len() < path.len()).then_some(at),
                    };
                }
            }
            rest = behind;
        }
        Some(at)
    }

    /// Which module names which, and by which path.
    fn imports(&self) -> impl Iterator<Item = (&Name, Name, &Name)> {
        self.0.iter().flat_map(move |(name, module)| {
            module.paths.iter().filter_map(move |path| Some((name, self.find(name, path, 0)?, path)))
        })
    }

    /// Cycles among the modules of a folder, each with what it consists of. What a module has from its folder's own file, and that file
    /// from it, is no cycle: a parent knows its children, and children its types.
    fn cycles(&self) -> Vec<String> {
        let mut folders: BTreeMap<&[String], BTreeMap<&str, BTreeMap<String, String>>> = BTreeMap::new();
        for (from, to, path) in self.imports() {
            let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
            if common < from.len().min(to.len()) {
                let why = format!("{} names {}", from.join("::"), path.join("::"));
                let folder = folders.entry(&from[..common]).or_default();
                folder.entry(&from[common]).or_default().entry(to[common].clone()).or_insert(why);
            }
        }
        let mut found = Vec::new();
        for graph in folders.values() {
            let mut known = HashSet::new();
            for &start in graph.keys() {
                if known.contains(start) {
                    continue;
                }
                // The shortest way back: each module that is reached, with the one before it.
                let (mut before, mut next) = (HashMap::new(), VecDeque::from([start]));
                while let Some(at) = next.pop_front().filter(|_| !before.contains_key(start)) {
                    for to in graph.get(at).into_iter().flat_map(BTreeMap::keys) {
                        if !before.contains_key(to.as_str()) {
                            before.insert(to.as_str(), at);
                            next.push_back(to);
                        }
                    }
                }
                if let Some(&last) = before.get(start) {
                    let mut way = vec![start, last];
                    while way[way.len() - 1] != start {
                        way.push(before[way[way.len() - 1]]);
                    }
                    way.reverse();
                    let why: Vec<_> = way.windows(2).map(|w| graph[w[0]][w[1]].as_str()).collect();
                    found.push(format!("{}: {}", way.join(" -> "), why.join(", ")));
                    known.extend(way);
                }
            }
        }
        found
    }
}

impl Module {
    fn of(text: &str) -> Self {
        let tokens = tokens(text);
        let mut module = Self::default();
        let mut at = 0;
        // What `use` names comes first, since code may begin a path with it.
        let mut code = Vec::new();
        while at < tokens.len() {
            if tokens[at] == "use" {
                let mut found = Vec::new();
                at = paths(&tokens, at + 1, Vec::new(), &mut found).max(at + 1);
                module.paths.extend(found.iter().map(|(path, _)| path.clone()).filter(|path| !path.is_empty()));
                module
                    .names
                    .extend(found.into_iter().filter(|(path, _)| !path.is_empty()).map(|(path, name)| (name, path)));
            } else {
                code.push(tokens[at]);
                at += 1;
            }
        }
        for at in 1..code.len().saturating_sub(1) {
            let begins = matches!(code[at], "crate" | "self" | "super") || module.names.contains_key(code[at]);
            if begins && code[at + 1] == "::" && code[at - 1] != "::" {
                let mut found = Vec::new();
                paths(&code, at, Vec::new(), &mut found);
                module.paths.extend(found.into_iter().map(|(path, _)| path));
            }
        }
        module
    }
}

#[test]
fn imports_are_found_in_lists_through_other_names_and_outside_of_tests() {
    let files = |files: &[(&'static str, &str)]| {
        let files: Vec<_> = files.iter().map(|&(name, text)| (name, text.to_string())).collect();
        Modules::new(&files)
    };
    // `low` names `high` by the name that the crate's root hands on; `tests` may do what it likes.
    let modules = files(&[
        ("lib.rs", "pub mod high;\nmod low;\npub use high::{\n    self as above,\n    Thing,\n};"),
        (
            "low.rs",
            "use crate::Thing; // crate::nothing\n#[cfg(test)]\nmod tests;\n#[cfg(all(test, unix))]\nmod more {\n    use crate::more::A;\n}",
        ),
        ("low/tests.rs", "use crate::more::A;"),
        ("more.rs", "fn f() {\n    crate::low::g();\n}"),
        ("high.rs", "use std::fmt;\n\nuse crate::{\n    more::{A, B as C},\n};"),
    ]);
    assert_eq!(
        modules.cycles(),
        ["high -> more -> low -> high: high names crate::more::A, more names crate::low::g, low names crate::Thing"]
    );
    // Children may use their parent, and it them; but not each other in a circle. A module within a file is one of its own.
    let modules = files(&[
        ("a.rs", "mod b;\nmod c;\nuse b::B;\npub use c::C;\nstruct A;"),
        ("a/b.rs", "use super::{A, C};\n\nmod inner {\n    use super::D;\n}"),
        ("a/c.rs", "use super::b;\n\nstruct C(b::B);"),
        ("b.rs", "use crate::a;"),
    ]);
    assert_eq!(modules.cycles(), ["b -> c -> b: a::b names super::C, a::c names super::b"]);
}

#[test]
fn no_modules_import_each_other_in_a_cycle() {
    for (folder, known) in [("src", 200), ("kernels/src", 90), ("tools/src", 40)] {
        let folder = root().join(folder);
        if !folder.is_dir() {
            continue; // the published package
        }
        let modules = Modules::read(&folder);
        assert!(modules.0.len() >= known && modules.imports().count() >= 5 * known, "{}", folder.display());
        let cycles = modules.cycles();
        assert!(cycles.is_empty(), "{}: {cycles:#?}", folder.display());
    }
}

#[test]
fn imports_point_to_the_same_floor_or_to_lower_ones() {
    for (folder, known) in [("src", 20), ("kernels/src", 25)] {
        let folder = root().join(folder);
        if !folder.is_dir() {
            continue; // the published package
        }
        let modules = Modules::read(&folder);
        let listed = floors(&read(&folder.join("lib.rs")));
        assert!(listed.len() >= known, "{listed:?}");
        // The map names some modules by the type that they are for.
        let module = |name: &str| modules.find(&[], &["crate".into(), name.into()], 0)?.first().cloned();
        let floors: HashMap<String, usize> =
            listed.iter().filter_map(|(name, floor)| Some((module(name)?, *floor))).collect();
        let mut found = Vec::new();
        for (from, to, path) in modules.imports() {
            let floor = |name: &Name| floors.get(name.first()?).copied();
            if let (Some(own), Some(other)) = (floor(from), floor(&to))
                && other > own
            {
                found.push(format!(
                    "`{}` of floor {own} names `{}` of floor {other}",
                    from.join("::"),
                    path.join("::")
                ));
            }
        }
        assert!(found.is_empty(), "{}: {found:#?}", folder.display());
    }
}
