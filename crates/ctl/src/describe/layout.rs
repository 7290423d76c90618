//! Fields as lines: names and values side by side, what is inside of them further to the right.

use crate::output::visible;
use crate::table::{self, NARROW};

/// What stands at a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Lines of text, the first one beside the name.
    Lines(Vec<String>),
    Block(Fields),
    List(Vec<Node>),
    /// Rows; the first one has the names of the columns.
    Table(Vec<Vec<String>>),
}

/// Names and what stands at them.
pub(super) type Fields = Vec<(String, Node)>;

impl Node {
    pub(super) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self::Lines(text.trim_end_matches('\n').lines().map(str::to_owned).collect())
    }

    pub(super) fn none() -> Self {
        Self::text("<none>")
    }

    fn is_inline(&self) -> bool {
        match self {
            Self::Lines(_) => true,
            Self::Block(fields) => fields.is_empty(),
            Self::List(items) => items.is_empty(),
            Self::Table(rows) => rows.len() < 2,
        }
    }
}

/// A field of text.
pub(super) fn text(name: &str, text: impl Into<String>) -> (String, Node) {
    (name.to_owned(), Node::text(text))
}

/// Fields as lines.
pub(super) fn render(fields: &[(String, Node)]) -> String {
    let mut out = String::new();
    render_at(fields, 0, &mut out);
    out
}

fn render_at(fields: &[(String, Node)], indent: usize, out: &mut String) {
    // Names may be of the object's author, and have a width as they are shown.
    let fields: Vec<(String, &Node)> = fields.iter().map(|(name, node)| (visible(name, &[]), node)).collect();
    let inline = fields.iter().filter(|(_, node)| node.is_inline());
    // A colon and two blanks stand behind the longest name.
    let width = inline.map(|(name, _)| name.chars().count() + 3).max().unwrap_or(0);
    for (name, node) in &fields {
        let head = format!("{}{name}:", " ".repeat(indent));
        match *node {
            Node::Lines(lines) => {
                let first = lines.first().map(String::as_str).unwrap_or_default();
                line(out, &format!("{head}{}{first}", " ".repeat(width - 1 - name.chars().count())));
                lines.iter().skip(1).for_each(|text| line(out, &format!("{}{text}", " ".repeat(indent + width))));
            }
            node if node.is_inline() => line(out, &format!("{head}{}<none>", " ".repeat(width - 1 - name.chars().count()))),
            Node::Block(fields) => {
                line(out, &head);
                render_at(fields, indent + 2, out);
            }
            Node::List(items) => {
                line(out, &head);
                items.iter().for_each(|item| render_item(item, indent + 2, out));
            }
            Node::Table(rows) => {
                line(out, &head);
                let mut rows = rows.clone();
                let dashes = rows[0].iter().map(|name| "-".repeat(name.chars().count())).collect();
                rows.insert(1, dashes);
                table::lines(NARROW, &rows).lines().for_each(|text| line(out, &format!("{}{text}", " ".repeat(indent + 2))));
            }
        }
    }
}

/// An element of a list, with a dash before it where it has fields.
fn render_item(item: &Node, indent: usize, out: &mut String) {
    match item {
        Node::Lines(lines) => lines.iter().for_each(|text| line(out, &format!("{}{text}", " ".repeat(indent)))),
        Node::Block(fields) => {
            let start = out.len();
            render_at(fields, indent + 2, out);
            if out.len() > start {
                out.replace_range(start..start + indent + 2, &format!("{}- ", " ".repeat(indent)));
            }
        }
        Node::List(items) => items.iter().for_each(|item| render_item(item, indent + 2, out)),
        Node::Table(_) => render_at(&[(String::new(), item.clone())], indent, out),
    }
}

/// One line, whatever is in the text.
fn line(out: &mut String, text: &str) {
    out.push_str(&visible(text.trim_end(), &['\t']));
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_an_order_to_the_terminal() {
        let evil = "\x1b[2J\r\u{9b}\x07x";
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let name = |at: &str| format!("{evil}\n{at}");
        let fields = vec![
            (name("lines"), Node::Lines(vec![evil.to_owned(), format!("two\n{evil}\tz")])),
            text(&name("text"), format!("{evil}\n{evil}")),
            (name("block"), Node::Block(vec![text(&name("inner"), evil)])),
            (name("list"), Node::List(vec![Node::text(evil), Node::Block(vec![text(&name("item"), evil)])])),
            (name("table"), Node::Table(vec![row([evil, "B"]), row([evil, "a\nb"])])),
            (name("empty"), Node::List(Vec::new())),
        ];
        let shown = render(&fields);
        assert!(!shown.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')), "{shown}");
        assert_eq!(shown.lines().count(), 14, "no text makes a line of its own:\n{shown}");
    }

    #[test]
    fn layouts() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let fields = vec![
            text("Name", "web"),
            ("Labels".to_owned(), Node::Lines(vec!["a=b".to_owned(), "c=d".to_owned()])),
            ("Spec".to_owned(), Node::Block(vec![text("Replicas", "3"), ("Empty".to_owned(), Node::Block(Vec::new()))])),
            (
                "Ports".to_owned(),
                Node::List(vec![Node::Block(vec![text("Name", "http"), text("Port", "80")]), Node::text("plain")]),
            ),
            ("Events".to_owned(), Node::Table(vec![row(["Type", "Reason"]), row(["Normal", "Pulled"])])),
        ];
        let expected = "\
Name:    web
Labels:  a=b
         c=d
Spec:
  Replicas:  3
  Empty:     <none>
Ports:
  - Name:  http
    Port:  80
  plain
Events:
  Type    Reason
  ----    ------
  Normal  Pulled
";
        assert_eq!(render(&fields), expected);
    }
}
