//! The settings as they were written, before they mean anything: one flat table of the file's values by their
//! path (`http.tokens[0].account`), and the environment above it.
//!
//! The sections ask for each path once; what nobody asked for is unknown. So the known keys are not listed
//! anywhere: they are the ones that are read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::de::{DeTable, DeValue};

use crate::error::{Place, Problem};
use crate::spelling::{nearest, suggest};

/// What every variable of ours starts with.
pub(crate) const PREFIX: &str = "LITTORAL_";
/// Variables of the command line's client, which are no settings of a node.
const OF_THE_CLIENT: [&str; 5] =
    ["LITTORAL_URL", "LITTORAL_TOKEN", "LITTORAL_CA", "LITTORAL_ACCOUNT", "LITTORAL_NAMESPACE"];
/// How many characters of a refused value a message repeats.
const MAX_SHOWN_CHARS: usize = 80;
/// How many problems one run names; the rest show once these are mended.
pub const MAX_PROBLEMS: usize = 50;
/// How deep tables are looked into; settings are at depth 3 at most.
const MAX_DEPTH: usize = 8;

/// A file and an environment while they are read.
pub(crate) struct Source<'a> {
    file: &'a str,
    found: BTreeMap<String, Found>,
    variables: BTreeMap<String, String>,
    known: BTreeSet<String>,
    known_variables: BTreeSet<String>,
    problems: Vec<Problem>,
}

/// What to do where a key is not set.
pub(crate) enum Otherwise<T> {
    /// Take this.
    Use(T),
    /// Complain, saying what is wanted.
    Missing(&'static str),
}

struct Found {
    line: usize,
    value: Raw,
}

#[derive(Clone)]
enum Raw {
    Text(String),
    Integer(String, u32),
    Table,
    Array(usize),
    Flag(bool),
    /// A float or date: no setting is one. Holds the name of the type.
    Other(&'static str),
}

impl<'a> Source<'a> {
    /// Parses the text as TOML and keeps the variables of ours.
    pub(crate) fn new(
        text: &str,
        file: &'a str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Problem> {
        let ends: Vec<usize> = text.match_indices('\n').map(|(end, _)| end).collect();
        let line = |at: usize| 1 + ends.partition_point(|end| *end < at);
        let document = DeTable::parse(text).map_err(|error| Problem {
            place: Place::File { file: file.into(), line: error.span().map(|span| line(span.start)) },
            what: format!("not TOML: {}; a text stands in quotes, each key on its own line", error.message()),
        })?;
        let mut found = BTreeMap::new();
        flatten("", document.get_ref(), MAX_DEPTH, &line, &mut found);
        let ours = |name: &str| name.starts_with(PREFIX) && !OF_THE_CLIENT.contains(&name);
        Ok(Self {
            file,
            found,
            variables: env.filter(|(name, _)| ours(name)).collect(),
            known: BTreeSet::new(),
            known_variables: BTreeSet::new(),
            problems: Vec::new(),
        })
    }

    /// The text at `path`, parsed; nothing after a problem, which is noted.
    pub(crate) fn text<T, E: Display>(
        &mut self,
        path: &str,
        otherwise: Otherwise<T>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.read_text(path, otherwise, parse, shown)
    }

    /// As [`Source::text`], for a text that no message may repeat.
    pub(crate) fn secret<T, E: Display>(
        &mut self,
        path: &str,
        otherwise: Otherwise<T>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.read_text(path, otherwise, parse, |_| "(not shown)".into())
    }

    /// The whole number at `path`, within bounds; nothing after a problem, which is noted.
    pub(crate) fn number<T>(&mut self, path: &str, default: T, bounds: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        let Some((place, raw)) = self.look_up(path) else { return Some(default) };
        let (written, number) = match (&place, raw) {
            (_, Raw::Integer(digits, radix)) => (digits.clone(), i128::from_str_radix(&digits, radix).ok()),
            (Place::Variable(_), Raw::Text(digits)) => (shown(&digits), digits.parse().ok()),
            (_, raw) => {
                self.refuse(place, format!("{path} is {}: write a whole number, without quotes", raw.kind()));
                return None;
            }
        };
        match number.and_then(|number| T::try_from(number).ok()).filter(|number| bounds.contains(number)) {
            Some(number) => Some(number),
            None => {
                let (least, most, unit) = (bounds.start(), bounds.end(), unit(path));
                let what = format!("{path} = {written} is out of bounds: use {least} to {most}{unit}");
                self.refuse(place, what);
                None
            }
        }
    }

    /// As [`Source::number`], of a key that must be set, to what is `wanted`.
    pub(crate) fn required_number<T>(
        &mut self,
        path: &str,
        wanted: &'static str,
        bounds: RangeInclusive<T>,
    ) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + Display + Copy,
    {
        if self.look_up(path).is_none() {
            self.refuse_missing(path, wanted);
            return None;
        }
        self.number(path, *bounds.start(), bounds)
    }

    /// Whether `path` is true; nothing after a problem, which is noted. For entries of lists only: variables are texts.
    pub(crate) fn flag(&mut self, path: &str, default: bool) -> Option<bool> {
        match self.look_up(path) {
            None => Some(default),
            Some((_, Raw::Flag(flag))) => Some(flag),
            Some((place, raw)) => {
                self.refuse(place, format!("{path} is {}: write true or false, without quotes", raw.kind()));
                None
            }
        }
    }

    /// The list of texts at `path`, each parsed; nothing after a problem, which is noted. `such_as` is two of them.
    pub(crate) fn texts<T, E: Display>(
        &mut self,
        path: &str,
        default: Vec<T>,
        such_as: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Vec<T>> {
        self.known.insert(format!("{}[]", pattern(path)));
        let count = match self.look_up(path) {
            None => return Some(default),
            Some((_, Raw::Array(count))) => count,
            Some((place, raw)) => {
                let what = format!("{path} is {}: write a list of texts, such as [{such_as}]", raw.kind());
                self.refuse(place, what);
                return None;
            }
        };
        let entries = (0..count).map(|index| {
            self.text(&format!("{path}[{index}]"), Otherwise::Missing("a text in quotes"), &parse)
        });
        // All of them, so that one run names all bad ones.
        entries.collect::<Vec<_>>().into_iter().collect()
    }

    /// How many tables the list at `path` has; nothing after a problem, which is noted.
    pub(crate) fn tables(&mut self, path: &str, max: usize) -> Option<usize> {
        self.known.insert(format!("{path}[]"));
        let Some(Found { line, value }) = self.found.get(path) else { return Some(0) };
        let place = self.at_line(*line);
        let is_table = |index: usize| {
            self.found.get(&format!("{path}[{index}]")).is_some_and(|entry| matches!(entry.value, Raw::Table))
        };
        let wrong = match *value {
            Raw::Array(count) if count > max => format!("{path} has {count} entries: use {max} at most"),
            Raw::Array(count) if (0..count).all(is_table) => return Some(count),
            _ => format!("{path} is no list of tables: write [[{path}]] above each"),
        };
        self.refuse(place, wrong);
        // What it holds cannot be read any more, but that does not make it unknown.
        self.found.retain(|found, _| !is_inside(found, path));
        None
    }

    /// A text that only the environment may give; `None` where it is not set or, with a problem noted, bad.
    pub(crate) fn variable<T, E: Display>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.known_variables.insert(name.into());
        let value = self.variables.get(name)?;
        let wrong = match parse(value) {
            Ok(parsed) => return Some(parsed),
            Err(wrong) => format!("the value {wrong}"),
        };
        self.refuse(Place::Variable(name.into()), wrong);
        None
    }

    /// Whether the file or the environment has something at `path`, well formed or not.
    pub(crate) fn is_set(&self, path: &str) -> bool {
        self.found.contains_key(path) || self.has_variable(&variable_of(path))
    }

    /// Whether the environment has this variable, well formed or not.
    pub(crate) fn has_variable(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }

    /// Where the value at `path` came from, or where it would have to be written.
    pub(crate) fn place(&self, path: &str) -> Place {
        let variable = variable_of(path);
        if self.variables.contains_key(&variable) {
            return Place::Variable(variable);
        }
        match self.found.get(path).or_else(|| self.found.get(parent(path))) {
            Some(found) => self.at_line(found.line),
            None => Place::File { file: self.file.into(), line: None },
        }
    }

    /// Notes a problem.
    pub(crate) fn refuse(&mut self, place: Place, what: String) {
        self.problems.push(Problem { place, what });
    }

    /// Every problem noted, and every key and variable that nobody asked for, in the order of the file.
    pub(crate) fn finish(mut self) -> Vec<Problem> {
        self.refuse_unknown_keys();
        self.refuse_unknown_variables();
        self.problems.sort();
        self.problems.truncate(MAX_PROBLEMS);
        self.problems
    }

    fn refuse_missing(&mut self, path: &str, wanted: &str) {
        // Entries of a list have no variables.
        let or = if path.contains('[') { String::new() } else { format!(" (or {})", variable_of(path)) };
        self.refuse(self.place(path), format!("{path} is missing: set it{or} to {wanted}"));
    }

    fn read_text<T, E: Display>(
        &mut self,
        path: &str,
        otherwise: Otherwise<T>,
        parse: impl FnOnce(&str) -> Result<T, E>,
        show: fn(&str) -> String,
    ) -> Option<T> {
        let Some((place, raw)) = self.look_up(path) else {
            return match otherwise {
                Otherwise::Use(default) => Some(default),
                Otherwise::Missing(wanted) => {
                    self.refuse_missing(path, wanted);
                    None
                }
            };
        };
        let wrong = match raw {
            Raw::Text(text) => match parse(&text) {
                Ok(parsed) => return Some(parsed),
                Err(wrong) => format!("{path} = {} {wrong}", show(&text)),
            },
            raw => format!("{path} is {}: write a text in quotes", raw.kind()),
        };
        self.refuse(place, wrong);
        None
    }

    /// The value at `path` and where it came from; the environment goes before the file.
    fn look_up(&mut self, path: &str) -> Option<(Place, Raw)> {
        self.known.insert(pattern(path));
        // Entries of a list have no variables.
        if !path.contains('[') {
            let variable = variable_of(path);
            self.known_variables.insert(variable.clone());
            if let Some(value) = self.variables.get(&variable) {
                return Some((Place::Variable(variable), Raw::Text(value.clone())));
            }
        }
        let found = self.found.get(path)?;
        Some((self.at_line(found.line), found.value.clone()))
    }

    fn refuse_unknown_keys(&mut self) {
        // What is inside one of these is not reported: the fault is the outer one's.
        let mut settled: Vec<&str> = Vec::new();
        let mut problems = Vec::new();
        for (path, found) in &self.found {
            if problems.len() == MAX_PROBLEMS {
                break;
            }
            if settled.iter().any(|outer| is_inside(path, outer)) {
                continue;
            }
            let pattern = pattern(path);
            let holds_known = |opening: &str| {
                self.known
                    .iter()
                    .any(|key| key.strip_prefix(&pattern).is_some_and(|rest| rest.starts_with(opening)))
            };
            let is_known = match found.value {
                Raw::Table => holds_known("."),
                Raw::Array(_) => holds_known("[]"),
                _ => false,
            };
            if is_known {
                continue;
            }
            settled.push(path);
            if self.known.contains(&pattern) {
                continue;
            }
            let what = if holds_known(".") {
                format!("{path} is {}: write [{path}] above its keys", found.value.kind())
            } else {
                self.meant(path, &pattern)
            };
            problems.push(Problem { place: self.at_line(found.line), what });
        }
        self.problems.extend(problems);
    }

    /// What to say of an unknown key or table.
    fn meant(&self, path: &str, pattern: &str) -> String {
        if path.contains('"') {
            return format!("{path} is unknown: no key of ours needs quotes");
        }
        let (inside, key) = pattern.rsplit_once('.').unwrap_or(("", pattern));
        let start = if inside.is_empty() { String::new() } else { format!("{inside}.") };
        let siblings: BTreeSet<&str> = self
            .known
            .iter()
            .filter_map(|known| known.strip_prefix(&start))
            .filter_map(|rest| rest.split(['.', '[']).next())
            .collect();
        let elsewhere = self.known.iter().find(|known| known.rsplit('.').next() == Some(key));
        let meant = match (suggest(key, siblings.iter().copied()), elsewhere) {
            (Some(sibling), _) => format!("did you mean {start}{sibling}?"),
            (None, Some(known)) => format!("did you mean {known}?"),
            (None, None) => format!("known here: {}", Vec::from_iter(siblings).join(", ")),
        };
        format!("{path} is unknown: {meant}")
    }

    fn refuse_unknown_variables(&mut self) {
        let unknown = self.variables.keys().filter(|name| !self.known_variables.contains(*name));
        let problems = unknown.map(|name| {
            let meant = nearest(name, self.known_variables.iter().map(String::as_str)).unwrap_or_default();
            Problem {
                place: Place::Variable(name.clone()),
                what: format!("unknown variable: did you mean {meant}?"),
            }
        });
        self.problems.extend(problems.collect::<Vec<_>>());
    }

    fn at_line(&self, line: usize) -> Place {
        Place::File { file: self.file.into(), line: Some(line) }
    }
}

impl Raw {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(..) => "a number",
            Self::Table => "a table",
            Self::Array(_) => "a list",
            Self::Flag(_) => "true or false",
            Self::Other(kind) => kind,
        }
    }
}

/// Enters what `table` holds under its paths, down to `depth` more levels.
fn flatten(
    inside: &str,
    table: &DeTable<'_>,
    depth: usize,
    line: &impl Fn(usize) -> usize,
    found: &mut BTreeMap<String, Found>,
) {
    for (key, value) in table.iter() {
        let at = line(key.span().start);
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let key = key.get_ref();
        // A quoted key may hold a dot, and must not pass for a path.
        let key = if key.bytes().all(bare) { key.to_string() } else { shown(key) };
        let path = if inside.is_empty() { key } else { format!("{inside}.{key}") };
        insert(path, value.get_ref(), at, depth, line, found);
    }
}

fn insert(
    path: String,
    value: &DeValue<'_>,
    at: usize,
    depth: usize,
    line: &impl Fn(usize) -> usize,
    found: &mut BTreeMap<String, Found>,
) {
    let raw = match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => Raw::Integer(number.as_str().into(), number.radix()),
        DeValue::Float(_) => Raw::Other("a fraction"),
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Array(entries) => {
            for (index, entry) in entries.iter().enumerate().filter(|_| depth > 0) {
                let at = line(entry.span().start);
                insert(format!("{path}[{index}]"), entry.get_ref(), at, depth - 1, line, found);
            }
            Raw::Array(entries.len())
        }
        DeValue::Table(table) => {
            if depth > 0 {
                flatten(&path, table, depth - 1, line, found);
            }
            Raw::Table
        }
    };
    found.insert(path, Found { line: at, value: raw });
}

/// Whether `path` is `outer` or anything in it.
fn is_inside(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// `http.tokens[3].account` as `http.tokens[].account`.
fn pattern(path: &str) -> String {
    let mut inside = false;
    let keep = |c: &char| {
        let kept = !inside || *c == ']';
        inside = *c == '[' || (inside && *c != ']');
        kept
    };
    path.chars().filter(keep).collect()
}

/// `http.tokens[3].account` is inside `http.tokens[3]`.
fn parent(path: &str) -> &str {
    path.rsplit_once('.').map_or("", |(parent, _)| parent)
}

fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "_"))
}

fn unit(path: &str) -> &'static str {
    match path {
        path if path.ends_with("_bytes") => " bytes",
        path if path.ends_with("_bytes_per_s") || path.ends_with(".bytes_per_s") => " bytes a second",
        path if path.ends_with("_ms") => " milliseconds",
        path if path.ends_with("_s") => " seconds",
        path if path.ends_with("_days") => " days",
        _ => "",
    }
}

/// A text in quotes, on one line and not too long for a message.
fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
