//! Values that must not be printed. `Debug` and `Display` of both wrappers print a mark only;
//! whoever needs the value says so with `expose`, which a reader can search for.

use core::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Key material, a password, card digits: wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself; must not reach a log, an error or an event.
    pub const fn expose(&self) -> &T {
        &self.0
    }

    /// The value itself, to change in place.
    pub const fn expose_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> ZeroizeOnDrop for Secret<T> {}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// What identifies a person or was said by one: a number, a name, an address, a transcript.
/// It may be shown to its owner and stored sealed; it is never logged.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Personal<T>(T);

impl<T> Personal<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself; must not reach a log, an error or an event.
    pub const fn expose(&self) -> &T {
        &self.0
    }

    /// Unwraps the value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for Personal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[personal]")
    }
}

impl<T> fmt::Display for Personal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[personal]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    #[test]
    fn neither_wrapper_prints_its_value() {
        let secret = Secret::new(String::from("hunter2"));
        let personal = Personal::new("+15550100");
        let printed = format!("{secret:?} {personal:?} {personal}");
        assert_eq!(printed, "[secret] [personal] [personal]");
        assert_eq!(secret.expose(), "hunter2");
    }
}
