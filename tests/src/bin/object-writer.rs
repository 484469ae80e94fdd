//! Stores blocks in a bucket until it is killed, and says which of them are safe.
//!
//! `object-writer URL NODE FIRST LEN NAME=VALUE…`

use std::io::Write;
use std::time::Duration;

use tranship_cache::tier::object::Options;
use tranship_tests::cold::{Rig, block};

fn main() {
    let mut args = std::env::args().skip(1);
    let mut word = || args.next().expect("URL NODE FIRST LEN");
    let mut options = Options::new(word(), word());
    let (first, len): (u32, usize) = (word().parse().unwrap(), word().parse().unwrap());
    for setting in args {
        let (name, value) = setting.split_once('=').expect("NAME=VALUE");
        options = options.with(name, value);
    }
    options.pack_bytes = 12 << 20;
    options.part_bytes = 5 << 20;
    options.buffer_bytes = 64 << 20;
    options.pack_age = Duration::from_millis(200);
    let rig = Rig::open(options).expect("a bucket");
    let mut stdout = std::io::stdout();
    for number in first.. {
        let (record, bytes) = block(number, len);
        // Some alone, some many together.
        let durable = number % 7 == 0;
        rig.store(record, &bytes, durable).expect("it is stored");
        if durable {
            writeln!(stdout, "{number}").and_then(|()| stdout.flush()).expect("somebody listens");
        }
    }
}
