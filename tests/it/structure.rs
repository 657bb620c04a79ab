//! The order of the modules, as CONTRIBUTING draws it, and how long a file may be.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From the top down. A module may use what stands in a later row, never its own row or an earlier one.
const ROWS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["captioner"],
    &["evaluate", "bench"],
    &["train", "inspect"],
    &["caption"],
    &["checkpoint", "data", "hub", "metrics"],
    &["generate"],
    &["model", "device"],
    &["text", "image"],
    &["damage", "encoding", "escape", "lenient_json", "lfs", "plural", "quoting"],
];

/// Most lines of a source file.
const MOST_LINES: usize = 600;

/// Most lines of a function.
const MOST_LINES_OF_A_FUNCTION: usize = 80;

/// Functions that are a table.
const TABLES: &[&str] = &["src/metrics/ptb_rules.rs: rules"];

fn sources() -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found.sort();
    found
}

/// The module at the top level that `path` belongs to: `cli` of `src/cli/train.rs`.
fn module(path: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let first = path.strip_prefix(root).unwrap().iter().next().unwrap();
    Path::new(first).file_stem().unwrap().to_str().unwrap().to_string()
}

/// Whether a file holds tests only, by its name or its folder's: those may use all of the library.
fn is_test(path: &Path) -> bool {
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let stem = name(path);
    stem == "tests"
        || stem == "shared"
        || stem.ends_with("_tests")
        || path.parent().is_some_and(|at| name(at) == "tests")
}

/// The modules that `text` uses by `crate::`, with the line of each first use. Comments do not count,
/// nor does what follows the line that begins a file's tests.
fn uses(text: &str) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let begins_tests = line.trim() == "#[cfg(test)]"
            || line.trim_start().starts_with("#[cfg(all(test")
            || line.trim_start().starts_with("#[cfg(any(test");
        if begins_tests
            && lines.peek().is_some_and(|(_, next)| next.starts_with("mod ") && next.ends_with('{'))
        {
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        for rest in code.split("crate::").skip(1) {
            let names = rest.strip_prefix('{').unwrap_or(rest);
            let name: String =
                names.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.entry(name).or_insert(number + 1);
        }
    }
    found
}

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// What breaks the order in one file.
fn violations(module: &str, text: &str) -> Vec<String> {
    let Some(own) = row(module) else {
        return vec![format!("{module} has no row in tests/it/structure.rs: give it one")];
    };
    uses(text)
        .into_iter()
        .filter(|(name, _)| name != module)
        .filter_map(|(name, line)| match row(&name) {
            Some(other) if other > own => None,
            Some(_) => {
                Some(format!("line {line}: {module} uses {name}, which stands above or beside it"))
            }
            // An item of the crate's root, or of a module that is for tests.
            None => None,
        })
        .collect()
}

#[test]
fn modules_use_only_what_stands_below_them() {
    let mut broken = Vec::new();
    for path in sources().iter().filter(|path| !is_test(path)) {
        let module = module(path);
        if module == "lib" {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        broken.extend(
            violations(&module, &text)
                .into_iter()
                .map(|problem| format!("{}: {problem}", path.display())),
        );
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn an_arrow_that_turns_back_is_found() {
    let up = "//! See crate::cli.\nuse std::fs;\n\nuse crate::train::Plan;\n";
    let problems = violations("model", up);
    assert_eq!(problems, ["line 4: model uses train, which stands above or beside it"]);
    assert_eq!(
        violations("inspect", up),
        ["line 4: inspect uses train, which stands above or beside it"]
    );
    assert_eq!(violations("cli", up), Vec::<String>::new());
    let within = "fn f() -> crate::cli::Outcome { todo!() }\n#[cfg(test)]\nmod tests {\n    use crate::train::X;\n}\n";
    assert_eq!(violations("data", within).len(), 1);
    assert_eq!(violations("nowhere", "").len(), 1);
}

#[test]
fn no_source_file_is_longer_than_it_may_be() {
    let long: Vec<String> = sources()
        .iter()
        .map(|path| (path, fs::read_to_string(path).unwrap().lines().count()))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(path, lines)| format!("{}: {lines} lines; split it by idea", path.display()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// The functions of a formatted file, each with its lines.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let Some(at) = code.find("fn ") else { continue };
        let is_declared = code[..at].split_whitespace().all(|word| {
            word.starts_with("pub") || word.ends_with(')') || ["const", "async"].contains(&word)
        });
        if !is_declared {
            continue;
        }
        let name = code[at + 3..].split(['(', '<']).next().unwrap().to_string();
        let end = format!("{indent}}}");
        let length = lines[first..].iter().position(|line| *line == end);
        // One that ends where it begins, or is only declared, has no closing line of its own.
        if let Some(length) = length.filter(|_| !line.ends_with([';', '}'])) {
            found.push((name, length + 1));
        }
    }
    found
}

#[test]
fn no_function_is_longer_than_it_may_be() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut long = Vec::new();
    for path in sources().iter().filter(|path| !is_test(path)) {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        for (function, lines) in functions(&fs::read_to_string(path).unwrap()) {
            let function = format!("{name}: {function}");
            if lines > MOST_LINES_OF_A_FUNCTION && !TABLES.contains(&function.as_str()) {
                long.push(format!("{function}: {lines} lines; split it by idea"));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn functions_are_measured_from_their_name_to_their_end() {
    let text = "pub(super) fn long<T>(x: T)\n{\n    f();\n}\n\nimpl A {\n    fn short() {}\n    \
                const fn two(&self) {\n    }\n}\n// the fn of a word\n";
    assert_eq!(functions(text), [("long".into(), 4), ("two".into(), 2)]);
}
