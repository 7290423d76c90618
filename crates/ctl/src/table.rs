//! Columns of text, as kubectl lays them out (Go's `tabwriter`): a column is as wide as its widest cell and what is between columns, the last
//! one has no end.

use serde_json::Value;

use crate::output::visible;

/// How columns are laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Least width of a column, with what is behind it.
    pub(crate) least: usize,
    /// Blanks behind the widest cell.
    pub(crate) padding: usize,
}

/// Tables of `get`.
pub(crate) const WIDE: Layout = Layout { least: 6, padding: 3 };
/// Tables inside of descriptions.
pub(crate) const NARROW: Layout = Layout { least: 0, padding: 2 };

/// Columns whose widths are kept, for rows that come later.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    layout: Layout,
    widths: Vec<usize>,
}

impl Columns {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, widths: Vec::new() }
    }

    /// The rows as lines, each one line: cells are strangers' texts.
    pub(crate) fn lines(&mut self, rows: &[Vec<String>]) -> String {
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| visible(cell, &[])).collect()).collect();
        for row in &rows {
            for (at, cell) in row.iter().enumerate() {
                let width = (cell.chars().count() + self.layout.padding).max(self.layout.least);
                match self.widths.get_mut(at) {
                    Some(known) => *known = width.max(*known),
                    None => self.widths.push(width),
                }
            }
        }
        let mut text = String::new();
        for row in &rows {
            for (at, cell) in row.iter().enumerate() {
                text.push_str(cell);
                if at + 1 < row.len() {
                    let blanks = self.widths[at].saturating_sub(cell.chars().count());
                    text.extend(std::iter::repeat_n(' ', blanks));
                }
            }
            text.push('\n');
        }
        text
    }
}

/// Rows as lines.
pub(crate) fn lines(layout: Layout, rows: &[Vec<String>]) -> String {
    Columns::new(layout).lines(rows)
}

/// What is shown of the server's tables.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shown {
    /// Columns that are for wide output, too.
    pub(crate) wide: bool,
    /// The namespace of each object.
    pub(crate) namespaces: bool,
    /// The labels of each object.
    pub(crate) labels: bool,
}

/// A table of the server (`meta.k8s.io/v1`): the names of its columns, in capitals.
pub(crate) fn header(table: &Value, shown: Shown) -> Vec<String> {
    let mut header = Vec::new();
    header.extend(shown.namespaces.then(|| "NAMESPACE".to_owned()));
    header.extend(columns(table, shown).map(|(_, column)| column["name"].as_str().unwrap_or_default().to_uppercase()));
    header.extend(shown.labels.then(|| "LABELS".to_owned()));
    header
}

/// Its rows. `prefix` stands before names (`pod/`); `columns_of` is the table that has the columns, which tables of a watch have only at first.
pub(crate) fn rows(table: &Value, columns_of: &Value, shown: Shown, prefix: &str) -> Vec<Vec<String>> {
    let columns: Vec<_> = columns(columns_of, shown).collect();
    let rows = table["rows"].as_array().into_iter().flatten();
    let row = |row: &Value| {
        let metadata = &row["object"]["metadata"];
        let mut cells = Vec::new();
        cells.extend(shown.namespaces.then(|| metadata["namespace"].as_str().unwrap_or_default().to_owned()));
        cells.extend(columns.iter().map(|(at, column)| {
            let text = cell(&row["cells"][*at]);
            if column["format"] == "name" { format!("{prefix}{text}") } else { text }
        }));
        cells.extend(shown.labels.then(|| labels(&metadata["labels"])));
        cells
    };
    rows.map(row).collect()
}

fn columns(table: &Value, shown: Shown) -> impl Iterator<Item = (usize, &Value)> {
    let all = table["columnDefinitions"].as_array().into_iter().flatten().enumerate();
    all.filter(move |(_, column)| shown.wide || column["priority"].as_i64().unwrap_or(0) == 0)
}

/// One cell: the first line of a text, numbers and booleans as they are, nothing for null.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => match text.split_once(['\n', '\r', '\x0c']) {
            Some((first, _)) => format!("{first}..."),
            None => text.clone(),
        },
        other => other.to_string(),
    }
}

/// Labels as one word: `a=b,c=d`, or `<none>`.
pub(crate) fn labels(labels: &Value) -> String {
    let Some(map) = labels.as_object().filter(|map| !map.is_empty()) else { return "<none>".to_owned() };
    let mut pairs: Vec<_> = map.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    pairs.sort();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table() -> Value {
        json!({
            "columnDefinitions": [
                {"name": "Name", "format": "name", "priority": 0}, {"name": "Ready", "priority": 0},
                {"name": "Node", "priority": 1}, {"name": "Age", "priority": 0},
            ],
            "rows": [
                {"cells": ["a", "1/1", "n1", "5s"], "object": {"metadata": {"namespace": "x", "labels": {"b": "2", "a": "1"}}}},
                {"cells": ["longer", true, null, "first\nsecond"], "object": {"metadata": {"namespace": "default"}}},
            ],
        })
    }

    fn shown(wide: bool, namespaces: bool, labels: bool) -> Shown {
        Shown { wide, namespaces, labels }
    }

    #[test]
    fn tables_of_the_server() {
        let check = |shown: Shown, prefix: &str, expected: &str| {
            let table = table();
            let mut all = vec![header(&table, shown)];
            all.extend(rows(&table, &table, shown, prefix));
            assert_eq!(lines(WIDE, &all), expected);
        };
        check(shown(false, false, false), "", "NAME     READY   AGE\na        1/1     5s\nlonger   true    first...\n");
        check(
            shown(true, true, true),
            "pod/",
            "NAMESPACE   NAME         READY   NODE   AGE        LABELS\n\
             x           pod/a        1/1     n1     5s         a=1,b=2\n\
             default     pod/longer   true           first...   <none>\n",
        );
    }

    #[test]
    fn cells_are_no_orders_to_the_terminal() {
        let table = json!({
            "columnDefinitions": [{"name": "\u{1b}[1mName", "format": "name", "priority": 0}, {"name": "M\nX", "priority": 0}],
            "rows": [{"cells": ["a\u{1b}[2J", "x\u{9b}y\tz\u{7}"], "object": {"metadata": {"labels": {"k": "\u{1b}c"}}}}],
        });
        let mut all = vec![header(&table, shown(false, false, true))];
        all.extend(rows(&table, &table, shown(false, false, true), ""));
        let expected = "^[[1MNAME   M\\nX               LABELS\na^[[2J      x\\u{9b}y\\tz\\u{7}   k=^[c\n";
        assert_eq!(lines(WIDE, &all), expected);
    }

    #[test]
    fn layouts() {
        let rows = [vec!["A".to_owned(), "B".to_owned()], vec!["x".to_owned(), String::new()]];
        assert_eq!(lines(WIDE, &rows), "A     B\nx     \n");
        assert_eq!(lines(NARROW, &rows), "A  B\nx  \n");
    }

    #[test]
    fn later_rows_keep_the_widths() {
        let mut columns = Columns::new(WIDE);
        let row = |a: &str| [vec![a.to_owned(), "1".to_owned()]];
        assert_eq!(columns.lines(&row("longer-name")), "longer-name   1\n");
        assert_eq!(columns.lines(&row("a")), "a             1\n");
    }
}
