//! The few styles in use; standard output strips them where colours are not wanted.

use anstyle::{AnsiColor, Style};

/// Column headings and asides.
pub const DIM: Style = Style::new().dimmed();
/// All is well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Works, but worse than it could.
pub const WARNING: Style = AnsiColor::Yellow.on_default();
/// Does not work.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
