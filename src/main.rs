//! The `callgate` program; everything is in the `cli` member.

fn main() -> std::process::ExitCode {
    cli::main()
}
