//! The `callgate` program; everything is in the `cli` member.

#![forbid(unsafe_code)]

/// A call is some thousand small pieces of memory: this one takes them in a third of the time that
/// the system's needs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
