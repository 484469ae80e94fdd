//! The fabrics, from the configuration: what a daemon listens on, and how a client finds it.

use std::fmt;

use tranship_cache::client::{self, Client};
use tranship_transport::fabric::{Provider, ofi, shm, tcp, verbs};
use tranship_transport::{Drive, Kind, Polling};

use crate::config::{self, Address, Addresses, Config, Maybe, Names, Secret, Text};
use crate::output;

/// An engine that listens where the configuration says.
pub(crate) fn engine(config: &Config, token: Option<&Secret>) -> tranship_transport::Builder {
    let transport = &config.transport;
    let polling = match transport.polling {
        config::Polling::Busy => Polling::Busy,
        config::Polling::Adaptive => Polling::Adaptive { spin: transport.spin.duration() },
    };
    let engine = tranship_transport::Engine::builder().polling(polling).drive(Drive::Caller);
    config.serve.listen.iter().fold(engine, |engine, address| match address {
        Address::Unix(path) => {
            // The thread that waits copies too.
            let helpers = transport.copy_threads.saturating_sub(1) as usize;
            let shm = shm::Config::new()
                .listen_at(path)
                .copy_threads(helpers)
                .connections_max(config.limits.max_clients as usize);
            engine.fabric(shm)
        }
        _ => between_hosts(engine, config, (address, true), token),
    })
}

/// What takes one more fabric: the builder of an engine, or that of a client.
pub(crate) trait TakesFabric {
    /// With this one.
    fn with(self, provider: impl Provider + 'static) -> Self;
}

impl TakesFabric for tranship_transport::Builder {
    fn with(self, provider: impl Provider + 'static) -> Self {
        self.fabric(provider)
    }
}

impl TakesFabric for client::Builder {
    fn with(self, provider: impl Provider + 'static) -> Self {
        self.fabric(provider)
    }
}

/// Adds the fabric of an address of another kind than shared memory: listening there, or only to
/// dial with.
pub(crate) fn between_hosts<B: TakesFabric>(
    builder: B,
    config: &Config,
    (address, listen): (&Address, bool),
    secret: Option<&Secret>,
) -> B {
    let listen = Some(address).filter(|_| listen);
    match address {
        Address::Unix(_) => builder,
        Address::Tcp { .. } => builder.with(tcp(config, listen, secret)),
        Address::Verbs { .. } => builder.with(verbs(config, listen, secret)),
        Address::Ofi { .. } => builder.with(ofi(config, listen, secret)),
    }
}

/// The verbs fabric.
pub(crate) fn verbs(
    config: &Config,
    listen: Option<&Address>,
    secret: Option<&Secret>,
) -> verbs::Config {
    let settings = &config.verbs;
    let advertise = settings.advertise.as_ref();
    let fabric = verbs::Config::new()
        .control(control(config, listen, advertise, secret))
        .traffic_class(u8::try_from(settings.traffic_class).unwrap_or(u8::MAX));
    let devices = settings.devices.as_ref().into_iter().flat_map(Names::iter);
    let fabric = devices.fold(fabric, verbs::Config::device);
    // Checked with the configuration.
    let index = settings.gid_index.as_ref().and_then(|index| u8::try_from(*index).ok());
    index.into_iter().fold(fabric, verbs::Config::gid_index)
}

/// The ofi fabric.
pub(crate) fn ofi(
    config: &Config,
    listen: Option<&Address>,
    secret: Option<&Secret>,
) -> ofi::Config {
    let settings = &config.ofi;
    let advertise = settings.advertise.as_ref();
    let fabric = ofi::Config::new().control(control(config, listen, advertise, secret));
    let text = |text: &'_ Maybe<Text>| text.as_ref().map(|it| it.as_str().to_owned());
    let fabric = text(&settings.provider).into_iter().fold(fabric, ofi::Config::provider);
    let fabric = text(&settings.domain).into_iter().fold(fabric, ofi::Config::domain);
    text(&settings.source).into_iter().fold(fabric, ofi::Config::source)
}

/// The tcp fabric: listening, or only to dial with.
pub(crate) fn tcp(
    config: &Config,
    listen: Option<&Address>,
    secret: Option<&Secret>,
) -> tcp::Config {
    let settings = &config.tcp;
    let fabric = control(config, listen, settings.advertise.as_ref(), secret);
    match settings.streams.as_ref().and_then(|n| u8::try_from(*n).ok()) {
        Some(streams) => fabric.streams(streams),
        None => fabric,
    }
}

/// What the connections of all fabrics between hosts have in common.
fn control(
    config: &Config,
    listen: Option<&Address>,
    advertise: Option<&Address>,
    secret: Option<&Secret>,
) -> tcp::Config {
    let fabric = tcp::Config::new();
    let fabric = match listen.and_then(Address::socket) {
        Some((host, port)) => {
            let advertised = match advertise.and_then(Address::socket) {
                Some((host, port)) => Some(format!("{host}:{port}")),
                // A wildcard is no address for others.
                _ if host == "0.0.0.0" || host == "[::]" => {
                    let name = rustix::system::uname();
                    Some(format!("{}:{port}", name.nodename().to_string_lossy()))
                }
                _ => None,
            };
            let fabric = fabric.listen(format!("{host}:{port}"));
            advertised.into_iter().fold(fabric, tcp::Config::advertise)
        }
        None => fabric.dial_only(),
    };
    let secret = secret.map(Secret::reveal);
    let fabric = secret.into_iter().fold(fabric, tcp::Config::token);
    fabric.connections_max(config.limits.max_clients as usize)
}

/// How a command reaches a daemon: at the first of some addresses where one answers.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    pub(crate) to: Addresses,
    /// What a fabric between hosts must prove.
    pub(crate) secret: Option<Secret>,
    pub(crate) config: Config,
}

impl Dial {
    /// Connects; `describe` says as whom. What is passed over is told, on standard error or, where
    /// there is one, in the log: whoever thinks to use shared memory shall not wonder why it is slow.
    ///
    /// # Errors
    /// When no daemon answers anywhere, or one refuses.
    pub(crate) fn connect(
        &self,
        describe: impl Fn(client::Builder) -> client::Builder,
    ) -> Result<Client, DialError> {
        let mut passed: Vec<(Address, client::Error)> = Vec::new();
        for address in self.to.iter() {
            match describe(self.builder(address)).connect(&address.endpoint()) {
                Ok(client) => {
                    if !passed.is_empty() {
                        announce(&Fallback { passed: &passed, used: address });
                    }
                    return Ok(client);
                }
                Err(error) if is_elsewhere(&error) => passed.push((address.clone(), error)),
                Err(error) => return Err(DialError::One(error)),
            }
        }
        match passed.pop() {
            Some((_, error)) if passed.is_empty() => Err(DialError::One(error)),
            Some(last) => {
                passed.push(last);
                Err(DialError::All(Passed(passed)))
            }
            None => Err(DialError::All(Passed(passed))),
        }
    }

    fn builder(&self, address: &Address) -> client::Builder {
        let builder = Client::builder().drive(Drive::Caller);
        between_hosts(builder, &self.config, (address, false), self.secret.as_ref())
    }
}

/// Whether a daemon may be found at another address.
fn is_elsewhere(error: &client::Error) -> bool {
    matches!(
        error,
        client::Error::Engine(_)
            | client::Error::Unreachable { .. }
            | client::Error::Disconnected { .. }
            | client::Error::Timeout { .. }
            | client::Error::NotSent { .. }
    )
}

/// What was passed over, and what is used in its place.
struct Fallback<'a> {
    passed: &'a [(Address, client::Error)],
    used: &'a Address,
}

impl fmt::Display for Fallback<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let preferred = &self.passed[0].0;
        let used = self.used;
        write!(f, "using {used} in place of {preferred}")?;
        let slower = match (preferred.fabric(), used.fabric()) {
            (Kind::Shm, used) => used != Kind::Shm,
            (Kind::Verbs, used) => used == Kind::Tcp,
            // What libfabric finds may be tcp as well.
            _ => false,
        };
        if slower {
            f.write_str(", which is slower")?;
        }
        for (_, error) in self.passed {
            write!(f, "; {error}")?;
        }
        Ok(())
    }
}

fn announce(fallback: &Fallback<'_>) {
    if tracing::dispatcher::has_been_set() {
        tracing::warn!("{fallback}");
    } else {
        output::note(&format!("warning: {fallback}"));
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The only daemon there is to ask cannot be reached, or one refuses.
    #[error(transparent)]
    One(#[from] client::Error),
    /// None of several can be reached.
    #[error("no daemon answers: {0}")]
    All(Passed),
}

/// Addresses, and why each was passed over.
#[derive(Debug)]
pub struct Passed(Vec<(Address, client::Error)>);

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (_, error)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(f, "{comma}{error}")?;
        }
        Ok(())
    }
}
