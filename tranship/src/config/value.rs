//! The types a setting can have, and how each reads from text.

mod text;
mod words;

use std::fmt::{self, Display};
use std::net::SocketAddr;

use super::{Address, Addresses};
use crate::suggest;
use crate::units::{Size, Span};

pub use text::{FilePath, Name, Names, Pairs, Secret, Text, Url};
pub use words::{CodecName, DiskIo, HugePages, IngestName, LogFormat, LogLevel, Polling};

/// A value that a person writes as text.
pub trait Value: Display + Sized {
    /// What a value looks like: completes "expected …".
    const FORM: &'static str;
    /// Whether it is a list, which may be given piece by piece.
    const LIST: bool = false;
    /// Whether its flag alone means `true`.
    const SWITCH: bool = false;

    /// Reads a value.
    ///
    /// # Errors
    /// The reason, beginning with the quoted text.
    fn read(text: &str) -> Result<Self, String>;
}

fn expected<T: Value>(text: &str) -> String {
    format!("{text:?}: expected {}", T::FORM)
}

/// Values whose own parser gives a complete message.
macro_rules! explained {
    ($($Type:ty: $form:literal),+ $(,)?) => {$(
        impl Value for $Type {
            const FORM: &'static str = $form;
            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|error: <Self as std::str::FromStr>::Err| error.to_string())
            }
        }
    )+};
}

/// Values whose own parser does not say what it wanted.
macro_rules! plain {
    ($($Type:ty: $form:literal),+ $(,)?) => {$(
        impl Value for $Type {
            const FORM: &'static str = $form;
            fn read(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| expected::<Self>(text))
            }
        }
    )+};
}

explained! {
    Size: "a size such as 4GiB",
    Span: "a duration such as 50us",
    Address: "unix:///PATH, tcp://HOST:PORT, verbs://HOST:PORT or ofi://HOST:PORT",
}

impl Value for Addresses {
    const FORM: &'static str = "unix:///PATH, tcp://HOST:PORT, verbs://HOST:PORT, ofi://HOST:PORT, or several with commas in between";
    const LIST: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: super::AddressError| error.to_string())
    }
}

impl Value for bool {
    const FORM: &'static str = "true or false";
    const SWITCH: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| expected::<Self>(text))
    }
}

plain! {
    u32: "a whole number",
    String: "text",
    SocketAddr: "IP:PORT such as 127.0.0.1:7421",
}

/// The policy of a cache: those that a daemon can run.
pub use tranship_cache::policy::Name as PolicyName;

impl Value for PolicyName {
    const FORM: &'static str = "lineage, lru, slru, s3fifo, wtinylfu or gdsf";

    fn read(text: &str) -> Result<Self, String> {
        let name = text.trim();
        Self::find(name).ok_or_else(|| match name {
            "opt" => {
                "\"opt\": it knows the future, so only tranship trace simulate can run it; \
                      expected "
                    .to_owned()
                    + Self::FORM
            }
            _ => {
                let hint = suggest::hint(name, Self::ALL.map(Self::as_str));
                expected::<Self>(text) + &hint
            }
        })
    }
}

/// A value, or the choice not to give one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maybe<T> {
    /// Given.
    Set(T),
    /// Left to the program: written `auto`, `off` or `none`.
    Unset,
}

impl<T> Maybe<T> {
    /// The value, if there is one.
    #[must_use]
    pub const fn as_ref(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Unset => None,
        }
    }
}

/// Each optional type: the word for "not given", and the form of a value.
macro_rules! maybe {
    ($($Type:ty: $word:literal, $form:literal;)+) => {$(
        impl Display for Maybe<$Type> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::Set(value) => value.fmt(f),
                    Self::Unset => f.pad($word),
                }
            }
        }

        impl Value for Maybe<$Type> {
            const FORM: &'static str = $form;
            fn read(text: &str) -> Result<Self, String> {
                match text.trim() {
                    $word => Ok(Self::Unset),
                    _ => Value::read(text).map(Self::Set),
                }
            }
        }
    )+};
}

maybe! {
    u32: "auto", "a whole number or auto";
    Size: "auto", "a size such as 4GiB, or auto";
    SocketAddr: "off", "IP:PORT such as 127.0.0.1:7421, or off";
    Secret: "off", "text or off";
    FilePath: "off", "a path or off";
    Url: "off", "s3://BUCKET/PREFIX, gs://…, az://…, a directory, or off";
    Pairs: "off", "NAME=VALUE, several with commas in between, or off";
    Names: "auto", "NAME, several with commas in between, or auto";
    Text: "auto", "text or auto";
    Name: "auto", "a name of letters, digits and -_., or auto";
    Address: "auto", "an address such as tcp://HOST:PORT, or auto";
}

/// A share of a whole, 0 to 100 percent, written `95%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u8);

impl Percent {
    /// So many percent; more than 100 counts as 100.
    #[must_use]
    pub const fn new(percent: u8) -> Self {
        Self(if percent > 100 { 100 } else { percent })
    }

    /// How many percent.
    #[must_use]
    pub const fn percent(self) -> u8 {
        self.0
    }

    /// This share of `whole`, rounded down.
    #[must_use]
    pub fn of(self, whole: u64) -> u64 {
        (u128::from(whole) * u128::from(self.0) / 100) as u64
    }
}

impl Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}%", self.0))
    }
}

impl Value for Percent {
    const FORM: &'static str = "a share from 0% to 100%";

    fn read(text: &str) -> Result<Self, String> {
        text.trim()
            .strip_suffix('%')
            .and_then(|number| number.trim_end().parse().ok())
            .filter(|percent| *percent <= 100)
            .map(Self)
            .ok_or_else(|| expected::<Self>(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_what_they_print() {
        fn round_trip<T: Value + PartialEq + fmt::Debug>(text: &str) {
            let value = T::read(text).unwrap();
            assert_eq!(value.to_string(), text);
            assert_eq!(T::read(&value.to_string()), Ok(value));
        }
        round_trip::<Percent>("95%");
        round_trip::<Maybe<u32>>("auto");
        round_trip::<Maybe<u32>>("3");
        round_trip::<Maybe<SocketAddr>>("off");
        round_trip::<Maybe<SocketAddr>>("127.0.0.1:7421");
        round_trip::<HugePages>("on");
        round_trip::<PolicyName>("lineage");
        round_trip::<bool>("true");
        round_trip::<Maybe<Url>>("s3://bucket/prefix");
        round_trip::<Maybe<Name>>("auto");
        round_trip::<IngestName>("hot");
        round_trip::<Maybe<Names>>("mlx5_0:1,mlx5_1");
        round_trip::<Maybe<Text>>("tcp;ofi_rxm");
        round_trip::<Maybe<Text>>("auto");
    }

    #[test]
    fn refusals_say_what_is_expected() {
        assert_eq!(Percent::read("95").unwrap_err(), "\"95\": expected a share from 0% to 100%");
        assert_eq!(
            Percent::read("101%").unwrap_err(),
            "\"101%\": expected a share from 0% to 100%"
        );
        assert_eq!(HugePages::read("yes").unwrap_err(), "\"yes\": expected auto, on or off");
        let policy = PolicyName::read("s3-fifo").unwrap_err();
        assert!(policy.ends_with("or gdsf; did you mean \"s3fifo\"?"), "{policy}");
        let policy = PolicyName::read("opt").unwrap_err();
        assert!(policy.contains("only tranship trace simulate can run it"), "{policy}");
        assert_eq!(
            Maybe::<Names>::read("mlx5_0,").unwrap_err(),
            "\"mlx5_0,\": expected NAME, several with commas in between"
        );
        assert_eq!(u32::read("-1").unwrap_err(), "\"-1\": expected a whole number");
    }

    #[test]
    fn pairs_are_read_and_their_values_stay_hidden() {
        let pairs = Pairs::read("endpoint=http://h:1, secret_access_key=sword=fish").unwrap();
        let read: Vec<_> = pairs.iter().collect();
        assert_eq!(read, [("endpoint", "http://h:1"), ("secret_access_key", "sword=fish")]);
        assert_eq!(format!("{pairs}"), "endpoint=(hidden),secret_access_key=(hidden)");
        let error = Pairs::read("swordfish").unwrap_err();
        assert!(error.contains("NAME=VALUE") && !error.contains("swordfish"), "{error}");
    }

    #[test]
    fn secrets_stay_hidden() {
        let secret = Secret::read("swordfish").unwrap();
        assert_eq!(format!("{secret} {secret:?}"), "(hidden) (hidden)");
        assert_eq!(secret.reveal(), "swordfish");
        assert_eq!(Percent::new(50).of(u64::MAX), u64::MAX / 2);
    }
}
