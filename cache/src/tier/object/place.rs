//! From an address and settings to something that takes requests.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::Once;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::error::OpenError;

/// A service must let itself be connected to in this time.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A connection that is not used for so long is closed: many services close them after 20 s.
const IDLE: Duration = Duration::from_secs(15);

/// Where objects are.
pub(super) struct Place {
    pub(super) store: Arc<dyn ObjectStore>,
    /// None for a directory, where an object is written in one go.
    pub(super) parts: Option<Arc<dyn MultipartStore>>,
    pub(super) prefix: Path,
    /// For people, without secrets.
    pub(super) name: String,
}

/// The address without what may be a secret in it: a name and password before the host, a query.
pub(super) fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let host_ends = rest.find('/').unwrap_or(rest.len());
            // `az://CONTAINER@ACCOUNT` is none.
            let secret = rest[..host_ends].rfind('@').filter(|at| rest[..*at].contains(':'));
            format!("{scheme}://{}", secret.map_or(rest, |at| &rest[at + 1..]))
        }
        None => url.to_owned(),
    }
}

impl Place {
    pub(super) fn new(url: &str, settings: &[(String, String)]) -> Result<Self, OpenError> {
        let name = without_secrets(url);
        let unknown = || OpenError::Url(name.clone());
        let Some((scheme, rest)) = url.split_once("://") else {
            return Self::directory(url, name);
        };
        let prefix = || {
            let path = rest.split_once('/').map_or("", |(_, path)| path);
            Path::from_url_path(path).map_err(|_| unknown())
        };
        if !matches!(scheme, "file" | "s3" | "s3a" | "gs" | "az" | "abfs" | "abfss") {
            return Err(unknown());
        }
        if scheme == "file" {
            return Self::directory(rest, name);
        }
        tls();
        let prefix = prefix()?;
        let http = client_options(settings);
        /// The three builders are alike and have no trait in common.
        macro_rules! build {
            ($builder:ty, $key:ty) => {{
                let mut builder = <$builder>::from_env()
                    .with_url(url)
                    .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
                    .with_client_options(http);
                for (key, value) in settings {
                    let known = key.to_ascii_lowercase().parse::<$key>();
                    builder = builder.with_config(known.map_err(|_| setting(&name, key))?, value);
                }
                Arc::new(builder.build().map_err(|error| misfit(&name, &error))?)
            }};
        }
        match scheme {
            "s3" | "s3a" => {
                Ok(Self::cloud(build!(AmazonS3Builder, AmazonS3ConfigKey), prefix, name))
            }
            "gs" => {
                Ok(Self::cloud(build!(GoogleCloudStorageBuilder, GoogleConfigKey), prefix, name))
            }
            _ => Ok(Self::cloud(build!(MicrosoftAzureBuilder, AzureConfigKey), prefix, name)),
        }
    }

    fn cloud<S: ObjectStore + MultipartStore>(store: Arc<S>, prefix: Path, name: String) -> Self {
        let parts: Arc<dyn MultipartStore> = Arc::clone(&store) as Arc<dyn MultipartStore>;
        Self { store, parts: Some(parts), prefix, name }
    }

    fn directory(path: &str, name: String) -> Result<Self, OpenError> {
        let unusable = |error: std::io::Error| {
            let remedy = match error.kind() {
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    "make it and give this user the right to write there, or name another"
                }
                _ => "name a directory, or one that can be made",
            };
            let why = match error.kind() {
                ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                    "it is no directory".to_owned()
                }
                _ => error.to_string(),
            };
            OpenError::Directory { place: name.clone(), why, remedy }
        };
        // `s3:/bucket` is a slip, and no directory.
        let schemes = ["s3:", "s3a:", "gs:", "az:", "abfs:", "abfss:", "file:"];
        if path.is_empty() || schemes.iter().any(|scheme| path.starts_with(scheme)) {
            return Err(OpenError::Url(name));
        }
        std::fs::create_dir_all(path).map_err(unusable)?;
        let store = LocalFileSystem::new_with_prefix(path)
            .map_err(|_| unusable(ErrorKind::NotADirectory.into()))?
            .with_automatic_cleanup(true)
            .with_fsync(true);
        Ok(Self { store: Arc::new(store), parts: None, prefix: Path::default(), name })
    }
}

/// The client that the tier itself uses, and the prefix that its address names: for whoever wants to look
/// at a bucket without it. Every request is made once.
///
/// # Errors
/// When the address or a setting cannot be.
pub fn client(
    url: &str,
    settings: &[(String, String)],
) -> Result<(Arc<dyn ObjectStore>, Path), OpenError> {
    Place::new(url, settings).map(|place| (place.store, place.prefix))
}

fn setting(place: &str, name: &str) -> OpenError {
    OpenError::Setting { place: place.to_owned(), name: name.to_owned() }
}

/// `object_store` names settings and not their values here, but says so nowhere: nothing that stands
/// behind a colon is passed on.
fn misfit(place: &str, error: &object_store::Error) -> OpenError {
    let told = error.to_string();
    let why = told.split(':').next_back().unwrap_or_default().trim();
    let plain = why.len() <= 120 && !why.contains('"');
    let why = if plain { why } else { "a value is not what its setting takes" };
    OpenError::Settings { place: place.to_owned(), why: why.to_owned() }
}

/// Deadlines and retries are this tier's own: a transfer may take long as long as bytes come. Whoever
/// gives an endpoint that begins with `http:` has chosen to go without TLS.
fn client_options(settings: &[(String, String)]) -> ClientOptions {
    let given = settings.iter().find(|(key, _)| key.to_ascii_lowercase().contains("endpoint"));
    let environment = || {
        let variables = ["AWS_ENDPOINT", "AWS_ENDPOINT_URL", "AZURE_ENDPOINT"];
        variables.iter().find_map(|name| std::env::var(name).ok())
    };
    let endpoint = given.map(|(_, value)| value.clone()).or_else(environment);
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_WITHIN)
        .with_pool_idle_timeout(IDLE)
        .with_user_agent(object_store::HeaderValue::from_static("tranship"))
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")))
}

/// TLS is rustls with ring; another part of the process may have chosen before.
fn tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_addresses_are_left_out() {
        for (url, shown) in [
            ("s3://bucket/prefix?secret=hush", "s3://bucket/prefix"),
            ("https://user:hush@host/x", "https://host/x"),
            ("az://container@account/x", "az://container@account/x"),
            ("/var/lib/x", "/var/lib/x"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn what_cannot_be_got_at_is_said() {
        for url in ["ftp://x", "s3:", "http://host/bucket"] {
            if url.contains("://") {
                let error = Place::new(url, &[]).err().unwrap();
                assert_eq!(error, OpenError::Url(url.to_owned()));
            }
        }
        let settings = [("acess_key_id".to_owned(), "hush".to_owned())];
        let error = Place::new("s3://bucket", &settings).err().unwrap().to_string();
        assert!(error.contains("acess_key_id") && !error.contains("hush"), "{error}");
    }
}
