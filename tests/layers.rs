//! Holds the architecture: what may import what, where `unsafe` may be, how files are kept.
//!
//! It reads the sources as text. Modules are listed in the order of their layers, and each may
//! name only those above it: the library's in `src/lib.rs`, and the program's, which stand on top
//! of the library, in `src/main.rs` and `src/app/mod.rs`. Comments do not count, so documentation
//! may point upwards.

#[path = "layers/circles.rs"]
mod circles;
#[path = "layers/paths.rs"]
mod paths;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use circles::circles;
use paths::{absolute, module, paths, words};

#[test]
fn modules_import_only_from_the_layers_below() {
    assert_none(&imports_upwards(&sources(&["src"])));
}

#[test]
fn files_name_each_other_in_one_direction() {
    let found = circles(&sources(&["src"]));
    let known = CIRCLES.map(|(files, _)| BTreeSet::from(files.map(str::to_owned)));
    let new = found.iter().filter(|circle| !known.contains(circle));
    let new = new.map(|circle| format!("{circle:?}: these files lead back to each other"));
    let gone = known.iter().filter(|circle| !found.contains(circle));
    let gone = gone.map(|circle| format!("{circle:?}: no circle any more, take it out of CIRCLES"));
    assert_none(&new.chain(gone).collect::<Vec<_>>());
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

#[test]
fn long_functions_say_why() {
    assert_none(&long_without_reason(&sources(&["src"])));
}

#[test]
fn platforms_are_told_apart_in_few_places() {
    let found = platform_conditions(&sources(&["src"]));
    assert!(
        found.len() <= PLATFORM_CONDITIONS_MAX,
        "{} platform conditions outside of sys and of files named for a platform:\n{}",
        found.len(),
        found.join("\n")
    );
}

/// Conditions on the platform in all of src. Fewer are better: say so here.
const PLATFORM_CONDITIONS_MAX: usize = 11;

/// Lines of code in one file, without blank lines, comments, and tests at its foot.
const LINES_OF_CODE_MAX: usize = 350;
/// The same for tests, which are lists of cases in good part.
const LINES_OF_TESTS_MAX: usize = 500;
/// A longer function has a comment that begins with these words.
const LINES_OF_FUNCTION_MAX: usize = 60;
const REASON: &str = "/// Long because ";

/// Circles of files that are allowed, and why.
const CIRCLES: [([&str; 2], &str); 1] = [(
    ["src/bench/network.rs", "src/bench/traffic.rs"],
    "the bench's network prepares its filters with messages of the traffic in that network",
)];

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
    let library = Layers::listed_in("src/lib.rs", sources);
    let program = Layers::listed_in("src/main.rs", sources);
    let app = Layers::listed_in("src/app/mod.rs", sources);

    let mut violations = Vec::new();
    for (path, text) in sources {
        if ["src/lib.rs", "src/main.rs", "src/build.rs"].contains(&path.as_str()) {
            continue;
        }
        let is_library = library.position(path).is_some();
        if !is_library && program.position(path).is_none() {
            violations.push(format!(
                "{path}: neither src/lib.rs nor src/main.rs declares it"
            ));
        }
        let is_in_app = path.starts_with("src/app/") && path != "src/app/mod.rs";
        if is_in_app && app.position(path).is_none() {
            violations.push(format!("{path}: src/app/mod.rs does not declare it"));
        }
        let code = without_comments(text);
        let named = paths(&code, &["crate", "super"]);
        let named: Vec<_> = named
            .iter()
            .map(|named| absolute(named, &module(path)))
            .collect();
        for layers in [&library, &program, &app] {
            violations.extend(layers.named_above(path, &named));
        }
        if is_library && code.contains("softnet::") {
            violations.push(format!("{path}: the library names itself from outside"));
        }
    }
    violations
}

/// Modules in the order of their layers, the lowest first.
struct Layers {
    /// The module that they are in.
    parent: Vec<String>,
    names: Vec<String>,
}

impl Layers {
    fn listed_in(list: &str, sources: &[Source]) -> Self {
        let source = sources.iter().find(|(path, _)| path == list);
        let code = source.map(|(_, text)| without_comments(text));
        Self {
            parent: module(list),
            names: declared_modules(&code.unwrap_or_default()),
        }
    }

    /// The layer that a file belongs to.
    fn position(&self, path: &str) -> Option<usize> {
        self.position_of(&module(path))
    }

    fn position_of(&self, module: &[String]) -> Option<usize> {
        let inside = module.strip_prefix(self.parent.as_slice())?;
        let name = inside.first()?;
        self.names.iter().position(|layer| layer == name)
    }

    /// Complaints about those of `named` that are in layers above that of the file at `path`.
    fn named_above(&self, path: &str, named: &[Vec<String>]) -> Vec<String> {
        let Some(own) = self.position(path) else {
            return Vec::new();
        };
        let above = named.iter().filter_map(|named| self.position_of(named));
        let above: BTreeSet<_> = above.filter(|other| *other > own).collect();
        above
            .into_iter()
            .map(|other| {
                let (own, other) = (&self.names[own], &self.names[other]);
                format!("{path}: `{own}` names `{other}`, a layer above it")
            })
            .collect()
    }
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
        let code = without_tests(&without_comments(text));
        code.lines().filter(|line| !line.trim().is_empty()).count()
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

/// Functions beyond the limit, tests apart, whose comment does not say why they are one function.
fn long_without_reason(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        let code = without_tests(text);
        let lines: Vec<&str> = code.lines().collect();
        let mut has_reason = false;
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_attribute = line.trim_start().starts_with("#[");
            if line.trim_start().starts_with("///") || is_attribute {
                has_reason |= line.contains(REASON);
                continue;
            }
            let end = format!("{}}}", " ".repeat(indent));
            let len = lines[start..].iter().position(|line| *line == end);
            let len = len.map_or(0, |last| last + 1);
            let is_function = line.split(['(', '<']).next().is_some_and(|head| {
                let mut words = head.split_whitespace().rev();
                words.nth(1) == Some("fn")
            });
            if is_function && len > LINES_OF_FUNCTION_MAX && !has_reason {
                found.push(format!("{path}:{}: {len} lines, and no reason", start + 1));
            }
            has_reason = false;
        }
    }
    found
}

/// The modules that a file declares, in its order; those declared inline with `{` are not.
fn declared_modules(code: &str) -> Vec<String> {
    let names = code.lines().filter_map(|line| {
        let (before, name) = line.strip_suffix(';')?.split_once("mod ")?;
        (before.is_empty() || before.starts_with("pub")).then(|| name.to_owned())
    });
    names.collect()
}

/// A text without its `//` comments. What follows `//` in a literal is lost too, up to the
/// end of that line.
fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap().trim_end().to_owned() + "\n")
        .collect()
}

/// Code without the tests at its foot.
fn without_tests(code: &str) -> String {
    let lines = code.lines().take_while(|line| *line != "#[cfg(test)]");
    lines.map(|line| line.to_owned() + "\n").collect()
}

/// Lines that are compiled for one platform alone, outside of `sys` and of files and folders that
/// are named for one.
fn platform_conditions(sources: &[Source]) -> Vec<String> {
    let platforms = ["linux", "darwin", "macos", "unix", "tap", "vmnet", "sys"];
    let is_for_one = |path: &str| {
        path.trim_end_matches(".rs")
            .split('/')
            .any(|name| platforms.contains(&name))
    };
    let conditions = [
        "target_os",
        "cfg(tap",
        "cfg(vmnet",
        "cfg(not(tap",
        "cfg(not(vmnet",
    ];
    let mut found = Vec::new();
    for (path, text) in sources {
        if is_for_one(path) || path == "src/build.rs" {
            continue;
        }
        for (index, line) in without_comments(text).lines().enumerate() {
            if conditions.iter().any(|condition| line.contains(condition)) {
                found.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    found
}

// --- that the checks above can fail ---

#[test]
fn a_planted_platform_condition_is_caught() {
    let found = |path: &str, text: &str| platform_conditions(&planted(path, text)).len();
    for text in [
        "#[cfg(tap)]",
        "#[cfg(not(vmnet))]",
        "#[cfg(any(target_os = \"linux\", test))]",
    ] {
        assert_eq!(found("src/forward/lane.rs", text), 1, "{text}");
        for path in [
            "src/sys/mod.rs",
            "src/forward/linux.rs",
            "src/bench/vmnet/x.rs",
        ] {
            assert_eq!(found(path, text), 0, "{path}");
        }
    }
    assert_eq!(found("src/forward/lane.rs", "// #[cfg(tap)]"), 0);
}

#[test]
fn a_planted_long_function_is_caught() {
    let found = |text: &str| long_without_reason(&planted("src/a.rs", text)).len();
    let body = "    x();\n".repeat(LINES_OF_FUNCTION_MAX - 1);
    assert_eq!(found(&format!("pub fn long(a: u8) {{\n{body}}}\n")), 1);
    assert_eq!(
        found(&format!("{REASON}it is.\nfn long<T>() {{\n{body}}}\n")),
        0
    );
    assert_eq!(found(&format!("fn short() {{\n    y();\n}}\n{body}")), 0);
}

fn planted(path: &str, text: &str) -> Vec<Source> {
    let lib = "//! Lib.\npub mod wire;\n\nmod sys;\n\npub mod forward;\n";
    let main = "//! Main.\nmod benchmark;\n\nmod app;\nfn main() {}\n";
    let app = "//! App.\nmod uplink;\n\nmod cli;\n\npub(crate) mod run;\n";
    files(&[
        ("src/lib.rs", lib),
        ("src/main.rs", main),
        ("src/app/mod.rs", app),
        (path, text),
    ])
}

fn files(files: &[(&str, &str)]) -> Vec<Source> {
    let own = |&(path, text): &(&str, &str)| (path.to_owned(), text.to_owned());
    files.iter().map(own).collect()
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
fn a_planted_import_upwards_in_the_program_is_caught() {
    for text in [
        "use crate::app::cli::Config;",
        "use crate::app::{run, cli::{Config, HostFlags}};",
        "use crate::{app::cli, benchmark};",
        "use super::super::cli::{self, HostFlags};",
        "fn f() { super::super::cli::parse(); }",
    ] {
        let found = imports_upwards(&planted("src/app/uplink/linux.rs", text));
        let expected = "src/app/uplink/linux.rs: `uplink` names `cli`, a layer above it";
        assert!(found.contains(&expected.to_owned()), "{text}: {found:?}");
    }
    for (path, text) in [
        ("src/app/cli.rs", "use super::run::run;"),
        ("src/benchmark.rs", "use crate::app::cli;"),
        ("src/app/lost.rs", ""),
    ] {
        assert_eq!(imports_upwards(&planted(path, text)).len(), 1, "{path}");
    }
}

#[test]
fn a_planted_circle_of_files_is_caught() {
    let wire = "mod arp;\nmod dhcp;\npub use arp::{Arp, Kind as ArpKind};\npub struct Mac;\n";
    for (arp, dhcp) in [
        ("use super::dhcp;", "use super::arp;"),
        ("use super::dhcp::Lease;", "use super::{Mac, Arp};"),
        ("fn f() { crate::wire::dhcp::g() }", "use super::ArpKind;"),
        (
            "use super::dhcp::Lease;",
            "use crate::wire;\nfn f() { wire::ArpKind::new() }",
        ),
    ] {
        let sources = files(&[
            ("src/wire/mod.rs", wire),
            ("src/wire/arp.rs", arp),
            ("src/wire/dhcp.rs", dhcp),
        ]);
        let circle = ["src/wire/arp.rs", "src/wire/dhcp.rs"].map(str::to_owned);
        assert_eq!(circles(&sources), [BTreeSet::from(circle)], "{arp} {dhcp}");
    }
    // Through a folder, and through a file that `#[path]` names.
    let sources = files(&[
        ("src/wire/mod.rs", "mod arp;\nmod dhcp;\n"),
        ("src/wire/arp.rs", "use super::dhcp;"),
        (
            "src/wire/dhcp/mod.rs",
            "#[path = \"mac.rs\"]\nmod system;\nuse system::f;\n",
        ),
        ("src/wire/dhcp/mac.rs", "use crate::wire::arp;"),
    ]);
    let lens: Vec<_> = circles(&sources).iter().map(BTreeSet::len).collect();
    assert_eq!(lens, [3]);
}

#[test]
fn what_files_may_name_is_no_circle() {
    let sources = files(&[
        (
            "src/wire/mod.rs",
            "mod arp;\nmod dhcp;\npub use dhcp::Lease;\nuse arp::Arp;\npub struct Mac;\n",
        ),
        ("src/wire/arp.rs", "use super::{Lease, Mac}; // crate::wire"),
        (
            "src/wire/dhcp.rs",
            "use super::Mac;\n#[cfg(test)]\nmod tests { use crate::wire::arp; }",
        ),
    ]);
    assert_eq!(circles(&sources), []);
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
        ("src/app/cli.rs", "use softnet::forward; use super::uplink;"),
        ("src/app/cli.rs", "use crate::{app::uplink, benchmark};"),
        ("src/app/uplink/mod.rs", "use self::cli; use super::uplink;"),
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
