//! Micro-benchmarks of Tranship; run with `cargo bench -p tranship-benches`.
