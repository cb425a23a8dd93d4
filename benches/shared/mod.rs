//! What the benchmarks share: the setting, the load, what it cost, and figures. Not here: what is compared.

pub mod figures;
pub mod load;
pub mod setting;

pub use figures::Figures;

/// `cargo test --benches` also runs the benchmarks, and means something else.
pub fn is_asked_for() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}
