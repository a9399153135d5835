//! Rust text told apart: code, comments, strings, tests, functions.

/// A Rust file.
pub(super) struct Source {
    /// From the top of the repository.
    pub(super) path: String,
    /// As it stands.
    pub(super) text: String,
    /// The same bytes with comments and the insides of strings and characters made spaces.
    pub(super) code: String,
    /// Whether all of it is test code.
    pub(super) is_test: bool,
    /// Byte ranges under `#[cfg(test)]`.
    test_ranges: Vec<std::ops::Range<usize>>,
}

/// A function: where it begins (its line, from 1) and how many lines it has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) lines: usize,
}

/// Folders of test code.
const TEST_FOLDERS: &[&str] = &["src/sim/", "fuzz/", "tests/", "benches/"];

impl Source {
    pub(super) fn new(path: String, text: String) -> Self {
        let code = code_of(&text);
        let is_test = TEST_FOLDERS.iter().any(|folder| path.starts_with(folder))
            || path.contains("/tests/")
            || path.ends_with("/tests.rs")
            || path.ends_with("_tests.rs");
        let test_ranges = test_ranges(&code);
        Self { path, text, code, is_test, test_ranges }
    }

    /// The member that the file is of: `base` of `src/base/time.rs`, empty for the root's.
    pub(super) fn member(&self) -> &str {
        let rest = self.path.strip_prefix("src/").unwrap_or_default();
        rest.split_once('/').map_or("", |(member, _)| member)
    }

    /// The lines without those under `#[cfg(test)]`; all of them in a test file.
    pub(super) fn line_count(&self) -> usize {
        let lines = self.text.lines().count();
        if self.is_test {
            return lines;
        }
        let tests = |range: &std::ops::Range<usize>| self.text[range.clone()].lines().count();
        lines.saturating_sub(self.test_ranges.iter().map(tests).sum())
    }

    /// The code outside of tests; empty for a test file.
    pub(super) fn product_code(&self) -> String {
        if self.is_test {
            return String::new();
        }
        let mut bytes = self.code.clone().into_bytes();
        for range in &self.test_ranges {
            blank(&mut bytes[range.clone()]);
        }
        String::from_utf8(bytes).unwrap()
    }

    /// Where the modules stand that are declared `#[cfg(test)] mod name;`, without `.rs`.
    pub(super) fn test_modules(&self) -> Vec<String> {
        let (folder, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let stem = file.trim_end_matches(".rs");
        let beside = ["lib", "mod", "main"].contains(&stem);
        let folder = if beside { folder.to_owned() } else { format!("{folder}/{stem}") };
        let declared = self.test_ranges.iter().filter_map(|range| {
            let item = self.code[range.clone()].trim_end().strip_suffix(';')?;
            let (_, name) = item.rsplit_once("mod ")?;
            let stated = self.text[range.clone()].split("path = \"").nth(1);
            let stated = stated.and_then(|rest| rest.split('"').next());
            let Some(stated) = stated else { return Some(format!("{folder}/{}", name.trim())) };
            let stated = stated.trim_end_matches(".rs").trim_end_matches("/mod");
            Some(self.path.replace(file, stated))
        });
        declared.collect()
    }

    /// The functions with a body, inner ones included.
    pub(super) fn functions(&self) -> Vec<Function> {
        let bytes = self.code.as_bytes();
        let mut found = Vec::new();
        for start in words(&self.code, "fn") {
            let name: String = self.code[start + 2..]
                .trim_start()
                .chars()
                .take_while(|it| it.is_alphanumeric() || *it == '_')
                .collect();
            // Without a name it is the type of a function.
            if name.is_empty() {
                continue;
            }
            let Some(open) = body(bytes, start) else { continue };
            let end = closing(bytes, open);
            let line = line_of(&self.text, start);
            found.push(Function { name, line, lines: line_of(&self.text, end) - line + 1 });
        }
        found
    }
}

/// The line of a byte, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Where `text` has `pattern`, as a whole word at the ends at which the pattern has letters.
pub(super) fn words<'a>(text: &'a str, pattern: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let (bytes, inner) = (text.as_bytes(), pattern.as_bytes());
    let (first, last) = (inner.first().is_some_and(is_word), inner.last().is_some_and(is_word));
    text.match_indices(pattern).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        let after = bytes.get(at + inner.len());
        !(first && before.is_some_and(is_word) || last && after.is_some_and(is_word))
    })
}

fn blank(bytes: &mut [u8]) {
    bytes.iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

/// Makes comments and the insides of literals spaces; every byte stays in its place.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let (end, inside) = literal(text, at);
        blank(&mut code[inside]);
        at = end;
    }
    String::from_utf8(code).unwrap()
}

/// The end of the token at `at`, and what of it is no code.
fn literal(text: &str, at: usize) -> (usize, std::ops::Range<usize>) {
    let bytes = text.as_bytes();
    let rest = &bytes[at..];
    let until = |pattern: &str, from: usize| {
        text[from..].find(pattern).map_or(bytes.len(), |found| from + found)
    };
    if rest.starts_with(b"//") {
        let end = until("\n", at);
        return (end, at..end);
    }
    if rest.starts_with(b"/*") {
        let end = block_comment(bytes, at);
        return (end, at..end);
    }
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if is_word(rest[0]) {
        let length = rest.iter().take_while(|byte| is_word(**byte)).count();
        let hashes = rest[length..].iter().take_while(|byte| **byte == b'#').count();
        let is_raw = matches!(&rest[..length], b"r" | b"br" | b"cr")
            && rest.get(length + hashes) == Some(&b'"');
        if !is_raw {
            return (at + length, at..at);
        }
        let open = at + length + hashes + 1;
        let close = until(&format!("\"{}", "#".repeat(hashes)), open);
        return ((close + 1 + hashes).min(bytes.len()), open..close);
    }
    match rest[0] {
        b'"' => {
            let close = quoted(bytes, at + 1, b'"');
            ((close + 1).min(bytes.len()), at + 1..close)
        }
        b'\'' => {
            let mut next = text[at + 1..].chars();
            let first = next.next();
            let is_character =
                first == Some('\\') || (first.is_some() && next.next() == Some('\''));
            // A lifetime is code.
            if !is_character {
                return (at + 1, at..at);
            }
            let close = quoted(bytes, at + 1, b'\'').max(at + 2);
            ((close + 1).min(bytes.len()), at + 1..close)
        }
        _ => (at + 1, at..at),
    }
}

/// Where the quote ends that began before `at`.
fn quoted(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at.min(bytes.len())
}

fn block_comment(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while at < bytes.len() {
        let step = match &bytes[at..(at + 2).min(bytes.len())] {
            b"/*" => {
                depth += 1;
                2
            }
            b"*/" => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Where the `{` of the item at `start` stands; `None` where it ends in `;`.
fn body(code: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, byte) in code.iter().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            // The item of a macro's pattern, or the end of what holds it.
            b'}' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Where the brace at `open` closes.
fn closing(code: &[u8], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len() - 1
}

/// The items under `#[cfg(test)]`, the attribute included.
fn test_ranges(code: &str) -> Vec<std::ops::Range<usize>> {
    let bytes = code.as_bytes();
    let mut ranges: Vec<std::ops::Range<usize>> = Vec::new();
    for (start, attribute) in code.match_indices("#[cfg(test)]") {
        if ranges.last().is_some_and(|last| last.contains(&start)) {
            continue;
        }
        let item = start + attribute.len();
        let end = match body(bytes, item) {
            Some(open) => closing(bytes, open) + 1,
            None => code[item..].find(';').map_or(bytes.len(), |found| item + found + 1),
        };
        ranges.push(start..end);
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Source {
        Source::new("src/x/y.rs".to_owned(), text.to_owned())
    }

    #[test]
    fn strings_characters_and_comments_are_no_code() {
        for (text, expected) in [
            (r#"a("b{", '{', "\"{")"#, r#"a("  ", ' ', "   ")"#),
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r###"r#"{"{"# r#type b"{""###, r###"r#"   "# r#type b" ""###),
            ("<'a> 'b: loop {} '\\'' '\u{e9}' b'x'", "<'a> 'b: loop {} '  ' '  ' b' '"),
            ("\"a\\\n{\"", "\"  \n \""),
        ] {
            assert_eq!(scan(text).code, expected, "{text}");
        }
    }

    #[test]
    fn a_function_is_counted_from_its_name_to_its_brace() {
        let text = "trait T { fn none(&self) -> [u8; 3]; }\n\
            fn one<F: Fn(fn(u8) -> u8)>(x: [u8; 2]) -> u8 where u8: Sized {\n\
            \"}\";\n{\n}\n}\n\
            impl X { fn two() {} }";
        let found = scan(text).functions();
        let found: Vec<_> = found.iter().map(|it| (it.name.as_str(), it.line, it.lines)).collect();
        assert_eq!(found, [("one", 2, 5), ("two", 7, 1)]);
    }

    #[test]
    fn what_stands_under_cfg_test_is_no_product() {
        let source = scan(
            "fn a() {}\n#[cfg(test)]\n#[path = \"z\"]\nmod t;\n\
            #[cfg(test)]\nmod u {\n}\nfn b() {}\n",
        );
        assert_eq!(source.product_code().split_whitespace().collect::<String>(), "fna(){}fnb(){}");
        assert_eq!(source.line_count(), 2);
        assert_eq!(source.test_modules(), ["src/x/z"]);
    }

    #[test]
    fn a_word_is_not_found_within_another() {
        assert_eq!(words("a ab b.a() aa a", "a").collect::<Vec<_>>(), [0, 7, 14]);
        assert_eq!(words("x.unwrap() x.unwrap_or()", ".unwrap()").count(), 1);
    }
}
