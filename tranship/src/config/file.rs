//! Reading the TOML file, with the line of every key.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Error;
use super::load::{Loaded, Source};
use super::schema::{Config, Tenant};
use super::section::{Section, settings};
use crate::suggest;

/// Applies the file's values to `loaded`.
pub(super) fn apply(loaded: &mut Loaded, path: &Path) -> Result<(), Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let file = File { path, text: &text };
    let document = DeTable::parse(&text).map_err(|error| Error::Syntax {
        path: path.to_owned(),
        line: file.line(error.span().map_or(0, |span| span.start)),
        message: error.message().replace('\n', " "),
    })?;
    for (name, value) in document.get_ref() {
        let line = file.line(name.span().start);
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("tenant", DeValue::Array(tenants)) => file.tenants(loaded, tenants.iter())?,
            ("tenant", other) => {
                return Err(file.shape(line, "tenant", other, "one or more [[tenant]] tables"));
            }
            (section, DeValue::Table(table)) if Config::SECTIONS.contains(&section) => {
                file.section(loaded, section, table)?;
            }
            (section, other) if Config::SECTIONS.contains(&section) => {
                return Err(file.shape(line, section, other, "a table"));
            }
            (unknown, _) => {
                let known = Config::SECTIONS.iter().copied().chain(["tenant"]);
                return Err(file.unknown(line, unknown, suggest::hint(unknown, known)));
            }
        }
    }
    Ok(())
}

struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

impl File<'_> {
    fn section(
        &self,
        loaded: &mut Loaded,
        section: &str,
        table: &DeTable<'_>,
    ) -> Result<(), Error> {
        for (name, value) in table {
            let line = self.line(name.span().start);
            let key = format!("{section}.{}", name.get_ref());
            let Some(setting) = settings().iter().find(|setting| setting.key == key) else {
                let hint = suggest::hint(&key, settings().iter().map(|known| known.key.as_str()));
                return Err(self.unknown(line, &key, hint));
            };
            let text = match value.get_ref() {
                DeValue::Array(values) if setting.field.list => {
                    let each = values.iter().map(|value| self.scalar(line, &key, value));
                    each.collect::<Result<Vec<_>, _>>()?.join(",")
                }
                _ => self.scalar(line, &key, value)?,
            };
            loaded.set(setting, &text, Source::File { path: self.path.to_owned(), line })?;
        }
        Ok(())
    }

    fn tenants<'a>(
        &self,
        loaded: &mut Loaded,
        tenants: impl Iterator<Item = &'a Spanned<DeValue<'a>>>,
    ) -> Result<(), Error> {
        for value in tenants {
            let line = self.line(value.span().start);
            let DeValue::Table(table) = value.get_ref() else {
                return Err(self.shape(line, "tenant", value.get_ref(), "a table"));
            };
            let mut tenant = Tenant::default();
            for (name, value) in table {
                let line = self.line(name.span().start);
                let (name, key) = (name.get_ref().as_ref(), format!("tenant.{}", name.get_ref()));
                let known = || tenant.fields().iter().map(|field| field.name);
                if !known().any(|field| field == name) {
                    return Err(self.unknown(line, &key, suggest::hint(name, known())));
                }
                let text = self.scalar(line, &key, value)?;
                tenant.set(name, &text).map_err(|reason| Error::Value {
                    place: format!("{}:{line}: {key}", self.path.display()),
                    reason,
                })?;
            }
            loaded.add_tenant(tenant, Source::File { path: self.path.to_owned(), line });
        }
        Ok(())
    }

    /// A value as the text that the same setting would have in a flag.
    fn scalar(
        &self,
        line: usize,
        key: &str,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<String, Error> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) => Ok(number.to_string()),
            DeValue::Float(number) => Ok(number.to_string()),
            DeValue::Boolean(truth) => Ok(truth.to_string()),
            other => Err(self.shape(line, key, other, "a single value")),
        }
    }

    fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn unknown(&self, line: usize, key: &str, hint: String) -> Error {
        Error::UnknownKey { path: self.path.to_owned(), line, key: key.to_owned(), hint }
    }

    fn shape(&self, line: usize, key: &str, found: &DeValue<'_>, expected: &'static str) -> Error {
        let found = match found {
            DeValue::Table(_) => "a table",
            DeValue::Array(_) => "an array",
            DeValue::Datetime(_) => "a date",
            _ => "a single value",
        };
        Error::Shape { path: self.path.to_owned(), line, key: key.to_owned(), found, expected }
    }
}
