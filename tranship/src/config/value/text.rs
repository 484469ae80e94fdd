//! Settings that are texts of some kind.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use super::{Value, expected};

/// The path of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath(PathBuf);

impl FilePath {
    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Value for FilePath {
    const FORM: &'static str = "a path";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("\"\": expected a path".to_owned()),
            _ => Ok(Self(text.into())),
        }
    }
}

/// Where a bucket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Value for Url {
    const FORM: &'static str = "s3://BUCKET/PREFIX, gs://…, az://… or a directory";

    fn read(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err(expected::<Self>(text)),
            url => Ok(Self(url.to_owned())),
        }
    }
}

/// A name among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Value for Name {
    const FORM: &'static str = "a name of letters, digits and -_.";

    fn read(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        match text.trim() {
            name if !name.is_empty() && name.chars().all(fits) => Ok(Self(name.to_owned())),
            _ => Err(expected::<Self>(text)),
        }
    }
}

/// What somebody else calls a thing: a provider, an interface, a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Value for Text {
    const FORM: &'static str = "text";

    fn read(text: &str) -> Result<Self, String> {
        match text.trim() {
            "" => Err("\"\": expected text that is not empty".to_owned()),
            text => Ok(Self(text.to_owned())),
        }
    }
}

/// What somebody else calls several things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl Names {
    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.join(","))
    }
}

impl Value for Names {
    const FORM: &'static str = "NAME, several with commas in between";
    const LIST: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        let names: Vec<_> = text.split(',').map(|name| name.trim().to_owned()).collect();
        match names.iter().any(String::is_empty) {
            true => Err(expected::<Self>(text)),
            false => Ok(Self(names)),
        }
    }
}

/// Settings of a service, by its own names. Some are secrets, so no value is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Pairs(Vec<(String, String)>);

impl Pairs {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<_> = self.0.iter().map(|(name, _)| format!("{name}=(hidden)")).collect();
        f.pad(&shown.join(","))
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl Value for Pairs {
    const FORM: &'static str = "NAME=VALUE, several with commas in between";
    const LIST: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            let (name, value) = (name.trim(), value.trim());
            (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
        };
        let pairs: Option<Vec<_>> = text.split(',').map(pair).collect();
        // What was given may be a secret, so it is not repeated.
        pairs.map(Self).ok_or_else(|| format!("(hidden): expected {}", Self::FORM))
    }
}

/// Text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A text that must not be shown.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("(hidden)")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(self, f)
    }
}

impl Value for Secret {
    const FORM: &'static str = "text";

    fn read(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("\"\": expected text that is not empty".to_owned()),
            _ => Ok(Self(text.to_owned())),
        }
    }
}
