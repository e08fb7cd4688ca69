//! Holds the architecture: what may import what, where `unsafe` may be, how files are kept.
//!
//! It reads the sources as text. Modules are listed in `src/lib.rs` in the order of their
//! layers, and each may name only those above it; the program's own modules (`main.rs` and
//! what it declares) stand on top of all. Comments do not count, so documentation may point
//! upwards.

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn modules_import_only_from_the_layers_below() {
    assert_none(&imports_upwards(&sources(&["src"])));
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    assert_none(&unsafe_outside_sys(&sources(&["src"])));
}

#[test]
fn every_file_says_what_it_is_for() {
    assert_none(&without_opening_words(&sources(&[
        "src", "tests", "benches", "perf",
    ])));
}

#[test]
fn no_file_is_too_long_to_read() {
    assert_none(&too_long(&sources(&["src", "tests", "benches", "perf"])));
}

/// Lines of code in one file, without blank lines, comments, and tests at its foot.
const LINES_OF_CODE_MAX: usize = 350;
/// The same for tests, which are lists of cases in good part.
const LINES_OF_TESTS_MAX: usize = 500;

/// A file of the repository: its path from the root, and its text.
type Source = (String, String);

fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in folders {
        collect(&root.join(folder), root, &mut found);
    }
    assert!(
        found
            .iter()
            .any(|(path, _)| path == "src/lib.rs" || path == "tests/layers.rs")
    );
    found
}

fn collect(folder: &Path, root: &Path, found: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, root, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

fn imports_upwards(sources: &[Source]) -> Vec<String> {
    let text_of = |wanted: &str| {
        let source = sources.iter().find(|(path, _)| path == wanted);
        source
            .map(|(_, text)| without_comments(text))
            .unwrap_or_default()
    };
    let layers = declared_modules(&text_of("src/lib.rs"));
    let program = declared_modules(&text_of("src/main.rs"));

    let mut violations = Vec::new();
    for (path, text) in sources {
        let inside = path.strip_prefix("src/").unwrap();
        let module = inside.split('/').next().unwrap().trim_end_matches(".rs");
        if ["lib", "main", "build"].contains(&module) || program.iter().any(|name| name == module) {
            continue;
        }
        let Some(own) = layers.iter().position(|layer| layer == module) else {
            violations.push(format!(
                "{path}: neither src/lib.rs nor src/main.rs declares it"
            ));
            continue;
        };
        let code = without_comments(text);
        for name in named_modules(&code, depth(inside)) {
            if layers
                .iter()
                .position(|layer| *layer == name)
                .is_some_and(|other| other > own)
            {
                violations.push(format!(
                    "{path}: `{module}` names `{name}`, a layer above it"
                ));
            }
        }
        if code.contains("softnet::") {
            violations.push(format!("{path}: the library names itself from outside"));
        }
    }
    violations
}

fn unsafe_outside_sys(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|(path, _)| !path.starts_with("src/sys/"))
        .filter(|(_, text)| words(&without_comments(text)).any(|word| word == "unsafe"))
        .map(|(path, _)| format!("{path}: `unsafe` outside of src/sys"))
        .collect()
}

fn without_opening_words(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(path, _)| format!("{path}: does not open with `//!` and what it is for"))
        .collect()
}

fn too_long(sources: &[Source]) -> Vec<String> {
    let lines_of_code = |text: &str| {
        without_comments(text)
            .lines()
            .map(str::trim)
            .take_while(|line| *line != "#[cfg(test)]")
            .filter(|line| !line.is_empty())
            .count()
    };
    let limit = |path: &str| {
        if path.starts_with("tests/") {
            LINES_OF_TESTS_MAX
        } else {
            LINES_OF_CODE_MAX
        }
    };
    sources
        .iter()
        .map(|(path, text)| (path, lines_of_code(text), limit(path)))
        .filter(|(_, lines, limit)| lines > limit)
        .map(|(path, lines, limit)| format!("{path}: {lines} lines of code, over {limit}"))
        .collect()
}

/// The modules that a file declares, in its order; those declared inline with `{` are not.
fn declared_modules(code: &str) -> Vec<String> {
    let names = code.lines().filter_map(|line| {
        let (before, name) = line.strip_suffix(';')?.split_once("mod ")?;
        (before.is_empty() || before.starts_with("pub")).then(|| name.to_owned())
    });
    names.collect()
}

/// How many `super::` lead from a file's module to the root of the crate.
fn depth(path_in_src: &str) -> usize {
    let parts = path_in_src.split('/').count();
    if path_in_src.ends_with("/mod.rs") {
        parts - 1
    } else {
        parts
    }
}

/// The modules at the root of the crate that a file names: `crate::x`, `crate::{x, y::z}`,
/// and the same through as many `super::` as reach the root.
fn named_modules(code: &str, depth: usize) -> Vec<String> {
    let to_root = "super::".repeat(depth);
    let mut names = Vec::new();
    for prefix in ["crate::", to_root.as_str()] {
        for (at, _) in code.match_indices(prefix) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|char| is_word(char) || char == ':' || char == '$') {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(group) => names.extend(first_words(group)),
                None => names.extend(words(rest).next().map(str::to_owned)),
            }
        }
    }
    names
}

/// The first word of each entry of a `use` group that was just opened.
fn first_words(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut nesting, mut entry) = (0, String::new());
    for char in group.chars() {
        match char {
            '}' if nesting == 0 => break,
            ',' if nesting == 0 => names.push(std::mem::take(&mut entry)),
            _ => {
                nesting += i32::from(char == '{') - i32::from(char == '}');
                entry.push(char);
            }
        }
    }
    names.push(entry);
    names
        .iter()
        .filter_map(|entry| words(entry).next().map(str::to_owned))
        .collect()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|char| !is_word(char))
        .filter(|word| !word.is_empty())
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// A text without its `//` comments. What follows `//` in a literal is lost too, up to the
/// end of that line.
fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap().trim_end().to_owned() + "\n")
        .collect()
}

// --- that the checks above can fail ---

fn planted(path: &str, text: &str) -> Vec<Source> {
    let lib = "//! Lib.\npub mod wire;\n\nmod sys;\n\npub mod forward;\n";
    let main = "//! Main.\nmod cli;\nfn main() {}\n";
    [("src/lib.rs", lib), ("src/main.rs", main), (path, text)]
        .map(|(path, text)| (path.to_owned(), text.to_owned()))
        .to_vec()
}

#[test]
fn a_planted_import_upwards_is_caught() {
    for text in [
        "use crate::forward::Lane;",
        "use crate::{\n    wire::x, // sys\n    forward::{A, B},\n};",
        "fn f() { let _ = crate::forward::start(); }",
        "use super::super::forward;",
        "pub use super::super::{forward};",
    ] {
        let found = imports_upwards(&planted("src/wire/arp.rs", text));
        assert_eq!(
            found,
            ["src/wire/arp.rs: `wire` names `forward`, a layer above it"],
            "{text}"
        );
    }
    assert_eq!(
        imports_upwards(&planted("src/wire/mod.rs", "use super::forward;")).len(),
        1
    );
    assert_eq!(
        imports_upwards(&planted("src/wire.rs", "use softnet::forward;")).len(),
        1
    );
    assert_eq!(imports_upwards(&planted("src/lost.rs", "")).len(), 1);
}

#[test]
fn imports_that_are_allowed_are_not_caught() {
    for (path, text) in [
        ("src/forward/lane.rs", "use crate::{sys, wire::Mac};"),
        (
            "src/forward/mod.rs",
            "use crate::forward::lane; use super::wire;",
        ),
        (
            "src/wire/arp.rs",
            "use super::forward; // a file of that name within wire",
        ),
        ("src/wire/arp.rs", "/// See [`crate::forward`].\nstruct A;"),
        ("src/wire/arp.rs", "my_crate::forward();"),
        ("src/cli.rs", "use softnet::forward;"),
    ] {
        assert_none(&imports_upwards(&planted(path, text)));
    }
}

#[test]
fn planted_unsafe_code_is_caught_outside_of_sys_alone() {
    let text = "//! A file.\nfn f() { unsafe { g() } }\n";
    assert_eq!(
        unsafe_outside_sys(&planted("src/wire/arp.rs", text)).len(),
        1
    );
    assert_none(&unsafe_outside_sys(&planted("src/sys/tap.rs", text)));
    assert_none(&unsafe_outside_sys(&planted(
        "src/wire/arp.rs",
        "// unsafe\n#![x(unsafe_code)]",
    )));
}

#[test]
fn planted_silence_and_length_are_caught() {
    assert_eq!(
        without_opening_words(&planted("src/a.rs", "use x;\n//! Late.")).len(),
        1
    );
    let code = "let x = 1;\n".repeat(LINES_OF_CODE_MAX);
    let tests = format!("// words\n\n{code}#[cfg(test)]\n{code}");
    assert_none(&too_long(&planted("src/a.rs", &tests)));
    assert_eq!(
        too_long(&planted("src/a.rs", &format!("{code}x();"))).len(),
        1
    );
}
