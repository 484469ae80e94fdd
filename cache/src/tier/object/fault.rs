//! What went wrong with a request, in words that carry no secret.
//!
//! Services put the key id, the string that was signed or a signed URL into what they answer, and
//! `object_store` passes all of it on. Only the status and the code of the error are taken from it.

use std::error::Error as _;
use std::fmt;

use object_store::client::{HttpError, HttpErrorKind};

/// What can be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no such object.
    Missing,
    /// There is no such bucket.
    NoBucket,
    /// The credentials are wrong, or there are none.
    Credentials,
    /// They do not allow this.
    Denied,
    /// There is no more room.
    NoRoom,
    /// It may work the next time.
    Passing,
    /// It will not work the next time either.
    Lasting,
}

const LATE: &str = "the time was up";

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) text: String,
}

impl Fault {
    pub(super) fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// Whoever asked had no more time; the service may be well.
    pub(super) fn late() -> Self {
        Self::new(Kind::Passing, LATE)
    }

    /// Of two that came after each other, the one that says more.
    pub(super) fn after(self, last: Option<Self>) -> Self {
        match last {
            Some(last) if self.text == LATE => last,
            _ => self,
        }
    }

    /// Nothing came in time.
    pub(super) fn silence(waited: std::time::Duration) -> Self {
        Self::new(Kind::Passing, format!("the service said nothing for {waited:?}"))
    }

    /// What the system says of a directory.
    fn of_system(error: &std::io::Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => Kind::Denied,
            Some(libc::ENOSPC | libc::EDQUOT) => Kind::NoRoom,
            _ => Kind::Lasting,
        };
        Self::new(kind, error.to_string())
    }

    /// What an answer says that came in good time: the service works, whatever it thinks of us.
    pub(super) fn is_an_answer(&self) -> bool {
        self.kind != Kind::Passing
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<object_store::Error> for Fault {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as E;
        let transport = transport(&error);
        let told = error.to_string();
        let (status, code) = (status(&told), code(&told));
        let named = |what: &str| match (&code, status) {
            (Some(code), Some(status)) => format!("{what} ({status} {code})"),
            (Some(code), None) => format!("{what} ({code})"),
            (None, Some(status)) => format!("{what} (status {status})"),
            (None, None) => what.to_owned(),
        };
        let is = |known: &[&str]| code.as_deref().is_some_and(|code| known.contains(&code));
        if is(&["NoSuchBucket", "ContainerNotFound"]) || told.contains("specified bucket does not")
        {
            return Self::new(Kind::NoBucket, named("there is no such bucket"));
        }
        // Garage calls a wrong signature a denied access, and says so in words only.
        let unsigned = is(&["AccessDenied"]) && told.contains("Invalid signature");
        if is(&CREDENTIALS) || unsigned || told.contains("must provide an access key") {
            return Self::new(Kind::Credentials, named("the credentials are refused"));
        }
        match &error {
            E::NotFound { .. } => Self::new(Kind::Missing, named("there is no such object")),
            E::Unauthenticated { .. } => {
                Self::new(Kind::Credentials, named("the credentials are refused"))
            }
            E::PermissionDenied { .. } => Self::new(Kind::Denied, named("access is denied")),
            _ if let Some(text) = transport => Self::new(Kind::Passing, text),
            _ => match status {
                // Not all requests have their errors told apart above.
                Some(401) => Self::new(Kind::Credentials, named("the credentials are refused")),
                Some(403) => Self::new(Kind::Denied, named("access is denied")),
                Some(507) => Self::new(Kind::NoRoom, named("there is no more room")),
                Some(408 | 409 | 429 | 500..) => {
                    Self::new(Kind::Passing, named("the service failed"))
                }
                Some(200..300) => Self::new(Kind::Passing, named("the answer is broken")),
                Some(_) => Self::new(Kind::Lasting, named("the service refused the request")),
                None => match root(&error) {
                    Some(error) => Self::of_system(error),
                    // A body that ended early or could not be understood, a header that is missing.
                    None => Self::new(Kind::Passing, "the answer is broken"),
                },
            },
        }
    }
}

/// Codes that say that the credentials are at fault, and not what they may do.
const CREDENTIALS: [&str; 8] = [
    "AuthFailure",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "NotSignedUp",
    "SignatureDoesNotMatch",
    "AuthorizationHeaderMalformed",
];

/// What happened below HTTP, if anything did.
fn transport(error: &object_store::Error) -> Option<String> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            let what = match http.kind() {
                HttpErrorKind::Connect => "nobody answers",
                HttpErrorKind::Timeout => "the service took too long",
                HttpErrorKind::Request | HttpErrorKind::Interrupted => "the connection broke",
                _ => "the answer is broken",
            };
            let cause = root(http).map_or_else(String::new, |cause| format!(": {cause}"));
            return Some(format!("{what}{cause}"));
        }
        source = error.source();
    }
    None
}

/// The system's word at the end of a chain of errors: nothing a service wrote is in it.
fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    let mut at = Some(error);
    let mut found = None;
    while let Some(error) = at {
        let io = error.downcast_ref::<std::io::Error>();
        found = io.filter(|io| io.raw_os_error().is_some()).or(found);
        at = error.source();
    }
    found
}

/// The HTTP status that the text tells of.
fn status(told: &str) -> Option<u16> {
    let (_, rest) = told.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// The code in the XML of an answer, if it looks like one.
fn code(told: &str) -> Option<String> {
    let (_, rest) = told.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let plain = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn only_status_and_code_are_told() {
        let body = "Error performing GET http://x/?X-Amz-Signature=hush in 1ms - Server returned \
             non-2xx status code: 503 Service Unavailable: <Error><Code>SlowDown</Code>\
             <Message>hush</Message></Error>";
        let fault = Fault::from(generic(body));
        assert_eq!(fault, Fault::new(Kind::Passing, "the service failed (503 SlowDown)"));
        let fault = Fault::from(generic("status code: 400 Bad Request: <Code>Odd hush</Code>"));
        assert_eq!(fault.text, "the service refused the request (status 400)");
        assert_eq!(fault.kind, Kind::Lasting);
    }

    #[test]
    fn a_directory_says_what_is_missing() {
        for (errno, kind) in [
            (libc::EACCES, Kind::Denied),
            (libc::EPERM, Kind::Denied),
            (libc::EROFS, Kind::Denied),
            (libc::ENOSPC, Kind::NoRoom),
            (libc::EDQUOT, Kind::NoRoom),
            (libc::EIO, Kind::Lasting),
        ] {
            let source = Box::new(std::io::Error::from_raw_os_error(errno));
            let fault = Fault::from(object_store::Error::Generic { store: "Local", source });
            assert_eq!(fault.kind, kind, "{fault}");
            assert!(!fault.text.is_empty() && !fault.text.contains('\n'));
        }
    }

    #[test]
    fn wrong_credentials_are_no_lack_of_permission() {
        let denied = |text: &str| {
            let (path, source) = ("p".to_owned(), text.to_owned().into());
            Fault::from(object_store::Error::PermissionDenied { path, source }).kind
        };
        assert_eq!(denied("<Code>AccessDenied</Code>"), Kind::Denied);
        assert_eq!(denied("<Code>SignatureDoesNotMatch</Code>"), Kind::Credentials);
        let garage = "<Code>AccessDenied</Code><Message>Forbidden: Invalid signature</Message>";
        assert_eq!(denied(garage), Kind::Credentials);
        let of_status = |status: &str| Fault::from(generic(&format!("status code: {status}"))).kind;
        assert_eq!(of_status("401 Unauthorized"), Kind::Credentials);
        assert_eq!(of_status("403 Forbidden"), Kind::Denied);
    }
}
