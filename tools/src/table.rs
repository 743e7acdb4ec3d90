//! Aligned tables for people.

use std::fmt::Write;

use crate::terminal;

/// Which side of its column a cell stands on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a heading, each column as wide as its widest cell.
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with a cell for every column; names may hold anything.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len(), "cells of a row");
        self.rows.push(cells.iter().map(|cell| terminal::line(cell).into_owned()).collect());
    }

    /// The text, each line indented by `indent`, without trailing blanks.
    pub fn render(&self, indent: &str) -> String {
        let heading: Vec<String> = self.columns.iter().map(|(name, _)| name.to_string()).collect();
        let width = |c: usize| self.rows.iter().chain([&heading]).map(|r| r[c].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..heading.len()).map(width).collect();
        let mut out = String::new();
        for row in [&heading].into_iter().chain(&self.rows) {
            let mut line = String::from(indent);
            for (c, cell) in row.iter().enumerate() {
                let _ = match self.columns[c].1 {
                    Align::Left => write!(line, "{cell:<w$}  ", w = widths[c]),
                    Align::Right => write!(line, "{cell:>w$}  ", w = widths[c]),
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut t = Table::new(&[("name", Align::Left), ("ms", Align::Right)]);
        t.row(vec!["a".into(), "10.5".into()]);
        t.row(vec!["longer".into(), "2.5".into()]);
        assert_eq!(t.render(" "), " name      ms\n a       10.5\n longer   2.5\n");
    }
}
