//! The paths that a file of Rust names, read as text.

/// The paths in `code` that begin with one of `roots`, one for each name of a group:
/// `crate::{a, b::C}` is `crate::a` and `crate::b::C`.
pub(crate) fn paths(code: &str, roots: &[&str]) -> Vec<Vec<String>> {
    let found = names(code, roots).into_iter();
    found.map(|(_, path)| path).collect()
}

/// The same paths, each with the name by which the file knows what it leads to.
pub(crate) fn names(code: &str, roots: &[&str]) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for root in roots {
        for (at, _) in code.match_indices(&format!("{root}::")) {
            let before = code[..at].chars().next_back();
            if !before.is_some_and(|char| is_word(char) || char == ':' || char == '$') {
                tree(&code[at..], &[], &mut found);
            }
        }
    }
    found
}

/// Adds the paths of one tree of a `use`, below `parents`. Returns what comes after the tree.
fn tree<'a>(code: &'a str, parents: &[String], found: &mut Vec<(String, Vec<String>)>) -> &'a str {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|char: char| char.is_whitespace() || char == ',');
            if rest.is_empty() || rest.starts_with('}') {
                return rest.strip_prefix('}').unwrap_or_default();
            }
            rest = tree(rest, parents, found);
            // `as name`, or what no `use` has: to the next name.
            let end = rest.find([',', '}']).unwrap_or(rest.len());
            rest = &rest[end..];
        }
    }
    let end = code.find(|char| !is_word(char)).unwrap_or(code.len());
    let (name, rest) = code.split_at(end);
    if name.is_empty() {
        // `*`, or `<` of a turbofish.
        found.push((String::new(), parents.to_vec()));
        return rest;
    }
    let path = [parents, &[name.to_owned()]].concat();
    match rest.strip_prefix("::") {
        Some(rest) => tree(rest, &path, found),
        None => {
            let alias = rest.trim_start().strip_prefix("as ");
            let alias = alias.and_then(|rest| words(rest).next());
            let own = path.iter().rfind(|name| *name != "self");
            let name = alias.or_else(|| Some(own?.as_str())).unwrap_or_default();
            found.push((name.to_owned(), path.clone()));
            rest
        }
    }
}

/// The module that a file in `src` is, from the root of its crate.
pub(crate) fn module(name: &str) -> Vec<String> {
    let inside = name.strip_prefix("src/").unwrap().trim_end_matches(".rs");
    let parts = inside.split('/').map(str::to_owned);
    parts
        .filter(|part| !["mod", "lib", "main"].contains(&part.as_str()))
        .collect()
}

/// A path from the root of the crate, as the module `own` names it.
pub(crate) fn absolute(path: &[String], own: &[String]) -> Vec<String> {
    let ups = path.iter().take_while(|part| *part == "super").count();
    let mut names = match path[0].as_str() {
        "crate" => Vec::new(),
        "super" => own[..own.len().saturating_sub(ups)].to_vec(),
        _ => own.to_vec(),
    };
    let is_name = |part: &&String| !["crate", "super", "self"].contains(&part.as_str());
    names.extend(path.iter().filter(is_name).cloned());
    names
}

pub(crate) fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|char| !is_word(char))
        .filter(|word| !word.is_empty())
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

#[test]
fn every_name_of_a_group_has_its_path() {
    let code = "use crate::{\n    a, b::{self, C as D, e::*},\n};\nf(crate::g::H::<u8>::new());";
    let found: Vec<_> = paths(code, &["crate"])
        .iter()
        .map(|path| path.join("::"))
        .collect();
    let expected = [
        "crate::a",
        "crate::b::self",
        "crate::b::C",
        "crate::b::e",
        "crate::g::H",
    ];
    assert_eq!(found, expected);
    assert!(paths("my_crate::a; $crate::b; x::crate::c", &["crate"]).is_empty());
}
