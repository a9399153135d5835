//! Texts to the types of [`crate::file`]. serde stops at the first error of a value; so each item
//! is read on its own, and what an error points at is taken out and the rest read again.

use std::ops::Range;

use base::limit;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, ValueDeserializer};

use super::report::Report;
use super::{Defaults, is_over};
use crate::file::{DefaultsFile, RouteFile, TrunkFile, ZoneFile};
use base::diagnostic::{reword, suggest};

/// The keys that may stand at the top of a file.
const TOP: &[&str] = &["defaults", "route", "trunk", "zone"];

/// One trunk, zone or route.
#[derive(Debug)]
pub(super) struct Item<T> {
    /// Its name; empty for a route.
    pub(super) name: String,
    /// Where its name stands; for a route, where it begins.
    pub(super) name_span: Range<usize>,
    /// Which file.
    pub(super) file: usize,
    /// What it says; `None` where that was reported as wrong.
    pub(super) value: Option<T>,
}

/// All items of all files, in their order.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) defaults: Option<Defaults>,
    pub(super) trunks: Vec<Item<TrunkFile>>,
    pub(super) zones: Vec<Item<ZoneFile>>,
    pub(super) routes: Vec<Item<RouteFile>>,
}

/// Reads every source of the report. What is over a limit is reported and not looked at further.
pub(super) fn read(report: &mut Report<'_>) -> Read {
    let mut read = Read::default();
    let mut defaults_at: Option<String> = None;
    for (file, source) in report.sources.iter().enumerate() {
        if is_over(source.text.len(), &limit::POLICY_FILE_BYTES) {
            report.error(file, 0..0, over(&limit::POLICY_FILE_BYTES), None);
            continue;
        }
        let Some(table) = parse(report, file, &source.text) else { continue };
        for (key, value) in table {
            let span = key.span();
            match key.get_ref().as_ref() {
                "trunk" => named(report, file, value, "trunk", &mut read.trunks),
                "zone" => named(report, file, value, "zone", &mut read.zones),
                "route" => routes(report, file, value, &mut read.routes),
                "defaults" => {
                    if let Some(first) = &defaults_at {
                        let message = format!("[defaults] already stands at {first}");
                        let help = Some("a policy has one [defaults] for all files".to_owned());
                        report.error(file, span, message, help);
                        continue;
                    }
                    defaults_at = Some(report.at(file, &span));
                    let values: DefaultsFile = item(report, file, value).unwrap_or_default();
                    read.defaults = Some(Defaults { file, values });
                }
                unknown => {
                    let message = format!("unknown key `{unknown}`");
                    report.error(file, span, message, suggest(unknown, TOP));
                }
            }
        }
    }
    if is_over(read.trunks.len(), &limit::POLICY_TRUNKS) {
        report.error(0, 0..0, over(&limit::POLICY_TRUNKS), None);
        read.trunks.clear();
    }
    if is_over(read.routes.len(), &limit::POLICY_ROUTES) {
        report.error(0, 0..0, over(&limit::POLICY_ROUTES), None);
        read.routes.clear();
    }
    read
}

fn over(limit: &base::Limit) -> String {
    format!("the policy is over limit {} ({}: {})", limit.name, limit.value, limit.why)
}

/// The syntax tree, or `None` where the text is no TOML (all errors are reported).
fn parse<'i>(report: &mut Report<'_>, file: usize, text: &'i str) -> Option<DeTable<'i>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        if report.is_full() {
            break;
        }
        let span = error.span().unwrap_or(0..0);
        let first = error.message().contains("duplicate key").then(|| first_key(text, &span));
        match first.flatten() {
            Some(first) => {
                let word = text.get(span.clone()).unwrap_or_default();
                let at = report.at(file, &first);
                report.error(file, span, format!("`{word}` is already defined at {at}"), None);
            }
            None => report.error(file, span, error.message(), None),
        }
    }
    errors.is_empty().then(|| table.into_inner())
}

/// Where the key at `span`, which is there twice, stood first.
fn first_key(text: &str, span: &Range<usize>) -> Option<Range<usize>> {
    let line_start = text.get(..span.start)?.rfind('\n').map_or(0, |at| at + 1);
    let (before, _) = DeTable::parse_recoverable(&text[..line_start]);
    let line = text[line_start..].lines().next().unwrap_or_default();
    if line.trim_start().starts_with('[') {
        // A header names the whole path.
        let (header, _) = DeTable::parse_recoverable(line);
        return same_path(header.get_ref(), before.get_ref());
    }
    last_key(before.get_ref(), text.get(span.clone())?)
}

/// Where the path of a header stands in a tree.
fn same_path(header: &DeTable<'_>, tree: &DeTable<'_>) -> Option<Range<usize>> {
    let (key, below) = header.iter().next()?;
    let (found, value) = tree.get_key_value(key.get_ref().as_ref())?;
    match (below.get_ref(), value.get_ref()) {
        (DeValue::Table(below), DeValue::Table(value)) if !below.is_empty() => {
            same_path(below, value)
        }
        _ => Some(found.span()),
    }
}

/// The last place where `word` stands as a key.
fn last_key(table: &DeTable<'_>, word: &str) -> Option<Range<usize>> {
    let here = table.keys().filter(|key| key.get_ref() == word).map(Spanned::span);
    let below = table.values().filter_map(|value| match value.get_ref() {
        DeValue::Table(table) => last_key(table, word),
        DeValue::Array(array) => array
            .iter()
            .filter_map(|it| it.get_ref().as_table())
            .filter_map(|table| last_key(table, word))
            .max_by_key(|span| span.start),
        _ => None,
    });
    here.chain(below).max_by_key(|span| span.start)
}

fn named<T: DeserializeOwned>(
    report: &mut Report<'_>,
    file: usize,
    value: Spanned<DeValue<'_>>,
    what: &str,
    items: &mut Vec<Item<T>>,
) {
    let span = value.span();
    let DeValue::Table(table) = value.into_inner() else {
        let help = Some(format!("write [{what}.NAME]"));
        report.error(file, span, format!("a {what} needs a name"), help);
        return;
    };
    let mut entries: Vec<_> = table.into_iter().collect();
    // The tree is sorted by name; the order of the file is what counts.
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let (name, name_span) = (key.get_ref().to_string(), key.span());
        if let Some(first) = items.iter().find(|item| item.name == name) {
            let first = report.at(first.file, &first.name_span);
            let message = format!("{what} `{name}` is already defined at {first}");
            report.error(file, name_span, message, Some("give one of them another name".into()));
            continue;
        }
        let value = item(report, file, value);
        items.push(Item { name, name_span, file, value });
    }
}

fn routes(
    report: &mut Report<'_>,
    file: usize,
    value: Spanned<DeValue<'_>>,
    items: &mut Vec<Item<RouteFile>>,
) {
    let span = value.span();
    let DeValue::Array(array) = value.into_inner() else {
        let help = Some("write [[route]], in double brackets".to_owned());
        report.error(file, span, "routes are a list", help);
        return;
    };
    for value in array {
        let name_span = value.span();
        let value = item(report, file, value);
        items.push(Item { name: String::new(), name_span, file, value });
    }
}

/// Reads one item and reports all that is wrong with it; then it is `None`.
fn item<T: DeserializeOwned>(
    report: &mut Report<'_>,
    file: usize,
    mut value: Spanned<DeValue<'_>>,
) -> Option<T> {
    let whole = value.span();
    let text = &report.sources[file].text;
    let mut taken: Vec<Range<usize>> = Vec::new();
    loop {
        let error = match T::deserialize(ValueDeserializer::from(value.clone())) {
            Ok(it) => return taken.is_empty().then_some(it),
            Err(error) => error,
        };
        let span = error.span().unwrap_or_else(|| whole.clone());
        let (message, help) = reword(error.message());
        // What was taken out of a table may be missing now, which is no second error. The span of
        // an inline table holds all of it; that of another one does not, so be careful there.
        let inline = text.get(span.clone()).is_some_and(|text| text.starts_with('{'));
        let ours = |taken: &Range<usize>| !inline || span.contains(&taken.start);
        if !error.message().starts_with("missing field") || !taken.iter().any(ours) {
            report.error(file, span.clone(), message, help);
        }
        if report.is_full() || !take_out(value.get_mut(), &span) {
            return None;
        }
        taken.push(span);
    }
}

/// Takes out the entry whose key or value stands at `span`.
fn take_out(value: &mut DeValue<'_>, span: &Range<usize>) -> bool {
    match value {
        DeValue::Table(table) => {
            let found = table
                .iter()
                .find(|(key, value)| key.span() == *span || value.span() == *span)
                .map(|(key, _)| key.clone());
            match found {
                Some(key) => table.remove(&key).is_some(),
                None => table.iter_mut().any(|(_, value)| take_out(value.get_mut(), span)),
            }
        }
        DeValue::Array(array) => {
            if array.iter().any(|value| value.span() == *span) {
                let all = std::mem::replace(array, DeArray::new());
                *array = all.into_iter().filter(|value| value.span() != *span).collect();
                return true;
            }
            array.iter_mut().any(|value| take_out(value.get_mut(), span))
        }
        _ => false,
    }
}
