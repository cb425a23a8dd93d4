//! The stock server: it serves the app that its config file declares.

fn main() -> std::process::ExitCode {
    ferricorn::run_stock()
}
