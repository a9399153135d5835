//! The `callgate` program; everything is in the `cli` member.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    cli::main()
}
