//! Tables whose columns line up.

use std::fmt;

use anstyle::Style;

use super::style;

/// One cell: text and how it looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A cell in a style.
    #[must_use]
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::new())
    }
}

/// Rows of cells under headings.
///
/// ```
/// use tranship_cli::output::Table;
/// let mut table = Table::new(["name", "size"]).right(1);
/// table.row(["a", "12"]);
/// table.row(["bcdef", "3"]);
/// assert_eq!(table.plain(), "name   size\na        12\nbcdef     3\n");
/// ```
#[derive(Debug, Clone)]
pub struct Table {
    headings: Vec<Cell>,
    right: Vec<bool>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Spaces between columns.
    const GAP: usize = 2;

    /// A table with headings.
    #[must_use]
    pub fn new<const COLUMNS: usize>(headings: [&str; COLUMNS]) -> Self {
        Self {
            headings: headings.iter().map(|text| Cell::styled(*text, style::DIM)).collect(),
            right: vec![false; COLUMNS],
            rows: Vec::new(),
        }
    }

    /// A table of names and values, without headings.
    #[must_use]
    pub fn pairs() -> Self {
        Self { headings: Vec::new(), right: vec![false; 2], rows: Vec::new() }
    }

    /// Aligns a column to the right.
    #[must_use]
    pub fn right(mut self, column: usize) -> Self {
        if let Some(right) = self.right.get_mut(column) {
            *right = true;
        }
        self
    }

    /// Adds a row.
    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The table without styles.
    #[must_use]
    pub fn plain(&self) -> String {
        anstream::adapter::strip_str(&self.to_string()).to_string()
    }

    fn lines(&self) -> impl Iterator<Item = &Vec<Cell>> {
        Some(&self.headings).filter(|headings| !headings.is_empty()).into_iter().chain(&self.rows)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |cell: &Cell| cell.text.chars().count();
        let mut widths = vec![0; self.right.len()];
        for line in self.lines() {
            for (widest, cell) in widths.iter_mut().zip(line) {
                *widest = width(cell).max(*widest);
            }
        }
        for line in self.lines() {
            // Spaces are written when the next text comes, so that no line ends in them.
            let mut pending = 0;
            for (column, (cell, widest)) in line.iter().zip(&widths).enumerate() {
                let space = widest - width(cell);
                let before = if self.right[column] { space } else { 0 };
                if !cell.text.is_empty() {
                    let (start, end) = (cell.style.render(), cell.style.render_reset());
                    write!(f, "{:1$}{start}{text}{end}", "", pending + before, text = cell.text)?;
                    pending = 0;
                } else {
                    pending += before;
                }
                pending += space - before + Self::GAP;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let mut table = Table::new(["fabric", "state", "detail"]);
        table.row([Cell::from("shm"), Cell::styled("ready", style::GOOD), "0.4 µs".into()]);
        table.row(["verbs", "absent", ""]);
        assert_eq!(
            table.plain(),
            "fabric  state   detail\nshm     ready   0.4 µs\nverbs   absent\n"
        );
    }

    #[test]
    fn pairs_have_no_headings() {
        let mut table = Table::pairs().right(1);
        table.row(["requests", "12,031"]);
        table.row(["hits", "7"]);
        assert_eq!(table.plain(), "requests  12,031\nhits           7\n");
    }
}
