//! No circle among files: following what each file names never leads back to it.
//!
//! A name leads to the file that defines it, through re-exports. Two things are no step of a
//! circle: what a file re-exports from its own modules, and what a file takes from the modules
//! that it is in. So a folder's `mod.rs` may define what its files share and use those files;
//! the files among themselves, and folders beside each other, may only look one way.

use std::collections::{BTreeMap, BTreeSet};

use super::Source;
use super::paths::{absolute, module, names, paths};
use super::{declared_modules, without_comments, without_tests};

/// The groups of files that lead back to each other.
pub(crate) fn circles(sources: &[Source]) -> Vec<BTreeSet<String>> {
    let files = Files::new(sources);
    let steps: BTreeMap<&str, BTreeSet<&str>> = files
        .0
        .iter()
        .map(|file| (file.name.as_str(), files.steps(file)))
        .collect();
    let reached: BTreeMap<&str, BTreeSet<&str>> = steps
        .keys()
        .map(|from| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![*from]);
            while let Some(file) = open.pop() {
                let new = steps[file].iter().filter(|next| seen.insert(**next));
                open.extend(new);
            }
            (*from, seen)
        })
        .collect();
    let mut found = BTreeSet::new();
    for (from, there) in &reached {
        if there.contains(from) {
            let back = there.iter().filter(|to| reached[*to].contains(from));
            found.insert(back.map(|file| (*file).to_owned()).collect());
        }
    }
    found.into_iter().collect()
}

struct Files(Vec<File>);

struct File {
    name: String,
    /// Its path from the root of the crate, or of both: the library's modules and the
    /// program's have different names.
    module: Vec<String>,
    /// The names that it re-exports, and what they stand for.
    exports: BTreeMap<String, Vec<String>>,
    /// What it names otherwise.
    named: Vec<Vec<String>>,
}

impl Files {
    fn new(sources: &[Source]) -> Self {
        let redirected = redirected(sources);
        let files = sources.iter().map(|(name, text)| {
            let module = redirected
                .get(name)
                .cloned()
                .unwrap_or_else(|| module(name));
            let code = without_tests(&without_comments(text));
            let children = declared_modules(&code);
            let mut roots = vec!["crate", "super", "self"];
            roots.extend(children.iter().map(String::as_str));
            let (exporting, rest) = split_exports(&code);
            let exports = known_names(&exporting, &roots, &module);
            let imports = known_names(&rest, &roots, &module);
            // `use crate::a;` and later `a::B` lead to where B is defined.
            let names: Vec<_> = imports.keys().map(String::as_str).collect();
            let through_imports = paths(&rest, &names);
            let through_imports = through_imports
                .iter()
                .map(|path| [&imports[&path[0]], &path[1..]].concat());
            let named = paths(&rest, &roots);
            let named = named.iter().filter(|path| path.len() > 1);
            let named = named.map(|path| absolute(path, &module));
            File {
                name: name.clone(),
                named: named.chain(through_imports).collect(),
                exports,
                module,
            }
        });
        Self(files.collect())
    }

    /// The files that one leads to.
    fn steps(&self, from: &File) -> BTreeSet<&str> {
        let to = from
            .named
            .iter()
            .flat_map(|path| self.definers(path, REEXPORTS_MAX));
        to.filter(|to| !from.module.starts_with(&to.module))
            .map(|to| to.name.as_str())
            .collect()
    }

    /// The files that may define what a path names: a module may be one file for each system.
    fn definers(&self, path: &[String], reexports: usize) -> Vec<&File> {
        let len = |file: &File| file.module.len();
        let holds = |file: &&File| !file.module.is_empty() && path.starts_with(&file.module);
        let longest = self.0.iter().filter(holds).map(len).max();
        let holders = self.0.iter().filter(holds);
        let holders = holders.filter(|file| Some(len(file)) == longest);
        holders
            .flat_map(|file| {
                let name = path.get(file.module.len());
                match name.and_then(|name| file.exports.get(name)) {
                    Some(export) if reexports > 0 => self.definers(export, reexports - 1),
                    _ => vec![file],
                }
            })
            .collect()
    }
}

/// The names that `code` brings into the module `own`, and what they stand for.
fn known_names(code: &str, roots: &[&str], own: &[String]) -> BTreeMap<String, Vec<String>> {
    let found = names(code, roots).into_iter();
    found
        .filter(|(name, path)| !name.is_empty() && path.len() > 1)
        .map(|(name, path)| (name, absolute(&path, own)))
        .collect()
}

/// Re-exports of re-exports that are followed.
const REEXPORTS_MAX: usize = 4;

/// The modules of files that a `#[path]` leads to.
fn redirected(sources: &[Source]) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for (name, text) in sources {
        let mut path = None;
        for line in text.lines() {
            if let Some(value) = line.strip_prefix("#[path = \"") {
                path = value.strip_suffix("\"]");
            } else if let [child] = declared_modules(line).as_slice()
                && let Some(path) = path.take()
            {
                let folder = name.rsplit_once('/').unwrap().0;
                let module = [module(name), vec![child.clone()]].concat();
                found.insert(format!("{folder}/{path}"), module);
            }
        }
    }
    found
}

/// Code in two parts: the statements that re-export, and the rest.
fn split_exports(code: &str) -> (String, String) {
    let (mut exporting, mut rest) = (String::new(), String::new());
    let mut inside = false;
    for line in code.lines() {
        inside |= line.starts_with("pub") && line.contains(" use ");
        let part = if inside { &mut exporting } else { &mut rest };
        *part += line;
        *part += "\n";
        inside &= !line.ends_with(';');
    }
    (exporting, rest)
}
