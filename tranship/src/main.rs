//! The `tranship` binary; everything it does is in the library beside it.

use std::process::ExitCode;

/// What libfabric's `ofi_rxm` reserves for each of its buffers, of which it zeroes thousands for every
/// endpoint: 16 KiB unless told otherwise. Nothing of ours that goes through them is longer than this.
const RXM_BUFFER: (&str, &str) = ("FI_OFI_RXM_BUFFER_SIZE", "2048");

fn main() -> ExitCode {
    let (name, value) = RXM_BUFFER;
    if std::env::var_os(name).is_none() {
        // SAFETY: no other thread is there yet.
        unsafe { std::env::set_var(name, value) };
    }
    tranship_cli::cli::main()
}
