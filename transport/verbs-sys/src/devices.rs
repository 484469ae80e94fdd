//! The devices of this machine, and why there may be none.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::ptr::NonNull;

use super::{LoadError, Verbs, ibv_context, ibv_device};

/// The list of devices, until it is dropped; devices that were opened from it stay open.
#[derive(Debug)]
pub struct Devices<'a> {
    verbs: &'a Verbs,
    list: NonNull<*mut ibv_device>,
    count: usize,
}

/// What `ibv_get_device_list` came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Presence {
    /// There is no libibverbs; why, and what to install.
    NotInstalled(String),
    /// It is there and cannot be used; why.
    Unusable(String),
    /// The kernel has no RDMA: its modules are not loaded.
    NoKernelSupport,
    /// The kernel has it, and there is no device.
    NoDevice,
    /// The list failed; the `errno`.
    Failed(i32),
    /// So many devices.
    Devices(usize),
}

impl Presence {
    /// Judges the error of loading, or `ibv_get_device_list`'s answer: a length, or an `errno`.
    #[must_use]
    pub fn judge(answer: Result<Result<usize, i32>, &LoadError>) -> Self {
        match answer {
            Err(error) if error.is_absent() => Self::NotInstalled(error.to_string()),
            Err(error) => Self::Unusable(error.to_string()),
            Ok(Err(libc::ENOSYS)) => Self::NoKernelSupport,
            Ok(Err(errno)) => Self::Failed(errno),
            Ok(Ok(0)) => Self::NoDevice,
            Ok(Ok(count)) => Self::Devices(count),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::NotInstalled(_) => Some(
                "install libibverbs1 and ibverbs-providers (Debian, Ubuntu) or libibverbs (RHEL)",
            ),
            Self::Unusable(_) => Some("install libibverbs1 and ibverbs-providers again"),
            Self::NoKernelSupport => Some(
                "modprobe ib_uverbs and the driver of the card (mlx5_ib, say); in a container, share /dev/infiniband",
            ),
            Self::NoDevice => Some(
                "load the driver of the card (modprobe mlx5_ib, say), or rdma link add rxe0 type rxe netdev eth0 for a trial",
            ),
            Self::Failed(_) => Some("look at /sys/class/infiniband and the kernel's log"),
            Self::Devices(_) => None,
        }
    }
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInstalled(_) => f.write_str("rdma-core is not installed"),
            Self::Unusable(why) => f.write_str(why),
            Self::NoKernelSupport => f.write_str("no RDMA kernel support"),
            Self::NoDevice => f.write_str("no RDMA device"),
            Self::Failed(errno) => {
                write!(f, "the devices cannot be listed: {}", io::Error::from_raw_os_error(*errno))
            }
            Self::Devices(1) => f.write_str("1 RDMA device"),
            Self::Devices(count) => write!(f, "{count} RDMA devices"),
        }
    }
}

/// A device that is open until it is dropped.
#[derive(Debug)]
pub struct Context<'a> {
    verbs: &'a Verbs,
    context: NonNull<ibv_context>,
}

impl Verbs {
    /// `ibv_get_device_list`.
    ///
    /// # Errors
    /// Its `errno`: [`Presence::judge`] says what that means.
    pub fn devices(&self) -> Result<Devices<'_>, i32> {
        let mut count = 0;
        // SAFETY: `count` can be written.
        let list = unsafe { self.ibv_get_device_list(&raw mut count) };
        match NonNull::new(list) {
            Some(list) => {
                Ok(Devices { verbs: self, list, count: usize::try_from(count).unwrap_or(0) })
            }
            None => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOSYS)),
        }
    }
}

impl<'a> Devices<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The name of a device.
    ///
    /// # Panics
    /// Beyond the last.
    #[must_use]
    pub fn name(&self, device: usize) -> String {
        // SAFETY: a device of the list has a name.
        let name = unsafe { CStr::from_ptr(self.verbs.ibv_get_device_name(self.get(device))) };
        name.to_string_lossy().into_owned()
    }

    /// Opens a device.
    ///
    /// # Errors
    /// What its provider says.
    ///
    /// # Panics
    /// Beyond the last.
    pub fn open(&self, device: usize) -> io::Result<Context<'a>> {
        // SAFETY: the device is of the list.
        let context = unsafe { self.verbs.ibv_open_device(self.get(device)) };
        let context = NonNull::new(context).ok_or_else(io::Error::last_os_error)?;
        Ok(Context { verbs: self.verbs, context })
    }

    fn get(&self, device: usize) -> *mut ibv_device {
        assert!(device < self.count, "device {device} of {}", self.count);
        // SAFETY: the list has `count` entries.
        unsafe { *self.list.add(device).as_ptr() }
    }
}

impl Drop for Devices<'_> {
    fn drop(&mut self) {
        // SAFETY: the list is freed once; nothing of it is borrowed any more.
        unsafe { self.verbs.ibv_free_device_list(self.list.as_ptr()) };
    }
}

impl Context<'_> {
    /// The handle; it is closed with this.
    #[must_use]
    pub fn as_ptr(&self) -> *mut ibv_context {
        self.context.as_ptr()
    }

    /// The library.
    #[must_use]
    pub fn verbs(&self) -> &Verbs {
        self.verbs
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        // SAFETY: it was opened, and is closed once.
        unsafe { self.verbs.ibv_close_device(self.context.as_ptr()) };
    }
}
