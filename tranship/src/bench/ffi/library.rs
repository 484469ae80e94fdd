//! A cache called through `libtranship.so`, as a program in C calls it.
#![expect(unsafe_code, reason = "the library's interface is C")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::time::Instant;

use tranship_cache::{Identity, Key};

use super::{Caller, Took};
use crate::bench::Error;

/// The version of the interface that is used here.
const ABI_VERSION: u32 = 1;

type Handle = *mut c_void;

/// `tranship_client_options_t`.
#[repr(C)]
struct ClientOptions {
    size: usize,
    address: *const c_char,
    tenant: *const c_char,
    tenant_token: *const c_char,
    secret: *const c_char,
    name: *const c_char,
    timeout_us: u64,
}

/// `tranship_identity_t`.
#[repr(C)]
struct CIdentity {
    size: usize,
    model: *const c_char,
    revision: *const c_char,
    dtype: *const c_char,
    layout: *const c_char,
    salt: *const c_char,
    layers: u32,
    kv_heads: u32,
    head_dim: u32,
    tp_size: u32,
    tp_rank: u32,
    pp_size: u32,
    pp_rank: u32,
    block_tokens: u32,
}

/// Declares the functions that are used, and how they are found.
macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) -> $result:ty;)*) => {
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            fn find(library: Handle) -> Result<Self, Error> {
                Ok(Self {
                    $($name: {
                        let name = concat!("tranship_", stringify!($name), "\0");
                        let at = symbol(library, name)?;
                        // SAFETY: the header gives the function of this name this type.
                        unsafe { std::mem::transmute::<Handle, unsafe extern "C" fn($($argument),*) -> $result>(at) }
                    },)*
                })
            }
        }
    };
}

functions! {
    require: fn(u32) -> c_int;
    last_error: fn() -> *const c_char;
    client_connect: fn(*const ClientOptions, *mut Handle) -> c_int;
    client_close: fn(Handle) -> c_int;
    cache_open: fn(Handle, *const CIdentity, *mut Handle) -> c_int;
    cache_close: fn(Handle) -> c_int;
    lookup: fn(Handle, *const Key, usize, *mut usize, *mut u8) -> c_int;
    lease_open: fn(Handle, *const Key, usize, u64, u64, *mut c_void, *mut Handle) -> c_int;
    lease_read: fn(Handle, usize, *mut c_void, usize) -> c_int;
    lease_close: fn(Handle) -> c_int;
}

/// A library of the right version. It stays loaded.
pub struct Library {
    path: PathBuf,
    functions: Functions,
}

/// A connection of its own, over the library.
pub struct Connection {
    library: Library,
    client: Handle,
    cache: Handle,
}

/// Where a library is looked for that nobody named: next to this binary, as `make ffi` puts it, then in
/// the `lib` beside its directory, then where the system looks.
#[must_use]
pub fn usual_path() -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    let near = ["libtranship.so", "../lib/libtranship.so"];
    let mut near = near.iter().filter_map(|name| Some(here.parent()?.join(name)));
    near.find(|path| path.exists()).unwrap_or_else(|| "libtranship.so.1".into())
}

impl Library {
    /// Loads it.
    ///
    /// # Errors
    /// When there is none, or it is of another version.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let name = CString::new(path.as_os_str().as_bytes()).unwrap_or_default();
        // SAFETY: a text; the library's own start runs, as for any program that is linked with it.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(failed());
        }
        let library = Self { path: path.to_owned(), functions: Functions::find(handle)? };
        // SAFETY: it takes a number.
        library.check(unsafe { (library.functions.require)(ABI_VERSION) })?;
        Ok(library)
    }

    /// Connects to a daemon.
    ///
    /// # Errors
    /// When the daemon cannot be reached or refuses.
    pub fn connect(
        self,
        address: &str,
        token: &str,
        identity: &Identity,
    ) -> Result<Connection, Error> {
        let (client, cache) = (ptr::null_mut(), ptr::null_mut());
        let mut connection = Connection { library: self, client, cache };
        let [address, tenant, token] = [address, &identity.tenant, token].map(text);
        let options = ClientOptions {
            size: size_of::<ClientOptions>(),
            address: address.as_ptr(),
            tenant: tenant.as_ptr(),
            tenant_token: token.as_ptr(),
            secret: ptr::null(),
            name: c"tranship bench, in C".as_ptr(),
            timeout_us: 0,
        };
        let client = &raw mut connection.client;
        let connect = connection.library.functions.client_connect;
        // SAFETY: options and texts live through the call, and there is room for the handle.
        let status = unsafe { connect(&raw const options, client) };
        connection.library.check(status)?;
        connection.open(identity)?;
        Ok(connection)
    }

    fn check(&self, status: c_int) -> Result<(), Error> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: a text that stays until the next call that fails on this thread.
        let why = unsafe { CStr::from_ptr((self.functions.last_error)()) }.to_string_lossy();
        Err(Error::Library { why: format!("{}: {why}", self.path.display()) })
    }
}

impl Connection {
    fn open(&mut self, identity: &Identity) -> Result<(), Error> {
        let Identity { model, revision, dtype, layout, salt, geometry, .. } = identity;
        let texts = [model, revision, dtype, layout, salt].map(|it| text(it));
        let at = |index: usize| texts[index].as_ptr();
        let identity = CIdentity {
            size: size_of::<CIdentity>(),
            model: at(0),
            revision: at(1),
            dtype: at(2),
            layout: at(3),
            salt: at(4),
            layers: geometry.layers,
            kv_heads: geometry.kv_heads,
            head_dim: geometry.head_dim,
            tp_size: geometry.tp_size,
            tp_rank: geometry.tp_rank,
            pp_size: geometry.pp_size,
            pp_rank: geometry.pp_rank,
            block_tokens: identity.block_tokens,
        };
        let cache = &raw mut self.cache;
        // SAFETY: the identity and its texts live through the call, and there is room for the handle.
        let status =
            unsafe { (self.library.functions.cache_open)(self.client, &raw const identity, cache) };
        self.library.check(status)
    }
}

impl Caller for Connection {
    fn name(&self) -> &'static str {
        "c"
    }

    fn lookup(&mut self, keys: &[Key]) -> Result<(usize, Took), Error> {
        let (began, mut prefix) = (Instant::now(), 0);
        let lookup = self.library.functions.lookup;
        // SAFETY: a key is its 16 bytes, there are so many, and there is room for the answer.
        self.library.check(unsafe {
            lookup(self.cache, keys.as_ptr(), keys.len(), &raw mut prefix, ptr::null_mut())
        })?;
        Ok((prefix, Took::one(began)))
    }

    fn get(&mut self, key: Key, into: &mut [u8]) -> Result<Took, Error> {
        let began = Instant::now();
        let mut lease = ptr::null_mut();
        // SAFETY: one key, which is its 16 bytes, and there is room for the handle.
        self.library.check(unsafe {
            let (key, none) = (&raw const key, ptr::null_mut());
            (self.library.functions.lease_open)(self.cache, key, 1, 0, 0, none, &raw mut lease)
        })?;
        // SAFETY: as many bytes as it says may be written.
        let read = unsafe {
            (self.library.functions.lease_read)(lease, 0, into.as_mut_ptr().cast(), into.len())
        };
        let read = self.library.check(read);
        // SAFETY: a handle, which is used no more.
        self.library.check(unsafe { (self.library.functions.lease_close)(lease) })?;
        read.map(|()| Took::one(began))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: handles, which are used no more, or NULL, which is refused. The library stays loaded.
        unsafe {
            (self.library.functions.cache_close)(self.cache);
            (self.library.functions.client_close)(self.client);
        }
    }
}

fn text(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

fn symbol(library: Handle, name: &str) -> Result<Handle, Error> {
    // SAFETY: the handle of a library that stays loaded, and a text that ends with a NUL.
    let at = unsafe { libc::dlsym(library, name.as_ptr().cast()) };
    if at.is_null() { Err(failed()) } else { Ok(at) }
}

/// What the loader says.
fn failed() -> Error {
    // SAFETY: a text of this thread, or NULL.
    let why = unsafe { libc::dlerror() };
    let why = if why.is_null() {
        "no reason".into()
    } else {
        // SAFETY: not NULL.
        unsafe { CStr::from_ptr(why) }.to_string_lossy()
    };
    Error::Library { why: format!("{why}; `make ffi` builds it, --library names it") }
}
