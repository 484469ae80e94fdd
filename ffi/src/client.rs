//! Connections to a daemon.

use std::ffi::c_char;
use std::time::Duration;

use tranship_kv::Dial;
use tranship_kv::dial::DialError;

use crate::call::call;
use crate::handle;
use crate::input::{self, option_structs};
use crate::output::{self, Out};
use crate::status::{Failure, tranship_status_t};

/// A connection to a daemon. When the daemon goes away, calls fail with TRANSHIP_DISCONNECTED and the next
/// one connects again. All calls may be made from any thread.
pub struct tranship_client_t {
    _opaque: [u8; 0],
}

/// Which daemon, and as whom. 0 and NULL are "as usual".
#[repr(C)]
#[derive(Clone, Copy)]
pub struct tranship_client_options_t {
    /// TRANSHIP_INIT sets it.
    pub size: usize,
    /// "unix:///PATH", or "tcp://HOST:PORT", "verbs://HOST:PORT", "ofi://HOST:PORT"; as usual TRANSHIP_ADDRESS
    /// of the environment, else this user's socket.
    pub address: *const c_char,
    /// Whose blocks; as usual "default".
    pub tenant: *const c_char,
    /// The tenant's token; as usual none.
    pub tenant_token: *const c_char,
    /// The secret of the tcp fabric; as usual TRANSHIP_TOKEN of the environment, if that is set.
    pub secret: *const c_char,
    /// What the client calls itself in the daemon's logs; as usual its process.
    pub name: *const c_char,
    /// How long a call may take, beyond what it is asked to wait; as usual 5 s.
    pub timeout_us: u64,
}

option_structs! {
    tranship_client_options_t: 56;
}

/// What the handle stands for.
pub struct Client(pub(crate) tranship_cache::client::Client);

/// Connects to a daemon. `options` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_client_connect(
    options: *const tranship_client_options_t,
    client: *mut *mut tranship_client_t,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let out = Out::handle(client, "client")?;
        let options = input::options(options)?;
        let text = |at, what| Ok::<_, Failure>(input::text(at, what)?.map(str::to_owned));
        let mut dial = Dial {
            address: text(options.address, "address")?,
            secret: text(options.secret, "secret")?,
            name: text(options.name, "name")?,
            ..Dial::default()
        };
        if let Some(tenant) = text(options.tenant, "tenant")? {
            dial.tenant = tenant;
        }
        if let Some(token) = text(options.tenant_token, "tenant_token")? {
            dial.tenant_token = token;
        }
        if let Some(timeout) = input::span(options.timeout_us)? {
            dial.timeout = timeout;
        }
        out.set(handle::open(Client(dial.connect()?))?);
        Ok(())
    })
}

impl From<DialError> for Failure {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Client(error) => error.into(),
            other => Self::invalid(other.to_string()),
        }
    }
}

/// Asks for a sign of life; `us`, which may be NULL, is how long it took.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_client_ping(
    client: *mut tranship_client_t,
    us: *mut u64,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let took: Duration = handle::get::<Client>(client)?.0.ping()?;
        if !us.is_null() {
            Out::new(us, "us")?.set(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
        Ok(())
    })
}

/// Whether blocks are read and filled in place, in the daemon's memory, and not passed through memory of the
/// client's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_client_is_mapped(
    client: *mut tranship_client_t,
    mapped: *mut u32,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let mapped = Out::new(mapped, "mapped")?;
        mapped.set(u32::from(handle::get::<Client>(client)?.0.is_mapped()?));
        Ok(())
    })
}

/// The tenant's statistics, a JSON text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tranship_client_stats(
    client: *mut tranship_client_t,
    buffer: *mut c_char,
    capacity: usize,
    len: *mut usize,
) -> tranship_status_t {
    // SAFETY: the caller keeps to what the header asks of pointers.
    call(|| unsafe {
        let stats = handle::get::<Client>(client)?.0.stats()?;
        output::text(&stats, buffer, capacity, len)
    })
}

/// Closes the handle. Caches, leases and rooms that it gave out keep the connection until they are closed.
#[unsafe(no_mangle)]
pub extern "C" fn tranship_client_close(client: *mut tranship_client_t) -> tranship_status_t {
    call(|| handle::close::<Client>(client).map(drop))
}
