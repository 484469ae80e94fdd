//! SIGINT and SIGTERM: the first asks for an orderly end, the second ends the process at once.

use std::io;
use std::process;
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Exit;

/// Calls `asked` on the first signal, from a thread of its own.
///
/// # Errors
/// When the system has no thread or handler left.
pub(crate) fn watch(asked: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("tranship-signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            either(&mut interrupt, &mut terminate).await;
            asked();
            either(&mut interrupt, &mut terminate).await;
        });
        process::exit(Exit::Failure as i32);
    })?;
    Ok(())
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}
