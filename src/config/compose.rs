//! `defaults` lists: one tree of several files, by Hydra's rules.
//!
//! An entry is a file (`- default_common`), an option of a group (`- model: pluto_model`, several as a list, none as null), or the
//! file itself (`_self_`, at the end where it is not named). `override` changes an option that an entry elsewhere chooses,
//! `optional` allows a missing file, `group@package` and the comment `# @package` say where a file's keys go. Lists are gone
//! through from the end, so that what comes later can choose for what comes before.

use super::{
    overrides::{Change, Override},
    text::{self, Allowance, MAX_DEPTH},
    tree::Value,
};
use crate::error::{Error, Result};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Files that one configuration may be made of.
const MAX_FILES: usize = 1000;

/// A composed tree, before overrides of single keys.
#[derive(Debug)]
pub(super) struct Composed {
    pub tree: Value,
    /// Option of each group.
    pub choices: BTreeMap<String, String>,
    /// Overrides that are about no group.
    pub overrides: Vec<Override>,
    /// What the tree may still grow to.
    pub allowance: Allowance,
}

/// Composes a text, its `defaults` from the folder, and the options that overrides choose.
///
/// # Errors
/// [`Error::Config`] for a list that cannot be read, an option that does not exist; [`Error::File`] for an unreadable file.
pub(super) fn compose(text: &str, folder: Option<&Path>, overrides: Vec<Override>) -> Result<Composed> {
    let mut tree = text::parse(text)?;
    let search = tree.get("hydra.searchpath").cloned();
    let mut composer = Composer {
        folders: folders(folder, search.as_ref()),
        choices: BTreeMap::new(),
        chosen: BTreeMap::new(),
        deleted: Vec::new(),
        files: 0,
        allowance: Allowance::of(text.len()),
    };
    let (groups, overrides): (Vec<_>, Vec<_>) = overrides
        .into_iter()
        .partition(|one| !matches!(one.value, Some(Value::Map(_))) && composer.folders.iter().any(|folder| folder.join(&one.key).is_dir()));
    let mut appended = Vec::new();
    for one in groups {
        let key = one.package.as_ref().map_or_else(|| one.key.clone(), |package| format!("{}@{package}", one.key));
        let choice = one.value.as_ref().map(|value| Choice::read(value, &key)).transpose()?;
        match (one.change, choice) {
            (Change::Delete, _) => composer.deleted.push((key, false)),
            (Change::Force, _) => return Err(Error::config(key, "an option of a group is chosen with '=' or added with '+='")),
            (Change::Add, Some(choice)) => {
                let (group, package) = (Some(one.key), one.package);
                appended.push(Entry { group, choice, package, optional: false, overrides: false, appended: true });
            }
            (_, Some(choice)) => {
                composer.chosen.insert(key, (choice, false));
            }
            (_, None) => {}
        }
    }
    let list = tree.remove("defaults");
    tree.remove("hydra");
    let (mut result, mut parts) = (Value::Map(Vec::new()), Vec::new());
    let root = Parent { folder: String::new(), package: String::new(), file: "the configuration".into(), depth: 0 };
    composer.expand(list, tree, &root, appended, &mut parts)?;
    if let Some((key, _)) = composer.chosen.iter().find(|(_, (_, used))| !used) {
        return Err(Error::config(
            key,
            format!("no defaults list has this group, so that no option can be chosen; add one with '+{key}='"),
        ));
    }
    if let Some((key, _)) = composer.deleted.iter().find(|(_, used)| !used) {
        return Err(Error::config(key, "no defaults list has this group, so that it cannot be deleted"));
    }
    for (package, part) in parts.into_iter().rev() {
        let mut placed = part;
        for name in package.rsplit('.').filter(|name| !name.is_empty()) {
            placed = Value::Map(vec![(name.to_owned(), placed)]);
        }
        result.merge(placed);
    }
    result.remove("hydra");
    Ok(Composed { tree: result, choices: composer.choices, overrides, allowance: composer.allowance })
}

/// The host's folder, and the folders of `hydra.searchpath`, which are looked for beside it, in it, or where they say.
fn folders(folder: Option<&Path>, search: Option<&Value>) -> Vec<PathBuf> {
    let Some(folder) = folder else { return Vec::new() };
    let mut folders = vec![folder.to_owned()];
    if let Some(Value::List(items)) = search {
        for item in items {
            let Value::Text(path) = item else { continue };
            let path = path.strip_prefix("file://").unwrap_or(path);
            if path.starts_with("pkg://") {
                continue;
            }
            let places = [folder.parent().unwrap_or(folder).join(path), folder.join(path)];
            folders.extend(places.into_iter().find(|place| place.is_dir()));
        }
    }
    folders
}

/// What an entry chooses: nothing, one option, several.
#[derive(Debug, Clone, PartialEq)]
enum Choice {
    None,
    One(String),
    Several(Vec<String>),
}

impl Choice {
    fn read(value: &Value, key: &str) -> Result<Self> {
        match value {
            Value::Null => Ok(Self::None),
            Value::Text(name) => Ok(Self::One(name.clone())),
            Value::List(items) => {
                let name = |item: &Value| if let Value::Text(name) = item { Some(name.clone()) } else { None };
                items.iter().map(name).collect::<Option<_>>().map(Self::Several).ok_or_else(|| not_option(value, key))
            }
            _ => Err(not_option(value, key)),
        }
    }
}

fn not_option(value: &Value, key: &str) -> Error {
    Error::config(key, format!("{} is not the name of an option, a list of them or null", value.brief()))
}

/// An entry of a defaults list; a file without a group has its path as the choice.
#[derive(Debug, Clone)]
struct Entry {
    group: Option<String>,
    choice: Choice,
    package: Option<String>,
    optional: bool,
    overrides: bool,
    appended: bool,
}

impl Entry {
    fn read(item: &Value, parent: &Parent) -> Result<Self> {
        let fail = || Error::config("defaults", format!("in {}: '{}' is no entry of a defaults list", parent.file, item.brief()));
        let split = |text: &str| text.split_once('@').map_or((text.to_owned(), None), |(a, b)| (a.to_owned(), Some(b.to_owned())));
        match item {
            Value::Text(path) => {
                let (path, package) = split(path);
                let choice = Choice::One(path);
                Ok(Self { group: None, choice, package, optional: false, overrides: false, appended: false })
            }
            Value::Map(entries) if entries.len() == 1 => {
                let (key, value) = &entries[0];
                let mut words = key.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>();
                let (group, package) = split(words.pop().ok_or_else(fail)?);
                if words.iter().any(|word| !matches!(*word, "optional" | "override")) {
                    return Err(fail());
                }
                let choice = Choice::read(value, &group)?;
                let has = |name| words.contains(&name);
                Ok(Self { group: Some(group), choice, package, optional: has("optional"), overrides: has("override"), appended: false })
            }
            _ => Err(fail()),
        }
    }

    fn is_self(&self) -> bool {
        self.group.is_none() && self.choice == Choice::One("_self_".into())
    }

    /// The folder that its files are in, below the parent's.
    fn folder(&self, parent: &Parent) -> String {
        let path = match (&self.group, &self.choice) {
            (Some(group), _) => group.as_str(),
            (None, Choice::One(path)) => path.rsplit_once('/').map_or(if path.starts_with('/') { "/" } else { "" }, |(folder, _)| folder),
            _ => "",
        };
        let absolute = matches!((&self.group, &self.choice), (Some(group), _) if group.starts_with('/'))
            || matches!((&self.group, &self.choice), (None, Choice::One(path)) if path.starts_with('/'));
        let path = path.trim_start_matches('/');
        match (absolute || parent.folder.is_empty(), path.is_empty()) {
            (true, _) => path.to_owned(),
            (false, true) => parent.folder.clone(),
            (false, false) => format!("{}/{path}", parent.folder),
        }
    }

    /// Where its keys go, with the package that the file itself names.
    fn package(&self, parent: &Parent, header: Option<&str>) -> String {
        let folder = self.folder(parent);
        let own = match (&self.package, header) {
            (Some(package), _) if package == "_here_" => String::new(),
            (Some(package), _) => package.replace("_group_", &format!("_global_.{}", folder.replace('/', "."))),
            (None, Some(header)) => format!("_global_.{header}"),
            (None, None) => {
                let path = match (&self.group, &self.choice) {
                    (Some(group), _) => group.trim_start_matches('/'),
                    (None, Choice::One(path)) => path.trim_start_matches('/').rsplit_once('/').map_or("", |(folder, _)| folder),
                    _ => "",
                };
                path.replace('/', ".")
            }
        };
        let whole = format!("{}.{own}", parent.package);
        let whole = whole.rsplit_once("_global_").map_or(whole.as_str(), |(_, rest)| rest);
        whole.split('.').filter(|name| !name.is_empty()).collect::<Vec<_>>().join(".")
    }

    /// The name under which an override knows it.
    fn key(&self, parent: &Parent) -> String {
        let (folder, package) = (self.folder(parent), self.package(parent, None));
        match package {
            package if package == folder.replace('/', ".") => folder,
            package if package.is_empty() => format!("{folder}@_global_"),
            package => format!("{folder}@{package}"),
        }
    }
}

/// The file whose list is gone through.
struct Parent {
    folder: String,
    package: String,
    file: String,
    depth: usize,
}

struct Composer {
    folders: Vec<PathBuf>,
    choices: BTreeMap<String, String>,
    /// Options that overrides choose, and whether a list had the group.
    chosen: BTreeMap<String, (Choice, bool)>,
    deleted: Vec<(String, bool)>,
    files: usize,
    allowance: Allowance,
}

/// Trees with their packages; the last one lies lowest.
type Parts = Vec<(String, Value)>;

impl Composer {
    fn expand(&mut self, list: Option<Value>, own: Value, parent: &Parent, appended: Vec<Entry>, parts: &mut Parts) -> Result<()> {
        if parent.depth > MAX_DEPTH {
            return Err(Error::config("defaults", format!("in {}: more than {MAX_DEPTH} lists inside one another", parent.file)));
        }
        let mut entries = match list {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::List(items)) => items.iter().map(|item| Entry::read(item, parent)).collect::<Result<Vec<_>>>()?,
            Some(other) => return Err(Error::config("defaults", format!("in {}: {} is not a list", parent.file, other.brief()))),
        };
        match entries.iter().filter(|entry| entry.is_self()).count() {
            0 => entries.push(Entry::read(&Value::Text("_self_".into()), parent)?),
            1 => {}
            _ => return Err(Error::config("defaults", format!("in {}: '_self_' stands twice", parent.file))),
        }
        entries.extend(appended);
        for (i, entry) in entries.iter().enumerate() {
            if entry.overrides {
                let rest = &entries[i..];
                if rest.iter().any(|entry| !entry.overrides && !entry.appended && !entry.is_self()) {
                    return Err(Error::config("defaults", format!("in {}: overrides must stand at the end", parent.file)));
                }
                self.chosen.entry(entry.key(parent)).or_insert((entry.choice.clone(), false));
            }
        }
        let mut own = Some(own);
        for mut entry in entries.into_iter().rev() {
            if entry.is_self() {
                parts.extend(own.take().map(|own| (parent.package.clone(), own)));
                continue;
            }
            if entry.overrides {
                continue;
            }
            if entry.group.is_some()
                && let Some((choice, used)) = self.chosen.get_mut(&entry.key(parent))
            {
                (entry.choice, *used) = (choice.clone(), true);
            }
            self.entry(entry, parent, parts)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry, parent: &Parent, parts: &mut Parts) -> Result<()> {
        let name = match &entry.choice {
            Choice::Several(names) => {
                let group = entry.group.clone().unwrap_or_default();
                for name in names.iter().rev() {
                    let choice = Choice::One(format!("{group}/{name}"));
                    self.entry(Entry { group: None, choice, ..entry.clone() }, parent, parts)?;
                }
                return Ok(());
            }
            Choice::None => None,
            Choice::One(name) => Some(name.clone()),
        };
        let (key, folder) = (entry.key(parent), entry.folder(parent));
        if entry.group.is_some() {
            if let Some((_, used)) = self.deleted.iter_mut().find(|(deleted, _)| *deleted == key) {
                *used = true;
                return Ok(());
            }
            let chosen = name.clone().unwrap_or_else(|| "null".into());
            if let Some(other) = self.choices.insert(key.clone(), chosen.clone())
                && other != chosen
            {
                return Err(Error::config(&*key, format!("has two options, '{other}' and '{chosen}'; write 'override {key}: ...'")));
            }
        }
        let Some(name) = name else { return Ok(()) };
        if name == "???" {
            return Err(Error::config(&*key, format!("an option must be chosen: {key}=... of {}", self.options(&folder))));
        }
        let name = self.interpolated(&name, &key)?;
        let name = name.rsplit('/').next().unwrap_or_default();
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        let Some((text, header)) = self.load(&path)? else {
            if entry.optional {
                return Ok(());
            }
            let reason = match self.folders.is_empty() {
                true => format!("in {}: '{path}' cannot be read, since no folder of configuration files was given", parent.file),
                false => format!("in {}: there is no '{path}.yaml'; {}", parent.file, self.options(&folder)),
            };
            return Err(Error::config("defaults", reason));
        };
        let mut tree = text::parse(&text).map_err(|error| match error {
            Error::Config { key, reason } => Error::config(key, format!("in '{path}.yaml': {reason}")),
            other => other,
        })?;
        let package = entry.package(parent, header.as_deref());
        let list = tree.remove("defaults");
        let child = Parent { folder, package, file: format!("'{path}.yaml'"), depth: parent.depth + 1 };
        self.expand(list, tree, &child, Vec::new(), parts)
    }

    /// A name in which the options of other groups stand, `${model}_small`.
    fn interpolated(&self, name: &str, key: &str) -> Result<String> {
        let mut name = name.to_owned();
        while let Some(start) = name.find("${") {
            let end = name[start..].find('}').map(|end| start + end);
            let choice = end.and_then(|end| self.choices.get(&name[start + 2..end]).map(|choice| (end, choice.clone())));
            let Some((end, choice)) = choice else {
                return Err(Error::config(key, format!("'{name}' refers to a group without an option")));
            };
            if choice.contains("${") {
                return Err(Error::config(key, format!("'{name}' refers to another that refers on")));
            }
            name.replace_range(start..=end, &choice);
        }
        Ok(name)
    }

    /// The text of a file and the package that it names.
    fn load(&mut self, path: &str) -> Result<Option<(String, Option<String>)>> {
        if path.split('/').any(|part| part == "..") {
            return Err(Error::config("defaults", format!("'{path}' leaves the folder")));
        }
        let Some(file) = self.folders.iter().map(|folder| folder.join(format!("{path}.yaml"))).find(|file| file.is_file()) else {
            return Ok(None);
        };
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(Error::config("defaults", format!("more than {MAX_FILES} files")));
        }
        let text = std::fs::read_to_string(&file).map_err(|error| Error::file(&file, error))?;
        self.allowance.add(text.len());
        let comments = text.lines().map(str::trim).take_while(|line| line.is_empty() || line.starts_with('#'));
        let header = comments.filter_map(|line| line.trim_start_matches('#').trim().strip_prefix("@package")).next();
        let header = header.map(|header| header.trim().to_owned()).filter(|header| header != "_group_");
        Ok(Some((text, header)))
    }

    /// The options of a group, in words.
    fn options(&self, folder: &str) -> String {
        let mut names: Vec<String> = Vec::new();
        for entry in self.folders.iter().filter_map(|place| place.join(folder).read_dir().ok()).flatten().flatten() {
            names.extend(entry.file_name().to_str().and_then(|name| name.strip_suffix(".yaml")).map(str::to_owned));
        }
        names.sort();
        names.dedup();
        if names.is_empty() { format!("'{folder}' has no options") } else { format!("'{folder}' has {}", names.join(", ")) }
    }
}
