//! Why a bucket cannot be opened.

use super::fault::{Fault, Kind};

/// One line, with the way out, and no secret in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// An option that cannot be.
    #[error("object tier: {0}")]
    Option(String),
    /// A place that nothing here can get at.
    #[error(
        "object store {0:?}: expected s3://BUCKET, gs://BUCKET, az://CONTAINER, file:///DIRECTORY or a path"
    )]
    Url(String),
    /// A setting that the service does not have.
    #[error("object store {place}: there is no setting {name:?}; see docs/object.md")]
    Setting {
        /// Where.
        place: String,
        /// The setting.
        name: String,
    },
    /// A setting has a value it cannot have, or one that is needed is missing.
    #[error("object store {place}: its settings do not fit together: {why}")]
    Settings {
        /// Where.
        place: String,
        /// What is wrong, without values.
        why: String,
    },
    /// There is no such bucket.
    #[error("object store {place}: there is no such bucket; create it, or correct the address")]
    NoBucket {
        /// Where.
        place: String,
    },
    /// The credentials are wrong.
    #[error("object store {place}: {why}; check the key, its secret and the region")]
    Credentials {
        /// Where.
        place: String,
        /// What the service said, in short.
        why: String,
    },
    /// The credentials do not allow it.
    #[error(
        "object store {place}: {what} is not allowed: {why}; give these credentials the right to {what}"
    )]
    Denied {
        /// Where.
        place: String,
        /// To read or to write.
        what: &'static str,
        /// What the service said, in short.
        why: String,
    },
    /// Nothing more can be written.
    #[error("object store {place}: {why}; make room, or choose another place")]
    NoRoom {
        /// Where.
        place: String,
        /// What the system or the service said, in short.
        why: String,
    },
    /// A local directory cannot be used.
    #[error("object store {place}: {why}; {remedy}")]
    Directory {
        /// Where.
        place: String,
        /// What the system said.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Nobody answers, or not in time.
    #[error("object store {place}: {why}; check the address and the network")]
    Unreachable {
        /// Where.
        place: String,
        /// What happened.
        why: String,
    },
    /// No thread.
    #[error("object tier: no thread could be started: {0}")]
    Thread(String),
}

impl OpenError {
    /// Of a request that was made to see whether it works.
    pub(super) fn of(fault: &Fault, place: &str, what: &'static str) -> Self {
        let (place, why) = (place.to_owned(), fault.text.clone());
        match fault.kind {
            Kind::NoBucket => Self::NoBucket { place },
            Kind::Credentials => Self::Credentials { place, why },
            Kind::Denied => Self::Denied { place, what, why },
            Kind::NoRoom => Self::NoRoom { place, why },
            Kind::Missing | Kind::Passing | Kind::Lasting => Self::Unreachable { place, why },
        }
    }
}
