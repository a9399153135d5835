//! Collects findings.

use std::ops::Range;

use super::FINDINGS;
use super::read::Item;
use crate::policy::{Place, Source};
use base::diagnostic::{Diagnostic, Errors, Warning};

/// Longest name of a trunk, zone or route.
const NAME_BYTES: usize = 64;

/// What was found so far.
pub(super) struct Report<'a> {
    pub(super) sources: &'a [Source],
    /// Where the lines of each source begin.
    lines: Vec<Vec<usize>>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Warning>,
}

impl<'a> Report<'a> {
    pub(super) fn new(sources: &'a [Source]) -> Self {
        let lines = sources.iter().map(Source::line_starts).collect();
        Self { sources, lines, errors: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn error(
        &mut self,
        file: usize,
        span: Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        if !self.is_full()
            && let Some(finding) = self.finding(file, &span, message.into(), help)
        {
            self.errors.push(finding);
        }
    }

    pub(super) fn warning(
        &mut self,
        file: usize,
        span: Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        if self.warnings.len() < FINDINGS
            && let Some(finding) = self.finding(file, &span, message.into(), help)
        {
            self.warnings.push(Warning(finding));
        }
    }

    /// Whether no more errors are taken.
    pub(super) fn is_full(&self) -> bool {
        self.errors.len() >= FINDINGS
    }

    /// How many errors there are.
    pub(super) fn errors(&self) -> usize {
        self.errors.len()
    }

    /// A name stands in metrics, logs and commands: letters, digits, `-`, `_` and `.` only.
    pub(super) fn check_name<T>(&mut self, item: &Item<T>, what: &str) {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let name = &item.name;
        if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(word) {
            let message = format!("`{name}` cannot name a {what}");
            let help = format!("use letters, digits, `-`, `_` and `.`, at most {NAME_BYTES}");
            self.error(item.file, item.name_span.clone(), message, Some(help));
        }
    }

    /// Where an item stands.
    pub(super) fn place<T>(&self, item: &Item<T>) -> Place {
        self.place_of(item.file, &item.name_span)
    }

    pub(super) fn place_of(&self, file: usize, span: &Range<usize>) -> Place {
        let starts = self.lines.get(file).map_or(&[][..], Vec::as_slice);
        Place { file, line: starts.partition_point(|start| *start <= span.start) }
    }

    /// `file:line` of a place.
    pub(super) fn at(&self, file: usize, span: &Range<usize>) -> String {
        let name = self.sources.get(file).map_or("?", |source| source.name.as_str());
        format!("{name}:{}", self.place_of(file, span).line)
    }

    fn finding(
        &self,
        file: usize,
        span: &Range<usize>,
        message: String,
        help: Option<String>,
    ) -> Option<Diagnostic> {
        let source = self.sources.get(file)?;
        Some(Diagnostic::new(&source.name, &source.text, span, message, help))
    }

    pub(super) fn finish(self) -> Result<Vec<Warning>, Errors> {
        if self.errors.is_empty() {
            let mut warnings = self.warnings;
            sort(self.sources, &mut warnings, |warning| &warning.0);
            Ok(warnings)
        } else {
            Err(self.into_errors())
        }
    }

    pub(super) fn into_errors(mut self) -> Errors {
        sort(self.sources, &mut self.errors, |finding| finding);
        Errors(self.errors)
    }
}

/// In the order of the files and lines, as a person goes through them.
fn sort<T>(sources: &[Source], findings: &mut [T], finding: impl Fn(&T) -> &Diagnostic) {
    findings.sort_by_key(|it| {
        let it = finding(it);
        let file = sources.iter().position(|source| source.name == it.file);
        (file, it.line, it.column)
    });
}
